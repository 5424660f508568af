"""Two towns that federate, in a small internet of their own: addresses that look public, names and
certificates, so that no filter of Synapse or Stellwerk has to be off. Runs federation.mjs in it."""

import asyncio
import contextlib
import json
import os
import pathlib
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
from internet import Internet  # noqa: E402

TOWNS = {"a.example": "5.9.0.1", "b.example": "5.9.0.2"}
SECONDS = 900


async def main():
    async with Internet(*TOWNS.values()) as net:
        with contextlib.ExitStack() as files:
            towns = []
            for name, address in TOWNS.items():
                rtc = f"rtc.{name}"
                net.host(name, address)
                net.host(rtc, address)
                certificate = files.enter_context(tempfile.NamedTemporaryFile(suffix=".pem"))
                certificate.write(net.authority.pem(name))
                certificate.flush()
                towns.append({"server": name, "net": {
                    "address": address, "rtc": rtc, "certificate": certificate.name,
                    "authority": net.authority.file.name}})
            # One of them tells its daemon what happens in rooms.
            towns[1]["told"] = True
            node = await asyncio.create_subprocess_exec(
                *net.command(["node", str(HERE / "federation.mjs")]),
                env={**os.environ, "TEST_TOWNS": json.dumps(towns)})
            try:
                return await asyncio.wait_for(node.wait(), SECONDS)
            finally:
                if node.returncode is None:
                    node.terminate()
                    await node.wait()


sys.exit(asyncio.run(main()))
