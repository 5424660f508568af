"""A homeserver that says what a test wants to hear, at the moment the test wants it.

Only for what a real Synapse can't be brought to do, or not in the second that a test has for it: to
fail, to hang, to say "too many", to be configured wrong in each way. Paths, codes and features are
those of Synapse 1.163."""

import asyncio
import email.utils
import json
import math
import os
import tempfile
import time
import typing

import aiohttp
from aiohttp import web

AS_TOKEN = "as-token-" + "a" * 40
HS_TOKEN = "hs-token-" + "b" * 40
USER_TOKEN = "syt_" + "c" * 30
DELAYED = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"


def unrecognized():
    return web.json_response({"errcode": "M_UNRECOGNIZED"}, status=404)


class Deed(typing.NamedTuple):
    """A request about a delayed event."""

    at: float
    action: str
    delay_id: str
    service: bool  # asked as the application service
    status: int  # what it was answered with


class Pace:
    """A bucket as Synapse has one by address: so many at once, then so many a second."""

    def __init__(self, burst, per_second):
        self.level, self.burst, self.per_second = 0.0, burst, per_second
        self.at = time.monotonic()

    def wait(self):
        """Takes a place: 0, or the seconds until there is one."""
        now = time.monotonic()
        self.level = max(0.0, self.level - (now - self.at) * self.per_second)
        self.at = now
        if self.level + 1 > self.burst:
            return (self.level + 1 - self.burst) / self.per_second
        self.level += 1
        return 0


