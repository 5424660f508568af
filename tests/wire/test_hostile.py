"""LK-75: what an authenticated peer may send by mistake or malice, with a bystander call beside."""

import asyncio
import os
import random
import struct
import time

from aioice import stun
from livekit.protocol import models, rtc

import sdp
import vp8
from daemon import metric
from harness import expect, test, until
from probe import Probe


class Bystanders:
    """A call whose packets are counted while something bad happens next to it."""

    async def start(self, room):
        self.anna, self.ben = Probe(room, "anna"), Probe(room, "ben")
        await self.anna.connect()
        await self.ben.connect()
        track, self.voice = await self.anna.publish_audio()
        self.section = await self.ben.subscription(track.sid)
        await self.ben.flow(self.section)
        self.first = len(self.ben.received(self.section))
        return self

    async def verdict(self):
        """The common pass rule: still there, under 0.1 % lost, no gap over 100 ms."""
        # Without this a call that ended would have neither losses nor gaps.
        await self.ben.flow(self.section)
        packets = self.ben.received(self.section)[self.first:]
        span = ((packets[-1].sequence - packets[0].sequence) & 0xFFFF) + 1
        lost = 1 - len({p.sequence for p in packets}) / span
        gap = max(b.at - a.at for a, b in zip(packets, packets[1:]))
        text = f"{len(packets)} packets, lost {lost:.2%}, longest gap {gap * 1000:.0f} ms"
        expect(lost < 0.001, text)
        # The probe itself is one Python thread and shares the machine: its own stalls show as
        # gaps of packets that arrive in one burst afterwards. They are told apart by the sender.
        expect(gap < 0.1 + self.stall(), text)
        return text

    def stall(self):
        return max(0.0, getattr(self, "own_stall", 0.0))

    async def watch_self(self, seconds):
        """Longest time this process itself did not run."""
        self.own_stall = 0.0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.own_stall = max(self.own_stall, time.monotonic() - before - 0.01)


async def attacker(room="crowd"):
    """An authenticated, connected, publishing participant of the same room."""
    probe = Probe(room, f"mallory-{random.randrange(1 << 30)}")
    await probe.connect()
    track, camera = await probe.publish_video()
    return probe, track, camera


async def beside(attack, reasons, seconds=3.0, survives=False):
    """Runs `attack` for a while beside a call; a drop reason must rise and the call not suffer,
    nor the attacker's own stay if it `survives`."""
    room = f"crowd-{random.randrange(1 << 30)}"
    call = await Bystanders().start(room)
    probe, track, camera = await attacker(room)
    before = {reason: metric("stellwerk_dropped_total", {"reason": reason}) for reason in reasons}
    watch = asyncio.ensure_future(call.watch_self(seconds))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await attack(probe, camera)
        await asyncio.sleep(0.01)
    await watch
    await until(lambda: any(
        metric("stellwerk_dropped_total", {"reason": reason}) > count
        for reason, count in before.items()), f"a counter of {reasons} rises", 3, 0.3)
    if survives:
        await call.ben.flow(await call.ben.subscription(track.sid))
    return await call.verdict()


@test("LK-75", "RTP of unknown SSRC, rid and payload type disturbs nobody")
async def _():
    async def attack(probe, camera):
        for _ in range(5):
            await probe.peer.send(
                vp8.rtp(sdp.VP8, random.randrange(65536), 5, random.randrange(1 << 32), b"x" * 50),
                vp8.rtp(sdp.VP8, 7, 5, random.randrange(1 << 32), b"x" * 50, False,
                        [(sdp.MID, camera.section.mid.encode()), (sdp.RID, b"zz")]),
                vp8.rtp(77, 7, 5, random.randrange(1 << 32), b"x" * 50, False,
                        [(sdp.MID, b"99")]))

    return await beside(attack, ("rtp_invalid", "track_unknown"))


