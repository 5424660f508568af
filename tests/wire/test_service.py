"""The daemon as the application service of a homeserver: its users, others' users, memberships."""

import asyncio
import contextlib
import time

from harness import expect, test, until
from homeserver import AS_TOKEN, HS_TOKEN
from matrix import (ALICE, CLIENT, ROOM, URL, ask, ask_raw, joined, old, openid, refused, service,
                    stand_in, token_of, wish)

BOB = "@bob:example.org"


GET_TOKEN = f"{CLIENT}/get_token"
FOR_OTHERS = GET_TOKEN.replace("/client/", "/federation/")


@contextlib.asynccontextmanager
async def with_alice():
    """A homeserver with Alice in the room, and its application service."""
    async with stand_in(service=True) as (home, daemon):
        home.joined.add((ROOM, ALICE))
        yield home, daemon


@test("MX-26", "only who knows hs_token is the homeserver, whoever it names")
async def _():
    async with with_alice() as (_, daemon):
        named = {"X-Matrix-User-Identifier": ALICE, "X-Matrix-Origin": "example.org"}
        body = wish(user_id=ALICE)
        for path in (GET_TOKEN, FOR_OTHERS, f"{CLIENT}/delegate_delayed_leave",
                     "/_matrix/app/v1/ping"):
            await refused(daemon, path, body, 401, "M_MISSING_TOKEN", named)
            for token in ("x" * len(HS_TOKEN), HS_TOKEN[:-1], AS_TOKEN):
                wrong = {**service(token=token), **named}
                await refused(daemon, path, body, 401, "M_UNKNOWN_TOKEN", wrong)
        # It names users of its own only, and has to name somebody.
        for headers in (service(), service("@a:other.example"), service("nobody")):
            await refused(daemon, GET_TOKEN, wish(), 403, "M_FORBIDDEN", headers)


@test("MX-27", "members get a token for our url, by both versions of the path")
async def _():
    async with with_alice() as (home, daemon):
        bob = service(BOB)
        await refused(daemon, GET_TOKEN, wish(), 403, "M_FORBIDDEN", bob)
        await refused(daemon, GET_TOKEN, wish(room_id="!other:x"), 403, "M_FORBIDDEN",
                      service(ALICE))
        for url in ("wss://x", "", f"{URL}/"):
            code = "M_INVALID_PARAM" if url else "M_BAD_JSON"
            await refused(daemon, GET_TOKEN, wish(url=url), 400, code, service(ALICE))
        for path in (GET_TOKEN, GET_TOKEN.replace("unstable/io.element.msc4195", "v1")):
            status, _, answer = await ask(daemon, path, wish(), headers=service(ALICE))
            expect((status, set(answer)) == (200, {"jwt"}), f"{path}: {status} {answer}")
        home.hangs = True
        await refused(daemon, GET_TOKEN, wish(), 502, "M_UNKNOWN", service(ALICE))


@test("MX-29", "for another homeserver's service that one is asked once, and relayed")
async def _():
    async with with_alice() as (home, daemon):
        there = wish(server_name="b.example")
        await refused(daemon, GET_TOKEN, there, 403, "M_FORBIDDEN", service(ALICE))
        expect(not home.forwarded, "passed on for a server that isn't in the room")
        home.joined.add((ROOM, "b.example"))
        status, _, answer = await ask(daemon, GET_TOKEN, there, headers=service(ALICE))
        expect((status, answer) == (200, {"jwt": "of-another"}), f"{status} {answer}")
        expect(len(home.forwarded) == 1, f"{len(home.forwarded)} requests passed on")
        body = home.forwarded[0]["body"]
        expect(home.forwarded[0]["destination"] == "b.example" and body["user_id"] == ALICE, "whom")
        for remote, status, code in ((403, 403, "M_FORBIDDEN"), (400, 400, "M_INVALID_PARAM"),
                                     (401, 502, "M_UNKNOWN"), (404, 502, "M_UNKNOWN"),
                                     (500, 502, "M_UNKNOWN"), (200, 502, "M_UNKNOWN")):
            home.remote = (remote, {})
            await refused(daemon, GET_TOKEN, there, status, code, service(ALICE))
        expect(len(home.forwarded) == 7, f"{len(home.forwarded)} requests passed on for seven")


@test("MX-30", "another homeserver asks for its own users, who have to be in the room")
async def _():
    async with with_alice() as (home, daemon):
        bob = "@bob:b.example"
        for origin, joined_too, status in (("b.example", False, 403), ("b.example", True, 200),
                                           ("c.example", True, 403), (None, True, 403)):
            home.joined = {(ROOM, bob)} if joined_too else set()
            headers = service(origin=origin)
            found, _, text = await ask(daemon, FOR_OTHERS, wish(user_id=bob), headers=headers)
            expect(found == status, f"{origin}: {found} {text}")


@test("MX-32", "the homeserver's ping is answered")
async def _():
    async with with_alice() as (_, daemon):
        status, _, answer = await ask(daemon, "/_matrix/app/v1/ping", {}, headers=service())
        expect((status, answer) == (200, {}), f"{status} {answer}")


@test("MX-31", "who is removed from the Matrix room is out of the call in 5 s and stays out",
      seconds=40)
async def _():
    async with with_alice() as (home, daemon):
        home.joined.add((ROOM, BOB))
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
