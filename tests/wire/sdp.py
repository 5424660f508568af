"""Offers as the probe makes them, and what it reads from answers.

Written to the shape that Chromium 156 with livekit-client sends (three receiving sections of each
kind and a data section first). Opus and VP8 alone unless a section is given more codecs.
"""

import re
from dataclasses import dataclass, field

AUDIO_LEVEL, ABS_SEND_TIME, TWCC, MID, RID, REPAIRED_RID, DEPENDENCY = 1, 2, 3, 4, 10, 11, 12
OPUS, VP8, VP8_RTX = 111, 96, 97
_EXT = "a=extmap:{} {}"
_URI = {
    AUDIO_LEVEL: "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    ABS_SEND_TIME: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    TWCC: "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    MID: "urn:ietf:params:rtp-hdrext:sdes:mid",
    RID: "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    DEPENDENCY: "https://aomediacodec.github.io/av1-rtp-spec/"
                "#dependency-descriptor-rtp-header-extension",
    REPAIRED_RID: "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
}


@dataclass
class Section:
    """One m-section of the probe's offer."""

    kind: str
    mid: str
    direction: str = "recvonly"
    track: str = ""  # second token of a=msid
    rids: tuple = ()
    ssrc: int = 0
    rtx_ssrc: int = 0
    more: tuple = ()  # further codecs, each a Codec; those of the section's kind count

    def lines(self, credentials):
        if self.kind == "application":
            yield "m=application 9 UDP/DTLS/SCTP webrtc-datachannel"
            yield "c=IN IP4 0.0.0.0"
            yield from credentials
            yield f"a=mid:{self.mid}"
            yield "a=sctp-port:5000"
            yield "a=max-message-size:262144"
            return
        audio = self.kind == "audio"
        payloads = f"{OPUS}" if audio else f"{VP8} {VP8_RTX}"
        more = [codec for codec in self.more if codec.name.startswith(("opus", "red")) == audio]
        for codec in more:
            payloads += f" {codec.number}" if audio else f" {codec.number} {codec.number + 1}"
        yield f"m={self.kind} 9 UDP/TLS/RTP/SAVPF {payloads}"
        yield "c=IN IP4 0.0.0.0"
        yield "a=rtcp:9 IN IP4 0.0.0.0"
        yield from credentials
        yield f"a=mid:{self.mid}"
        for number in (AUDIO_LEVEL, ABS_SEND_TIME, TWCC, MID) if audio else (
                ABS_SEND_TIME, TWCC, MID, RID, REPAIRED_RID, *([DEPENDENCY] if more else [])):
            yield _EXT.format(number, _URI[number])
        yield f"a={self.direction}"
        if self.track:
            yield f"a=msid:- {self.track}"
        yield "a=rtcp-mux"
        yield "a=rtcp-rsize"
        if audio:
            yield f"a=rtpmap:{OPUS} opus/48000/2"
            yield f"a=rtcp-fb:{OPUS} transport-cc"
            yield f"a=fmtp:{OPUS} minptime=10;useinbandfec=1"
        else:
            yield f"a=rtpmap:{VP8} VP8/90000"
            for feedback in ("goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"):
                yield f"a=rtcp-fb:{VP8} {feedback}"
            yield f"a=rtpmap:{VP8_RTX} rtx/90000"
            yield f"a=fmtp:{VP8_RTX} apt={VP8}"
        for codec in more:
            yield from codec.lines()
        for rid in self.rids:
            yield f"a=rid:{rid} send"
        if self.rids:
            yield f"a=simulcast:send {';'.join(self.rids)}"
        elif self.ssrc:
            if self.rtx_ssrc:
                yield f"a=ssrc-group:FID {self.ssrc} {self.rtx_ssrc}"
            for ssrc in filter(None, (self.ssrc, self.rtx_ssrc)):
                yield f"a=ssrc:{ssrc} cname:probe"
                yield f"a=ssrc:{ssrc} msid:- {self.track}"


