"""The server API by its official client, and what clients in the room see of it."""

import asyncio
import time

from livekit import api
from livekit.protocol import models, rtc

from daemon import Daemon
from harness import Failure, expect, test, until
from jwt_token import token
from probe import Probe, close_all
from server_api import Api, post, refusal, server_token

GONE = models.ParticipantInfo.DISCONNECTED


def last(probe, identity):
    """What a probe was told last of somebody, itself included."""
    found = [p for u in probe.messages("update") for p in u.participants
             if p.identity == identity]
    return found[-1] if found else None


@test("LK-64", "CreateRoom gives the room that is there, with what was asked for")
async def _():
    async with Api() as rooms:
        first = await rooms.create_room(api.CreateRoomRequest(name="made"))
        expect(first.sid.startswith("RM_") and first.name == "made", str(first))
        expect((first.empty_timeout, first.departure_timeout) == (300, 20), str(first))
        again = await rooms.create_room(api.CreateRoomRequest(
            name="made", empty_timeout=77, departure_timeout=7, max_participants=1,
            metadata="agenda"))
        expect(again.sid == first.sid, "another room came to be")
        got = (again.empty_timeout, again.departure_timeout, again.max_participants,
               again.metadata)
        expect(got == (77, 7, 1, "agenda"), str(got))
        third = await rooms.create_room(api.CreateRoomRequest(name="made"))
        expect(third == again, "what wasn't given was changed")
        listed = await rooms.list_rooms(api.ListRoomsRequest(names=["made", "not made"]))
        expect([room.sid for room in listed.rooms] == [first.sid], str(listed))
    anna, ben = Probe("made", "anna"), Probe("made", "ben")
    await anna.open()
    expect(anna.join.room.sid == first.sid and anna.join.room.metadata == "agenda",
           f"joined {anna.join.room}")
    try:
        await ben.open()
    except Exception as error:
        expect("50" in str(error), f"refused by {error}")
    else:
        raise Failure("a second participant came into a room for one")


@test("LK-64", "errors are Twirp's: not_found, unauthenticated, malformed, bad_route")
async def _():
    async with Api() as rooms:
        missing = api.RoomParticipantIdentity(room="nowhere", identity="anna")
        got = await refusal(rooms.get_participant(missing))
        expect(got == ("not_found", 404), f"no room: {got}")
        await rooms.create_room(api.CreateRoomRequest(name="somewhere"))
        missing.room = "somewhere"
        got = await refusal(rooms.get_participant(missing))
        expect(got == ("not_found", 404), f"nobody there: {got}")
        got = await refusal(rooms.delete_room(api.DeleteRoomRequest(room="nowhere")))
        expect(got == ("not_found", 404), f"delete: {got}")
    asked = {"room": "somewhere", "identity": "anna"}
    admin = server_token("somewhere", roomAdmin=True)
    cases = [
        ("no token", "GetParticipant", asked, None, 401, "unauthenticated"),
        ("another room", "GetParticipant", asked, server_token("nowhere", roomAdmin=True), 401,
         "unauthenticated"),
        ("a participant", "GetParticipant", asked, token("somewhere", "anna"), 401,
         "unauthenticated"),
        ("no roomCreate", "CreateRoom", {"name": "x"}, admin, 401, "unauthenticated"),
        ("no roomList", "ListRooms", {}, admin, 401, "unauthenticated"),
        ("no roomCreate", "DeleteRoom", {"room": "somewhere"}, admin, 401, "unauthenticated"),
        ("another key", "GetParticipant", asked,
         token("somewhere", "", {"roomAdmin": True, "roomJoin": False}, secret="x" * 40), 401,
         "unauthenticated"),
        ("not JSON", "GetParticipant", b"{", admin, 400, "malformed"),
        ("no identity", "GetParticipant", {"room": "somewhere"}, admin, 400, "invalid_argument"),
        ("no name", "CreateRoom", {}, server_token(roomCreate=True), 400, "invalid_argument"),
        ("no such method", "Conquer", {}, admin, 404, "bad_route"),
        ("not built", "PerformRpc", {}, admin, 501, "unimplemented"),
    ]
    for what, method, body, access, status, code in cases:
        got, kind, error = await post(method, body, access)
        expect((got, error.get("code")) == (status, code), f"{what}: {got} {error}")
        expect(kind == "application/json" and error.get("msg"), f"{what}: {kind} {error}")
    got, _, error = await post("GetParticipant", b"", admin, kind="text/plain")
    expect((got, error["code"]) == (404, "bad_route"), f"text/plain: {got} {error}")
    large = b" " * (11 << 20)
    try:
        got, _, error = await post("GetParticipant", large, admin)
        expect((got, error["code"]) == (400, "malformed"), f"11 MiB: {got} {error}")
    except OSError:
        pass  # cut off while it was being sent


