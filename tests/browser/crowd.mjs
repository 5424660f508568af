// One Chromium in a room with eleven others, who are wheels in a process of their own: whether a
// browser that decodes everybody on a small machine sees everybody move.
//
// The wheels only send. Twelve people who all decode eleven others would be 132 decoders on the
// machine that also encodes everything and runs the server; here that is one person's share.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";

import { test, run, expect, sleep, until } from "../lib/harness.mjs";
import { World } from "./world.mjs";

const OTHERS = 11;
const SECONDS = process.env.TEST_LONG ? 60 : 20;
const TICKS = 100; // of /proc/PID/stat, in a second

/** Seconds of processor time that a process and its children have used. */
function cpu(pid) {
  let children = "";
  try {
    children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
    const own = (Number(fields[11]) + Number(fields[12])) / TICKS;
    return children.split(" ").filter(Boolean).reduce((sum, child) => sum + cpu(child), own);
  } catch {
    return 0; // it has ended meanwhile
  }
}

/** Starts the wheels; resolves when all of them send. */
async function crowd(room) {
  const script = new URL("../python/crowd.py", import.meta.url).pathname;
  const child = spawn(process.env.PYTHON, [script, room, String(OTHERS)],
    { stdio: ["pipe", "pipe", "inherit"] });
  let said = "";
  child.stdout.on("data", (text) => { said += text; });
  await until(() => said.includes("ready") || child.exitCode !== null, "all wheels send",
    { seconds: 60 });
  expect(child.exitCode === null, `the wheels ended with ${child.exitCode}`);
  return child;
}

test("", `Chromium decodes ${OTHERS} wheels at 320x180 for ${SECONDS} s`,
  async ({ world, room }) => {
    const wheels = await crowd(room);
    try {
      const anna = await world.person("anna");
      await anna.page.evaluate(() => Object.assign(window, { tileWidth: 320, tileHeight: 180 }));
      await anna.join(room);
      await until(async () => (await anna.call("list"))
        .filter((tile) => tile.kind === "video" && tile.frames > 0).length === OTHERS,
      "anna sees everybody", { seconds: 20 });
      const who = Array.from({ length: OTHERS }, (_, i) => `wheel-${i}`);
      const all = (method, ...args) => Promise.all(who.map((identity) =>
        anna.call(method, { identity, kind: "video" }, ...args)));
      const usage = () => [process.env.TEST_PID, wheels.pid, process.pid].map(cpu);

      const [before, used, from] = [await all("stats"), usage(), await anna.call("now")];
      await sleep(SECONDS * 1000);
      const [after, spent, to] = [await all("stats"), usage(), await anna.call("now")];
      const seen = await all("seen", from, to);

      const rates = who.map((_, i) => (after[i].framesDecoded - before[i].framesDecoded) * 1000 /
        (after[i].timestamp - before[i].timestamp));
      const gap = Math.max(...seen.map((each) => each.gap));
      const frozen = Math.max(...who.map((_, i) =>
        (after[i].totalFreezesDuration ?? 0) - (before[i].totalFreezesDuration ?? 0)));
      const shares = spent.map((seconds, i) =>
        Math.round((seconds - used[i]) * 100000 / (to - from)));
      for (const [i, { frameWidth, frameHeight }] of after.entries()) {
        const size = `${frameWidth}x${frameHeight}`;
        expect(size === "320x180", `the picture of ${who[i]} is ${size}`);
        await anna.hears({ identity: who[i] }, { seconds: 3 });
      }
      const text = `slowest ${Math.min(...rates).toFixed(1)} fps, longest gap ` +
        `${gap.toFixed(0)} ms, most frozen ${frozen.toFixed(2)} s; processor: server ` +
        `${shares[0]} %, wheels ${shares[1]} %, Chromium ${shares[2]} % of a core`;
      expect(Math.min(...rates) >= 10, `${text}: a picture below 10 fps`);
      expect(gap <= 2000, `${text}: a freeze above 2 s`);
      await anna.undisturbed();
      return text;
    } finally {
      wheels.stdin.end();
      await until(() => wheels.exitCode !== null, "the wheels end").catch(() => wheels.kill());
    }
  }, { seconds: 180 });

let world;
const failed = await run("crowd", {
  async before() {
    world = await World.open();
    return { world, room: `crowd-${process.pid}` };
  },
  after: () => world.close(),
});
process.exit(failed ? 3 : 0);
