"""Calls of Matrix rooms: who opens them, who comes in, and what is left when they are over."""

import asyncio
import os
import time

from livekit import api
from livekit.protocol import rtc

from daemon import Daemon, resident_bytes
from harness import expect, test, until
from homeserver import Homeserver
from matrix import (ALICE, ROOM, ask, claims, gauge, hashed, joined, new, old, openid, prober,
                    refused_join, stand_in, token_of)
from probe import join_parameter
from server_api import Api

BOB = "@bob:other.example"


def of_bob():
    return old(openid_token=openid(BOB, "other.example"))


def of_bob_anew():
    return {**new(claimed=BOB), "openid_token": openid(BOB, "other.example")}


def two_servers(home, more=""):
    """Users of example.org have full access, those of other.example are restricted."""
    both = f'"example.org" = "{home.url}", "other.example" = "{home.url}"'
    return home.toml(more=more).replace(f'"example.org" = "{home.url}"', both)


@test("MX-14", "users of other servers open no room, and pages can read why they don't come in")
async def _():
    async with Homeserver() as home, Daemon(toml=two_servers(home)) as daemon:
        for path, body in (("/sfu/get", of_bob()), ("/get_token", of_bob_anew())):
            await refused_join(daemon, await token_of(daemon, path, body), 404)
        async with Api(daemon.url) as rooms:
            listed = await rooms.list_rooms(api.ListRoomsRequest())
            expect(not listed.rooms, f"there is a room: {listed}")


@test("MX-16", "users of other servers publish exactly where they may")
async def _():
    async with Homeserver() as home:
        for policy, may in (('["no.example"]', False), ("[]", False), ('["other.example"]', True),
                            ('["*"]', True)):
            async with Daemon(toml=two_servers(home, f"remote_publish = {policy}")) as daemon:
                said = claims(await token_of(daemon, "/sfu/get", old()))["video"]
                expect(said["canPublish"], f"{policy}: may not publish at home")
                jwt = await token_of(daemon, "/sfu/get", of_bob())
                said = claims(jwt)["video"]["canPublish"]
                expect(said is may, f"{policy}: canPublish is {said}")
                bob = prober(daemon, jwt)
                await bob.open(access=jwt)
                permission = bob.join.participant.permission
                expect(permission.can_publish is may and permission.can_subscribe, f"{permission}")
                await bob.close()


@test("MX-15", "a user of another server comes into an open room, sees and hears")
async def _():
    async with Homeserver() as home:
        async with Daemon(toml=two_servers(home, "remote_publish = []")) as daemon:
            alice = await joined(daemon, await token_of(daemon, "/sfu/get", old()))
            voice, _ = await alice.publish_audio()
            camera, _ = await alice.publish_video()
            for path, body in (("/sfu/get", of_bob()), ("/get_token", of_bob_anew())):
                bob = await joined(daemon, await token_of(daemon, path, body))
                for track in (voice, camera):
                    await bob.flow(await bob.subscription(track.sid), count=20)


@test("MX-17", "a room is there with its token, and goes when nobody comes or the last has gone")
async def _():
    room = hashed(ROOM, "m.call#ROOM")
    async with Homeserver() as home:
        async with Daemon(toml=home.toml()) as daemon, Api(daemon.url) as rooms:
            await token_of(daemon, "/sfu/get", old())
            listed = await rooms.list_rooms(api.ListRoomsRequest())
            made = [(it.name, it.empty_timeout, it.departure_timeout) for it in listed.rooms]
            expect(made == [(room, 300, 20)], f"made {made}")
        toml = home.toml() + '[rooms]\nempty_timeout = "4s"\ndeparture_timeout = "2s"\n'
        async with Daemon(toml=toml) as daemon, Api(daemon.url) as rooms:
            async def lasts():
                """Seconds until the room is gone."""
                at = time.monotonic()
                while (await rooms.list_rooms(api.ListRoomsRequest())).rooms:
                    expect(time.monotonic() < at + 8, "the room stays")
                    await asyncio.sleep(0.05)
                return time.monotonic() - at

            await token_of(daemon, "/sfu/get", old())
            unused = await lasts()
            expect(3.5 < unused < 5.5, f"unused it lasted {unused:.1f} s of 4")
            # The old token opens it once more, as somebody may take his time.
            jwt = await token_of(daemon, "/sfu/get", old())
            await lasts()
            alice = await joined(daemon, jwt)
            await alice.request(leave=rtc.LeaveRequest())
            await until(alice.closed.is_set, "the end")
            emptied = await lasts()
            expect(1.5 < emptied < 3.5, f"emptied it lasted {emptied:.1f} s of 2")


