"""Joining: the first message, who is there, answers and their ids, keepalive, grace."""

import asyncio
import time

from livekit.protocol import models, rtc

from daemon import Daemon
from harness import expect, test, until
from probe import Probe, close_all


@test("LK-12", "an unknown protocol number and unknown fields are accepted")
async def _():
    probe = Probe("newer", "anna")
    request = probe.join_request()
    request.client_info.protocol = 999
    # Field 2000 as a string and 2001 as a varint: what a later client might send.
    extra = b"\x82\x7d\x05later" + b"\x88\x7d\x2a"
    widened = rtc.JoinRequest.FromString(request.SerializeToString() + extra)
    first = await probe.open(widened)
    expect(first[1] == "join", f"first message is {first[1]}")
    await probe.socket.send(
        rtc.SignalRequest(ping=5).SerializeToString() + extra)
    await probe.message("pong", seconds=2)
    # A request of a kind that does not exist yet.
    await probe.socket.send(b"\xc2\x3e\x02hi")
    await probe.request(ping=6)
    await until(lambda: len(probe.messages("pong")) == 2, "an answer after an unknown request", 2)


@test("LK-13", "the first message is JoinResponse with version, ping and trailer")
async def _():
    probe = Probe("first", "anna")
    started = time.monotonic()
    at, kind, join = await probe.open()
    expect(kind == "join", f"first message is {kind}")
    expect(at - started < 5, f"after {at - started:.1f} s")
    numbers = join.server_info.version.split(".")
    expect(len(numbers) >= 3 and all(part[:1].isdigit() for part in numbers[:3]),
           f"server version {join.server_info.version!r}")
    expect(join.server_info.version.startswith("1.13.7"), join.server_info.version)
    expect((join.ping_interval, join.ping_timeout) == (5, 15),
           f"ping {join.ping_interval}/{join.ping_timeout}")
    expect(len(join.sif_trailer) >= 32, f"sif_trailer has {len(join.sif_trailer)} bytes")
    expect(join.room.name == "first" and join.room.sid.startswith("RM_"), f"{join.room.sid}")
    expect(join.participant.identity == "anna" and join.participant.sid.startswith("PA_"),
           f"participant {join.participant.sid}")
    expect(not join.subscriber_primary, "subscriber_primary in v1")
    expect(any(c.mime.lower().startswith("video/") for c in join.enabled_publish_codecs),
           "no video codec may be published")


@test("LK-14", "other_participants lists everyone with their tracks")
async def _():
    anna, ben = Probe("listed", "anna"), Probe("listed", "ben")
    await anna.connect()
    await ben.connect()
    voice, _ = await anna.publish_audio()
    camera, _ = await anna.publish_video()
    await ben.message("update", lambda u: any(len(p.tracks) == 2 for p in u.participants))
    cora = Probe("listed", "cora")
    await cora.open()
    others = {p.identity: p for p in cora.join.other_participants}
    expect(set(others) == {"anna", "ben"}, f"others are {sorted(others)}")
    sids = {track.sid for track in others["anna"].tracks}
    expect(sids == {voice.sid, camera.sid}, f"tracks of anna are {sids}")
    expect(others["anna"].state == models.ParticipantInfo.ACTIVE, "anna is not active")


@test("LK-14", "a hidden participant is shown to nobody, where hiding is allowed")
async def _():
    async with Daemon(toml="[rooms]\nhidden_participants = true\n") as daemon:
        anna = Probe("hidden", "anna", daemon.url)
        await anna.connect()
        voice, _ = await anna.publish_audio()
        ghost = Probe("hidden", "ghost", daemon.url)
        await ghost.connect(grants={"hidden": True, "canPublish": False})
        await ghost.flow(await ghost.subscription(voice.sid))
        cora = Probe("hidden", "cora", daemon.url)
        await cora.connect()
        await anna.message("update", lambda u: any(p.identity == "cora" for p in u.participants))
        for who in (anna, cora):
            expect(not who.knows("ghost"), f"{who.identity} was told of the hidden one")
        await close_all()


@test("LK-14", "the wish to be hidden is ignored unless the operator allows it")
async def _():
    anna, ghost = Probe("unhidden", "anna"), Probe("unhidden", "ghost")
    await anna.connect()
    await ghost.connect(grants={"hidden": True, "canPublish": False})
    await until(lambda: anna.knows("ghost"), "anna is told of the one who wished to hide")


@test("LK-15", "answers carry the offer's id, 0 for 0, and the map of sent tracks")
async def _():
    anna = Probe("ids", "anna")
    await anna.connect()
    voice, _ = await anna.publish_audio()
    camera, _ = await anna.publish_video()
    ben = Probe("ids", "ben")
    await ben.connect()
    await ben.subscription(voice.sid)
    await ben.subscription(camera.sid)
    expect([a.id for a in ben.answers] == list(range(1, len(ben.answers) + 1)),
           f"answer ids {[a.id for a in ben.answers]}")
    zero = Probe("ids", "zero")
    zero.zero_ids = True
    await zero.connect()
    await zero.subscription(voice.sid)
    expect({a.id for a in zero.answers} == {0}, f"answer ids {[a.id for a in zero.answers]}")
    for probe in (ben, zero):
        sending = {s.mid for s in probe.answer.sections if s.direction == "sendonly"}
        expect(sending == set(probe.mid_tracks),
               f"sends on {sorted(sending)}, map has {sorted(probe.mid_tracks)}")
        expect(set(probe.mid_tracks.values()) == {voice.sid, camera.sid}, str(probe.mid_tracks))


