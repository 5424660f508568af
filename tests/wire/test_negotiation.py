"""Sections, requirements, offers that cross, candidates of all kinds."""

import asyncio
import json
import re

from livekit.protocol import models, rtc

from harness import expect, test, until
from probe import Camera, Probe, Voice


@test("LK-22", "20 tracks: the deficit is asked for once and exactly", seconds=60)
async def _():
    anna = Probe("twenty", "anna")
    await anna.connect()
    voices, cameras = [], []
    for number in range(10):
        voices.append((await anna.publish_audio(f"voice {number}"))[0])
        cameras.append((await anna.publish_video(f"camera {number}", rids=()))[0])
    ben = Probe("twenty", "ben", auto=False)
    await ben.connect()
    await until(lambda: any(need != (0, 0) for need in ben.requirements), "a requirement")
    await asyncio.sleep(1)  # a second one for the same deficit would come now
    asked = [need for need in ben.requirements if need != (0, 0)]
    expect(asked == [(7, 7)], f"with 3 + 3 sections for 10 + 10 tracks it asked for {asked}")
    ben.auto = True
    ben.add_sections(7, 7)
    await ben.negotiate()
    for track in voices + cameras:
        await ben.flow(await ben.subscription(track.sid), count=3)
    later = [need for need in ben.requirements[1:] if need != (0, 0)]
    expect(not later, f"it asked again for {later}")


@test("LK-22", "tracks that come one by one are asked for one by one")
async def _():
    anna, ben = Probe("onebyone", "anna"), Probe("onebyone", "ben")
    await anna.connect()
    await ben.connect()
    for number in range(6):
        voice, _ = await anna.publish_audio(f"voice {number}")
        await ben.flow(await ben.subscription(voice.sid), count=3)
    total = sum(audios for audios, _ in ben.requirements)
    expect(total == 3, f"3 sections for 6 voices, asked for {ben.requirements}")
    count = len([s for s in ben.sections if s.kind == "audio"])
    expect(count == 6, f"{count} audio sections")


@test("LK-23", "0/0 makes the client offer again, and the track lands on a free section")
async def _():
    anna, ben = Probe("free", "anna"), Probe("free", "ben", auto=False)
    await anna.connect()
    await ben.connect()
    await asyncio.sleep(0.3)
    before = len(ben.requirements)
    voice, _ = await anna.publish_audio()
    await until(lambda: len(ben.requirements) > before, "a request to offer again")
    expect(ben.requirements[before:] == [(0, 0)], f"asked for {ben.requirements[before:]}")
    expect(voice.sid not in ben.mid_tracks.values(), "mapped without an offer")
    await ben.negotiate()
    section = await ben.subscription(voice.sid)
    expect(section.mid in ("0", "1", "2"), f"it landed on section {section.mid}")
    await ben.flow(section)


@test("LK-24", "an ended track frees its section, which is inactive once before its next use")
async def _():
    anna, ben = Probe("reuse", "anna"), Probe("reuse", "ben")
    await anna.connect()
    await ben.connect()
    history = []
    for number in range(5):
        voice, sender = await anna.publish_audio(f"voice {number}")
        section = await ben.subscription(voice.sid)
        await ben.flow(section)
        history.append(section.mid)
        sender.stop()
        sender.section.direction, sender.section.track = "inactive", ""
        await anna.negotiate()
        await until(lambda: voice.sid not in ben.mid_tracks.values(), "the section is free")
        expect(ben.answer.by_mid(section.mid).direction == "inactive",
               f"section {section.mid} is {ben.answer.by_mid(section.mid).direction}")
    audios = len([s for s in ben.sections if s.kind == "audio"])
    expect(audios == 3, f"{audios} audio sections after 5 tracks, used {history}")
    return f"sections used: {history}"


async def _offer_first(probe, name, kind):
    """Offer, answer, and only then AddTrack."""
    cid = f"{name}-cid"
    section = probe.section(kind, cid, ssrc=700 + len(probe.sections))
    await probe.negotiate()
    track = await probe.add_track(
        cid, models.AUDIO if kind == "audio" else models.VIDEO, name=name,
        source=models.MICROPHONE if kind == "audio" else models.CAMERA)
    return track, section


@test("LK-25", "an offer may overtake AddTrack, and AddTrack the offer")
async def _():
    anna, ben = Probe("overtake", "anna"), Probe("overtake", "ben")
    await anna.connect()
    await ben.connect()
    voice, section = await _offer_first(anna, "voice", "audio")
    Voice(anna, section, section.ssrc)
    await ben.flow(await ben.subscription(voice.sid))
    camera, section = await _offer_first(anna, "camera", "video")
    Camera(anna, section, (), section.ssrc)
    await ben.flow(await ben.subscription(camera.sid))
    second, _ = await anna.publish_audio("second")  # AddTrack first
    await ben.flow(await ben.subscription(second.sid))


