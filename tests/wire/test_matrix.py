"""Tokens for Matrix users who come themselves: shapes, names, refusals, and nothing in the log."""

import asyncio
import re
import urllib.request

from livekit.protocol import rtc

from daemon import Daemon, metric
from harness import Failure, expect, test, until
from homeserver import AS_TOKEN, HS_TOKEN, Homeserver
from matrix import (ALICE, CLIENT, ROOM, URL, ask, ask_raw, claims, gauge, hashed, joined, new, old,
                    openid, refused, service, stand_in, token_of, wish)

ENDPOINTS = ("/sfu/get", "/get_token", "/delegate_delayed_leave")


def expect_cors(headers, what):
    allowed = "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token"
    for name, wanted in (("Content-Type", "application/json"), ("Access-Control-Allow-Origin", "*"),
                         ("Access-Control-Allow-Methods", "POST"),
                         ("Access-Control-Allow-Headers", allowed)):
        expect(headers.get_all(name) == [wanted], f"{what}: {name}: {headers.get_all(name)}")


async def expect_bad_json(daemon, cases):
    for path, body in cases:
        expect_cors(await refused(daemon, path, body, 400, "M_BAD_JSON"), path)


@test("MX-01", "pages may ask first, and are told what they may send")
async def _():
    async with stand_in() as (_, daemon):
        for path in ENDPOINTS:
            status, headers, body = await ask(daemon, path, method="OPTIONS")
            expect((status, body) == (200, None), f"{path}: {status} {body}")
            expect_cors(headers, path)


@test("MX-02", "other methods than POST are refused, readable by pages")
async def _():
    async with stand_in(leaves=True) as (_, daemon):
        for path in ENDPOINTS:
            for method in ("GET", "PUT", "DELETE"):
                status, headers, body = await ask(daemon, path, method=method)
                expect((status, body) == (405, None), f"{method} {path}: {status} {body}")
                expect_cors(headers, f"{method} {path}")


@test("MX-03", "what is no JSON, of another shape or too long is refused, readable by pages")
async def _():
    async with stand_in(leaves=True) as (_, daemon):
        for path in ENDPOINTS:
            for body in (b"", b"{", b"[]", b'{"room":1,"room_id":1}'):
                expect_cors(await refused(daemon, path, body, 400, "M_NOT_JSON"), path)
            expect_cors(await refused(daemon, path, b"x" * 20_000, 413, "M_TOO_LARGE"), path)


@test("MX-04", "a request that lacks something is refused, readable by pages")
async def _():
    async with stand_in(leaves=True) as (_, daemon):
        member = new()["member"]
        cases = [("/sfu/get", old(room=None)), ("/sfu/get", old(openid_token=None)),
                 ("/sfu/get", old(openid_token={"matrix_server_name": "example.org"})),
                 ("/sfu/get", old(openid_token={"access_token": "of:x"})),
                 ("/sfu/get", old(device_id=None)), ("/sfu/get", old(device_id="d" * 300)),
                 ("/get_token", {**new(), "openid_token": None}),
                 ("/get_token", {**new(), "member": None}),
                 ("/get_token", {**new(), "room_id": None}),
                 ("/get_token", new(slot="")), ("/get_token", new(slot=None)),
                 ("/delegate_delayed_leave", new())]
        cases += [("/get_token", {**new(), "member": {**member, field: nothing}})
                  for field in member for nothing in ("", None)]
        await expect_bad_json(daemon, cases)


@test("MX-05", "half a leave is refused, and opens no room")
async def _():
    async with stand_in(leaves=True) as (_, daemon):
        await expect_bad_json(daemon, [
            (path, body(**half)) for path, body in (("/sfu/get", old), ("/get_token", new))
            for half in ({"delay_id": "1"}, {"delay_timeout": 60_000},
                         {"delay_id": "1", "delay_timeout": 1},
                         {"delay_id": "1", "delay_timeout": 2 ** 64 - 1})])
        await asyncio.sleep(1.2)  # the metrics page is as old as a second
        expect(metric("stellwerk_rooms", base=daemon.metrics) == 0, "a room came to be")


@test("MX-40", "healthz says that we are there, to GET and HEAD")
async def _():
    async with stand_in() as (_, daemon):
        for method, status in (("GET", 200), ("HEAD", 200), ("POST", 405), ("PUT", 405)):
            found, _, body = await ask_raw(daemon, "/healthz", method=method)
            expect((found, body) == (status, b""), f"{method}: {found} {body}")


