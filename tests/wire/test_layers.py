"""What a subscriber receives, packet by packet: layers, continuity, repair, reports."""

import asyncio
import time

from livekit.protocol import models

import vp8
from harness import expect, test, until
from probe import Probe


async def pair(room, **arguments):
    """anna's camera in three layers, and ben's section for it."""
    anna, ben = Probe(room, "anna"), Probe(room, "ben")
    await anna.connect()
    await ben.connect(**arguments)
    track, camera = await anna.publish_video()
    section = await ben.subscription(track.sid)
    return anna, ben, track, camera, section


def layer_of(packet):
    marks = vp8.parse_vp8(packet.payload)
    return marks.layer if marks else None


async def on_layer(ben, section, rid, seconds=6):
    """Waits until the last packets are all of that layer; gives the seconds it took."""
    started = time.monotonic()

    def there():
        last = ben.received(section)[-6:]
        return len(last) == 6 and all(layer_of(packet) == rid for packet in last)

    await until(there, f"only packets of layer {rid}", seconds)
    return time.monotonic() - started


def continuity(packets, pause=1):
    """What is wrong with these packets of one SSRC, or "". They are in order of sending, and no
    frame comes more than `pause` seconds of media time after the one before."""
    previous = marks_before = None
    for packet in packets:
        marks = vp8.parse_vp8(packet.payload)
        if marks is None:
            return f"padding-only packet {packet.sequence}"
        if previous is None:
            if not marks.key:
                return "the first packet is not the start of a key frame"
            previous, marks_before = packet, marks
            continue
        step = (packet.sequence - previous.sequence) & 0xFFFF
        if step != 1:
            return f"sequence {previous.sequence} -> {packet.sequence}"
        ahead = (packet.timestamp - previous.timestamp) & 0xFFFFFFFF
        if marks.start:
            frames = (marks.picture - marks_before.picture) & 0x7FFF
            if frames != 1:
                return f"picture id {marks_before.picture} -> {marks.picture}"
            base = (marks.tl0 - marks_before.tl0) & 0xFF
            if base != (1 if marks.tid == 0 else 0):
                return f"TL0PICIDX {marks_before.tl0} -> {marks.tl0} at TID {marks.tid}"
            if not 0 < ahead < pause * 90000:
                return f"timestamp {previous.timestamp} -> {packet.timestamp}"
            if not previous.marker:
                return f"a new frame without a marker on {previous.sequence}"
            if marks.layer != marks_before.layer and not marks.key:
                return f"layer {marks_before.layer} -> {marks.layer} without a key frame"
        elif (ahead, marks.picture, marks.tl0, marks.layer) != (
                0, marks_before.picture, marks_before.tl0, marks_before.layer):
            return f"packet {packet.sequence} does not continue its frame"
        previous, marks_before = packet, marks
    return ""


@test("LK-70", "twelve switches: sequence, timestamp, picture id and TL0PICIDX run on", seconds=90)
async def _():
    _, ben, track, _, section = await pair("switching")
    await ben.flow(section)
    took = []
    order = "LHMLMHLHMLMH"
    for letter in order:
        quality = {"L": models.LOW, "M": models.MEDIUM, "H": models.HIGH}[letter]
        await ben.settings(track.sid, quality=quality)
        took.append(await on_layer(ben, section, {"L": "q", "M": "h", "H": "f"}[letter]))
        await asyncio.sleep(0.2)
    packets = ben.received(section)
    expect(not continuity(packets), continuity(packets))
    # The clock must not jump: media time and real time go together over every switch.
    worst = 0.0
    starts = [p for p in packets if vp8.parse_vp8(p.payload).start]
    for before, after in zip(starts, starts[1:]):
        media = ((after.timestamp - before.timestamp) & 0xFFFFFFFF) / 90000
        worst = max(worst, abs(media - (after.at - before.at)))
    expect(worst < 0.15, f"media time is off by {worst * 1000:.0f} ms at one frame")
    switches = sum(a != b for a, b in zip(
        [layer_of(p) for p in packets], [layer_of(p) for p in packets[1:]]))
    expect(switches >= 10, f"only {switches} switches happened")
    return f"{len(packets)} packets, {switches} switches, slowest {max(took) * 1000:.0f} ms"


@test("LK-70", "temporal layers dropped by frame rate leave no gap in any number")
async def _():
    _, ben, track, _, section = await pair("temporal")
    await on_layer(ben, section, "f")
    await ben.settings(track.sid, quality=models.HIGH, fps=15)
    await asyncio.sleep(0.5)
    start = len(ben.received(section))
    began = time.monotonic()
    await ben.flow(section, count=60)
    rate = 30 / (time.monotonic() - began)
    tids = {vp8.parse_vp8(p.payload).tid for p in ben.received(section)[start:]}
    expect(2 not in tids, f"temporal layers {tids} at 15 fps")
    expect(13 < rate < 17, f"{rate:.1f} frames a second")
    await ben.settings(track.sid, quality=models.HIGH, fps=30)
    await until(lambda: vp8.parse_vp8(ben.received(section)[-1].payload).tid == 2,
                "the top temporal layer is back", 3)
    expect(not continuity(ben.received(section)), continuity(ben.received(section)))


