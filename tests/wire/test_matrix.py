"""Tokens for Matrix users who come themselves: shapes, names, refusals, and nothing in the log."""

import asyncio
import re
import urllib.request

from livekit.protocol import rtc

from daemon import Daemon, metric
from harness import Failure, expect, test, until
from homeserver import AS_TOKEN, HS_TOKEN, Homeserver
from matrix import (ALICE, CLIENT, ROOM, URL, ask, ask_raw, claims, gauge, hashed, joined, new, old,
                    openid, refused, service, token_of, wish)

ENDPOINTS = ("/sfu/get", "/get_token", "/delegate_delayed_leave")


def expect_cors(headers, what):
    allowed = "Accept, Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token"
    for name, wanted in (("Content-Type", "application/json"), ("Access-Control-Allow-Origin", "*"),
                         ("Access-Control-Allow-Methods", "POST"),
                         ("Access-Control-Allow-Headers", allowed)):
        expect(headers.get_all(name) == [wanted], f"{what}: {name}: {headers.get_all(name)}")


@test("MX-01 MX-02 MX-03 MX-04 MX-05",
      "preflights, methods and malformed bodies, readable by pages")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml(leaves=True)) as daemon:
        for path in ENDPOINTS:
            for method, status in (("OPTIONS", 200), ("GET", 405), ("PUT", 405), ("DELETE", 405)):
                found, headers, body = await ask(daemon, path, method=method)
                expect((found, body) == (status, None), f"{method} {path}: {found} {body}")
                expect_cors(headers, f"{method} {path}")
            for body in (b"", b"{", b"[]", b'{"room":1,"room_id":1}'):
                expect_cors(await refused(daemon, path, body, 400, "M_NOT_JSON"), path)
            expect_cors(await refused(daemon, path, b"x" * 20_000, 413, "M_TOO_LARGE"), path)
        cases = [("/sfu/get", old(room=None)), ("/sfu/get", old(openid_token=None)),
                 ("/sfu/get", old(openid_token={"matrix_server_name": "example.org"})),
                 ("/sfu/get", old(openid_token={"access_token": "of:x"})),
                 ("/sfu/get", old(device_id=None)), ("/sfu/get", old(device_id="d" * 300)),
                 ("/sfu/get", old(delay_id="1")), ("/sfu/get", old(delay_timeout=60_000)),
                 ("/sfu/get", old(delay_id="1", delay_timeout=1)),
                 ("/sfu/get", old(delay_id="1", delay_timeout=2 ** 64 - 1)),
                 ("/get_token", new(delay_id="1")), ("/get_token", new(delay_timeout=60_000)),
                 ("/get_token", {**new(), "member": None}),
                 ("/get_token", {**new(), "room_id": None}),
                 ("/get_token", new(slot="")), ("/get_token", new(slot=None)),
                 ("/delegate_delayed_leave", new())]
        for field in ("id", "claimed_user_id", "claimed_device_id"):
            for nothing in ("", None):
                member = {**new()["member"], field: nothing}
                cases.append(("/get_token", {**new(), "member": member}))
        for path, body in cases:
            expect_cors(await refused(daemon, path, body, 400, "M_BAD_JSON"), path)
        await asyncio.sleep(1.2)  # the metrics page is as old as a second
        expect(metric("stellwerk_rooms", base=daemon.metrics) == 0, "a room came to be")
        expect_cors(await refused(daemon, "/sfu/get", old(openid_token=openid("nobody")), 401,
                                  "M_UNAUTHORIZED"), "a refusal")


@test("MX-40", "healthz says that we are there, to GET and HEAD")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml()) as daemon:
        for method, status in (("GET", 200), ("HEAD", 200), ("POST", 405), ("PUT", 405)):
            found, _, body = await ask_raw(daemon, "/healthz", method=method)
            expect((found, body) == (status, b""), f"{method}: {found} {body}")


