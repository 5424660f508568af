"""The recipes for reverse proxies as they stand in config/, with a test's ports and certificate.

`async with Nginx(daemon) as proxy:` or `Caddy(daemon)`; `proxy.url` is where clients come in.
"""

import asyncio
import os
import pwd
import socket
import ssl
import tempfile
import time

from daemon import end
from harness import Failure
from internet import Authority
from ports import free_tcp

HERE = os.path.dirname(os.path.abspath(__file__))
CONFIG = os.path.join(HERE, "..", "..", "config")
# Unpacked by tests/lib/install.sh.
DEBIAN = os.path.join(HERE, "..", ".cache", "debian", "usr")
NGINX = os.path.join(DEBIAN, "sbin", "nginx")
WELL_KNOWN = os.path.join(CONFIG, "well-known-client.json")


def replaced(text, *pairs):
    """A recipe with other words; each has to be there."""
    for old, new in pairs:
        if old not in text:
            raise Failure(f"the recipe has no {old!r} any more")
        text = text.replace(old, new)
    return text


class _Proxy:
    def __init__(self, daemon):
        self.upstream = daemon.url.removeprefix("ws://")

    async def __aenter__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.authority = Authority()
        self.pem = tempfile.NamedTemporaryFile(suffix=".pem")
        self.pem.write(self.authority.pem("127.0.0.1"))
        self.pem.flush()
        self.context = ssl.create_default_context(cafile=self.authority.file.name)
        self.port, self.other = free_tcp(), free_tcp()
        self.url = f"wss://127.0.0.1:{self.port}"
        # The site of the server name: nginx tells it apart by Host, Caddy by a port here.
        self.site, self.host = f"https://127.0.0.1:{self.port}", {"Host": "example.org"}
        command = self.prepare()
        self.log = tempfile.TemporaryFile("w+")
        environment = {"PATH": os.environ["PATH"], "HOME": self.folder.name}
        self.process = await asyncio.create_subprocess_exec(
            *command, stdout=self.log, stderr=self.log, env=environment)
        deadline = time.monotonic() + 10
        while not self._listens():
            if self.process.returncode is not None or time.monotonic() > deadline:
                self.log.seek(0)
                raise Failure(f"{command[0]} does not start: {self.log.read()[-400:]}")
            await asyncio.sleep(0.05)
        return self

    def _listens(self):
        with socket.socket() as held:
            return held.connect_ex(("127.0.0.1", self.port)) == 0

    def recipe(self, name):
        with open(os.path.join(CONFIG, name), encoding="utf-8") as file:
            return file.read()

    def write(self, name, text):
        path = os.path.join(self.folder.name, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    async def __aexit__(self, *_):
        await end(self.process)
        self.folder.cleanup()


class Nginx(_Proxy):
    """Debian's nginx with config/nginx.conf."""

    def prepare(self):
        recipe = replaced(
            self.recipe("nginx.conf"),
            ("listen [::]:443 ssl;", ""),
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("http://127.0.0.1:7880", f"http://{self.upstream}"),
            *((f"/etc/ssl/{site}/{file}.pem", self.pem.name)
              for site in ("rtc.example.org", "example.org") for file in ("fullchain", "privkey")),
            ("/etc/nginx/well-known-client.json", os.path.abspath(WELL_KNOWN)))
        self.write("recipe.conf", recipe)
        folders = "".join(f"{kind}_temp_path {self.folder.name}/{kind};\n" for kind in (
            "client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        # Workers run as whoever starts the test, so that they may read the repository.
        main = self.write("nginx.conf", f"""
            daemon off; pid {self.folder.name}/pid; user {_user()}; worker_processes 1;
            error_log stderr;
            events {{ worker_connections 2048; }}
            http {{ access_log off; {folders} include {self.folder.name}/recipe.conf; }}""")
        return [NGINX, "-c", main, "-p", self.folder.name, "-e", "stderr"]


class Caddy(_Proxy):
    """Debian's Caddy with config/Caddyfile."""

    def prepare(self):
        self.site, self.host = f"https://127.0.0.1:{self.other}", {}
        tls = f"\ttls {self.pem.name} {self.pem.name}\n"
        recipe = replaced(
            self.recipe("Caddyfile"),
            ("\nrtc.example.org {\n", f"\nhttps://127.0.0.1:{self.port} {{\n{tls}"),
            ("\nexample.org {\n", f"\n{self.site} {{\n{tls}"),
            ("127.0.0.1:7880", self.upstream),
            ("root * /etc/caddy", f"root * {os.path.abspath(CONFIG)}"))
        options = "{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_sni 127.0.0.1\n}\n"
        path = self.write("Caddyfile", options + recipe)
        return [os.path.join(DEBIAN, "bin", "caddy"), "run", "--adapter", "caddyfile", "--config", path]


def _user():
    return pwd.getpwuid(os.getuid()).pw_name
