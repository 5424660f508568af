// What a client does with the notices of a call: dynacast, active speakers, connection quality.

import { test, expect, until } from "../lib/harness.mjs";
import { RED, css, microphone } from "./call.test.mjs";

const WHICH = { name: "picture" };
const LOW = 0;
const HIGH = 2;
// Seconds until Chromium sends its top layer; see layers.test.mjs.
const RAMP = 45;

/** Frames that anna's browser has sent of each layer so far, by RID. */
async function framesSent(anna) {
  const layers = await anna.call("sending");
  return Object.fromEntries(layers.map(({ rid, framesSent: count }) => [rid, count ?? 0]));
}

/** Waits until the top layer is sent (or is not): frames are counted over half a second. */
function sendsTopLayer(anna, wanted, seconds) {
  return until(async () => {
    const before = await framesSent(anna);
    await anna.page.waitForTimeout(500);
    return ((await framesSent(anna)).f > before.f) === wanted;
  }, `the top layer is ${wanted ? "" : "not "}sent`, { seconds });
}

async function width(ben, pixels, seconds) {
  const from = Date.now();
  await until(async () =>
    (await ben.call("list")).find((t) => t.name === "picture")?.size?.[0] === pixels,
  `a picture ${pixels} wide`, { seconds });
  return Date.now() - from;
}

test("LK-45", "dynacast: a layer nobody wants is not sent, and is back when somebody does",
  async ({ world, room }) => {
    const [anna, ben] = [await world.person("anna"), await world.person("ben")];
    await Promise.all([anna.join(room, { dynacast: true }), ben.join(room)]);
    await anna.call("publishPicture", "picture", css(RED), 1280, 720);
    await width(ben, 1280, RAMP);
    const notes = [];
    for (let round = 0; round < 2; round += 1) {
      await ben.call("setQuality", WHICH, LOW);
      const asked = Date.now();
      await width(ben, 320, 6);
      await sendsTopLayer(anna, false, 9);
      const took = Date.now() - asked;
      expect(took > 4500, `the top layer ended after ${took} ms already`);
      await ben.call("setQuality", WHICH, HIGH);
      notes.push(`off after ${took} ms, back after ${await width(ben, 1280, 8)} ms`);
    }
    await Promise.all([anna.undisturbed(), ben.undisturbed()]);
    return notes.join("; ");
  }, { seconds: 120 });

test("LK-48", "who speaks is an active speaker, for others and for itself",
  async ({ world, room }) => {
    const [anna, ben] = [await world.person("anna"), await world.person("ben")];
    await Promise.all([anna.join(room), ben.join(room)]);
    const speakers = (person) => person.page.evaluate(() =>
      window.me.room.activeSpeakers.map(({ identity, audioLevel }) => [identity, audioLevel]));
    await anna.call("publishSine", "voice", 440);
    await ben.hears(microphone("anna"));
    for (const person of [ben, anna]) {
      const [identity, level] = await until(async () => (await speakers(person))[0],
        `${person.identity} sees a speaker`, { seconds: 2 });
      expect(identity === "anna", `${identity} speaks, it is said`);
      expect(level > 0 && Number.isInteger(level * 8), `at a level of ${level}`);
    }
    await anna.page.evaluate(() => window.me.room.localParticipant.setMicrophoneEnabled(false));
    for (const person of [ben, anna]) {
      await until(async () => !(await speakers(person)).length,
        `${person.identity} sees that nobody speaks`, { seconds: 2 });
    }
  });

test("LK-49", "a paused upstream is no lost connection: no reconnect for half a minute",
  async ({ world, room }) => {
    const [anna, ben] = [await world.person("anna"), await world.person("ben")];
    await Promise.all([anna.join(room), ben.join(room)]);
    await anna.call("publishSine", "voice", 440);
    await anna.call("publishPicture", "picture", css(RED), 640, 360);
    await ben.hears(microphone("anna"));
    const quality = (person) => person.page.evaluate(() => (window.me.room.remoteParticipants
      .get("anna") ?? window.me.room.localParticipant).connectionQuality);
    for (const person of [anna, ben]) {
      await until(async () => (await quality(person)) === "excellent",
        `${person.identity} sees an excellent connection`, { seconds: 12 });
    }
    const upstream = (method) => anna.page.evaluate(async (name) => {
      const { trackPublications } = window.me.room.localParticipant;
      for (const { track } of trackPublications.values()) await track[name]();
    }, method);
    await upstream("pauseUpstream");
    for (let second = 0; second < 30; second += 1) {
      await anna.page.waitForTimeout(1000);
      for (const person of [anna, ben]) {
        const now = await quality(person);
        expect(now !== "lost", `after ${second} s ${person.identity} sees it ${now}`);
      }
    }
    await upstream("resumeUpstream");
    await ben.hears(microphone("anna"));
    const from = await ben.call("now");
    await until(async () => (await ben.call("seen", WHICH, from, from + 9000)).frames > 10,
      "the picture is back", { seconds: 8 });
    await Promise.all([anna.undisturbed(), ben.undisturbed()]);
  }, { seconds: 90 });