@test("", "JSON is answered in JSON, by names in either spelling")
async def _():
    access = server_token(roomCreate=True)
    for asked in ({"name": "json", "emptyTimeout": 60}, {"name": "json", "empty_timeout": 60}):
        status, kind, room = await post("CreateRoom", asked, access)
        expect((status, kind) == (200, "application/json"), f"{status} {kind} {room}")
        expect(room["name"] == "json" and room["emptyTimeout"] == 60, str(room))
        expect(isinstance(room["creationTime"], str), "64-bit numbers are texts in JSON")
    status, _, rooms = await post("ListRooms", {"names": ["json"]}, server_token(roomList=True))
    expect(status == 200 and [room["name"] for room in rooms["rooms"]] == ["json"], str(rooms))


@test("", "participants are listed as the others see them")
async def _():
    anna, ben = Probe("staff", "anna"), Probe("staff", "ben")
    await anna.connect()
    await ben.connect()
    voice, _ = await anna.publish_audio()
    await ben.message("update", lambda u: any(p.tracks for p in u.participants))
    async with Api() as rooms:
        listed = await rooms.list_participants(api.ListParticipantsRequest(room="staff"))
        found = {p.identity: p for p in listed.participants}
        expect(set(found) == {"anna", "ben"}, f"listed {sorted(found)}")
        expect([track.sid for track in found["anna"].tracks] == [voice.sid], "tracks of anna")
        one = await rooms.get_participant(
            api.RoomParticipantIdentity(room="staff", identity="anna"))
        expect(one.sid == anna.join.participant.sid, f"sid {one.sid}")
        expect(one.state == models.ParticipantInfo.ACTIVE, f"state {one.state}")


@test("LK-65", "RemoveParticipant ends the stay and tells everybody why")
async def _():
    anna, ben = Probe("removing", "anna"), Probe("removing", "ben")
    await anna.connect()
    await ben.connect()
    async with Api() as rooms:
        asked = api.RoomParticipantIdentity(room="removing", identity="ben")
        await rooms.remove_participant(asked)
        leave = await ben.message("leave", seconds=3)
        expect(leave.action == rtc.LeaveRequest.DISCONNECT, f"action {leave.action}")
        expect(leave.reason == models.PARTICIPANT_REMOVED, f"reason {leave.reason}")
        await until(ben.closed.is_set, "the socket closes", 3)
        await until(lambda: last(anna, "ben").state == GONE, "anna is told", 3)
        reason = last(anna, "ben").disconnect_reason
        expect(reason == models.PARTICIPANT_REMOVED, f"anna was told {reason}")
        got = await refusal(rooms.remove_participant(asked))
        expect(got == ("not_found", 404), f"a second time: {got}")


