// Runs the suite with the real Element Call and the real Synapse; the daemon is TEST_BIN.

import { run } from "../lib/harness.mjs";
import { World } from "./world.mjs";
import "./call.test.mjs";
import "./sealed.test.mjs";
import "./cuts.test.mjs";
import "./appservice.test.mjs";
import "./refusal.test.mjs";
// The last one: it looks at what all of them left behind.
import "./secrets.test.mjs";

let opening;
let world;

const failed = await run("element", {
  async before() {
    opening ??= World.open();
    world = await opening;
    return { world };
  },
  async after(test) {
    await world?.photograph(`last of ${test.name.replace(/\W+/g, "-").slice(0, 40)}`);
    await world?.clear();
  },
});
await world?.close();
process.exit(failed ? 3 : 0);
