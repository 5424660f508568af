"""The doctor: each of its findings, when it is well and when it isn't. The daemon, the command and
the proxy are real; the homeserver stands in for a Synapse that is configured wrong in each way."""

import json
import os
import socket
import tempfile
import time

from daemon import Daemon, metric
from harness import expect, test, until
from homeserver import HS_TOKEN, USER_TOKEN
from internet import Authority, Internet
from town import GOOD, PASS, Town, run_doctor


def see(found, name, status, words="", remedy=""):
    finding = found.get(name)
    expect(finding, f"nothing of {name} among {list(found)}")
    expect(finding["status"] == status, f"{name} is not {status}: {finding}")
    expect(words in finding["cause"], f"{name} doesn't speak of {words!r}: {finding}")
    expect(remedy in finding["remedy"], f"{name} doesn't advise {remedy!r}: {finding}")
    expect(bool(finding["remedy"]) == (status != "ok"), f"{name} without a remedy: {finding}")


HERE = ("configuration", "keys", "receive-buffer", "listener")
PATHS = ("path-healthz", "path-sfu-get", "path-get-token", "path-delegate", "path-validate",
         "upgrade", "long-url", "cors")
KNOWN = ("well-known", "well-known-cors", "well-known-focus", "well-known-homeserver")
HOME = ("transports", "features", "homeserver", "openid", "application-service", "membership",
        "homeserver-proxy", "delayed-events", "clock")
CALL = ("media-ports", "call")


@test("", "the doctor finds nothing where all is well", seconds=60)
async def _():
    async with Town() as town:
        code, found = await town.doctor()
        for name in (*HERE, "certificate", *PATHS, *KNOWN, *HOME, *CALL):
            see(found, name, "ok")
        expect(code == 0, f"exit code {code}: {found}")


@test("", "the doctor sees each recipe of a proxy that is wrong", seconds=90)
async def _():
    only = "".join(f"location = {path} {{ {PASS} }}" for path in ("/sfu/get", "/healthz"))
    rtc = f"location /rtc {{ {PASS} }}"
    no_upgrade = "location / { proxy_pass http://DAEMON; }"
    recipes = [
        # The recipe in Element Call's documentation for Caddy, as it is often copied.
        (only + rtc, {"path-get-token": ("failure", "404 Not Found by nginx", "/get_token"),
                      "path-delegate": ("failure", "404", "/delegate_delayed_leave"),
                      "path-sfu-get": ("ok", "", ""), "path-healthz": ("ok", "", ""),
                      "upgrade": ("ok", "", "")}),
        (rtc, {"path-sfu-get": ("failure", "404", "/sfu/get"),
               "path-healthz": ("failure", "404", "/healthz"),
               "cors": ("failure", "no Access-Control-Allow-Origin", "")}),
        (only, {"path-validate": ("failure", "404", "/rtc/v1/validate"),
                "upgrade": ("failure", "404", "/rtc/v1")}),
        (no_upgrade, {"upgrade": ("failure", "gets lost", "proxy_set_header Upgrade"),
                      "path-get-token": ("ok", "", "")}),
        ("location = /rtc/v1 { return 426; }" + GOOD,
         {"upgrade": ("failure", "426", "proxy_http_version")}),
        (f"location / {{ {PASS} add_header Access-Control-Allow-Origin * always; }}",
         {"cors": ("failure", "twice", "Take Access-Control-Allow-Origin out")}),
        (f"location / {{ {PASS} proxy_hide_header Access-Control-Allow-Origin; "
         "add_header Access-Control-Allow-Origin https://old.example always; }",
         {"cors": ("failure", "no other origin than https://old.example", "Take")}),
        ("location / { return 503; }", {"path-sfu-get": ("failure", "503", "Start the daemon"),
                                        "upgrade": ("failure", "503", "Start the daemon")}),
        ("location / { add_header WWW-Authenticate Basic always; return 401; }",
         {"path-validate": ("failure", "password", "ask for none")}),
        (f"location / {{ {PASS} rewrite ^(.*)$ /elsewhere$1 break; }}",
         {"path-sfu-get": ("failure", "another path", "http.prefixes"),
          "upgrade": ("failure", "another path", "http.prefixes")}),
        ("location / { proxy_pass http://127.0.0.1:1; }",
         {"path-sfu-get": ("failure", "502", "Start the daemon"),
          "upgrade": ("failure", "502", "Start the daemon")}),
    ]
    async with Town() as town:
        for recipe, expected in recipes:
            await town.proxy(recipe)
            code, found = await town.doctor("--no-call")
            expect(code == 2, f"exit code {code} with {recipe}")
            for name, (status, words, remedy) in expected.items():
                see(found, name, status, words, remedy)
        await town.nginx.serve(GOOD.replace("DAEMON", town.at()), buffers="")
        _, found = await town.doctor("--no-call")
        see(found, "long-url", "warning", "414", "large_client_header_buffers")
        see(found, "path-validate", "ok")
        await town.nginx.stop()
        _, found = await town.doctor()
        see(found, "long-url", "skipped", "shorter URLs")
        for name in ("certificate", "path-sfu-get", "path-validate", "upgrade"):
            see(found, name, "failure", "can't be reached", "DNS point to it")
        see(found, "cors", "skipped")


