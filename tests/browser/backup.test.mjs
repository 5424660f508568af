// A backup codec: who can't decode what the publisher prefers gets another encoding of the same
// track, and the publisher encodes only what somebody sees.

import { test, expect, until, sleep } from "../lib/harness.mjs";
import { RED, css } from "./call.test.mjs";
import { codecOf, wide } from "./codecs.test.mjs";

const WHICH = { name: "picture" };
const LOW = 0;
const [SMALL, LARGE] = [320, 640];
const FPS = 10;
const [VP9, VP8] = ["video/VP9", "video/VP8"];

/** This page's receivers know nothing of a codec, as a browser's that can't decode it. */
function forget(person, mime) {
  return person.page.evaluate((forgotten) => {
    const { addTransceiver } = RTCPeerConnection.prototype;
    const known = RTCRtpReceiver.getCapabilities("video").codecs
      .filter((codec) => codec.mimeType !== forgotten);
    RTCPeerConnection.prototype.addTransceiver = function add(kind, init) {
      const transceiver = addTransceiver.call(this, kind, init);
      if (kind === "video") transceiver.setCodecPreferences(known);
      return transceiver;
    };
  }, mime);
}

/** Frames encoded so far, by codec. */
function encoded(anna) {
  return anna.page.evaluate(async () => {
    const frames = {};
    for (const peer of window.peers) {
      const report = await peer.getStats();
      for (const entry of report.values()) {
        if (entry.type !== "outbound-rtp" || entry.kind !== "video") continue;
        const codec = report.get(entry.codecId)?.mimeType;
        frames[codec] = (frames[codec] ?? 0) + (entry.framesEncoded ?? 0);
      }
    }
    return frames;
  });
}

/** Which codecs are encoded during the next two seconds. */
async function busy(anna) {
  const before = await encoded(anna);
  await sleep(2000);
  const after = await encoded(anna);
  return Object.keys(after).filter((codec) => after[codec] > (before[codec] ?? 0)).sort().join();
}

function subscribe(person, wanted) {
  return person.page.evaluate((on) => {
    for (const participant of window.me.room.remoteParticipants.values()) {
      for (const one of participant.trackPublications.values()) one.setSubscribed(on);
    }
  }, wanted);
}

test("", "who can't decode VP9 gets VP8 of the same track, and nothing is encoded for nobody",
  async ({ world, room }) => {
    const [anna, ben, carla] =
      await Promise.all(["anna", "ben", "carla"].map((name) => world.person(name)));
    await forget(carla, VP9);
    await Promise.all([anna, ben, carla].map((one) => one.join(room)));
    const sid = await anna.call("publishPicture", "picture", css(RED), 640, 360,
      { publish: { videoCodec: "vp9", backupCodec: { codec: "vp8" } } });
    const tiles = await Promise.all([ben, carla].map((one) =>
      one.sees({ ...WHICH, kind: "video" }, { seconds: 20 })));
    expect(tiles.every((tile) => tile.sid === sid), `${tiles.map((tile) => tile.sid)}`);
    for (const [one, mime] of [[ben, VP9], [carla, VP8]]) {
      expect(await codecOf(one, WHICH) === mime, `${one.identity} decodes ${await codecOf(one, WHICH)}`);
      await wide(one, LARGE, 45);
      await one.showsColour(WHICH, RED);
    }
    const published = await ben.call("remote", "anna");
    expect(published.length === 1, `anna has ${published.length} tracks`);
    await carla.call("setQuality", WHICH, LOW);
    await wide(carla, SMALL, 20);
    const rates = [];
    for (const one of [ben, carla]) rates.push((await one.watch(WHICH, 3000)).fps);
    expect(Math.min(...rates) >= FPS, `${rates} frames per second`);
    expect(await busy(anna) === `${VP8},${VP9}`, `anna encodes ${await busy(anna)}`);
    let last;
    for (const [one, left] of [[ben, VP8], [carla, ""]]) {
      await subscribe(one, false);
      await until(async () => (last = await busy(anna)) === left, `anna encodes ${left}`,
        { seconds: 20 }).catch((error) => { throw new Error(`${error.message}, not ${last}`); });
    }
    await subscribe(carla, true);
    await carla.sees({ ...WHICH, kind: "video" }, { seconds: 20 });
    expect(await codecOf(carla, WHICH) === VP8, `carla decodes ${await codecOf(carla, WHICH)}`);
    await Promise.all([anna, ben, carla].map((one) => one.undisturbed()));
    return `${rates.map((rate) => rate.toFixed(1))} frames per second`;
  }, { seconds: 200 });
