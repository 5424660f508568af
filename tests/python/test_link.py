"""Real clients over bad networks: the Python wheel in a namespace of its own, see lib/link.py."""

import asyncio
import json
import os
import sys
import time

from daemon import Daemon, metric
from harness import expect, test, until
from jwt_token import token
from link import Link, Path

HERE = os.path.dirname(os.path.abspath(__file__))


class Linked:
    """Somebody in a process of their own: `async with Linked(url, ..) as who:`."""

    def __init__(self, url, room, name, role, link=None):
        command = [sys.executable, os.path.join(HERE, "linked.py"), url, token(room, name), role]
        self.command = link.command(command) if link else command
        self.name, self.lines = name, []

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE)
        self.reading = asyncio.ensure_future(self._read())
        return self

    async def _read(self):
        async for line in self.process.stdout:
            self.lines.append((time.monotonic(), json.loads(line)))

    def last(self):
        return self.lines[-1][1] if self.lines else {"frames": 0, "width": 0, "heard": False}

    def since(self, moment, what):
        """The largest value of `what` in lines after that moment."""
        return max((line[what] for at, line in self.lines if at > moment), default=0)

    def rate_since(self, seconds):
        """Frames per second over the newest lines."""
        lines = [(at, line) for at, line in self.lines if at > time.monotonic() - seconds]
        if len(lines) < 2:
            return 0
        (begin, first), (end, last) = lines[0], lines[-1]
        return (last["frames"] - first["frames"]) / (end - begin)

    def moves(self):
        return self.rate_since(1) > 2

    async def measure(self, seconds, link):
        """Frames, and bits that the link let through to it, per second."""
        begin, before = time.monotonic(), link.down.bytes
        await asyncio.sleep(seconds)
        took = time.monotonic() - begin
        return self.rate_since(took), (link.down.bytes - before) * 8 / took

    async def sees_and_hears(self, seconds=20):
        await until(lambda: self.last()["frames"] > 10 and self.last()["heard"],
                    f"{self.name} sees and hears", seconds)

    async def __aexit__(self, *_):
        self.reading.cancel()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@test("LK-71", "at 2 % loss each way NACK and RTX repair both hops", seconds=90)
async def _():
    up, down = (Path(loss=0.02, delay=0.02, seed=seed) for seed in (1, 2))
    async with Daemon() as daemon, \
            Link(daemon.url, [daemon.media_port], up, down) as link, \
            Linked(daemon.url, "lossy", "anna", "send", link), \
            Linked(daemon.url, "lossy", "ben", "watch", link) as ben:
        await ben.sees_and_hears(30)
        await asyncio.sleep(5)  # bandwidth estimates settle

        def counted(name):
            return metric(f"stellwerk_{name}", base=daemon.metrics)

        names = ("nacks_sent_total", "nacks_received_total", "retransmits_total",
                 "plis_sent_total")
        before, frames = [counted(n) for n in names], ben.last()["frames"]
        started = time.monotonic()
        await asyncio.sleep(20)
        took = time.monotonic() - started
        asked, heard, again, plis = (counted(n) - b for n, b in zip(names, before))
        fps = (ben.last()["frames"] - frames) / took
        note = (f"{fps:.1f} fps, {asked:.0f} NACKs up, {heard:.0f} down, {again:.0f} sent again, "
                f"{plis:.0f} PLIs, longest gap {ben.since(started, 'gap'):.2f} s, "
                f"lost {up.lost} up, {down.lost} down")
        expect(up.lost > 20 and down.lost > 20, f"the link lost nothing: {note}")
        expect(asked > 5 and heard > 5 and again > 5, note)
        expect(fps > 12, note)
        expect(ben.since(started, "gap") < 1.5, note)
        expect(plis <= 3 * 2 * took, note)
        expect(not ben.last()["events"], f"{ben.last()['events']}")
        return note


@test("LK-72", "a subscriber capped to 500 kbit/s falls to a lower layer, hears on, recovers",
      seconds=150)
async def _():
    async with Daemon() as daemon, \
            Link(daemon.url, [daemon.media_port], Path(delay=0.02), Path(delay=0.02)) as link, \
            Linked(daemon.url, "narrow", "anna", "send"), \
            Linked(daemon.url, "narrow", "ben", "watch", link) as ben:
        await ben.sees_and_hears(30)
        await until(lambda: ben.last()["width"] == 640, "the top layer at first", 20)
        await asyncio.sleep(8)
        full, rate = await ben.measure(4, link)
        expect(rate > 600_000, f"the top layer is more than the cap lets through: {rate:.0f}")
        capped = time.monotonic()
        link.down = Path(delay=0.02, rate=500_000)
        # Lower is a smaller picture or fewer frames of the same, whichever is better and fits.
        await until(lambda: ben.moves() and link.down.relaxed() > 1,
                    f"a layer that fits; {rate:.0f} bit/s before", 6, 0.1)
        fell = time.monotonic() - capped - 1
        low, rate_low = await ben.measure(8, link)
        silence, gap = ben.since(capped, "silence"), ben.since(capped, "gap")
        note = (f"{rate / 1000:.0f} kbit/s and {full:.0f} fps at first; after {fell:.1f} s "
                f"{rate_low / 1000:.0f} kbit/s, {low:.0f} fps, {ben.last()['width']} wide; silent "
                f"for {silence:.2f} s at most, the picture stood for {gap:.2f} s")
        expect(fell < 5, note)
        expect(ben.last()["width"] < 640 or low < 0.8 * full, note)
        expect(rate_low < 500_000 and low > 3, note)
        expect(silence < 0.5, note)
        link.down = Path(delay=0.02)
        lifted = time.monotonic()
        await until(lambda: ben.last()["width"] == 640 and ben.rate_since(2) > 0.9 * full,
                    f"all frames of the top layer again; {note}", 60, 0.25)
        expect(not ben.last()["events"], f"{ben.last()['events']}")
        return f"{note}; back after {time.monotonic() - lifted:.1f} s"