class Homeserver:
    """`async with Homeserver() as home:` for users of `name`."""

    def __init__(self, name="example.org"):
        self.name = name
        self.joined = set()  # (room, user)
        self.asked = []  # about delayed events, each a Deed
        self.failing = []  # statuses of the next requests about delayed events
        self.pace = None  # a Pace: those of anybody are counted by their address
        self.hangs = False
        self.forwarded = []  # requests to be passed on to other homeservers
        self.remote = (200, {"jwt": "of-another"})
        # What the doctor looks at. Features are off, and resources away, that are named in `lacks`.
        self.lacks = set()
        self.max_delay_ms = 86_400_000
        self.seconds_fast = 0
        self.transports = []
        self.passes_to = None  # the daemon, for requests below its prefix
        self.hs_token = HS_TOKEN

    async def __aenter__(self):
        application = web.Application()
        routes = application.router
        routes.add_get("/_matrix/federation/v1/openid/userinfo", self._userinfo)
        routes.add_get("/_matrix/client/unstable/io.element.msc4502/rooms/{room}/is_joined",
                       self._is_joined)
        routes.add_post("/_matrix/client/unstable/io.element.msc4512/appservice/fed_proxy",
                        self._proxy)
        routes.add_post(DELAYED + "/{id}/{action}", self._delayed)
        routes.add_get(DELAYED + "/{id}", self._describe)
        routes.add_get("/_matrix/client/versions", self._versions)
        routes.add_get("/_matrix/client/v3/capabilities", self._capabilities)
        routes.add_get("/_matrix/client/unstable/org.matrix.msc4143/rtc/transports",
                       self._transports)
        routes.add_post("/_matrix/client/v1/appservice/{id}/ping", self._ping)
        routes.add_post("/_matrix/client/v1/rtc/livekit/{path}", self._pass_on)
        self.runner = web.AppRunner(application)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        self.folder = tempfile.TemporaryDirectory()
        self.registration = os.path.join(self.folder.name, "registration.yaml")
        with open(self.registration, "w", opener=lambda path, flags: os.open(path, flags, 0o600),
                  encoding="utf-8") as file:
            json.dump({  # JSON is YAML too
                "id": "stellwerk", "as_token": AS_TOKEN, "hs_token": HS_TOKEN, "url": None,
                "sender_localpart": "stellwerk", "rate_limited": False,
                "namespaces": {"users": [{"regex": "^@.*", "exclusive": False}]},
                "io.element.msc4512.proxy_prefix": "rtc/livekit",
                "io.element.msc4512.proxy_url": "http://127.0.0.1:1",
                "io.element.msc4502.scopes":
                    ["urn:matrix:client:io.element.msc4502:rooms:is_joined"],
            }, file)
        return self

    async def __aexit__(self, *_):
        await self.runner.cleanup()
        self.folder.cleanup()

    def toml(self, service=False, leaves=False, more="", url="wss://rtc.example.org"):
        """The daemon's configuration for it."""
        lines = ["[matrix]", f'homeservers = {{ "{self.name}" = "{self.url}" }}',
                 f'full_access = ["{self.name}"]', f'url = "{url}"', more]
        if service:
            lines.append(f'registration = "{self.registration}"')
        if leaves:
            lines.append(f'leaves = "{self.folder.name}/leaves"')
        return "\n".join(lines) + '\n[log]\nlevel = "trace"\n'

    def deeds(self, action, delay_id=None):
        """When that was asked for."""
        return [deed.at for deed in self.asked
                if deed.action == action and delay_id in (None, deed.delay_id)]

    async def _userinfo(self, request):
        if self.hangs:
            await asyncio.sleep(30)
        if "openid" in self.lacks:
            return unrecognized()
        token = request.query["access_token"]
        if not token.startswith("of:"):
            return web.json_response({"errcode": "M_UNKNOWN_TOKEN"}, status=401)
        return web.json_response({"sub": token[3:]})

    def _is_service(self, request):
        return request.headers.get("Authorization") == f"Bearer {AS_TOKEN}"

    async def _is_joined(self, request):
        if "msc4502" in self.lacks:
            return unrecognized()
        if self.hangs or not self._is_service(request):
            return web.json_response({"errcode": "M_FORBIDDEN"}, status=403)
        if "scope" in self.lacks:
            return web.json_response({"errcode": "M_FORBIDDEN"}, status=403)
        who = request.query.get("mxid") or request.query["server_name"]
        return web.json_response({"joined": (request.match_info["room"], who) in self.joined})

    async def _proxy(self, request):
        self.forwarded.append(await request.json())
        status, content = self.remote
        return web.json_response({"status": status, "content": content})

    async def _delayed(self, request):
        service, status, wait = self._is_service(request), 200, 0.7
        if self.failing:
            status = self.failing.pop(0)
        elif self.pace and not service:
            wait = self.pace.wait()
            status = 429 if wait else 200
        name, action = request.match_info["id"], request.match_info["action"]
        self.asked.append(Deed(time.monotonic(), action, name, service, status))
        body = {"retry_after_ms": math.ceil(wait * 1000)} if status == 429 else {}
        return web.json_response(body, status=status)

    async def _describe(self, request):
        if request.match_info["id"] != "known" or not self._is_service(request):
            return web.json_response({"errcode": "M_NOT_FOUND"}, status=404)
        return web.json_response({"delay_id": "known", "delay_ms": 3_600_000})

    async def _versions(self, _):
        features = {f"org.matrix.{name}": name not in self.lacks
                    for name in ("msc4140", "msc4143", "msc4354")}
        answer = web.json_response({"versions": ["v1.12"], "unstable_features": features})
        answer.headers["Date"] = email.utils.formatdate(time.time() + self.seconds_fast,
                                                        usegmt=True)
        return answer

    def _refused(self, request):
        """What somebody is told who is neither the application service nor a user."""
        if "Authorization" not in request.headers:
            return web.json_response({"errcode": "M_MISSING_TOKEN"}, status=401)
        known = self._is_service(request) and "service" not in self.lacks
        if not known and request.headers["Authorization"] != f"Bearer {USER_TOKEN}":
            return web.json_response({"errcode": "M_UNKNOWN_TOKEN"}, status=401)
        return None

    async def _capabilities(self, request):
        return self._refused(request) or web.json_response({"capabilities": {
            "org.matrix.msc4140.delayed_events": {"max_delay_ms": self.max_delay_ms}}})

    async def _transports(self, request):
        if "msc4143" in self.lacks:
            return unrecognized()
        told = {"rtc_transports": self.transports} if self.transports else {}
        return self._refused(request) or web.json_response(told)

    async def _ping(self, request):
        return self._refused(request) or web.json_response({"errcode": "M_URL_NOT_SET"}, status=400)

    async def _pass_on(self, request):
        if "msc4512" in self.lacks:
            return unrecognized()
        refused = self._refused(request)
        if refused:
            return refused
        headers = {"Authorization": f"Bearer {self.hs_token}",
                   "X-Matrix-User-Identifier": f"@stellwerk:{self.name}"}
        try:
            async with aiohttp.ClientSession() as session, session.post(
                    self.passes_to + request.path, data=await request.read(),
                    headers=headers) as answer:
                return web.Response(status=answer.status, body=await answer.read(),
                                    content_type="application/json")
        except aiohttp.ClientError:
            return web.json_response({"errcode": "M_UNKNOWN"}, status=500)
