"""The process: limits, its end, its metrics, and what it does not write down."""

import asyncio
import os
import re
import time
import urllib.request

import websockets
from livekit.protocol import models, rtc

from daemon import Daemon, metric
from harness import expect, test, until
from jwt_token import token
from probe import Probe, join_parameter
from test_http import get


@test("LK-03", "over the participant limit: 503, readable from any origin")
async def _():
    async with Daemon(toml="[limits]\nparticipants = 2\n") as daemon:
        for name in ("anna", "ben"):
            await Probe("full", name, daemon.url).connect()
        cora = Probe("full", "cora", daemon.url)
        parameter = join_parameter(cora.join_request())
        try:
            await cora.open(parameter=parameter)
            expect(False, "a third one joined")
        except websockets.InvalidStatus as refused:
            expect(refused.response.status_code == 503, f"{refused.response.status_code}")
        path = f"/rtc/v1/validate?access_token={token('full', 'cora')}&join_request={parameter}"
        status, headers, _ = await get(path, headers={"Origin": "https://a.example"},
                                       url=daemon.url)
        expect(status == 503, f"validate is {status}")
        expect("access-control-allow-origin" in headers, "503 without CORS")


@test("LK-03 LK-08", "without auto_create an absent room is 404 with the words clients look for")
async def _():
    async with Daemon(toml="[rooms]\nauto_create = false\n") as daemon:
        parameter = join_parameter(rtc.JoinRequest())
        path = f"/rtc/v1/validate?access_token={token('absent', 'a')}&join_request={parameter}"
        status, headers, body = await get(path, url=daemon.url)
        expect(status == 404 and b"requested room does not exist" in body, f"{status} {body!r}")
        expect("access-control-allow-origin" in headers, "404 without CORS")
        # The right to create rooms is the right to create them by joining.
        anna = Probe("absent", "anna", daemon.url)
        first = await anna.open(grants={"roomCreate": True})
        expect(first[1] == "join", f"first message is {first[1]}")
        ben = Probe("absent", "ben", daemon.url)
        expect((await ben.open())[1] == "join", "the room exists now")


@test("", "media flows over IPv6 as over IPv4, to people on either")
async def _():
    async with Daemon(toml='[media]\naddresses = ["127.0.0.1", "::1"]\n') as daemon:
        anna, ben = Probe("six", "anna", daemon.url), Probe("six", "ben", daemon.url)
        anna.peer.ice.host = "::1"
        await anna.connect()
        await ben.connect()
        for sender, receiver in ((anna, ben), (ben, anna)):
            track, _ = await sender.publish_video("camera", ())
            await receiver.flow(await receiver.subscription(track.sid))


@test("", "SIGTERM tells clients to reconnect and ends within 10 s")
async def _():
    async with Daemon() as daemon:
        anna = Probe("ending", "anna", daemon.url)
        await anna.connect()
        asked = time.monotonic()
        daemon.process.terminate()
        leave = await anna.message("leave", seconds=5)
        expect(leave.action == rtc.LeaveRequest.RECONNECT, f"action {leave.action}")
        expect(leave.reason == models.SERVER_SHUTDOWN, f"reason {leave.reason}")
        code = await asyncio.wait_for(daemon.process.wait(), 10)
        expect(code == 0, f"exit code {code}")
        return f"ended after {time.monotonic() - asked:.1f} s"


@test("", "metrics count the call and carry no names")
async def _():
    anna, ben = Probe("room-secret", "anna-secret"), Probe("room-secret", "ben-secret")
    await anna.connect()
    await ben.connect()
    voice, _ = await anna.publish_audio()
    await ben.flow(await ben.subscription(voice.sid), count=50)
    await until(lambda: metric("stellwerk_participants") >= 2, "participants are counted", 3, 0.2)
    await until(lambda: metric("stellwerk_rooms") >= 1, "rooms are counted", 3, 0.2)
    text = await asyncio.to_thread(
        lambda: urllib.request.urlopen(os.environ["TEST_METRICS"] + "/metrics").read().decode())
    expect("secret" not in text, "a name is in the metrics")
    foreign = [line for line in text.splitlines()
               if line and not line.startswith("#") and not line.startswith("stellwerk_")]
    expect(not foreign, f"without our prefix: {foreign[:3]}")
    lines = len([line for line in text.splitlines() if not line.startswith("#")])
    for name in ("livez", "readyz"):
        url = f"{os.environ['TEST_METRICS']}/{name}"
        status = await asyncio.to_thread(lambda u=url: urllib.request.urlopen(u).status)
        expect(status == 200, f"{name} is {status}")
    return f"{lines} samples"


@test("", "the log holds no name, address, room or token")
async def _():
    async with Daemon() as daemon:
        anna = Probe("room-geheim", "anna-geheim", daemon.url)
        ben = Probe("room-geheim", "ben-geheim", daemon.url)
        await anna.connect()
        await ben.connect()
        await anna.publish_audio("name-geheim")
        await get(f"/rtc/v1?access_token={token('room-geheim', 'c-geheim')}", url=daemon.url)
        port = anna.peer.ice.socket.get_extra_info("sockname")[1]
        for probe in (anna, ben):
            await probe.request(leave=rtc.LeaveRequest())
        await asyncio.sleep(0.3)
        # What it prints at the start for the developer (tokens, addresses) is no log line.
        text = "\n".join(line for line in daemon.text().splitlines()
                         if re.search(r"\b(TRACE|DEBUG|INFO|WARN|ERROR)\b", line))
    for secret in ("geheim", str(port), "access_token=", "join_request="):
        expect(secret not in text, f"{secret!r} is in the log")
