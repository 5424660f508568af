// The world around the pages: a file server on loopback, one Chromium, a page per participant.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import { token } from "../lib/token.mjs";
import { until, expect } from "../lib/harness.mjs";

const here = new URL(".", import.meta.url);
const FILES = {
  "/": ["page.html", "text/html"],
  "/page.js": ["page.js", "text/javascript"],
  "/livekit-client.umd.js":
    ["node_modules/livekit-client/dist/livekit-client.umd.js", "text/javascript"],
};

async function serve() {
  const server = createServer(async (request, response) => {
    const file = FILES[request.url.split("?")[0]];
    if (!file) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": file[1], "cache-control": "no-store" });
    response.end(await readFile(new URL(file[0], here)));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return { origin: `http://127.0.0.1:${server.address().port}/`, close: () => server.close() };
}

// No QUIC and no background traffic: only what the test itself causes is on the wire. The fake
// devices replace camera and microphone; the fake dialogue consents to both.
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--use-fake-device-for-media-stream=fps=30", "--use-fake-ui-for-media-stream",
  "--autoplay-policy=no-user-gesture-required",
];

/** One participant's page. Methods of `window.me` are called by name. */
class Person {
  constructor(page, identity, url) {
    Object.assign(this, { page, identity, url, console: [], rejections: [] });
    page.on("console", (m) => {
      if (["error", "warning"].includes(m.type())) this.console.push(m.text());
    });
    page.on("pageerror", (error) => this.rejections.push(error.message));
  }

  call(method, ...args) {
    return this.page.evaluate(([m, a]) => window.me[m](...a), [method, args]);
  }

  join(room, options = {}, { grants = {}, connect = {} } = {}) {
    this.room = room;
    return this.call("join", this.url, token(room, this.identity, grants), options, connect);
  }

  events(...kinds) {
    return this.page.evaluate((k) => window.me.events.filter((e) => k.includes(e.what)), kinds);
  }

  /** Waits for a tile of that description which shows (video) or exists (audio). */
  sees(which, { seconds = 10 } = {}) {
    return until(async () => {
      const tiles = await this.call("list");
      return tiles.find((tile) => Object.entries(which).every(([k, v]) => tile[k] === v) &&
        (tile.kind === "audio" || tile.frames > 0));
    }, `${this.identity} sees ${JSON.stringify(which)}`, { seconds });
  }

  /** Waits until audio energy of the track grows, i.e. something is heard. */
  async hears(which, { seconds = 10 } = {}) {
    await this.sees({ ...which, kind: "audio" }, { seconds });
    const before = (await this.call("stats", which))?.totalAudioEnergy ?? 0;
    await until(async () =>
      ((await this.call("stats", which))?.totalAudioEnergy ?? 0) > before + 1e-4,
    `${this.identity} hears ${JSON.stringify(which)}`, { seconds });
  }

  /** Waits until the tile shows `colour` ([r, g, b], within what video compression shifts). */
  showsColour(which, colour, { seconds = 10, tolerance = 40 } = {}) {
    let last;
    return until(async () => {
      last = await this.call("colour", which);
      return last && last.every((value, i) => Math.abs(value - colour[i]) <= tolerance);
    }, `${this.identity}: ${JSON.stringify(which)} shows ${colour}`, { seconds })
      .catch((error) => { throw new error.constructor(`${error.message}, it shows ${last}`); });
  }

  /** Frames per second and longest gap over the next `ms`. */
  async watch(which, ms) {
    const from = await this.call("now");
    await this.page.waitForTimeout(ms);
    return this.call("seen", which, from, from + ms);
  }

  /** Neither reconnects nor SDP errors may have happened. */
  async undisturbed() {
    const bad = await this.events("Reconnecting", "SignalReconnecting", "Disconnected",
      "TrackSubscriptionFailed");
    expect(!bad.length, `${this.identity} was disturbed: ${bad.map((e) => e.what)}`);
    const errors = [...this.console, ...this.rejections].filter((text) =>
      /sdp|rid|negotiat|simulcast/i.test(text) && /error|fail/i.test(text));
    expect(!errors.length, `${this.identity} logged: ${errors[0]}`);
  }
}

/** Chromium plus file server, shared by all tests of a run. */
export class World {
  static async open(extraFlags = []) {
    const world = new World();
    world.files = await serve();
    world.browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      headless: true,
      args: [...FLAGS, ...extraFlags],
    });
    world.people = [];
    return world;
  }

  /** A fresh page for `identity`; its own context, as if on another machine. */
  async person(identity, { viewport = { width: 1400, height: 900 }, url } = {}) {
    const context = await this.browser.newContext({ viewport });
    const page = await context.newPage();
    const person = new Person(page, identity, url ?? process.env.TEST_URL);
    await page.goto(this.files.origin);
    this.people.push(person);
    return person;
  }

  async clear() {
    const people = this.people.splice(0);
    await Promise.all(people.map(async (person) => {
      await Promise.race([
        person.call("leave").catch(() => {}),
        new Promise((done) => setTimeout(done, 2000)),
      ]);
      await person.page.context().close().catch(() => {});
    }));
  }

  async close() {
    await this.clear();
    await this.browser.close();
    this.files.close();
  }
}
