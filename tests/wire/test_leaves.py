"""Leaves that clients entrust to the daemon: when they are restarted, when sent, and how often."""

import asyncio
import time

from livekit.protocol import rtc

from daemon import Daemon, metric
from harness import expect, test, until
from homeserver import Homeserver, Pace
from matrix import (ALICE, CLIENT, ROOM, ask, gauge, joined, new, old, refused, service, stand_in,
                    token_of, wish)

HOUR_MS = 3_600_000
# Participants who drop at once, so many in each of their rooms.
CROWD, PER_ROOM = 500, 5


async def entrusted(daemon, member, delay_id, delay_ms=HOUR_MS):
    """A participant with that leave."""
    body = new(member=member, delay_id=delay_id, delay_timeout=delay_ms)
    return await joined(daemon, await token_of(daemon, "/get_token", body))


async def gone(probe):
    """Neither signalling nor media, without a word."""
    await probe.cut()
    await probe.peer.close()


@test("MX-33", "whether leaves can be entrusted is seen by 404 alone")
async def _():
    async with Homeserver() as home:
        async with Daemon(toml=home.toml()) as daemon:
            await refused(daemon, "/delegate_delayed_leave", None, 404, "M_UNRECOGNIZED")
            await refused(daemon, "/sfu/get", old(delay_id="1", delay_timeout=HOUR_MS), 400,
                          "M_BAD_JSON")
        async with Daemon(toml=home.toml(leaves=True)) as daemon:
            await refused(daemon, "/delegate_delayed_leave", None, 400, "M_NOT_JSON")
        # Behind a homeserver that passes requests on no client sees the 404.
        for leaves in (False, True):
            async with Daemon(toml=home.toml(service=True, leaves=leaves)) as daemon:
                warned = "set matrix.leaves to" in daemon.text()
                expect(warned != leaves, f"warned: {warned}, with a file: {leaves}")


@test("MX-34 MX-37", "a leave is restarted when its participant is there, and at 80 % of its delay")
async def _():
    async with stand_in(leaves=True) as (home, daemon):
        home.failing = [429, 500]
        await token_of(daemon, "/get_token", new(delay_id="up/../1", delay_timeout=10_000))
        expect(not home.asked, "restarted before somebody is there")
        await entrusted(daemon, "m", "up/../1", 10_000)
        # Refused twice, then taken, then again after 80 % of the delay.
        await until(lambda: len(home.deeds("restart", "up/../1")) == 3, "restarts", 6)
        await until(lambda: len(home.deeds("restart")) == 4, "one more restart", 10)
        gap = home.deeds("restart")[3] - home.deeds("restart")[2]
        expect(7.5 < gap < 8.7, f"restarted after {gap:.1f} s")


@test("MX-35", "a leave is sent when its participant hangs up or vanishes, not when it resumes",
      seconds=60)
async def _():
    async with stand_in(leaves=True) as (home, daemon):
        alice = await entrusted(daemon, "m", "1")
        await alice.cut()
        await asyncio.sleep(1)
        await alice.resume(access=await token_of(daemon, "/get_token", new()))
        await asyncio.sleep(1)
        expect(not home.deeds("send"), "sent though it was taken up again")
        at = time.monotonic()
        await gone(alice)
        await until(lambda: home.deeds("send"), "the leave", 8)
        vanished = home.deeds("send")[0] - at
        # Goes.
        status, _, _ = await ask(daemon, "/delegate_delayed_leave", new(
            member="n", delay_id="2", delay_timeout=HOUR_MS))
        expect(status == 200, f"{status}")
        bob = await joined(daemon, await token_of(daemon, "/get_token", new(member="n")))
        await until(lambda: home.deeds("restart", "2"), "a restart")
        at = time.monotonic()
        await bob.request(leave=rtc.LeaveRequest())
        await until(lambda: home.deeds("send", "2"), "the leave", 3)
        hung_up = home.deeds("send", "2")[0] - at
        expect(hung_up < 1, f"sent {hung_up:.1f} s after the hang-up")
        await asyncio.sleep(1)
        expect(len(home.deeds("send")) == 2, f"{len(home.deeds('send'))} leaves for two")
        return f"sent {vanished:.1f} s after who vanished, {hung_up:.2f} s after who hung up"


@test("MX-36", "who never comes leaves when the delay is over, by the newest of the leaves")
async def _():
    async with stand_in(leaves=True) as (home, daemon):
        at = time.monotonic()
        for member, delay_id, delay in (("m", "older", 10_000), ("n", "other", 10_000),
                                        ("m", "newer", 13_000)):
            await token_of(daemon, "/get_token", new(member=member, delay_id=delay_id,
                                                     delay_timeout=delay))
        await until(lambda: home.deeds("send", "newer"), "the leave", 16)
        other, newer = (home.deeds("send", name)[0] - at for name in ("other", "newer"))
        expect(9.5 < other < 11.5, f"sent after {other:.1f} of 10 s")
        expect(12.5 < newer < 14.5, f"sent after {newer:.1f} of 13 s")
        await asyncio.sleep(0.5)
        expect(len(home.asked) == 2, f"the homeserver was asked {home.asked}")


