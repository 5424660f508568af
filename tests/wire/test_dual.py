"""The older signalling: joins by query parameters, two connections, offers of the server."""

import asyncio
import time

import websockets
from aiortc import RTCSctpCapabilities, RTCSctpTransport
from livekit.protocol import models, rtc

import vp8
from daemon import Daemon
from dual import DualProbe
from harness import expect, test, until
from jwt_token import token
from probe import Probe
from test_http import get, upgrade_status


@test("LK-03", "the older validate says success, and its errors carry CORS too")
async def _():
    access, origin = token("older", "anna"), {"Origin": "https://app.example"}
    for query, expected in ((f"access_token={access}&protocol=15", 200),
                            (f"access_token={access}&attributes=%25", 400),
                            ("access_token=broken", 401), ("protocol=15", 401)):
        status, headers, body = await get(f"/rtc/validate?{query}", headers=origin)
        expect(status == expected, f"{query[:30]} is {status}, not {expected}: {body[:80]!r}")
        expect("access-control-allow-origin" in headers, f"{status} has no CORS header")
        expect(status != 200 or body == b"success", f"body is {body!r}")
    limits = "[rooms]\nauto_create = false\n[limits]\nparticipants = 1\n"
    async with Daemon(toml=limits) as daemon:
        path = f"/rtc/validate?access_token={access}&protocol=15"
        status, headers, body = await get(path, headers=origin, url=daemon.url)
        expect(status == 404 and b"requested room does not exist" in body, f"{status} {body!r}")
        expect("access-control-allow-origin" in headers, "404 without CORS")
        await DualProbe("older", "ben", daemon.url).connect(grants={"roomCreate": True})
        status, headers, _ = await get(path, headers=origin, url=daemon.url)
        expect(status == 503, f"validate of a full node is {status}")
        expect("access-control-allow-origin" in headers, "503 without CORS")


@test("LK-09", "with v1 off, /rtc/v1 is unknown but readable, and /rtc works")
async def _():
    async with Daemon(toml="[http]\nv1 = false\n") as daemon:
        access = token("fallback", "anna")
        path = f"/rtc/v1/validate?access_token={access}&join_request=CgA"
        status, headers, body = await get(path, headers={"Origin": "https://a.example"},
                                          url=daemon.url)
        expect(status == 404, f"{status}")
        expect(b"requested room does not exist" not in body, "clients take that for the end")
        expect("access-control-allow-origin" in headers, "404 without CORS")
        try:
            await Probe("fallback", "anna", daemon.url).open()
            expect(False, "/rtc/v1 is there")
        except websockets.InvalidStatus as refused:
            expect(refused.response.status_code == 404, f"{refused.response.status_code}")
        await DualProbe("fallback", "anna", daemon.url).connect()


@test("LK-11", "who sends text gets JSON, until it sends binary again")
async def _():
    for probe in (Probe("json", "anna"), DualProbe("json", "ben")):
        await probe.open()
        probe.tasks[0].cancel()
        await asyncio.sleep(0)
        await probe.socket.send('{"pingReq": {"timestamp": "5", "rtt": "1"}}')

        async def frame(test):
            while True:
                received = await asyncio.wait_for(probe.socket.recv(), 5)
                if test(received):
                    return received

        text = await frame(lambda got: isinstance(got, str))
        expect('"lastPingTimestamp":"5"' in text.replace(" ", ""), text)
        await probe.socket.send(rtc.SignalRequest(ping=6).SerializeToString())
        raw = await frame(lambda got: isinstance(got, bytes))
        expect(rtc.SignalResponse.FromString(raw).WhichOneof("message") == "pong", f"{raw!r}")


