"""Codecs beside Opus and VP8: who gets what, under which number, and what of it."""

import asyncio
import os
import random

from livekit.protocol import models, rtc

import sdp
import vp8
from harness import expect, test, until
from probe import Probe

H264 = sdp.Codec(102, "H264/90000",
                 "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")
VP9 = sdp.Codec(98, "VP9/90000", "profile-id=0")
AV1 = sdp.Codec(45, "AV1/90000", "level-idx=5;profile=0;tier=0")
RED = sdp.Codec(63, "red/48000/2", "111/111")
# Another client, other numbers.
OTHER = (sdp.Codec(120, "VP9/90000", "profile-id=0"), sdp.Codec(112, "AV1/90000"),
         sdp.Codec(125, "H264/90000", "packetization-mode=1;profile-level-id=42e01f"))


async def announce(probe, codec, layers=1, **fields):
    """Announces a camera with that codec, in one stream; gives (TrackInfo, section)."""
    cid, ssrc = f"{codec}-{random.randrange(1 << 30)}", random.randrange(1, 1 << 31)
    section = probe.section("video", cid, ssrc=ssrc)
    sizes = [(320, 180), (640, 360), (1280, 720)][:layers]
    qualities = [models.LOW, models.MEDIUM, models.HIGH]
    described = [models.VideoLayer(quality=quality, width=width, height=height, bitrate=200_000)
                 for quality, (width, height) in zip(qualities, sizes)]
    track = await probe.add_track(
        cid, models.VIDEO, name=codec, source=models.CAMERA, width=sizes[-1][0],
        height=sizes[-1][1], layers=described,
        simulcast_codecs=[rtc.SimulcastCodec(codec=codec, cid=cid, layers=described)], **fields)
    await probe.negotiate()
    return track, section


class Sender:
    """Sends what a test makes up, as one stream."""

    def __init__(self, probe, section, payload_type, step=3000):
        self.probe, self.section, self.payload_type, self.step = probe, section, payload_type, step
        self.sequence, self.timestamp = 65_530, 4_294_960_000
        self.sent = []

    async def picture(self, *packets):
        """The packets of one picture: (payload, marker, descriptor or None)."""
        for payload, marker, *descriptor in packets:
            extensions = [(sdp.MID, self.section.mid.encode())]
            extensions += [(sdp.DEPENDENCY, one) for one in descriptor if one]
            self.sent.append(payload)
            await self.probe.peer.send(vp8.rtp(
                self.payload_type, self.sequence, self.timestamp, self.section.ssrc, payload,
                marker, extensions))
            self.sequence += 1
        self.timestamp += self.step
        await asyncio.sleep(0.02)


def h264(key):
    """One picture: parameters and a slice in pieces, or a slice; bytes as if encrypted."""
    noise = os.urandom(400)
    if not key:
        return [(b"\x41" + noise, True)]
    parameters = b"\x78\x00\x04\x67\x42\xe0\x1f\x00\x02\x68\xce"
    return [(parameters, False), (b"\x7c\x85" + noise, False), (b"\x7c\x45" + noise, True)]


async def play(sender, picture, done, key=lambda: False, seconds=8):
    """Sends pictures until `done`, with a key picture whenever one was asked for."""
    asked = 0
    for number in range(int(seconds / 0.02)):
        requests = len(sender.probe.peer.key_requests)
        is_key = number == 0 or requests > asked or key()
        asked = requests
        await sender.picture(*picture(is_key))
        if done():
            return
    expect(False, "what was waited for did not come")


@test("LK-46", "who can't read H264 is told so and keeps the rest; who can gets it unchanged")
async def _():
    anna = Probe("unreadable", "anna", more=(H264,))
    ben, cora = Probe("unreadable", "ben"), Probe("unreadable", "cora", more=OTHER)
    for probe in (anna, ben, cora):
        await probe.connect()
    mimes = [codec.mime for codec in anna.join.enabled_publish_codecs]
    expect(mimes == ["video/VP8", "video/H264", "video/VP9", "video/AV1", "audio/opus",
                     "audio/red"], f"codecs {mimes}")
    voice, _ = await anna.publish_audio()
    track, section = await announce(anna, "h264")
    expect(track.codecs[0].mime_type == "video/H264", f"mime {track.codecs}")
    first = anna.answer.by_mid(section.mid).text.split("\r\n")[0].split()[3:]
    expect(first[:2] == ["102", "103"], f"H264 is not first: {first}")
    refusal = await ben.message("subscription_response")
    expect(refusal.track_sid == track.sid and refusal.err == models.SE_CODEC_UNSUPPORTED,
           f"{refusal}")
    seen = await cora.subscription(track.sid)
    sender = Sender(anna, section, H264.number)
    await play(sender, h264, lambda: len(cora.received(seen)) > 20)
    got = cora.received(seen)
    expect({packet.payload_type for packet in got} == {125}, "not under its own number")
    expect([packet.payload for packet in got] == sender.sent[-len(got):], "not the same bytes")
    await ben.flow(await ben.subscription(voice.sid))
    expect(track.sid not in ben.mid_tracks.values(), "a section for what can't be read")


