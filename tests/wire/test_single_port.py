"""All workers on one UDP port."""

import asyncio
import random
import time

from daemon import Daemon, metric
from harness import Failure, expect, test, until
from probe import Probe
from test_mobile import back

ONE_PORT = "[media]\nsingle_port = true\n"


def worker(probe):
    """The worker that a probe's user name fragment leads to."""
    return probe.answer.ufrag[:2]


async def pair(daemon, room):
    """Anna and Ben in that room, and her camera on its way: (anna, ben, section)."""
    anna, ben = Probe(room, "anna", daemon.url), Probe(room, "ben", daemon.url)
    await anna.connect()
    await ben.connect()
    track, _ = await anna.publish_video("camera", ())
    section = await ben.subscription(track.sid)
    await ben.flow(section)
    return anna, ben, section


async def rooms_of_both_workers(daemon):
    """Rooms until each worker has one, and some more."""
    rooms = [await pair(daemon, f"one-{number}") for number in range(4)]
    workers = {worker(anna) for anna, _, _ in rooms}
    expect(workers == {"00", "01"}, f"rooms are at {workers}")
    return rooms


@test("", "two workers share a port, and no media passes from one thread to the other", seconds=60)
async def _():
    async with Daemon(toml=ONE_PORT, workers=2) as daemon:
        rooms = await rooms_of_both_workers(daemon)
        ports = {port for room in rooms for probe in room[:2]
                 for _, port in probe.answer.candidates}
        expect(ports == {daemon.media_port}, f"ports {ports}")
        # Eight clients at a hash of two: one in 256 runs hands nothing over.
        handed = lambda: metric("stellwerk_udp_handed_over_total", base=daemon.metrics)
        for number in range(6):
            if handed() > 0:
                break
            await Probe(f"one-more-{number}", "cora", daemon.url).connect()
            await asyncio.sleep(1.1)  # metrics are as old as a second
        await until(lambda: handed() > 0, "checks are handed over", 3)
        await until(lambda: metric("stellwerk_udp_flows", base=daemon.metrics) >= 8,
                    "each client has a socket", 5)
        await asyncio.sleep(1.5)
        before, began = handed(), time.monotonic()
        counts = [len(ben.received(section)) for _, ben, section in rooms]
        await asyncio.sleep(5)
        expect(handed() == before, f"{handed() - before} datagrams passed between threads")
        took = time.monotonic() - began
        rates = [(len(ben.received(section)) - count) / took
                 for count, (_, ben, section) in zip(counts, rooms)]
        expect(min(rates) > 25, f"packets a second: {rates}")
        for probe in {probe for room in rooms for probe in room[:2]}:
            await probe.request(leave={})
        await until(lambda: metric("stellwerk_udp_flows", base=daemon.metrics) <= 6,
                    "their sockets go with them", 5)
        return f"{before:.0f} checks were handed over, then none in {took:.0f} s"


@test("", "on a shared port too the picture follows who changes its address", seconds=60)
async def _():
    async with Daemon(toml=ONE_PORT, workers=2) as daemon:
        took = []
        for _, ben, section in await rooms_of_both_workers(daemon):
            for host in ("127.0.0.2", "127.0.0.1"):
                moved = time.monotonic()
                await ben.peer.ice.move(host)
                took.append(await back(ben, section, moved))
        return f"slowest of {len(took)} back after {max(took):.2f} s"


@test("", "on a shared port too an ICE restart leads to the same worker", seconds=60)
async def _():
    async with Daemon(toml=ONE_PORT, workers=2) as daemon:
        for _, ben, section in await rooms_of_both_workers(daemon):
            before = ben.answer.ufrag
            await ben.restart_ice()
            expect(ben.answer.ufrag != before, "the credentials stayed")
            expect(worker(ben) == before[:2], f"from worker {before[:2]} to {worker(ben)}")
            await ben.flow(section, 20)


@test("", "rubbish on a shared port disturbs nobody, on neither worker", seconds=60)
async def _():
    async with Daemon(toml=ONE_PORT, workers=2) as daemon:
        rooms = await rooms_of_both_workers(daemon)
        chance = random.Random(5)
        ices = [ben.peer.ice for _, ben, _ in rooms]
        stranger = Probe("rubbish", "stranger").peer.ice
        await stranger.open()
        for number in range(3000):
            ice = chance.choice(ices)
            stranger.remote = ice.remote
            stranger.remote_ufrag = chance.choice((ice.remote_ufrag, "zz" * 4, "01", "\u00e9" * 3))
            stranger.remote_password = "not the password at all."
            data = bytearray(bytes(stranger.request()))
            if number % 2:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            stranger.raw(bytes(data[:chance.choice((len(data), 40, 24))]))
        for _, ben, section in rooms:
            await ben.flow(section, 30)
        expect(not stranger.sources, "the stranger was answered")
        # Who isn't here opens no socket.
        await asyncio.sleep(1.1)
        flows = metric("stellwerk_udp_flows", base=daemon.metrics)
        expect(flows == 8, f"{flows:.0f} sockets for 8 clients")
        stranger.close()


@test("", "a port that another daemon shares among its workers is in use")
async def _():
    async with Daemon(toml=ONE_PORT, workers=2) as daemon:
        other = Daemon(toml=ONE_PORT, workers=2)
        other.port = daemon.media_port
        try:
            async with other:
                expect(False, "two daemons share a port")
        except Failure as failure:
            expect("change media.port" in str(failure), str(failure))
