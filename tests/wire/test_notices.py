"""What participants are told in a call: who speaks, which layers are wanted, whom they may have,
how good connections are."""

import asyncio
import time

from livekit.protocol import models, rtc

from harness import expect, test, until
from probe import Probe
from test_layers import layer_of, on_layer


async def people(room, *names, **arguments):
    probes = [Probe(room, name) for name in names]
    for probe in probes:
        await probe.connect(**arguments)
    return probes


def speaking(probe, sid, since=0.0):
    """(time, active, level) of everything the probe was told about that participant."""
    return [(at, speaker.active, speaker.level) for at, kind, body in probe.log
            if kind == "speakers_changed" and at >= since
            for speaker in body.speakers if speaker.sid == sid]


@test("LK-48", "speech is told within a second to who hears it and who speaks, and ends")
async def _():
    anna, ben = await people("speakers", "anna", "ben")
    carl = Probe("speakers", "carl")
    await carl.connect(auto_subscribe=False)
    track, voice = await anna.publish_audio()
    voice.level = 127
    sid = anna.join.participant.sid
    await ben.flow(await ben.subscription(track.sid), count=30)
    expect(not speaking(ben, sid), "silence was told as speech")
    began = time.monotonic()
    voice.level = 8
    for probe in (ben, anna):
        await until(lambda p=probe: speaking(p, sid), f"{probe.identity} learns who speaks", 3)
        at, active, level = speaking(probe, sid)[0]
        expect(at - began < 1, f"{probe.identity} is told after {at - began:.2f} s")
        expect(active and 0 < level <= 1 and level * 8 == int(level * 8), f"level {level}")
    await asyncio.sleep(1)
    told = speaking(ben, sid)
    expect(len(told) <= 3, f"the same level is told again and again: {told}")
    # Who comes to hear it while it goes on learns of it, and of its end when it hears no longer.
    dora = Probe("speakers", "dora")
    await dora.connect()
    await until(lambda: speaking(dora, sid), "dora learns who speaks", 2)
    await dora.request(subscription=rtc.UpdateSubscription(track_sids=[track.sid]))
    await until(lambda: not speaking(dora, sid)[-1][1], "dora is told no longer", 2)
    expect(not speaking(carl, sid), "somebody who hears nothing was told who speaks")
    ended = time.monotonic()
    voice.level = 127
    for probe in (ben, anna):
        await until(lambda p=probe: not speaking(p, sid)[-1][1], "speech ends", 3)
        expect(speaking(probe, sid)[-1][2] == 0, "an end with a level")
    return f"told after {told[0][0] - began:.2f} s, ended after {time.monotonic() - ended:.2f} s"


@test("LK-48", "who mutes in the middle of a word has stopped to speak")
async def _():
    anna, ben = await people("speakers-mute", "anna", "ben")
    track, voice = await anna.publish_audio()
    voice.level = 10
    sid = anna.join.participant.sid
    await until(lambda: speaking(ben, sid), "ben learns who speaks", 5)
    await anna.request(mute=rtc.MuteTrackRequest(sid=track.sid, muted=True))
    await until(lambda: not speaking(ben, sid)[-1][1], "speech ends", 1.5)


def demands(probe, sid, since=0.0):
    """(time, enabled qualities) of everything the publisher was told to send."""
    found = []
    for at, kind, body in probe.log:
        if kind == "subscribed_quality_update" and body.track_sid == sid and at >= since:
            (codec,) = body.subscribed_codecs
            expect(codec.codec == "vp8", f"codec {codec.codec}")
            expect(list(codec.qualities) == list(body.subscribed_qualities), "two opinions")
            expect([q.quality for q in codec.qualities] == [0, 1, 2], "not all qualities")
            found.append((at, [q.quality for q in codec.qualities if q.enabled]))
    return found