@test("LK-26", "two offers at once: the newest is answered, ids fit, nobody is thrown out")
async def _():
    anna, ben = Probe("crossing", "anna"), Probe("crossing", "ben")
    await anna.connect()
    await ben.connect()
    cids = ["one", "two"]
    sections = []
    for number, cid in enumerate(cids):
        sections.append(anna.section("audio", cid, ssrc=900 + number))
        await anna.request(offer=anna.next_offer())
    for cid in cids:
        await anna.request(add_track=rtc.AddTrackRequest(
            cid=cid, type=models.AUDIO, name=cid, source=models.UNKNOWN))
    await until(lambda: anna.answers and anna.answers[-1].id == anna.offer_id,
                "an answer to the newest offer")
    ids = [a.id for a in anna.answers]
    expect(ids == sorted(set(ids)) and set(ids) <= {1, 2, 3}, f"answer ids {ids}")
    for section in sections:
        Voice(anna, section, section.ssrc)
    for cid in cids:
        track = (await anna.message("track_published", lambda b, c=cid: b.cid == c)).track
        await ben.flow(await ben.subscription(track.sid))
    expect(not anna.messages("leave"), "a leave came")


@test("LK-27", "a simulcast offer is answered with rids and both stream id extensions")
async def _():
    anna = Probe("rids", "anna")
    await anna.connect()
    _, camera = await anna.publish_video()
    for _ in range(11):
        section = anna.answer.by_mid(camera.section.mid)
        uris = " ".join(section.extensions)
        expect(":rtp-stream-id" in uris and ":repaired-rtp-stream-id" in uris, f"only {uris}")
        expect(re.search(r"^a=simulcast:recv (?:~?[qhf];?){3}\s*$", section.text, re.M),
               "no a=simulcast:recv q;h;f")
        for rid in "qhf":
            expect(f"a=rid:{rid} recv" in section.text, f"no a=rid:{rid} recv")
        expect(section.port != 0 and section.direction == "recvonly",
               f"port {section.port}, {section.direction}")
        anna.add_sections(1, 0)
        await anna.negotiate()
    numbers = {}
    for section in anna.answer.sections:
        for uri, number in section.extensions.items():
            expect(numbers.setdefault(uri, number) == number, f"{uri} has two ids in the bundle")
    expect(len(set(numbers.values())) == len(numbers), "an id means two things")


@test("LK-28", "candidates for any section, mDNS, TCP and nonsense do no harm, early ones wait")
async def _():
    anna = Probe("trickle", "anna")
    await anna.open(offer=False)
    lines = [
        "candidate:1 1 udp 2122260223 192.0.2.7 50000 typ host",
        "candidate:2 1 udp 2122260223 f1e2d3c4-0000-4000-8000-0123456789ab.local 50001 typ host",
        "candidate:3 1 tcp 1518280447 192.0.2.7 9 typ host tcptype active",
        "candidate:4 1 udp 2122260223 2001:db8::7 50002 typ host generation 0",
        "candidate:5 1 udp 99999999999 not-an-address 70000 typ nothing",
        "",
    ]
    for mid in range(7):
        for line in lines:
            init = json.dumps({"candidate": line, "sdpMid": str(mid), "sdpMLineIndex": mid})
            await anna.request(trickle=rtc.TrickleRequest(
                candidateInit=init, target=rtc.SignalTarget.PUBLISHER))
    await anna.request(trickle=rtc.TrickleRequest(candidateInit="{not json"))
    await anna.request(offer=anna.next_offer())
    await until(lambda: anna.answer, "an answer")
    await until(anna._address, "a candidate of the server")
    await anna.peer.connect(anna.answer, anna._address())
    voice, _ = await anna.publish_audio()
    ben = Probe("trickle", "ben")
    await ben.connect()
    await ben.flow(await ben.subscription(voice.sid))


@test("LK-15", "the server is passive, lite, and echoes the payload types of the offer")
async def _():
    anna = Probe("answer", "anna")
    await anna.connect()
    text = anna.answers[-1].sdp
    expect("a=ice-lite" in text, "no a=ice-lite")
    expect(anna.answer.setup == "passive", f"setup is {anna.answer.setup}")
    expect([s.mid for s in anna.answer.sections] == [s.mid for s in anna.sections],
           "the sections are others than offered")
    for section in anna.answer.sections:
        if section.kind == "video":
            expect(re.search(r"^m=video \d+ \S+ 96( |$)", section.text, re.M), section.text[:60])
    size = re.search(r"a=max-message-size:(\d+)", text)
    expect(size and int(size.group(1)) >= 65535, f"max-message-size {size and size.group(1)}")
