// What is asked of a Stellwerk through its homeserver, whose application service it is: about a call
// `{ world, stellwerk, room }`.

import { expect } from "../lib/harness.mjs";

const SERVICE = "/_matrix/client/unstable/io.element.msc4195/rtc/livekit";

/** Who wants something about the call in `room`. */
export const wish = ({ stellwerk, room }, user) => ({ url: stellwerk.url, room_id: room,
  slot_id: "m.call#ROOM", member_id: `member-of-${user.name}` });

/** Asks Synapse for it, in the name of `user`. */
export function ask(call, user, what, more = {}) {
  const body = { ...wish(call, user), ...more };
  return user.synapse.ask("POST", `${SERVICE}/${what}`, { token: user.token, body });
}

export const token = (call, user, more) => ask(call, user, "get_token", more);

/** Joins the call as livekit-client does it, with a token that Synapse has brought. */
export async function join(call, user) {
  const { json: { jwt } } = await token(call, user);
  const { world, stellwerk } = call;
  world.secrets.token(jwt);
  const person = await world.browsers.person(user.name, { url: stellwerk.url });
  await person.call("join", person.url, jwt, {}, {});
  return { person, jwt };
}

/** Kicks `who` from the Matrix room; gives how long after `person` was out of the call, in ms. */
export async function expelled({ room }, person, { by, who, within }) {
  const kicked = Date.now();
  await by.must("POST", `/rooms/${encodeURIComponent(room)}/kick`, { user_id: who.id });
  const gone = await person.page.evaluate(async (ms) => {
    const deadline = Date.now() + ms;
    while (Date.now() < deadline) {
      if (window.me.events.some((event) => event.what === "Disconnected")) return Date.now();
      await new Promise((done) => setTimeout(done, 20));
    }
    return null;
  }, within);
  expect(gone, `still in the call ${within} ms after`);
  return gone - kicked;
}
