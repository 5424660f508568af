// A network that lets no UDP through. The daemon tells clients an address at which only TCP is
// answered, by a relay: what they send there by UDP goes nowhere.

import { connect, createServer } from "node:net";
import { test, expect, until } from "../lib/harness.mjs";
import { freeTcp, startDaemon } from "../lib/daemon.mjs";
import { RED, GREEN, css, camera, microphone } from "./call.test.mjs";

const OUTSIDE = "127.0.0.7";

async function relay(port) {
  const server = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    near.pipe(far).pipe(near);
    for (const socket of [near, far]) socket.on("error", () => near.destroy() && far.destroy());
  });
  await new Promise((done) => server.listen(port, OUTSIDE, done));
  return server;
}

/** Protocols of the candidates that carry media. */
function protocols(person) {
  return person.page.evaluate(async () => {
    const used = [];
    for (const peer of window.peers) {
      const stats = [...(await peer.getStats()).values()];
      const ids = stats.filter((s) => s.type === "transport").map((s) => s.selectedCandidatePairId);
      for (const pair of stats.filter((s) => ids.includes(s.id))) {
        used.push(stats.find((s) => s.id === pair.remoteCandidateId).protocol);
      }
    }
    return used;
  });
}

test("", "where only TCP gets through, people see and hear each other", async ({ world, room }) => {
  const port = await freeTcp();
  const toml = `[media]\ntcp_port = ${port}\nadvertise = ["${OUTSIDE}"]\n`;
  const daemon = await startDaemon(toml);
  const wall = await relay(port);
  try {
    const [anna, ben] = [await world.person("anna", { url: daemon.url }),
      await world.person("ben", { url: daemon.url })];
    await anna.join(room);
    await ben.join(room, { singlePeerConnection: false });
    for (const [person, colour] of [[anna, RED], [ben, GREEN]]) {
      await person.call("publishPicture", "picture", css(colour), 640, 360);
      await person.call("publishSine", "voice", 440);
    }
    for (const [viewer, other, colour] of [[anna, ben, GREEN], [ben, anna, RED]]) {
      await viewer.showsColour(camera(other.identity), colour);
      await viewer.hears(microphone(other.identity));
    }
    for (const person of [anna, ben]) {
      const used = await protocols(person);
      expect(used.length && used.every((protocol) => protocol === "tcp"), `media over ${used}`);
    }
    const seen = await ben.watch(camera("anna"), 5000);
    expect(seen.gap < 1000, `the picture stood still for ${seen.gap} ms`);
    await until(async () => /^stellwerk_tcp_connections [34]$/m.test(
      await (await fetch(daemon.metrics)).text()), "a connection for each peer connection");
    for (const person of [anna, ben]) await person.undisturbed();
  } finally {
    wall.close();
    await daemon.stop();
  }
}, { seconds: 60 });