@test("LK-65", "DeleteRoom sends everybody away and the room is gone")
async def _():
    anna, ben = Probe("deleting", "anna"), Probe("deleting", "ben")
    await anna.connect()
    await ben.open()
    async with Api() as rooms:
        await rooms.delete_room(api.DeleteRoomRequest(room="deleting"))
        for probe in (anna, ben):
            leave = await probe.message("leave", seconds=3)
            expect(leave.action == rtc.LeaveRequest.DISCONNECT, f"action {leave.action}")
            expect(leave.reason == models.ROOM_DELETED, f"reason {leave.reason}")
            await until(probe.closed.is_set, "the socket closes", 3)
        listed = await rooms.list_rooms(api.ListRoomsRequest(names=["deleting"]))
        expect(not listed.rooms, "the room is still listed")
    again = Probe("deleting", "anna")
    await again.open()
    expect(again.join.room.sid != anna.join.room.sid, "the same room again")


@test("LK-65", "a stop of the server sends clients to join elsewhere")
async def _():
    async with Daemon() as daemon:
        anna = Probe("stopping", "anna", daemon.url)
        await anna.connect()
        daemon.process.terminate()
        leave = await anna.message("leave", seconds=5)
        expect(leave.action == rtc.LeaveRequest.RECONNECT, f"action {leave.action}")
        expect(leave.reason == models.SERVER_SHUTDOWN, f"reason {leave.reason}")
        await close_all()


@test("", "who was removed does not come back with an older token")
async def _():
    async with Api() as rooms:
        old = token("revoked", "ben")
        undated = token("revoked", "ben", without=("nbf",))
        ben = Probe("revoked", "ben")
        await ben.connect(access=old)
        await rooms.remove_participant(
            api.RoomParticipantIdentity(room="revoked", identity="ben"))
        await ben.message("leave", seconds=3)
        for what, access in (("older", old), ("undated", undated)):
            try:
                await Probe("revoked", "ben").open(access=access)
            except Exception as error:
                expect("401" in str(error), f"{what}: {error}")
            else:
                raise Failure(f"came back with an {what} token")
    await Probe("revoked", "anna").open(access=token("revoked", "anna"))
    admin = token("revoked", "ben", {"roomAdmin": True})
    status, _, answer = await post("ListParticipants", {"room": "revoked"}, admin)
    expect(status == 401 and "removed" in answer["msg"], f"a removed admin gets {answer}")
    long = {"room": "revoked", "identity": "b" * 5000}
    status, _, answer = await post("RemoveParticipant", long,
                                   server_token("revoked", roomAdmin=True))
    expect(answer["code"] == "invalid_argument", f"an endless identity gets {answer}")
    await Probe("elsewhere", "ben").open(access=token("elsewhere", "ben"))
    fresh = token("revoked", "ben", claims={"nbf": int(time.time()) + 1})
    await Probe("revoked", "ben").open(access=fresh)


@test("LK-66", "MutePublishedTrack mutes at the publisher and for others; unmuting is refused")
async def _():
    anna, ben = Probe("hush", "anna"), Probe("hush", "ben")
    await anna.connect()
    await ben.connect()
    voice, _ = await anna.publish_audio()
    section = await ben.subscription(voice.sid)
    await ben.flow(section)
    async with Api() as rooms:
        asked = api.MuteRoomTrackRequest(room="hush", identity="anna", track_sid=voice.sid,
                                         muted=True)
        answer = await rooms.mute_published_track(asked)
        expect(answer.track.sid == voice.sid and answer.track.muted, str(answer))
        mute = await anna.message("mute", seconds=2)
        expect((mute.sid, mute.muted) == (voice.sid, True), str(mute))
        await until(lambda: ben.knows("anna").tracks[0].muted, "ben is told", 2)
        await asyncio.sleep(0.3)
        count = len(ben.received(section))
        await asyncio.sleep(0.5)
        expect(len(ben.received(section)) == count, "the voice is still heard")
        asked.muted = False
        got = await refusal(rooms.mute_published_track(asked))
        expect(got == ("failed_precondition", 412), f"unmute: {got}")
        expect(ben.knows("anna").tracks[0].muted, "unmuted all the same")
        asked.track_sid, asked.muted = "TR_nothing", True
        got = await refusal(rooms.mute_published_track(asked))
        expect(got == ("not_found", 404), f"no such track: {got}")


