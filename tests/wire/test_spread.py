"""A room on two workers: whoever is in it notices nothing."""

import asyncio
import time

from livekit import api

import vp8
from daemon import Daemon, metric
from harness import expect, test, until
from probe import Probe
from server_api import Api
from test_single_port import worker

ONE_EACH = "[rooms]\nparticipants_per_worker = 1\n"


async def both(daemon, room):
    """Anna's camera on its way to Ben, who is at another worker: (anna, ben, camera, section)."""
    anna, ben = Probe(room, "anna", daemon.url), Probe(room, "ben", daemon.url)
    await anna.connect()
    await ben.connect()
    workers = {worker(anna), worker(ben)}
    expect(workers == {"00", "01"}, f"both are at {workers}")
    track, camera = await anna.publish_video("camera", ())
    section = await ben.subscription(track.sid)
    await ben.flow(section)
    return anna, ben, camera, section


@test("", "a room on two workers: media, key frames and repairs go from one to the other")
async def _():
    async with Daemon(toml=ONE_EACH, workers=2) as daemon:
        anna, ben, _, section = await both(daemon, "spread")
        await anna.publish_audio()
        first = ben.received(section)[0]
        expect(vp8.parse_vp8(first.payload).key, "it does not begin with a key frame")
        asked = time.monotonic()
        await ben.peer.picture_loss(section.ssrcs[0])

        def key_frame():
            frames = (packet for packet in ben.received(section) if packet.at > asked)
            return next((p.at for p in frames if p.payload and vp8.parse_vp8(p.payload).key), None)

        took = await until(key_frame, "a key frame that Ben asked for", 3) - asked
        await asyncio.sleep(2.2)  # metrics are as old as a second
        count = lambda name: metric(f"stellwerk_{name}", base=daemon.metrics)
        out, came = count("relay_packets_out_total"), count("relay_packets_in_total")
        expect(out > 100 and count("room_branches") == 1, f"{out} packets went across")
        expect(came >= out * 0.9, f"{came} of {out} packets arrived")
        expect(count("rooms") == 1 and count("participants") == 2, "people are counted twice")
        return f"key frame after {took * 1000:.0f} ms"


@test("", "a room on two workers: a session is taken up again where its stay is", seconds=40)
async def _():
    async with Daemon(toml=ONE_EACH, workers=2) as daemon:
        anna, ben, _, section = await both(daemon, "spread-resume")
        for who in (ben, anna):
            await who.cut()
            await asyncio.sleep(0.5)
            _, kind, _ = await who.resume()
            expect(kind == "reconnect", f"the first message is {kind}")
        before = len(ben.received(section))
        await until(lambda: len(ben.received(section)) > before + 20, "the picture goes on", 3)


@test("", "a room on two workers: the same identity again ends the old stay, wherever it is")
async def _():
    async with Daemon(toml=ONE_EACH, workers=2) as daemon:
        anna, ben, _, _ = await both(daemon, "spread-twice")
        again = Probe("spread-twice", "anna", daemon.url)
        await again.connect()
        await anna.message("leave")
        others = {p.identity for p in again.join.other_participants}
        expect(others == {"ben"}, f"told of {others}")
        expect(not ben.messages("leave"), "Ben has left too")


@test("", "a room on two workers: the server API reaches people at both")
async def _():
    async with Daemon(toml=ONE_EACH, workers=2) as daemon:
        anna, ben, _, _ = await both(daemon, "spread-api")
        async with Api(daemon.url) as rooms:
            listed = await rooms.list_participants(
                api.ListParticipantsRequest(room="spread-api"))
            names = sorted(who.identity for who in listed.participants)
            expect(names == ["anna", "ben"], f"listed are {names}")
            for identity, probe in (("ben", ben), ("anna", anna)):
                who = api.RoomParticipantIdentity(room="spread-api", identity=identity)
                found = await rooms.get_participant(who)
                expect(found.identity == identity, f"found {found.identity}")
                await rooms.remove_participant(who)
                await probe.message("leave")