@test("", "the doctor knows when a certificate is none, and when it won't be", seconds=60)
async def _():
    async with Town() as town:
        own = town.authority
        for pem, status, words in [
            (own.pem("localhost", days=5), "warning", "ends in 4 days"),
            (own.pem("localhost", days=-1), "failure", "has ended"),
            (own.pem("elsewhere.example", days=60), "failure", "another name"),
            (Authority("other town").pem("localhost", days=60), "failure", "authority"),
        ]:
            await town.proxy(GOOD, pem)
            code, found = await town.doctor()
            see(found, "certificate", status, words)
            expect(code == (1 if status == "warning" else 2), f"exit code {code}")
        _, found = await town.doctor(change=lambda toml: toml.replace("wss://", "ws://"))
        see(found, "certificate", "warning", "not encrypted", "wss")


@test("", "the doctor sees keys, files and daemons that don't fit", seconds=60)
async def _():
    async with Town() as town:
        def key(text):
            return lambda toml: toml.replace("[keys]", f"[keys]\n{text}")

        dev = 'devkey = "stellwerk-dev-secret-0123456789abcdef"'
        code, found = await town.doctor(change=key(dev))
        see(found, "keys", "failure", "for development", "openssl")
        expect(code == 2, f"exit code {code}")
        _, found = await town.doctor(change=key('a = "0123456789abcdef0123456789abcdef"'))
        see(found, "keys", "warning", "pattern", "openssl")
        see(found, "listener", "failure", "another API key", "Restart")
        see(found, "path-validate", "failure", "another API key", "Restart")
        see(found, "upgrade", "failure", "another API key", "Restart")
        code, found = await town.doctor(mode=0o644)
        see(found, "configuration", "warning", "everyone on this host can read", "chmod o-rwx")
        expect(code == 1, f"exit code {code}")
        os.chmod(town.home.registration, 0o644)
        _, found = await town.doctor("--no-call")
        see(found, "configuration", "warning", "tokens in", "chmod o-rwx")
        os.chmod(town.home.registration, 0o600)
        for name in CALL:
            see(found, name, "skipped", "--no-call")
        code, found = await town.doctor(change=lambda toml: toml.replace("64 KiB", "1024 MiB"))
        see(found, "receive-buffer", "warning", "bursts get lost", "net.core.rmem_max=1073741824")
        expect(code == 1, f"exit code {code}")
        listen = town.at()
        _, found = await town.doctor(change=lambda toml: toml.replace(listen, "127.0.0.1:1"))
        see(found, "listener", "failure", "can't be reached", "Start the daemon")
        await _registrations(town)
        code, _ = await town.doctor("--nonsense")
        expect(code == 64, f"exit code {code}")
        code, text = await town.doctor(change=lambda toml: toml + "[nonsense]\n")
        expect(code == 3 and "nonsense" in text, f"exit code {code}: {text}")
    code, found = await run_doctor()
    for name in ("listener", "certificate", *PATHS, *KNOWN, *HOME, *CALL):
        see(found, name, "skipped")
    see(found, "keys", "failure", "no API key")


