// What somebody sees who isn't let in.

import { test, expect } from "../lib/harness.mjs";

/** How long Element Call may try before it shows its error screen. */
const ERROR_WITHIN = 60_000;

test("MX-44", "who doesn't fit into the room is told so", async ({ world }) => {
  await world.restart({ PARTICIPANTS_PER_ROOM: 1 });
  try {
    const [anna, ben] = await world.people("anna", "ben");
    await anna.lobby("compatibility");
    await anna.join();
    await anna.connected();
    await ben.lobby("compatibility");
    await ben.join();
    const heading = ben.page.frameLocator("iframe").getByRole("heading").first();
    await heading.waitFor({ timeout: ERROR_WITHIN });
    await world.photograph("full");
    const said = await heading.textContent();
    expect(/Failed to connect|capacity/.test(said), `it says: ${said}`);
    return `Element Call says: ${said}`;
  } finally {
    await world.restart();
  }
}, { seconds: 180 });
