// Calls as they should go.

import { cpus, loadavg } from "node:os";
import { test, expect } from "../lib/harness.mjs";
import { MODES } from "./site.mjs";

/** What the figures have to be on an idle machine, in milliseconds. */
const FIRST_PICTURE = 3000;
const HANG_UP = 1000;

/** How much longer it may take here: twice, or more where many wait for each CPU. */
const patience = () => Math.max(2, loadavg()[0] / cpus().length);

for (const mode of MODES) {
  test("MX-45 MX-06", `two users, ${mode}: pictures, sound, hang-up`, async ({ world }) => {
    const [anna, ben] = await world.people("anna", "ben");
    await anna.lobby(mode);
    await anna.join();
    await ben.lobby(mode);
    const [pressed, seen] = await Promise.all([ben.join(), ben.firstFrame()]);
    await Promise.all([anna.meets(1), ben.meets(1)]);
    await world.photograph(`two-${mode}`);
    const gone = anna.tilesAre(1, 30);
    const left = await ben.hangUp();
    const [first, after] = [seen - pressed, await gone - left];
    expect(first < patience() * FIRST_PICTURE, `the first picture after ${first} ms`);
    expect(after < patience() * HANG_UP, `ben is gone ${after} ms after he hung up`);
    return `first picture after ${first} ms, gone after ${after} ms`;
  }, { seconds: 180 });
}