@test("LK-29", "the server offers within 1 s, with both data channels, ids rise by one")
async def _():
    anna = DualProbe("offers", "anna")
    joined, kind, join = await anna.open()
    expect(kind == "join" and join.subscriber_primary, f"{kind} {join.subscriber_primary}")
    await until(lambda: anna.offers, "an offer", 1)
    labels = []
    await anna.connect_down()
    sctp = RTCSctpTransport(anna.down.dtls, port=5000)
    sctp.on("datachannel", lambda channel: labels.append(
        (channel.label, channel.ordered, channel.maxRetransmits)))
    await sctp.start(RTCSctpCapabilities(maxMessageSize=65536), 5000)
    await until(lambda: len(labels) == 2, "two data channels", 5)
    expect(sorted(labels) == [("_lossy", False, 0), ("_reliable", True, None)], f"{labels}")
    first = anna.offers[0].id
    expect(1 <= first <= 256, f"first id {first}")
    ben = Probe("offers", "ben")
    await ben.connect()
    for number in range(3):
        track, _ = await ben.publish_audio(f"voice {number}")
        await anna.flow(await anna.subscription(track.sid))
    ids = [offer.id for offer in anna.offers]
    expect(ids == list(range(first, first + len(ids))), f"ids {ids}")
    # Three tracks at once need one offer for the first, and one more for what came meanwhile.
    await asyncio.sleep(0.3)
    before = len(anna.offers)
    anna.auto = False
    for number in range(3):
        await ben.publish_audio(f"more {number}")
    await until(lambda: len(anna.offers) > before, "an offer", 2)
    await asyncio.sleep(1)
    expect(len(anna.offers) == before + 1, "more than one offer is outstanding")
    await anna.accept(anna.offers[-1], number=first)
    await asyncio.sleep(0.5)
    expect(len(anna.offers) == before + 1, "an answer to another offer counted")
    anna.auto = True
    await anna.accept(anna.offers[-1])
    await until(lambda: len(anna.mapped) == 6, "all six tracks are offered", 2)
    expect(len(anna.offers) == before + 2, f"{len(anna.offers) - before} offers for three tracks")
    await sctp.stop()
    return f"first offer after {1000 * (anna.log[1][0] - joined):.0f} ms"


@test("LK-29", "an offer that is never answered ends in a full reconnect after 15 s", seconds=40)
async def _():
    anna, ben = DualProbe("mute", "anna"), Probe("mute", "ben")
    await anna.connect()
    await ben.connect()
    anna.auto = False
    before = len(anna.offers)
    await ben.publish_audio()
    await until(lambda: len(anna.offers) > before, "an offer", 2)
    asked = time.monotonic()
    leave = await anna.message("leave", seconds=20)
    took = time.monotonic() - asked
    expect(leave.action == rtc.LeaveRequest.RECONNECT, f"action {leave.action}")
    expect(leave.reason == models.STATE_MISMATCH, f"reason {leave.reason}")
    expect(14 < took < 17, f"after {took:.1f} s")
    expect(not ben.messages("leave"), "another one had to go too")


@test("", "old and new clients in one room receive each other, also who joins late")
async def _():
    anna, ben = DualProbe("mixed", "anna"), Probe("mixed", "ben")
    await anna.connect()
    await ben.connect()
    tracks = {}
    for probe in (anna, ben):
        voice, _ = await probe.publish_audio()
        camera, sender = await probe.publish_video()
        tracks[probe.identity] = (voice.sid, camera.sid, sender)
    late = DualProbe("mixed", "cora")
    await late.connect()
    expect(sorted(late.mapped.values()) == sorted(
        sid for voice, camera, _ in tracks.values() for sid in (voice, camera)),
        "the first offer carries all tracks that are there")
    for receiver in (anna, ben, late):
        for identity, (voice, camera, _) in tracks.items():
            if identity != receiver.identity:
                await receiver.flow(await receiver.subscription(voice))
                await receiver.flow(await receiver.subscription(camera), 20)
    section = await late.subscription(tracks["anna"][1])
    packets = late.received(section)
    expect(vp8.parse_vp8(packets[0].payload).key, "the first packet is not of a key frame")
    numbers = [packet.sequence for packet in packets]
    expect(numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))], "gaps")
    # Feedback of the receiving connection reaches the publishing one of somebody else.
    keys = len(anna.peer.key_requests)
    await asyncio.sleep(1.2)
    await late.down.picture_loss(section.ssrcs[0])
    await until(lambda: len(anna.peer.key_requests) > keys, "anna is asked for a key frame", 2)
    await late.down.missing(section.ssrcs[0], packets[-1].sequence)
    await until(lambda: any(packet.payload for packet in late.down.packets[section.rtx]),
                "a retransmission", 2)
    expect(not anna.down.broken and not late.down.broken, "RTCP that can't be read")


