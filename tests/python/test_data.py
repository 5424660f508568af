"""Data messages between wheels: to whom, how large, and through a break of everything."""

import asyncio
import json
import os
import signal
import sys
import time

from livekit import rtc

from daemon import Daemon
from harness import expect, test, until
from jwt_token import token
from link import Link
from person import Person

HERE = os.path.dirname(os.path.abspath(__file__))


def heard_by(person):
    """What comes to `person`: (sender's identity, sender's sid, topic, bytes)."""
    heard = []

    def note(packet):
        who = packet.participant
        heard.append((who and who.identity, who and who.sid, packet.topic, bytes(packet.data)))

    person.room.on("data_received", note)
    return heard


async def people(room, *names, **options):
    """Wheels that see each other, and what each of them hears."""
    here = [await Person(name).join(room, **options) for name in names]
    for one in here:
        await until(lambda: len(one.room.remote_participants) == len(here) - 1,
                    f"{one.name} sees the others")
    return here, [heard_by(one) for one in here]


class Chatter:
    """`async with Chatter(url, room, name) as who:`, see chatter.py."""

    def __init__(self, url, room, name, count=0, link=None):
        command = [sys.executable, os.path.join(HERE, "chatter.py"), url, token(room, name),
                   str(count)]
        self.command = link.command(command) if link else command
        self.name, self.lines = name, []

    async def __aenter__(self):
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE)
        self.reading = asyncio.ensure_future(self._read())
        await until(lambda: "joined" in self.events(), f"{self.name} joins", 20)
        return self

    async def _read(self):
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def events(self):
        return [line["event"] for line in self.lines if "event" in line]

    def numbers(self, sender):
        return [line["number"] for line in self.lines if line.get("sender") == sender]

    async def __aexit__(self, *_):
        self.reading.cancel()
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@test("LK-51", "messages of both kinds reach the others, with their sender, and never come back")
async def _():
    (anna, ben, carl), (own, *others) = await people("messages", "anna", "ben", "carl")
    for reliable in (True, False):
        await anna.room.local_participant.publish_data(b"hello", reliable=reliable, topic="t")
        wanted = ("anna", anna.room.local_participant.sid, "t", b"hello")
        for heard in others:
            await until(lambda h=heard: h, f"a message arrives, reliable {reliable}", 5)
            expect(heard == [wanted], f"{heard}")
            heard.clear()
    await asyncio.sleep(0.5)
    expect(not own, f"the sender got {own}")


@test("LK-52", "only those who are named get a message, however large it may be")
async def _():
    (anna, *_), (_, ben, carl) = await people("named", "anna", "ben", "carl")
    large = os.urandom(60_000)
    await anna.room.local_participant.publish_data(
        large, reliable=True, destination_identities=["carl"], topic="large")
    await until(lambda: carl, "the large message arrives", 5)
    expect(carl[0][2:] == ("large", large), "topic or bytes differ")
    await asyncio.sleep(0.5)
    expect(not ben, "somebody else got it too")


@test("LK-52", "encrypted messages are read by those who have the key")
async def _():
    key = rtc.E2EEOptions(key_provider_options=rtc.KeyProviderOptions(shared_key=b"ours"))
    (anna, _), (_, ben) = await people("sealed words", "anna", "ben", encryption=key)
    message = os.urandom(5000)
    await anna.room.local_participant.publish_data(message, reliable=True)
    await until(lambda: ben, "the message arrives", 5)
    expect(ben[0][3] == message, "it was changed on its way")


@test("LK-54", "a wheel answers a call, and takes a text and a megabyte of bytes", seconds=40)
async def _():
    (anna, ben), _ = await people("streams", "anna", "ben")
    ben.room.local_participant.register_rpc_method("double", _double)
    answer = await anna.room.local_participant.perform_rpc(
        destination_identity="ben", method="double", payload="x" * 100)
    expect(answer == "x" * 200, f"the answer is {answer[:20]}")
    texts, files = [], []
    ben.room.register_text_stream_handler("notes", lambda reader, who: _keep(
        ben, texts, reader.read_all(), who))
    ben.room.register_byte_stream_handler("files", lambda reader, who: _keep(
        ben, files, _all(reader), who))
    text, data = "grüß dich " * 3000, os.urandom(1_000_000)
    await anna.room.local_participant.send_text(text, topic="notes")
    await until(lambda: texts, "the text arrives", 10)
    expect(texts == [("anna", text)], "the text was changed")
    started = time.monotonic()
    writer = await anna.room.local_participant.stream_bytes("file", topic="files",
                                                            total_size=len(data))
    await writer.write(data)
    await writer.aclose()
    await until(lambda: files, "the bytes arrive", 20)
    expect(files == [("anna", data)], "the bytes were changed")
    return f"1 MB in {time.monotonic() - started:.1f} s"


async def _double(call):
    return call.payload * 2


def _keep(person, shelf, reading, who):
    async def keep():
        shelf.append((who, await reading))

    person.tasks.append(asyncio.ensure_future(keep()))


async def _all(reader):
    return b"".join([bytes(chunk) async for chunk in reader])


@test("LK-53", "numbers said while everything is broken for 3 s arrive once and in order",
      seconds=90)
async def _():
    async with Daemon() as daemon, Link(daemon.url, [daemon.media_port]) as link, \
            Chatter(daemon.url, "broken", "anna", 100, link) as anna, \
            Chatter(daemon.url, "broken", "ben", 100) as ben:
        await until(lambda: len(ben.numbers("anna")) > 20 and len(anna.numbers("ben")) > 20,
                    "they hear each other", 20)
        await link.break_for(3)
        await until(lambda: all("said all" in each.events() for each in (anna, ben)),
                    "both have said everything", 40)
        await asyncio.sleep(3)
        for one, other in ((anna, "ben"), (ben, "anna")):
            expect(one.numbers(other) == list(range(1, 101)),
                   f"{one.name} heard {one.numbers(other)}")
        expect("reconnected" in anna.events(), f"nothing was broken: {anna.events()}")
        expect("disconnected" not in anna.events(), f"{anna.events()}")
        return f"{[each for each in anna.events() if each != 'joined'][:3]}"


@test("LK-55", "a receiver that stands still holds nobody else up", seconds=60)
async def _():
    url = os.environ["TEST_URL"]
    (anna, _), (_, ben) = await people("slow", "anna", "ben")
    async with Chatter(url, "slow", "carl") as carl:
        await until(lambda: len(anna.room.remote_participants) == 2, "carl is there")
        carl.process.send_signal(signal.SIGSTOP)
        slowest, data = 0.0, os.urandom(30_000)
        for count in range(1, 101):
            sent = time.monotonic()
            await anna.room.local_participant.publish_data(data, reliable=True)
            await until(lambda c=count: len(ben) >= c, f"message {count} arrives", 5, 0.005)
            slowest = max(slowest, time.monotonic() - sent)
        carl.process.send_signal(signal.SIGCONT)
        expect(slowest < 1, f"the slowest message took {slowest:.2f} s")
        return f"slowest of 100 took {slowest * 1000:.0f} ms"
