// Simulcast: the layer follows what the viewer's element needs, without a visible seam.

import { test, expect, until } from "../lib/harness.mjs";
import { RED, css } from "./call.test.mjs";

const WHICH = { name: "picture" };
const LOW = 0;
const MEDIUM = 1;
const HIGH = 2;
// Seconds until Chromium sends its top layer. Mostly one, when the first probes of its estimator
// succeed; about thirty when they don't (busy machine) and it has to grow by 8 % a second.
const RAMP = 45;

/** anna sends 1280x720 in three layers, ben watches. */
async function pair(world, room, roomOptions) {
  const [anna, ben] = [await world.person("anna"), await world.person("ben")];
  await Promise.all([anna.join(room), ben.join(room, roomOptions)]);
  await ben.page.evaluate(() => Object.assign(window, { tileWidth: 1280, tileHeight: 720 }));
  await anna.call("publishPicture", "picture", css(RED), 1280, 720);
  await ben.sees({ ...WHICH, kind: "video" });
  return [anna, ben];
}

/** Waits until ben's decoder gives pictures of that width; gives the milliseconds it took. */
async function width(ben, pixels, seconds = 10) {
  const from = Date.now();
  let last;
  await until(async () => {
    last = (await ben.call("list")).find((t) => t.name === "picture")?.size;
    return last?.[0] === pixels;
  }, `a picture ${pixels} wide`, { seconds })
    .catch((error) => { throw new error.constructor(`${error.message}, it is ${last}`); });
  return Date.now() - from;
}

test("LK-44", "the layer follows the size of the element, both ways", async ({ world, room }) => {
  const [, ben] = await pair(world, room, { adaptiveStream: true });
  const resize = (w, h) => ben.page.evaluate(([a, b]) =>
    window.me.tile({ name: "picture" }).resize(a, b), [w, h]);
  await width(ben, 1280, RAMP);
  const took = [];
  for (let round = 0; round < 2; round += 1) {
    await resize(160, 90);
    took.push(await width(ben, 320, 6));
    await resize(1280, 720);
    took.push(await width(ben, 1280, 6));
  }
  await resize(640, 360);
  took.push(await width(ben, 640, 6));
  await ben.undisturbed();
  return `switches took ${took} ms`;
}, { seconds: 150 });

test("LK-44", "a disabled track stops within 300 ms and is back within 1 s",
  async ({ world, room }) => {
    const [, ben] = await pair(world, room);
    await width(ben, 1280, RAMP);
    const notes = [];
    for (let round = 0; round < 3; round += 1) {
      const diary = ben.call("arrivals", WHICH, 1500);
      await ben.page.waitForTimeout(200);
      const off = await ben.call("setEnabled", WHICH, false);
      const packets = await diary;
      const total = packets.at(-1)[1];
      const last = packets.find(([, count]) => count === total)[0] - off;
      expect(packets[0][1] < total, "no packets came even before");
      expect(last < 300, `packets came until ${last.toFixed(0)} ms after disabling`);
      const keys = packets.at(-1)[2];
      const on = await ben.call("setEnabled", WHICH, true);
      await until(async () => (await ben.call("stats", WHICH)).keyFramesDecoded > keys,
        "a key frame after enabling", { seconds: 1, every: 20 });
      await until(async () => (await ben.call("seen", WHICH, on, on + 2000)).frames > 3,
        "frames after enabling", { seconds: 1, every: 20 });
      notes.push(last.toFixed(0));
    }
    return `last packet ${notes} ms after disabling`;
  }, { seconds: 120 });

test("LK-36", "the layers q, h, f are low, medium and high; two layers are low and high",
  async ({ world, room }) => {
    const [anna, ben] = await pair(world, room);
    const set = (quality) => ben.call("setQuality", WHICH, quality);
    await width(ben, 1280, RAMP);
    await set(LOW);
    await width(ben, 320);
    await set(MEDIUM);
    await width(ben, 640);
    await set(HIGH);
    await width(ben, 1280);
    await anna.call("unpublish", "picture");
    await until(async () => !(await ben.call("list")).length, "the tile is gone", { seconds: 3 });
    await anna.call("publishPicture", "picture", css(RED), 640, 360);
    await width(ben, 640, RAMP);
    const rids = (await anna.call("sending")).map((layer) => layer.rid).sort();
    expect(`${rids}` === "h,q", `the browser sends the layers ${rids}, expected two`);
    await set(LOW);
    await width(ben, 320);
    await set(HIGH);
    await width(ben, 640);
  }, { seconds: 150 });

test("LK-70", "ten switches of layer: no freeze, no decoder error, nothing lost",
  async ({ world, room }) => {
    const [, ben] = await pair(world, room);
    await width(ben, 1280, RAMP);
    const before = await ben.call("stats", WHICH);
    const from = await ben.call("now");
    for (let round = 0; round < 10; round += 1) {
      const quality = [LOW, HIGH, MEDIUM, LOW, MEDIUM, HIGH][round % 6];
      await ben.call("setQuality", WHICH, quality);
      await width(ben, [320, 640, 1280][quality], 6);
      await ben.page.waitForTimeout(300);
    }
    const to = await ben.call("now");
    const after = await ben.call("stats", WHICH);
    const seen = await ben.call("seen", WHICH, from, to);
    const grown = (field) => (after[field] ?? 0) - (before[field] ?? 0);
    const text = `${seen.fps.toFixed(1)} fps, longest gap ${seen.gap.toFixed(0)} ms, ` +
      `freezes ${grown("freezeCount")}, dropped ${grown("framesDropped")}, ` +
      `lost ${grown("packetsLost")}, PLI ${grown("pliCount")}`;
    expect(grown("framesDecoded") > 0 && seen.gap <= 500, text);
    expect(grown("freezeCount") === 0, `${text}: the browser counted a freeze`);
    expect(grown("packetsLost") <= 0, `${text}: gaps in the sequence numbers`);
    // A decoder that cannot follow asks for a key frame.
    expect(grown("pliCount") <= 1, `${text}: the decoder asked for key frames`);
    await ben.undisturbed();
    return text;
  }, { seconds: 150 });
