"""Broken signalling, lost media, and how a session goes on."""

import asyncio
import base64
import json
import time

from livekit import api
from livekit.protocol import models, rtc

import harness
from daemon import Daemon
from harness import expect, test, until
from jwt_token import token
from probe import Probe
from server_api import Api

GONE = models.ParticipantInfo.DISCONNECTED


async def two(room):
    """Anna and Ben, and Anna's voice on its way to Ben: (anna, ben, voice's section at ben)."""
    anna, ben = Probe(room, "anna"), Probe(room, "ben")
    await anna.connect()
    await ben.connect()
    track, _ = await anna.publish_audio()
    section = await ben.subscription(track.sid)
    await ben.flow(section)
    return anna, ben, section


def goodbyes(probe, identity, since=0.0):
    return [p for u in probe.messages("update", since) for p in u.participants
            if p.identity == identity and p.state == GONE]


def longest_gap(packets, since):
    at = [packet.at for packet in packets if packet.at >= since]
    return max((b - a for a, b in zip(at, at[1:])), default=0.0)


@test("LK-56", "a broken socket ends nothing: media goes on, and the session is taken up again")
async def _():
    anna, ben, section = await two("broken")
    begin = time.monotonic()
    await anna.cut()
    await asyncio.sleep(1)
    _, kind, response = await anna.resume()
    expect(kind == "reconnect", f"the first message is {kind}")
    expect(response.server_info.version, "no version in ReconnectResponse")
    update = await anna.message("update", since=begin)
    expect({p.identity for p in update.participants} == {"anna", "ben"},
           f"told of {[p.identity for p in update.participants]}")
    own = next(p for p in update.participants if p.identity == "anna")
    expect(own.sid == anna.join.participant.sid, "the stay has another sid")
    expect(len(own.tracks) == 1, "the own track is missing")
    await anna.message("room_update", since=begin)
    await asyncio.sleep(1)
    gap = longest_gap(ben.received(section), begin)
    expect(gap < 0.2, f"media stood still for {gap:.2f} s")
    expect(not goodbyes(ben, "anna"), "ben was told that anna left")
    return f"longest gap {gap * 1000:.0f} ms"


@test("LK-56", "a client that comes back before its socket is missed takes it over")
async def _():
    anna, ben, section = await two("overtaken")
    old = anna.socket
    _, kind, _ = await anna.resume()
    expect(kind == "reconnect", f"the first message is {kind}")
    await asyncio.wait_for(old.wait_closed(), 5)
    expect(old.close_code == 1000, f"the old socket closed with {old.close_code}")
    await asyncio.sleep(6)
    await ben.flow(section)
    expect(not goodbyes(ben, "anna"), "ben was told that anna left")
    expect(not anna.closed.is_set(), "the new socket was closed too")


@test("LK-57", "a resume of an unknown stay is told to join anew, by its first message")
async def _():
    anna, _, _ = await two("unknown")
    for probe, sid in ((Probe("unknown", "carl"), "PA_nobody"), (Probe("nowhere", "anna"), "PA_x"),
                       (Probe("unknown", "anna"), "PA_another")):
        _, kind, leave = await probe.resume(sid)
        expect(kind == "leave", f"the first message is {kind}")
        expect(leave.action == rtc.LeaveRequest.RECONNECT, f"action {leave.action}")
        expect(leave.reason == models.STATE_MISMATCH, f"reason {leave.reason}")
        await until(probe.closed.is_set, "the socket closes", 3)
    expect(not anna.closed.is_set(), "anna's own session was touched")


@test("LK-58", "SyncState with a published track that is not known leads to a new join")
async def _():
    anna, _, _ = await two("mismatch")
    await anna.cut()
    await anna.resume()
    begin = time.monotonic()
    track = rtc.TrackPublishedResponse(cid="x", track=models.TrackInfo(sid="TR_AMunknown"))
    await anna.request(sync_state=rtc.SyncState(publish_tracks=[track]))
    leave = await anna.message("leave", since=begin)
    expect(leave.action == rtc.LeaveRequest.RECONNECT, f"action {leave.action}")
    expect(leave.reason == models.STATE_MISMATCH, f"reason {leave.reason}")