@test("LK-39", "encryption is copied, Opus goes as Opus, and nothing comes that was not sent")
async def _():
    anna, ben = Probe("encrypted", "anna", more=(RED,)), Probe("encrypted", "ben", more=(RED,))
    await anna.connect()
    await ben.connect()
    section = anna.section("audio", "voice", ssrc=7001)
    track = await anna.add_track("voice", models.AUDIO, source=models.MICROPHONE,
                                 encryption=models.Encryption.GCM)
    await anna.negotiate()
    expect(track.encryption == models.Encryption.GCM, f"encryption {track.encryption}")
    answered = anna.answer.by_mid(section.mid).text
    expect("red/48000" not in answered, "redundancy is offered for encrypted frames")
    seen = await ben.subscription(track.sid)
    await until(lambda: ben.knows("anna").tracks, "ben knows the track")
    told = ben.knows("anna").tracks[0]
    expect(told.encryption == models.Encryption.GCM, f"others hear encryption {told.encryption}")
    expect(told.mime_type == "audio/opus", f"mime {told.mime_type}")
    voice = Sender(anna, section, sdp.OPUS, 960)
    for _ in range(50):
        await voice.picture((b"\xfc" + os.urandom(60), False))
    await until(lambda: len(ben.received(seen)) >= 50, "every frame")
    await anna.request(mute=rtc.MuteTrackRequest(sid=track.sid, muted=True))
    await asyncio.sleep(0.6)
    got = ben.received(seen)
    expect([packet.payload for packet in got] == voice.sent, "other frames than those sent")
    expect({packet.payload_type for packet in got} == {sdp.OPUS}, "not as Opus")
    expect(set(ben.peer.packets) == {seen.ssrcs[0]}, "packets of no track")


@test("", "redundant audio goes to those who read it; others get the newest frame alone")
async def _():
    anna = Probe("redundant", "anna", more=(RED,))
    ben, cora = Probe("redundant", "ben"), Probe("redundant", "cora", more=(RED,))
    for probe in (anna, ben, cora):
        await probe.connect()
    section = anna.section("audio", "voice", ssrc=7002)
    track = await anna.add_track("voice", models.AUDIO, source=models.MICROPHONE)
    await anna.negotiate()
    first = anna.answer.by_mid(section.mid).text.split("\r\n")[0].split()[3:]
    expect(first[:2] == ["63", "111"], f"redundancy is not first: {first}")
    plain, whole = await ben.subscription(track.sid), await cora.subscription(track.sid)
    voice, frames = Sender(anna, section, RED.number, 960), [os.urandom(40)]
    for _ in range(30):
        frames.append(os.urandom(40))
        header = bytes([0x80 | 111, 960 >> 6, (960 & 63) << 2, 40, 111])
        await voice.picture((header + frames[-2] + frames[-1], False))
    await until(lambda: len(ben.received(plain)) >= 30, "every frame for ben")
    await until(lambda: len(cora.received(whole)) >= 30, "every packet for cora")
    expect([packet.payload for packet in ben.received(plain)] == frames[1:], "ben's frames")
    expect({packet.payload_type for packet in ben.received(plain)} == {111}, "ben's type")
    expect([packet.payload for packet in cora.received(whole)] == voice.sent, "cora's packets")
    expect({packet.payload_type for packet in cora.received(whole)} == {63}, "cora's type")


def steps(packets):
    return [(b.sequence - a.sequence) & 0xFFFF for a, b in zip(packets, packets[1:])]


class Vp9:
    """Pictures of three spatial layers, each predicted from the one before: one packet a layer."""

    def __init__(self):
        self.picture = 0

    def __call__(self, key):
        self.picture += 1
        packets = []
        for spatial in range(3):
            flags = 0x80 | 0x20 | 0x08 | 0x04 | (0 if key else 0x40)
            inner = key and spatial > 0
            descriptor = bytes([flags, 0x80 | self.picture >> 8, self.picture & 0xFF,
                                spatial << 1 | inner, self.picture & 0xFF])
            packets.append((descriptor + os.urandom(100 * (spatial + 1)), spatial == 2))
        return packets


