"""Tokens for Matrix users: shapes and refusals, the homeserver's own API, leaves, memberships."""

import asyncio
import base64
import hashlib
import json
import time
import urllib.error
import urllib.request

from livekit.protocol import rtc

from daemon import Daemon
from harness import expect, test, until
from homeserver import AS_TOKEN, HS_TOKEN, Homeserver
from probe import Probe, close_all, join_parameter

ROOM = "!room:example.org"
ALICE = "@al~ice:example.org"
CLIENT = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit"
URL = "wss://rtc.example.org"


async def ask(daemon, path, body=None, method="POST", headers=None):
    """(status, headers, JSON) of a request to the daemon."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(daemon.url.replace("ws:", "http:") + path, data,
                                     {"Content-Type": "application/json", **(headers or {})},
                                     method=method)

    def send():
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    status, found, text = await asyncio.to_thread(send)
    return status, found, json.loads(text) if text else None


def openid(user=ALICE, server="example.org"):
    return {"access_token": f"of:{user}", "token_type": "Bearer", "expires_in": 3600,
            "matrix_server_name": server}


def old(**more):
    return {"room": ROOM, "openid_token": openid(), "device_id": "D", **more}


def new(slot="m.call#ROOM", claimed=ALICE, member="m", **more):
    return {"room_id": ROOM, "slot_id": slot, "openid_token": openid(),
            "member": {"id": member, "claimed_user_id": claimed, "claimed_device_id": "D"}, **more}


def hashed(*texts):
    """What clients compute for themselves."""
    canonical = json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b64encode(hashlib.sha256(canonical).digest()).decode().rstrip("=")


def claims(answer):
    # As Element Call does it: plain base64.
    payload = answer["jwt"].split(".")[1]
    expect(not set("-_") & set(payload), "not plain base64")
    return json.loads(base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True))


async def refused(daemon, path, body, status, code, headers=None):
    found, answered, text = await ask(daemon, path, body, headers=headers)
    expect((found, (text or {}).get("errcode")) == (status, code), f"{path}: {found} {text}")
    return answered


@test("MX-01 MX-02 MX-03 MX-04 MX-05", "preflights, methods and malformed bodies, readable by pages")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml(leaves=True)) as daemon:
        for path in ("/sfu/get", "/get_token", "/delegate_delayed_leave"):
            for method, status in (("OPTIONS", 200), ("GET", 405), ("PUT", 405)):
                found, headers, body = await ask(daemon, path, method=method)
                expect((found, body) == (status, None), f"{method} {path}: {found} {body}")
                expect(headers["Access-Control-Allow-Origin"] == "*", f"{method} {path}: CORS")
                expect(headers["Access-Control-Allow-Methods"] == "POST", f"{method} {path}: CORS")
            for body in (b"", b"{", b"[]", b'{"room":1,"room_id":1}'):
                headers = await refused(daemon, path, body, 400, "M_NOT_JSON")
                expect(headers["Access-Control-Allow-Origin"] == "*", f"{path}: an error hides")
            await refused(daemon, path, b"x" * 20_000, 413, "M_TOO_LARGE")
        cases = [("/sfu/get", old(room=None)), ("/sfu/get", old(openid_token=None)),
                 ("/sfu/get", old(openid_token={"matrix_server_name": "example.org"})),
                 ("/sfu/get", old(delay_id="1")), ("/sfu/get", old(delay_timeout=1000)),
                 ("/sfu/get", old(delay_id="1", delay_timeout=1)),
                 ("/sfu/get", old(delay_id="1", delay_timeout=2 ** 64 - 1)),
                 ("/sfu/get", old(device_id="d" * 300)),
                 ("/get_token", new(slot="")), ("/get_token", new(member="")),
                 ("/get_token", new(claimed="")), ("/get_token", {**new(), "room_id": None}),
                 ("/get_token", {**new(), "member": {"id": "m", "claimed_user_id": ALICE}}),
                 ("/delegate_delayed_leave", new())]
        for path, body in cases:
            await refused(daemon, path, body, 400, "M_BAD_JSON")
        expect((await ask(daemon, "/healthz", method="GET"))[0] == 200, "healthz")
        expect((await ask(daemon, "/healthz", method="HEAD"))[0] == 200, "healthz, HEAD")
        expect((await ask(daemon, "/healthz", {}))[0] == 405, "healthz, POST")


@test("MX-06 MX-07 MX-08 MX-09 MX-10 MX-19 MX-43", "tokens of both kinds lead to one room")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml()) as daemon:
        _, _, first = await ask(daemon, "/livekit/jwt/sfu/get", old(
            delay_cs_api_url="http://127.0.0.1:9", unknown={"a": 1}))
        expect(set(first) == {"url", "jwt"} and first["url"] == URL, str(first))
        _, _, second = await ask(daemon, "/get_token", new())
        first, second = claims(first), claims(second)
        expect(first["sub"] == f"{ALICE}:D", first["sub"])
        expect(second["sub"] == hashed(ALICE, "D", "m"), second["sub"])
        for token in (first, second):
            expect(token["video"]["room"] == hashed(ROOM, "m.call#ROOM"), "another room")
        # Canonical JSON: as Python writes it without spaces, nothing but \" \\ and controls escaped.
        odd = "a\"\\é<\u2028\t"
        _, _, third = await ask(daemon, "/get_token", new(slot=odd, member=odd))
        expect(claims(third)["sub"] == hashed(ALICE, "D", odd), "of an odd member")
        expect(claims(third)["video"]["room"] == hashed(ROOM, odd), "of an odd slot")
        for token in (first, second):
            video = token["video"]
            expect(token["exp"] - token["nbf"] <= 3600, "lives too long")
            expect(video["roomJoin"] and video["canPublish"] and video["canSubscribe"], str(video))
            expect(not (video["roomCreate"] or video["hidden"] or video["roomAdmin"]), str(video))


@test("MX-11 MX-12", "who can't be verified hears one thing only")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml()) as daemon:
        texts = set()
        for path, body in (
                ("/get_token", new(claimed="@mallory:example.org")),
                ("/sfu/get", old(openid_token=openid("@alice:elsewhere.example"))),
                ("/sfu/get", old(openid_token=openid("nobody"))),
                ("/sfu/get", old(openid_token={**openid(), "access_token": "wrong"})),
                ("/sfu/get", old(openid_token=openid(server="elsewhere.example")))):
            status, _, text = await ask(daemon, path, body)
            expect((status, text["errcode"]) == (401, "M_UNAUTHORIZED"), f"{status} {text}")
            texts.add(text["error"])
        expect(len(texts) == 1, f"{texts}")


@test("MX-14 MX-16", "users of other servers open no room, and publish where they may")
async def _():
    more = 'remote_publish = ["no.example"]'
    async with Homeserver() as home:
        toml = home.toml(more=more).replace('full_access = ["example.org"]',
                                            'full_access = ["other.example"]')
        async with Daemon(toml=toml) as daemon:
            _, _, answer = await ask(daemon, "/sfu/get", old())
            video = claims(answer)["video"]
            expect(video["canPublish"] is False, "may publish")
            path = f"/rtc/v1/validate?access_token={answer['jwt']}&join_request="
            status, headers, _ = await ask_raw(daemon, path + join_parameter(rtc.JoinRequest()))
            expect(status == 404 and headers["Access-Control-Allow-Origin"] == "*", f"{status}")


async def ask_raw(daemon, path):
    def send():
        try:
            with urllib.request.urlopen(daemon.url.replace("ws:", "http:") + path) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()
    return await asyncio.to_thread(send)


def service(user=None, origin=None, token=HS_TOKEN):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if user:
        headers["X-Matrix-User-Identifier"] = user
    if origin:
        headers["X-Matrix-Origin"] = origin
    return headers


def wish(**more):
    return {"url": URL, "room_id": ROOM, "slot_id": "m.call#ROOM", "member_id": "m", **more}


@test("MX-26 MX-27 MX-29 MX-30 MX-32", "the homeserver asks for its users, and nobody else can")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml(service=True)) as daemon:
        path = f"{CLIENT}/get_token"
        await refused(daemon, path, wish(), 401, "M_MISSING_TOKEN", {
            "X-Matrix-User-Identifier": ALICE})
        await refused(daemon, path, wish(), 401, "M_UNKNOWN_TOKEN", service(ALICE, token="x" * 49))
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
                                     (500, 502, "M_UNKNOWN")):
            home.remote = (remote, {})
            await refused(daemon, path, there, status, code, service(ALICE))
        # And its users, here.
        path = path.replace("/client/", "/federation/")
        bob = "@bob:b.example"
        home.joined.add((ROOM, bob))
        for origin, status in (("b.example", 200), ("c.example", 403), (None, 403)):
            found, _, text = await ask(daemon, path, wish(user_id=bob), headers=service(None, origin))
            expect(found == status, f"{origin}: {found} {text}")
        status, _, answer = await ask(daemon, "/_matrix/app/v1/ping", {}, headers=service())
        expect((status, answer) == (200, {}), "ping")
        await refused(daemon, "/_matrix/app/v1/ping", {}, 401, "M_MISSING_TOKEN")


async def joined(daemon, answer):
    """A participant with the token of `answer`."""
    token = claims(answer)
    probe = Probe(token["video"]["room"], token["sub"], daemon.url)
    await probe.connect(access=answer["jwt"])
    return probe


@test("MX-31", "who is removed from the Matrix room is out of the call in 5 s and stays out",
      seconds=40)
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml(service=True)) as daemon:
        home.joined |= {(ROOM, ALICE), (ROOM, "@bob:example.org")}
        _, _, answer = await ask(daemon, "/sfu/get", old())
        alice = await joined(daemon, answer)
        _, _, other = await ask(daemon, "/sfu/get", old(openid_token=openid("@bob:example.org")))
        bob = await joined(daemon, other)
        home.hangs = True  # Says nothing: nobody has to go.
        await asyncio.sleep(4)
        expect(not alice.closed.is_set(), "removed though nobody said so")
        home.hangs = False
        home.joined.discard((ROOM, ALICE))
        at = time.monotonic()
        await until(alice.closed.is_set, "the removal", 5)
        print(f"       removed after {time.monotonic() - at:.1f} s")
        status, _, text = await ask_raw(daemon, f"/rtc/v1/validate?access_token={answer['jwt']}")
        expect(status == 401, f"{status} {text}")
        await refused(daemon, "/sfu/get", old(), 403, "M_FORBIDDEN")
        expect(not bob.closed.is_set(), "removed another")
        await close_all()


@test("MX-33", "whether leaves can be entrusted is seen by 404 alone")
async def _():
    async with Homeserver() as home:
        async with Daemon(toml=home.toml()) as daemon:
            await refused(daemon, "/delegate_delayed_leave", None, 404, "M_UNRECOGNIZED")
            await refused(daemon, "/sfu/get", old(delay_id="1", delay_timeout=3_600_000), 400,
                          "M_BAD_JSON")
        async with Daemon(toml=home.toml(leaves=True)) as daemon:
            await refused(daemon, "/delegate_delayed_leave", None, 400, "M_NOT_JSON")


@test("MX-34 MX-35 MX-37", "a leave is restarted, and sent when its participant goes or vanishes",
      seconds=60)
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml(leaves=True)) as daemon:
        home.failing = [429, 500]
        body = new(delay_id="up/../1", delay_timeout=10_000)
        _, _, answer = await ask(daemon, "/get_token", body)
        alice = await joined(daemon, answer)
        # Refused twice, then taken, then again after 80 % of the delay.
        await until(lambda: len(home.deeds("restart", "up/../1")) == 3, "restarts", 6)
        await until(lambda: len(home.deeds("restart")) == 4, "one more restart", 10)
        gap = home.deeds("restart")[3] - home.deeds("restart")[2]
        expect(7.5 < gap < 8.7, f"restarted after {gap:.1f} s")
        await alice.cut()
        await asyncio.sleep(1)
        await alice.resume(access=answer["jwt"])
        await asyncio.sleep(1)
        expect(not home.deeds("send"), "sent though it was taken up again")
        # Vanishes: neither signalling nor media.
        at = time.monotonic()
        await alice.cut()
        await alice.peer.close()
        await until(lambda: home.deeds("send"), "the leave", 8)
        print(f"       vanished: sent after {home.deeds('send')[0] - at:.1f} s")
        # Goes.
        status, _, _ = await ask(daemon, "/delegate_delayed_leave", new(
            member="n", delay_id="2", delay_timeout=3_600_000))
        expect(status == 200, f"{status}")
        _, _, answer = await ask(daemon, "/get_token", new(member="n"))
        bob = await joined(daemon, answer)
        await until(lambda: home.deeds("restart", "2"), "a restart")
        at = time.monotonic()
        await bob.request(leave=rtc.LeaveRequest())
        await until(lambda: home.deeds("send", "2"), "the leave", 3)
        gap = home.deeds("send", "2")[0] - at
        print(f"       hung up: sent after {gap:.2f} s")
        expect(gap < 1, f"sent after {gap:.1f} s")
        await asyncio.sleep(1)
        expect(len(home.deeds("send")) == 2, f"{len(home.deeds('send'))} leaves for two")
        await close_all()


@test("MX-38", "entrusted leaves outlive kill -9, each is sent once", seconds=60)
async def _():
    async with Homeserver() as home:
        toml = home.toml(service=True, leaves=True)
        home.joined.add((ROOM, ALICE))
        async with Daemon(toml=toml) as daemon:
            headers = service(ALICE)
            status, _, text = await ask(daemon, f"{CLIENT}/delegate_delayed_leave",
                                        wish(delay_id="foreign"), headers=headers)
            expect((status, text["errcode"]) == (400, "M_INVALID_PARAM"), f"{status} {text}")
            await refused(daemon, f"{CLIENT}/delegate_delayed_leave", wish(delay_id="foreign"), 400,
                          "M_INVALID_PARAM", headers)
            status, _, text = await ask(daemon, f"{CLIENT}/delegate_delayed_leave",
                                        wish(delay_id="known"), headers=headers)
            expect(status == 200, f"{status} {text}")
            await ask(daemon, "/get_token", new(delay_id="short", delay_timeout=12_000))
            daemon.process.kill()
            await daemon.process.wait()
        async with Daemon(toml=toml) as daemon:
            _, _, answer = await ask(daemon, f"{CLIENT}/get_token", wish(), headers=service(ALICE))
            alice = await joined(daemon, answer)
            await until(lambda: home.deeds("restart", "known"), "a restart", 5)
            expect(home.asked[-1][3], "not as the application service")
            await until(lambda: home.deeds("send", "short"), "the leave of who never came", 14)
            expect(not home.deeds("send", "known"), "sent of somebody who is there")
            await alice.cut()
            await alice.peer.close()
            await until(lambda: home.deeds("send", "known"), "the leave", 8)
            await asyncio.sleep(1)
            sends = len(home.deeds("send"))
            expect(sends == 2, f"{sends} leaves for two")
        async with Daemon(toml=toml):
            await asyncio.sleep(1)
            expect(len(home.deeds("send")) == sends, "sent again after a restart")
        await close_all()


@test("MX-13", "no token, user or room is in log or metrics, at any level")
async def _():
    async with Homeserver() as home, Daemon(toml=home.toml(service=True, leaves=True)) as daemon:
        home.joined.add((ROOM, ALICE))
        _, _, answer = await ask(daemon, "/get_token", new(delay_id="1", delay_timeout=60_000))
        alice = await joined(daemon, answer)
        await ask(daemon, "/sfu/get", old(openid_token={**openid(), "access_token": "of-nobody"}))
        await ask_raw(daemon, f"/rtc/v1/validate?access_token={answer['jwt']}x")
        await alice.close()
        await asyncio.sleep(1)
        page = urllib.request.urlopen(f"{daemon.metrics}/metrics").read().decode()
        secrets = (answer["jwt"], f"of:{ALICE}", "of-nobody", AS_TOKEN, HS_TOKEN, ALICE, "al~ice", ROOM,
                   claims(answer)["sub"], claims(answer)["video"]["room"])
        for secret in secrets:
            expect(secret not in daemon.text(), "the log says what it must not")
            expect(secret not in page, "the metrics say what they must not")
        expect("joined" in daemon.text(), "no log at all")
