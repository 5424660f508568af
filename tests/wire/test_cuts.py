"""A hundred cuts of the signalling connection at the worst moments."""

import random
import time

from livekit.protocol import models, rtc

from harness import expect, test
from probe import Probe

GONE = models.ParticipantInfo.DISCONNECTED
CUTS = 100


async def cut_in_peace(anna, _):
    await anna.cut()


async def cut_before_the_answer(anna, _):
    """The offer is on its way, or just there; its answer never arrives, or nobody reads it."""
    await anna.request(offer=anna.next_offer())
    await anna.cut()


async def cut_before_the_track_is_known(anna, added):
    """The same for an announced track and the offer that follows it at once."""
    cid = f"late-{len(added)}"
    anna.section("audio", cid, ssrc=random.randrange(1, 1 << 31))
    added.append(cid)
    await anna.request(add_track=rtc.AddTrackRequest(cid=cid, type=models.AUDIO, name=cid))
    await anna.request(offer=anna.next_offer())
    await anna.cut()


async def cut_again_while_synchronising(anna, _):
    await anna.cut()
    await resume(anna)
    await anna.request(sync_state=sync_state(anna))
    await anna.cut()


def sync_state(anna):
    own = [track for body in anna.messages("track_published") for track in [body.track]]
    sids = {track.sid: rtc.TrackPublishedResponse(cid=track.name, track=track) for track in own}
    return rtc.SyncState(publish_tracks=list(sids.values()))


async def resume(anna):
    _, kind, _ = await anna.resume()
    expect(kind == "reconnect", f"the first message is {kind}")


@test("LK-56", "a hundred cuts at random moments: every track is back, and nobody is seen leaving",
      seconds=240)
async def _():
    chance = random.Random(3)
    anna, ben = Probe("cuts", "anna", auto=False), Probe("cuts", "ben")
    await anna.connect()
    await ben.connect()
    hers, _ = await anna.publish_audio()
    his, _ = await ben.publish_audio()
    at_ben = await ben.subscription(hers.sid)
    await anna.negotiate()
    at_anna = await anna.subscription(his.sid)
    moments = [cut_in_peace, cut_before_the_answer, cut_again_while_synchronising]
    slowest, added = 0.0, []
    for number in range(CUTS):
        # No more tracks than one may have.
        late = [cut_before_the_track_is_known] if len(added) < 20 else []
        moment = chance.choice(moments + late)
        await moment(anna, added)
        begin = time.monotonic()
        await resume(anna)
        await anna.request(sync_state=sync_state(anna))
        # A track that was announced into the void is announced again, as its user would.
        known = {body.cid for body in anna.messages("track_published")}
        for cid in added:
            if cid not in known:
                await anna.request(
                    add_track=rtc.AddTrackRequest(cid=cid, type=models.AUDIO, name=cid))
        await anna.restart_ice()
        await ben.flow(at_ben, 3, 10)
        await anna.flow(at_anna, 3, 10)
        slowest = max(slowest, time.monotonic() - begin)
        expect(slowest < 10, f"cut {number} ({moment.__name__}) took {slowest:.1f} s")
    names = {track.name for track in ben.knows("anna").tracks}
    expect(set(added) <= names, f"{set(added) - names} never came")
    gone = [p for u in ben.messages("update") for p in u.participants
            if p.identity == "anna" and p.state == GONE]
    expect(not gone, "ben was told that anna left")
    return f"slowest of {CUTS} back after {slowest:.2f} s, {len(added)} tracks among them"
