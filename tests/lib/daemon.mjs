// A daemon of a test's own, as in daemon.py: for what needs another configuration.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Failure, sleep } from "./harness.mjs";

export function freeTcp() {
  return new Promise((done) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

export function freeUdp() {
  return new Promise((done) => {
    const socket = createSocket("udp4").bind(0, "127.0.0.1", () => {
      const { port } = socket.address();
      socket.close(() => done(port));
    });
  });
}

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
