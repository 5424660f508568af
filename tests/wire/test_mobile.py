"""Phones: the network changes in the middle of a call, with or without the signalling connection.

127.0.0.1 and 127.0.0.2 are the two networks. "Back" is a whole key frame after the change, since
that is what a decoder can go on with whatever it has missed.
"""

import asyncio
import time

import vp8
from daemon import metric
from harness import expect, test, until
from probe import Probe

BACK = 2.0  # seconds


async def call(room):
    """Anna's camera on its way to Ben: (anna, ben, camera, section at ben)."""
    anna, ben = Probe(room, "anna"), Probe(room, "ben")
    await anna.connect()
    await ben.connect()
    track, camera = await anna.publish_video("camera", ())
    section = await ben.subscription(track.sid)
    await ben.flow(section)
    return anna, ben, camera, section


async def back(ben, section, since):
    """Seconds from `since` to the first key frame that arrives after it."""
    def key_frame():
        frames = (packet for packet in ben.received(section) if packet.at > since)
        return next((p.at for p in frames if p.payload and vp8.parse_vp8(p.payload).key), None)

    async def ask():
        while True:  # as a decoder that waits
            await ben.peer.picture_loss(section.ssrcs[0])
            await asyncio.sleep(0.2)

    asking = asyncio.ensure_future(ask())
    try:
        took = await until(key_frame, "a key frame after the change", 10) - since
    finally:
        asking.cancel()
    expect(took < BACK, f"the picture was away for {took:.2f} s")
    return took


@test("", "who receives changes its address: the picture is back within 2 s")
async def _():
    _, ben, _, section = await call("roaming-receiver")
    took = []
    for host in ("127.0.0.2", "127.0.0.1", "127.0.0.2"):
        moved = time.monotonic()
        await ben.peer.ice.move(host)
        took.append(await back(ben, section, moved))
    expect(not ben.messages("leave"), "a leave came")
    return f"back after {', '.join(f'{t:.2f} s' for t in took)}"


@test("", "who only listens and says nothing by itself is followed to its new address")
async def _():
    _, ben, _, section = await call("roaming-listener")
    # No feedback by which the server would see where it is: its checks have to do.
    ben.peer.reports.cancel()
    moved = time.monotonic()
    await ben.peer.ice.move("127.0.0.2")
    first = await until(lambda: next((p.at for p in ben.received(section) if p.at > moved), None),
                        "a packet at the new address", 5)
    expect(first - moved < BACK, f"the first packet came after {first - moved:.2f} s")
    return f"first packet after {first - moved:.2f} s"


@test("", "who sends changes its address: the picture is back within 2 s")
async def _():
    anna, ben, camera, section = await call("roaming-sender")
    took = []
    for host in ("127.0.0.2", "127.0.0.1"):
        moved = time.monotonic()
        await anna.peer.ice.move(host)
        took.append(await back(ben, section, moved))
    expect(not anna.messages("leave"), "a leave came")
    return f"back after {', '.join(f'{t:.2f} s' for t in took)}"


@test("", "an address that only claims to be a participant's gets nothing of its media")
async def _():
    _, ben, _, section = await call("roaming-thief")
    thief = Probe("roaming-thief", "thief").peer.ice
    thief.host = "127.0.0.3"
    await thief.open()
    thief.start(ben.peer.ice.remote, ben.peer.ice.remote_ufrag, "not the password at all.")
    before = metric("stellwerk_dropped_total", {"reason": "stun_invalid"})
    await until(lambda: metric("stellwerk_dropped_total", {"reason": "stun_invalid"}) > before + 5,
                "checks with a wrong password are dropped")
    await ben.flow(section, 30)
    expect(not thief.sources, "the thief was answered")
    thief.close()


@test("LK-30 LK-56", "signalling and media die with the old network: both are back within 2 s")
async def _():
    anna, ben, _, section = await call("tunnel")
    for probe, host in ((ben, "127.0.0.2"), (anna, "127.0.0.2"), (ben, "127.0.0.1")):
        cut = time.monotonic()
        await probe.cut()
        probe.peer.ice.quiet = True
        await probe.peer.ice.move(host)
        _, kind, _ = await probe.resume()
        expect(kind == "reconnect", f"the first message is {kind}")
        probe.peer.ice.quiet = False
        await probe.restart_ice()
        took = await back(ben, section, cut)
    return f"the last was back after {took:.2f} s"
