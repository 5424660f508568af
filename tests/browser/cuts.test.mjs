// A hundred cuts of signalling at random and at the worst moments, with the real client: what it
// asked for or was about to hear is lost, and yet it goes on where it was.

import { Failure, test, expect, sleep, until } from "../lib/harness.mjs";
import { Cutter, REQUEST, RESPONSE } from "./cutter.mjs";
import { RED, BLUE, css, camera } from "./call.test.mjs";

const CUTS = process.env.TEST_LONG ? 100 : 25;
const SEED = 11;
const BACK_WITHIN = 10;
/** Tracks of anna that come and go. More of them would only take time. */
const EXTRA_MAX = 3;

/** A small generator of random numbers (mulberry32): the same seed, the same cuts. */
function seeded(seed) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, pick: (list) => list[Math.floor(next() * list.length)] };
}

/** Somebody behind a proxy, with the tracks that others should have: name to whether muted. */
class Subject {
  static async join(world, room, identity) {
    const subject = new Subject();
    subject.cutter = await Cutter.open(process.env.TEST_URL);
    subject.person = await world.person(identity, { url: subject.cutter.url });
    subject.tracks = new Map();
    subject.made = 0;
    await subject.person.join(room);
    return subject;
  }

  async publish(name, kind, colour = RED) {
    this.tracks.set(name, false);
    const { person } = this;
    await (kind === "video" ? person.call("publishPicture", name, css(colour), 320, 180,
      { fps: 15, publish: { simulcast: false } }) : person.call("publishSine", name, 440));
  }

  add(chance) {
    this.made += 1;
    const [name, kind] = [`extra-${this.made}`, chance.pick(["audio", "video"])];
    // A client that joins anew drops what is being published; its user publishes it again.
    return this.publish(name, kind).catch((error) => {
      if (!error.message.includes("Cancelled publication")) throw error;
      return this.publish(name, kind);
    });
  }

  remove(name) {
    this.tracks.delete(name);
    return this.person.call("unpublish", name);
  }

  mute() {
    const muted = !this.tracks.get("voice");
    this.tracks.set("voice", muted);
    return this.person.call("mute", "voice", muted);
  }

  extra() {
    return [...this.tracks.keys()].filter((name) => name.startsWith("extra"));
  }
}

/** How often each of them let go of all and joined anew, instead of taking up where it was. */
function joinsAnew(people) {
  return Promise.all(people.map(async ({ person }) =>
    (await person.events("Reconnecting")).length));
}

/** The moments at which a line is cut: whose line breaks where, while what goes on. */
const MOMENTS = {
  "in peace": ({ victim }) => { victim.cutter.cutNow(); },
  "both in peace": ({ anna, ben }) => { for (const one of [anna, ben]) one.cutter.cutNow(); },
  "offer lost": (cast) => at(cast.anna, { request: REQUEST.offer }, removes(cast)),
  "answer lost": (cast) => at(cast.anna, { response: RESPONSE.answer }, removes(cast)),
  "offer with a new section lost": (cast) =>
    at(cast.anna, { request: REQUEST.offer }, adds(cast)),
  "answer with a new section lost": (cast) =>
    at(cast.anna, { response: RESPONSE.answer }, adds(cast)),
  "answer to add_track lost": (cast) =>
    at(cast.anna, { response: RESPONSE.trackPublished }, adds(cast)),
  "answer to the subscriber lost": (cast) =>
    at(cast.ben, { response: RESPONSE.answer }, adds(cast)),
  "update lost": (cast) => at(cast.ben, { response: RESPONSE.update }, removes(cast)),
  "mute delivered": ({ anna }) =>
    at(anna, { request: REQUEST.mute, delivered: true }, () => anna.mute()),
  "reconnect lost": ({ victim }) => twice(victim, { response: RESPONSE.reconnect }),
  "sync_state lost": ({ victim }) => twice(victim, { request: REQUEST.syncState }),
  "sync_state delivered": ({ victim }) =>
    twice(victim, { request: REQUEST.syncState, delivered: true }),
};

/** Those of them at which no offer waits for its answer, so that a resume must do. */
const WITHOUT_OFFER = /peace|mute|reconnect|sync_state/;

const adds = ({ anna, chance }) => () => anna.add(chance);
const removes = ({ anna, chance }) => () => anna.remove(chance.pick(anna.extra()));

/** Does something and cuts at a moment that comes of it. */
async function at(subject, moment, action) {
  const cut = subject.cutter.cutAt(moment);
  const done = action();
  // Its end is awaited later, after the cut.
  done.catch(() => {});
  await within(5, cut, "the moment to cut at");
  return { done };
}

/** Cuts now, and again at a moment of the resume. */
async function twice(subject, moment) {
  const cut = subject.cutter.cutAt(moment);
  subject.cutter.cutNow();
  await within(5, cut, "the second moment to cut at");
}

async function within(seconds, promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Failure(`${what}: not within ${seconds} s`)),
      seconds * 1000);
  });
  await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Waits until `viewer` has all of `other`: no track more or less, and all that sound move on. */
