"""A bad network for real clients, made in user space: the kernel of a test machine may lack netem.

`Link` makes a network namespace. In it the daemon's addresses on 127.0.0.1 are there again, but
belong to a relay that carries every datagram to the real ones and back through a row of elements:
loss, delay, jitter, and a bottleneck with a queue. A client started in the namespace notices
nothing else. Signalling goes through undisturbed. Needs root, or the right to make namespaces.
"""

import asyncio
import os
import random
import socket
import subprocess
import sys

from harness import Failure

# Runs in the namespace: binds what the relay listens on and hands it over.
_OPENER = """
import socket, sys
passing, http, *media = map(int, sys.argv[1:])
tcp = socket.create_server(("127.0.0.1", http))
udp = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in media]
for held, port in zip(udp, media):
    held.bind(("127.0.0.1", port))
with socket.socket(fileno=passing) as out:
    socket.send_fds(out, [b"x"], [held.fileno() for held in [tcp, *udp]])
"""

_IP_UDP = 28  # bytes of headers that a bottleneck carries too


class Path:
    """One direction. `loss` is a share, times are seconds, `rate` is bits per second (0: no
    bottleneck), `queue` is how long a datagram may wait before the bottleneck drops it."""

    def __init__(self, loss=0.0, delay=0.0, jitter=0.0, rate=0, queue=0.3, seed=1):
        self.loss, self.delay, self.jitter = loss, delay, jitter
        self.rate, self.queue = rate, queue
        self.random = random.Random(seed)
        self.busy_until = self.last = 0.0
        self.bytes = self.lost = self.dropped = 0
        self.dropped_at = 0.0

    def carry(self, now, size):
        """When a datagram that is sent now arrives, or None."""
        if self.random.random() < self.loss:
            self.lost += 1
            return None
        leaves = now
        if self.rate:
            starts = max(now, self.busy_until)
            if starts - now > self.queue:
                self.dropped += 1
                self.dropped_at = now
                return None
            leaves = self.busy_until = starts + (size + _IP_UDP) * 8 / self.rate
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
    may be replaced at any time, and `link.command([...])` is a command within the namespace."""

    def __init__(self, url, media_ports, up=None, down=None):
        self.http = int(url.rsplit(":", 1)[1])
        self.media_ports = media_ports
        self.up, self.down = up or Path(), down or Path()
        self.tasks, self.servers, self.transports = [], [], []
        self.closed = self.broken = False
        self.sinks = []  # of signalling connections
        self.name = f"stellwerk-{os.getpid()}-{random.randrange(1 << 20)}"

    def later(self, path, data, send):
        loop = asyncio.get_running_loop()
        at = path.carry(loop.time(), len(data))
        if at is not None:
            loop.call_at(at, lambda: None if self.closed else send())

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
            ports = [str(port) for port in (theirs.fileno(), self.http, *self.media_ports)]
            command = self.command([sys.executable, "-c", _OPENER, *ports])
            done = subprocess.run(command, pass_fds=[theirs.fileno()], capture_output=True,
                                  text=True, check=False)
            if done.returncode:
                raise Failure(f"no sockets in the namespace: {done.stderr.strip()[-200:]}")
            _, handles, _, _ = socket.recv_fds(ours, 1, 1 + len(self.media_ports))
        tcp, *udp = (socket.socket(fileno=handle) for handle in handles)
        tcp.setblocking(False)
        self.servers.append(await asyncio.start_server(self._signalling, sock=tcp))
        for held, port in zip(udp, self.media_ports):
            held.setblocking(False)
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                lambda port=port: _Inner(self, port), sock=held)
            self.transports.append(transport)

    async def _signalling(self, reader, writer):
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
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.http)
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
