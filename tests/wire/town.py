"""What an operator has: the daemon, a proxy with TLS before it, a homeserver beside it. The proxy
is Debian's nginx, by whatever recipe a test gives it."""

import asyncio
import contextlib
import json
import os
import tempfile

from daemon import Daemon
from harness import Failure
from homeserver import AS_TOKEN, HS_TOKEN, USER_TOKEN, Homeserver
from internet import Authority
from ports import free_tcp
from proxy import NGINX

KEY = "c2VjcmV0LW9mLWEtdG93bi1oYWxsLTg4NDE3"

# Recipes: what stands in the server block. DAEMON is where the daemon listens.
PASS = """proxy_pass http://DAEMON; proxy_http_version 1.1; proxy_set_header Host $host;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";"""
GOOD = "location / { " + PASS + " }"


class Nginx:
    """`async with Nginx(port, pem) as nginx:`, then `await nginx.serve(recipe)`, many times."""

    def __init__(self, port, pem):
        self.port, self.pem, self.process = port, pem, None

    async def __aenter__(self):
        self.folder = tempfile.TemporaryDirectory()
        return self

    async def __aexit__(self, *_):
        await self.stop()
        self.folder.cleanup()

    async def serve(self, recipe, pem=None, buffers="large_client_header_buffers 4 64k;"):
        """From now on by this recipe."""
        await self.stop()
        folder = self.folder.name
        with open(f"{folder}/tls.pem", "wb") as file:
            file.write(pem or self.pem)
        with open(f"{folder}/nginx.conf", "w", encoding="utf-8") as file:
            file.write(f"""
user root;
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{self.port} ssl;
    ssl_certificate {folder}/tls.pem;
    ssl_certificate_key {folder}/tls.pem;
    {buffers}
    {recipe}
  }}
}}
""")
        self.process = await asyncio.create_subprocess_exec(
            NGINX, "-c", f"{folder}/nginx.conf", "-p", folder,
            stderr=asyncio.subprocess.DEVNULL)
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.02)
        with open(f"{folder}/error.log", encoding="utf-8") as log:
            raise Failure(f"nginx does not listen: {log.read()[-300:]}")

    async def stop(self):
        if self.process and self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), 10)


class Town:
    """`async with Town() as town:`; `await town.doctor()` examines it."""

    def __init__(self, leaves=True):
        self.leaves = leaves

    async def __aenter__(self):
        self.authority = Authority()
        self.port = free_tcp()
        self.name = f"localhost:{self.port}"
        # Whatever of it has started ends, also where the rest doesn't start.
        async with contextlib.AsyncExitStack() as started:
            self.home = await started.enter_async_context(Homeserver(self.name))
            self.daemon = await started.enter_async_context(Daemon(self.toml(self.leaves)))
            pem = self.authority.pem("localhost", days=60)
            self.nginx = await started.enter_async_context(Nginx(self.port, pem))
            self.home.passes_to = f"http://{self.at()}"
            self.home.transports = [{"type": "livekit", "url": f"wss://{self.name}",
                                     "livekit_service_url": f"https://{self.name}"}]
            await self.proxy(GOOD)
            self.started = started.pop_all()
        return self

    async def __aexit__(self, *_):
        await self.started.aclose()

    def toml(self, leaves=True):
        """What the daemon and the doctor are both told."""
        return f"""
{self.home.toml(service=True, leaves=leaves, url=f"wss://{self.name}")}
[keys]
town = "{KEY}"
"""

    def at(self):
        return self.daemon.url.removeprefix("ws://")

    def known(self, **changes):
        """What the Matrix server says of itself in public; without what is None."""
        known = {"m.homeserver": {"base_url": f"https://{self.name}"},
                 "org.matrix.msc4143.rtc_foci": [
                     {"type": "livekit", "livekit_service_url": f"https://{self.name}"}]}
        known |= {key.replace("foci", "org.matrix.msc4143.rtc_foci").replace(
            "home", "m.homeserver"): value for key, value in changes.items()}
        return json.dumps({key: value for key, value in known.items() if value is not None})

    async def proxy(self, recipe=GOOD, pem=None, known=None, origin="*"):
        """The daemon by this recipe; the homeserver, and this public text."""
        origin = f"add_header Access-Control-Allow-Origin {origin};" if origin else ""
        known = "" if known == "" else f"""location = /.well-known/matrix/client {{
            default_type application/json; {origin} return 200 '{known or self.known()}'; }}"""
        home = f"location /_matrix {{ proxy_pass {self.home.url}; }}"
        await self.nginx.serve(recipe.replace("DAEMON", self.at()) + home + known, pem)

    async def doctor(self, *arguments, change=lambda toml: toml, mode=0o600):
        """Exit code, and findings by id."""
        toml = self.toml() + f"""
[http]
listen = ["{self.at()}"]
[media]
addresses = ["127.0.0.1"]
port = {self.daemon.media_port}
workers = 1
receive_buffer = "64 KiB"
"""
        toml = toml.replace("[matrix]", f'[matrix]\nextra_ca = "{self.authority.file.name}"')
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(change(toml))
            file.flush()
            os.chmod(file.name, mode)
            return await run_doctor("--config", file.name, *arguments)


async def run_doctor(*arguments, within=None):
    """Exit code, and findings by id, of the doctor with these arguments."""
    command = [os.environ["TEST_BIN"], "doctor", "--json", *arguments]
    process = await asyncio.create_subprocess_exec(
        *(within.command(command) if within else command),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 80)
    if not out:
        return process.returncode, err.decode()
    found = json.loads(out)
    for finding in found:
        for secret in (KEY, AS_TOKEN, HS_TOKEN, USER_TOKEN):
            if secret in json.dumps(finding):
                raise Failure(f"a secret is in {finding}")
    return process.returncode, {finding["id"]: finding for finding in found}

