"""The Python wheel against the daemon: the other unmodified client, built on the Rust SDK."""

import asyncio
import os
import sys
import time

sys.dont_write_bytecode = True
here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, "..", "lib")]

from livekit import api, rtc  # noqa: E402
from livekit.protocol import models  # noqa: E402

import harness  # noqa: E402
from daemon import Daemon  # noqa: E402
from harness import expect, test, until  # noqa: E402
from jwt_token import token  # noqa: E402
import test_link  # noqa: E402,F401
from person import BLUE, GREEN, RED, Person, leave_all  # noqa: E402
from server_api import Api  # noqa: E402

import test_data  # noqa: E402,F401
import test_e2ee  # noqa: E402,F401


@test("LK-12 LK-15 LK-28", "two wheels see and hear each other at 20 fps and more", seconds=60)
async def _():
    anna, ben = await Person("anna").join("wheels"), await Person("ben").join("wheels")
    await anna.publish_picture("camera", RED)
    await anna.publish_sine("voice", 440)
    await ben.publish_picture("camera", BLUE)
    await ben.publish_sine("voice", 880)
    await anna.sees("ben", "camera", BLUE)
    await ben.sees("anna", "camera", RED)
    await anna.hears("ben", "voice", 880)
    await ben.hears("anna", "voice", 440)
    await asyncio.sleep(10)
    notes = []
    for person, other in ((anna, "ben"), (ben, "anna")):
        now = time.monotonic()
        times = [at for at, *_ in person.frames[(other, "camera")] if at > now - 8]
        gap = max(b - a for a, b in zip(times, times[1:]))
        note = f"{person.name}: {len(times) / 8:.1f} fps, longest gap {gap * 1000:.0f} ms"
        expect(len(times) / 8 >= 20, note)
        expect(gap < 0.5, note)
        expect(not person.disturbed, f"{person.name}: {person.disturbed}")
        notes.append(note)
    return "; ".join(notes)


@test("LK-16", "a third wheel that joins late sees and hears both", seconds=60)
async def _():
    anna, ben = await Person("anna").join("late"), await Person("ben").join("late")
    await anna.publish_picture("camera", RED)
    await anna.publish_sine("voice", 440)
    await ben.publish_picture("camera", BLUE)
    await ben.publish_sine("voice", 880)
    await anna.sees("ben", "camera", BLUE)
    started = time.monotonic()
    cora = await Person("cora").join("late")
    await cora.sees("anna", "camera", RED, 5)
    await cora.sees("ben", "camera", BLUE, 5)
    took = time.monotonic() - started
    await cora.hears("anna", "voice", 440, 5)
    await cora.hears("ben", "voice", 880, 5)
    return f"both pictures after {took:.1f} s"


@test("", "mute is told and silences; leave is told", seconds=40)
async def _():
    anna, ben = await Person("anna").join("muting"), await Person("ben").join("muting")
    publication = await anna.publish_sine("voice", 660)
    await ben.hears("anna", "voice", 660)

    def muted():
        theirs = ben.room.remote_participants["anna"].track_publications
        return next(iter(theirs.values())).muted

    publication.track.mute()
    await until(muted, "ben is told of the mute", 3)
    publication.track.unmute()
    await until(lambda: not muted(), "ben is told of the unmute", 3)
    ben.sounds[("anna", "voice")].clear()
    await ben.hears("anna", "voice", 660)
    await anna.leave()
    await until(lambda: "anna" not in ben.room.remote_participants, "ben sees anna leave", 3)


@test("LK-24", "a wheel unpublishes and publishes again", seconds=40)
async def _():
    anna, ben = await Person("anna").join("again"), await Person("ben").join("again")
    # Once more than a client offers sections of a kind, so that one must be used again.
    for number, colour in enumerate((RED, GREEN, BLUE, RED)):
        publication = await anna.publish_picture(f"camera {number}", colour, simulcast=False)
        await ben.sees("anna", f"camera {number}", colour)
        await anna.room.local_participant.unpublish_track(publication.sid)
        await until(lambda: not ben.room.remote_participants["anna"].track_publications,
                    "the track is gone", 3)
    expect(not ben.disturbed and not anna.disturbed, f"{anna.disturbed} {ben.disturbed}")


@test("", "wheels with two connections and with one see and hear each other", seconds=60)
async def _():
    anna = await Person("anna").join("dual", single_peer_connection=False)
    ben = await Person("ben").join("dual", single_peer_connection=False)
    await anna.publish_picture("camera", RED)
    await anna.publish_sine("voice", 440)
    await ben.publish_picture("camera", BLUE)
    await ben.publish_sine("voice", 880)
    cora = await Person("cora").join("dual")
    await cora.publish_picture("camera", GREEN)
    late = await Person("late").join("dual", single_peer_connection=False)
    for person in (anna, ben, cora, late):
        for other, colour in (("anna", RED), ("ben", BLUE), ("cora", GREEN)):
            if other != person.name:
                await person.sees(other, "camera", colour)
    await late.hears("anna", "voice", 440)
    await ben.hears("anna", "voice", 440)
    await anna.hears("ben", "voice", 880)
    heard = []
    for person in (anna, ben, cora, late):
        person.room.on("data_received", lambda packet, name=person.name: heard.append(
            (name, packet.data)))
    for sender, message, reliable in ((anna, b"to all", True), (cora, b"once", False)):
        await sender.room.local_participant.publish_data(message, reliable=reliable)
        wanted = sorted((person.name, message) for person in (anna, ben, cora, late)
                        if person is not sender)
        await until(lambda: sorted(heard) == wanted, f"{message} reaches the others: {heard}", 5)
        heard.clear()
    for person in (anna, ben, cora, late):
        expect(not person.disturbed, f"{person.name}: {person.disturbed}")