@dataclass(frozen=True)
class Codec:
    """A payload type, for video with the one above it for retransmissions."""

    number: int
    name: str  # as in a=rtpmap
    parameters: str = ""

    def lines(self):
        yield f"a=rtpmap:{self.number} {self.name}"
        if self.parameters:
            yield f"a=fmtp:{self.number} {self.parameters}"
        if self.name.endswith("/90000"):
            for feedback in ("transport-cc", "ccm fir", "nack", "nack pli"):
                yield f"a=rtcp-fb:{self.number} {feedback}"
            yield f"a=rtpmap:{self.number + 1} rtx/90000"
            yield f"a=fmtp:{self.number + 1} apt={self.number}"


def placeholders():
    """The sections every current client starts with."""
    kinds = ["audio"] * 3 + ["video"] * 3 + ["application"]
    return [Section(kind, str(mid)) for mid, kind in enumerate(kinds)]


def offer(sections, ufrag, password, fingerprint, version):
    """The text of an offer with these sections."""
    credentials = [
        f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{password}", "a=ice-options:trickle",
        f"a=fingerprint:sha-256 {fingerprint}", "a=setup:actpass",
    ]
    lines = [
        "v=0", f"o=- 4611731400430051336 {version} IN IP4 127.0.0.1", "s=-", "t=0 0",
        "a=extmap-allow-mixed", "a=msid-semantic: WMS",
        "a=group:BUNDLE " + " ".join(section.mid for section in sections),
    ]
    for section in sections:
        lines += section.lines(credentials)
    return "\r\n".join(lines) + "\r\n"


@dataclass
class Answered:
    """One m-section of an answer."""

    kind: str
    port: int
    mid: str
    direction: str
    text: str
    msid: tuple = ()
    ssrcs: list = field(default_factory=list)  # media first, then RTX if there is a FID group
    rtx: int = 0
    extensions: dict = field(default_factory=dict)  # uri -> id


@dataclass
class Answer:
    """What the probe needs of an answer."""

    sections: list
    ufrag: str
    password: str
    fingerprint: str
    setup: str
    candidates: list  # (address, port) of UDP host candidates
    tcp: list  # the same of TCP

    def by_mid(self, mid):
        return next(section for section in self.sections if section.mid == mid)


def _first(pattern, text, default=""):
    found = re.search(pattern, text, re.MULTILINE)
    return found.group(1) if found else default


def candidates(text):
    """(address, port) of the UDP candidates in `text`."""
    found = re.findall(r"candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", text, re.IGNORECASE)
    return [(address, int(port)) for address, port in found]


def tcp_candidates(text):
    """(address, port) of the passive TCP candidates in `text`."""
    found = re.findall(r"candidate:\S+ 1 tcp \d+ (\S+) (\d+) typ host tcptype passive", text,
                       re.IGNORECASE)
    return [(address, int(port)) for address, port in found]


def parse(text):
    """Reads an answer."""
    text = text.replace("\r\n", "\n")
    head, *parts = re.split(r"^(?=m=)", text, flags=re.MULTILINE)
    sections = []
    for part in parts:
        kind, port = re.match(r"m=(\w+) (\d+)", part).groups()
        group = re.search(r"^a=ssrc-group:FID (\d+) (\d+)", part, re.MULTILINE)
        ssrcs = list(dict.fromkeys(int(s) for s in re.findall(r"^a=ssrc:(\d+)", part, re.M)))
        rtx = int(group.group(2)) if group else 0
        msid = re.search(r"^a=msid:(\S+) (\S+)", part, re.MULTILINE)
        sections.append(Answered(
            kind, int(port), _first(r"^a=mid:(\S+)", part),
            _first(r"^a=(sendrecv|sendonly|recvonly|inactive)\s*$", part), part,
            msid.groups() if msid else (), [s for s in ssrcs if s != rtx], rtx,
            {uri: int(n) for n, uri in re.findall(r"^a=extmap:(\d+)(?:/\w+)? (\S+)", part, re.M)},
        ))
    return Answer(
        sections, _first(r"^a=ice-ufrag:(\S+)", text), _first(r"^a=ice-pwd:(\S+)", text),
        _first(r"^a=fingerprint:sha-256 (\S+)", text), _first(r"^a=setup:(\S+)", text),
        list(dict.fromkeys(candidates(text))), tcp_candidates(text),
    )
