"""The media half of the probe: ICE towards a lite server, DTLS-SRTP, and a diary of packets.

ICE is written out here (a lite server only ever answers), so that tests may send anything at any
moment. DTLS and SCTP are aiortc's.
"""

import asyncio
import os
import random
import socket
import struct
import time
from collections import defaultdict

from aioice import stun
from aiortc import RTCCertificate
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport

import rtcp
import vp8
from harness import expect

# One certificate for all probes: making one costs more than a join.
_CERTIFICATE = RTCCertificate.generateCertificate()
_NTP_EPOCH = 2208988800


def _text(length):
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return "".join(random.choices(letters, k=length))


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, received):
        self.received = received

    def datagram_received(self, data, addr):
        self.received(data, addr)

    def error_received(self, exc):
        pass


class _Frames(asyncio.Protocol):
    """The same over TCP (RFC 4571)."""

    def __init__(self, received):
        self.received, self.buffer, self.lost = received, b"", asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.buffer += data
        while len(self.buffer) >= 2:
            end = 2 + int.from_bytes(self.buffer[:2], "big")
            if len(self.buffer) < end:
                return
            frame, self.buffer = self.buffer[2:end], self.buffer[end:]
            self.received(frame, self.transport.get_extra_info("peername"))

    def connection_lost(self, exc):
        self.lost.set()

    def sendto(self, data, _):
        self.transport.write(len(data).to_bytes(2, "big") + data)

    def is_closing(self):
        return self.transport.is_closing()

    def close(self):
        self.transport.close()


class Ice:
    """A controlling agent with one pair. Looks like aiortc's transport to its DTLS."""

    role = "controlling"

    def __init__(self):
        self.ufrag, self.password = _text(4), _text(24)
        self.queue = asyncio.Queue()
        self.connected = asyncio.Event()
        self.remote = None
        self.checking = None
        self.host = "127.0.0.1"
        self.within = None  # a namespace that the socket is to be in
        self.sources = set()  # where datagrams came from
        self.tcp = False  # True: connects instead, once it is known where to
        self.quiet = False  # True: stop consent checks, as a dead process would

    async def open(self):
        if self.tcp:
            return
        loop = asyncio.get_running_loop()
        where = {"local_addr": (self.host, 0)}
        if self.within:
            where = {"sock": self.within.socket(self.host, 0, socket.SOCK_DGRAM)}
        self.socket, _ = await loop.create_datagram_endpoint(
            lambda: _Socket(self._received), **where)

    async def move(self, host):
        """Another network: the socket is gone, and a new one of another address checks."""
        self.socket.close()
        self.host = host
        self.connected.clear()
        await self.open()
        if not self.quiet:
            self.raw(bytes(self.request()))

    async def dial(self, address):
        """Another way, over TCP."""
        if hasattr(self, "socket"):
            self.socket.close()
        self.remote, self.tcp = address, True
        self.connected.clear()
        _, self.socket = await asyncio.get_running_loop().create_connection(
            lambda: _Frames(self._received), *address, local_addr=(self.host, 0))
        self.raw(bytes(self.request()))

    def start(self, address, ufrag, password):
        self.remote, self.remote_ufrag, self.remote_password = address, ufrag, password
        self.checking = asyncio.ensure_future(self._check())

    def restart(self):
        """New credentials of this side, for the next offer; `remote` follows with its answer."""
        self.ufrag, self.password = _text(4), _text(24)
        self.connected.clear()

    def request(self):
        """A connectivity check that nominates."""
        message = stun.Message(message_method=stun.Method.BINDING,
                               message_class=stun.Class.REQUEST)
        message.attributes["USERNAME"] = f"{self.remote_ufrag}:{self.ufrag}"
        message.attributes["PRIORITY"] = 1853824767
        message.attributes["ICE-CONTROLLING"] = 1
        message.attributes["USE-CANDIDATE"] = None
        message.add_message_integrity(self.remote_password.encode())
        return message

    async def _check(self):
        while True:
            if not self.quiet:
                self.raw(bytes(self.request()))
            await asyncio.sleep(1 if self.connected.is_set() else 0.05)

    def _received(self, data, addr):
        self.sources.add(addr[:2])
        if data and data[0] < 2:
            message = stun.parse_message(data)
            if message.message_class == stun.Class.RESPONSE:
                self.connected.set()
            return
        self.queue.put_nowait(data)

    def raw(self, data):
        """Sends a datagram from the validated address."""
        if not self.socket.is_closing():
            self.socket.sendto(data, self.remote)

    async def _recv(self):
        return await self.queue.get()

    async def _send(self, data):
        self.raw(data)

    def close(self):
        if self.checking:
            self.checking.cancel()
        self.socket.close()


class _Dtls(RTCDtlsTransport):
    """Hands over opened packets instead of routing them."""

    on_rtp = on_rtcp = staticmethod(lambda data: None)

    async def _handle_rtp_data(self, data, arrival_time_ms):
        self.on_rtp(data)

    async def _handle_rtcp_data(self, data):
        self.on_rtcp(data)


