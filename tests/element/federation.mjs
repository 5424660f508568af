// Calls between users of two homeservers, each of which has its own Stellwerk. federation.py has
// made the network around it.

import { expect, run, test, until } from "../lib/harness.mjs";
import { expelled, join } from "./service.mjs";
import { MODES } from "./site.mjs";
import { World } from "./world.mjs";

const TOWNS = JSON.parse(process.env.TEST_TOWNS);
const GET_TOKEN = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit/get_token";
const PING = "/_matrix/client/v1/appservice/stellwerk/ping";

/** Less than the time from one look at all members to the next. */
const TOLD_WITHIN = 2000;
/** Membership goes from one homeserver to the other. */
const GONE_WITHIN = 30;

/** How many are in calls at this daemon, as it counts them. */
async function participants({ stellwerk }) {
  const [, count] = /^stellwerk_participants(?:\{[^}]*\})? (\d+)/m.exec(await stellwerk.scrape());
  return Number(count);
}

for (const mode of MODES) {
  test("MX-45 MX-21", `users of two homeservers meet, each publishes at home, ${mode}`,
    async ({ world }) => {
      const [anna, ben] = await world.call(mode, "anna", "ben");
      const servers = [anna, ben].map(({ user }) => user.id.split(":")[1]);
      expect(servers.join() === "a.example,b.example", `they are of ${servers}`);
      // A picture may be there before a second has passed, which metrics may be old.
      await until(async () => (await Promise.all(world.towns.map(participants))).join() === "2,2",
        "two people at each of the two daemons", { seconds: 5 });
      await world.photograph(`two-homeservers-${mode}`);
      return `gone after ${await anna.tilesAre(1, ben.hangUp(), GONE_WITHIN)} ms`;
    }, { seconds: 240 });
}

test("MX-29 MX-30", "a user's token comes from the other homeserver", async ({ world }) => {
  const [anna, ben, , eve] = await world.users("anna", "ben", "cleo", "eve");
  const room = await anna.room([ben]);
  const [here, there] = world.towns;
  const ask = (user) => there.synapse.ask("POST", GET_TOKEN, { token: user.token,
    body: { server_name: here.server, url: here.stellwerk.url, room_id: room,
      slot_id: "m.call#ROOM", member_id: user.name } });
  const { status, json } = await ask(ben);
  world.secrets.token(json?.jwt);
  expect(status === 200 && Object.keys(json).join() === "jwt", `${status} ${JSON.stringify(json)}`);
  const refused = await ask(eve);
  expect(refused.status === 403, `who isn't in the room: ${refused.status}`);
}, { seconds: 60 });

test("MX-32", "a homeserver that shall tell of events reaches its daemon", async ({ world }) => {
  const [, { synapse, tokens: [asToken] }] = world.towns;
  const ping = (token) => synapse.ask("POST", PING, { token, body: { transaction_id: "1" } });
  const { status, json } = await ping(asToken);
  expect(status === 200 && Number.isInteger(json.duration_ms), `${status} ${JSON.stringify(json)}`);
  const other = await ping("somebody's");
  expect(other.status === 401, `anybody may have it ask: ${other.status}`);
});

test("MX-31", "who is kicked is out at once where the homeserver tells of it", async ({ world }) => {
  const [, anna, , ben] = await world.users("cleo", "anna", "dora", "ben");
  const [, { stellwerk }] = world.towns;
  const call = { world, stellwerk, room: await anna.room([ben]) };
  const { person } = await join(call, ben);
  const told = { by: anna, who: ben, within: TOLD_WITHIN };
  return `out after ${await expelled(call, person, told)} ms`;
}, { seconds: 60 });

test("MX-13", "no token, user or room is in the logs or the metrics of both", async ({ world }) => {
  await world.call("compatibility", "anna", "ben");
  return world.keepsSecrets();
}, { seconds: 240 });

let opening;
let world;

const failed = await run("element", {
  async before() {
    opening ??= World.open(TOWNS);
    world = await opening;
    return { world };
  },
  async after() {
    await world?.clear();
  },
});
await world?.close();
process.exit(failed ? 3 : 0);