async def _registrations(town):
    """Files that Synapse would make less of than their authors meant."""
    with open(town.home.registration, encoding="utf-8") as file:
        good = file.read()
    for bad, status, words in [
        (good.replace('"rate_limited": false', '"rate_limited": true'), "warning", "rate_limited"),
        (good.replace('"as_token"', '"token"'), "failure", "as_token is missing"),
    ]:
        with open(town.home.registration, "w", encoding="utf-8") as file:
            file.write(bad)
        _, found = await town.doctor("--no-call")
        see(found, "application-service", status, words)
    with open(town.home.registration, "w", encoding="utf-8") as file:
        file.write(good)


@test("", "the doctor follows paths with prefixes, and leaves that nobody keeps", seconds=60)
async def _():
    async with Town(leaves=False) as town:
        _, found = await town.doctor("--no-call")
        see(found, "path-delegate", "failure", "in which it is off", "Restart")
        code, found = await town.doctor(
            "--no-call", change=lambda toml: "\n".join(
                line for line in toml.splitlines() if not line.startswith("leaves")))
        see(found, "path-delegate", "warning", "for an hour", "matrix.leaves")
        expect(code == 1, f"exit code {code}")
        _, found = await town.doctor(
            "--no-call", change=lambda toml: "\n".join(
                line for line in toml.splitlines()
                if not line.startswith(("leaves", "registration"))))
        see(found, "path-delegate", "skipped", "keeps no leaves", "matrix.leaves")

        # As Element Call's documentation has it: two paths, taken away by the proxy.
        jwt, here = f"https://{town.name}/livekit/jwt", f"wss://{town.name}"
        foci = [{"type": "livekit", "livekit_service_url": jwt}]
        town.home.transports = foci
        passed = PASS.replace("http://DAEMON", "http://DAEMON/")
        await town.proxy(f"location /livekit/jwt/ {{ {passed} }} "
                         f"location /livekit/sfu/ {{ {passed} }}", known=town.known(foci=foci))
        code, found = await town.doctor(
            "--service-url", jwt, change=lambda toml: toml.replace(here, here + "/livekit/sfu"))
        for name in (*PATHS, *KNOWN, "transports", *CALL):
            if name != "path-delegate":
                see(found, name, "ok")
        _, found = await town.doctor("--no-call", change=lambda toml: toml.replace(
            here, here + "/livekit/sfu"))
        see(found, "path-sfu-get", "ok")
        see(found, "well-known-focus", "failure", "not here")


@test("", "the doctor sees what a Matrix server says of itself in public", seconds=60)
async def _():
    async with Town() as town:
        here = f"https://{town.name}"
        other = {"type": "livekit", "livekit_service_url": "https://other.example"}
        ours = {"type": "livekit", "livekit_service_url": here}
        for known, origin, name, status, words in [
            ("", "*", "well-known", "failure", "404"),
            ("no JSON", "*", "well-known", "failure", "no JSON"),
            (None, "", "well-known-cors", "failure", "no Access-Control-Allow-Origin"),
            (None, "https://a.example", "well-known-cors", "failure", "otherwise"),
            (town.known(foci=None), "*", "well-known-focus", "failure", "MISSING_MATRIX_RTC_FOCUS"),
            (town.known(foci=[{"type": "x"}]), "*", "well-known-focus", "failure", "no entry"),
            (town.known(foci=[other, ours]), "*", "well-known-focus", "failure", "other.example"),
            (town.known(foci=[ours | {"livekit_service_url": here + "/"}]), "*",
             "well-known-focus", "warning", "slash"),
            (town.known(home=None), "*", "well-known-homeserver", "failure", "doesn't say"),
            (town.known(home={"base_url": "https://localhost:1"}), "*", "well-known-homeserver",
             "failure", "can't be reached"),
            (town.known(home={"base_url": here + "/rtc"}), "*", "well-known-homeserver", "failure",
             "404"),
        ]:
            await town.proxy(known=known, origin=origin)
            _, found = await town.doctor("--no-call")
            see(found, name, status, words)
        # Browsers look for the header at each step.
        allow = "add_header Access-Control-Allow-Origin * always;"
        for header, status, words in [
            (allow, "ok", ""), ("", "failure", "redirect without"),
        ]:
            await town.proxy(
                f"location = /.well-known/matrix/client {{ {header} return 301 /moved; }}"
                f"location = /moved {{ {allow} return 200 '{town.known()}'; }}" + GOOD, known="")
            _, found = await town.doctor("--no-call")
            see(found, "well-known-cors", status, words)
            see(found, "well-known-focus", "ok")


