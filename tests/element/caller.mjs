// One person: a Matrix client in a browser of her own, and Element Call in it.

import { fileURLToPath } from "node:url";
import { Failure, expect, sleep, until } from "../lib/harness.mjs";

const INSTRUMENTS = fileURLToPath(new URL("instruments.js", import.meta.url));
/** A desktop's window, not so large that two cores paint nothing else. */
const VIEWPORT = { width: 960, height: 640 };
/** How long a call may take to come up on a busy machine. */
const CALL_WITHIN = 60;

export class Caller {
  static async open(browsers, site, user, room) {
    const caller = new Caller();
    const { page, close } = await browsers.chromium.page(VIEWPORT);
    Object.assign(caller, { site, user, room, page, close, name: user.name, said: [] });
    page.on("console", (message) => caller.said.push(message.text()));
    page.on("pageerror", (error) => caller.said.push(`error: ${error.message}`));
    // Without it a tile that is gone fades away for half a second.
    await page.emulateMedia({ reducedMotion: "reduce" });
    await page.addInitScript({ path: INSTRUMENTS });
    await page.goto(site.origin);
    await caller.signIn();
    return caller;
  }

  async signIn() {
    const { id, device, token, synapse } = this.user;
    await this.page.evaluate((session) => window.host.open(session),
      { url: synapse.url, id, device, token });
  }

  knows(ids) {
    return this.page.evaluate((users) => window.host.knows(users), ids);
  }

  /** Element Call's frame, of which there is one. */
  get call() {
    const frame = this.page.frames().find((each) => each.url().includes("/call/"));
    if (!frame) throw new Failure(`${this.name} has no Element Call`);
    return frame;
  }

  /** Opens Element Call up to its lobby. */
  async lobby(mode) {
    await this.page.evaluate(([folder, room]) => window.host.show(folder, room),
      [`/call/${mode}`, this.room]);
    await this.button("lobby_joinCall").waitFor({ timeout: CALL_WITHIN * 1000 });
  }

  button(name) {
    return this.page.frameLocator("iframe").getByTestId(name);
  }

  /** Presses the button to join; gives when it was pressed. */
  async join() {
    await this.button("lobby_joinCall").click();
    return this.call.evaluate(() => window.pressed.lobby_joinCall);
  }

  /** Hangs up; gives when that was. */
  async hangUp() {
    const call = this.call;
    const pressed = call.evaluate(() => window.momentOf(() => window.pressed.incall_leave, 10000));
    await this.button("incall_leave").click();
    return pressed;
  }

  /** Her tab dies without a word; gives when. */
  async kill() {
    const session = await this.page.context().newCDPSession(this.page);
    const crashed = this.page.waitForEvent("crash");
    const at = Date.now();
    session.send("Page.crash").catch(() => {});
    await crashed;
    return at;
  }

  /** Loads the page anew, as the same device. */
  async reload() {
    await this.page.reload();
    await this.signIn();
  }

  received() {
    return this.call.evaluate(() => window.received());
  }

  /** The one picture that comes in, if any. */
  async picture() {
    return (await this.received()).find((line) => line.kind === "video");
  }

  /** When the first picture of anybody else arrived, and when it was seen. */
  async firstPicture() {
    const moments = await this.call.evaluate((ms) => window.firstPicture(ms), CALL_WITHIN * 1000);
    expect(moments.seen, `${this.name} sees nobody within ${CALL_WITHIN} s`);
    return moments;
  }

  /** Waits for a connection to the media server, alone in the call or not. */
  connected() {
    return until(() => this.call.evaluate(() =>
      window.peers.some((peer) => peer.connectionState === "connected")),
    `${this.name} is connected`, { seconds: CALL_WITHIN });
  }

  /** How many tiles there are, her own among them. */
  tiles() {
    return this.call.evaluate(() => window.tiles());
  }

  /** How long after the moment `since` gives she has only `count` tiles left, in milliseconds. */
  async tilesAre(count, since, seconds) {
    const gone = this.call.evaluate(([many, ms]) => window.fewerTiles(many, ms),
      [count, seconds * 1000]);
    const from = await since;
    const at = await gone;
    expect(at, `${this.name} still has more than ${count} tiles after ${seconds} s`);
    return at - from;
  }

  /** Waits until she sees and hears that many others. */
  async meets(count, { seconds = CALL_WITHIN } = {}) {
    await until(async () => (await this.seesAndHears(1000)) >= count,
      `${this.name} sees and hears ${count}`, { seconds });
  }

  /** How many others showed new pictures and made a sound in the next `ms`. */
  async seesAndHears(ms) {
    const before = await this.received();
    await sleep(ms);
    const after = await this.received();
    const grown = (kind, key) => after.filter((line) => line.kind === kind &&
      line[key] > (before.find((old) => old.track === line.track)?.[key] ?? 0)).length;
    return Math.min(grown("video", "frames"), grown("audio", "energy"));
  }

  async photograph(path) {
    await this.page.screenshot({ path, timeout: 5000 });
  }
}