@test("LK-44", "width and height choose the smallest layer that covers them")
async def _():
    _, ben, track, _, section = await pair("sizes")
    notes = []
    for width, height, rid in ((160, 90, "q"), (1280, 720, "f"), (320, 180, "q"),
                               (640, 360, "h"), (700, 400, "f"), (400, 200, "h")):
        await ben.settings(track.sid, width=width, height=height)
        notes.append(f"{width}x{height} {await on_layer(ben, section, rid):.2f} s")
    expect(not continuity(ben.received(section)), continuity(ben.received(section)))
    return ", ".join(notes)


@test("LK-44", "an adaptive client starts on the low layer")
async def _():
    _, ben, track, _, section = await pair("adaptive", adaptive_stream=True)
    await ben.flow(section, count=30)
    expect({layer_of(p) for p in ben.received(section)} == {"q"}, "more than the low layer came")
    await ben.settings(track.sid, width=1280, height=720)
    await on_layer(ben, section, "f")


@test("LK-44", "disabled stops packets within 300 ms, enabling gives a key frame within 1 s")
async def _():
    _, ben, track, _, section = await pair("disabling")
    await ben.flow(section)
    for _ in range(3):
        asked = time.monotonic()
        await ben.settings(track.sid, disabled=True)
        await asyncio.sleep(1)
        packets = ben.received(section)
        last = packets[-1].at - asked
        expect(last < 0.3, f"packets until {last * 1000:.0f} ms after disabling")
        count = len(packets)
        await ben.settings(track.sid, disabled=False, quality=models.HIGH)
        await until(lambda: len(packets) > count, "packets after enabling", 1)
        expect(vp8.parse_vp8(packets[count].payload).key, "not a key frame first")
    wrong = continuity(ben.received(section), pause=3)
    expect(not wrong, wrong)


@test("LK-71", "a loss upstream leaves a gap, is asked for, and the repair gets through")
async def _():
    anna, ben, _, camera, section = await pair("repair")
    await on_layer(ben, section, "f")
    layer = camera.layer("f")
    lost = layer.sequence + 21  # second packet of a frame a little later
    camera.skip = {("f", lost & 0xFFFF)}
    await until(lambda: any(lost & 0xFFFF in nack.lost and nack.media_ssrc == layer.ssrc
                            for nack in anna.peer.lost_feedback()), "a NACK for the packet", 3)
    numbers = [p.sequence for p in ben.received(section)]
    gaps = [(a, b) for a, b in zip(numbers, numbers[1:]) if (b - a) & 0xFFFF == 2]
    expect(len(gaps) == 1, f"gaps at the subscriber: {gaps}")


@test("LK-71", "a packet the subscriber lost comes again on the RTX SSRC")
async def _():
    _, ben, _, _, section = await pair("rtx")
    await ben.flow(section, count=20)
    wanted = ben.received(section)[-5]
    await ben.peer.missing(section.ssrcs[0], wanted.sequence)
    # Padding that shows what a link carries comes there, too.
    repairs = lambda: [packet for packet in ben.peer.packets[section.rtx] if packet.payload]
    await until(repairs, "a packet on the RTX SSRC", 2)
    repair = repairs()[0]
    expect(int.from_bytes(repair.payload[:2], "big") == wanted.sequence, "of another number")
    expect(repair.payload[2:] == wanted.payload, "with other content")


@test("LK-71", "requests for key frames are merged: at most one per 500 ms and layer")
async def _():
    anna, ben, _, _, section = await pair("pli")
    await on_layer(ben, section, "f")
    anna.peer.key_requests.clear()
    anna.tasks[-1].cancel()  # the camera no longer answers, so the asking goes on
    for _ in range(150):
        await ben.peer.picture_loss(section.ssrcs[0])
        await asyncio.sleep(0.02)
    times = {}
    for at, ssrc in anna.peer.key_requests:
        times.setdefault(ssrc, []).append(at)
    expect(times, "no request came through")
    for requests in times.values():
        closest = min((b - a for a, b in zip(requests, requests[1:])), default=9)
        expect(closest > 0.45, f"two requests {closest * 1000:.0f} ms apart")


@test("LK-74", "sender reports tie each track to one wall clock")
async def _():
    anna, ben, _, _, section = await pair("reports")
    voice, _ = await anna.publish_audio()
    heard = await ben.subscription(voice.sid)
    wanted = {section.ssrcs[0]: 90000, heard.ssrcs[0]: 48000}

    def reports():
        found = {packet.media_ssrc: packet for _, packet in ben.peer.rtcp
                 if packet.kind == 200 and packet.media_ssrc in wanted}
        return found if len(found) == 2 else None

    found = await until(reports, "sender reports of both tracks", 8)
    offsets = []
    for ssrc, rate in wanted.items():
        packet = ben.peer.packets[ssrc][-1]
        delta = ((packet.timestamp - found[ssrc].rtp + 2**31) & 0xFFFFFFFF) - 2**31
        offsets.append(found[ssrc].ntp / 2**32 + delta / rate - packet.at)
    expect(not ben.peer.broken and not anna.peer.broken, f"{ben.peer.broken} {anna.peer.broken}")
    skew = abs(offsets[0] - offsets[1])
    expect(skew < 0.1, f"picture and voice are {skew * 1000:.0f} ms apart")
    return f"skew {skew * 1000:.1f} ms"
