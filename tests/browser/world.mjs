// The world around the pages: a file server on loopback, one Chromium (and one Firefox, once a
// test asks for it), a page per participant.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";
import { token } from "../lib/token.mjs";
import { sleep, until, expect } from "../lib/harness.mjs";
import { Firefox } from "./firefox.mjs";
import { NativePerson } from "./native.mjs";

const here = new URL(".", import.meta.url);
const FILES = { "/page.js": ["page.js", "text/javascript"] };
/** Releases of livekit-client: the newest one, and the one inside Element Call 0.26.1. */
export const NEWEST = "2.23.0";
export const ELEMENT_CALL = "2.22.3";
const FOLDERS = { [NEWEST]: "livekit-client", [ELEMENT_CALL]: "livekit-client-2.22" };
for (const [release, folder] of Object.entries(FOLDERS)) {
  FILES[`/${release}/`] = ["page.html", "text/html"];
  for (const file of ["livekit-client.umd.js", "livekit-client.e2ee.worker.js"]) {
    FILES[`/${release}/${file}`] = [`node_modules/${folder}/dist/${file}`, "text/javascript"];
  }
}

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

/** Headless Chromium, whose every page is its own machine. */
class Chromium {
  constructor(browser) {
    this.browser = browser;
  }

  static async open(extraFlags = [], executable = process.env.CHROMIUM) {
    return new Chromium(await chromium.launch({
      executablePath: executable ?? "/usr/bin/chromium",
      headless: true,
      args: [...FLAGS, ...extraFlags],
    }));
  }

  async page(viewport) {
    const context = await this.browser.newContext({ viewport });
    return { page: await context.newPage(), close: () => context.close() };
  }

  close() {
    return this.browser.close();
  }
}

/** One participant's page. Methods of `window.me` are called by name. */
class Person {
  constructor(page, identity, url, close) {
    Object.assign(this, { page, identity, url, close, console: [], rejections: [] });
    page.on("console", (m) => {
      // Playwright says "warning", puppeteer "warn".
      if (["error", "warning", "warn"].includes(m.type())) this.console.push(m.text());
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

  leave() {
    return this.call("leave");
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
    await sleep(ms);
    return this.call("seen", which, from, from + ms);
  }

  /** Loads the page anew, as somebody does who is at a loss. */
  async reload() {
    await this.page.reload();
    await until(() => this.page.evaluate(() => Boolean(window.me)), "the page is back");
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

/** Browsers plus file server, shared by all tests of a run. */
export class World {
  static async open(extraFlags = []) {
    const world = new World();
    world.files = await serve();
    world.chromium = await Chromium.open(extraFlags);
    world.people = [];
    return world;
  }

  /**
   * A fresh page for `identity`; its own context, as if on another machine. Behind a `link` it has
   * a browser of its own.
   */
  async person(identity, { browser = "chromium", client = NEWEST, url, link,
    viewport = { width: 1400, height: 900 } } = {}) {
    if (browser === "firefox") this.firefox ??= await Firefox.open();
    const behind = link && await Chromium.open([], link.chromium);
    const { page, close } = await (behind ?? this[browser]).page(viewport);
    const person = new Person(page, identity, url ?? process.env.TEST_URL,
      behind ? () => behind.close() : close);
    this.people.push(person);
    await page.goto(`${this.files.origin}${client}/`);
    return person;
  }

  /** Somebody without a browser. */
  native(identity) {
    const person = new NativePerson(identity, process.env.TEST_URL);
    this.people.push(person);
    return person;
  }

  /** The same world, whose people have `defaults` unless a test says otherwise. */
  with(defaults) {
    return { person: (identity, options) => this.person(identity, { ...defaults, ...options }) };
  }

  async clear() {
    const people = this.people.splice(0);
    await Promise.all(people.map(async (person) => {
      await Promise.race([person.leave().catch(() => {}), sleep(2000)]);
      await person.close().catch(() => {});
    }));
  }

  async close() {
    await this.clear();
    await this.chromium.close();
    await this.firefox?.close();
    this.files.close();
  }
}
