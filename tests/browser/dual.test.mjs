// The older signalling in Chromium: two peer connections, the second one offered by the server.

import { test, expect, until } from "../lib/harness.mjs";
import { token } from "../lib/token.mjs";
import { startDaemon } from "../lib/daemon.mjs";
import { CODECS, codecOf } from "./codecs.test.mjs";
import { RED, GREEN, BLUE, css, camera, microphone } from "./call.test.mjs";

const DUAL = { singlePeerConnection: false };

async function publish(person, colour, hertz) {
  await person.call("publishPicture", "picture", css(colour), 640, 360);
  await person.call("publishSine", "voice", hertz);
}

async function recognises(viewer, { person, colour, hertz }, seconds = 10) {
  await viewer.showsColour(camera(person.identity), colour, { seconds });
  await viewer.hears(microphone(person.identity), { seconds });
  const tone = await viewer.call("tone", microphone(person.identity));
  expect(Math.abs(tone.hertz - hertz) < 30,
    `${viewer.identity} hears ${tone.hertz} Hz from ${person.identity}, who sends ${hertz} Hz`);
}

/** Peer connections that came up: how many, and how many of them took offers of the server. */
function connections(person) {
  return person.page.evaluate(() => {
    const up = window.peers.filter((peer) => peer.connectionState === "connected");
    const answering = up.filter((peer) => peer.localDescription?.type === "answer");
    return [up.length, answering.length];
  });
}

test("", "with two connections people see and hear each other, and those with one",
  async ({ world, room }) => {
    const people = [
      { person: await world.person("anna"), colour: RED, hertz: 440 },
      { person: await world.person("ben"), colour: GREEN, hertz: 660 },
    ];
    for (const { person, colour, hertz } of people) {
      await person.join(room, DUAL);
      await publish(person, colour, hertz);
    }
    await recognises(people[0].person, people[1]);
    await recognises(people[1].person, people[0]);
    const [up, answering] = await connections(people[0].person);
    expect(up === 2 && answering === 1, `${up} connections, ${answering} of them offered by us`);
    // Later, one of each kind.
    people.push({ person: await world.person("cora"), colour: BLUE, hertz: 990 });
    await people[2].person.join(room, DUAL);
    await recognises(people[2].person, people[0], 5);
    await recognises(people[2].person, people[1], 5);
    const dora = await world.person("dora");
    await dora.join(room);
    await publish(people[2].person, BLUE, 990);
    for (const other of people) await recognises(dora, other);
    await recognises(people[0].person, people[2]);
    for (const { person } of people) await person.undisturbed();
    await dora.undisturbed();
  }, { seconds: 120 });

test("", "with two connections a picture comes back on a section that went quiet",
  async ({ world, room }) => {
    const [anna, ben] = [await world.person("anna"), await world.person("ben")];
    await anna.join(room, DUAL);
    await ben.join(room, DUAL);
    for (const colour of [RED, GREEN, BLUE, RED]) {
      await anna.call("publishPicture", "picture", css(colour), 640, 360);
      await ben.showsColour(camera("anna"), colour);
      await anna.call("unpublish", "picture");
      await until(async () => !(await ben.call("list")).length, "the tile is gone", { seconds: 3 });
    }
    const sections = (await ben.call("sections")).filter((section) => section.kind === "video");
    expect(sections.length <= 2, `${sections.length} video sections for one picture at a time`);
    await anna.undisturbed();
    await ben.undisturbed();
  }, { seconds: 60 });

for (const [codec, mime] of CODECS) {
  test("", `with two connections ${codec} is sent and shown, and to those with one`,
    async ({ world, room }) => {
      const people = [
        { person: await world.person("anna"), colour: RED },
        { person: await world.person("ben"), colour: GREEN },
        { person: await world.person("cora"), colour: BLUE },
      ];
      const publish = { videoCodec: codec, backupCodec: false };
      for (const [index, { person, colour }] of people.entries()) {
        await person.join(room, index < 2 ? DUAL : {});
        await person.call("publishPicture", "picture", css(colour), 320, 180, { publish, fps: 15 });
      }
      const rates = [];
      for (const { person: viewer } of people) {
        for (const { person: { identity }, colour } of people) {
          if (identity === viewer.identity) continue;
          await viewer.showsColour(camera(identity), colour, { seconds: 20 });
          const found = await codecOf(viewer, camera(identity));
          expect(found === mime, `${viewer.identity} decodes ${found} of ${identity}`);
          rates.push((await viewer.watch(camera(identity), 2000)).fps);
        }
      }
      expect(Math.min(...rates) >= 8, `${rates} frames per second`);
      const up = await Promise.all(people.map(({ person }) => connections(person)));
      expect(`${up}` === "2,1,2,1,1,0", `connections, and those offered to: ${up}`);
      for (const { person } of people) await person.undisturbed();
      return `${rates.map((rate) => rate.toFixed(1))} frames per second`;
    }, { seconds: 90 });
}

test("LK-09", "with v1 off the client falls back to two connections", async ({ world, room }) => {
  const daemon = await startDaemon("[http]\nv1 = false\n");
  try {
    const [anna, ben] = [await world.person("anna", { url: daemon.url }),
      await world.person("ben", { url: daemon.url })];
    await anna.join(room);
    await ben.join(room);
    await publish(anna, RED, 440);
    await recognises(ben, { person: anna, colour: RED, hertz: 440 });
    expect((await connections(ben))[1] === 1, "no connection was offered by the server");
    await Promise.all([anna.call("leave"), ben.call("leave")]);
  } finally {
    await daemon.stop();
  }
}, { seconds: 60 });

test("LK-08", "an absent room that may not be made is status 404 for the client",
  async ({ world, room }) => {
    const daemon = await startDaemon("[rooms]\nauto_create = false\n");
    try {
      const anna = await world.person("anna", { url: daemon.url });
      for (const options of [{}, DUAL]) {
        const error = await anna.page.evaluate(([url, access, wish]) =>
          window.me.join(url, access, wish).then(() => null, (e) => ({
            status: e.status, message: e.message,
          })), [daemon.url, token(room, "anna"), options]);
        expect(error?.status === 404, `the client says ${JSON.stringify(error)}`);
      }
    } finally {
      await daemon.stop();
    }
  });
