"""Media over TCP, for whom UDP doesn't get through."""

import asyncio
import time

from daemon import Daemon, metric, resident_bytes
from harness import expect, test, until
from ports import free_tcp
from probe import Probe
from test_mobile import back


def config(port, more=""):
    return f"[media]\ntcp_port = {port}\n{more}"


def count(daemon, name, **labels):
    return metric(f"stellwerk_{name}", labels, daemon.metrics)


async def call(daemon, room):
    """Anna by UDP, Ben by TCP, a camera each: (anna, ben, hers at ben, his at anna)."""
    anna, ben = Probe(room, "anna", daemon.url), Probe(room, "ben", daemon.url)
    ben.peer.ice.tcp = True
    await anna.connect()
    await ben.connect()
    hers, _ = await anna.publish_video("camera", ())
    his, _ = await ben.publish_video("camera", ())
    at_ben, at_anna = await ben.subscription(hers.sid), await anna.subscription(his.sid)
    await ben.flow(at_ben, 30)
    await anna.flow(at_anna, 30)
    return anna, ben, at_ben, at_anna


@test("", "over TCP media flows both ways, at whichever worker the room is", seconds=60)
async def _():
    port = free_tcp()
    async with Daemon(toml=config(port), workers=2) as daemon:
        workers = set()
        for number in range(4):
            anna, ben, at_ben, _ = await call(daemon, f"tcp-{number}")
            expect(ben.answer.tcp == [("127.0.0.1", port)], f"told {ben.answer.tcp}")
            workers.add(ben.answer.ufrag[:2])
            expect(ben.peer.ice.sources == {("127.0.0.1", port)}, f"{ben.peer.ice.sources}")
            # Lost packets are nobody's fault on a stream: every one of a second has come.
            before = len(ben.received(at_ben))
            await ben.flow(at_ben, 60)
            numbers = [packet.sequence for packet in ben.received(at_ben)[before:]]
            expect(numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))], "gaps")
            expect(not ben.messages("leave"), "a leave came")
        expect(workers == {"00", "01"}, f"rooms are at {workers}")
        await until(lambda: count(daemon, "tcp_connections") == 4, "four connections", 3)
        await ben.request(leave={})
        await asyncio.wait_for(ben.peer.ice.socket.lost.wait(), 5)
        await until(lambda: count(daemon, "tcp_connections") == 3, "his is closed", 3)


@test("", "who loses UDP in the middle of a call goes on over TCP within 2 s, and back")
async def _():
    async with Daemon(toml=config(free_tcp())) as daemon:
        anna, ben = Probe("to-tcp", "anna", daemon.url), Probe("to-tcp", "ben", daemon.url)
        await anna.connect()
        await ben.connect()
        track, _ = await anna.publish_video("camera", ())
        section = await ben.subscription(track.sid)
        await ben.flow(section)
        over_udp, took = ben.peer.ice.remote, []
        for turn in range(4):
            moved = time.monotonic()
            if turn % 2:
                ben.peer.ice.tcp, ben.peer.ice.remote = False, over_udp
                await ben.peer.ice.move("127.0.0.2")
            else:
                await ben.peer.ice.dial(ben.answer.tcp[0])
            took.append(await back(ben, section, moved))
        return f"back after {', '.join(f'{t:.2f} s' for t in took)}"


@test("", "who doesn't read what comes over TCP loses it, and costs the others nothing", seconds=60)
async def _():
    async with Daemon(toml=config(free_tcp())) as daemon:
        anna, ben, at_ben, at_anna = await call(daemon, "stalled")
        memory = resident_bytes(daemon.process.pid)
        transport = ben.peer.ice.socket.transport
        transport.pause_reading()
        full = lambda: count(daemon, "dropped_total", reason="tcp_queue_full")
        # A sender that has nothing else to do fills what the kernel takes, too.
        for number in range(20):
            await anna.publish_video(f"more-{number}", ())
        await until(lambda: full() > 100, "what doesn't fit is dropped", 40)
        grown = resident_bytes(daemon.process.pid) - memory
        expect(grown < 64 << 20, f"memory grew by {grown >> 20} MiB")
        await anna.flow(at_anna, 30)
        transport.resume_reading()
        await back(ben, at_ben, time.monotonic())
        return f"{full():.0f} datagrams dropped, memory grew by {grown >> 20} MiB"


async def ended(reader, seconds):
    """Whether the server closes within that time, without a word."""
    try:
        return await asyncio.wait_for(reader.read(1), seconds) == b""
    except ConnectionError:
        return True
    except asyncio.TimeoutError:
        return False


@test("", "strangers over TCP are sent away: silent, senseless, with a wrong password", seconds=60)
async def _():
    port = free_tcp()
    async with Daemon(toml=config(port)) as daemon:
        anna, ben, at_ben, _ = await call(daemon, "strangers")
        ice = ben.peer.ice
        right, ice.remote_password = ice.remote_password, "not the password at all."
        forged, ice.remote_password = bytes(ice.request()), right
        for what, data, seconds in (
                ("nothing", b"", 8), ("half a length", b"\0", 8), ("a page", b"GET / HTTP/1.1\r\n", 2),
                ("an empty frame", b"\0\0", 2), ("a long frame", b"\xff\xff" + bytes(70000), 2),
                ("no check", b"\0\x0cHello world!", 2),
                ("a wrong password", len(forged).to_bytes(2, "big") + forged, 2)):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            expect(await ended(reader, seconds), f"{what} is not sent away")
            writer.close()
        # Many of them at once, who never say a word.
        # One address can have 64 of them; hers is another.
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        await ben.flow(at_ben, 30)
        cora = Probe("strangers", "cora", daemon.url)
        cora.peer.ice.tcp, cora.peer.ice.host = True, "127.0.0.2"
        await cora.connect()
        expect(all(await asyncio.gather(*(ended(reader, 8) for reader, _ in crowd))), "some stay")
        for _, writer in crowd:
            writer.close()
        # Somebody who is in, and then sends a frame too long: out, and nobody else.
        cora.peer.ice.socket.transport.write(b"\xff\xff" + bytes(100))
        await asyncio.wait_for(cora.peer.ice.socket.lost.wait(), 5)
        await ben.flow(at_ben, 30)
        await until(lambda: count(daemon, "tcp_connections_total", outcome="stranger") == 70
                    and count(daemon, "tcp_connections_total", outcome="refused") == 137,
                    "each is counted", 3)


@test("", "without a TCP port no candidate for it is told")
async def _():
    async with Daemon() as daemon:
        anna = Probe("no-tcp", "anna", daemon.url)
        await anna.connect()
        expect(" tcp " not in anna.answers[-1].sdp, "a TCP candidate")