@test("", "a section that went quiet carries the next track")
async def _():
    anna, ben = DualProbe("recycled", "anna"), DualProbe("recycled", "ben")
    await anna.connect()
    await ben.connect()
    used = set()
    for number in range(4):
        track, voice = await ben.publish_audio(f"voice {number}")
        section = await anna.subscription(track.sid)
        await anna.flow(section)
        used.add(section.mid)
        voice.stop()
        ben.sections[-1].direction = "inactive"
        await ben.negotiate()
        quiet = lambda: anna.offered.by_mid(section.mid).direction == "inactive"
        await until(quiet, "the section goes quiet", 2)
        expect(not anna.mapped, f"{anna.mapped}")
        await asyncio.sleep(0.05)
    expect(len(used) == 1, f"sections {used} for one track at a time")


@test("", "who receives nothing has the publishing connection first", seconds=40)
async def _():
    anna, ben = DualProbe("first", "anna"), Probe("first", "ben")
    await ben.connect()
    join = (await anna.open(grants={"canSubscribe": False}))[2]
    expect(not join.subscriber_primary, "subscriber_primary without canSubscribe")
    voice, _ = await anna.publish_audio()
    await ben.flow(await ben.subscription(voice.sid))
    await until(lambda: ben.knows("anna").state == models.ParticipantInfo.ACTIVE,
                "anna is active", 2)
    expect(not anna.offers, "an offer with nothing in it")
    # A client of 2020: it publishes first too, and takes tracks once it is connected.
    old = DualProbe("first", "old")
    join = (await old.open(protocol=2))[2]
    expect(not join.subscriber_primary, "subscriber_primary for protocol 2")
    await asyncio.sleep(0.3)
    expect(not old.offers, "an offer before the client is connected")
    await old.publish_audio()
    section = await old.subscription(voice.sid)
    await old.connect_down()
    await old.flow(section)


@test("", "publish= joins beside the same person; auto_subscribe=0 receives nothing unasked")
async def _():
    anna, ben = DualProbe("beside", "anna"), DualProbe("beside", "ben")
    screen = DualProbe("beside", "anna")
    await anna.connect()
    await ben.connect(auto_subscribe=0)
    join = (await screen.open(publish="screen"))[2]
    expect(join.participant.identity == "anna#screen", join.participant.identity)
    expect(not join.subscriber_primary, "it does not receive")
    voice, _ = await screen.publish_audio()
    await anna.flow(await anna.subscription(voice.sid))
    expect(not anna.messages("leave"), "anna was evicted")
    expect(not ben.mapped, "subscribed unasked")
    await ben.request(subscription=rtc.UpdateSubscription(track_sids=[voice.sid], subscribe=True))
    await ben.flow(await ben.subscription(voice.sid))
    refused = await upgrade_status(
        f"/rtc?publish=x&access_token={token('beside', 'cora', {'canPublish': False})}")
    expect(refused == 401, f"publish= without the right to is {refused}")
    # With a join request this path gives a single connection.
    dora = Probe("beside", "dora")
    expect(not (await dora.open(path="/rtc"))[2].subscriber_primary, "two connections for one")


@test("LK-56 LK-30", "a resume restarts ICE on the connection that the server offers")
async def _():
    anna, ben = DualProbe("resumed", "anna"), Probe("resumed", "ben")
    await anna.connect()
    await ben.connect()
    voice, _ = await ben.publish_audio()
    section = await anna.subscription(voice.sid)
    await anna.flow(section)
    sid, known, before = anna.join.participant.sid, len(anna.offers), anna.offered.ufrag
    await anna.socket.close()
    anna.auto = False
    anna.log.clear()
    await anna.reopen(reconnect=1, sid=sid)
    expect(anna.log[0][1] == "reconnect", f"first message is {anna.log[0][1]}")
    await until(lambda: len(anna.offers) > known, "an offer after the resume", 2)
    expect(anna.offered.ufrag != before, "the offer doesn't restart ICE")
    anna.down.ice.restart()
    await anna.accept(anna.offers[-1])
    anna.down.ice.remote_ufrag = anna.offered.ufrag
    anna.down.ice.remote_password = anna.offered.password
    await asyncio.wait_for(anna.down.ice.connected.wait(), 5)
    await anna.flow(section, 20)
    gone = [p for update in ben.messages("update") for p in update.participants
            if p.identity == "anna" and p.state == models.ParticipantInfo.DISCONNECTED]
    expect(not gone, "ben was told that anna left")
    # And what comes later is offered as before.
    anna.auto = True
    more, _ = await ben.publish_audio("more")
    await anna.flow(await anna.subscription(more.sid))
