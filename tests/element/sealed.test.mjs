// End-to-end encryption as Element Call does it: those in the call see and hear each other through
// changes of layers, who has no keys gets nothing but noise.

import { createHash } from "node:crypto";
import { Failure, test, expect, until, sleep } from "../lib/harness.mjs";

/** A second or so of video, and how often eve looks at it, every 200 ms. */
const FRAMES = 20;
const LOOKS = 10;

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

/** What eve, who has no key, sees of a call while pictures come to her: colours, if any. */
async function eavesdrop(eve, room) {
  await eve.join(alias(room));
  const { framesReceived } = await until(async () => {
    const line = await eve.call("stats", { kind: "video" });
    return line?.framesReceived > FRAMES && line;
  }, "eve receives pictures");
  const colours = [];
  for (let look = 0; look < LOOKS; look += 1) {
    colours.push(await eve.call("colour", { kind: "video" }));
    await sleep(200);
  }
  await eve.leave();
  return { framesReceived, colours: colours.filter((colour) => colour) };
}

const isCamera = (colour) =>
  colour.every((value, i) => Math.abs(value - CAMERA[i]) <= TOLERANCE);

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
    const eve = await world.browsers.person("eve", { url: world.stellwerk.url });
    // What is not encrypted she sees, or it would mean nothing that she sees nothing else.
    const [user] = await world.users("cleo");
    const [cleo] = await world.signIn([user], await user.room([], { sealed: false }));
    await cleo.lobby("compatibility");
    await cleo.join();
    const open = await eavesdrop(eve, cleo.room);
    await cleo.close();
    expect(open.colours.some(isCamera), `eve sees ${open.colours.join(" or ")} where all is open`);

    const [anna, ben] = await world.call("compatibility", "anna", "ben");
    await shows(anna, 360);
    // Small enough for the lower layer.
    await anna.page.setViewportSize({ width: 200, height: 120 });
    await shows(anna, 180);
    await anna.page.setViewportSize({ width: 960, height: 640 });
    await shows(anna, 360);
    await Promise.all([anna.meets(1), ben.meets(1)]);
    const sealed = await eavesdrop(eve, anna.room);
    // Now and then a decoder takes noise for a picture.
    const seen = sealed.colours.filter(isCamera);
    expect(!seen.length, `eve sees the camera's colour, ${seen[0]}, without a key`);
    const last = sealed.colours.at(-1) ?? "nothing";
    return `eve got ${sealed.framesReceived} pictures and sees ${last}`;
  }, { seconds: 300 });