@test("MX-06", "the older request is answered with url and token, for the user and its device")
async def _():
    async with stand_in() as (_, daemon):
        status, headers, answer = await ask(daemon, "/sfu/get", old())
        expect(status == 200 and set(answer) == {"url", "jwt"}, f"{status} {answer}")
        expect(answer["url"] == URL, answer["url"])
        expect_cors(headers, "an answer")
        expect(claims(answer["jwt"])["sub"] == f"{ALICE}:D", claims(answer["jwt"])["sub"])


SAID = {"room_id": "!roomid:example.com", "slot_id": "slot1234",
        "openid_token": openid("@alice:example.com", "example.com"),
        "member": {"id": "memberABC", "claimed_user_id": "@alice:example.com",
                   "claimed_device_id": "DEVICE123"}}
ROOM_VECTOR = "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"


@test("MX-07", "the identity of the newer request is that of the specification")
async def _():
    async with stand_in("example.com") as (_, daemon):
        status, headers, answer = await ask(daemon, "/get_token", SAID)
        expect(status == 200 and set(answer) == {"url", "jwt"}, f"{status} {answer}")
        expect_cors(headers, "an answer")
        sub = claims(answer["jwt"])["sub"]
        expect(sub == "J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU", sub)


@test("MX-08", "the room is that of the specification, and one for both requests")
async def _():
    async with stand_in("example.com") as (_, daemon):
        room = claims(await token_of(daemon, "/get_token", SAID))["video"]["room"]
        expect(room == ROOM_VECTOR, room)
    async with stand_in() as (_, daemon):
        older = claims(await token_of(daemon, "/sfu/get", old()))["video"]["room"]
        newer = claims(await token_of(daemon, "/get_token", new()))["video"]["room"]
        expect(older == newer, f"{older} and {newer}")


@test("MX-09", "names with all kinds of characters are hashed as canonical JSON")
async def _():
    async with stand_in() as (_, daemon):
        # As Python writes it without spaces; escaped are \" \\ and controls alone.
        odd = "a\"\\é<\u2028\t"
        said = claims(await token_of(daemon, "/get_token", new(slot=odd, member=odd)))
        expect(said["sub"] == hashed(ALICE, "D", odd), "of an odd member")
        expect(said["video"]["room"] == hashed(ROOM, odd), "of an odd slot")


@test("MX-10", "a token is short-lived, allows to join and no more, and reads as plain base64")
async def _():
    async with stand_in() as (_, daemon):
        # All that base64url writes in its own two letters, wherever it falls among three bytes.
        device = "~~~>>>???\x7f\x7f\x7féé"
        for path, body in (("/sfu/get", old(device_id=device)), ("/get_token", new())):
            token = claims(await token_of(daemon, path, body))
            expect(token["exp"] - token["nbf"] <= 3600, "lives too long")
            video = token["video"]
            expect(video["roomJoin"] and video["canPublish"] and video["canSubscribe"], str(video))
            for right in ("roomCreate", "hidden", "roomAdmin", "canUpdateOwnMetadata"):
                expect(not video.get(right), f"{right} in {video}")
            if path == "/sfu/get":
                expect(token["sub"] == f"{ALICE}:{device}", "of an odd device")


@test("MX-43", "one address serves tokens and calls, with the prefix of a proxy and without")
async def _():
    async with stand_in() as (_, daemon):
        for before_token, before_call in (("", ""), ("/livekit/jwt", "/livekit/sfu"),
                                          ("/livekit-jwt-service", "/livekit-server")):
            jwt = await token_of(daemon, f"{before_token}/sfu/get", old())
            alice = await joined(daemon, jwt, path=f"{before_call}/rtc/v1")
            expect(alice.join.participant.identity == f"{ALICE}:D", "somebody else")
            path = f"{before_call}/rtc/validate?access_token={jwt}"
            expect((await ask_raw(daemon, path))[0] == 200, f"{before_call}/rtc/validate")


