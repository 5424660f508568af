// What somebody sees who isn't let in.

import { test, expect } from "../lib/harness.mjs";

/** How long Element Call may try before it shows its error screen. */
const ERROR_WITHIN = 60_000;

/** What its error screen is headed when `person` has tried to join. */
async function refusal(world, person, label) {
  await person.lobby("compatibility");
  await person.join();
  const heading = person.page.frameLocator("iframe").getByRole("heading").first();
  await heading.waitFor({ timeout: ERROR_WITHIN });
  await world.photograph(label);
  return heading.textContent();
}

/** Runs `body` while the daemon has another configuration. */
async function otherwise(world, env, body) {
  await world.restart(env);
  try {
    return await body();
  } finally {
    await world.restart();
  }
}

test("MX-44", "who doesn't fit into the room is told so", ({ world }) =>
  otherwise(world, { STELLWERK_LIMITS_PARTICIPANTS_PER_ROOM: "1" }, async () => {
    const [anna, ben] = await world.people("anna", "ben");
    await anna.lobby("compatibility");
    await anna.join();
    await anna.connected();
    const said = await refusal(world, ben, "full");
    expect(/Failed to connect|capacity/.test(said), `it says: ${said}`);
    return `Element Call says: ${said}`;
  }), { seconds: 180 });

test("MX-14", "who may not open calls is told so", ({ world }) =>
  otherwise(world, { STELLWERK_MATRIX_FULL_ACCESS: "elsewhere.example" }, async () => {
    const [anna] = await world.people("anna");
    const said = await refusal(world, anna, "restricted");
    expect(/Failed/.test(said), `it says: ${said}`);
    return `Element Call says: ${said}`;
  }), { seconds: 180 });
