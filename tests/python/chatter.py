"""One person as a process of its own who says numbers ten times a second, and writes down what is
said: a line of JSON for every message that comes, with its sender, and for every event.

    chatter.py URL TOKEN [COUNT]

A number that can't be said now is said again until it is; without COUNT it only listens.
"""

import asyncio
import json
import os
import sys

from livekit import rtc


def write(**line):
    print(json.dumps(line), flush=True)


async def main(url, access, count=0):
    room = rtc.Room()
    room.on("data_received", lambda packet: write(
        sender=packet.participant and packet.participant.identity, bytes=len(packet.data),
        number=int.from_bytes(packet.data[:4], "big")))
    for event in ("reconnecting", "reconnected", "disconnected"):
        room.on(event, lambda *a, e=event: write(event=e))
    await room.connect(url, access, rtc.RoomOptions(auto_subscribe=True))
    write(event="joined")
    await asyncio.sleep(2)
    for number in range(1, int(count) + 1):
        while True:
            try:
                await room.local_participant.publish_data(number.to_bytes(4, "big"), reliable=True)
                break
            except Exception as error:  # the wheel refuses while it has no connection
                write(event=f"not said: {error}")
                await asyncio.sleep(0.1)
        await asyncio.sleep(0.1)
    write(event="said all")
    await asyncio.sleep(3600)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    finally:
        os._exit(0)  # the wheel keeps threads of its own
