"""One person as a process of its own, so that it can live in another network namespace: a room of
the Python wheel that sends a busy picture and a sine, or watches and listens.

    linked.py URL TOKEN send|watch

Writes one line of JSON four times a second: frames so far, width of the newest, longest gap between
two frames and longest silence in seconds since the line before, and whether it is undisturbed.
"""

import asyncio
import json
import math
import os
import sys
import time

import numpy
from livekit import rtc

RATE = 48000
WIDTH, HEIGHT, FPS = 640, 360, 20
PATCH = 176  # pixels of noise, each way
QUIET = 300  # a sine of 12000 is far above, concealed loss falls below after a moment


class Diary:
    def __init__(self):
        self.frames = self.width = 0
        self.gap = self.silence = 0.0
        self.shown = self.heard = None
        self.events = []

    def frame(self, width):
        now = time.monotonic()
        self.gap = max(self.gap, now - (self.shown or now))
        self.shown, self.width, self.frames = now, width, self.frames + 1

    def sound(self, loud):
        now = time.monotonic()
        if loud:
            self.silence = max(self.silence, now - (self.heard or now))
            self.heard = now

    def line(self):
        now = time.monotonic()
        running = [now - at if at else 0 for at in (self.shown, self.heard)]
        out = {"frames": self.frames, "width": self.width, "heard": self.heard is not None,
               "gap": max(self.gap, running[0]), "silence": max(self.silence, running[1]),
               "events": self.events}
        self.gap = self.silence = 0.0
        return json.dumps(out)


async def watch(track, diary):
    async for event in rtc.VideoStream(track):
        diary.frame(event.frame.width)


async def listen(track, diary):
    async for event in rtc.AudioStream(track, sample_rate=RATE, num_channels=1):
        samples = numpy.frombuffer(event.frame.data, dtype=numpy.int16)
        diary.sound(numpy.abs(samples.astype(int)).max() > QUIET)


async def picture(source):
    """A soft background and a patch of noise: the patch keeps an encoder busy in every frame, and
    key frames are not much larger, as with a camera. All noise would make key frames that no
    queue of a narrow link can hold."""
    across, down = numpy.meshgrid(numpy.linspace(0, 255, WIDTH), numpy.linspace(0, 255, HEIGHT))
    pictures = numpy.zeros((8, HEIGHT, WIDTH, 4), dtype=numpy.uint8)
    pictures[:] = numpy.stack([across, down, 255 - across, across], axis=-1)
    patch = numpy.random.default_rng(1).integers(64, 192, (8, PATCH, PATCH, 4), dtype=numpy.uint8)
    pictures[:, 100:100 + PATCH, 200:200 + PATCH] = patch
    turn, begin = 0, time.monotonic()
    while True:
        source.capture_frame(rtc.VideoFrame(WIDTH, HEIGHT, rtc.VideoBufferType.RGBA,
                                            pictures[turn % 8].tobytes()))
        turn += 1
        await asyncio.sleep(max(0, begin + turn / FPS - time.monotonic()))


async def sine(source):
    position = 0
    while True:
        t = (numpy.arange(480) + position) / RATE
        wave = (12000 * numpy.sin(2 * math.pi * 440 * t)).astype(numpy.int16)
        await source.capture_frame(rtc.AudioFrame(wave.tobytes(), RATE, 1, 480))
        position += 480


async def main(url, access, role):
    room, diary, tasks = rtc.Room(), Diary(), []

    def subscribed(track, *_):
        video = track.kind == rtc.TrackKind.KIND_VIDEO
        tasks.append(asyncio.ensure_future((watch if video else listen)(track, diary)))

    room.on("track_subscribed", subscribed)
    for event in ("reconnecting", "disconnected"):
        room.on(event, lambda *a, e=event: diary.events.append(e))
    await room.connect(url, access, rtc.RoomOptions(auto_subscribe=True))
    if role == "send":
        camera, voice = rtc.VideoSource(WIDTH, HEIGHT), rtc.AudioSource(RATE, 1)
        tasks.append(asyncio.ensure_future(picture(camera)))
        tasks.append(asyncio.ensure_future(sine(voice)))
        track = rtc.LocalVideoTrack.create_video_track("camera", camera)
        await room.local_participant.publish_track(track, rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA, simulcast=True,
            video_encoding=rtc.VideoEncoding(max_bitrate=1_500_000, max_framerate=FPS)))
        track = rtc.LocalAudioTrack.create_audio_track("voice", voice)
        await room.local_participant.publish_track(track, rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False))
    while True:
        print(diary.line(), flush=True)
        await asyncio.sleep(0.25)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    finally:
        os._exit(0)  # the wheel keeps threads of its own
