"""A bad network for real clients, made in user space: the kernel of a test machine may lack netem.

`Link` makes a network namespace. In it the daemon's addresses on 127.0.0.1 are there again, but
belong to a relay that carries every datagram to the real ones and back through a row of elements:
loss, delay, jitter, and a bottleneck with a queue. A client started in the namespace notices
nothing else. Signalling goes through undisturbed. Needs root, or the right to make namespaces.

As a program it does so for tests in other languages, see link.mjs.
"""

import asyncio
import json
import math
import os
import random
import selectors
import socket
import subprocess
import sys
import time
from collections import deque

from harness import Failure

# Runs in the namespace: binds what the relay listens on and hands it over.
_OPENER = """
import socket, sys
passing, streams, *ports = map(int, sys.argv[1:])
tcp = [socket.create_server(("127.0.0.1", port)) for port in ports[:streams]]
udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in ports[streams:]]
for held, port in zip(udp, ports[streams:]):
    held.bind(("127.0.0.1", port))
with socket.socket(fileno=passing) as out:
    socket.send_fds(out, [b"x"], [held.fileno() for held in [*tcp, *udp]])
"""

_IP_UDP = 28  # bytes of headers that a bottleneck carries too


class Path:
    """One direction. `loss` is a share, times are seconds, `rate` is bits per second (0: no
    bottleneck), `queue` is how long a datagram may wait before the bottleneck drops it.

    A bottleneck whose rate changes has `steps` instead, (second, kbit/s) from `begin()` on (before
    that the first one), and `queue_bytes`."""

    def __init__(self, loss=0.0, delay=0.0, jitter=0.0, rate=0, queue=0.3, seed=1, steps=(),
                 queue_bytes=0):
        self.loss, self.delay, self.jitter = loss, delay, jitter
        self.steps = steps or ([(0, rate / 1000)] if rate else [])
        self.queue_bytes = queue_bytes or queue * rate / 8
        self.random = random.Random(seed)
        self.begun = math.inf
        self.waiting, self.waiting_bytes = deque(), 0  # (when it leaves, bytes)
        self.busy_until = self.last = 0.0
        self.bytes = self.lost = self.dropped = 0
        self.dropped_at = 0.0

    def begin(self, now):
        """The course of its rate begins."""
        self.begun = now

    def _rate(self, at):
        """Bits per second then, and until when."""
        passed = at - self.begun
        rate, until = self.steps[0][1], math.inf
        for second, kbps in self.steps:
            if second > passed:
                until = self.begun + second
                break
            rate = kbps
        return rate * 1000, until

    def _serve(self, at, size):
        """When so many bytes have left of which the first does so `at` then."""
        bits = size * 8
        while True:
            rate, until = self._rate(at)
            if rate and at + bits / rate <= until:
                return at + bits / rate
            bits -= (until - at) * rate
            at = until

    def _queue(self, now, size):
        """When a datagram has left the bottleneck, or None."""
        while self.waiting and self.waiting[0][0] <= now:
            self.waiting_bytes -= self.waiting.popleft()[1]
        if self.waiting_bytes + size > self.queue_bytes:
            self.dropped += 1
            self.dropped_at = now
            return None
        self.busy_until = self._serve(max(now, self.busy_until), size)
        self.waiting.append((self.busy_until, size))
        self.waiting_bytes += size
        return self.busy_until

    def carry(self, now, size):
        """When a datagram that is sent now arrives, or None."""
        lost = self.random.random() < self.loss
        leaves = self._queue(now, size + _IP_UDP) if self.steps else now
        # What is lost behind the bottleneck has taken its time there.
        if leaves is None or lost:
            self.lost += leaves is not None
            return None
        self.bytes += size
        # Jitter keeps the order.
        self.last = max(self.last, leaves + self.delay + self.random.random() * self.jitter)
        return self.last

    def relaxed(self):
        """Seconds since the bottleneck last had to drop something."""
        return asyncio.get_running_loop().time() - self.dropped_at if self.dropped else 0.0


class _Outer(asyncio.DatagramProtocol):
    """Towards the daemon, one socket for each of the client's."""

    def __init__(self, link, inner, client):
        self.link, self.inner, self.client = link, inner, client

    def connection_made(self, transport):
        self.link.transports.append(transport)

    def datagram_received(self, data, _):
        self.link.later(self.link.down, data, lambda: self.inner.sendto(data, self.client))

    def error_received(self, exc):
        pass


class _Inner(asyncio.DatagramProtocol):
    """Towards the clients in the namespace, in the daemon's place."""

    def __init__(self, link, port):
        self.link, self.port, self.outers = link, port, {}

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        outer = self.outers.get(client)
        if outer is None:
            held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            held.setblocking(False)
            held.bind(("127.0.0.1", 0))
            held.connect(("127.0.0.1", self.port))
            outer = self.outers[client] = held
            opening = asyncio.get_running_loop().create_datagram_endpoint(
                lambda: _Outer(self.link, self.transport, client), sock=held)
            self.link.tasks.append(asyncio.ensure_future(opening))
        self.link.later(self.link.up, data, lambda: _send(outer, data))

    def error_received(self, exc):
        pass