@test("", "the doctor sees each way in which a homeserver is configured wrong", seconds=90)
async def _():
    async with Town() as town:
        home = town.home
        for lack, name, status, words, remedy in [
            ("openid", "openid", "failure", "OPEN_ID_ERROR", "Add openid"),
            ("msc4140", "delayed-events", "failure", "for ever", "max_event_delay_duration"),
            ("msc4143", "transports", "failure", "doesn't tell", "msc4143_enabled"),
            ("msc4143", "features", "warning", "msc4143_enabled", "experimental_features"),
            ("msc4354", "features", "warning", "msc4354_enabled", "matrix_2_0"),
            ("msc4502", "membership", "failure", "who is in a room", "msc4502_enabled"),
            ("scope", "membership", "failure", "doesn't let", "scopes"),
            ("msc4512", "homeserver-proxy", "warning", "newer clients", "msc4512_enabled"),
            ("service", "application-service", "failure", "as_token", "app_service_config_files"),
        ]:
            home.lacks = {lack}
            _, found = await town.doctor("--no-call")
            see(found, name, status, words, remedy)
        home.lacks = set()
        home.max_delay_ms, home.seconds_fast, home.hs_token = 600_000, 100, "another"
        transports, home.transports = home.transports, []
        _, found = await town.doctor()
        see(found, "delayed-events", "warning", "600 s", "24h")
        see(found, "clock", "warning", "s apart", "NTP")
        see(found, "homeserver-proxy", "failure", "another hs_token", "same registration")
        see(found, "transports", "failure", "no service", "matrix_rtc.transports")
        home.transports = [transports[0] | {"livekit_service_url": "https://old.example"}]
        home.hs_token, home.passes_to = HS_TOKEN, "http://127.0.0.1:1"
        _, found = await town.doctor()
        see(found, "transports", "failure", "old.example", "matrix_rtc.transports")
        see(found, "homeserver-proxy", "failure", "doesn't reach this daemon", "proxy_url")
        del transports[0]["livekit_service_url"]
        home.transports = transports
        _, found = await town.doctor()
        see(found, "transports", "warning", "only url", "livekit_service_url")


@test("", "the doctor asks as a user, and says what it can't ask without", seconds=60)
async def _():
    async with Town() as town:
        def alone(toml):
            return "\n".join(line for line in toml.splitlines() if "registration" not in line)

        _, found = await town.doctor(change=alone)
        see(found, "transports", "skipped", "only users", "--user-token-file")
        for name in ("application-service", "membership", "homeserver-proxy"):
            see(found, name, "skipped", "no application service", "stellwerk matrix registration")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(USER_TOKEN + "\n")
            file.flush()
            _, found = await town.doctor("--user-token-file", file.name, change=alone)
            see(found, "transports", "ok", town.name)
            file.write("more")
            file.flush()
            code, text = await town.doctor("--user-token-file", file.name, change=alone)
            expect(code == 3 and USER_TOKEN not in text, f"exit code {code}: {text}")
        await town.home.runner.cleanup()
        _, found = await town.doctor()
        for name in ("homeserver", "openid", "application-service", "membership",
                     "homeserver-proxy", "transports"):
            see(found, name, "failure", "can't be reached")


