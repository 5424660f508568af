"""The daemon as the application service of a homeserver: its users, others' users, memberships."""

import asyncio
import time

from daemon import Daemon
from harness import expect, test, until
from homeserver import Homeserver
from matrix import (ALICE, CLIENT, ROOM, ask, ask_raw, joined, old, openid, refused, service,
                    token_of, wish)

BOB = "@bob:example.org"


@test("MX-26 MX-27 MX-29 MX-30 MX-32", "the homeserver asks for its users, and nobody else can")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml(service=True)) as daemon:
        path = f"{CLIENT}/get_token"
        home.joined.add((ROOM, ALICE))
        for path_of_one in (path, f"{CLIENT}/delegate_delayed_leave", "/_matrix/app/v1/ping",
                            path.replace("/client/", "/federation/")):
            named = {"X-Matrix-User-Identifier": ALICE, "X-Matrix-Origin": "example.org"}
            await refused(daemon, path_of_one, wish(user_id=ALICE), 401, "M_MISSING_TOKEN", named)
            await refused(daemon, path_of_one, wish(user_id=ALICE), 401, "M_UNKNOWN_TOKEN",
                          {**service(token="x" * 49), **named})
        home.joined.clear()
        await refused(daemon, path, wish(), 403, "M_FORBIDDEN", service())
        await refused(daemon, path, wish(), 403, "M_FORBIDDEN", service("@a:other.example"))
        await refused(daemon, path, wish(), 403, "M_FORBIDDEN", service(ALICE))
        home.joined.add((ROOM, ALICE))
        await refused(daemon, path, wish(url="wss://x"), 400, "M_INVALID_PARAM", service(ALICE))
        status, _, answer = await ask(daemon, path, wish(), headers=service(ALICE))
        expect((status, set(answer)) == (200, {"jwt"}), f"{status} {answer}")
        stable = CLIENT.replace("unstable/io.element.msc4195", "v1") + "/get_token"
        expect((await ask(daemon, stable, wish(), headers=service(ALICE)))[0] == 200, "v1")
        home.hangs = True
        await refused(daemon, path, wish(), 502, "M_UNKNOWN", service(ALICE))
        home.hangs = False
        # Another homeserver's service.
        there = wish(server_name="b.example")
        await refused(daemon, path, there, 403, "M_FORBIDDEN", service(ALICE))
        home.joined.add((ROOM, "b.example"))
        status, _, answer = await ask(daemon, path, there, headers=service(ALICE))
        expect((status, answer) == (200, {"jwt": "of-another"}), f"{status} {answer}")
        expect(len(home.forwarded) == 1, f"{len(home.forwarded)} requests passed on")
        body = home.forwarded[0]["body"]
        expect(home.forwarded[0]["destination"] == "b.example" and body["user_id"] == ALICE, "whom")
        for remote, status, code in ((403, 403, "M_FORBIDDEN"), (400, 400, "M_INVALID_PARAM"),
                                     (401, 502, "M_UNKNOWN"), (404, 502, "M_UNKNOWN"),
                                     (500, 502, "M_UNKNOWN")):
            home.remote = (remote, {})
            await refused(daemon, path, there, status, code, service(ALICE))
        expect(len(home.forwarded) == 6, f"{len(home.forwarded)} requests passed on for six")
        # And its users, here.
        path = path.replace("/client/", "/federation/")
        bob = "@bob:b.example"
        home.joined.add((ROOM, bob))
        for origin, status in (("b.example", 200), ("c.example", 403), (None, 403)):
            headers = service(origin=origin)
            found, _, text = await ask(daemon, path, wish(user_id=bob), headers=headers)
            expect(found == status, f"{origin}: {found} {text}")
        status, _, answer = await ask(daemon, "/_matrix/app/v1/ping", {}, headers=service())
        expect((status, answer) == (200, {}), "ping")


@test("MX-31", "who is removed from the Matrix room is out of the call in 5 s and stays out",
      seconds=40)
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml(service=True)) as daemon:
        home.joined |= {(ROOM, ALICE), (ROOM, BOB)}
        jwt = await token_of(daemon, "/sfu/get", old())
        alice = await joined(daemon, jwt)
        bob = await joined(daemon, await token_of(daemon, "/sfu/get",
                                                  old(openid_token=openid(BOB))))
        track, _ = await bob.publish_audio()
        heard = await alice.subscription(track.sid)
        await alice.flow(heard)
        home.hangs = True  # Says nothing: nobody has to go.
        await asyncio.sleep(4)
        expect(not alice.closed.is_set(), "removed though nobody said so")
        home.hangs = False
        home.joined.discard((ROOM, ALICE))
        at = time.monotonic()
        await until(alice.closed.is_set, "the removal", 5)
        took = time.monotonic() - at
        count = len(alice.received(heard))
        await asyncio.sleep(0.5)
        more = len(alice.received(heard)) - count
        expect(more <= 2, f"{more} packets after the end")  # those on the way
        status, _, text = await ask_raw(daemon, f"/rtc/v1/validate?access_token={jwt}")
        expect(status == 401, f"{status} {text}")
        await refused(daemon, "/sfu/get", old(), 403, "M_FORBIDDEN")
        expect(not bob.closed.is_set(), "removed another")
        return f"removed after {took:.1f} s"
