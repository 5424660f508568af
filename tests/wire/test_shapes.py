"""First offers of other shapes than a browser's: React Native offers no section before it needs it.

Browsers begin with three receiving sections of each kind, so these paths are never taken there.
"""

from livekit.protocol import models

import sdp
from harness import expect, test, until
from probe import Probe, Voice


async def _publisher(room):
    anna = Probe(room, "anna")
    await anna.connect()
    voice, _ = await anna.publish_audio()
    camera, _ = await anna.publish_video(rids=())
    return anna, (voice, camera)


@test("LK-16 LK-22", "a first offer with only a data section: sections are asked for and used")
async def _():
    anna, tracks = await _publisher("bare")
    ben = Probe("bare", "ben")
    ben.sections = [sdp.Section("application", "0")]
    await ben.connect()
    for track in tracks:
        await ben.flow(await ben.subscription(track.sid))
    asked = ben.requirements[0]
    expect(asked == (1, 1), f"asked for {asked}, one of each is missing")
    kinds = [section.kind for section in ben.answer.sections]
    expect(kinds == ["application", "audio", "video"], f"sections {kinds}")
    # What he publishes comes behind them.
    voice, _ = await ben.publish_audio()
    camera, _ = await ben.publish_video()
    for track in (voice, camera):
        await anna.flow(await anna.subscription(track.sid))
    expect(not ben.messages("leave"), "a leave came")
    return f"asked for {ben.requirements}"


@test("LK-16 LK-22", "sections only once something is published: media flows both ways from there")
async def _():
    anna, tracks = await _publisher("late-shape")
    ben = Probe("late-shape", "ben", auto=False)
    ben.sections = []
    await ben.open(offer=False)
    # The first offer has nothing but what he sends.
    section = ben.section("audio", "his-voice", ssrc=4711)
    track = await ben.add_track("his-voice", models.AUDIO, name="voice",
                                source=models.MICROPHONE)
    await ben.negotiate()
    expect([each.kind for each in ben.answer.sections] == ["audio"], ben.answers[-1].sdp)
    await until(ben._address, "a candidate of the server")
    await ben.peer.connect(ben.answer, ben._address())
    Voice(ben, section, section.ssrc)
    await anna.flow(await anna.subscription(track.sid))
    # His own section cannot carry what he is to receive.
    await until(lambda: ben.requirements, "a requirement")
    expect(ben.requirements[-1] == (1, 1), f"asked for {ben.requirements}")
    ben.add_sections(*ben.requirements[-1])
    await ben.negotiate()
    for each in tracks:
        await ben.flow(await ben.subscription(each.sid))
    expect(not ben.messages("leave"), "a leave came")
