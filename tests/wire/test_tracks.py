"""Publishing: announcements, matching of pending tracks, mute, order of news and media."""

import re
import time

from livekit.protocol import models, rtc

from harness import expect, test, until
from probe import Probe, Voice


@test("LK-32", "track_published comes within 100 ms, with cid and a telling sid")
async def _():
    anna = Probe("published", "anna")
    await anna.connect()
    cases = [
        (models.AUDIO, models.MICROPHONE, r"TR_AM\w+"),
        (models.VIDEO, models.CAMERA, r"TR_VC\w+"),
        (models.VIDEO, models.SCREEN_SHARE, r"TR_VS\w+"),
        (models.AUDIO, models.SCREEN_SHARE_AUDIO, r"TR_As\w+"),
        (models.AUDIO, models.UNKNOWN, r"TR_A\w+"),
    ]
    slowest = 0
    sids = set()
    for number, (kind, source, pattern) in enumerate(cases):
        sent = time.monotonic()
        track = await anna.add_track(f"cid {number}", kind, source=source, name=f"n{number}")
        slowest = max(slowest, anna.log[-1][0] - sent)
        expect(re.fullmatch(pattern, track.sid), f"sid {track.sid} for {pattern}")
        expect((track.type, track.source, track.name) == (kind, source, f"n{number}"), str(track))
        sids.add(track.sid)
    again = await anna.add_track("cid 0", models.AUDIO, source=models.MICROPHONE, name="n0")
    expect(again.sid in sids, "the same pending cid got another sid")
    expect(slowest < 0.1, f"{slowest * 1000:.0f} ms")
    return f"slowest {slowest * 1000:.1f} ms"


@test("LK-33", "pending tracks are matched by cid, else in their order")
async def _():
    anna, ben = Probe("matching", "anna"), Probe("matching", "ben")
    await anna.connect()
    await ben.connect()
    # Two by their cid, offered in the other order than announced.
    tracks = {cid: await anna.add_track(cid, models.AUDIO, name=cid) for cid in ("left", "right")}
    sections = {cid: anna.section("audio", cid, ssrc=ssrc)
                for cid, ssrc in (("right", 4001), ("left", 4002))}
    await anna.negotiate()
    # And one whose id the browser changed on the way.
    other = await anna.add_track("announced", models.AUDIO, name="other")
    sections["other"] = anna.section("audio", "changed", ssrc=4003)
    tracks["other"] = other
    await anna.negotiate()
    for position, (name, section) in enumerate(sections.items()):
        voice = Voice(anna, section, section.ssrc)
        voice.mark = position + 1
        received = await ben.subscription(tracks[name].sid)
        await ben.flow(received)
        heard = ben.received(received)[-1].payload[1]
        expect(heard == position + 1, f"on {name} came the voice number {heard}")


@test("LK-36", "TrackInfo names the three layers; two layers keep their qualities")
async def _():
    anna, ben = Probe("qualities", "anna"), Probe("qualities", "ben")
    await anna.connect()
    await ben.connect()
    for rids, expected in ((("q", "h", "f"), [models.LOW, models.MEDIUM, models.HIGH]),
                           (("q", "h"), [models.LOW, models.HIGH])):
        track, camera = await anna.publish_video(f"camera {len(rids)}", rids)
        update = await ben.message("update", lambda u, sid=track.sid: any(
            t.sid == sid for p in u.participants for t in p.tracks))
        info = next(t for p in update.participants for t in p.tracks if t.sid == track.sid)
        layers = info.layers or info.codecs[0].layers
        expect([layer.quality for layer in layers] == expected, f"layers {list(layers)}")
        expect(info.simulcast, "simulcast is not set")
        section = await ben.subscription(track.sid)
        await ben.settings(track.sid, quality=models.HIGH)
        top = rids[-1].encode()
        await until(lambda: any(b"MARK" + top in p.payload for p in ben.received(section)[-3:]),
                    f"packets of the layer {rids[-1]} on HIGH", 8)
        await ben.settings(track.sid, quality=models.LOW)
        await until(lambda: all(b"MARKq" in p.payload for p in ben.received(section)[-6:]),
                    "only packets of q on LOW", 8)
        camera.stop()


