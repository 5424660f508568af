"""A client of the signalling protocol whose every message a test can see and choose.

`Probe` keeps the diary of the socket (`log`), the sections of its offer, and a media `Peer`.
"""

import asyncio
import base64
import gzip
import json
import os
import random
import time

import websockets
from livekit.protocol import models, rtc

import sdp
import vp8
from harness import expect, until
from jwt_token import token
from peer import Peer

_open = []


async def close_all():
    """Ends every probe of a test, whatever it did to them."""
    while _open:
        await _open.pop().close()


def join_parameter(request, compress=True, padded=True):
    """The join_request query parameter."""
    inner = request.SerializeToString()
    wrapped = rtc.WrappedJoinRequest(
        compression=rtc.WrappedJoinRequest.GZIP if compress else rtc.WrappedJoinRequest.NONE,
        join_request=gzip.compress(inner) if compress else inner)
    text = base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()
    return text if padded else text.rstrip("=")


class Probe:
    """One participant. Nothing happens by itself except what `auto` says."""

    def __init__(self, room, identity, url=None, auto=True, more=(), within=None):
        self.room, self.identity = room, identity
        self.url = url or os.environ["TEST_URL"]
        self.auto = auto  # answers media_sections_requirement by an offer, as clients do
        self.log = []  # (time, kind, message)
        self.more = more  # codecs offered beside Opus and VP8
        self.sections = sdp.placeholders()
        self.peer = Peer()
        self.within = self.peer.ice.within = within  # a namespace: then the daemon is there
        self.via = None  # the candidate of the server to use; otherwise the first that fits
        self.offer_id = 0
        self.zero_ids = False
        self.answer = None
        self.answers = []  # SessionDescription messages
        self.mid_tracks = {}
        self.requirements = []
        self.negotiation = asyncio.Lock()
        self.tasks = []
        self.socket = None
        self.closed = asyncio.Event()
        _open.append(self)

    # -- signalling ---------------------------------------------------------------------------

    def join_request(self, offer=True, **settings):
        """The JoinRequest this probe would send."""
        request = rtc.JoinRequest()
        request.client_info.sdk = models.ClientInfo.JS
        request.client_info.protocol = 17
        request.client_info.version = "2.23.0"
        request.connection_settings.auto_subscribe = True
        for key, value in settings.items():
            setattr(request.connection_settings, key, value)
        if offer:
            request.publisher_offer.CopyFrom(self.next_offer())
        return request

    def next_offer(self):
        """The next offer over all sections."""
        self.offer_id += 1
        for section in self.sections:
            section.more = self.more
        text = sdp.offer(self.sections, self.peer.ice.ufrag, self.peer.ice.password,
                         self.peer.fingerprint, self.offer_id)
        return rtc.SessionDescription(type="offer", sdp=text,
                                      id=0 if self.zero_ids else self.offer_id)

    async def open(self, request=None, grants=None, parameter=None, path="/rtc/v1", access=None,
                   **settings):
        """Opens the socket and waits for the first message, which it gives."""
        await self.peer.ice.open()
        request = request or self.join_request(**settings)
        access = access or token(self.room, self.identity, grants)
        address = f"{self.url}{path}?access_token={access}&join_request=" + (
            parameter or join_parameter(request))
        there = {}
        if self.within:
            port = int(self.url.rsplit(":", 1)[1])
            there = {"sock": await asyncio.to_thread(self.within.connect, port)}
        self.socket = await websockets.connect(address, max_size=None, open_timeout=10,
                                               ping_interval=None, **there)
        self.tasks.append(asyncio.ensure_future(self._read()))
        await until(lambda: self.log, "a first message", 5)
        return self.log[0]

    async def cut(self):
        """The signalling connection breaks, without a word."""
        self.socket.transport.abort()
        await asyncio.wait_for(self.closed.wait(), 5)

    async def resume(self, sid=None, access=None, **fields):
        """Takes the stay up again; gives the first message: (time, kind, body)."""
        request = rtc.JoinRequest(reconnect=True, **fields)
        request.participant_sid = sid or self.join.participant.sid
        self.closed = asyncio.Event()
        address = (f"{self.url}/rtc/v1?access_token={access or token(self.room, self.identity)}"
                   f"&join_request={join_parameter(request)}")
        self.socket = await websockets.connect(address, max_size=None, open_timeout=10,
                                               ping_interval=None)
        # The former socket may still be read, and its last messages aren't the first of this one.
        heard = []
        self.tasks.append(asyncio.ensure_future(self._read(heard)))
        await until(lambda: heard, "a first message", 5)
        return heard[0]

    async def restart_ice(self):
        """An offer with new credentials, as clients send after a resume."""
        self.peer.ice.restart()
        await self.negotiate()
        self.peer.ice.remote_ufrag = self.answer.ufrag
        self.peer.ice.remote_password = self.answer.password
        await asyncio.wait_for(self.peer.ice.connected.wait(), 5)

    async def _read(self, heard=None):
        """Notes what comes in the log, and in `heard` what this socket alone brings."""
        closed = self.closed
        try:
            async for frame in self.socket:
                message = rtc.SignalResponse.FromString(frame)
                kind = message.WhichOneof("message")
                body = getattr(message, kind) if kind else None
                entry = (time.monotonic(), kind, body)
                self.log.append(entry)
                if heard is not None:
                    heard.append(entry)
                self._take(kind, body)
        except websockets.ConnectionClosed:
            pass
        finally:
            closed.set()

    def _take(self, kind, body):
        if kind == "join":
            self.join = body
        elif kind == "answer":
            self.answers.append(body)
            self.answer = sdp.parse(body.sdp)
            self.mid_tracks = dict(body.mid_to_track_id)
            for section in self.answer.sections:
                for uri, number in section.extensions.items():
                    if "transport-wide-cc" in uri:
                        self.peer.twcc_id = number
        elif kind == "media_sections_requirement":
            self.requirements.append((body.num_audios, body.num_videos))
            if self.auto:
                self.add_sections(body.num_audios, body.num_videos)
                self.tasks.append(asyncio.ensure_future(self.negotiate()))

    async def request(self, **fields):
        """Sends a SignalRequest."""
        await self.socket.send(rtc.SignalRequest(**fields).SerializeToString())

    def messages(self, kind, since=0.0):
        return [body for at, what, body in self.log if what == kind and at >= since]

    async def message(self, kind, test=lambda body: True, seconds=5, since=0.0):
        """Waits for a message of that kind which passes the test."""
        found = await until(
            lambda: [body for body in self.messages(kind, since) if test(body)],
            f"{self.identity} gets {kind}", seconds)
        return found[0]

    # -- negotiation and media ----------------------------------------------------------------

    def add_sections(self, audios, videos):
        for kind, count in (("audio", audios), ("video", videos)):
            for _ in range(count):
                self.sections.append(sdp.Section(kind, str(len(self.sections))))

    async def negotiate(self):
        """One offer and its answer; one at a time, as a browser does."""
        async with self.negotiation:
            count = len(self.answers)
            await self.request(offer=self.next_offer())
            await until(lambda: len(self.answers) > count, f"{self.identity} gets an answer", 5)
        return self.answer

    async def connect(self, **arguments):
        """Joins and brings up media."""
        await self.open(**arguments)
        expect(self.log[0][1] == "join", f"first message is {self.log[0][1]}")
        await until(lambda: self.answer, "the first answer", 5)
        await until(self._address, "a candidate of the server", 5)
        await self.peer.connect(self.answer, self._address())
        return self

    def _address(self):
        found = list(self.answer.candidates)
        for trickle in self.messages("trickle"):
            found += sdp.candidates(json.loads(trickle.candidateInit).get("candidate", ""))
        if self.via:
            return self.via
        if self.peer.ice.tcp:
            return next(iter(self.answer.tcp), None)
        family = ":" in self.peer.ice.host
        return next(((host, port) for host, port in found if (":" in host) == family), None)

    async def add_track(self, cid, kind, **fields):
        """AddTrack; gives the TrackInfo of its answer."""
        await self.request(add_track=rtc.AddTrackRequest(cid=cid, type=kind, **fields))
        reply = await self.message("track_published", lambda body: body.cid == cid)
        return reply.track

    def section(self, kind, cid, rids=(), ssrc=0, rtx=0):
        """A new sending section (offered with the next negotiation)."""
        section = sdp.Section(kind, str(len(self.sections)), "sendonly", cid, rids, ssrc, rtx)
        self.sections.append(section)
        return section

    async def publish_audio(self, name="voice", source=models.MICROPHONE, muted=False):
        """A microphone. Gives (TrackInfo, Voice)."""
        cid = f"{name}-{random.randrange(1 << 30)}"
        ssrc = random.randrange(1, 1 << 31)
        section = self.section("audio", cid, ssrc=ssrc)
        track = await self.add_track(cid, models.AUDIO, name=name, source=source, muted=muted)
        await self.negotiate()
        return track, Voice(self, section, ssrc)

    async def publish_video(self, name="camera", rids=("q", "h", "f"), source=models.CAMERA):
        """A camera. Gives (TrackInfo, Camera)."""
        track, section, ssrc = await self.announce_video(name, rids, source)
        return track, Camera(self, section, rids, ssrc)

    async def announce_video(self, name="camera", rids=("q", "h", "f"), source=models.CAMERA,
                             codec="vp8"):
        """A camera that sends nothing yet. Gives (TrackInfo, section, SSRC)."""
        cid = f"{name}-{random.randrange(1 << 30)}"
        ssrc = random.randrange(1, 1 << 31)
        section = self.section("video", cid, rids, 0 if rids else ssrc)
        sizes = [vp8.SIZES[rid] for rid in rids or ("",)]
        qualities = [models.LOW, models.MEDIUM, models.HIGH] if len(sizes) == 3 else (
            [models.LOW, models.HIGH] if len(sizes) == 2 else [models.HIGH])
        layers = [models.VideoLayer(quality=quality, width=width, height=height, bitrate=200_000)
                  for quality, (width, height) in zip(qualities, sizes)]
        width, height = sizes[-1]
        codec = rtc.SimulcastCodec(codec=codec, cid=cid, layers=layers)
        track = await self.add_track(cid, models.VIDEO, name=name, source=source, width=width,
                                     height=height, layers=layers, simulcast_codecs=[codec])
        await self.negotiate()
        return track, section, ssrc

    async def subscription(self, sid, seconds=5):
        """Waits until the answer maps a section to that track; gives the answered section."""
        def mapped():
            mid = next((m for m, t in self.mid_tracks.items() if t == sid), None)
            return mid and self.answer.by_mid(mid)

        return await until(mapped, f"{self.identity} has a section for {sid}", seconds)

    def received(self, section):
        """Packets on the media SSRC of an answered section."""
        return self.peer.packets[section.ssrcs[0]]

    async def flow(self, section, count=5, seconds=5):
        """Waits for `count` more packets on a section."""
        packets = self.received(section)
        before = len(packets)
        await until(lambda: len(packets) >= before + count,
                    f"{self.identity} receives packets of {section.msid}", seconds)

    async def settings(self, sid, **fields):
        await self.request(track_setting=rtc.UpdateTrackSettings(track_sids=[sid], **fields))

    def knows(self, identity):
        """Latest info about a participant, from join and updates."""
        info = next((p for p in self.join.other_participants if p.identity == identity), None)
        for update in self.messages("update"):
            for participant in update.participants:
                if participant.identity == identity:
                    info = participant
        return info

    async def close(self):
        for task in self.tasks:
            task.cancel()
        if self.socket:
            await self.socket.close()
        if hasattr(self.peer.ice, "socket"):
            await self.peer.close()