@test("LK-43 LK-59", "SyncState's unsubscribed and disabled tracks stay so")
async def _():
    anna, ben, _ = await two("synced")
    second, _ = await anna.publish_audio("second")
    third, _ = await anna.publish_audio("third")
    sections = [await ben.subscription(track.sid) for track in (second, third)]
    for section in sections:
        await ben.flow(section)
    await ben.cut()
    _, kind, _ = await ben.resume()
    expect(kind == "reconnect", f"the first message is {kind}")
    await ben.request(sync_state=rtc.SyncState(
        subscription=rtc.UpdateSubscription(track_sids=[second.sid], subscribe=False),
        track_sids_disabled=[third.sid]))
    await asyncio.sleep(0.5)
    counts = [len(ben.received(section)) for section in sections]
    await asyncio.sleep(1)
    expect([len(ben.received(section)) for section in sections] == counts, "media still comes")
    await ben.settings(third.sid, disabled=False)
    await ben.flow(sections[1])
    expect(len(ben.received(sections[0])) == counts[0], "the unsubscribed track came back")


@test("LK-60", "silent media is told by a Leave to resume, and ends the stay if nobody comes",
      seconds=60)
async def _():
    anna, ben, section = await two("failed")
    anna.peer.ice.quiet = True
    for task in anna.tasks[1:]:
        task.cancel()
    anna.peer.reports.cancel()
    begin = time.monotonic()
    leave = await anna.message("leave", seconds=25, since=begin)
    told = time.monotonic() - begin
    expect(leave.action == rtc.LeaveRequest.RESUME, f"action {leave.action}")
    await until(anna.closed.is_set, "the socket closes", 3)
    await until(lambda: goodbyes(ben, "anna"), "ben is told that anna left", 15)
    gone = time.monotonic() - begin
    expect(12 < told < 18 and 17 < gone < 26, f"told after {told:.1f} s, gone after {gone:.1f} s")
    return f"told after {told:.1f} s, gone after {gone:.1f} s"


@test("LK-60", "who comes back after the Leave goes on", seconds=60)
async def _():
    anna, ben, section = await two("revived")
    ben.peer.ice.quiet = True
    ben.peer.reports.cancel()
    await ben.message("leave", seconds=25)
    await until(ben.closed.is_set, "the socket closes", 3)
    _, kind, _ = await ben.resume()
    expect(kind == "reconnect", f"the first message is {kind}")
    ben.peer.ice.quiet = False
    await ben.restart_ice()
    await ben.flow(section)
    await asyncio.sleep(6)
    await ben.flow(section)
    expect(not goodbyes(anna, "ben"), "anna was told that ben left")


@test("LK-60", "a dead process is gone within 8 s", seconds=30)
async def _():
    anna, ben, _ = await two("dead")
    anna.peer.ice.quiet = True
    for task in anna.tasks[1:]:
        task.cancel()
    anna.peer.reports.cancel()
    begin = time.monotonic()
    await anna.cut()
    await until(lambda: goodbyes(ben, "anna"), "ben is told that anna left", 8)
    return f"after {time.monotonic() - begin:.1f} s"


@test("LK-62", "a mute that waited for the resume is applied after it")
async def _():
    anna, ben, _ = await two("muted")
    await anna.cut()
    await anna.resume()
    sid = ben.knows("anna").tracks[0].sid
    await anna.request(sync_state=rtc.SyncState(
        publish_tracks=[rtc.TrackPublishedResponse(cid="x", track=models.TrackInfo(sid=sid))]))
    await anna.request(mute=rtc.MuteTrackRequest(sid=sid, muted=True))
    await until(lambda: ben.knows("anna").tracks[0].muted, "ben sees the mute", 2)


