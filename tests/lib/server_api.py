"""The server API as the official wheel speaks it, as plain HTTP, and a receiver of webhooks."""

import asyncio
import json
import os
import urllib.error
import urllib.request

from aiohttp import web
from livekit import api

from harness import until
from jwt_token import token


def http_url(url=None):
    return (url or os.environ["TEST_URL"]).replace("ws://", "http://")


class Api:
    """`async with Api(url) as rooms:` gives the wheel's RoomService client."""

    def __init__(self, url=None):
        self.url = url

    async def __aenter__(self):
        self.client = api.LiveKitAPI(http_url(self.url), os.environ["TEST_KEY"],
                                     os.environ["TEST_SECRET"])
        return self.client.room

    async def __aexit__(self, *_):
        await self.client.aclose()


async def refusal(call):
    """The error of a call that has to fail, as (code, HTTP status)."""
    try:
        answer = await call
    except api.TwirpError as error:
        return error.code, error.status
    return "answered", answer


async def post(method, body, access, url=None, kind="application/json"):
    """One call by hand: (status, content type, JSON of the answer)."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": kind}
    if access:
        headers["Authorization"] = f"Bearer {access}"
    request = urllib.request.Request(f"{http_url(url)}/twirp/livekit.RoomService/{method}", data,
                                     headers)

    def send():
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read()

    status, kind, text = await asyncio.to_thread(send)
    return status, kind, json.loads(text or b"null") if kind == "application/json" else text


def server_token(room=None, **grants):
    """A token of a server: rights, perhaps for a room, nobody's identity."""
    video = {"roomJoin": False, **({"room": room} if room else {}), **grants}
    return token(room or "", "", video)


class Receiver:
    """A webhook's address. Keeps the events whose signature the official receiver accepts."""

    def __init__(self, answers=(), tls=None):
        self.answers = list(answers)  # statuses for the first posts, then 200
        self.tls = tls  # an SSLContext
        self.events, self.errors, self.raw = [], [], []

    async def __aenter__(self):
        application = web.Application(client_max_size=4 << 20)
        application.router.add_post("/hook", self._take)
        self.runner = web.AppRunner(application)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self.tls else ''}://localhost:{port}/hook"
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()

    async def _take(self, request):
        body = (await request.read()).decode()
        self.raw.append((dict(request.headers), body))
        verifier = api.TokenVerifier(os.environ["TEST_KEY"], os.environ["TEST_SECRET"])
        try:
            event = api.WebhookReceiver(verifier).receive(body, request.headers["Authorization"])
        except Exception as error:  # whatever the official receiver dislikes is the result
            self.errors.append(f"{type(error).__name__}: {error}")
            return web.Response(status=400)
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.events.append(event)
        return web.Response(status=status)

    def names(self):
        return [event.event for event in self.events]

    async def event(self, name, seconds=10):
        """Waits for an event of that name."""
        found = await until(lambda: [e for e in self.events if e.event == name],
                            f"webhook {name}, got {self.names()} {self.errors}", seconds)
        return found[0]
