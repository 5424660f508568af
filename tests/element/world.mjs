// The world of these tests: one Synapse, one Stellwerk beside it, one browser, and people who
// have a Matrix client each and call each other with Element Call.

import { mkdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { until } from "../lib/harness.mjs";
import { freeTcp, freeUdp } from "../lib/daemon.mjs";
import { World as Browsers } from "../browser/world.mjs";
import { Caller } from "./caller.mjs";
import { Secrets } from "./secrets.mjs";
import { openSite } from "./site.mjs";
import { Stellwerk } from "./stellwerk.mjs";
import { Synapse } from "./synapse.mjs";

const CACHE = fileURLToPath(new URL("../.cache/element/", import.meta.url));

export class World {
  static async open() {
    const world = new World();
    const folder = join(CACHE, "run");
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    const [http, metrics, media] = [await freeTcp(), await freeTcp(), await freeUdp()];
    const port = await freeTcp();
    Object.assign(world, { callers: [], crowds: 0, pages: "", secrets: new Secrets() });
    world.stellwerk = await Stellwerk.make({ folder: join(folder, "stellwerk"),
      ports: { http, metrics, media }, synapse: port });
    const texts = await world.stellwerk.register();
    for (const [, what, token] of texts.registration.matchAll(/^(\w\w_token): "?([^"\n]+)/gm)) {
      world.secrets.add(what, token);
    }
    const [synapse, site, browsers] = await Promise.all([
      Synapse.start({ folder: join(folder, "synapse"), port, ...texts }), openSite(),
      Browsers.open(), world.stellwerk.start()]);
    return Object.assign(world, { synapse, site, browsers });
  }

  /** New users of Synapse. */
  users(...names) {
    this.crowds += 1;
    return Promise.all(names.map(async (name) => {
      const user = await this.synapse.register(`${name}-${this.crowds}`);
      for (const what of ["id", "device", "token"]) {
        this.secrets.add(`a user's ${what}`, user[what]);
      }
      return user;
    }));
  }

  /** New users in a room, each signed in on a page; all have their keys on the server. */
  async people(...names) {
    const users = await this.users(...names);
    const [first, ...others] = users;
    const room = await first.room(others);
    this.secrets.add("a room", room);
    const people = await Promise.all(users.map((user) =>
      Caller.open(this.browsers, this.site, user, room)));
    this.callers.push(...people);
    for (const person of people) this.secrets.watch(person.page);
    const ids = users.map((user) => user.id);
    for (const person of people) {
      await until(async () => await person.knows(ids) === ids.length,
        `${person.name} knows everybody's device`);
    }
    return people;
  }

  /** The same, in a call where everybody sees and hears all others. */
  async call(mode, ...names) {
    const people = await this.people(...names);
    for (const person of people) {
      await person.lobby(mode);
      await person.join();
    }
    await Promise.all(people.map((person) => person.meets(people.length - 1)));
    return people;
  }

  /** The daemon ends in peace and starts again, with other limits. */
  async restart(limits) {
    this.pages += await this.stellwerk.scrape();
    await this.stellwerk.stop();
    await this.stellwerk.start(limits);
  }

  /** Keeps what everyone sees, for a person to look at. */
  async photograph(label) {
    await Promise.all(this.callers.map((caller) =>
      caller.photograph(join(CACHE, `${label}-${caller.name}.png`)).catch(() => {})));
  }

  /** Ends a test: its people leave, what the daemon counted of them is kept. */
  async clear() {
    this.pages += await this.stellwerk.scrape().catch(() => "");
    await Promise.all(this.callers.splice(0).map((caller) => caller.close().catch(() => {})));
    await this.browsers.clear();
  }

  async close() {
    await this.clear();
    await this.browsers.close();
    this.site.close();
    await Promise.all([this.synapse.stop(), this.stellwerk.stop()]);
  }
}
