// Stellwerk as an application service of the real Synapse: what clients will ask of their own
// homeserver. matrix-js-sdk does so already, Element Call not yet; most of it is asked by HTTP.

import { createHash } from "node:crypto";
import { test, expect, until } from "../lib/harness.mjs";
import { ask, expelled, join, token, wish } from "./service.mjs";

const REMOVED_WITHIN = 5000;
/** What a killed tab may take to be gone, and what Element Call has as delay of a leave. */
const GHOST = 8;
const DELAY = 3_600_000;

test("MX-27", "Synapse hands on who asks for a token: members get one", async ({ world }) => {
  const [anna, ben, eve] = await world.users("anna", "ben", "eve");
  const call = { world, stellwerk: world.stellwerk, room: await anna.room([ben]) };
  const { status, json } = await token(call, ben);
  world.secrets.token(json?.jwt);
  expect(status === 200 && Object.keys(json).join() === "jwt", `member: ${status}`);
  const refused = async (user, more, status, code) => {
    const answer = await token(call, user, more);
    expect(answer.status === status && answer.json.errcode === code,
      `${JSON.stringify(more)}: ${answer.status} ${JSON.stringify(answer.json)}`);
  };
  await refused(eve, {}, 403, "M_FORBIDDEN");
  await refused(ben, { url: "wss://elsewhere.example" }, 400, "M_INVALID_PARAM");
  const nobody = { ...ben, token: "syt_nobody" };
  await refused(nobody, {}, 401, "M_UNKNOWN_TOKEN");
});

test("MX-27 MX-28", "matrix-js-sdk gets its token through Synapse", async ({ world }) => {
  const [ben] = await world.people("ben");
  const body = wish({ ...world, room: ben.room }, ben.user);
  const { jwt } = await ben.page.evaluate((asked) =>
    window.host.client._unstable_getLivekitToken(asked), body);
  world.secrets.token(jwt);
  const { sub } = JSON.parse(atob(jwt.split(".")[1]));
  const known = createHash("sha256").update(JSON.stringify([ben.user.id, body.member_id]))
    .digest("base64").replace(/=+$/, "");
  expect(sub === known, "another identity than the client computes");
});

test("MX-31", "who is kicked from the Matrix room is out of its call, and stays out",
  async ({ world }) => {
    const [anna, ben] = await world.users("anna", "ben");
    const call = { world, stellwerk: world.stellwerk, room: await anna.room([ben]) };
    const { person, jwt } = await join(call, ben);
    const took = await expelled(call, person, { by: anna, who: ben, within: REMOVED_WITHIN });
    const validate = `${person.url.replace("ws:", "http:")}/rtc/v1/validate`;
    const again = await fetch(`${validate}?access_token=${jwt}`);
    expect(again.status === 401, `his old token: ${again.status}`);
    expect((await token(call, ben)).status === 403, "and a new one is his");
    return `out after ${took} ms`;
  });

test("MX-34 MX-35", "a leave that was entrusted through Synapse is sent when its tab was closed",
  async ({ world }) => {
    const [anna, ben] = await world.users("anna", "ben");
    const call = { world, stellwerk: world.stellwerk, room: await anna.room([ben]) };
    const path = `/rooms/${encodeURIComponent(call.room)}/state/org.matrix.msc3401.call.member/` +
      encodeURIComponent(`_${ben.id}_${ben.device}_m.call`);
    await ben.must("PUT", path, { application: "m.call" });
    const { delay_id: leave } = await ben.must("PUT",
      `${path}?org.matrix.msc4140.delay=${DELAY}`, {});
    world.secrets.add("a delayed event", leave);
    const foreign = await ask(call, anna, "delegate_delayed_leave", { delay_id: leave });
    expect(foreign.status === 400, `anna entrusts ben's leave: ${foreign.status}`);
    const { status, json } = await ask(call, ben, "delegate_delayed_leave", { delay_id: leave });
    expect(status === 200, `entrusted: ${status} ${JSON.stringify(json)}`);
    const { person } = await join(call, ben);
    await person.page.context().newCDPSession(person.page)
      .then((session) => { session.send("Page.crash").catch(() => {}); });
    const killed = Date.now();
    await until(async () => !(await anna.must("GET", path)).application, "ben's leave",
      { seconds: GHOST });
    return `sent after ${Date.now() - killed} ms`;
  });