@test("LK-75", "sealed but malformed RTP and VP8 disturbs nobody")
async def _():
    async def attack(probe, camera):
        layer = camera.layer("q")
        layer.sequence += 1
        extensions = camera.extensions(layer)
        for payload in (b"", b"\xff", b"\x90\xff", b"\x80\x80\x80", os.urandom(3), bytes(1)):
            layer.sequence += 1
            await probe.peer.send(vp8.rtp(sdp.VP8, layer.sequence, layer.timestamp, layer.ssrc,
                                          payload, True, extensions))
        good = vp8.rtp(sdp.VP8, layer.sequence + 1, 9, layer.ssrc, b"y" * 20)
        layer.sequence += 1
        # Padding longer than the payload; extension flag without an extension.
        await probe.peer.send(bytes([good[0] | 0x20]) + good[1:-1] + b"\xff")

    return await beside(attack, ("rtp_invalid", "track_unknown", "late", "not_media"))


@test("LK-75", "unsealed, badly sealed and replayed SRTP disturbs nobody")
async def _():
    async def attack(probe, camera):
        layer = camera.layer("q")
        plain = vp8.rtp(sdp.VP8, layer.sequence, layer.timestamp, layer.ssrc, b"z" * 60)
        sealed = bytearray(probe.peer.dtls._tx_srtp.protect(plain))
        layer.sequence += 1
        probe.peer.ice.raw(plain)
        probe.peer.ice.raw(bytes(sealed))
        probe.peer.ice.raw(bytes(sealed))  # replayed
        sealed[-1] ^= 1
        probe.peer.ice.raw(bytes(sealed))
        for length in (0, 1, 3, 8, 11, 12, 13):
            probe.peer.ice.raw(b"\x80" + os.urandom(length))

    return await beside(attack, ("rtp_invalid", "not_media"))


@test("LK-75", "malformed RTCP, sealed and unsealed, disturbs nobody")
async def _():
    async def attack(probe, camera):
        ssrc = camera.layer("q").ssrc
        broken = [
            struct.pack("!BBHI", 0x9F, 201, 500, ssrc),  # length lies
            struct.pack("!BBHII", 0x8F, 205, 2, ssrc, ssrc),  # feedback without a body
            struct.pack("!BBHIIHHI", 0x8F, 205, 4, ssrc, ssrc, 0, 65535, 0),  # 65535 statuses
            struct.pack("!BBHI", 0x81, 203, 1, random.randrange(1 << 32)),  # BYE of a stranger
            struct.pack("!BBHI", 0x80, 208, 1, ssrc),  # unknown type
            struct.pack("!BBHII", 0x8F, 206, 2, ssrc, ssrc) + b"REMB\x01\xff\xff\xff",
            struct.pack("!BBHI", 0x81, 202, 1, ssrc) + b"\x01\xff\x00\x00",  # SDES past its end
            b"\x80\xc8\x00\x00" + os.urandom(8),
        ]
        await probe.peer.send(*broken)
        probe.peer.ice.raw(broken[0])
        probe.peer.ice.raw(b"\x81\xc9\x00\x07" + os.urandom(40))

    return await beside(attack, ("rtcp_invalid", "rtcp_malformed"))


@test("LK-75", "malformed STUN from a connected peer disturbs nobody, nor its own session")
async def _():
    async def attack(probe, _camera):
        ice = probe.peer.ice
        good = bytes(ice.request())
        ice.raw(good[:-1])
        ice.raw(good[:20])
        ice.raw(good[:2] + b"\xff\xff" + good[4:])
        ice.raw(good[:-40] + os.urandom(40))
        ice.raw(b"\x00\x01\x00\x00" + os.urandom(16))
        ice.raw(b"\x01\x01\x00\x00\x21\x12\xa4\x42" + os.urandom(12))  # never asked for
        ice.raw(b"\x00\x11\x00\x00\x21\x12\xa4\x42" + os.urandom(12))  # indication
        strange = stun.Message(message_method=stun.Method.BINDING,
                               message_class=stun.Class.REQUEST)
        strange.attributes["USERNAME"] = f"nobody:{ice.ufrag}"
        strange.add_message_integrity(b"wrong")
        ice.raw(bytes(strange))

    return await beside(attack, ("stun_invalid", "unknown_address"), survives=True)


