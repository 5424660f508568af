// Calls encrypted from end to end by livekit-client's own worker, under a key that the server never
// has: it switches layers of what it can't read.

import { test, expect, sleep, until } from "../lib/harness.mjs";
import { RED, BLUE, css, camera, microphone } from "./call.test.mjs";

const WHICH = { name: "picture" };
const LOW = 0;
const HIGH = 2;
// Chromium makes two sizes of a picture of 640x360. It takes a while until it sends the large one.
const [SMALL, LARGE] = [320, 640];
const RAMP = 45;
const FPS = 10;

async function enters(world, room, identity, key) {
  const person = await world.person(identity);
  await person.join(room, { key });
  return person;
}

async function present(person, colour, hertz) {
  await person.call("publishPicture", "picture", css(colour), 640, 360);
  await person.call("publishSine", "voice", hertz);
}

/** Waits for a picture that wide which is also right; gives its frames per second. */
async function right(viewer, other, pixels, colour, seconds) {
  const which = { ...WHICH, identity: other };
  await until(async () => (await viewer.call("stats", which))?.frameWidth === pixels,
    `${viewer.identity} decodes ${pixels} pixels of ${other}`, { seconds });
  await viewer.showsColour(camera(other), colour, { seconds: 2 });
  const { fps } = await viewer.watch(which, 2000);
  expect(fps >= FPS, `${viewer.identity} sees ${fps.toFixed(1)} fps of ${other}`);
  return fps;
}

test("LK-73", "livekit-client's worker encrypts: the same key opens all layers, another nothing",
  async ({ world, room }) => {
    const anna = await enters(world, room, "anna", "a key nobody else has");
    const ben = await enters(world, room, "ben", "a key nobody else has");
    await Promise.all([present(anna, RED, 440), present(ben, BLUE, 660)]);
    await anna.showsColour(camera("ben"), BLUE);
    await anna.hears(microphone("ben"));
    await ben.hears(microphone("anna"));
    const { hertz } = await ben.call("tone", microphone("anna"));
    expect(Math.abs(hertz - 440) < 30, `ben hears ${hertz} Hz, anna sends 440 Hz`);
    const announced = await ben.page.evaluate(() =>
      [...window.me.room.remoteParticipants.get("anna").trackPublications.values()]
        .map((publication) => publication.isEncrypted));
    expect(`${announced}` === "true,true", `anna's tracks are announced as ${announced}`);
    const rates = [await right(ben, "anna", LARGE, RED, RAMP)];
    for (const [quality, pixels] of [[LOW, SMALL], [HIGH, LARGE], [LOW, SMALL], [HIGH, LARGE]]) {
      await ben.call("setQuality", WHICH, quality);
      rates.push(await right(ben, "anna", pixels, RED, 10));
    }
    const stats = await ben.call("stats", camera("anna"));
    expect(stats.packetsLost === 0, `${stats.packetsLost} packets are missed`);
    const eve = await enters(world, room, "eve", "a guess");
    const received = async (which) => (await eve.call("stats", which))?.packetsReceived > 100;
    await until(async () => (await received(camera("anna"))) && received(microphone("anna")),
      "eve receives what she cannot open");
    await sleep(2000);
    const shown = (await eve.call("list")).filter((tile) => tile.frames).map((t) => t.identity);
    expect(!shown.length, `eve sees ${shown}`);
    const energy = (await eve.call("stats", microphone("anna"))).totalAudioEnergy;
    expect(energy < 1e-4, `eve hears energy ${energy}`);
    await anna.undisturbed();
    await ben.undisturbed();
    return `${rates.map((rate) => rate.toFixed(1))} fps through the switches`;
  }, { seconds: 120 });
