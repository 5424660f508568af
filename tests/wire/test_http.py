"""The HTTP surface: health, validation, tokens, CORS, and joins in all encodings."""

import asyncio
import gzip
import http.client
import os
import random
import time
import urllib.parse

import websockets
from livekit.protocol import rtc

from harness import Failure, expect, test, until
from daemon import resident_bytes
from jwt_token import token
from probe import Probe, join_parameter


def _get(path, method="GET", headers=None, url=None):
    address = urllib.parse.urlsplit(url or os.environ["TEST_URL"])
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


async def get(path, method="GET", headers=None, url=None):
    return await asyncio.to_thread(_get, path, method, headers, url)


async def upgrade_status(path, headers=None):
    """Status of a WebSocket upgrade; 101 when it works."""
    try:
        async with websockets.connect(os.environ["TEST_URL"] + path, additional_headers=headers,
                                      open_timeout=5):
            return 101
    except websockets.InvalidStatus as refused:
        return refused.response.status_code


def parameter():
    """A join_request without an offer: enough for what the upgrade checks."""
    return join_parameter(rtc.JoinRequest())


@test("LK-01", "the root answers OK to GET and HEAD, readable from any origin")
async def _():
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        status, headers, text = await get("/", method, {"Origin": "https://app.example"})
        expect(status == 200, f"{method} / is {status}")
        expect(text == body, f"{method} / has body {text!r}")
        expect(headers.get("access-control-allow-origin") in ("*", "https://app.example"),
               f"{method} / is not readable from another origin")


@test("LK-02", "no join_request is 400, no upgrade is 404")
async def _():
    access = token("room", "anna")
    status = await upgrade_status(f"/rtc/v1?access_token={access}")
    expect(status == 400, f"upgrade without join_request is {status}")
    for broken in ("%21%21%21", "AAAA", "CgA"):
        status = await upgrade_status(f"/rtc/v1?access_token={access}&join_request={broken}")
        expect(status == 400 or (broken == "CgA" and status == 101),
               f"join_request={broken} is {status}")
    status, _, body = await get(f"/rtc/v1?access_token={access}&join_request={parameter()}")
    expect((status, body) == (404, b""), f"GET without upgrade is {status} {body!r}")


@test("LK-03", "validate says success, and errors carry CORS too")
async def _():
    access = token("validated", "anna")
    origin = {"Origin": "https://app.example"}
    good = f"/rtc/v1/validate?access_token={access}&join_request={parameter()}"
    cases = [
        (good, 200),
        (f"/rtc/v1/validate?access_token={access}", 400),
        (f"/rtc/v1/validate?access_token=broken&join_request={parameter()}", 401),
        (f"/rtc/v1/validate?join_request={parameter()}", 401),
    ]
    for path, expected in cases:
        status, headers, body = await get(path, headers=origin)
        expect(status == expected, f"{path[:60]} is {status}, not {expected}: {body[:80]!r}")
        expect("access-control-allow-origin" in headers, f"{status} has no CORS header")
        expect(status != 200 or body == b"success", f"body is {body!r}")
    status, headers, _ = await get("/rtc/v1/validate", "OPTIONS", {
        **origin, "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization"})
    expect(status in (200, 204) and "access-control-allow-origin" in headers,
           f"preflight is {status}")
    status, headers, _ = await get("/rtc/validate?access_token=broken", headers=origin)
    expect("access-control-allow-origin" in headers, "the v0 route has no CORS header")


@test("LK-04", "join_request plain or gzip, padded or not")
async def _():
    for compress in (True, False):
        for padded in (True, False):
            probe = Probe("encodings", f"anna-{compress}-{padded}")
            request = probe.join_request()
            # Stretched until the text needs padding, without which there is none to leave out.
            while not join_parameter(request, compress).endswith("="):
                request.metadata += random.choice("abc")
            try:
                first = await probe.open(
                    request, parameter=join_parameter(request, compress, padded))
            except websockets.InvalidStatus as refused:
                raise Failure(f"gzip {compress}, padded {padded}: {refused}") from refused
            expect(first[1] == "join", f"gzip {compress}, padded {padded}: {first[1]}")
            await probe.close()


