"""A flood of garbage on every port for 20 s (60 with --long), beside a call that must not notice.

1000 datagrams a second over the media ports and 100 connections a second over HTTP and metrics;
then rest, after which memory must be back. Runs as its own process, because its flood
must not slow the probe that measures.
"""

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
import urllib.parse

sys.dont_write_bytecode = True
here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, "..", "lib")]

import harness  # noqa: E402
import probe  # noqa: E402
from daemon import metric, resident_bytes  # noqa: E402
from harness import expect, test, until  # noqa: E402
from test_hostile import Bystanders  # noqa: E402

harness._tests.clear()  # only the test below, not those of the modules it builds on
SECONDS = 60 if os.environ.get("TEST_LONG") else 20


def _datagram():
    length = random.choice((1, 2, 12, 20, 28, 100, 400, 1200))
    body = os.urandom(length)
    # Half of it looks like STUN, DTLS, RTP or RTCP at the first byte.
    first = random.choice((b"", b"\x00", b"\x16", b"\x80", b"\x81", b"\x90", b"\x17"))
    return first + body


def _connection(port, held):
    """One connection: random bytes, half a request, or nothing at all."""
    peer = socket.socket()
    peer.settimeout(0.5)
    try:
        peer.connect(("127.0.0.1", port))
        peer.send(random.choice((
            os.urandom(200), b"GET /rtc/v1?access_token=" + os.urandom(8).hex().encode(),
            b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"\x16\x03\x01\x02\x00",
            b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
            b"GET /rtc/v1 HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")))
    except OSError:
        pass
    held.append(peer)
    while len(held) > 200:  # two seconds' worth stay open
        held.pop(0).close()


def flood(seconds, tcp, udp):
    """Sends for so many seconds; prints what it managed."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    held, datagrams, connections = [], 0, 0
    start = time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        while datagrams < now * 1000:
            sender.sendto(_datagram(), ("127.0.0.1", udp[datagrams % len(udp)]))
            datagrams += 1
        while connections < now * 100:
            _connection(tcp[connections % len(tcp)], held)
            connections += 1
        time.sleep(0.002)
    print(datagrams, connections)


def _start(seconds, ports, udp):
    """The flood as a process of its own, which yields to everything else."""
    arguments = [str(seconds), ",".join(map(str, ports)), ",".join(udp)]
    return subprocess.Popen(["nice", "-n", "10", sys.executable, __file__, "flood", *arguments],
                            stdout=subprocess.PIPE, text=True)


@test("LK-75", f"garbage on every port for {SECONDS} s does not touch a call",
      seconds=3 * SECONDS + 150)
async def _():
    ports = [urllib.parse.urlsplit(os.environ[name]).port for name in ("TEST_URL", "TEST_METRICS")]
    first = int(os.environ["TEST_MEDIA_PORT"])
    udp = [str(first + worker) for worker in range(int(os.environ["TEST_WORKERS"]))]
    # A call on each worker would be better; rooms are spread by name, so several names do.
    calls = [await Bystanders().start(f"bystanders-{number}") for number in range(4)]
    await asyncio.sleep(2)
    before, dropped = resident_bytes(), metric("stellwerk_dropped_total")
    for call in calls:
        call.first = len(call.ben.received(call.section))
    process = _start(SECONDS, ports, udp)
    try:
        watch = asyncio.ensure_future(calls[0].watch_self(SECONDS))
        await until(lambda: process.poll() is not None, "the flood ends", SECONDS + 30, 0.2)
        await watch
        for call in calls:
            call.own_stall = calls[0].own_stall
        verdicts = [await call.verdict() for call in calls]
    finally:
        process.kill()
    datagrams, connections = map(int, process.stdout.read().split())
    expect(datagrams >= 950 * SECONDS and connections >= 90 * SECONDS,
           f"the flood itself was too slow: {datagrams} datagrams, {connections} connections")
    after = metric("stellwerk_dropped_total")
    expect(after - dropped >= 0.9 * datagrams, f"{after - dropped:.0f} drops of {datagrams}")
    joiner = probe.Probe("bystanders-0", "cora")
    started = time.monotonic()
    await joiner.connect()
    joined = time.monotonic() - started
    expect(joined < 1, f"a join right after took {joined:.2f} s")
    await joiner.close()
    peak = resident_bytes()
    # The same calls still run; what the flood cost must be given back.
    limit = before * 1.05
    await until(lambda: resident_bytes() <= limit,
                f"memory back to within 5 % of {before >> 10} KiB (it is "
                f"{resident_bytes() >> 10} KiB)", 60, 0.5)
    return (f"{datagrams} datagrams, {connections} connections, memory {before >> 10} -> "
            f"{peak >> 10} -> {resident_bytes() >> 10} KiB; {verdicts[0]}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["flood"]:
        flood(int(sys.argv[2]), [int(p) for p in sys.argv[3].split(",")],
              [int(p) for p in sys.argv[4].split(",")])
        sys.exit()
    try:
        os.nice(-10)  # who measures must not wait for the flood; only root may
    except PermissionError:
        pass
    sys.exit(3 if asyncio.run(harness.run("garbage", probe.close_all)) else 0)
