// What nobody may find who reads along, in the log of the whole run at its finest level and in all
// that was counted.

import { test } from "../lib/harness.mjs";

test("MX-13", "no token, user or room is in the log or the metrics of the run",
  async ({ world }) => {
    // Something to be discreet about, if this test runs alone.
    await world.call("compatibility", "anna", "ben");
    return world.keepsSecrets();
  }, { seconds: 120 });
