"""End-to-end encryption: the server passes on what it cannot read."""

import asyncio

from livekit import rtc

from harness import expect, test, until
from person import BLUE, RED, Person


def _shared(key):
    """Options of somebody who holds this key."""
    return rtc.E2EEOptions(key_provider_options=rtc.KeyProviderOptions(shared_key=key))


@test("LK-73 LK-39", "wheels that share a key see and hear each other through layer switches",
      seconds=60)
async def _():
    return await through_switches("sealed", rtc.VideoCodec.VP8)


@test("LK-73", "the same with H.264", seconds=60)
async def _():
    return await through_switches("sealed h264", rtc.VideoCodec.H264)


@test("LK-73", "a hundred switches of sealed pictures, and no picture is broken", seconds=300,
      long=True)
async def _():
    return await through_switches("sealed long", rtc.VideoCodec.VP8, 100)


async def through_switches(room, codec, switches=6):
    """Two who share a key, and one with another."""
    key = _shared(b"a key nobody else has")
    anna = await Person("anna").join(room, encryption=key)
    ben = await Person("ben").join(room, encryption=key)
    await anna.publish_picture("camera", RED, 1280, 720, codec=codec)
    await anna.publish_sine("voice", 440)
    await ben.publish_picture("camera", BLUE, 640, 360, codec=codec)
    await ben.publish_sine("voice", 880)
    await anna.sees("ben", "camera", BLUE)
    await ben.sees("anna", "camera", RED)
    await anna.hears("ben", "voice", 880)
    await ben.hears("anna", "voice", 440)

    theirs = ben.room.remote_participants["anna"].track_publications.values()
    for publication in theirs:
        expect(publication.encryption_type == rtc.EncryptionType.GCM,
               f"{publication.name} is announced as {publication.encryption_type}")
    camera = next(each for each in theirs if each.name == "camera")
    diary, widths = ben.frames[("anna", "camera")], []
    first = len(diary)
    low, medium = rtc.VideoQuality.VIDEO_QUALITY_LOW, rtc.VideoQuality.VIDEO_QUALITY_MEDIUM
    for quality in (low, medium) * (switches // 2):
        camera.set_video_quality(quality)
        # The wheel sends each wish by a task of its own, and the next may overtake it.
        await asyncio.sleep(0.3)
        wanted = 320 if quality == low else 640
        await until(lambda w=wanted: diary[-1][1] == w, f"a picture {wanted} wide", 10)
        # What was decoded with a wrong key would show here.
        await ben.sees("anna", "camera", RED, 2)
        widths.append(wanted)
    await ben.hears("anna", "voice", 440)
    times = [entry[0] for entry in diary[first:]]
    gap = max(after - before for before, after in zip(times, times[1:]))
    expect(gap < 1, f"the picture stood for {gap:.2f} s")

    # And it is sealed: who has another key sees no picture of it.
    eve = await Person("eve").join(room, encryption=_shared(b"a guess"))
    await until(lambda: ("anna", "camera") in eve.frames and ("ben", "voice") in eve.sounds,
                "eve subscribes")
    await asyncio.sleep(3)
    colours = {colour for *_, colour in eve.frames[("anna", "camera")]}
    expect(not any(all(abs(a - b) < 40 for a, b in zip(colour, RED)) for colour in colours),
           "eve sees anna without her key")
    expect(not ben.disturbed and not anna.disturbed, f"{anna.disturbed} {ben.disturbed}")
    return f"{len(widths)} switches, longest gap {gap * 1000:.0f} ms"
