// End-to-end encryption as Element Call does it: those in the call see and hear each other through
// changes of layers, who has no keys gets nothing but noise.

import { createHash } from "node:crypto";
import { Failure, test, expect, until, sleep } from "../lib/harness.mjs";

/** A second or so of video: had eve the key, she would have seen something. */
const FRAMES = 20;

/** What Chromium's fake camera shows in its corners, and what compression makes of it at most. */
const CAMERA = [0, 136, 0];
const TOLERANCE = 40;

/** How long a change of layers may take where encoders wait for a CPU, in seconds. */
const SWITCH_WITHIN = 60;

/** The room's name at the media server, as Element Call and Stellwerk compute it. */
function alias(room) {
  return createHash("sha256").update(JSON.stringify([room, "m.call#ROOM"])).digest("base64")
    .replace(/=+$/, "");
}

/** Waits until the one picture that comes in is of that height and goes on. */
function shows(person, height) {
  let last;
  return until(async () => {
    const before = await person.picture();
    await sleep(500);
    last = await person.picture();
    return last?.height === height && last.frames > (before?.frames ?? 0);
  }, `${person.name} gets ${height} lines`, { seconds: SWITCH_WITHIN })
    .catch((error) => { throw new Failure(`${error.message}, but ${last?.height}`); });
}

test("LK-73 MX-45", "encrypted pictures decode through changes of layers, for members only",
  async ({ world }) => {
    const [anna, ben] = await world.call("compatibility", "anna", "ben");
    const eve = await world.browsers.person("eve", { url: world.stellwerk.url });
    await eve.join(alias(anna.room));
    await shows(anna, 360);
    // Small enough for the lower layer.
    await anna.page.setViewportSize({ width: 200, height: 120 });
    await shows(anna, 180);
    await anna.page.setViewportSize({ width: 960, height: 640 });
    await shows(anna, 360);
    await Promise.all([anna.meets(1), ben.meets(1)]);
    const noise = await until(async () => {
      const line = await eve.call("stats", { kind: "video" });
      return line?.framesReceived > FRAMES && line;
    }, "eve receives pictures");
    // Now and then a decoder takes noise for a picture.
    const colour = await eve.call("colour", { kind: "video" });
    const apart = colour && Math.max(...colour.map((value, i) => Math.abs(value - CAMERA[i])));
    expect(!colour || apart > TOLERANCE, `eve sees the camera's colour, ${colour}, without a key`);
    return `eve got ${noise.framesReceived} pictures and sees ${colour ?? "nothing"}`;
  }, { seconds: 300 });