class Voice:
    """Opus packets every 20 ms; the payload tells their number."""

    def __init__(self, probe, section, ssrc):
        self.probe, self.section, self.ssrc = probe, section, ssrc
        self.sequence, self.timestamp, self.count = 1000, 5000, 0
        self.mark = 0  # second byte of the payload: tells which voice it is
        self.level = 30  # -dBov, 127 is silence
        self.paused = False  # True: time goes on, nothing is sent
        self.packets = self.octets = 0
        self.task = asyncio.ensure_future(self._run())
        probe.tasks.append(self.task)

    def packet(self):
        payload = bytes([0xFC, self.mark]) + self.count.to_bytes(4, "big") + bytes(40)
        packet = vp8.rtp(sdp.OPUS, self.sequence, self.timestamp, self.ssrc, payload, False,
                         [(sdp.MID, self.section.mid.encode()), (sdp.AUDIO_LEVEL, bytes([0x80 | self.level]))])
        self.sequence += 1
        self.timestamp += 960
        self.count += 1
        self.packets += 1
        self.octets += len(payload)
        return packet

    async def _run(self):
        begin = time.monotonic()
        while True:
            packet = self.packet()
            if self.paused:
                self.sequence -= 1
            else:
                await self.probe.peer.send(packet)
            if self.count % 50 == 0 and not self.paused:
                await self.probe.peer.sender_report(self)
            await asyncio.sleep(max(0, begin + self.count * 0.02 - time.monotonic()))

    def stop(self):
        self.task.cancel()


