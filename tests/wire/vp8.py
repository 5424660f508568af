"""RTP packets of the probe's own making: VP8 whose bytes tell layer and frame, and Opus.

Only what a forwarding server may look at is real: descriptor (RFC 7741), frame tag, dimensions.
"""

import struct
from dataclasses import dataclass, field

SIZES = {"q": (320, 180), "h": (640, 360), "f": (1280, 720), "": (640, 360)}
# Temporal pattern of three layers as libwebrtc makes it: (TID, whether it refers to the base only,
# so that a receiver may begin with that layer here).
PATTERN = ((0, False), (2, True), (1, True), (2, False))


def rtp(payload_type, sequence, timestamp, ssrc, payload, marker=False, extensions=()):
    """An RTP packet with header extensions, a list of (id, bytes); two-byte ones if need be."""
    header = struct.pack(
        "!BBHII", 0x80 | (0x10 if extensions else 0), payload_type | (0x80 if marker else 0),
        sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc)
    if extensions:
        short = all(len(data) <= 16 for _, data in extensions)
        body = b"".join((bytes([(n << 4) | (len(data) - 1)]) if short else bytes([n, len(data)]))
                        + data for n, data in extensions)
        body += bytes(-len(body) % 4)
        header += struct.pack("!HH", 0xBEDE if short else 0x1000, len(body) // 4) + body
    return header + payload


@dataclass
class Packet:
    """An RTP packet as it was received."""

    at: float
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    extensions: dict = field(repr=False)
    payload: bytes = field(repr=False)


def parse_rtp(data, at):
    """Reads an RTP packet."""
    first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
    offset = 12 + 4 * (first & 15)
    extensions = {}
    if first & 0x10:
        profile, words = struct.unpack_from("!HH", data, offset)
        element = offset + 4
        offset += 4
        end = offset + 4 * words
        if profile == 0xBEDE:
            while offset < end:
                if data[offset] == 0:
                    offset += 1
                    continue
                number, length = data[offset] >> 4, (data[offset] & 15) + 1
                extensions[number] = data[offset + 1:offset + 1 + length]
                offset += 1 + length
        while profile == 0x1000 and element + 1 < end and data[element]:
            number, length = data[element], data[element + 1]
            extensions[number] = data[element + 2:element + 2 + length]
            element += 2 + length
        offset = end
    payload = data[offset:len(data) - (data[-1] if first & 0x20 else 0)]
    return Packet(at, second & 0x7F, bool(second & 0x80), sequence, timestamp, ssrc, extensions,
                  payload)


def vp8_payload(picture, tl0, tid, sync, key, start, layer, frame, size, length=300):
    """Descriptor, frame tag and then the marks: layer letter and frame number."""
    descriptor = struct.pack(
        "!BBHBB", 0x80 | (0x10 if start else 0), 0xE0, 0x8000 | (picture & 0x7FFF), tl0 & 0xFF,
        (tid << 6) | (0x20 if sync else 0) | 0x01)
    body = b""
    if start:
        width, height = size
        tag = bytes([0x10 if key else 0x11, 0x02, 0x00])
        body = tag + (b"\x9d\x01\x2a" + struct.pack("<HH", width, height) if key else b"")
    mark = b"MARK" + (layer or "-").encode() + struct.pack("!I", frame)
    return (descriptor + body + mark).ljust(length, b"\x55")


@dataclass
class Vp8:
    """A VP8 payload as it was received."""

    start: bool
    picture: int
    long_picture: bool
    tl0: int
    tid: int
    key: bool
    layer: str
    frame: int


def parse_vp8(payload):
    """Reads descriptor, key flag and marks; None for padding."""
    if not payload:
        return None
    first, offset = payload[0], 1
    picture = tl0 = tid = -1
    long_picture = False
    if first & 0x80:
        flags, offset = payload[1], 2
        if flags & 0x80:
            long_picture = bool(payload[offset] & 0x80)
            if long_picture:
                picture = struct.unpack_from("!H", payload, offset)[0] & 0x7FFF
                offset += 2
            else:
                picture = payload[offset]
                offset += 1
        if flags & 0x40:
            tl0 = payload[offset]
            offset += 1
        if flags & 0x30:
            tid = payload[offset] >> 6
            offset += 1
    start = bool(first & 0x10) and not first & 7
    key = start and not payload[offset] & 1
    at = payload.find(b"MARK", offset)
    if at < 0:
        return Vp8(start, picture, long_picture, tl0, tid, key, "?", -1)
    layer = payload[at + 4:at + 5].decode()
    frame = struct.unpack_from("!I", payload, at + 5)[0]
    return Vp8(start, picture, long_picture, tl0, tid, key, layer, frame)


class Layer:
    """One simulcast layer (or the only stream) of a camera."""

    def __init__(self, rid, ssrc, picture=100, tl0=7, sequence=65500, timestamp=4294900000):
        self.rid = rid
        self.ssrc = ssrc
        self.sequence = sequence
        self.timestamp = timestamp
        self.picture = picture
        self.tl0 = tl0
        self.frame = 0
        self.want_key = True
        self.packets = 0
        self.octets = 0

    def next_frame(self, payload_type, extensions, pieces=2, length=300, advance=3000):
        """The packets of the next frame; a key frame if one was asked for."""
        key, self.want_key = self.want_key, False
        tid, sync = (0, False) if key else PATTERN[self.frame % 4]
        self.tl0 += tid == 0
        out = []
        for piece in range(pieces):
            payload = vp8_payload(self.picture, self.tl0, tid, sync, key, piece == 0,
                                  self.rid, self.frame, SIZES[self.rid], length)
            out.append(rtp(payload_type, self.sequence, self.timestamp, self.ssrc, payload,
                           piece == pieces - 1, extensions()))
            self.sequence += 1
            self.packets += 1
            self.octets += length
        self.picture += 1
        self.frame += 1
        self.timestamp += advance
        return out
