"""Behind Debian's nginx and Caddy, by the recipes in config/ that operators are given."""

import asyncio
import contextlib
import json
import os
import random
import urllib.error
import urllib.request

import websockets
from livekit.protocol import rtc

from daemon import Daemon
from harness import expect, test
from jwt_token import token
from matrix import URL, claims, new, old, stand_in
from probe import Probe, join_parameter
from proxy import WELL_KNOWN, Caddy, Nginx

USERS = 200


@contextlib.contextmanager
def trusting(authority):
    """The probe's connections believe this authority."""
    os.environ["SSL_CERT_FILE"] = authority.file.name
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]


async def ask(proxy, address, body=None, method=None, headers=None):
    """(status, headers, body) of a request by TLS."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, headers or {}, method=method)

    def send():
        try:
            with urllib.request.urlopen(request, timeout=10, context=proxy.context) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    return await asyncio.to_thread(send)


async def whole_way(kind):
    """What a client does, one after the other: discovery, both tokens, signalling, media."""
    async with stand_in(leaves=True) as (_, daemon), kind(daemon) as proxy:
        with open(WELL_KNOWN, encoding="utf-8") as file:
            known = json.load(file)
        status, headers, body = await ask(
            proxy, f"{proxy.site}/.well-known/matrix/client", headers=proxy.host)
        expect((status, json.loads(body)) == (200, known), f"well-known: {status} {body}")
        expect(headers.get_all("Access-Control-Allow-Origin") == ["*"], "well-known: CORS")
        expect(headers["Content-Type"] == "application/json", headers["Content-Type"])
        focus = known["org.matrix.msc4143.rtc_foci"][0]["livekit_service_url"]
        expect(focus.replace("https:", "wss:") == URL, "the recipes name different addresses")

        service = proxy.url.replace("wss:", "https:")
        tokens = []
        for path, body in (("/sfu/get", old()), ("/get_token", new())):
            status, headers, text = await ask(proxy, service + path, body)
            expect(status == 200, f"{path}: {status} {text}")
            expect(headers.get_all("Access-Control-Allow-Origin") == ["*"], f"{path}: CORS")
            tokens.append(json.loads(text)["jwt"])
        # An error, a preflight, and the question whether leaves can be entrusted.
        for path, method, wanted in (("/sfu/get", "POST", 400), ("/sfu/get", "OPTIONS", 200),
                                     ("/delegate_delayed_leave", "POST", 400),
                                     ("/healthz", "GET", 200), ("/rtc/v1/validate", "GET", 401)):
            status, headers, _ = await ask(proxy, service + path, method=method)
            expect(status == wanted, f"{method} {path}: {status}")
            if path != "/healthz":
                expect(headers.get_all("Access-Control-Allow-Origin") == ["*"], f"{path}: CORS")

        with trusting(proxy.authority):
            alice, bert = [
                await Probe("", claims(jwt)["sub"], url=proxy.url).connect(access=jwt)
                for jwt in tokens]
            track, _ = await alice.publish_audio()
            await bert.flow(await bert.subscription(track.sid))


@test("MX-43", "the recipe for nginx leads from discovery to media", seconds=60)
async def _():
    await whole_way(Nginx)


@test("MX-43", "the recipe for Caddy leads from discovery to media", seconds=60)
async def _():
    await whole_way(Caddy)


async def come(url, number, context, headers=None):
    """User `number` joins from an address of her own; gives the socket or the status."""
    request, access = rtc.JoinRequest(), token("hall", f"user {number}")
    local = (f"127.0.{1 + number // 250}.{1 + number % 250}", 0)
    try:
        return await websockets.connect(
            f"{url}/rtc/v1?access_token={access}&join_request={join_parameter(request)}",
            ssl=context, local_addr=local, additional_headers=headers or {}, max_size=None)
    except websockets.InvalidStatus as error:
        return error.response.status_code


def leave(found):
    for socket in found:
        if not isinstance(socket, int):
            socket.transport.abort()


@test("MX-43", f"{USERS} users behind one proxy are no crowd of one address", seconds=90)
async def _():
    limit = "[http]\nconnections_per_address = 2\n"
    sockets = []
    async with Daemon(toml=limit) as daemon, Nginx(daemon) as proxy:
        for first in range(0, USERS, 20):
            sockets += await asyncio.gather(*(
                come(proxy.url, number, proxy.context) for number in range(first, first + 20)))
        refused = [found for found in sockets if isinstance(found, int)]
        expect(not refused, f"{len(refused)} of {USERS} refused: {refused[:5]}")
        # One address has its two, whatever a client writes about where it comes from.
        spoofed = {"X-Forwarded-For": f"203.0.113.{random.randrange(250)}"}
        third = [await come(proxy.url, 0, proxy.context, spoofed) for _ in range(2)]
        expect(third[1] == 429, f"a third connection of one address: {third[1]}")
        leave(sockets + third)
    # The same without trust in the proxy: then all of them are one.
    async with Daemon(toml=limit + "trusted_proxies = []\n") as daemon, Nginx(daemon) as proxy:
        found = [await come(proxy.url, number, proxy.context) for number in range(4)]
        expect(not all(hasattr(each, "close") for each in found), "the limit counts for nobody")
        leave(found)


@test("", "who has a whole network of IPv6 is counted as one all the same")
async def _():
    limit = '[http]\nconnections_per_address = 2\ntrusted_proxies = ["127.0.0.0/8"]\n'
    async with Daemon(toml=limit) as daemon:
        found = []
        for number, address in enumerate((
                "2001:db8::1", "2001:db8::ffff:0:0:2", "2001:db8::3", "2001:db8:0:1::3",
                "::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2")):
            forwarded = {"X-Forwarded-For": address}
            found.append(await come(daemon.url, number, None, forwarded))
        refused = [number for number, socket in enumerate(found) if socket == 429]
        leave(found)
        expect(refused == [2, 6], f"refused: {refused}")


@test("", "proxies write no token down, not even while the daemon is away")
async def _():
    async with Daemon() as daemon:
        pass
    for kind in (Nginx, Caddy):
        async with kind(daemon) as proxy:
            address = proxy.url.replace("wss:", "https:") + "/rtc/v1/validate?access_token=secret"
            status, _, _ = await ask(proxy, address)
            expect(status == 502, f"{kind.__name__}: {status} from nothing")
        proxy.log.seek(0)
        written = proxy.log.read()
        expect("secret" not in written, f"{kind.__name__}: {written}")