@test("MX-37", "what a homeserver says of a leave is the end of it, or not yet", seconds=60)
async def _():
    async with stand_in(leaves=True) as (home, daemon):
        # Not known any more, or sent already: that is an end, for a restart and for a leave.
        home.failing = [404]
        alice = await entrusted(daemon, "a", "a")
        await until(lambda: home.deeds("restart", "a"), "a restart")
        await alice.request(leave=rtc.LeaveRequest())
        for name, status in (("b", 404), ("c", 409)):
            probe = await entrusted(daemon, name, name)
            await until(lambda name=name: home.deeds("restart", name), "a restart")
            home.failing = [status]
            await probe.request(leave=rtc.LeaveRequest())
            await until(lambda name=name: home.deeds("send", name), "the leave")
        # Too many: the wait that it names. A failure: again, until it would have sent by itself.
        probe = await entrusted(daemon, "d", "d")
        await until(lambda: home.deeds("restart", "d"), "a restart")
        home.failing = [429]
        await probe.request(leave=rtc.LeaveRequest())
        await until(lambda: len(home.deeds("send", "d")) == 2, "the leave, again")
        first, second = home.deeds("send", "d")
        expect(0.65 < second - first < 1.6, f"again after {second - first:.2f} s of 0.7")
        probe = await entrusted(daemon, "e", "e", 10_000)
        await until(lambda: home.deeds("restart", "e"), "a restart")
        home.failing = [500] * 50
        at = time.monotonic()
        await probe.request(leave=rtc.LeaveRequest())
        given_up = {"deed": "given_up"}
        await until(lambda: metric("stellwerk_matrix_leaves_total", given_up, daemon.metrics),
                    "the end of trying", 20, every=0.5)
        tries = home.deeds("send", "e")
        expect(4 <= len(tries) <= 8, f"tried {len(tries)} times")
        expect(8 < tries[-1] - at < 12, f"tried for {tries[-1] - at:.1f} of 10 s")
        expect(not home.deeds("send", "a"), "sent though it was gone")
        for name in "bc":
            expect(len(home.deeds("send", name)) == 1, f"sent {name} again")
        return f"tried {len(tries)} times"


@test("MX-38", "entrusted leaves outlive kill -9, each is sent once", seconds=90)
async def _():
    async with Homeserver() as home:
        toml = home.toml(service=True, leaves=True)
        home.joined.add((ROOM, ALICE))
        headers = service(ALICE)
        async with Daemon(toml=toml) as daemon:
            await refused(daemon, f"{CLIENT}/delegate_delayed_leave", wish(delay_id="foreign"), 400,
                          "M_INVALID_PARAM", headers)
            status, _, text = await ask(daemon, f"{CLIENT}/delegate_delayed_leave",
                                        wish(delay_id="known"), headers=headers)
            expect(status == 200, f"{status} {text}")
            for name, delay in (("over", 10_000), ("short", 20_000)):
                await token_of(daemon, "/get_token", new(member=name, delay_id=name,
                                                         delay_timeout=delay))
            entrusted_at = time.monotonic()
            jwt = await token_of(daemon, f"{CLIENT}/get_token", wish(), headers)
            alice = await joined(daemon, jwt)
            await until(lambda: home.deeds("restart", "known"), "a restart")
            daemon.process.kill()
            await daemon.process.wait()
        await alice.close()
        # Nobody is there when the homeserver sends the first one by itself.
        await asyncio.sleep(entrusted_at + 10.5 - time.monotonic())
        async with Daemon(toml=toml) as daemon:
            alice = await joined(daemon, jwt)
            await until(lambda: len(home.deeds("restart", "known")) == 2, "a restart", 5)
            expect(home.asked[-1].service, "not as the application service")
            await until(lambda: home.deeds("send", "short"), "the leave of who never came", 14)
            expect(not home.deeds("send", "known"), "sent of somebody who is there")
            await gone(alice)
            await until(lambda: home.deeds("send", "known"), "the leave", 8)
            await asyncio.sleep(1)
            sends = sorted(deed.delay_id for deed in home.asked if deed.action == "send")
            expect(sends == ["known", "short"], f"sent: {sends}")
        async with Daemon(toml=toml):
            await asyncio.sleep(1)
            expect(len(home.deeds("send")) == 2, "sent again after a restart")


async def crowd(daemon):
    """Participants in rooms of their own, each with a leave."""
    probes, turns = [], asyncio.Semaphore(16)

    async def come(number):
        async with turns:
            body = new(slot=str(number // PER_ROOM), member=str(number), delay_id=str(number),
                       delay_timeout=HOUR_MS)
            probes.append(await joined(daemon, await token_of(daemon, "/get_token", body)))

    await asyncio.gather(*map(come, range(CROWD)))
    return probes


@test("MX-39", "five hundred who drop at once leave all of them, and at a pace that is taken",
      seconds=240)
async def _():
    notes = []
    for as_service in (True, False):
        async with Homeserver() as home:
            toml = home.toml(service=as_service, leaves=True)
            home.joined.add((ROOM, ALICE))
            async with Daemon(toml=toml, workers=2) as daemon:
                probes = await crowd(daemon)
                await until(lambda: len(home.deeds("restart")) >= CROWD, "restarts", 30)
                home.asked.clear()
                home.pace = Pace(burst=5, per_second=50)
                at = time.monotonic()
                await asyncio.gather(*map(gone, probes))
                way = "as application service" if as_service else "by address"
                await until(lambda: taken(home) >= CROWD, f"all leaves, {way}", 60)
                took = time.monotonic() - at
                await asyncio.sleep(1)
                expect(taken(home) == CROWD, f"{taken(home)} leaves for {CROWD}")
                refusals = len(home.asked) - CROWD
                if as_service:
                    expect(took < 12, f"took {took:.1f} s")
                    expect(refusals == 0, f"{refusals} were too many")
                else:
                    expect(refusals < CROWD, f"{refusals} were too many")
                await gauge(daemon, "participants", 0)
                notes.append(f"{way} {took:.1f} s with {refusals} refusals")
    return ", ".join(notes)


def taken(home):
    """Leaves that the homeserver has taken, each counted as often as it was."""
    return sum(deed.action == "send" and deed.status == 200 for deed in home.asked)
