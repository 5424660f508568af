"""A NAT in user space: what comes to one address goes on to another, and back."""

import asyncio
import socket


class _Outer(asyncio.DatagramProtocol):
    """Towards the daemon, one socket for each of a client's."""

    def __init__(self, inner, client, inside):
        self.inner, self.client = inner, client
        family = socket.AF_INET6 if ":" in inside[0] else socket.AF_INET
        self.held = socket.socket(family, socket.SOCK_DGRAM)
        self.held.setblocking(False)
        self.held.connect(inside)

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, _):
        self.inner.sendto(data, self.client)

    def error_received(self, exc):
        pass


class Nat(asyncio.DatagramProtocol):
    """`async with Nat((address, port), (address, port)) as nat:`; `nat.carried` counts what went
    in."""

    def __init__(self, outside, inside):
        self.outside, self.inside = outside, inside
        self.carried, self.outers = 0, {}

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(
            lambda: self, local_addr=self.outside)
        return self

    def datagram_received(self, data, client):
        self.carried += 1
        outer = self.outers.get(client)
        if outer is None:
            outer = self.outers[client] = _Outer(self.transport, client, self.inside)
            asyncio.ensure_future(asyncio.get_running_loop().create_datagram_endpoint(
                lambda: outer, sock=outer.held))
        outer.held.send(data)

    def error_received(self, exc):
        pass

    async def __aexit__(self, *_):
        self.transport.close()
        for outer in self.outers.values():
            outer.transport.close()