@test("LK-63", "who left during the break is reported after the resume")
async def _():
    anna, ben, _ = await two("missed")
    carl = Probe("missed", "carl")
    await carl.connect()
    await ben.message("update", lambda u: any(p.identity == "carl" for p in u.participants))
    await ben.cut()
    await carl.request(leave=rtc.LeaveRequest(reason=models.CLIENT_INITIATED))
    await anna.message("update", lambda u: any(
        p.identity == "carl" and p.state == GONE for p in u.participants))
    begin = time.monotonic()
    _, kind, _ = await ben.resume()
    expect(kind == "reconnect", f"the first message is {kind}")
    update = await ben.message("update", since=begin)
    told = [(p.identity, p.state, p.disconnect_reason) for p in update.participants]
    expect(told == [("carl", GONE, models.CLIENT_INITIATED)], f"told {told}")
    expect(not goodbyes(ben, "anna", begin), "anna is reported gone as well")


@test("LK-21", "a new token comes right after the join, and opens the door when the first expired",
      seconds=45)
async def _():
    anna, ben = Probe("refreshed", "anna"), Probe("refreshed", "ben")
    await ben.connect()
    now = int(time.time())
    # Within the leeway of 60 s now, beyond it soon.
    access = token("refreshed", "anna", {"canPublishData": False}, {"exp": now - 50,
                                                                    "nbf": now - 100})
    await anna.connect(access=access)
    fresh = await anna.message("refresh_token", seconds=1)
    expect(anna.log[1][1] == "refresh_token", f"the second message is {anna.log[1][1]}")
    await asyncio.sleep(12)
    refused = Probe("refreshed", "anna")
    try:
        await refused.resume(anna.join.participant.sid, access=access)
        raise harness.Failure("the expired token is still good")
    except harness.Failure:
        raise
    except Exception as error:
        expect("401" in str(error), f"refused with {error}")
    await anna.cut()
    _, kind, _ = await anna.resume(access=fresh)
    expect(kind == "reconnect", f"the first message is {kind}")
    own = next(p for u in anna.messages("update") for p in u.participants if p.identity == "anna")
    expect(not own.permission.can_publish_data, "the new token allows more than the first")


def claims(access):
    """What a token says."""
    body = access.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


@test("LK-21", "who may do less since its socket broke gets no token that says otherwise")
async def _():
    anna = Probe("demoted", "anna")
    await anna.connect()
    await anna.cut()
    async with Api() as rooms:
        await rooms.update_participant(api.UpdateParticipantRequest(
            room="demoted", identity="anna", metadata="m" * 20_000,
            permission=models.ParticipantPermission(can_subscribe=True)))
    since = time.monotonic()
    await anna.resume()
    fresh = await anna.message("refresh_token", since=since)
    expect(not claims(fresh)["video"]["canPublish"], f"the new token says {claims(fresh)}")
    expect(len(fresh) <= 6 * 1024, f"the new token has {len(fresh)} bytes")
    # And it is good: neither its length nor anything else is in the way.
    await anna.cut()
    _, kind, _ = await anna.resume(access=fresh)
    expect(kind == "reconnect", f"the first message is {kind}")


@test("LK-30", "an ICE restart keeps DTLS and SRTP, and hardly a packet is missed")
async def _():
    anna, ben, section = await two("restarted")
    fingerprint, before = ben.answer.fingerprint, ben.answer.ufrag
    begin = time.monotonic()
    for probe in (ben, anna, ben):
        await probe.restart_ice()
        await ben.flow(section, 20)
    expect(ben.answer.ufrag != before, "the server's own credentials stayed")
    expect(ben.answer.fingerprint == fingerprint, "the certificate changed")
    gap = longest_gap(ben.received(section), begin)
    expect(gap < 1, f"media stood still for {gap:.2f} s")
    ssrcs = [ssrc for ssrc, packets in ben.peer.packets.items() if packets]
    expect(ssrcs == [section.ssrcs[0]], "media came on another SSRC")
    return f"longest gap {gap * 1000:.0f} ms"
