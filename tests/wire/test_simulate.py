"""Faults that clients ask for, where the configuration allows it; and with their help, video that
pauses for want of bandwidth."""

import asyncio
import time

from livekit.protocol import models, rtc

import vp8
from daemon import Daemon, metric
from harness import Failure, expect, test, until
from probe import Probe
from test_notices import speaking

ALLOWED = "[http]\nsimulate = true\n"


async def people(daemon, room, *names, **arguments):
    probes = [Probe(room, name, daemon.url) for name in names]
    for probe in probes:
        await probe.connect(**arguments)
    return probes


async def simulate(probe, **scenario):
    await probe.request(simulate=rtc.SimulateScenario(**scenario))


def states(probe, sid, since=0.0):
    """(time, state) of everything the probe was told of that video."""
    return [(at, one.state) for at, kind, body in probe.log
            if kind == "stream_state_update" and at >= since
            for one in body.stream_states if one.track_sid == sid]


@test("", "a video pauses where nothing fits, is told as paused, and comes again")
async def _():
    async with Daemon(toml=ALLOWED + "[rooms]\npause_video = true\n") as daemon:
        anna, ben = await people(daemon, "pausing", "anna", "ben")
        carl = Probe("pausing", "carl", daemon.url)
        await carl.connect(subscriber_allow_pause=False)
        track, _ = await anna.publish_video()
        voice, _ = await anna.publish_audio()
        sections = {probe: await probe.subscription(track.sid) for probe in (ben, carl)}
        heard = await ben.subscription(voice.sid)
        for probe, section in sections.items():
            await probe.flow(section, count=30)
        asked = time.monotonic()
        for probe in (ben, carl):
            await simulate(probe, subscriber_bandwidth=10_000)
        await until(lambda: states(ben, track.sid), "ben is told", 3)
        at, state = states(ben, track.sid)[0]
        expect(state == rtc.PAUSED, f"state {state}")
        (update,) = ben.messages("stream_state_update")
        expect([one.participant_sid for one in update.stream_states]
               == [anna.join.participant.sid], "of other participants too")
        await asyncio.sleep(0.3)
        count = len(ben.received(sections[ben]))
        await ben.flow(heard, count=50)
        expect(len(ben.received(sections[ben])) == count, "the picture comes all the same")
        await carl.flow(sections[carl], count=20)
        expect(metric("stellwerk_video_pauses_total", base=daemon.metrics) == 1, "not counted")
        cleared = time.monotonic()
        await simulate(ben, subscriber_bandwidth=0)
        await until(lambda: len(states(ben, track.sid)) > 1, "ben is told again", 3)
        expect(states(ben, track.sid)[-1][1] == rtc.ACTIVE, f"{states(ben, track.sid)}")
        await ben.flow(sections[ben], count=30)
        expect(not carl.messages("stream_state_update"), "carl was told, who doesn't allow it")
        back = states(ben, track.sid)[-1][0] - cleared
        return f"paused after {at - asked:.2f} s, back after {back:.2f} s"


@test("", "of two videos of which one fits that of the higher priority flows")
async def _():
    async with Daemon(toml=ALLOWED) as daemon:
        anna, = await people(daemon, "priority", "anna")
        ben, = await people(daemon, "priority", "ben", subscriber_allow_pause=True)
        sections = {}
        for name in ("one", "two"):
            track, _ = await anna.publish_video(name, rids=())
            sections[track.sid] = await ben.subscription(track.sid)
        began = time.monotonic()
        await asyncio.sleep(2)
        # The least is the lowest temporal layer, of which two don't fit.
        least = [packet.payload for packet in ben.received(next(iter(sections.values())))
                 if packet.at >= began and vp8.parse_vp8(packet.payload).tid == 0]
        rate = sum(map(len, least)) * 8 / (time.monotonic() - began)
        await simulate(ben, subscriber_bandwidth=int(rate * 1.5))
        first, second = sections
        for preferred, other in ((first, second), (second, first), (first, second)):
            asked = time.monotonic()
            await ben.settings(preferred, quality=models.HIGH, priority=2)
            await ben.settings(other, quality=models.HIGH, priority=1)
            await until(lambda sid=other: (states(ben, sid) or [(0, 0)])[-1][1] == rtc.PAUSED,
                        "the other pauses", 5)
            await ben.flow(sections[preferred], count=30)
            expect((states(ben, preferred) or [(0, rtc.ACTIVE)])[-1][1] == rtc.ACTIVE,
                   f"the preferred one is paused: {states(ben, preferred, asked)}")
            await asyncio.sleep(1.5)  # longer than a state lasts at least


