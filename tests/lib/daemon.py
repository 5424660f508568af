"""A daemon of a test's own, for what needs another configuration or an end of its own."""

import asyncio
import os
import tempfile
import time
import urllib.request

from harness import Failure
from ports import free_tcp, free_udp


async def end(process):
    """Ends a process that was started here, if it hasn't ended."""
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()


class Daemon:
    """`async with Daemon(toml=...) as daemon:` - ready inside, ended by its own pid after."""

    def __init__(self, toml="", workers=1, within=None):
        self.toml = toml
        self.workers = workers
        self.within = within  # a namespace: then its addresses are there
        self.port = None  # of media; otherwise a free one

    async def __aenter__(self):
        http, metrics = free_tcp(), free_tcp()
        self.url = f"ws://127.0.0.1:{http}"
        self.metrics = f"http://127.0.0.1:{metrics}"
        self.media_port = self.port or free_udp()
        self.log = tempfile.NamedTemporaryFile("ab")
        arguments = ["serve", "--dev", "--http", f"127.0.0.1:{http}", "--metrics",
                     f"127.0.0.1:{metrics}", "--media-port", str(self.media_port), "--workers",
                     str(self.workers)]
        if self.toml:
            self.config = tempfile.NamedTemporaryFile("w", suffix=".toml")
            self.config.write(self.toml)
            self.config.flush()
            arguments += ["--config", self.config.name]
        command = [os.environ["TEST_BIN"], *arguments]
        if self.within:
            command = self.within.command(command)
        self.process = await asyncio.create_subprocess_exec(
            *command, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 10
        while not await asyncio.to_thread(self._ready):
            if self.process.returncode is not None or time.monotonic() > deadline:
                raise Failure(f"the daemon does not become ready: {self.text()[-300:]}")
            await asyncio.sleep(0.05)
        return self

    def _ready(self):
        try:
            if self.within:
                return self.within.get(f"{self.metrics}/readyz")[0] == 200
            return urllib.request.urlopen(f"{self.metrics}/readyz", timeout=1).status == 200
        except OSError:
            return False

    def text(self):
        # By another descriptor: the daemon writes where this one stands.
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            return log.read()

    async def __aexit__(self, *_):
        await end(self.process)


def metric(name, labels=None, base=None):
    """Sum of all samples of `name` whose labels contain `labels`."""
    base = base or os.environ["TEST_METRICS"]
    text = urllib.request.urlopen(f"{base}/metrics", timeout=5).read().decode()
    total = 0.0
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        if head.split("{")[0] != name:
            continue
        if all(f'{key}="{wanted}"' in head for key, wanted in (labels or {}).items()):
            total += float(value)
    return total


def resident_bytes(pid=None):
    """Resident memory of the daemon."""
    with open(f"/proc/{pid or os.environ['TEST_PID']}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    raise Failure("the daemon is gone")
