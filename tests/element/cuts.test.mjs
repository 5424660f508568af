// Calls that are cut: a tab that dies, one that is loaded anew, a daemon that is killed.

import { test, expect, sleep } from "../lib/harness.mjs";
import { MODES } from "./site.mjs";

/** What a killed tab may take to be gone for the others; livekit-server takes 22 s. */
const GHOST = 8000;
/** A daemon that comes back after this long a pause, and how long the call may take then. */
const DOWN = 1000;
const BACK_WITHIN = 60;

for (const mode of MODES) {
  test("MX-35", `who has a killed tab is gone for the others, ${mode}`, async ({ world }) => {
    const [anna, ben] = await world.call(mode, "anna", "ben");
    const after = await anna.tilesAre(1, ben.kill(), 60);
    expect(after < GHOST, `ben's ghost stays for ${after} ms`);
    return `gone after ${after} ms`;
  }, { seconds: 180 });
}

test("MX-45", "who loads the page anew is back, once", async ({ world }) => {
  const [anna, ben] = await world.call("compatibility", "anna", "ben");
  await ben.reload();
  await ben.lobby("compatibility");
  await ben.join();
  await Promise.all([anna.meets(1), ben.meets(1)]);
  const tiles = await anna.tiles();
  expect(tiles === 2, `anna has ${tiles} tiles`);
}, { seconds: 180 });

test("MX-38 MX-45", "a call whose daemon was killed comes back by itself", async ({ world }) => {
  const people = await world.call("compatibility", "anna", "ben");
  world.pages += await world.stellwerk.scrape();
  await world.stellwerk.stop("SIGKILL");
  await sleep(DOWN);
  await world.stellwerk.start();
  const started = Date.now();
  await Promise.all(people.map((person) => person.meets(1, { seconds: BACK_WITHIN })));
  const after = Date.now() - started;
  await world.photograph("restarted");
  const tiles = await Promise.all(people.map((person) => person.tiles()));
  expect(tiles.every((count) => count === 2), `tiles: ${tiles}`);
  return `back after ${after} ms`;
}, { seconds: 180 });