def _send(held, data):
    try:
        held.send(data)
    except OSError:
        pass  # the daemon is gone, or its buffer is full


class Link:
    """`async with Link(url, media_ports) as link:`; then `link.up` and `link.down` are paths that
    may be replaced at any time, and `link.command([...])` is a command within the namespace.
    `streams` are other ports on 127.0.0.1 that can be reached by TCP."""

    def __init__(self, url, media_ports, up=None, down=None, streams=()):
        self.streams = [int(url.rsplit(":", 1)[1]), *streams]
        self.media_ports = media_ports
        self.up, self.down = up or Path(), down or Path()
        self.tasks, self.servers, self.transports = [], [], []
        self.closed = self.broken = False
        self.sinks = []  # of signalling connections
        self.late = []  # seconds by which this machine delivered later than it should have
        self.name = f"stellwerk-{os.getpid()}-{random.randrange(1 << 20)}"

    def later(self, path, data, send):
        loop = asyncio.get_running_loop()
        at = path.carry(loop.time(), len(data))

        def deliver():
            if not self.closed:
                self.late.append(loop.time() - at)
                send()

        if at is not None:
            loop.call_at(at, deliver)

    async def break_for(self, seconds):
        """Nothing gets through: signalling connections end, and datagrams are lost."""
        paths, self.broken = (self.up, self.down), True
        self.up, self.down = Path(loss=1), Path(loss=1)
        for sink in self.sinks:
            sink.transport.abort()
        await asyncio.sleep(seconds)
        (self.up, self.down), self.broken = paths, False

    def command(self, command):
        return ["ip", "netns", "exec", self.name, *command]

    def _run(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"{' '.join(command[:4])}: {done.stderr.strip()}")

    async def __aenter__(self):
        self._run("ip", "netns", "add", self.name)
        try:
            # Clients want an interface that isn't loopback; its other end leads nowhere.
            for step in ("link set lo up", "link add near type veth peer name far",
                         "addr add 10.99.0.2/24 dev near", "link set near up",
                         "link set far up"):
                self._run("ip", "-n", self.name, *step.split())
            await self._relay()
        except BaseException:
            self._run("ip", "netns", "del", self.name)
            raise
        return self

    async def _relay(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            numbers = (theirs.fileno(), len(self.streams), *self.streams, *self.media_ports)
            command = self.command([sys.executable, "-c", _OPENER, *map(str, numbers)])
            done = subprocess.run(command, pass_fds=[theirs.fileno()], capture_output=True,
                                  text=True, check=False)
            if done.returncode:
                raise Failure(f"no sockets in the namespace: {done.stderr.strip()[-200:]}")
            _, handles, _, _ = socket.recv_fds(ours, 1, len(self.streams) + len(self.media_ports))
        held = [socket.socket(fileno=handle) for handle in handles]
        for each in held:
            each.setblocking(False)
        for tcp, port in zip(held, self.streams):
            self.servers.append(await asyncio.start_server(
                lambda reader, writer, port=port: self._stream(port, reader, writer), sock=tcp))
        for udp, port in zip(held[len(self.streams):], self.media_ports):
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda port=port: _Inner(self, port), sock=udp)
            self.transports.append(transport)

    async def _stream(self, port, reader, writer):
        async def pump(source, sink):
            try:
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        # Nobody refuses a connection in a broken network: it just doesn't come about.
        while self.broken:
            await asyncio.sleep(0.05)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        self.sinks += [writer, far_writer]
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def __aexit__(self, *_):
        self.closed = True
        for task in self.tasks:
            task.cancel()
        for server in self.servers:
            server.close()
        for transport in self.transports:
            transport.close()
        self._run("ip", "netns", "del", self.name)


async def _serve(url, media_ports, up, down, streams):
    """A link for another process: says its name, begins its courses when it gets a line and says
    when that was, and at the end of its input what came of it."""
    loop = asyncio.get_running_loop()
    async with Link(url, media_ports, Path(**up), Path(**down), streams) as link:
        print(link.name, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            for path in (link.up, link.down):
                path.begin(loop.time())
            link.late.clear()
            print(time.time() * 1000, flush=True)
        late = sorted(link.late)
        print(json.dumps({"lost": link.down.lost, "dropped": link.down.dropped,
                          "late": late[len(late) * 99 // 100] if late else 0}), flush=True)


if __name__ == "__main__":
    # Nothing but its own delays may be measured: where it may it goes before the browsers, and it
    # waits by the microsecond (epoll does by the millisecond).
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pass
    precise = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: precise) as runner:
        runner.run(_serve(**json.loads(sys.argv[1])))
