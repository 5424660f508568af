"""Webhooks, judged by the official receiver."""

import asyncio
import datetime
import os
import ssl
import tempfile

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from livekit import api
from livekit.protocol import models, rtc

from daemon import Daemon, metric
from harness import expect, test, until
from probe import Probe, close_all
from server_api import Api, Receiver


def webhook(receiver, more=""):
    return f'[webhook]\nurls = ["{receiver.url}"]\n{more}'


@test("LK-68 LK-18", "events come signed and in their order, joined when media is connected",
      seconds=40)
async def _():
    async with Receiver() as receiver:
        toml = webhook(receiver, '[rooms]\ndeparture_timeout = "1s"\n')
        async with Daemon(toml=toml) as daemon:
            anna = Probe("watched", "anna", daemon.url)
            await anna.open()
            await until(lambda: anna.answer, "an answer")
            await receiver.event("room_started")
            await asyncio.sleep(0.5)
            expect(receiver.names() == ["room_started"], f"before media: {receiver.names()}")
            await anna.peer.connect(anna.answer, anna._address())
            joined = await receiver.event("participant_joined")
            expect(joined.participant.state == models.ParticipantInfo.ACTIVE, "not active")
            expect(joined.participant.sid == anna.join.participant.sid, "of somebody else")
            expect(joined.room.sid == anna.join.room.sid, "of another room")
            voice, _ = await anna.publish_audio()
            published = await receiver.event("track_published")
            expect(published.track.sid == voice.sid, f"track {published.track.sid}")
            expect(published.participant.identity == "anna", f"{published.participant}")
            await anna.request(leave=rtc.LeaveRequest())
            left = await receiver.event("participant_left")
            expect(left.participant.disconnect_reason == models.CLIENT_INITIATED,
                   f"reason {left.participant.disconnect_reason}")
            finished = await receiver.event("room_finished")
            expect(finished.room.sid == anna.join.room.sid, "of another room")
            expect(receiver.names() == [
                "room_started", "participant_joined", "track_published", "track_unpublished",
                "participant_left", "room_finished"], f"order {receiver.names()}")
            expect(not receiver.errors, f"not accepted: {receiver.errors}")
            ids = {event.id for event in receiver.events}
            expect(len(ids) == 6 and all(ids), f"ids {ids}")
            expect(all(event.created_at > 1_600_000_000 for event in receiver.events), "times")
            headers, _ = receiver.raw[0]
            expect(headers["Content-Type"] == "application/webhook+json", str(headers))
            expect(not headers["Authorization"].startswith("Bearer"), "a Bearer token")
            await close_all()


@test("LK-19", "who never connects is gone in time, and reported as aborted")
async def _():
    async with Receiver() as receiver:
        toml = webhook(receiver, '[rooms]\nconnect_timeout = "2s"\n')
        async with Daemon(toml=toml) as daemon:
            anna, ben = (Probe("aborted", who, daemon.url) for who in ("anna", "ben"))
            await anna.connect()
            await ben.open()
            aborted = await receiver.event("participant_connection_aborted", 6)
            expect(aborted.participant.identity == "ben", f"{aborted.participant}")
            expect(aborted.participant.disconnect_reason == models.JOIN_FAILURE,
                   f"reason {aborted.participant.disconnect_reason}")
            leave = await ben.message("leave", seconds=2)
            expect((leave.action, leave.reason) == (rtc.LeaveRequest.DISCONNECT,
                                                    models.JOIN_FAILURE), str(leave))
            await until(lambda: anna.knows("ben").state == models.ParticipantInfo.DISCONNECTED,
                        "anna is told", 2)
            expect("participant_left" not in receiver.names(), "reported as having been there")
            await close_all()


