"""Requests of Matrix users and their homeserver to the daemon, as clients and Synapse make them."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import urllib.error
import urllib.request

import websockets
from livekit.protocol import rtc

from daemon import Daemon, metric
from harness import Failure, expect, until
from homeserver import HS_TOKEN, Homeserver
from probe import Probe, join_parameter

ROOM = "!room:example.org"
ALICE = "@al~ice:example.org"
CLIENT = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit"
URL = "wss://rtc.example.org"


async def ask_raw(daemon, path, data=None, method="GET", headers=None):
    """(status, headers, bytes) of a request to the daemon."""
    request = urllib.request.Request(daemon.url.replace("ws:", "http:") + path, data,
                                     headers or {}, method=method)

    def send():
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    return await asyncio.to_thread(send)


async def ask(daemon, path, body=None, method="POST", headers=None):
    """(status, headers, JSON or else text) of a request to the daemon."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    status, found, text = await ask_raw(daemon, path, data, method, headers)
    is_json = text and found.get_content_type() == "application/json"
    return status, found, json.loads(text) if is_json else text.decode() or None


async def refused(daemon, path, body, status, code, headers=None):
    found, answered, text = await ask(daemon, path, body, headers=headers)
    got = found, text.get("errcode") if isinstance(text, dict) else None
    expect(got == (status, code), f"{path}: {found} {text}")
    return answered


async def token_of(daemon, path, body, headers=None):
    """The JWT that is the answer to a request."""
    status, _, answer = await ask(daemon, path, body, headers=headers)
    expect(status == 200, f"{path}: {status} {answer}")
    return answer["jwt"]


def openid(user=ALICE, server="example.org"):
    return {"access_token": f"of:{user}", "token_type": "Bearer", "expires_in": 3600,
            "matrix_server_name": server}


def old(**more):
    return {"room": ROOM, "openid_token": openid(), "device_id": "D", **more}


def new(slot="m.call#ROOM", claimed=ALICE, member="m", **more):
    return {"room_id": ROOM, "slot_id": slot, "openid_token": openid(),
            "member": {"id": member, "claimed_user_id": claimed, "claimed_device_id": "D"}, **more}


def service(user=None, origin=None, token=HS_TOKEN):
    """The headers by which the homeserver says who asks."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if user:
        headers["X-Matrix-User-Identifier"] = user
    if origin:
        headers["X-Matrix-Origin"] = origin
    return headers


def wish(**more):
    return {"url": URL, "room_id": ROOM, "slot_id": "m.call#ROOM", "member_id": "m", **more}


def hashed(*texts):
    """What clients compute for themselves."""
    canonical = json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.b64encode(hashlib.sha256(canonical).digest()).decode().rstrip("=")


def claims(jwt):
    """What a token of ours says, read as Element Call does it: as plain base64."""
    head, payload, mac = jwt.split(".")
    expect(not set("-_") & set(payload), "not plain base64")
    secret = os.environ["TEST_SECRET"].encode()
    wanted = hmac.new(secret, f"{head}.{payload}".encode(), hashlib.sha256).digest()
    expect(base64.urlsafe_b64decode(mac + "=") == wanted, "signed with something else")
    return json.loads(base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True))


def prober(daemon, jwt):
    """A participant who has that token and hasn't joined."""
    token = claims(jwt)
    return Probe(token["video"]["room"], token["sub"], daemon.url)


async def joined(daemon, jwt, **arguments):
    """A participant with that token, its media connected."""
    return await prober(daemon, jwt).connect(access=jwt, **arguments)


@contextlib.asynccontextmanager
async def stand_in(name="example.org", **options):
    """A homeserver of that name, and a daemon that is configured for it."""
    async with Homeserver(name) as home, Daemon(toml=home.toml(**options)) as daemon:
        yield home, daemon


async def gauge(daemon, name, wanted, seconds=5):
    """Waits for a gauge of the daemon, whose page is made anew once a second."""
    def value():
        return metric(f"stellwerk_{name}", base=daemon.metrics) == wanted

    await until(value, f"{wanted} {name}", seconds, every=0.2)


async def refused_join(daemon, jwt, status):
    """The upgrade fails, and the page that looks why can read the answer."""
    probe = prober(daemon, jwt)
    try:
        await probe.open(access=jwt)
    except websockets.InvalidStatus as error:
        answer = error.response
        found = answer.status_code, answer.headers.get("Access-Control-Allow-Origin")
        expect(found == (status, "*"), f"the upgrade is answered with {found}")
    else:
        raise Failure("joined")
    query = f"access_token={jwt}&join_request={join_parameter(rtc.JoinRequest())}"
    found, headers, _ = await ask_raw(daemon, f"/rtc/v1/validate?{query}")
    found = found, headers["Access-Control-Allow-Origin"]
    expect(found == (status, "*"), f"validate is answered with {found}")