@test("LK-16", "3 + 3 tracks reach a joiner with at most one more negotiation")
async def _():
    anna = Probe("six", "anna")
    await anna.connect()
    tracks = []
    for number in range(3):
        tracks.append((await anna.publish_audio(f"voice {number}"))[0])
        tracks.append((await anna.publish_video(f"camera {number}", rids=()))[0])
    ben = Probe("six", "ben")
    await ben.connect()
    for track in tracks:
        section = await ben.subscription(track.sid)
        await ben.flow(section)
    expect(ben.offer_id <= 2, f"{ben.offer_id} offers were needed")
    expect(all(need == (0, 0) for need in ben.requirements), f"asked for {ben.requirements}")
    return f"{ben.offer_id} offers"


@test("LK-20", "ping gives pong in milliseconds, ping_req its echo")
async def _():
    probe = Probe("ping", "anna")
    await probe.open()
    sent = int(time.time() * 1000)
    await probe.request(ping=sent)
    await probe.request(ping_req=rtc.Ping(timestamp=sent, rtt=7))
    pong = await probe.message("pong", seconds=2)
    expect(abs(pong - time.time() * 1000) < 5000, f"pong is {pong}, not milliseconds of now")
    response = await probe.message("pong_resp", seconds=2)
    expect(response.last_ping_timestamp == sent, f"echo is {response.last_ping_timestamp}")
    expect(abs(response.timestamp - time.time() * 1000) < 5000, f"{response.timestamp}")


@test("LK-18", "others see a joiner become active when its media connects")
async def _():
    anna, ben = Probe("active", "anna"), Probe("active", "ben")
    await anna.connect()
    await ben.open()
    await until(lambda: ben.answer, "an answer")
    info = anna.knows("ben")
    expect(not info or info.state != models.ParticipantInfo.ACTIVE, "active before ICE")
    await ben.peer.connect(ben.answer, ben._address())
    await anna.message("update", lambda u: any(
        p.identity == "ben" and p.state == models.ParticipantInfo.ACTIVE for p in u.participants))


@test("LK-61", "a socket that closes before media connects is forgotten at once")
async def _():
    anna = Probe("grace", "anna")
    await anna.connect()
    ben = Probe("grace", "ben")
    await ben.open()
    await until(lambda: ben.answer, "an answer")
    ben.socket.transport.abort()
    await asyncio.sleep(1)
    info = anna.knows("ben")
    expect(not info or info.state == models.ParticipantInfo.DISCONNECTED,
           "still there a second after the socket closed")
    cora = Probe("grace", "cora")
    await cora.open()
    expect("ben" not in [p.identity for p in cora.join.other_participants], "listed to a joiner")


@test("LK-61", "a socket that closes after media connected leaves the media running", seconds=40)
async def _():
    anna, ben = Probe("kept", "anna"), Probe("kept", "ben")
    await anna.connect()
    await ben.connect()
    voice, _ = await ben.publish_audio()
    section = await anna.subscription(voice.sid)
    await anna.flow(section)
    ben.socket.transport.abort()
    for _ in range(8):
        await anna.flow(section, count=40, seconds=2)
        await asyncio.sleep(0.2)
    info = anna.knows("ben")
    expect(info.state == models.ParticipantInfo.ACTIVE, f"state {info.state}")


@test("LK-07", "a token that may not subscribe receives nothing")
async def _():
    anna, deaf = Probe("deaf", "anna"), Probe("deaf", "deaf")
    await anna.connect()
    await deaf.connect(grants={"canSubscribe": False})
    voice, _ = await anna.publish_audio()
    ben = Probe("deaf", "ben")
    await ben.connect()
    await ben.flow(await ben.subscription(voice.sid))
    expect(not deaf.mid_tracks and not deaf.peer.packets, "media came all the same")


@test("LK-17", "a second join with the same identity gets the first one a Leave")
async def _():
    ben = Probe("twice", "ben")
    await ben.connect()
    first, second = Probe("twice", "anna"), Probe("twice", "anna")
    await first.connect()
    await second.connect()
    leave = await first.message("leave", seconds=3)
    expect(leave.action == rtc.LeaveRequest.DISCONNECT, f"action {leave.action}")
    expect(leave.reason == models.DUPLICATE_IDENTITY, f"reason {leave.reason}")
    await until(first.closed.is_set, "the first socket closes", 3)
    info = ben.knows("anna")
    expect(info.sid == second.join.participant.sid, "ben still knows the old one")
    states = [p.state for u in ben.messages("update") for p in u.participants
              if p.identity == "anna"]
    expect(models.ParticipantInfo.DISCONNECTED not in states, "ben was told anna left")


@test("", "a leave message is told to the others with its reason")
async def _():
    anna, ben = Probe("leaving", "anna"), Probe("leaving", "ben")
    await anna.connect()
    await ben.connect()
    await ben.request(leave=rtc.LeaveRequest(reason=models.CLIENT_INITIATED))
    gone = await anna.message("update", lambda u: any(
        p.identity == "ben" and p.state == models.ParticipantInfo.DISCONNECTED
        for p in u.participants), seconds=2)
    reason = [p.disconnect_reason for p in gone.participants if p.identity == "ben"]
    expect(reason == [models.CLIENT_INITIATED], f"reason {reason}")