@test("", "the doctor doesn't wait for ever where nothing answers", seconds=90)
async def _():
    async with Town() as town:
        await town.nginx.stop()
        with socket.create_server(("127.0.0.1", town.port), backlog=100):
            # Connections stand, and nobody takes them.
            started = time.monotonic()
            code, found = await town.doctor()
            seconds = time.monotonic() - started
        for name in ("certificate", "path-sfu-get", "upgrade", "well-known", "call"):
            see(found, name, "failure", "doesn't answer within")
        see(found, "openid", "ok")
        expect(code == 2 and seconds < 40, f"exit code {code} after {seconds:.0f} s")


@test("", "the doctor hears a call, or says why there is none", seconds=90)
async def _():
    async with Town() as town:
        _, found = await town.doctor()
        see(found, "call", "ok", f"by UDP over IPv4 from 127.0.0.1:{town.daemon.media_port}")
        see(found, "media-ports", "ok", str(town.daemon.media_port))
        # Long before it would go by itself; workers report once a second.
        await until(lambda: metric("stellwerk_rooms", base=town.daemon.metrics) == 0,
                    "the room of the call is gone", 6)
        await town.proxy("location / { return 503; }")
        _, found = await town.doctor()
        see(found, "call", "failure", "503", "path-validate")
        see(found, "media-ports", "skipped")


@test("", "the doctor tries each of many addresses of media, and says which it leaves out")
async def _():
    for count, left_out in ((16, ""), (18, "; further 2 were not tried")):
        addresses = [f"127.0.0.{number}" for number in range(1, count + 1)]
        media = f"[media]\naddresses = {json.dumps(addresses)}\n"
        async with Daemon(media) as daemon:
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                file.write(f"""{media}
[http]
listen = ["{daemon.url.removeprefix("ws://")}"]
[keys]
devkey = "stellwerk-dev-secret-0123456789abcdef"
""")
                file.flush()
                _, found = await run_doctor("--config", file.name)
        see(found, "media-ports", "ok", "each address for media answers")
        see(found, "media-ports", "ok", left_out)
        cause = found["media-ports"]["cause"]
        expect(cause.count("127.0.0.") == 16 and cause.endswith(left_out), cause)


@test("", "the doctor names addresses of media that nobody reaches", seconds=90)
async def _():
    async with Internet("5.9.0.1", "2003::1") as net:
        async def call(*addresses):
            media = f"[media]\naddresses = {json.dumps(addresses)}\n"
            async with Daemon(media, within=net) as daemon:
                # From now on what is for this address leaves by a wire at whose end nobody is, as
                # at a firewall.
                net.run("ip", "-n", net.name, "route", "del", "table", "local", "local", "5.9.0.1",
                        "dev", "near")
                net.run("ip", "-n", net.name, "route", "replace", "5.9.0.1/32", "dev", "near")
                with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                    file.write(f"""{media}
[http]
listen = ["{daemon.url.removeprefix("ws://")}"]
[keys]
devkey = "stellwerk-dev-secret-0123456789abcdef"
""")
                    file.flush()
                    found = await run_doctor("--config", file.name, within=net)
                net.run("ip", "-n", net.name, "route", "add", "table", "local", "local",
                        "5.9.0.1", "dev", "near")
                return found

        _, found = await call("127.0.0.1", "5.9.0.1")
        see(found, "media-ports", "warning", "5.9.0.1:", "Open these UDP ports")
        expect("127.0.0.1" not in found["media-ports"]["cause"], f"{found['media-ports']}")
        see(found, "call", "ok", "from 127.0.0.1:")
        _, found = await call("2003::1")
        see(found, "call", "ok", "by UDP over IPv6 from [2003::1]:")
        code, found = await call("5.9.0.1")
        see(found, "media-ports", "failure", "no address for media answers: 5.9.0.1:", "Open")
        see(found, "call", "failure", "within 15 s", "Open these UDP ports")
        expect(code == 2, f"exit code {code}")
