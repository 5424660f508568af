// What nobody may find who reads along: the daemon's log of the whole run, at its finest level,
// and all it counted.

import { readFile } from "node:fs/promises";
import { test, expect } from "../lib/harness.mjs";

test("MX-13", "no token, user or room is in the log or the metrics of the run",
  async ({ world }) => {
    const [anna] = await world.people("anna");
    await anna.lobby("compatibility");
    await anna.join();
    await anna.connected();
    const pages = world.pages + await world.stellwerk.scrape();
    const log = await readFile(world.stellwerk.log, "utf8");
    expect(/joined/.test(log) && /stellwerk_/.test(pages), "no log, or no metrics");
    const kinds = new Set(world.secrets.all.values());
    expect(["a token", "an OpenID token", "a room"].every((kind) => kinds.has(kind)),
      `nothing to look for but ${[...kinds]}`);
    const said = { log: world.secrets.in(log), metrics: world.secrets.in(pages) };
    expect(!said.log.length && !said.metrics.length, JSON.stringify(said));
    return `${world.secrets.all.size} secrets in none of ${log.split("\n").length} lines`;
  }, { seconds: 120 });
