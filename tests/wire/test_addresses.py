"""Where clients are told to send, and where replies come from."""

import re

from daemon import Daemon
from harness import expect, test
from internet import Internet
from nat import Nat
from probe import Probe


def listening(daemon):
    """The addresses without ports that the daemon says it receives media on."""
    found = re.findall(r"listening for media.*?address=(\S+?):(\d+)\s", daemon.text() + "\n")
    return sorted(address.strip("[]") for address, _ in found)


@test("", "behind a NAT clients are told its address alone, and media flows through it")
async def _():
    toml = '[media]\naddresses = ["127.0.0.1", "::1"]\nadvertise = ["127.0.0.7"]\n'
    async with Daemon(toml=toml) as daemon:
        port = daemon.media_port
        async with Nat(("127.0.0.7", port), ("127.0.0.1", port)) as nat:
            anna, ben = Probe("nat", "anna", daemon.url), Probe("nat", "ben", daemon.url)
            await anna.connect()
            # The other family has nothing advertised, and stays as it is.
            expect(set(anna.answer.candidates) == {("127.0.0.7", port), ("::1", port)},
                   f"told {anna.answer.candidates}")
            ben.peer.ice.host = "::1"
            await ben.connect()
            before = nat.carried
            for sender, receiver in ((anna, ben), (ben, anna)):
                track, _ = await sender.publish_video("camera", ())
                await receiver.flow(await receiver.subscription(track.sid))
            expect(nat.carried > before, "nothing went through the NAT")
            # A restart of ICE tells the same.
            await anna.restart_ice()
            expect(set(anna.answer.candidates) == {("127.0.0.7", port), ("::1", port)},
                   f"told {anna.answer.candidates} after the restart")


@test("", "replies leave from the address that was sent to; all addresses of an interface serve")
async def _():
    addresses = ("203.0.113.5", "203.0.113.6", "2001:db8::5", "2001:db8::6")
    async with Internet(*addresses) as net:
        async with Daemon(toml="[media]\naddresses = []\n", within=net) as daemon:
            expect(listening(daemon) == sorted(addresses), f"listens on {listening(daemon)}")
            port, probes = daemon.media_port, []
            for number, address in enumerate(addresses):
                probe = Probe("sources", f"p{number}", daemon.url, within=net)
                probe.via = (address, port)
                # Another of the host's own: neither the kernel's choice of a source nor the first
                # socket would be right for all.
                probe.peer.ice.host = addresses[number ^ 1]
                await probe.connect()
                expect({(host, p) for host, p in probe.answer.candidates}
                       == {(host, port) for host in addresses}, f"{probe.answer.candidates}")
                probes.append(probe)
            track, _ = await probes[0].publish_video("camera", ())
            for probe in probes[1:]:
                await probe.flow(await probe.subscription(track.sid), 20)
            for probe in probes:
                expect(probe.peer.ice.sources == {probe.via},
                       f"sent to {probe.via}, heard from {probe.peer.ice.sources}")


@test("", "addresses of containers, link-local and short-lived ones are no candidates")
async def _():
    async with Internet("203.0.113.5", "2001:db8::5") as net:
        for pair in (("docker0", "vethd0a1b2c"), ("br-0a1b2c3d4e5f", "vethd0a1b2d"), ("eth7", "x7")):
            net.run("ip", "-n", net.name, "link", "add", pair[0], "type", "veth", "peer", pair[1])
            for name in pair:
                net.run("ip", "-n", net.name, "link", "set", name, "up")
        for address, name in (
                ("172.17.0.1/16", "docker0"), ("172.18.0.1/16", "br-0a1b2c3d4e5f"),
                ("172.19.0.1/16", "vethd0a1b2c"), ("169.254.7.7/16", "near"),
                ("192.0.2.7/24", "eth7"), ("2001:db8::7/128", "docker0")):
            net.run("ip", "-n", net.name, "address", "add", address, "dev", name,
                    *(["nodad"] if ":" in address else []))
        net.run("ip", "-n", net.name, "address", "add", "2001:db8::9/128", "dev", "near",
                "nodad", "preferred_lft", "0")
        for line, wanted in (
                ("", ["192.0.2.7", "2001:db8::5", "203.0.113.5"]),
                ('interfaces = ["near"]', ["2001:db8::5", "203.0.113.5"]),
                ('interfaces = ["docker*", "eth*", "!docker1"]',
                 ["172.17.0.1", "192.0.2.7", "2001:db8::7"])):
            toml = f"[media]\naddresses = []\n{line}\n"
            async with Daemon(toml=toml, within=net) as daemon:
                expect(listening(daemon) == wanted, f"{line}: listens on {listening(daemon)}")
                probe = Probe("told", "anna", daemon.url, within=net)
                await probe.open()
                await probe.message("answer")
                told = sorted(address for address, _ in probe.answer.candidates)
                expect(told == wanted, f"{line}: told {told}")


@test("", "an IPv6-only host is reached over IPv4 through a translator it advertises")
async def _():
    toml = '[media]\naddresses = ["::1"]\nadvertise = ["127.0.0.7", "::1"]\n'
    async with Daemon(toml=toml) as daemon:
        port = daemon.media_port
        async with Nat(("127.0.0.7", port), ("::1", port)):
            anna, ben = Probe("six", "anna", daemon.url), Probe("six", "ben", daemon.url)
            await anna.connect()
            ben.peer.ice.host = "::1"
            await ben.connect()
            track, _ = await anna.publish_video("camera", ())
            await ben.flow(await ben.subscription(track.sid))
        expect("translates between IPv4 and IPv6" in daemon.text(), "no warning")
