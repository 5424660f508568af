"""Ports that nobody has, below those that the kernel gives to outgoing connections: one of these
may be taken by a client between the look here and the bind of the process that it is for."""

import random
import socket
import sys

_PORTS = range(10000, 32000)
_given = set()


def _free(kind, count):
    for _ in range(200):
        first = random.choice(_PORTS[:-count])
        ports = range(first, first + count)
        if _given.isdisjoint(ports) and all(_can_bind(kind, port) for port in ports):
            _given.update(ports)
            return first
    raise OSError("no free port")


def _can_bind(kind, port):
    with socket.socket(socket.AF_INET, kind) as held:
        try:
            held.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_tcp():
    return _free(socket.SOCK_STREAM, 1)


def free_udp(count=1):
    """The first of this many neighbours."""
    return _free(socket.SOCK_DGRAM, count)


if __name__ == "__main__":
    print(free_tcp(), free_tcp(), free_udp(int(sys.argv[1])))
