"""A program at the control socket, and a participant whose only signalling it is."""

import asyncio
import json

from livekit.protocol import models

import sdp
from harness import Failure, expect, until
from probe import Probe

_KINDS = {models.AUDIO: "audio", models.VIDEO: "video"}
_SOURCES = {models.CAMERA: "camera", models.MICROPHONE: "microphone",
            models.SCREEN_SHARE: "screen_share"}


class Refused(Exception):
    """The answer was an error."""

    def __init__(self, error):
        super().__init__(f"{error['code']}: {error['text']}")
        self.code = error["code"]


class Control:
    """One connection. `lines` is its diary; answers are found by their id."""

    def __init__(self, path):
        self.path, self.lines, self.next_id = path, [], 0

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_unix_connection(self.path, limit=1 << 24)
        self.task = asyncio.ensure_future(self._read())
        await until(lambda: self.lines, "a greeting", 5)
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        self.writer.close()

    async def _read(self):
        while line := await self.reader.readline():
            self.lines.append(json.loads(line))

    async def send(self, text):
        self.writer.write(text.encode() + b"\n")
        await self.writer.drain()

    async def ask(self, do, seconds=5, **fields):
        """The answer to a request; raises `Refused`."""
        self.next_id += 1
        number = self.next_id
        await self.send(json.dumps({"id": number, "do": do, **fields}))
        found = await until(lambda: [line for line in self.lines if line.get("id") == number],
                            f"an answer to {do}", seconds)
        expect(len(found) == 1, f"{len(found)} answers to {do}")
        if "error" in found[0]:
            raise Refused(found[0]["error"])
        return found[0]["ok"]

    async def refused(self, code, do, **fields):
        """Expects a refusal with that code."""
        try:
            await self.ask(do, **fields)
        except Refused as refused:
            expect(refused.code == code, f"{do}: {refused}, not {code}")
            return
        raise Failure(f"{do} is not refused")

    def events(self, name, **fields):
        return [line for line in self.lines if line.get("event") == name
                and all(line.get(key) == value for key, value in fields.items())]

    async def event(self, name, seconds=5, **fields):
        found = await until(lambda: self.events(name, **fields), f"event {name} {fields}", seconds)
        return found[0]


class Held(Probe):
    """A participant that a control connection holds."""

    def __init__(self, control, room, identity):
        super().__init__(room, identity)
        self.control = control

    async def connect(self, **fields):
        await self.peer.ice.open()
        self._answered(await self._ask("add_participant", sdp=self.next_offer().sdp, **fields))
        await self.peer.connect(self.answer, self._address())
        self.tasks.append(asyncio.ensure_future(self._follow()))
        return self

    async def _ask(self, do, **fields):
        return await self.control.ask(do, room=self.room, identity=self.identity, **fields)

    def _answered(self, body):
        self.answer = sdp.parse(body["sdp"])
        self.mid_tracks = body["tracks"]
        for section in self.answer.sections:
            for uri, number in section.extensions.items():
                if "transport-wide-cc" in uri:
                    self.peer.twcc_id = number

    async def negotiate(self):
        async with self.negotiation:
            self._answered(await self._ask("offer", sdp=self.next_offer().sdp))
        return self.answer

    async def _follow(self):
        """Offers again whenever it is asked to."""
        done = 0
        while True:
            wishes = self.control.events("offer_needed", identity=self.identity)
            for wish in wishes[done:]:
                self.add_sections(wish["audios"], wish["videos"])
                await self.negotiate()
            done = len(wishes)
            await asyncio.sleep(0.02)

    async def add_track(self, cid, kind, name="", source=None, muted=False, layers=(), **fields):
        sizes = [{"width": layer.width, "height": layer.height, "bitrate": layer.bitrate}
                 for layer in layers]
        fields.pop("simulcast_codecs", None)
        info = await self._ask("publish", cid=cid, kind=_KINDS[kind], name=name, muted=muted,
                               source=_SOURCES[source], layers=sizes, **fields)
        return models.TrackInfo(sid=info["sid"], name=info["name"], muted=info["muted"])