@test("", "speech is simulated")
async def _():
    async with Daemon(toml=ALLOWED) as daemon:
        anna, ben = await people(daemon, "speech", "anna", "ben")
        track, _ = await anna.publish_video()
        await ben.subscription(track.sid)
        sid = anna.join.participant.sid
        await simulate(anna, speaker_update=1)
        for probe in (anna, ben):
            await until(lambda p=probe: len(speaking(p, sid)) == 2, "speech and its end", 4)
            expect([active for _, active, _ in speaking(probe, sid)] == [True, False], "order")


@test("", "sessions end as was asked for: with a leave, or without a word and unknown after")
async def _():
    async with Daemon(toml=ALLOWED) as daemon:
        for scenario, action, reason in (
                ("server_leave", rtc.LeaveRequest.DISCONNECT, models.SERVER_SHUTDOWN),
                ("leave_request_full_reconnect", rtc.LeaveRequest.RECONNECT, None)):
            anna, = await people(daemon, scenario, "anna")
            await simulate(anna, **{scenario: True})
            leave = await anna.message("leave")
            expect(leave.action == action, f"{scenario}: action {leave.action}")
            expect(reason in (None, leave.reason), f"{scenario}: reason {leave.reason}")
            await asyncio.wait_for(anna.closed.wait(), 5)
        for scenario in ("node_failure", "migration"):
            anna, = await people(daemon, scenario, "anna")
            await simulate(anna, **{scenario: True})
            await asyncio.wait_for(anna.closed.wait(), 5)
            expect(not anna.messages("leave"), f"{scenario}: a leave")
            _, kind, body = await anna.resume()
            expect(kind == "leave" and body.action == rtc.LeaveRequest.RECONNECT,
                   f"{scenario}: a resume is answered by {kind}")


@test("", "a resume breaks off once, before or after its first messages, and the stay goes on")
async def _():
    async with Daemon(toml=ALLOWED) as daemon:
        for scenario, told in (("disconnect_signal_on_resume", True),
                               ("disconnect_signal_on_resume_no_messages", False)):
            anna, = await people(daemon, scenario, "anna")
            await simulate(anna, **{scenario: True})
            # A reset takes back what was sent and not read yet.
            await anna.request(ping_req=rtc.Ping(timestamp=7))
            await anna.message("pong_resp")
            await anna.cut()
            try:
                kind = (await anna.resume())[1]
            except Failure:
                kind = None
            expect(kind == ("reconnect" if told else None), f"{scenario}: {kind} comes first")
            await asyncio.wait_for(anna.closed.wait(), 5)
            expect((await anna.resume())[1] == "reconnect", "the second one fails as well")
            await asyncio.sleep(0.3)
            expect(not anna.closed.is_set(), "the second one breaks off as well")


@test("", "without leave of the configuration, and where there is no way, nothing is simulated")
async def _():
    async with Daemon(toml=ALLOWED) as allowed, Daemon() as usual:
        anna, = await people(allowed, "ignored", "anna")
        await simulate(anna, switch_candidate_protocol=rtc.TCP)
        ben, = await people(usual, "ignored", "ben")
        for scenario in ("server_leave", "node_failure", "leave_request_full_reconnect"):
            await simulate(ben, **{scenario: True})
        for probe in (anna, ben):
            await probe.request(ping_req=rtc.Ping(timestamp=7))
            await probe.message("pong_resp")
            expect(not probe.messages("leave") and not probe.closed.is_set(), "it is gone")


@test("", "how many are here is told within some seconds", seconds=40)
async def _():
    anna = Probe("census", "anna")
    await anna.connect()
    await anna.publish_audio()
    ben = Probe("census", "ben")
    await ben.connect()
    await anna.message("room_update", lambda body: (
        body.room.num_participants, body.room.num_publishers) == (2, 1), 7)
    expect(len(anna.messages("room_update")) <= 2, "told one by one")
    since = time.monotonic()
    await ben.request(leave=rtc.LeaveRequest())
    await anna.message("room_update", lambda body: body.room.num_participants == 1, 7, since)


@test("", "a track that gets no section for 15 s is told as failed, and comes yet", seconds=60)
async def _():
    anna, ben = Probe("sections-missing", "anna"), Probe("sections-missing", "ben")
    for probe in (anna, ben):
        await probe.connect()
    for number in range(3):
        track, _ = await anna.publish_video(f"camera-{number}", rids=())
        await ben.subscription(track.sid)
    ben.auto = False
    track, _ = await anna.publish_video("camera-3", rids=())
    asked = time.monotonic()
    answer = await ben.message("subscription_response", seconds=20)
    expect(answer.track_sid == track.sid and answer.err == models.SE_UNKNOWN, f"{answer}")
    took = time.monotonic() - asked
    expect(14 < took < 17, f"told after {took:.1f} s")
    ben.add_sections(0, 1)
    await ben.negotiate()
    await ben.flow(await ben.subscription(track.sid))
