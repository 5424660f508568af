"""The control socket: rooms, participants by SDP, and everybody else's subscriptions and tracks."""

import asyncio
import contextlib
import json
import os
import re
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

from livekit.protocol import models

from harness import Failure, expect, test, until
from control import Control, Held
from daemon import Daemon, metric
from probe import Probe

DOCS = Path(__file__).resolve().parents[2] / "docs" / "control.md"


@contextlib.asynccontextmanager
async def controlled(more=""):
    """A daemon with a control socket, and a connection to it."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/control"
        async with Daemon(toml=f'[control]\nsocket = "{path}"\n{more}') as daemon:
            async with Control(path) as control:
                daemon.socket = path
                yield daemon, control


async def ctl(daemon, *arguments, stdin=""):
    """Runs `stellwerk ctl`; gives exit code, output and errors."""
    command = [os.environ["TEST_BIN"], "ctl", "--socket", daemon.socket, *arguments]
    done = await asyncio.to_thread(subprocess.run, command, input=stdin, text=True,
                                   capture_output=True, timeout=20)
    return done.returncode, done.stdout, done.stderr


@test("", "the control socket greets, makes, lists and deletes rooms, and says what is wrong")
async def _():
    async with controlled() as (daemon, control):
        expect(control.lines[0]["event"] == "hello" and control.lines[0]["protocol"] == 1,
               f"greeting {control.lines[0]}")
        expect(stat.S_IMODE(os.stat(daemon.socket).st_mode) == 0o660, "the mode is not 0660")
        room = await control.ask("create_room", room="saal", empty_timeout=7, metadata="m")
        expect((room["room"], room["empty_timeout"], room["metadata"]) == ("saal", 7, "m"), room)
        rooms = await control.ask("rooms")
        expect([room["room"] for room in rooms["rooms"]] == ["saal"], rooms)
        await control.refused("room_missing", "delete_room", room="keller")
        await control.refused("malformed", "delete_room")
        await control.refused("malformed", "delete_room", room="saal", force=True)
        await control.refused("malformed", "create_room", room="")
        await control.refused("too_long", "create_room", room="x" * 300)
        await control.refused("not_held", "trickle", room="saal", identity="a", candidate="c")
        await control.refused("participant_missing", "remove", room="saal", identity="a")
        await control.refused("participant_missing", "attach", room="saal", identity="a")
        await control.ask("delete_room", room="saal")
        expect(await control.ask("rooms") == {"rooms": []}, "the room is still there")
        expect(metric("stellwerk_control_requests_total", {"outcome": "error"},
                      daemon.metrics) == 8, "refusals are not counted")
        expect("saal" not in daemon.text(), "the log names a room")


@test("", "a participant by SDP and a LiveKit client see, hear and lose each other", seconds=60)
async def _():
    async with controlled() as (daemon, control):
        anna = await Held(control, "mixed", "anna").connect(name="Anna")
        voice, _ = await anna.publish_audio()
        camera, _ = await anna.publish_video()
        ben = await Probe("mixed", "ben", url=daemon.url).connect()
        expect(ben.knows("anna").name == "Anna", "ben does not know anna's name")
        for track in (voice, camera):
            await ben.flow(await ben.subscription(track.sid))
        theirs, _ = await ben.publish_video()
        await anna.flow(await anna.subscription(theirs.sid))

        facts = await control.ask("room", room="mixed")
        expect({who["identity"] for who in facts["participants"]} == {"anna", "ben"}, facts)
        await until_rates(control, "mixed", theirs.sid)
        leg = await leg_of(control, "mixed", "anna")
        expect(leg["connected"] and leg["subscriptions"][0]["packets"] > 0, leg)
        await control.event("connection_quality", identity="anna", seconds=15)

        await control.ask("remove", room="mixed", identity="ben")
        leave = await ben.message("leave")
        expect(leave.reason == models.PARTICIPANT_REMOVED, f"PARTICIPANT_REMOVED, not {leave.reason}")
        gone = await control.event("participant_changed", identity="anna")
        await until(lambda: any(line["participant"]["left"] for line in control.events(
            "participant_changed")), "anna hears that ben has left")
        expect(gone["room"] == "mixed", gone)


async def until_rates(control, room, sid):
    """Waits until all layers of a track come in."""
    for _ in range(50):
        facts = await control.ask("room", room=room)
        track = next(track for track in facts["tracks"] if track["sid"] == sid)
        rates = [layer["bits_per_second"] for layer in track["encodings"][0]["layers"]]
        if len(rates) == 3 and all(rates):
            rids = [layer["rid"] for layer in track["encodings"][0]["layers"]]
            expect(rids == ["q", "h", "f"], track)
            return
        await asyncio.sleep(0.1)
    raise Failure(f"rates are {rates}")


async def leg_of(control, room, identity):
    facts = await control.ask("room", room=room)
    return next(leg for leg in facts["legs"] if leg["participant"] == identity)


@test("", "what a LiveKit client receives and sends is chosen by the control socket", seconds=60)
async def _():
    async with controlled() as (daemon, control):
        anna = await Probe("chosen", "anna", url=daemon.url).connect()
        camera, _ = await anna.publish_video()
        ben = await Probe("chosen", "ben", url=daemon.url).connect()
        section = await ben.subscription(camera.sid)
        await ben.flow(section)

        async def forwarded(wanted):
            for _ in range(100):
                leg = await leg_of(control, "chosen", "ben")
                if leg["subscriptions"][0]["forwarded"] == wanted:
                    return
                await asyncio.sleep(0.05)
            raise Failure(f"forwarded is {leg['subscriptions']}, not {wanted}")

        choose = dict(room="chosen", identity="ben", tracks=[camera.sid])
        await control.ask("layers", quality="low", **choose)
        await forwarded(0)
        await control.ask("layers", width=640, height=360, **choose)
        await forwarded(1)
        await control.ask("layers", disabled=True, **choose)
        await forwarded(None)
        count = len(ben.received(section))
        await asyncio.sleep(0.5)
        expect(len(ben.received(section)) <= count + 3, "a disabled track still comes")
        await control.ask("layers", quality="high", **choose)
        await forwarded(2)
        await ben.flow(section)
        await control.refused("malformed", "layers", width=640, **choose)

        await control.ask("subscribe", subscribed=False, **choose)
        expect(not (await leg_of(control, "chosen", "ben"))["subscriptions"], "still subscribed")
        await control.ask("subscribe", **choose)
        await ben.flow(await ben.subscription(camera.sid))

        track = dict(room="chosen", identity="anna", track=camera.sid)
        muted = await control.ask("mute", **track)
        expect(muted["muted"], muted)
        await anna.message("mute", lambda body: body.sid == camera.sid and body.muted)
        await until(lambda: ben.knows("anna").tracks[0].muted, "ben knows of the mute")
        await control.refused("not_allowed", "mute", muted=False, **track)
        await control.refused("track_missing", "mute", room="chosen", identity="anna", track="TR_x")


@test("", "events are streamed, of all rooms or one")
async def _():
    async with controlled() as (daemon, control), Control(daemon.socket) as other:
        await control.ask("listen")
        await other.ask("listen", room="one")
        await control.ask("create_room", room="one")
        await control.ask("create_room", room="two")
        anna = await Probe("one", "anna", url=daemon.url).connect()
        track, _ = await anna.publish_audio()
        for listener in (control, other):
            await listener.event("room_started", room="one")
            joined = await listener.event("participant_joined", room="one", identity="anna")
            expect(joined["participant"]["state"] == "active", joined)
            published = await listener.event("track_published", room="one")
            expect(published["track"]["sid"] == track.sid, published)
        await control.event("room_started", room="two")
        expect(not other.events("room_started", room="two"), "events of another room")
        await control.ask("delete_room", room="one")
        await other.event("room_finished", room="one")


@test("", "participants outlive their control connection and can be attached to", seconds=60)
async def _():
    async with controlled() as (daemon, control):
        first = await Control(daemon.socket).__aenter__()
        anna = await Held(first, "kept", "anna").connect()
        ben = await Probe("kept", "ben", url=daemon.url).connect()
        track, _ = await anna.publish_audio()
        section = await ben.subscription(track.sid)
        await ben.flow(section)
        await first.__aexit__()
        await asyncio.sleep(2)
        await ben.flow(section)
        await control.refused("not_held", "trickle", room="kept", identity="anna", candidate="c")
        found = await control.ask("attach", room="kept", identity="anna")
        expect(found["participant"]["tracks"][0]["sid"] == track.sid, found)
        expect([other["identity"] for other in found["others"]] == ["ben"], found)
        anna.control = control
        await anna.negotiate()
        await ben.flow(section)
        expect(not [p for update in ben.messages("update") for p in update.participants
                    if p.identity == "anna" and p.state == 3], "ben saw anna leave")


@test("", "nonsense at the control socket ends nothing but its own connection", seconds=60)
async def _():
    async with controlled() as (daemon, control):
        for line in ("", "null", "[]", "{", '{"do": 1}', '{"id": {}, "do": "rooms"}', "\x00" * 9,
                     "[" * 5000, '{"do": "rooms"' + ' ' * 5000 + '}'):
            await control.send(line)
        await control.send(os.urandom(5000).hex())
        await control.ask("rooms")
        with socket.socket(socket.AF_UNIX) as endless:
            endless.connect(daemon.socket)
            endless.settimeout(10)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(40):
                    await asyncio.to_thread(endless.sendall, b"x" * 65536)
            said = b""
            with contextlib.suppress(ConnectionResetError):
                while more := await asyncio.to_thread(endless.recv, 65536):
                    said += more
            expect(b"too_long" in said, f"an endless line is answered {said[-200:]}")
        # One that asks and never reads: its connection ends, others don't wait.
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(daemon.socket)
            deaf.setblocking(False)
            request = json.dumps({"id": 1, "do": "rooms", "x": "y"}).encode() + b"\n"
            with contextlib.suppress(BlockingIOError):
                for _ in range(100_000):
                    deaf.send(request)
            await control.ask("rooms", seconds=2)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(100)]
        for one in waiting:
            one.settimeout(1)
            with contextlib.suppress(BlockingIOError, TimeoutError):
                one.connect(daemon.socket)
        await control.ask("rooms", seconds=2)
        for one in waiting:
            one.close()
        async with Control(daemon.socket) as after:
            await after.ask("rooms")


@test("", "stellwerk ctl does what the socket does, with exit codes", seconds=60)
async def _():
    async with controlled() as (daemon, control):
        code, out, _ = await ctl(daemon, "create", "saal", "--participants-max", "5")
        expect(code == 0 and json.loads(out)["participants_max"] == 5, f"{code} {out}")
        code, out, _ = await ctl(daemon, "rooms")
        expect(code == 0 and json.loads(out)["rooms"][0]["room"] == "saal", out)
        anna = await Probe("saal", "anna", url=daemon.url).connect()
        voice, _ = await anna.publish_audio()
        code, out, _ = await ctl(daemon, "mute", "saal", "anna", voice.sid)
        expect(code == 0 and json.loads(out)["muted"], out)
        code, out, _ = await ctl(daemon, "room", "saal")
        expect(json.loads(out)["tracks"][0]["muted"], out)
        code, out, error = await ctl(daemon, "mute", "saal", "anna", voice.sid, "--unmute")
        expect(code == 1 and "remote_unmute" in error and not out, f"{code} {out} {error}")
        code, _, error = await ctl(daemon, "layers", "saal", "anna", "TR_x", "--size", "wide")
        expect(code == 64 and "640x360" in error, f"{code} {error}")
        lines = "".join(json.dumps({"id": id, "do": "room", "room": "saal"}) + "\n"
                        for id in range(50))
        code, out, _ = await ctl(daemon, "raw", stdin=lines)
        answers = [json.loads(line) for line in out.splitlines()]
        expect(code == 0 and [line["id"] for line in answers[1:]] == list(range(50)), out[-300:])
        code, _, _ = await ctl(daemon, "remove", "saal", "anna")
        expect(code == 0, "anna is not removed")
        await anna.message("leave")
        code, _, _ = await ctl(daemon, "delete", "saal")
        expect(code == 0 and not (await control.ask("rooms"))["rooms"], "not deleted")
        daemon.process.terminate()
        await control.event("stopping")
        await daemon.process.wait()
        expect(not os.path.exists(daemon.socket), "the socket stays behind")
        code, _, error = await ctl(daemon, "rooms")
        expect(code == 1 and "is the daemon running" in error, f"{code} {error}")


@test("", "a second daemon leaves the socket of the first alone, and a dead one's is taken over")
async def _():
    async with controlled() as (daemon, control):
        try:
            async with Daemon(toml=f'[control]\nsocket = "{daemon.socket}"\n'):
                raise Failure("two daemons at one socket")
        except Failure as failure:
            expect("stop the daemon that listens there" in str(failure), failure)
        await control.ask("rooms")
        daemon.process.kill()
        await daemon.process.wait()
        expect(os.path.exists(daemon.socket), "a killed daemon leaves its socket")
        async with Daemon(toml=f'[control]\nsocket = "{daemon.socket}"\n') as second:
            async with Control(daemon.socket) as again:
                await again.ask("rooms")
            expect(second.process.returncode is None, "the second daemon ended")


def matches(wanted, got):
    """Whether every part of an example is there; dots stand for anything."""
    if wanted == "...":
        return True
    if isinstance(wanted, dict):
        return isinstance(got, dict) and all(
            key in got and matches(value, got[key]) for key, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(got, list) and len(wanted) == len(got) and all(
            matches(*pair) for pair in zip(wanted, got))
    if isinstance(wanted, str) and "..." in wanted:
        pattern = ".*".join(re.escape(part) for part in wanted.split("..."))
        return isinstance(got, str) and re.fullmatch(pattern, got, re.S) is not None
    return wanted == got


@test("", "every example of docs/control.md is what the daemon says")
async def _():
    # Rooms come and go by themselves in a real daemon, so this one has its own.
    async with controlled() as (_, control):
        anna = Probe("ratssaal", "anna")
        await anna.peer.ice.open()
        names, seen, requests = {}, 0, 0
        for line in DOCS.read_text(encoding="utf-8").splitlines():
            direction, text = line.strip()[:3], line.strip()[3:]
            if direction not in ("-> ", "<- "):
                continue
            for name, value in names.items():
                text = text.replace(name, value)
            if direction == "-> ":
                if '"do": "publish"' in text:
                    names["CID"] = anna.section("audio", "voice-1", ssrc=77).track
                    text = text.replace("CID", names["CID"])
                if "OFFER" in text:
                    request = json.loads(text)
                    request["sdp"] = anna.next_offer().sdp
                    text = json.dumps(request)
                await control.send(text)
                requests += 1
                continue
            wanted = json.loads(text)
            found = await until(lambda: [got for got in control.lines if matches(wanted, got)],
                                f"a line like {text}; the last is {control.lines[-1]}", 5)
            seen += 1
            if '"kind": "audio"' in text:
                names["TRACK"] = found[0]["ok"]["sid"]
        expect(requests >= 15 and seen > requests, f"{requests} requests, {seen} lines")