class Camera:
    """Simulcast or single VP8 at 30 frames a second; answers key frame requests."""

    def __init__(self, probe, section, rids, ssrc):
        self.probe, self.section = probe, section
        # Layers start at different numbers everywhere, so that mixing them up shows.
        self.layers = [
            vp8.Layer(rid, ssrc + position, picture=32700 + 5000 * position, tl0=250 + position,
                      sequence=65500 - 9000 * position,
                      timestamp=4294900000 - 1_000_000_000 * position)
            for position, rid in enumerate(rids or ("",))]
        self.number = 0
        self.paused = set()  # rids that are not sent
        self.skip = set()  # (rid, sequence) that are lost on the way up
        self.requests = 0
        self.task = asyncio.ensure_future(self._run())
        probe.tasks.append(self.task)

    def layer(self, rid):
        return next(layer for layer in self.layers if layer.rid == rid)

    def extensions(self, layer):
        self.number += 1
        out = [(sdp.TWCC, (self.number & 0xFFFF).to_bytes(2, "big")),
               (sdp.MID, self.section.mid.encode())]
        return out + ([(sdp.RID, layer.rid.encode())] if layer.rid else [])

    async def _run(self):
        begin, frames = time.monotonic(), 0
        peer = self.probe.peer
        while True:
            requests, self.requests = peer.key_requests[self.requests:], len(peer.key_requests)
            for layer in self.layers:
                layer.want_key |= any(ssrc == layer.ssrc for _, ssrc in requests)
                if frames % 30 == 0:
                    await peer.sender_report(layer)
                if layer.rid in self.paused:
                    layer.timestamp += 3000
                    continue
                for packet in layer.next_frame(sdp.VP8, lambda layer=layer: self.extensions(layer)):
                    sequence = int.from_bytes(packet[2:4], "big")
                    if (layer.rid, sequence) not in self.skip:
                        await peer.send(packet)
            frames += 1
            await asyncio.sleep(max(0, begin + frames / 30 - time.monotonic()))

    def stop(self):
        self.task.cancel()
