// Calls as they should go.

import { test, expect } from "../lib/harness.mjs";
import { patience } from "./patience.mjs";
import { MODES } from "./site.mjs";

/** What the figures have to be on an idle machine, in milliseconds. */
const FIRST_PICTURE = 3000;
const HANG_UP = 1000;
/** The time in pieces, in each of which every picture has to go on, in milliseconds. */
const WINDOW = 5000;
const WINDOWS = process.env.TEST_LONG ? 12 : 4;

for (const mode of MODES) {
  test("MX-45 MX-06", `two users, ${mode}: pictures, sound, hang-up`, async ({ world }) => {
    const [anna, ben] = await world.people("anna", "ben");
    await anna.lobby(mode);
    await anna.join();
    await ben.lobby(mode);
    const [pressed, picture] = await Promise.all([ben.join(), ben.firstPicture()]);
    await Promise.all([anna.meets(1), ben.meets(1)]);
    await world.photograph(`two-${mode}`);
    const [arrived, first] = [picture.arrived - pressed, picture.seen - pressed];
    const after = await anna.tilesAre(1, ben.hangUp(), 30);
    expect(first < patience() * FIRST_PICTURE, `the first picture after ${first} ms`);
    expect(after < patience() * HANG_UP, `ben is gone ${after} ms after he hung up`);
    return `first picture here after ${arrived} ms, seen after ${first} ms; gone after ${after} ms`;
  }, { seconds: 180 });
}

test("MX-45", "three users see and hear each other all the time",
  async ({ world }) => {
    const people = await world.call("matrix_2_0", "anna", "ben", "cleo");
    await world.photograph("three");
    for (let window = 0; window < WINDOWS; window += 1) {
      const seen = await Promise.all(people.map((person) => person.seesAndHears(WINDOW)));
      expect(seen.every((others) => others === 2), `window ${window}: they saw ${seen} others`);
    }
    const heights = (await Promise.all(people.map((person) => person.received()))).flat()
      .filter((line) => line.kind === "video").map((line) => line.height);
    return `lines of the pictures: ${heights}`;
  }, { seconds: 240 });
