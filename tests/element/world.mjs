// The world of these tests: a Synapse with a Stellwerk beside it, or several, one browser, and
// people who have a Matrix client each and call each other with Element Call.

import { mkdir, readFile, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { expect, until } from "../lib/harness.mjs";
import { World as Browsers } from "../browser/world.mjs";
import { Caller } from "./caller.mjs";
import { Secrets } from "./secrets.mjs";
import { openSite } from "./site.mjs";
import { Town } from "./town.mjs";

const CACHE = fileURLToPath(new URL("../.cache/element/", import.meta.url));

export class World {
  /** Opens one with these towns, each as `Town.open` takes them. */
  static async open(towns = [{ server: "council.example" }]) {
    const world = Object.assign(new World(), { callers: [], crowds: 0, pages: "" });
    world.secrets = new Secrets();
    const folder = join(CACHE, towns.map((town) => town.server).join("+"));
    await rm(folder, { recursive: true, force: true });
    await mkdir(folder, { recursive: true });
    world.folder = folder;
    [world.site, world.browsers, ...world.towns] = await Promise.all([openSite(), Browsers.open(),
      ...towns.map((town) => Town.open({ folder: join(folder, town.server), ...town }))]);
    for (const token of world.towns.flatMap((town) => town.tokens)) {
      world.secrets.add("a token of the registration", token);
    }
    // The only ones, in most tests.
    const [{ synapse, stellwerk }] = world.towns;
    return Object.assign(world, { synapse, stellwerk });
  }

  /** New users, of each town in turn. */
  users(...names) {
    this.crowds += 1;
    return Promise.all(names.map(async (name, turn) => {
      const { synapse } = this.towns[turn % this.towns.length];
      const user = await synapse.register(`${name}-${this.crowds}`);
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
    return this.signIn(users, await first.room(others));
  }

  /** The same for users and a room of theirs that are there. */
  async signIn(users, room) {
    this.secrets.add("a room", room);
    const people = await Promise.all(users.map((user) =>
      Caller.open(this.browsers, this.site, user, room)));
    this.callers.push(...people);
    for (const person of people) this.secrets.watch(person.page);
    const ids = users.map((user) => user.id);
    for (const person of people) {
      await until(async () => await person.knows(ids) === ids.length,
        `${person.name} knows everybody's device`, { seconds: 30 });
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

  /** The daemon ends in peace and starts again; `env` is what differs from its file. */
  async restart(env) {
    this.pages += await this.stellwerk.scrape();
    await this.stellwerk.stop();
    await this.stellwerk.start(env);
  }

  /** Fails if a secret of this run is in a log or in what was counted. */
  async keepsSecrets() {
    const logs = await Promise.all(this.towns.map(({ stellwerk }) =>
      readFile(stellwerk.log, "utf8")));
    const pages = await Promise.all(this.towns.map(({ stellwerk }) => stellwerk.scrape()));
    const places = { log: logs.join("\n"), metrics: this.pages + pages.join("\n") };
    expect(/joined/.test(places.log) && /stellwerk_/.test(places.metrics), "no log, or no metrics");
    const kinds = new Set(this.secrets.all.values());
    const known = ["a token", "an OpenID token", "a room", "a user's id"];
    expect(known.every((kind) => kinds.has(kind)), `nothing to look for but ${[...kinds]}`);
    for (const [place, text] of Object.entries(places)) {
      const told = new Set(this.secrets.in(text));
      expect(!told.size, `in the ${place}: ${[...told]}`);
    }
    return `${this.secrets.all.size} secrets in none of ${places.log.split("\n").length} lines`;
  }

  /** Keeps what everyone sees, in the folder of this world, for a person to look at. */
  async photograph(label) {
    await Promise.all(this.callers.map((caller) =>
      caller.photograph(join(this.folder, `${label}-${caller.name}.png`)).catch(() => {})));
  }

  /** Ends a test: its people leave, what the daemon counted of them is kept. */
  async clear() {
    for (const { stellwerk } of this.towns) this.pages += await stellwerk.scrape().catch(() => "");
    await Promise.all(this.callers.splice(0).map((caller) => caller.close().catch(() => {})));
    await this.browsers.clear();
  }

  async close() {
    await this.clear();
    await this.browsers.close();
    this.site.close();
    await Promise.all(this.towns.map((town) => town.close()));
  }
}
