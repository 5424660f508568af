// A daemon of a test's own, as in daemon.py: for what needs another configuration.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure, sleep } from "./harness.mjs";

// Below the ports that the kernel gives to outgoing connections: one of those may be taken by a
// client between the look here and the bind of the process that it is for.
const FIRST = 10_000;
const PORTS = 22_000;
const given = new Set();

const tcp = (port) => new Promise((done) => {
  const server = createServer().once("error", () => done(false))
    .listen(port, "127.0.0.1", () => server.close(() => done(true)));
});

const udp = (port) => new Promise((done) => {
  const socket = createSocket("udp4").once("error", () => done(false))
    .bind(port, "127.0.0.1", () => socket.close(() => done(true)));
});

async function free(isFree) {
  for (let tries = 0; tries < 200; tries += 1) {
    const port = FIRST + Math.floor(Math.random() * PORTS);
    if (!given.has(port) && await isFree(port)) {
      given.add(port);
      return port;
    }
  }
  throw new Failure("no free port");
}

export const freeTcp = () => free(tcp);
export const freeUdp = () => free(udp);

/** Starts one with this configuration; gives its `url`, and `stop()`. */
export async function startDaemon(toml) {
  const [http, metrics, media] = [await freeTcp(), await freeTcp(), await freeUdp()];
  const folder = await mkdtemp(join(tmpdir(), "stellwerk-"));
  const config = join(folder, "stellwerk.toml");
  await writeFile(config, toml);
  const child = spawn(process.env.TEST_BIN, ["serve", "--dev", "--config", config,
    "--http", `127.0.0.1:${http}`, "--metrics", `127.0.0.1:${metrics}`,
    "--media-port", String(media), "--workers", "1"], { stdio: "ignore" });
  const ended = new Promise((done) => child.once("exit", done));
  const stop = async () => {
    child.kill();
    await ended;
    await rm(folder, { recursive: true });
  };
  for (let tries = 0; tries < 100; tries += 1) {
    const answer = await fetch(`http://127.0.0.1:${metrics}/readyz`).catch(() => null);
    const url = `ws://127.0.0.1:${http}`;
    if (answer?.ok) return { url, metrics: `http://127.0.0.1:${metrics}/metrics`, stop };
    if (child.exitCode !== null) break;
    await sleep(100);
  }
  await stop();
  throw new Failure("the daemon does not become ready");
}