@test("LK-66", "where the operator allows it, a track can be unmuted")
async def _():
    async with Daemon(toml="[rooms]\nremote_unmute = true\n") as daemon:
        anna, ben = (Probe("loud", who, daemon.url) for who in ("anna", "ben"))
        await anna.connect()
        await ben.connect()
        voice, _ = await anna.publish_audio(muted=True)
        section = await ben.subscription(voice.sid)
        async with Api(daemon.url) as rooms:
            await rooms.mute_published_track(api.MuteRoomTrackRequest(
                room="loud", identity="anna", track_sid=voice.sid, muted=False))
        mute = await anna.message("mute", seconds=2)
        expect(not mute.muted, "the owner is told of a mute")
        await ben.flow(section)
        await close_all()


@test("LK-69", "a room waits for its first participant and outlives its last as long as asked",
      seconds=40)
async def _():
    async with Daemon(toml='[rooms]\nempty_timeout = "2s"\ndeparture_timeout = "2s"\n') as daemon:
        async with Api(daemon.url) as rooms:
            async def there(name):
                listed = await rooms.list_rooms(api.ListRoomsRequest(names=[name]))
                return bool(listed.rooms)

            async def gone_after(name, least, most):
                started = time.monotonic()
                while await there(name):
                    expect(time.monotonic() - started < most, f"{name} stays")
                    await asyncio.sleep(0.1)
                took = time.monotonic() - started
                expect(took > least, f"{name} was closed after {took:.1f} s")
                return took

            await rooms.create_room(api.CreateRoomRequest(name="unused"))
            await rooms.create_room(api.CreateRoomRequest(name="patient", empty_timeout=60))
            await rooms.create_room(api.CreateRoomRequest(name="brief", departure_timeout=5))
            unused = await gone_after("unused", 1.5, 4)
            # Joining ends the wait for the first one, and the other begins with the last leave.
            anna = Probe("patient", "anna", daemon.url)
            await anna.connect()
            await asyncio.sleep(2.5)
            expect(await there("patient"), "closed with somebody in it")
            await anna.request(leave=rtc.LeaveRequest())
            left = await gone_after("patient", 1.5, 4)
            again = await rooms.create_room(
                api.CreateRoomRequest(name="brief", departure_timeout=5))
            ben = Probe("brief", "ben", daemon.url)
            await ben.open()
            expect(ben.join.room.sid == again.sid, "joined another room")
            await ben.request(leave=rtc.LeaveRequest())
            own = await gone_after("brief", 4.5, 7)
        await close_all()
    return f"unused {unused:.1f} s, left {left:.1f} s, with 5 s of its own {own:.1f} s"


@test("LK-38", "revoking canPublish ends the tracks, and owner and others are told")
async def _():
    anna, ben = Probe("gagged", "anna"), Probe("gagged", "ben")
    await anna.connect()
    await ben.connect()
    voice, _ = await anna.publish_audio()
    camera, _ = await anna.publish_video(rids=())
    section = await ben.subscription(voice.sid)
    await ben.flow(section)
    may = models.ParticipantPermission(can_subscribe=True, can_publish=True,
                                       can_publish_sources=[models.MICROPHONE])
    async with Api() as rooms:
        asked = api.UpdateParticipantRequest(room="gagged", identity="anna", permission=may)
        await rooms.update_participant(asked)
        ended = await anna.message("track_unpublished", seconds=2)
        expect(ended.track_sid == camera.sid, f"ended {ended.track_sid}, not the camera")
        await until(lambda: [t.sid for t in ben.knows("anna").tracks] == [voice.sid],
                    "ben sees the voice only", 2)
        await ben.flow(section)
        asked.permission.can_publish = False
        answer = await rooms.update_participant(asked)
        expect(not answer.permission.can_publish and not answer.tracks, str(answer))
    ended = await anna.message("track_unpublished", lambda m: m.track_sid == voice.sid, 2)
    await until(lambda: not ben.knows("anna").tracks, "ben sees no track", 2)
    await until(lambda: not ben.knows("anna").permission.can_publish, "ben sees the change", 2)
    await until(lambda: last(anna, "anna") and not last(anna, "anna").permission.can_publish,
                "anna sees it herself", 2)
    await anna.request(add_track=rtc.AddTrackRequest(cid="more", type=models.AUDIO,
                                                     source=models.MICROPHONE))
    refused = await anna.message("request_response", seconds=2)
    expect(refused.reason == rtc.RequestResponse.NOT_ALLOWED, f"reason {refused.reason}")