@test("MX-41", "one user is there under two identities, and one of them goes")
async def _():
    async with stand_in() as (_, daemon):
        others = await joined(daemon, await token_of(
            daemon, "/sfu/get", old(openid_token=openid("@carol:example.org"))))
        heard, _ = await others.publish_audio()
        first = await joined(daemon, await token_of(daemon, "/get_token", new()))
        second = await joined(daemon, await token_of(daemon, "/sfu/get", old()))
        shown, _ = await second.publish_video()
        for probe in (first, second):
            await probe.flow(await probe.subscription(heard.sid))
        await first.flow(await first.subscription(shown.sid))
        await gauge(daemon, "participants", 3)
        await first.request(leave=rtc.LeaveRequest())
        await until(first.closed.is_set, "the end of one")
        await gauge(daemon, "participants", 2)
        expect(not second.closed.is_set(), "the other one ended too")
        await second.flow(await second.subscription(heard.sid), count=50)
        await others.flow(await others.subscription(shown.sid), count=50)
        left = others.knows(hashed(ALICE, "D", "m")), others.knows(f"{ALICE}:D")
        states = [info.state for info in left]
        gone, active = left[0].DISCONNECTED, left[0].ACTIVE
        expect(states == [gone, active], f"others know of {states}")


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


async def open_and_drop(daemon, jwt, number):
    """As a client that thinks better of it: before the answer, or when it is there."""
    probe = prober(daemon, jwt)
    if number % 2:
        await probe.open(access=jwt)
        probe.socket.transport.abort()
        return
    host, port = daemon.url.removeprefix("ws://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    query = f"access_token={jwt}&join_request={join_parameter(probe.join_request())}"
    writer.write(f"GET /rtc/v1?{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                 "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode())
    await writer.drain()
    writer.transport.abort()


@test("MX-42", "sockets that are opened and dropped at once leave nothing behind", seconds=60)
async def _():
    async with stand_in() as (_, daemon):
        # Somebody who stays, and is bothered by nothing.
        alice = await joined(daemon, await token_of(
            daemon, "/sfu/get", old(openid_token=openid("@carol:example.org"))))
        voice, _ = await alice.publish_audio()
        tokens = [await token_of(daemon, "/get_token", new(member=str(n))) for n in range(20)]

        async def rush(count):
            for number in range(count):
                await open_and_drop(daemon, tokens[number % 20], number)
            await gauge(daemon, "participants", 1)
            await gauge(daemon, "signal_sessions", 1)
            return descriptors(daemon), resident_bytes(daemon.process.pid)

        warm = await rush(40)
        after = await rush(200)
        expect(after[0] <= warm[0] + 2, f"{after[0] - warm[0]} descriptors more")
        grown = (after[1] - warm[1]) >> 10
        expect(grown < 4096, f"{grown} KiB more")
        bob = await joined(daemon, await token_of(daemon, "/sfu/get", old()))
        await bob.flow(await bob.subscription(voice.sid))
        return f"{after[0]} descriptors, {grown} KiB more"


@test("MX-44", "who doesn't fit is told by 503, which pages can read")
async def _():
    async with Homeserver() as home:
        for limit in ("participants", "participants_per_room"):
            async with Daemon(toml=home.toml() + f"[limits]\n{limit} = 2\n") as daemon:
                jwt = await token_of(daemon, "/get_token", new())
                for device in "AB":
                    await joined(daemon, await token_of(daemon, "/sfu/get", old(device_id=device)))
                await refused_join(daemon, jwt, 503)
                if limit == "participants":
                    status, headers, text = await ask(daemon, "/get_token", new())
                    expect((status, text["errcode"]) == (503, "M_UNKNOWN"), f"{status} {text}")
                    expect(headers["Access-Control-Allow-Origin"] == "*", "a refusal hides")
