"""A participant in the Python wheel, with diaries of what came in."""

import asyncio
import math
import os
import time

import numpy
from livekit import rtc

from harness import until
from jwt_token import token

RATE = 48000
_rooms = []


async def leave_all():
    while _rooms:
        await _rooms.pop().leave()


class Person:
    """A room of the wheel, with diaries of what came in."""

    def __init__(self, name):
        self.name = name
        self.room = rtc.Room()
        self.tasks = []
        self.frames = {}  # (identity, track name) -> [(time, width, height, middle RGB)]
        self.sounds = {}  # (identity, track name) -> [numpy samples]
        self.disturbed = []
        self.room.on("track_subscribed", self._subscribed)
        for event in ("reconnecting", "disconnected", "track_subscription_failed"):
            self.room.on(event, lambda *a, e=event: self.disturbed.append(e))
        _rooms.append(self)

    async def join(self, room, auto_subscribe=True, url=None, **options):
        await self.room.connect(url or os.environ["TEST_URL"], token(room, self.name),
                                rtc.RoomOptions(auto_subscribe=auto_subscribe, **options))
        return self

    def _subscribed(self, track, publication, participant):
        key = (participant.identity, publication.name)
        video = track.kind == rtc.TrackKind.KIND_VIDEO
        self.tasks.append(asyncio.ensure_future(
            self._watch(track, publication, key) if video else self._listen(track, key)))

    async def _watch(self, track, publication, key):
        diary, decoded = self.frames.setdefault(key, []), None
        stream = rtc.VideoStream(track, format=rtc.VideoBufferType.RGBA)
        while True:
            try:
                frame = (await asyncio.wait_for(anext(stream), 1)).frame
            except StopAsyncIteration:
                return
            except asyncio.TimeoutError:
                # On a busy machine the wheel decodes H.264 that is encrypted now and then without
                # ever handing a picture on (once in 20 calls); it does when it subscribes anew.
                before, decoded = decoded, await self._decoded(track)
                if before is not None and decoded > before + 5:
                    print(f"{self.name} subscribes anew: {decoded} pictures, none of them shown")
                    return await self.subscribe_anew(publication)
                continue
            decoded = None
            middle = 4 * (frame.width * (frame.height // 2) + frame.width // 2)
            colour = tuple(bytes(frame.data[middle:middle + 3]))
            diary.append((time.monotonic(), frame.width, frame.height, colour))

    @staticmethod
    async def _decoded(track):
        return sum(each.inbound_rtp.inbound.frames_decoded for each in await track.get_stats()
                   if each.HasField("inbound_rtp"))

    async def subscribe_anew(self, publication):
        """The wheel sends each wish by a task of its own, in no order."""
        publication.set_subscribed(False)
        await asyncio.sleep(0.3)
        publication.set_subscribed(True)

    async def _listen(self, track, key):
        diary = self.sounds.setdefault(key, [])
        async for event in rtc.AudioStream(track, sample_rate=RATE, num_channels=1):
            diary.append(numpy.frombuffer(event.frame.data, dtype=numpy.int16).copy())

    async def publish_picture(self, name, colour, width=640, height=360, simulcast=True,
                              codec=rtc.VideoCodec.VP8):
        source = rtc.VideoSource(width, height)
        track = rtc.LocalVideoTrack.create_video_track(name, source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_CAMERA,
                                          simulcast=simulcast, video_codec=codec)
        data = numpy.zeros((height, width, 4), dtype=numpy.uint8)
        data[:] = (*colour, 255)

        async def feed():
            turn, begin = 0, time.monotonic()
            while True:
                data[-20:] = (*colour, 255)
                data[-20:, (turn * 7) % width:(turn * 7) % width + 30] = 255
                source.capture_frame(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGBA,
                                                    data.tobytes()))
                turn += 1
                await asyncio.sleep(max(0, begin + turn / 30 - time.monotonic()))

        self.tasks.append(asyncio.ensure_future(feed()))
        return await self.room.local_participant.publish_track(track, options)

    async def publish_sine(self, name, hertz):
        source = rtc.AudioSource(RATE, 1)
        track = rtc.LocalAudioTrack.create_audio_track(name, source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE, dtx=False)

        async def feed():
            position = 0
            while True:
                t = (numpy.arange(480) + position) / RATE
                wave = (12000 * numpy.sin(2 * math.pi * hertz * t)).astype(numpy.int16)
                await source.capture_frame(rtc.AudioFrame(wave.tobytes(), RATE, 1, 480))
                position += 480

        self.tasks.append(asyncio.ensure_future(feed()))
        return await self.room.local_participant.publish_track(track, options)

    async def sees(self, identity, name, colour, seconds=10):
        key = (identity, name)

        def right():
            diary = self.frames.get(key)
            return diary and all(abs(a - b) < 40 for a, b in zip(diary[-1][3], colour))

        await until(right, f"{self.name} sees {key} in {colour}", seconds)

    async def hears(self, identity, name, hertz, seconds=10):
        key = (identity, name)

        def loudest():
            recent = self.sounds.get(key, [])[-40:]
            if sum(len(part) for part in recent) < RATE // 4:
                return 0
            wave = numpy.concatenate(recent).astype(float)
            if numpy.abs(wave).max() < 500:
                return 0
            spectrum = numpy.abs(numpy.fft.rfft(wave * numpy.hanning(len(wave))))
            return float(spectrum.argmax()) * RATE / len(wave)

        await until(lambda: abs(loudest() - hertz) < 20,
                    f"{self.name} hears {hertz} Hz of {key}", seconds)

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await self.room.disconnect()


RED, GREEN, BLUE = (200, 30, 30), (30, 160, 30), (30, 30, 200)
