// Many tracks, and tracks that come and go: sections, renegotiation, and that each one shows the
// content of the track it claims to be.

import { test, expect, until } from "../lib/harness.mjs";
import { RED, GREEN, BLUE, css, camera } from "./call.test.mjs";

/** Ten colours that compression does not confuse. */
const COLOURS = [
  [220, 30, 30], [30, 170, 30], [30, 30, 220], [210, 210, 30], [30, 200, 200],
  [200, 30, 200], [230, 110, 30], [120, 120, 120], [20, 20, 20], [230, 230, 230],
];

test("LK-42 LK-22", "10 pictures and 10 tones are each what their name says",
  async ({ world, room }) => {
    const [anna, ben] = [await world.person("anna"), await world.person("ben")];
    await Promise.all([anna.join(room), ben.join(room)]);
    await ben.page.evaluate(() => Object.assign(window, { tileWidth: 160, tileHeight: 90 }));
    const tones = COLOURS.map((_, i) => 300 + 170 * i);
    // At once: the server sees many pending tracks of the same kind and must tell them apart.
    await Promise.all(COLOURS.flatMap((colour, i) => [
      anna.call("publishPicture", `picture ${i}`, css(colour), 160, 90,
        { fps: 8, publish: { simulcast: false, source: "unknown" } }),
      anna.call("publishSine", `tone ${i}`, tones[i], { source: "unknown" }),
    ]));
    await until(async () => (await ben.call("list")).length === 20,
      "ben has 20 tiles", { seconds: 20 });
    for (const [i, colour] of COLOURS.entries()) {
      await ben.showsColour({ name: `picture ${i}` }, colour, { seconds: 15, tolerance: 45 });
    }
    for (const [i, hertz] of tones.entries()) {
      const heard = await ben.call("tone", { name: `tone ${i}` });
      expect(Math.abs(heard.hertz - hertz) < 30, `tone ${i} is ${heard.hertz} Hz, not ${hertz}`);
    }
    await anna.undisturbed();
    await ben.undisturbed();
  }, { seconds: 120 });

test("LK-33", "two cameras published at once keep their own pictures", async ({ world, room }) => {
  const [anna, ben] = [await world.person("anna"), await world.person("ben")];
  await Promise.all([anna.join(room), ben.join(room)]);
  await Promise.all([
    anna.call("publishPicture", "left", css(RED), 640, 360),
    anna.call("publishPicture", "right", css(BLUE), 640, 360),
    anna.call("publishPicture", "small", css(GREEN), 160, 90, { publish: { simulcast: false } }),
  ]);
  await ben.showsColour({ name: "left" }, RED);
  await ben.showsColour({ name: "right" }, BLUE);
  await ben.showsColour({ name: "small" }, GREEN);
});

test("LK-24", "the section of an ended track is used again by a later one",
  async ({ world, room }) => {
    const [anna, ben] = [await world.person("anna"), await world.person("ben")];
    await Promise.all([anna.join(room), ben.join(room)]);
    const colours = [RED, GREEN, BLUE];
    let sections;
    for (let round = 0; round < 9; round += 1) {
      const name = `picture ${round}`;
      await anna.call("publishPicture", name, css(colours[round % 3]), 320, 180,
        { publish: { simulcast: false } });
      await ben.showsColour({ name }, colours[round % 3]);
      await anna.call("unpublish", name);
      await until(async () => !(await ben.call("list")).length, `tile ${name} is gone`,
        { seconds: 3 });
      const video = (await ben.call("sections")).filter((s) => s.kind === "video").length;
      sections ??= video;
      expect(video === sections, `ben had ${sections} video sections, now ${video}`);
    }
    await ben.undisturbed();
    return `${sections} video sections after 9 tracks`;
  });

test("LK-27", "ten renegotiations beside a simulcast camera raise no SDP error",
  async ({ world, room }) => {
    const [anna, ben] = [await world.person("anna"), await world.person("ben")];
    await Promise.all([anna.join(room), ben.join(room)]);
    await anna.call("publishPicture", "main", css(RED), 1280, 720);
    await ben.showsColour({ name: "main" }, RED);
    const before = await anna.page.evaluate(() => window.offers);
    for (let round = 0; round < 5; round += 1) {
      await anna.call("publishPicture", "extra", css(GREEN), 640, 360);
      await ben.showsColour({ name: "extra" }, GREEN);
      await anna.call("unpublish", "extra");
      await until(async () => (await ben.call("list")).length === 1, "the extra tile is gone",
        { seconds: 3 });
    }
    const offers = (await anna.page.evaluate(() => window.offers)) - before;
    expect(offers >= 10, `only ${offers} renegotiations happened`);
    const watched = await ben.watch({ name: "main" }, 2000);
    expect(watched.fps >= 10, `the camera runs at ${watched.fps} fps afterwards`);
    const answer = await anna.page.evaluate(() =>
      window.peers.at(-1).currentRemoteDescription.sdp);
    expect(/a=simulcast:recv/.test(answer) &&
      /sdes:rtp-stream-id/.test(answer) && /sdes:repaired-rtp-stream-id/.test(answer),
    "the answer lacks simulcast or the rid extensions");
    await anna.undisturbed();
    await ben.undisturbed();
    return `${offers} offers`;
  }, { seconds: 90 });

test("LK-26", "publishing in quick succession ends with every track on the air",
  async ({ world, room }) => {
    const [anna, ben] = [await world.person("anna"), await world.person("ben")];
    await Promise.all([anna.join(room), ben.join(room)]);
    // Not awaited one after the other: offers overtake each other's answers.
    await anna.page.evaluate(async (colours) => {
      const all = [];
      for (const [i, colour] of colours.entries()) {
        all.push(window.me.publishPicture(`picture ${i}`, colour, 160, 90,
          { publish: { simulcast: false } }));
        await new Promise((done) => setTimeout(done, 25));
      }
      await Promise.all(all);
    }, [RED, GREEN, BLUE].map(css));
    await ben.showsColour({ name: "picture 0" }, RED);
    await ben.showsColour({ name: "picture 1" }, GREEN);
    await ben.showsColour({ name: "picture 2" }, BLUE);
    await anna.undisturbed();
  });

test("", "a token that may only watch sees, and cannot publish", async ({ world, room }) => {
  const [anna, ben] = [await world.person("anna"), await world.person("ben")];
  await anna.join(room);
  await ben.join(room, {}, { grants: { canPublish: false } });
  await anna.call("publishPicture", "picture", css(RED), 640, 360);
  await ben.showsColour(camera("anna"), RED);
  const refused = await ben.call("publishPicture", "picture", css(BLUE), 320, 180)
    .then(() => null, (error) => error.message);
  expect(refused, "ben published without the right to");
  expect(!(await anna.call("remote", "ben")).length, "anna sees a track of ben");
}, { seconds: 40 });