@test("MX-06 MX-07 MX-08 MX-09 MX-10 MX-43", "tokens of both kinds lead to one room")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml()) as daemon:
        status, _, first = await ask(daemon, "/livekit/jwt/sfu/get", old())
        expect(status == 200 and set(first) == {"url", "jwt"} and first["url"] == URL, str(first))
        status, _, second = await ask(daemon, "/get_token", new())
        expect(status == 200 and set(second) == {"url", "jwt"}, str(second))
        jwt, first, second = first["jwt"], claims(first["jwt"]), claims(second["jwt"])
        expect(first["sub"] == f"{ALICE}:D", first["sub"])
        expect(second["sub"] == hashed(ALICE, "D", "m"), second["sub"])
        for token in (first, second):
            video = token["video"]
            expect(video["room"] == hashed(ROOM, "m.call#ROOM"), "another room")
            expect(token["exp"] - token["nbf"] <= 3600, "lives too long")
            expect(video["roomJoin"] and video["canPublish"] and video["canSubscribe"], str(video))
            for right in ("roomCreate", "hidden", "roomAdmin", "canUpdateOwnMetadata"):
                expect(not video.get(right), f"{right} in {video}")
        # Canonical JSON: as Python writes it without spaces; escaped are \" \\ and controls alone.
        odd = "a\"\\é<\u2028\t"
        third = claims(await token_of(daemon, "/get_token", new(slot=odd, member=odd)))
        expect(third["sub"] == hashed(ALICE, "D", odd), "of an odd member")
        expect(third["video"]["room"] == hashed(ROOM, odd), "of an odd slot")
        # All that base64url writes in its own two letters, wherever it falls among three bytes.
        device = "~~~>>>???\x7f\x7f\x7féé"
        fourth = claims(await token_of(daemon, "/sfu/get", old(device_id=device)))
        expect(fourth["sub"] == f"{ALICE}:{device}", "of an odd device")
        # The same daemon takes calls, with the prefix of a proxy and without.
        for prefix in ("", "/livekit/sfu", "/livekit-server"):
            alice = await joined(daemon, jwt, path=f"{prefix}/rtc/v1")
            expect(alice.join.participant.identity == f"{ALICE}:D", "somebody else")
            query = f"?access_token={jwt}"
            status, _, _ = await ask_raw(daemon, f"{prefix}/rtc/validate{query}")
            expect(status == 200, f"{prefix}/rtc/validate: {status}")


@test("MX-07 MX-08 MX-28", "names are those of the specification, byte for byte")
async def _():
    alice, room = "@alice:example.com", "!roomid:example.com"
    async with Homeserver("example.com") as home:
        home.joined.add((room, alice))
        async with Daemon(toml=home.toml(service=True)) as daemon:
            itself = {"room_id": room, "slot_id": "slot1234",
                      "openid_token": openid(alice, "example.com"),
                      "member": {"id": "memberABC", "claimed_user_id": alice,
                                 "claimed_device_id": "DEVICE123"}}
            said = claims(await token_of(daemon, "/get_token", itself))
            expect(said["sub"] == "J+T45tGruxc+HrUOqJJlyQSV33m728Cme4+vt8/SWrU", said["sub"])
            vector = "O8437W3+jmzMVjoIP3tNwbm+XxHQk2iKpOA7aqw3qSc"
            expect(said["video"]["room"] == vector, said["video"]["room"])
            passed = wish(room_id=room, slot_id="slot1234", member_id="memberABC")
            said = claims(await token_of(daemon, f"{CLIENT}/get_token", passed, service(alice)))
            expect(said["sub"] == "M3VnsLXrkbxIDINXO64u8PZzFyD9ZYFiQULR2dshWYs", said["sub"])
            expect(said["video"]["room"] == vector, said["video"]["room"])


@test("MX-11 MX-12", "who can't be verified hears one thing only")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml()) as daemon:
        texts = set()
        for path, body in (
                ("/get_token", new(claimed="@mallory:example.org")),
                ("/sfu/get", old(openid_token=openid("@alice:elsewhere.example"))),
                ("/sfu/get", old(openid_token=openid("@alice:example.org.evil.example"))),
                ("/sfu/get", old(openid_token=openid("nobody"))),
                ("/sfu/get", old(openid_token={**openid(), "access_token": "wrong"})),
                ("/sfu/get", old(openid_token=openid(server="elsewhere.example")))):
            status, _, text = await ask(daemon, path, body)
            expect((status, text["errcode"]) == (401, "M_UNAUTHORIZED"), f"{status} {text}")
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
    async with Homeserver() as home, Daemon(toml=home.toml(leaves=True)) as daemon:
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
    async with Homeserver() as home, Daemon(toml=home.toml(service=True, leaves=True)) as daemon:
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