function sees(viewer, other, seconds) {
  const before = {};
  let last;
  return until(async () => {
    const { person } = viewer;
    const [{ settled, came }, tracks] = await Promise.all(
      [person.call("pulse"), person.call("remote", other.person.identity)]);
    last = JSON.stringify({ settled, came, tracks });
    const wanted = [...other.tracks];
    const told = tracks?.length === wanted.length && wanted.every(([name, muted]) =>
      tracks.some((track) => track.name === name && track.muted === muted && track.subscribed));
    if (!settled || !told) return false;
    return wanted.filter(([name, muted]) => {
      before[name] = Math.min(before[name] ?? Infinity, came[name] ?? Infinity);
      return !muted && !(came[name] > before[name] + 2);
    }).length === 0;
  }, `${viewer.person.identity} has ${JSON.stringify([...other.tracks])} of ` +
    other.person.identity, { seconds, every: 20 })
    .catch((error) => { throw new error.constructor(`${error.message}, it has ${last}`); });
}

/** One cut; gives the seconds until everybody has everything again. */
async function cutOnce(moment, cast) {
  const { anna, ben } = cast;
  const people = [anna, ben];
  const was = people.map(({ cutter }) => ({ ...cutter.counts }));
  const begin = Date.now();
  const left = () => Math.max(0, BACK_WITHIN - (Date.now() - begin) / 1000);
  const meanwhile = await MOMENTS[moment](cast);
  await Promise.all(people.map(({ cutter, person }, index) => until(
    () => cutter.counts.cuts === was[index].cuts || cutter.counts.returns > was[index].returns,
    `${person.identity} is let in again`, { seconds: left() })));
  await Promise.all([within(left(), Promise.resolve(meanwhile?.done), "what was asked for is done"),
    sees(anna, ben, left()), sees(ben, anna, left())]);
  return (Date.now() - begin) / 1000;
}

test("LK-56", "many cuts of signalling at the worst moments, and all go on where they were",
  async ({ world, room }) => {
    const chance = seeded(SEED);
    const anna = await Subject.join(world, room, "anna");
    const ben = await Subject.join(world, room, "ben");
    const people = [anna, ben];
    try {
      for (const [one, colour] of [[anna, RED], [ben, BLUE]]) {
        await one.publish("picture", "video", colour);
        await one.publish("voice", "audio");
      }
      await Promise.all([sees(anna, ben, 10), sees(ben, anna, 10)]);
      const times = {};
      let anew = [0, 0];
      for (let number = 0; number < CUTS; number += 1) {
        // Every moment comes, and then they come at random.
        const all = Object.keys(MOMENTS);
        const moment = all[number] ?? chance.pick(all);
        const cast = { anna, ben, chance, victim: chance.pick(people) };
        // There is always one to take away, and one may be added.
        if (!anna.extra().length) await anna.add(chance);
        if (anna.extra().length > EXTRA_MAX) await anna.remove(anna.extra()[0]);
        await sleep(chance.next() * 300);
        const took = await cutOnce(moment, cast).catch((error) => {
          throw new error.constructor(`cut ${number} (${moment}): ${error.message}`);
        });
        (times[moment] ??= []).push(took);
        const now = await joinsAnew(people);
        expect(!WITHOUT_OFFER.test(moment) || `${now}` === `${anew}`,
          `cut ${number} (${moment}): joins anew were ${anew} and are ${now}`);
        anew = now;
      }
      return await verdict(people, times);
    } finally {
      for (const { cutter } of people) cutter.close();
    }
  }, { seconds: 60 + 5 * CUTS });

/**
 * Nobody left or joined anew, but for what the client itself can't do: take an offer back that
 * nobody answered. It sets its last answer again under it, which Chromium refuses where the offer
 * has a section more or a direction changed, and joins anew before it asks any server.
 */
async function verdict([anna, ben], times) {
  const anew = await joinsAnew([anna, ben]);
  for (const [index, { person }] of [anna, ben].entries()) {
    const excuses = await person.page.evaluate(() => window.rollbacksFailed);
    expect(anew[index] === excuses,
      `${person.identity} joined anew ${anew[index]} times, ${excuses} times for its own reasons`);
    const bad = await person.events("Disconnected", "TrackSubscriptionFailed");
    expect(!bad.length, `${person.identity}: ${bad.map((e) => e.what)}`);
    // A client that joins anew lets go of the others, and they of it.
    const gone = await person.events("ParticipantDisconnected");
    expect(gone.length === anew[0] + anew[1],
      `${person.identity} saw the other leave ${gone.length} times, joins anew are ${anew}`);
  }
  await anna.person.showsColour({ ...camera("ben"), name: "picture" }, BLUE);
  await ben.person.showsColour({ ...camera("anna"), name: "picture" }, RED);
  const lost = anna.cutter.counts.lost + ben.cutter.counts.lost;
  const kinds = Object.entries(times).map(([moment, took]) =>
    `${moment} ${took.length} (${Math.max(...took).toFixed(1)} s)`);
  const slowest = Math.max(...Object.values(times).flat()).toFixed(1);
  return `slowest of ${CUTS} back after ${slowest} s, ${lost} messages lost, ` +
    `${anew[0] + anew[1]} times a client joined anew; ${kinds.join(", ")}`;
}