class Peer:
    """ICE, DTLS and everything that came over it."""

    def __init__(self):
        self.ice = Ice()
        self.packets = defaultdict(list)  # ssrc -> [vp8.Packet]
        self.rtcp = []  # (time, rtcp.Rtcp)
        self.broken = []  # what was wrong with RTCP of the server
        self.key_requests = []  # (time, ssrc)
        self.dtls = None
        self.twcc_id = 0  # extension id to read transport numbers from
        self.transport_numbers = []  # [(number, time)] not yet reported
        self.feedback_count = 0
        self.reports = None
        self.own_ssrc = random.randrange(1, 2**31)

    @property
    def fingerprint(self):
        return next(print.value for print in _CERTIFICATE.getFingerprints()
                    if print.algorithm == "sha-256")

    async def connect(self, answer, address, seconds=10):
        """Brings up ICE and DTLS against the server's answer."""
        if self.ice.tcp:
            self.ice.remote_ufrag, self.ice.remote_password = answer.ufrag, answer.password
            await self.ice.dial(address)
        self.ice.start(address, answer.ufrag, answer.password)
        await asyncio.wait_for(self.ice.connected.wait(), seconds)
        self.dtls = _Dtls(self.ice, [_CERTIFICATE])
        # The server may take either role; it says which.
        self.dtls._set_role("client" if answer.setup == "passive" else "server")
        self.dtls.on_rtp, self.dtls.on_rtcp = self._rtp, self._rtcp
        prints = [RTCDtlsFingerprint(algorithm="sha-256", value=answer.fingerprint)]
        await asyncio.wait_for(self.dtls.start(RTCDtlsParameters(fingerprints=prints)), seconds)
        expect(self.dtls.state == "connected", f"DTLS is {self.dtls.state}")
        self.reports = asyncio.ensure_future(self._report())

    def _rtp(self, data):
        packet = vp8.parse_rtp(data, time.monotonic())
        self.packets[packet.ssrc].append(packet)
        number = packet.extensions.get(self.twcc_id)
        if number:
            self.transport_numbers.append((struct.unpack("!H", number)[0], packet.at))

    def _rtcp(self, data):
        now = time.monotonic()
        try:
            packets = rtcp.parse(data)
        except (ValueError, struct.error) as error:
            self.broken.append(str(error))
            return
        for packet in packets:
            self.rtcp.append((now, packet))
            if packet.kind == 206 and packet.format in (1, 4):
                self.key_requests.append((now, packet.media_ssrc))

    async def _report(self):
        """What a receiver owes: transport feedback every 100 ms, a receiver report a second."""
        turn = 0
        while True:
            await asyncio.sleep(0.1)
            turn += 1
            if self.transport_numbers:
                numbers, self.transport_numbers = self.transport_numbers, []
                await self.dtls._send_rtp(self._feedback(numbers))
            if turn % 10 == 0 and self.packets:
                await self.dtls._send_rtp(self._receiver_report())

    def _feedback(self, numbers):
        """Transport-wide feedback, two-bit status vectors; nothing is ever late here."""
        origin = numbers[0][0]
        arrived = {((n - origin + 0x8000) & 0xFFFF) - 0x8000: at for n, at in numbers}
        first = min(arrived)
        base, count = (origin + first) & 0xFFFF, max(arrived) - first + 1
        reference = int(arrived[first] * 1000 / 64)
        clock = reference * 64 * 4  # quarter milliseconds
        statuses, deltas = [], b""
        for offset in range(count):
            at = arrived.get(first + offset)
            if at is None:
                statuses.append(0)
                continue
            delta = int(at * 4000) - clock
            clock += delta
            small = 0 <= delta <= 255
            statuses.append(1 if small else 2)
            deltas += struct.pack("!B" if small else "!h", max(-32768, min(32767, delta)))
        chunks = b""
        for start in range(0, count, 7):
            seven = (statuses[start:start + 7] + [0] * 7)[:7]
            value = 0xC000
            for position, status in enumerate(seven):
                value |= status << (12 - 2 * position)
            chunks += struct.pack("!H", value)
        body = struct.pack("!HHI", base, count,
                           ((reference & 0xFFFFFF) << 8) | (self.feedback_count & 0xFF))
        self.feedback_count += 1
        body += chunks + deltas
        body += bytes(-len(body) % 4)
        media = next(iter(self.packets))
        return struct.pack("!BBHII", 0x8F, 205, 2 + len(body) // 4, self.own_ssrc, media) + body

    def _receiver_report(self):
        blocks = b""
        for ssrc, packets in list(self.packets.items())[:31]:
            blocks += struct.pack("!IIIIII", ssrc, 0, packets[-1].sequence, 0, 0, 0)
        count = len(blocks) // 24
        return struct.pack("!BBHI", 0x80 | count, 201, 1 + len(blocks) // 4, self.own_ssrc) + blocks

    async def send(self, *packets):
        """Seals and sends RTP or RTCP."""
        for packet in packets:
            await self.dtls._send_rtp(packet)

    async def picture_loss(self, ssrc):
        """Asks for a key frame."""
        await self.send(struct.pack("!BBHII", 0x81, 206, 2, self.own_ssrc, ssrc))

    async def missing(self, ssrc, sequence):
        """Reports one packet as lost."""
        await self.send(struct.pack("!BBHIIHH", 0x81, 205, 3, self.own_ssrc, ssrc, sequence, 0))

    async def sender_report(self, layer, clock_rate=90000):
        """Ties the layer's RTP clock to the wall clock, as a browser does."""
        now = time.time() + _NTP_EPOCH
        seconds = int(now)
        await self.send(struct.pack(
            "!BBHIIIIII", 0x80, 200, 6, layer.ssrc, seconds & 0xFFFFFFFF,
            int((now - seconds) * 2**32), layer.timestamp & 0xFFFFFFFF, layer.packets,
            layer.octets))

    def lost_feedback(self):
        """Generic NACKs that came from the server."""
        return [packet for _, packet in self.rtcp if packet.kind == 205 and packet.format == 1]

    async def close(self):
        if self.reports:
            self.reports.cancel()
        if self.dtls:
            await self.dtls.stop()
        self.ice.close()


def garbage(length):
    """Random bytes."""
    return os.urandom(length)