@test("LK-75", "malformed DTLS and SCTP from a connected peer disturbs nobody")
async def _():
    async def attack(probe, _camera):
        ice, dtls = probe.peer.ice, probe.peer.dtls
        hello = b"\x16\xfe\xfd" + bytes(8)
        ice.raw(hello + b"\xff\xff" + os.urandom(30))
        ice.raw(hello + b"\x00\x0c\x01\xff\xff\xff" + os.urandom(8))
        ice.raw(b"\x14" + os.urandom(20))
        ice.raw(b"\x17\xfe\xfd\x00\x01" + os.urandom(40))
        # Inside DTLS: SCTP with a wrong checksum, an INIT with 65535 streams, cut chunks.
        await dtls._send_data(os.urandom(40))
        await dtls._send_data(struct.pack("!HHII", 5000, 5000, 0, 0) + os.urandom(20))
        await dtls._send_data(struct.pack("!HHIIBBHIIHHI", 5000, 5000, 0, 0, 1, 0, 20, 1, 1 << 20,
                                          65535, 65535, 1))
        await dtls._send_data(b"\x13")

    return await beside(attack, ("dtls_invalid", "not_media"))


@test("LK-75", "signalling nonsense ends or annoys only the one who sends it")
async def _():
    call = await Bystanders().start("nonsense")
    watch = asyncio.ensure_future(call.watch_self(3))
    requests = [
        dict(mute=rtc.MuteTrackRequest(sid="TR_nothing", muted=True)),
        dict(track_setting=rtc.UpdateTrackSettings(track_sids=["TR_x"] * 3000, width=1 << 31)),
        dict(subscription=rtc.UpdateSubscription(track_sids=["TR_y"] * 3000, subscribe=True)),
        dict(sync_state=rtc.SyncState()),
        dict(offer=rtc.SessionDescription(type="offer", sdp="v=0\r\n" * 2000, id=9)),
        dict(offer=rtc.SessionDescription(type="offer", sdp="", id=10)),
        dict(answer=rtc.SessionDescription(type="answer", sdp="v=0", id=1)),
        dict(add_track=rtc.AddTrackRequest(cid="x", type=models.VIDEO, width=1 << 31,
                                           height=1 << 31,
                                           layers=[models.VideoLayer(width=9)] * 1000)),
    ]
    for number, request in enumerate(requests):
        probe = Probe("nonsense", f"mallory-{number}")
        await probe.connect()
        for _ in range(5):
            if not probe.closed.is_set():
                try:
                    await probe.request(**request)
                except Exception:  # the server may well hang up
                    break
        await asyncio.sleep(0.05)
        await probe.close()
    raw = Probe("nonsense", "raw")
    await raw.open()
    for frame in (b"\xff" * 50, b"\x0a\xff\xff\xff\xff\x7f", os.urandom(500), b"", "text"):
        if not raw.closed.is_set():
            try:
                await raw.socket.send(frame)
            except Exception:
                break
    await watch
    return await call.verdict()


@test("LK-33", "announcing endless tracks is refused for the one who does it")
async def _():
    probe = Probe("greedy", "anna")
    await probe.connect()
    for number in range(200):
        await probe.request(add_track=rtc.AddTrackRequest(cid=f"c{number}", type=models.AUDIO))
    refusal = await probe.message("request_response", seconds=5)
    expect(refusal.reason == rtc.RequestResponse.LIMIT_EXCEEDED, f"reason {refusal.reason}")
    accepted = len(probe.messages("track_published"))
    expect(accepted <= 64, f"{accepted} tracks were accepted")
    return f"{accepted} accepted"
