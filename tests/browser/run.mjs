// Runs the browser suite against the daemon at TEST_URL.

import { run } from "../lib/harness.mjs";
import { World } from "./world.mjs";
import "./call.test.mjs";
import "./negotiation.test.mjs";
import "./layers.test.mjs";
import "./clients.test.mjs";
import "./dual.test.mjs";
import "./notices.test.mjs";
import "./simulate.test.mjs";
import "./codecs.test.mjs";
import "./cuts.test.mjs";
import "./sealed.test.mjs";
import "./backup.test.mjs";
import "./tcp.test.mjs";
import "./beside.test.mjs";

let world;
let count = 0;

const failed = await run("browser", {
  // A room of its own for every test; one browser for all of them.
  async before() {
    world ??= await World.open();
    count += 1;
    return { world, room: `room-${process.pid}-${count}` };
  },
  async after() {
    await world?.clear();
  },
});
await world?.close();
process.exit(failed ? 3 : 0);