@test("LK-50", "who may not subscribe gets no media until that is granted")
async def _():
    anna, deaf = Probe("granting", "anna"), Probe("granting", "deaf")
    await anna.connect()
    voice, _ = await anna.publish_audio()
    await deaf.connect(grants={"canSubscribe": False})
    await asyncio.sleep(1)
    expect(not deaf.mid_tracks and not deaf.peer.packets, "media came all the same")
    may = models.ParticipantPermission(can_subscribe=True, can_publish=True,
                                       can_publish_data=True)
    async with Api() as rooms:
        asked = api.UpdateParticipantRequest(room="granting", identity="deaf", permission=may)
        await rooms.update_participant(asked)
        section = await deaf.subscription(voice.sid)
        await deaf.flow(section)
        asked.permission.can_subscribe = False
        await rooms.update_participant(asked)
    await until(lambda: not deaf.mid_tracks, "the section is taken back", 3)
    count = len(deaf.received(section))
    await asyncio.sleep(0.5)
    expect(len(deaf.received(section)) == count, "the voice is still heard")


@test("", "hidden and visible again, where hiding is allowed")
async def _():
    async with Daemon(toml="[rooms]\nhidden_participants = true\n") as daemon:
        anna, ghost = (Probe("seance", who, daemon.url) for who in ("anna", "ghost"))
        await anna.connect()
        await ghost.connect()
        voice, _ = await ghost.publish_audio()
        section = await anna.subscription(voice.sid)
        await anna.flow(section)
        may = models.ParticipantPermission(can_subscribe=True, can_publish=True, hidden=True)
        async with Api(daemon.url) as rooms:
            asked = api.UpdateParticipantRequest(room="seance", identity="ghost",
                                                 permission=may)
            await rooms.update_participant(asked)
            await until(lambda: last(anna, "ghost").state == GONE, "anna sees it vanish", 2)
            await until(lambda: not anna.mid_tracks, "and its voice", 3)
            asked.permission.hidden = False
            await rooms.update_participant(asked)
        await until(lambda: last(anna, "ghost").state == models.ParticipantInfo.ACTIVE,
                    "anna sees it again", 2)
        await anna.flow(await anna.subscription(voice.sid))
        await close_all()


@test("LK-40", "a participant changes its own metadata if its token says so")
async def _():
    anna, ben = Probe("profile", "anna"), Probe("profile", "ben")
    await anna.connect(grants={"canUpdateOwnMetadata": True})
    await ben.connect()

    async def update(probe, **fields):
        count = len(probe.messages("request_response"))
        await probe.request(update_metadata=rtc.UpdateParticipantMetadata(**fields))
        await until(lambda: len(probe.messages("request_response")) > count, "an answer", 2)
        return probe.messages("request_response")[-1]

    sent = time.monotonic()
    answer = await update(anna, metadata="hello", name="Anna A.", request_id=7,
                          attributes={"hand": "up", "seat": "4"})
    expect((answer.request_id, answer.reason) == (7, rtc.RequestResponse.OK), str(answer))
    own = await anna.message("update", lambda u: any(
        p.identity == "anna" and p.metadata == "hello" for p in u.participants), 1)
    took = time.monotonic() - sent
    expect(took < 1 and own.participants[0].name == "Anna A.", f"after {took:.1f} s: {own}")
    await until(lambda: ben.knows("anna").metadata == "hello", "ben sees it", 1)
    expect(dict(ben.knows("anna").attributes) == {"hand": "up", "seat": "4"}, "attributes")
    await update(anna, attributes={"hand": ""}, request_id=8)
    await until(lambda: dict(ben.knows("anna").attributes) == {"seat": "4"},
                "an empty value takes the attribute away", 1)
    expect(ben.knows("anna").metadata == "hello", "what wasn't sent is gone")
    for what, fields in (("name", {"name": "n" * 257}),
                         ("metadata", {"metadata": "m" * (512 * 1024 + 1)}),
                         ("attributes", {"attributes": {"a": "b" * 65536}})):
        answer = await update(anna, request_id=9, **fields)
        expect(answer.reason == rtc.RequestResponse.LIMIT_EXCEEDED, f"{what}: {answer.reason}")
        expect(answer.update_metadata.request_id == 9, f"{what} is not in the answer")
    answer = await update(ben, metadata="mine", request_id=3)
    expect((answer.request_id, answer.reason) == (3, rtc.RequestResponse.NOT_ALLOWED),
           f"without permission: {answer.reason}")
    await asyncio.sleep(0.2)
    expect(not anna.knows("ben").metadata, "changed without permission")
    return f"own update after {took * 1000:.0f} ms"