@test("LK-05", "an inflated join_request over 1 MiB is 400, a frame over 2 MiB ends the socket")
async def _():
    access = token("large", "anna")
    wrapped = rtc.WrappedJoinRequest(compression=rtc.WrappedJoinRequest.GZIP,
                                     join_request=gzip.compress(bytes(64 << 20)))
    import base64
    text = base64.urlsafe_b64encode(wrapped.SerializeToString()).decode()
    before = resident_bytes()
    status = await upgrade_status(f"/rtc/v1?access_token={access}&join_request={text}")
    expect(status in (400, 414, 431), f"a bomb of 64 MiB is {status}")
    for size, expected in ((1 << 20, 101), ((1 << 20) + 1, 400)):
        # Right but for its size: a tag and a length of three bytes go before the text.
        request = rtc.JoinRequest(metadata="m" * (size - 4))
        expect(request.ByteSize() == size, f"{request.ByteSize()}")
        text = join_parameter(request)
        status = await upgrade_status(f"/rtc/v1?access_token={access}&join_request={text}")
        expect(status == expected, f"{size} bytes are {status}")
    probe = Probe("large", "anna")
    await probe.open()
    try:
        await probe.socket.send(bytes((2 << 20) + 4096))
    except websockets.ConnectionClosed:
        pass
    await until(probe.closed.is_set, "the socket is closed after a frame over 2 MiB", 5)
    grown = resident_bytes() - before
    expect(grown < 16 << 20, f"memory grew by {grown >> 20} MiB")


@test("LK-06", "the token counts from the header and from the query; the header wins")
async def _():
    good, bad = token("room", "anna"), "broken"
    path = f"/rtc/v1/validate?join_request={parameter()}"
    cases = [
        ({"Authorization": f"Bearer {good}"}, "", 200),
        ({}, f"&access_token={good}", 200),
        ({"Authorization": f"Bearer {good}"}, f"&access_token={bad}", 200),
        ({"Authorization": f"Bearer {bad}"}, f"&access_token={good}", 401),
        ({"Authorization": f"Basic {good}"}, f"&access_token={good}", 401),
    ]
    for headers, query, expected in cases:
        status, _, _ = await get(path + query, headers=headers)
        expect(status == expected, f"{list(headers.values())[:1]} {query[:20]}: {status}")
    probe = Probe("room", "header")
    status = await upgrade_status(f"/rtc/v1?join_request={join_parameter(probe.join_request())}",
                                  {"Authorization": f"Bearer {good}"})
    expect(status == 101, f"upgrade with the header is {status}")


@test("LK-07", "bad tokens are 401, a clock 30 s ahead is not")
async def _():
    now = int(time.time())
    cases = {
        "expired 61 s ago": (token("r", "a", claims={"exp": now - 65}), 401),
        "expired 30 s ago": (token("r", "a", claims={"exp": now - 30}), 200),
        "no exp": (token("r", "a", without=("exp",)), 401),
        "alg none": (token("r", "a", header={"alg": "none"}), 401),
        "alg HS512": (token("r", "a", header={"alg": "HS512", "typ": "JWT"}), 401),
        "unknown key": (token("r", "a", claims={"iss": "nobody"}), 401),
        "wrong secret": (token("r", "a", secret="x" * 40), 401),
        "no roomJoin": (token("r", "a", grants={"roomJoin": False}), 401),
        "no grants": (token("r", "a", without=("video",)), 401),
        "nbf 30 s ahead": (token("r", "a", claims={"nbf": now + 30}), 200),
        "nbf 90 s ahead": (token("r", "a", claims={"nbf": now + 90}), 401),
    }
    for name, (access, expected) in cases.items():
        status, _, body = await get(
            f"/rtc/v1/validate?access_token={access}&join_request={parameter()}")
        expect(status == expected, f"{name}: {status} {body[:60]!r}")
        upgrade = await upgrade_status(f"/rtc/v1?access_token={access}&join_request={parameter()}")
        expect(upgrade == (101 if expected == 200 else 401), f"{name}: upgrade {upgrade}")
    flipped = token("r", "a")
    flipped = flipped[:-10] + ("A" if flipped[-10] != "A" else "B") + flipped[-9:]
    status, _, _ = await get(
        f"/rtc/v1/validate?access_token={flipped}&join_request={parameter()}")
    expect(status == 401, f"a flipped signature is {status}")


@test("LK-10", "a doubled slash in the path works")
async def _():
    status, _, body = await get(
        f"//rtc/v1/validate?access_token={token('r', 'a')}&join_request={parameter()}")
    expect((status, body) == (200, b"success"), f"//rtc/v1/validate is {status} {body[:60]!r}")
    probe = Probe("slashes", "anna")
    first = await probe.open(path="//rtc/v1")
    expect(first[1] == "join", f"first message is {first[1]}")