@test("", "an event that fails is posted again, and refused ones are not")
async def _():
    async with Receiver(answers=[500, 503]) as receiver:
        async with Daemon(toml=webhook(receiver)) as daemon, Api(daemon.url) as rooms:
            await rooms.create_room(api.CreateRoomRequest(name="first"))
            await receiver.event("room_started")
            expect(len(receiver.raw) == 3, f"posted {len(receiver.raw)} times")
            expect(len({body for _, body in receiver.raw}) == 1, "not the same event again")
            receiver.answers = [403]
            await rooms.delete_room(api.DeleteRoomRequest(room="first"))
            await until(lambda: len(receiver.raw) == 4, "the next event")
            await rooms.create_room(api.CreateRoomRequest(name="second"))
            await until(lambda: len(receiver.events) == 2, "the one after")
            expect(len(receiver.raw) == 5, f"posted {len(receiver.raw)} times")

            def counted():
                name = "stellwerk_webhook_events_total"
                return [metric(name, {"outcome": outcome}, daemon.metrics)
                        for outcome in ("delivered", "failed", "dropped")]

            for _ in range(30):
                if (numbers := await asyncio.to_thread(counted)) == [2, 1, 0]:
                    break
                await asyncio.sleep(0.1)
            expect(numbers == [2, 1, 0], f"delivered, failed, dropped: {numbers}")


def certificates(folder):
    """A certificate for localhost and the authority that signed it; gives their files."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def make(name, key, issuer, signer, *extensions):
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(signer, hashes.SHA256())

    def named(text):
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = make(named("root"), authority, named("root"), authority,
                x509.BasicConstraints(ca=True, path_length=None))
    leaf = make(named("leaf"), key, named("root"), authority,
                x509.SubjectAlternativeName([x509.DNSName("localhost")]))
    pem = serialization.Encoding.PEM
    files = {"root": root.public_bytes(pem), "leaf": leaf.public_bytes(pem),
             "key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8,
                                      serialization.NoEncryption())}
    for name, text in files.items():
        with open(os.path.join(folder, name), "wb") as file:
            file.write(text)
    return (os.path.join(folder, name) for name in files)


@test("", "https webhooks are posted to those whom the host trusts, and to nobody else")
async def _():
    with tempfile.TemporaryDirectory() as folder:
        root, leaf, key = certificates(folder)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(leaf, key)
        async with Receiver(tls=context) as receiver:
            for trusted, wanted in ((root, True), (None, False)):
                if trusted:
                    os.environ["SSL_CERT_FILE"] = trusted
                try:
                    async with Daemon(toml=webhook(receiver)) as daemon:
                        async with Api(daemon.url) as rooms:
                            await rooms.create_room(api.CreateRoomRequest(name="secret"))
                            if wanted:
                                await receiver.event("room_started")
                            else:
                                await asyncio.sleep(1.5)
                finally:
                    os.environ.pop("SSL_CERT_FILE", None)
                expect(len(receiver.raw) == 1, f"{len(receiver.raw)} posts, {receiver.errors}")


@test("", "a webhook that hangs holds nobody up, and what is too much for it is counted",
      seconds=60)
async def _():
    held = []

    async def hang(reader, writer):
        held.append(writer)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    toml = f'[webhook]\nurls = ["http://127.0.0.1:{port}/"]\n'
    async with Daemon(toml=toml) as daemon, Api(daemon.url) as rooms:
        for number in range(130):
            await rooms.create_room(api.CreateRoomRequest(name=f"room {number}"))
        anna, ben = (Probe("flowing", who, daemon.url) for who in ("anna", "ben"))
        await anna.connect()
        await ben.connect()
        voice, _ = await anna.publish_audio()
        await ben.flow(await ben.subscription(voice.sid))
        expect(held, "nothing was posted")

        def dropped():
            return metric("stellwerk_webhook_events_total", {"outcome": "dropped"},
                          daemon.metrics)

        for _ in range(30):
            if (count := await asyncio.to_thread(dropped)) >= 29:
                break
            await asyncio.sleep(0.1)
        expect(count >= 29, f"{count} dropped of 130 and more, where 100 fit")
        await close_all()
    for writer in held:
        writer.close()
    server.close()
    return f"{count:.0f} dropped"