@test("LK-41", "the news of a track comes before the SDP that carries it")
async def _():
    anna, ben = Probe("order", "anna"), Probe("order", "ben")
    await ben.connect()
    await anna.connect()
    tracks = []
    for number in range(4):
        tracks.append((await anna.publish_audio(f"voice {number}"))[0])
        tracks.append((await anna.publish_video(f"camera {number}", ()))[0])
    for track in tracks:
        await ben.subscription(track.sid)
    cora = Probe("order", "cora")
    await cora.connect()
    for track in tracks:
        await cora.subscription(track.sid)
    for probe in (ben, cora):
        for track in tracks:
            told = mapped = None
            for position, (_, kind, body) in enumerate(probe.log):
                people = {"join": lambda b: b.other_participants,
                          "update": lambda b: b.participants}.get(kind, lambda b: ())(body)
                if told is None and any(t.sid == track.sid for p in people for t in p.tracks):
                    told = position
                if mapped is None and kind == "answer" and track.sid in body.sdp:
                    mapped = position
            expect(told is not None and mapped is not None and told < mapped,
                   f"{probe.identity}: news at {told}, SDP at {mapped}")


@test("LK-42", "stream and track names of a sent section, one SSRC and its RTX")
async def _():
    anna, ben = Probe("naming", "anna"), Probe("naming", "ben")
    await anna.connect()
    await ben.connect()
    camera, _ = await anna.publish_video()
    section = await ben.subscription(camera.sid)
    expect(section.msid == (f"{anna.join.participant.sid}|{camera.sid}", camera.sid),
           f"msid {section.msid}")
    expect(section.direction == "sendonly", section.direction)
    expect(len(section.ssrcs) == 1 and section.rtx, f"SSRCs {section.ssrcs} RTX {section.rtx}")
    expect(f"a=ssrc:{section.ssrcs[0]} cname:" in section.text, "no cname")
    await ben.flow(section)
    strangers = {s for s, packets in ben.peer.packets.items() if packets} - {
        section.ssrcs[0], section.rtx}
    expect(not strangers, f"packets on undeclared SSRCs {strangers}")


@test("LK-34", "a track that starts muted is announced muted, and unmute lets it through")
async def _():
    anna, ben = Probe("muted", "anna"), Probe("muted", "ben")
    await anna.connect()
    await ben.connect()
    voice, _ = await anna.publish_audio(muted=True)

    def seen():
        info = ben.knows("anna")
        return next((t.muted for t in info.tracks if t.sid == voice.sid), None) if info else None

    await until(lambda: seen() is not None, "ben is told of the track")
    expect(seen() is True, "announced as not muted")
    section = await ben.subscription(voice.sid)
    await anna.request(mute=rtc.MuteTrackRequest(sid=voice.sid, muted=False))
    await until(lambda: seen() is False, "ben is told of the unmute", 2)
    await ben.flow(section)
    await anna.request(mute=rtc.MuteTrackRequest(sid=voice.sid, muted=True))
    await until(lambda: seen() is True, "ben is told of the mute", 2)
    before = len(ben.received(section))
    await anna.request(ping=1)
    await until(lambda: anna.messages("pong"), "a pong")
    after = len(ben.received(section))
    expect(after - before <= 5, f"{after - before} packets of a muted track")


@test("LK-35", "a source that the token doesn't allow is refused and shown to nobody")
async def _():
    anna, ben = Probe("sources", "anna"), Probe("sources", "ben")
    await ben.connect()
    await anna.connect(grants={"canPublishSources": ["microphone"]})
    await anna.request(add_track=rtc.AddTrackRequest(
        cid="camera", type=models.VIDEO, source=models.CAMERA))
    refusal = await anna.message("request_response")
    expect(refusal.reason == rtc.RequestResponse.NOT_ALLOWED, f"reason {refusal.reason}")
    voice, _ = await anna.publish_audio()
    await ben.flow(await ben.subscription(voice.sid))
    expect([t.sid for t in ben.knows("anna").tracks] == [voice.sid], "more tracks are shown")
