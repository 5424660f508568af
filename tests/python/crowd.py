"""Several participants in one process who only send: camera 320x180 at 15 fps and a microphone.

  crowd.py ROOM COUNT

Prints "ready" when all of them publish, and ends when its standard input does.
"""

import asyncio
import os
import sys

sys.dont_write_bytecode = True
here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, "..", "lib")]

import numpy  # noqa: E402
from livekit import rtc  # noqa: E402

from person import Person, leave_all  # noqa: E402

WIDTH, HEIGHT, FPS = 320, 180, 15
PATCH = 64  # side of the square of noise that wanders over the picture
SECONDS = 2  # until the pictures begin again


def pictures(number):
    """Planar YUV frames: a shade and a tint of one's own, and a patch that keeps encoders busy."""
    noise = numpy.random.default_rng(number).integers(0, 255, (PATCH, PATCH), dtype=numpy.uint8)
    tint = numpy.concatenate([
        numpy.full(WIDTH * HEIGHT // 4, (number * 67 + start) % 256, dtype=numpy.uint8)
        for start in (40, 130)])
    frames = []
    for turn in range(SECONDS * FPS):
        shade = numpy.full((HEIGHT, WIDTH), 60 + 12 * number, dtype=numpy.uint8)
        left = 8 * turn % (WIDTH - PATCH)
        shade[60:60 + PATCH, left:left + PATCH] = noise
        data = numpy.concatenate([shade.ravel(), tint]).tobytes()
        frames.append(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.I420, data))
    return frames


async def publish(person, number):
    """The camera of one participant."""
    source = rtc.VideoSource(WIDTH, HEIGHT)
    track = rtc.LocalVideoTrack.create_video_track("camera", source)
    frames = pictures(number)

    async def feed():
        clock = asyncio.get_running_loop().time
        begin, turn = clock(), 0
        while True:
            source.capture_frame(frames[turn % len(frames)])
            turn += 1
            await asyncio.sleep(max(0, begin + turn / FPS - clock()))

    person.tasks.append(asyncio.ensure_future(feed()))
    options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA, simulcast=True,
                                      video_encoding=rtc.VideoEncoding(max_framerate=FPS,
                                                                       max_bitrate=160_000))
    await person.room.local_participant.publish_track(track, options)


async def main(room, count):
    for number in range(count):
        person = Person(f"wheel-{number}")
        await person.join(room, auto_subscribe=False)
        await publish(person, number)
        await person.publish_sine("voice", 300 + 50 * number)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await leave_all()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
sys.stdout.flush()
# The wheel keeps threads of its own.
os._exit(0)