@test("LK-40", "older clients are told of refusals only")
async def _():
    old = Probe("profile old", "old")
    request = old.join_request()
    request.client_info.protocol = 14
    await old.connect(request=request, grants={"canUpdateOwnMetadata": True})
    await old.request(update_metadata=rtc.UpdateParticipantMetadata(metadata="m", request_id=1))
    await old.message("update", lambda u: any(p.metadata == "m" for p in u.participants), 1)
    expect(not old.messages("request_response"), "was told of its success")
    await old.request(update_metadata=rtc.UpdateParticipantMetadata(name="n" * 300,
                                                                    request_id=2))
    refused = await old.message("request_response", seconds=1)
    expect(refused.reason == rtc.RequestResponse.LIMIT_EXCEEDED, f"reason {refused.reason}")


@test("", "UpdateParticipant changes what others see")
async def _():
    anna, ben = Probe("renamed", "anna"), Probe("renamed", "ben")
    await anna.connect()
    await ben.connect()
    async with Api() as rooms:
        asked = api.UpdateParticipantRequest(room="renamed", identity="anna", name="Dr. A.",
                                             metadata="chair", attributes={"seat": "1"})
        answer = await rooms.update_participant(asked)
        expect((answer.name, answer.metadata) == ("Dr. A.", "chair"), str(answer))
        for probe in (anna, ben):
            await until(lambda p=probe: last(p, "anna") and last(p, "anna").name == "Dr. A.",
                        f"{probe.identity} sees it", 2)
        expect(dict(last(ben, "anna").attributes) == {"seat": "1"}, "attributes")
        asked = api.UpdateParticipantRequest(room="renamed", identity="anna", name="n" * 300)
        got = await refusal(rooms.update_participant(asked))
        expect(got == ("invalid_argument", 400), f"too long: {got}")


@test("", "UpdateSubscriptions and UpdateRoomMetadata reach the clients")
async def _():
    anna, ben = Probe("steered", "anna"), Probe("steered", "ben")
    await anna.connect()
    await ben.connect(auto_subscribe=False)
    voice, _ = await anna.publish_audio()
    async with Api() as rooms:
        await ben.message("update", lambda u: any(p.tracks for p in u.participants))
        await asyncio.sleep(0.5)
        expect(not ben.mid_tracks, "subscribed unasked")
        asked = api.UpdateSubscriptionsRequest(room="steered", identity="ben",
                                               track_sids=[voice.sid], subscribe=True)
        await rooms.update_subscriptions(asked)
        await ben.flow(await ben.subscription(voice.sid))
        room = await rooms.update_room_metadata(
            api.UpdateRoomMetadataRequest(room="steered", metadata="agenda"))
        expect(room.metadata == "agenda" and room.num_participants == 2, str(room))
    for probe in (anna, ben):
        update = await probe.message("room_update", seconds=2)
        expect(update.room.metadata == "agenda" and update.room.sid == room.sid, str(update))
