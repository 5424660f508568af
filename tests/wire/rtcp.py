"""Reads what the probe needs of RTCP. aiortc's parser takes padded transport feedback for broken."""

import struct
from dataclasses import dataclass, field


@dataclass
class Rtcp:
    """One packet of a compound."""

    kind: int  # payload type: 200 SR, 201 RR, 205 transport feedback, 206 payload feedback
    format: int  # count or feedback message type
    media_ssrc: int = 0  # of feedback; of an SR its sender
    lost: list = field(default_factory=list)  # sequence numbers of a generic NACK
    ntp: int = 0  # of an SR, 32.32 fixed point
    rtp: int = 0  # of an SR


def _lost(body):
    numbers = []
    for at in range(8, len(body) - 3, 4):
        first, mask = struct.unpack_from("!HH", body, at)
        numbers.append(first)
        numbers += [(first + bit + 1) & 0xFFFF for bit in range(16) if mask >> bit & 1]
    return numbers


def parse(data):
    """The packets of a compound. ValueError when its structure is broken."""
    packets = []
    while data:
        if len(data) < 4 or data[0] >> 6 != 2:
            raise ValueError(f"no RTCP header in {data[:8].hex()}")
        kind, words = data[1], struct.unpack_from("!H", data, 2)[0]
        end = 4 + 4 * words
        if end > len(data):
            raise ValueError(f"type {kind} is cut at {len(data)} of {end} bytes")
        packet = Rtcp(kind, data[0] & 31)
        body, data = data[4:end], data[end:]
        if kind == 200:
            packet.media_ssrc, packet.ntp, packet.rtp = struct.unpack_from("!IQI", body)
        elif kind in (205, 206):
            packet.media_ssrc = struct.unpack_from("!I", body, 4)[0]
            if kind == 205 and packet.format == 1:
                packet.lost = _lost(body)
            if kind == 206 and packet.format == 4:  # FIR names its stream in its body
                packet.media_ssrc = struct.unpack_from("!I", body, 8)[0]
        packets.append(packet)
    return packets
