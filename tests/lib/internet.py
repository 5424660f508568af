"""A small internet of its own: a network namespace with addresses that look public, a name server
and web servers on them, and an authority that makes their certificates.

`async with Internet() as net:`; the daemon goes in with `Daemon(within=net)`. Sockets are made in
the namespace and served from here. Needs root, or the right to make namespaces.
"""

import asyncio
import contextlib
import ctypes
import datetime
import http.client
import ipaddress
import json
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import typing
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness import Failure

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_TYPES = {1: "A", 28: "AAAA", 33: "SRV"}


class _Network:
    """A namespace and the sockets in it."""

    def __init__(self):
        self.name = f"stellwerk-{os.getpid()}-{random.randrange(1 << 20)}"
        self.libc = ctypes.CDLL(None, use_errno=True)

    def command(self, command):
        return ["ip", "netns", "exec", self.name, *command]

    def run(self, *command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")

    def make(self, addresses):
        self.run("ip", "netns", "add", self.name)
        self.run("ip", "-n", self.name, "link", "set", "lo", "up")
        self.run("ip", "-n", self.name, "link", "add", "near", "type", "veth", "peer", "far")
        for name in ("near", "far"):
            self.run("ip", "-n", self.name, "link", "set", name, "up")
        for address in addresses:
            ip = ipaddress.ip_address(address)
            if not ip.is_loopback:
                self.run("ip", "-n", self.name, "address", "add", f"{ip}/{ip.max_prefixlen}",
                         "dev", "near", *(["nodad"] if ip.version == 6 else []))
        # `ip netns exec` lays this over /etc/resolv.conf.
        os.makedirs(f"/etc/netns/{self.name}")
        with open(f"/etc/netns/{self.name}/resolv.conf", "w", encoding="ascii") as configuration:
            configuration.write("nameserver 127.0.0.1\n")

    def remove(self):
        shutil.rmtree(f"/etc/netns/{self.name}", ignore_errors=True)
        self.run("ip", "netns", "del", self.name)

    @contextlib.contextmanager
    def _inside(self):
        with open("/proc/thread-self/ns/net", "rb") as ours, \
                open(f"/run/netns/{self.name}", "rb") as theirs:
            self._enter(theirs)
            try:
                yield
            finally:
                self._enter(ours)

    def _enter(self, namespace):
        if self.libc.setns(namespace.fileno(), _NEW_NETWORK):
            raise Failure(f"setns: {os.strerror(ctypes.get_errno())}")

    def socket(self, address, port, kind=socket.SOCK_STREAM):
        """Bound there."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self._inside():
            held = socket.socket(family, kind)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((address, port))
        held.setblocking(False)
        return held

    def connect(self, port, timeout=20):
        with self._inside():
            held = socket.socket()
        held.settimeout(timeout)
        held.connect(("127.0.0.1", port))
        return held

    def request(self, url, method="GET", body=None, headers=None):
        """Status, headers and body of a request to a port on loopback in there."""
        parts = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname, parts.port)
        connection.sock = self.connect(parts.port)
        try:
            connection.request(method, parts.path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def get(self, url):
        return self.request(url)


class _Names(asyncio.DatagramProtocol):
    """The name server. `records` holds, by name and type, the answers to the first question, to
    the second, and so on; what is asked is kept in `asked`."""

    def __init__(self):
        self.records, self.asked = {}, []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, client):
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1:at + 1 + data[at]].decode("ascii").lower())
            at += 1 + data[at]
        name, kind = ".".join(labels), _TYPES.get(struct.unpack("!H", data[at + 1:at + 3])[0])
        self.asked.append((name, kind))
        known = any(name == other for other, _ in self.records)
        turns = self.records.get((name, kind), [[]])
        answers = turns.pop(0) if len(turns) > 1 else turns[0]
        # Response, recursion available; NXDOMAIN where nothing has the name.
        flags = 0x8180 | (0 if known else 3)
        answer = data[:2] + struct.pack("!HHHHH", flags, 1, len(answers), 0, 0) + data[12:at + 5]
        for record in answers:
            value = _value(kind, record)
            # The name is that of the question; good for no time at all.
            answer += struct.pack("!HHHIH", 0xC00C, {"A": 1, "AAAA": 28, "SRV": 33}[kind], 1, 0,
                                  len(value)) + value
        self.transport.sendto(answer, client)


def _value(kind, record):
    if kind != "SRV":
        return ipaddress.ip_address(record).packed
    port, target = record
    labels = [label.encode() for label in target.split(".") if label]
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return struct.pack("!HHH", 1, 1, port) + name


class Authority:
    """Makes certificates; its own is in `file`."""

    def __init__(self, name="town hall"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = self._sign(self.name, self.key, [(constraint, True)])
        self.file = tempfile.NamedTemporaryFile(suffix=".pem")
        self.file.write(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.file.flush()

    def _sign(self, subject, key, extensions, days=1):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder(
            self.name, subject, key.public_key(), x509.random_serial_number(),
            now - datetime.timedelta(days=30), now + datetime.timedelta(days=days))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def pem(self, *names, days=1):
        """Key and certificate for host names and addresses, good for some days."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "house")])
        entries = x509.SubjectAlternativeName([_entry(name) for name in names])
        certificate = self._sign(subject, key, [(entries, False)], days)
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption()) + certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, name):
        """TLS with such a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(self.pem(name))
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _entry(name):
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Request(typing.NamedTuple):
    """What a server sees of a request."""

    sni: str | None
    host: str
    path: str


class Server:
    """One listening socket: `seen` holds each request, `taken` counts connections."""

    def __init__(self):
        self.seen, self.taken = [], 0


class Internet(_Network):
    """See above. `host` and `service` say what DNS tells, `serve` makes web servers."""

    def __init__(self, *addresses):
        super().__init__()
        self.addresses = addresses
        self.authority = Authority()
        self.tasks = []

    async def __aenter__(self):
        self.make(self.addresses)
        try:
            loop = asyncio.get_running_loop()
            held = self.socket("127.0.0.1", 53, socket.SOCK_DGRAM)
            _, self.dns = await loop.create_datagram_endpoint(_Names, sock=held)
        except BaseException:
            self.remove()
            raise
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        self.dns.transport.close()
        self.remove()

    def host(self, name, *addresses, then=()):
        """What a name resolves to, and what it does from the second question on."""
        for kind, version in (("A", 4), ("AAAA", 6)):
            now, later = ([ip for ip in some if ipaddress.ip_address(ip).version == version]
                          for some in (addresses, then))
            self.dns.records[name, kind] = [now, later] if then else [now]

    def service(self, name, port, target):
        self.dns.records[name, "SRV"] = [[(port, target)]]

    async def serve(self, address, port, name, reply):
        """`reply(writer, request)` answers, at `address`, under the certificate of `name`; without
        a name there is no TLS."""
        server, context = Server(), self.authority.context(name) if name else None
        names = {}
        if context:
            context.sni_callback = lambda held, sni, _: names.__setitem__(held, sni)

        async def handle(reader, writer):
            self.tasks.append(asyncio.current_task())
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
                host, = (line[6:] for line in head if line.lower().startswith("host: "))
                sni = names.pop(writer.get_extra_info("ssl_object"), None)
                server.seen.append(Request(sni, host, head[0].split(" ")[1]))
                await reply(writer, server.seen[-1])
                await writer.drain()
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass  # whoever asked has had enough, or the test is over
            finally:
                writer.close()

        # TLS begins after the connection is counted.
        held = self.socket(address, port)
        held.listen(1024)
        self.tasks.append(asyncio.ensure_future(self._accept(held, context, server, handle)))
        return server

    async def _accept(self, held, context, server, handle):
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(held)
            server.taken += 1
            reader = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(reader, handle)
            self.tasks.append(asyncio.ensure_future(loop.connect_accepted_socket(
                lambda protocol=protocol: protocol, connection, ssl=context)))


def answer(writer, body, status="200 OK", headers=""):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n{headers}\r\n"
    writer.write(head.encode() + data)