def spatial_of(packet):
    return packet.payload[3] >> 1 & 7


@test("", "VP9: spatial layers are taken off and come back, the marker ends what is sent")
async def _():
    anna, ben = Probe("layered", "anna", more=(VP9,)), Probe("layered", "ben", more=OTHER)
    await anna.connect()
    await ben.connect()
    track, section = await announce(anna, "vp9", 3)
    mode = models.VideoLayer.MULTIPLE_SPATIAL_LAYERS_PER_STREAM
    expect(track.codecs[0].video_layer_mode == mode and not track.simulcast, f"{track}")
    seen = await ben.subscription(track.sid)
    await ben.settings(track.sid, quality=models.LOW)
    await asyncio.sleep(0.2)
    sender, picture = Sender(anna, section, VP9.number), Vp9()
    got = ben.received(seen)
    await play(sender, picture, lambda: len(got) > 30)
    expect({spatial_of(packet) for packet in got} == {0}, "more than the smallest picture")
    expect(all(packet.marker for packet in got), "a picture without an end")
    await ben.settings(track.sid, quality=models.HIGH)

    def all_three():
        return [spatial_of(packet) for packet in got[-6:]] == [0, 1, 2] * 2

    await play(sender, picture, all_three)
    expect([packet.marker for packet in got[-6:]] == [False, False, True] * 2, "markers")
    await ben.settings(track.sid, quality=models.MEDIUM)
    await play(sender, picture, lambda: [spatial_of(packet) for packet in got[-6:]] == [0, 1] * 3)
    expect([packet.marker for packet in got[-6:]] == [False, True] * 3, "markers")
    expect(set(steps(got)) == {1}, f"gaps in the numbers: {steps(got)}")
    expect({packet.payload_type for packet in got} == {120}, "not under ben's number")
    expect({packet.payload for packet in got} <= set(sender.sent), "not the same bytes")


def bits(parts):
    text = "".join(format(value, f"0{width}b") for value, width in parts)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[at:at + 8], 2) for at in range(0, len(text), 8))


class Av1:
    """Pictures of two spatial layers, with dependency descriptors (L2T1_KEY)."""

    # Templates: key and later frames of the base, then of the upper layer; no chains, no sizes.
    STRUCTURE = [(0, 6), (1, 5), (0, 2), (2, 2), (0, 2), (3, 2),
                 (0b1010, 4), (0b1000, 4), (0b0010, 4), (0b0010, 4),
                 (0, 1), (0b100010, 6), (0b100000, 6), (0b100010, 6), (0, 1), (0, 1)]

    def __init__(self):
        self.number = 65_500

    def descriptor(self, template, structure=()):
        parts = [(1, 1), (1, 1), (template, 6), (self.number & 0xFFFF, 16), *structure]
        self.number += 1
        return bits(parts)

    def __call__(self, key):
        if key:
            base = self.descriptor(0, [(0b10000, 5), *self.STRUCTURE])
            upper = self.descriptor(2)
        else:
            base, upper = self.descriptor(1), self.descriptor(3)
        first = 0x18 if key else 0x10
        return [(bytes([first]) + os.urandom(100), False, base),
                (b"\x10" + os.urandom(200), True, upper)]


def frame(packet, extension):
    """(template, frame number, targets or None) of a received descriptor."""
    data = packet.extensions[extension]
    flags = data[3] >> 3 if len(data) > 3 else 0
    targets = data[3] >> 1 & 3 if flags == 0b01000 else None
    return data[0] & 63, int.from_bytes(data[1:3], "big"), targets