@test("LK-09", "with v1 off a wheel falls back to two connections", seconds=40)
async def _():
    async with Daemon(toml="[http]\nv1 = false\n") as daemon:
        anna = await Person("anna").join("off", url=daemon.url)
        ben = await Person("ben").join("off", url=daemon.url)
        await anna.publish_picture("camera", RED)
        await ben.sees("anna", "camera", RED)
        await anna.leave()
        await ben.leave()


@test("LK-40", "a wheel changes its own name, metadata and attributes", seconds=40)
async def _():
    anna, ben = Person("anna"), await Person("ben").join("wheel profile")
    access = token("wheel profile", "anna", {"canUpdateOwnMetadata": True})
    await anna.room.connect(os.environ["TEST_URL"], access, rtc.RoomOptions(auto_subscribe=True))
    own = anna.room.local_participant
    # A wheel says its name and metadata again with every change, as it knows them. It may be told
    # of a change only after its call for it returned; what it changes until then takes that back.
    await own.set_metadata("hello")
    await until(lambda: own.metadata == "hello", "anna sees her metadata", 3)
    await own.set_name("Anna A.")
    await until(lambda: own.name == "Anna A.", "anna sees her name", 3)
    await own.set_attributes({"hand": "up"})
    await until(lambda: "anna" in ben.room.remote_participants, "ben sees anna", 3)
    theirs = ben.room.remote_participants["anna"]
    await until(lambda: (theirs.metadata, theirs.name, theirs.attributes.get("hand"))
                == ("hello", "Anna A.", "up"), "ben sees all of it", 3)
    expect((own.metadata, own.name) == ("hello", "Anna A."), f"{own.metadata} {own.name}")
    expect(not anna.disturbed and not ben.disturbed, f"{anna.disturbed} {ben.disturbed}")


@test("LK-66 LK-38", "a wheel is muted, and then may not publish, by the server API", seconds=40)
async def _():
    anna, ben = await Person("anna").join("hushed"), await Person("ben").join("hushed")
    publication = await anna.publish_sine("voice", 550)
    await ben.hears("anna", "voice", 550)
    theirs = ben.room.remote_participants["anna"].track_publications[publication.sid]
    async with Api() as rooms:
        await rooms.mute_published_track(api.MuteRoomTrackRequest(
            room="hushed", identity="anna", track_sid=publication.sid, muted=True))
        await until(lambda: theirs.muted and publication.muted, "both know of the mute", 3)
        await rooms.update_participant(api.UpdateParticipantRequest(
            room="hushed", identity="anna",
            permission=models.ParticipantPermission(can_subscribe=True)))
        await until(lambda: not ben.room.remote_participants["anna"].track_publications,
                    "ben sees the track end", 3)
    expect(not ben.disturbed and not anna.disturbed, f"{anna.disturbed} {ben.disturbed}")


@test("LK-67", "data sent by the server API reaches everybody, or those who are named",
      seconds=40)
async def _():
    people = [await Person(name).join("posted") for name in ("anna", "ben")]
    got = {person.name: [] for person in people}
    for person in people:
        person.room.on("data_received", lambda packet, name=person.name: got[name].append(
            (packet.data, packet.topic, packet.participant)))

    async def send(rooms, text, kind, to=()):
        await rooms.send_data(api.SendDataRequest(
            room="posted", data=text, kind=kind, topic="news", destination_identities=to))

    async with Api() as rooms:
        reliable, lossy = models.DataPacket.RELIABLE, models.DataPacket.LOSSY
        await send(rooms, b"for ben", reliable, ["ben"])
        await send(rooms, b"for all", reliable)
        await until(lambda: got["anna"] and len(got["ben"]) == 2, "reliable data arrives", 5)
        expect(got["anna"] == [(b"for all", "news", None)], f"anna got {got['anna']}")
        expect(got["ben"] == [(b"for ben", "news", None), (b"for all", "news", None)],
               f"ben got {got['ben']}")
        await send(rooms, b"lossy", lossy)
        await until(lambda: all(diary[-1][0] == b"lossy" for diary in got.values()),
                    "lossy data arrives", 5)
        try:
            await send(rooms, bytes(70_000), reliable)
        except api.TwirpError as error:
            expect((error.code, error.status) == ("invalid_argument", 400), f"too long: {error}")
        else:
            expect(False, "70 kB were taken")
    expect(all(not person.disturbed for person in people), "somebody was disturbed")


if __name__ == "__main__":
    # The wheel keeps threads of its own: leave with the verdict, not with them.
    failures = asyncio.run(harness.run("python", leave_all))
    sys.stdout.flush()
    os._exit(3 if failures else 0)