@test("LK-45", "a layer nobody wants is disabled after 5 s, and enabled and forwarded at once")
async def _():
    anna, ben = await people("dynacast", "anna", "ben")
    track, camera = await anna.publish_video()
    section = await ben.subscription(track.sid)
    await on_layer(ben, section, "f")
    expect(not demands(anna, track.sid), "told although everything is wanted")
    asked = time.monotonic()
    await ben.settings(track.sid, quality=models.LOW)
    await until(lambda: demands(anna, track.sid), "less is wanted", 8)
    at, enabled = demands(anna, track.sid)[-1]
    expect(enabled == [models.LOW], f"enabled are {enabled}")
    expect(4.5 < at - asked < 6, f"told after {at - asked:.1f} s")
    camera.paused = {"h", "f"}
    await asyncio.sleep(2)  # longer than it takes to call a layer dead
    notes = [f"off after {at - asked:.1f} s"]
    asked = time.monotonic()
    await ben.settings(track.sid, quality=models.HIGH)
    await until(lambda: demands(anna, track.sid, asked), "more is wanted", 2)
    at, enabled = demands(anna, track.sid, asked)[0]
    expect(enabled == [models.LOW, models.MEDIUM, models.HIGH], f"enabled are {enabled}")
    expect(at - asked < 0.2, f"told after {at - asked:.2f} s")
    notes.append(f"on after {at - asked:.3f} s")
    camera.paused = set()
    took = await on_layer(ben, section, "f", 2)
    notes.append(f"forwarded after {took:.2f} s")
    asked = time.monotonic()
    await ben.request(subscription=rtc.UpdateSubscription(track_sids=[track.sid]))
    await until(lambda: demands(anna, track.sid, asked), "nothing is wanted", 8)
    at, enabled = demands(anna, track.sid, asked)[0]
    expect(enabled == [] and 4.5 < at - asked < 6, f"{enabled} after {at - asked:.1f} s")
    return ", ".join(notes)


@test("LK-45", "the best wish of all counts, and a hidden tile is none")
async def _():
    anna, ben, carl = await people("dynacast-two", "anna", "ben", "carl")
    track, _ = await anna.publish_video()
    for probe in (ben, carl):
        await probe.flow(await probe.subscription(track.sid))
    await ben.settings(track.sid, quality=models.LOW)
    await carl.settings(track.sid, width=640, height=360)
    await until(lambda: demands(anna, track.sid), "less is wanted", 8)
    expect(demands(anna, track.sid)[-1][1] == [models.LOW, models.MEDIUM],
           f"{demands(anna, track.sid)}")
    await carl.settings(track.sid, disabled=True)
    await until(lambda: len(demands(anna, track.sid)) > 1, "still less is wanted", 8)
    expect(demands(anna, track.sid)[-1][1] == [models.LOW], f"{demands(anna, track.sid)}")


def permissions(probe, sid):
    return [body.allowed for body in probe.messages("subscription_permission_update")
            if body.track_sid == sid]