@test("", "AV1: layers by the dependency descriptor, which tells each subscriber what it gets")
async def _():
    anna, ben = Probe("described", "anna", more=(AV1,)), Probe("described", "ben", more=OTHER)
    await anna.connect()
    await ben.connect()
    track, section = await announce(anna, "av1", 2)
    answered = anna.answer.by_mid(section.mid).text
    expect("dependency-descriptor" in answered, "the publisher is to describe nothing")
    seen = await ben.subscription(track.sid)
    extension = next(n for uri, n in seen.extensions.items() if "dependency" in uri)
    await ben.settings(track.sid, quality=models.LOW)
    await asyncio.sleep(0.2)
    sender, picture = Sender(anna, section, AV1.number), Av1()
    got = ben.received(seen)
    await play(sender, picture, lambda: len(got) > 20)
    frames = [frame(packet, extension) for packet in got]
    expect(frames[0][0] == 0 and {one[0] for one in frames[1:]} == {1}, f"templates {frames}")
    expect(all(packet.marker for packet in got), "a picture without an end")
    expect({one[2] for one in frames[1:]} == {0b01}, f"targets {frames}")
    numbers = [one[1] for one in frames]
    ahead = [(b - a) & 0xFFFF for a, b in zip(numbers, numbers[1:])]
    expect(set(ahead) == {2}, f"references would miss: {ahead}")
    await ben.settings(track.sid, quality=models.HIGH)

    def both():
        return [frame(packet, extension)[0] for packet in got[-4:]] == [1, 3] * 2

    await play(sender, picture, both)
    expect([packet.marker for packet in got[-4:]] == [False, True] * 2, "markers")
    expect(frame(got[-2], extension)[2] == 0b11, "targets")
    expect(set(steps(got)) == {1}, f"gaps in the numbers: {steps(got)}")
    expect({packet.payload for packet in got} <= set(sender.sent), "not the same bytes")


@test("", "H264: layers are changed at key frames, nothing of the frames is")
async def _():
    anna, ben = Probe("switching", "anna", more=(H264,)), Probe("switching", "ben", more=(H264,))
    await anna.connect()
    await ben.connect()
    track, camera, _ = await anna.announce_video(codec="h264")
    seen = await ben.subscription(track.sid)
    layers = [Rid(anna, camera, rid, 8000 + number) for number, rid in enumerate("qhf")]
    got = ben.received(seen)
    for quality, letter in ((models.LOW, b"q"), (models.HIGH, b"f"), (models.MEDIUM, b"h")):
        await ben.settings(track.sid, quality=quality)
        for _ in range(300):
            for layer in layers:
                await layer.next()
            await asyncio.sleep(0.02)
            if len(got) > 6 and all(letter == name(packet) for packet in got[-6:]):
                break
        else:
            expect(False, f"layer {letter} does not come")
    expect(set(steps(got)) == {1}, f"gaps in the numbers: {steps(got)}")
    for before, packet in zip(got, got[1:]):
        if name(before) != name(packet):
            expect(packet.payload[0] == 0x78, "a layer begins without its parameters")
            expect(before.marker, "a layer ends within a frame")
    sent = {payload for layer in layers for payload in layer.sent}
    expect({packet.payload for packet in got} <= sent, "not the same bytes")


def name(packet):
    return packet.payload[-1:]


class Rid(Sender):
    """A simulcast layer of H264 that answers requests for key frames; its last byte names it."""

    def __init__(self, probe, section, rid, ssrc):
        super().__init__(probe, section, H264.number)
        self.rid, self.ssrc, self.asked, self.due = rid, ssrc, 0, True

    async def next(self):
        requests = self.probe.peer.key_requests
        self.due |= any(ssrc == self.ssrc for _, ssrc in requests[self.asked:])
        self.asked = len(requests)
        key, self.due = self.due, False
        for payload, marker in h264(key):
            payload += self.rid.encode()
            self.sent.append(payload)
            await self.probe.peer.send(vp8.rtp(
                self.payload_type, self.sequence, self.timestamp, self.ssrc, payload, marker,
                [(sdp.MID, self.section.mid.encode()), (sdp.RID, self.rid.encode())]))
            self.sequence += 1
        self.timestamp += self.step


@test("", "a change of codec is told to all, but one that never ends is not")
async def _():
    anna = Probe("fickle", "anna", more=(H264,))
    ben, cora = Probe("fickle", "ben"), Probe("fickle", "cora", more=OTHER)
    for probe in (anna, ben, cora):
        await probe.connect()
    track, section = await announce(anna, "vp8")
    seen = await cora.subscription(track.sid)
    await ben.subscription(track.sid)
    sender = Sender(anna, section, H264.number)
    await sender.picture(*h264(True))
    refusal = await ben.message("subscription_response")
    expect(refusal.track_sid == track.sid, f"{refusal}")
    await until(lambda: cora.knows("anna").tracks[0].mime_type == "video/H264", "the new codec")
    await play(sender, h264, lambda: len(cora.received(seen)) > 6)
    before = len(cora.messages("update"))
    for number in range(60):
        sender.payload_type = (sdp.VP8, H264.number)[number % 2]
        await sender.picture(*h264(False))
    told = len(cora.messages("update")) - before
    expect(told <= 4, f"{told} updates about a codec")
