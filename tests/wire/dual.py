"""The probe as a client of the older signalling: it joins by query parameters, publishes on one
peer connection by its own offers, and receives on another, on which the offers are the server's.
"""

import asyncio
import re

import websockets
from livekit.protocol import rtc

import sdp
from harness import expect, until
from jwt_token import token
from peer import Peer
from probe import Probe

_OURS = ("a=candidate", "a=end-of-candidates", "a=ice-", "a=fingerprint", "a=setup", "a=msid",
         "a=ssrc", "a=sendonly", "a=group", "a=max-message-size")


class DualProbe(Probe):
    """One participant with two connections; `peer` publishes, `down` receives."""

    def __init__(self, room, identity, url=None, auto=True):
        super().__init__(room, identity, url, auto)
        self.sections = [sdp.Section("application", "0")]
        self.down = Peer()
        self.offers = []  # SessionDescription messages of the server
        self.offered = None
        self.mapped = {}

    async def open(self, grants=None, access=None, path="/rtc", **query):
        await self.peer.ice.open()
        await self.down.ice.open()
        return await self.reopen(grants, access, path, **query)

    async def reopen(self, grants=None, access=None, path="/rtc", **query):
        """Opens the socket alone; gives its first message."""
        access = access or token(self.room, self.identity, grants)
        query = {"protocol": 15, "auto_subscribe": 1, "sdk": "js", "version": "2.0.0", **query}
        parameters = "&".join(f"{key}={value}" for key, value in query.items())
        self.socket = await websockets.connect(
            f"{self.url}{path}?access_token={access}&{parameters}", max_size=None,
            open_timeout=10, ping_interval=None)
        self.tasks.append(asyncio.ensure_future(self._read()))
        await until(lambda: self.log, "a first message", 5)
        return self.log[0]

    def _take(self, kind, body):
        super()._take(kind, body)
        if kind == "offer":
            self.offers.append(body)
            self.offered = sdp.parse(body.sdp)
            self.mapped = dict(body.mid_to_track_id)
            for section in self.offered.sections:
                for uri, number in section.extensions.items():
                    if "transport-wide-cc" in uri:
                        self.down.twcc_id = number
            if self.auto:
                self.tasks.append(asyncio.ensure_future(self.accept(body)))

    def acceptance(self, offer):
        """The text that answers an offer of the server."""
        head, *parts = re.split(r"^(?=m=)", offer.sdp.replace("\r\n", "\n"), flags=re.MULTILINE)
        ice = self.down.ice
        lines = [line for line in head.splitlines() if not line.startswith("a=ice-lite")]
        for part in parts:
            media, *rest = part.splitlines()
            direction = ["a=recvonly"] if "a=sendonly" in rest else []
            lines += [media, *(line for line in rest if not line.startswith(_OURS)), *direction,
                      f"a=ice-ufrag:{ice.ufrag}", f"a=ice-pwd:{ice.password}",
                      f"a=fingerprint:sha-256 {self.down.fingerprint}", "a=setup:active"]
        return "\r\n".join(lines) + "\r\n"

    async def accept(self, offer, number=None):
        """Answers an offer, by its own id unless told otherwise."""
        number = offer.id if number is None else number
        await self.request(answer=rtc.SessionDescription(
            type="answer", sdp=self.acceptance(offer), id=number))

    async def connect(self, **arguments):
        """Joins and brings up the receiving connection."""
        await self.open(**arguments)
        expect(self.log[0][1] == "join", f"first message is {self.log[0][1]}")
        await until(lambda: self.offered, "an offer of the server", 5)
        await self.connect_down()
        return self

    async def connect_down(self):
        offered = self.offered
        host, port = next((h, p) for h, p in offered.candidates if ":" not in h)
        offered.setup = "passive"  # both ways are offered, and the probe has said active
        await self.down.connect(offered, (host, port))

    async def negotiate(self):
        """An offer of the probe; the first one brings up the publishing connection."""
        answer = await super().negotiate()
        if not self.peer.dtls:
            await self.peer.connect(answer, self._address())
        return answer

    async def subscription(self, sid, seconds=5):
        """Waits for a section of the server's offer that carries the track."""
        def mapped():
            mid = next((m for m, t in self.mapped.items() if t == sid), None)
            return mid and self.offered.by_mid(mid)

        return await until(mapped, f"{self.identity} is offered {sid}", seconds)

    def received(self, section):
        return self.down.packets[section.ssrcs[0]]

    async def close(self):
        await super().close()
        if hasattr(self.down.ice, "socket"):
            await self.down.close()
