// Faults that livekit-client asks for by simulateScenario, as its own test suite does; and with
// their help, video that pauses for want of bandwidth.

import { startDaemon } from "../lib/daemon.mjs";
import { test, expect, sleep, until } from "../lib/harness.mjs";
import { GREEN, RED, css, microphone } from "./call.test.mjs";

const WHICH = { name: "picture" };

/** Runs `story` with anna, who publishes, and ben, on a daemon that simulates. */
async function meet(world, room, story, connect = {}) {
  const daemon = await startDaemon("[http]\nsimulate = true\n");
  try {
    const [anna, ben] = [await world.person("anna", { url: daemon.url }),
      await world.person("ben", { url: daemon.url })];
    await anna.join(room);
    await ben.join(room, {}, { connect });
    await anna.call("publishPicture", "picture", css(RED), 640, 360);
    await anna.call("publishSine", "voice", 440);
    await ben.showsColour(WHICH, RED);
    return await story(anna, ben);
  } finally {
    await world.clear();
    await daemon.stop();
  }
}

function simulate(person, scenario, argument) {
  return person.page.evaluate(([name, value]) =>
    window.me.room.simulateScenario(name, value), [scenario, argument]);
}

async function states(person) {
  return (await person.events("TrackStreamStateChanged")).map((event) => event.with.split(" ")[1]);
}

test("", "a paused video is told as TrackStreamStateChanged, the voice goes on, and it returns",
  ({ world, room }) => meet(world, room, async (anna, ben) => {
    // So plain a picture can take less than 10 kbit/s at its smallest: then it rightly returned.
    await simulate(ben, "subscriber-bandwidth", 1_000);
    await until(async () => (await states(ben)).length === 1, "ben is told", { seconds: 5 });
    expect((await states(ben))[0] === "paused", `it is ${await states(ben)}`);
    await sleep(500);
    const { frames } = await ben.watch(WHICH, 1000);
    expect(frames === 0, `${frames} frames of a paused video`);
    await ben.hears(microphone("anna"));
    await simulate(ben, "subscriber-bandwidth", 0);
    await until(async () => (await states(ben)).length === 2, "ben is told again", { seconds: 5 });
    expect((await states(ben))[1] === "active", `it is ${await states(ben)}`);
    await until(async () => (await ben.watch(WHICH, 500)).frames > 5, "the picture moves");
    await ben.undisturbed();
  }, { subscriberAllowPause: true }), { seconds: 60 });

test("", "ben is back after each fault he asks for, and sees and hears",
  ({ world, room }) => meet(world, room, async (anna, ben) => {
    const took = [];
    for (const scenario of ["disconnect-signal-on-resume",
      "disconnect-signal-on-resume-no-messages", "leave-full-reconnect", "node-failure",
      "migration"]) {
      const count = (await ben.events("Reconnected")).length;
      const began = Date.now();
      await simulate(ben, scenario);
      await until(async () => (await ben.events("Reconnected")).length > count,
        `ben is back after ${scenario}`, { seconds: 30 });
      took.push(`${scenario} ${((Date.now() - began) / 1000).toFixed(1)} s`);
      await until(async () => (await ben.watch(WHICH, 500)).frames > 5,
        `the picture moves after ${scenario}`);
      await ben.hears(microphone("anna"));
    }
    expect(!(await ben.events("Disconnected")).length, "ben was thrown out");
    return took.join(", ");
  }), { seconds: 180 });

test("", "speech and the end of the server are simulated",
  ({ world, room }) => meet(world, room, async (anna, ben) => {
    await ben.call("publishPicture", "mine", css(GREEN), 320, 180);
    await anna.showsColour({ name: "mine" }, GREEN);
    await simulate(ben, "speaker");
    await until(() => anna.page.evaluate(() =>
      window.me.room.activeSpeakers.some(({ identity }) => identity === "ben")),
    "anna sees ben speak", { seconds: 3 });
    await simulate(ben, "server-leave");
    await until(async () => (await ben.events("Disconnected")).length, "ben is out",
      { seconds: 5 });
  }), { seconds: 60 });