@test("LK-47", "a publisher restricts who has its tracks, and lets them again")
async def _():
    anna, ben, carl = await people("restricted", "anna", "ben", "carl")
    track, _ = await anna.publish_video()
    sections = {probe: await probe.subscription(track.sid) for probe in (ben, carl)}
    for probe, section in sections.items():
        await probe.flow(section)
    # ben by identity, eva who isn't there yet, and nobody else.
    allow = [rtc.TrackPermission(participant_identity="ben", all_tracks=True),
             rtc.TrackPermission(participant_identity="eva", track_sids=[track.sid])]
    asked = time.monotonic()
    await anna.request(subscription_permission=rtc.SubscriptionPermission(
        all_participants=False, track_permissions=allow))
    await until(lambda: permissions(carl, track.sid) == [False], "carl is told", 2)
    update = carl.messages("subscription_permission_update")[0]
    expect(update.participant_sid == anna.join.participant.sid, "of another participant")
    await until(lambda: track.sid not in carl.mid_tracks.values(), "carl's section is free", 3)
    last = carl.received(sections[carl])[-1].at
    expect(last - asked < 0.3, f"carl had packets for {last - asked:.2f} s more")
    await ben.flow(sections[ben], count=30)
    expect(not permissions(ben, track.sid), "ben was told something")
    eva, dora = await people("restricted", "eva", "dora")
    await eva.flow(await eva.subscription(track.sid))
    await until(lambda: permissions(dora, track.sid) == [False], "dora is told", 2)
    second, _ = await anna.publish_audio()
    await ben.flow(await ben.subscription(second.sid))
    await asyncio.sleep(0.5)
    for probe in (carl, dora, eva):
        expect(second.sid not in probe.mid_tracks.values(), f"{probe.identity} has the new track")
    # One who asks in so many words gets it no more than the others.
    await dora.request(subscription=rtc.UpdateSubscription(
        track_sids=[track.sid], subscribe=True))
    await asyncio.sleep(0.5)
    expect(track.sid not in dora.mid_tracks.values(), "dora has the track")
    await anna.request(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    for probe in (carl, dora):
        for sid in (track.sid, second.sid):
            await probe.flow(await probe.subscription(sid))
            expect(permissions(probe, sid) == [False, True], f"{permissions(probe, sid)}")
    expect(permissions(eva, second.sid) == [False, True], f"{permissions(eva, second.sid)}")


def qualities(probe, sid, since=0.0):
    return [(at, update.quality, update.score) for at, kind, body in probe.log
            if kind == "connection_quality" and at >= since
            for update in body.updates if update.participant_sid == sid]


@test("LK-49", "quality follows loss; silence is no loss; LOST is who sends nothing at all",
      seconds=90)
async def _():
    anna, ben = await people("quality", "anna", "ben")
    carl = Probe("quality", "carl")
    await carl.connect(auto_subscribe=False)
    track, voice = await anna.publish_audio()
    await ben.flow(await ben.subscription(track.sid))
    sid = anna.join.participant.sid
    for probe in (anna, ben):
        await until(lambda p=probe: qualities(p, sid), f"{probe.identity} learns of it", 7)
        _, quality, score = qualities(probe, sid)[-1]
        expect(quality == models.EXCELLENT and 4 < score <= 5, f"{quality}, {score}")
    # One packet of three goes missing on the way up.
    packet = voice.packet
    voice.packet = lambda: packet() if voice.count % 3 else (packet(), packet())[1]
    await until(lambda: qualities(ben, sid)[-1][1] == models.POOR, "a poor connection", 12)
    voice.packet = packet
    await until(lambda: qualities(ben, sid)[-1][1] == models.EXCELLENT, "a good one again", 12)
    # As a page does which sends nothing for a while without muting.
    paused = time.monotonic()
    voice.paused = True
    await asyncio.sleep(13)
    expect(not qualities(ben, sid, paused) and not qualities(anna, sid, paused),
           f"a pause was told as {qualities(ben, sid, paused)}")
    # As a process does which is stopped.
    anna.peer.ice.quiet = True
    anna.peer.reports.cancel()
    await until(lambda: qualities(ben, sid)[-1][1] == models.LOST, "a lost connection", 14)
    expect(qualities(ben, sid)[-1][2] == 0, "with a score")
    lost = time.monotonic() - paused
    anna.peer.ice.quiet = voice.paused = False
    await until(lambda: qualities(ben, sid)[-1][1] == models.EXCELLENT, "it is back", 7)
    expect(not any(qualities(probe, other.join.participant.sid) for probe, other in
                   ((carl, anna), (carl, ben), (ben, carl))), "a stranger was told")
    return f"lost {lost - 13:.1f} s after the last sign of life"


@test("LK-43", "auto_subscribe=0: nothing comes before it is asked for, nor after it is given back")
async def _():
    anna, = await people("manual", "anna")
    track, voice = await anna.publish_audio()
    video, _ = await anna.publish_video()
    ben = Probe("manual", "ben")
    await ben.connect(auto_subscribe=False)
    await asyncio.sleep(1)
    expect(not ben.mid_tracks and not ben.peer.packets, "something came unasked")
    expect(not ben.requirements, "sections were asked for")
    await ben.request(subscription=rtc.UpdateSubscription(
        track_sids=[track.sid], subscribe=True))
    section = await ben.subscription(track.sid)
    await ben.flow(section)
    expect(video.sid not in ben.mid_tracks.values(), "the other track came too")
    await ben.request(subscription=rtc.UpdateSubscription(track_sids=[track.sid]))
    await until(lambda: not ben.mid_tracks, "the section is free", 3)
    # Neither news of it nor another track brings it back.
    for muted in (True, False):
        await anna.request(mute=rtc.MuteTrackRequest(sid=track.sid, muted=muted))
    await anna.publish_audio("another")
    count = len(ben.received(section))
    await asyncio.sleep(1)
    expect(len(ben.received(section)) == count and not ben.mid_tracks, "it came back")
    expect(voice.count > 0, "nothing was sent")


def track_of(probe, identity, sid):
    info = probe.knows(identity)
    return next((track for track in info.tracks if track.sid == sid), None) if info else None


@test("LK-37", "unpublishing by offer is seen within 500 ms; the same cid may be queued")
async def _():
    anna, ben = await people("republish", "anna", "ben")
    track, voice = await anna.publish_audio()
    await ben.flow(await ben.subscription(track.sid))
    cid = voice.section.track
    # Published once more under the same id, before the first one ends.
    await anna.request(add_track=rtc.AddTrackRequest(
        cid=cid, type=models.AUDIO, source=models.MICROPHONE, name="again"))
    refusal = await anna.message("request_response")
    expect(refusal.reason == rtc.RequestResponse.QUEUED, f"reason {refusal.reason}")
    expect(refusal.add_track.cid == cid, "of another request")
    voice.stop()
    voice.section.direction = "inactive"
    asked = time.monotonic()
    await anna.negotiate()
    await until(lambda: not track_of(ben, "anna", track.sid), "ben sees it go", 2)
    took = time.monotonic() - asked
    expect(took < 0.5, f"seen after {took:.2f} s")
    again = (await anna.message("track_published", lambda body: body.track.name == "again")).track
    expect(again.sid != track.sid, "the sid of the old one")
    voice.section.direction = "sendonly"
    await anna.negotiate()
    await until(lambda: track_of(ben, "anna", again.sid), "ben sees the new one", 2)
    await ben.subscription(again.sid)
    return f"gone after {took * 1000:.0f} ms"


@test("", "features of a microphone and the size of a camera may change")
async def _():
    anna, ben = await people("amended", "anna", "ben")
    voice, _ = await anna.publish_audio()
    camera, _ = await anna.publish_video()
    features = [models.TF_NOISE_SUPPRESSION, models.TF_ECHO_CANCELLATION]
    await anna.request(update_audio_track=rtc.UpdateLocalAudioTrack(
        track_sid=voice.sid, features=features))
    await anna.request(update_video_track=rtc.UpdateLocalVideoTrack(
        track_sid=camera.sid, width=1920, height=1080))
    await until(lambda: set(features) <= set(track_of(ben, "anna", voice.sid).audio_features),
                "new features", 2)
    await until(lambda: (track_of(ben, "anna", camera.sid).width,
                         track_of(ben, "anna", camera.sid).height) == (1920, 1080), "a size", 2)
    # Nobody else's.
    await ben.request(update_video_track=rtc.UpdateLocalVideoTrack(
        track_sid=camera.sid, width=1, height=1))
    await asyncio.sleep(0.3)
    expect(track_of(ben, "anna", camera.sid).width == 1920, "ben changed anna's camera")


async def skew(probe, rates, seconds=8):
    """How far apart tracks are on the wall clock of the sender reports, in seconds. `rates` are
    the RTP clocks by SSRC; reports and packets from now on count."""
    since = time.monotonic()

    def known():
        reports = {packet.media_ssrc: packet for at, packet in probe.peer.rtcp
                   if packet.kind == 200 and packet.media_ssrc in rates and at >= since}
        fresh = all(probe.peer.packets[ssrc][-1].at >= since for ssrc in rates)
        return reports if len(reports) == len(rates) and fresh else None

    reports = await until(known, "sender reports of all tracks", seconds)
    offsets = []
    for ssrc, rate in rates.items():
        packet = probe.peer.packets[ssrc][-1]
        delta = ((packet.timestamp - reports[ssrc].rtp + 2**31) & 0xFFFFFFFF) - 2**31
        offsets.append(reports[ssrc].ntp / 2**32 + delta / rate - packet.at)
    return max(offsets) - min(offsets)


@test("LK-74", "picture and voice stay together over layer switches and pauses of the sender",
      seconds=60)
async def _():
    anna, ben = await people("skew", "anna", "ben")
    video, camera = await anna.publish_video()
    audio, voice = await anna.publish_audio()
    picture, sound = await ben.subscription(video.sid), await ben.subscription(audio.sid)
    rates = {picture.ssrcs[0]: 90000, sound.ssrcs[0]: 48000}
    await on_layer(ben, picture, "f")
    found = {"at first": await skew(ben, rates)}
    for quality, rid in ((models.LOW, "q"), (models.HIGH, "f")):
        await ben.settings(video.sid, quality=quality)
        await on_layer(ben, picture, rid)
        found[f"on {rid}"] = await skew(ben, rates)
    camera.paused = {"q", "h", "f"}
    await asyncio.sleep(3)
    camera.paused = set()
    await on_layer(ben, picture, "f")
    found["after a pause of the camera"] = await skew(ben, rates)
    voice.paused = True
    await asyncio.sleep(3)
    voice.paused = False
    await ben.flow(sound)
    found["after a pause of the voice"] = await skew(ben, rates)
    worst = max(found, key=found.get)
    expect(found[worst] < 0.1, f"{found[worst] * 1000:.0f} ms apart {worst}")
    return f"at most {found[worst] * 1000:.1f} ms, {worst}"