@test("MX-28", "the identity of the homeserver's request is that of the specification")
async def _():
    alice, room = "@alice:example.com", SAID["room_id"]
    async with stand_in("example.com", service=True) as (home, daemon):
        home.joined.add((room, alice))
        passed = wish(room_id=room, slot_id="slot1234", member_id="memberABC")
        said = claims(await token_of(daemon, f"{CLIENT}/get_token", passed, service(alice)))
        expect(said["sub"] == "M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs", said["sub"])
        expect(said["video"]["room"] == ROOM_VECTOR, said["video"]["room"])


@test("MX-11 MX-12", "who can't be verified hears one thing only")
async def _():
    async with stand_in() as (_, daemon):
        texts = set()
        for path, body in (
                ("/get_token", new(claimed="@mallory:example.org")),
                ("/sfu/get", old(openid_token=openid("@alice:elsewhere.example"))),
                ("/sfu/get", old(openid_token=openid("@alice:example.org.evil.example"))),
                ("/sfu/get", old(openid_token=openid("nobody"))),
                ("/sfu/get", old(openid_token={**openid(), "access_token": "wrong"})),
                ("/sfu/get", old(openid_token=openid(server="elsewhere.example")))):
            status, _, text = await ask(daemon, path, body)
            expect((status, text.get("errcode")) == (401, "M_UNAUTHORIZED"), f"{status} {text}")
            texts.add(text["error"])
        expect(len(texts) == 1, f"{texts}")


@test("MX-18", "everybody has full access by one sign alone, and nobody by none")
async def _():
    async with Homeserver() as home:
        toml = home.toml()
        for listed, why in (("[]", "is empty"), ('["*", "example.org"]', "beside names"),
                            ('["example.org", "*"]', "beside names")):
            try:
                async with Daemon(toml=toml.replace('["example.org"]', listed)):
                    told = "it starts"
            except Failure as error:
                told = str(error)
            expect(re.search(f"full_access.*{why}", told), f"{listed}: {told}")
        async with Daemon(toml=toml.replace('["example.org"]', '["*"]')) as daemon:
            await token_of(daemon, "/sfu/get", old())
            await gauge(daemon, "rooms", 1)


@test("MX-19", "what a request says beside what we know is of no effect")
async def _():
    taken = []

    async def count(_, writer):
        taken.append(writer.get_extra_info("peername"))
        writer.close()

    trap = await asyncio.start_server(count, "127.0.0.1", 0)
    there = f"http://127.0.0.1:{trap.sockets[0].getsockname()[1]}"
    async with stand_in(leaves=True) as (home, daemon):
        more = {"delay_id": "1", "delay_timeout": 60_000, "delay_cs_api_url": there,
                "unknown": {"a": [1]}}
        await token_of(daemon, "/sfu/get", old(**more))
        await joined(daemon, await token_of(daemon, "/get_token", new(**more)))
        status, _, _ = await ask(daemon, "/delegate_delayed_leave", new(**more))
        expect(status == 200, f"{status}")
        await until(lambda: home.deeds("restart"), "a restart")
        expect(not taken, "the address that a client named was asked")
    trap.close()


@test("MX-13", "no token, user or room is in log or metrics, at any level")
async def _():
    async with stand_in(service=True, leaves=True) as (home, daemon):
        home.joined.add((ROOM, ALICE))
        jwt = await token_of(daemon, "/get_token", new(delay_id="1", delay_timeout=60_000))
        alice = await joined(daemon, jwt)
        await ask(daemon, "/sfu/get", old(openid_token={**openid(), "access_token": "of-nobody"}))
        await ask_raw(daemon, f"/rtc/v1/validate?access_token={jwt}x")
        await ask_raw(daemon, "/rtc/v1/validate", headers={"Authorization": f"Bearer {jwt}y"})
        await token_of(daemon, f"{CLIENT}/get_token", wish(), service(ALICE))
        await alice.request(leave=rtc.LeaveRequest())
        await until(lambda: home.deeds("send"), "the leave")
        await gauge(daemon, "participants", 0)
        page = urllib.request.urlopen(f"{daemon.metrics}/metrics").read().decode()
        secrets = (jwt, f"of:{ALICE}", "of-nobody", AS_TOKEN, HS_TOKEN, ALICE, "al~ice", ROOM,
                   claims(jwt)["sub"], claims(jwt)["video"]["room"])
        for secret in secrets:
            expect(secret not in daemon.text(), "the log says what it must not")
            expect(secret not in page, "the metrics say what they must not")
        expect("joined" in daemon.text(), "no log at all")
