// The daemon as an operator runs it beside Synapse: a configuration file with [matrix], the
// registration its own tool makes, a log on disk. It can be killed, and come back as it was.

import { execFile, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Failure, sleep } from "../lib/harness.mjs";
import { SERVER } from "./synapse.mjs";

const START_WITHIN = 10_000;

export class Stellwerk {
  /** One whose files are in `folder`, not started yet. */
  static async make({ folder, ports, synapse }) {
    const stellwerk = new Stellwerk();
    await mkdir(folder, { recursive: true });
    const file = (name) => join(folder, name);
    Object.assign(stellwerk, { config: file("stellwerk.toml"), log: file("daemon.log"),
      registration: file("registration.yaml"), url: `ws://127.0.0.1:${ports.http}`,
      metrics: `http://127.0.0.1:${ports.metrics}` });
    await writeFile(stellwerk.config, `
[http]
listen = ["127.0.0.1:${ports.http}"]
[metrics]
listen = "127.0.0.1:${ports.metrics}"
[media]
addresses = ["127.0.0.1"]
port = ${ports.media}
workers = 1
[log]
level = "trace"
[matrix]
homeservers = { "${SERVER}" = "http://127.0.0.1:${synapse}" }
full_access = ["${SERVER}"]
url = "${stellwerk.url}"
registration = "${stellwerk.registration}"
leaves = "${file("leaves")}"
[keys]
${process.env.TEST_KEY} = "${process.env.TEST_SECRET}"
`, { mode: 0o600 });
    return stellwerk;
  }

  /** Makes the registration; gives it, and what the tool says that Synapse needs. */
  async register() {
    const { stdout, stderr } = await promisify(execFile)(process.env.TEST_BIN,
      ["matrix", "registration", "--config", this.config]);
    await writeFile(this.registration, stdout, { mode: 0o600 });
    return { registration: stdout, recipe: stderr };
  }

  /** Starts it, for the second time as well; `limits` such as `{ PARTICIPANTS_PER_ROOM: 1 }`. */
  async start(limits = {}) {
    const env = Object.entries(limits).map(([key, limit]) => [`STELLWERK_LIMITS_${key}`, limit]);
    const log = openSync(this.log, "a");
    this.child = spawn(process.env.TEST_BIN, ["serve", "--config", this.config],
      { stdio: ["ignore", log, log], env: Object.fromEntries(env) });
    closeSync(log);
    this.ended = new Promise((done) => this.child.once("exit", done));
    const deadline = Date.now() + START_WITHIN;
    while (Date.now() < deadline && this.child.exitCode === null) {
      const answer = await fetch(`${this.metrics}/readyz`).catch(() => null);
      if (answer?.ok) return;
      await sleep(50);
    }
    await this.stop("SIGKILL");
    const text = await readFile(this.log, "utf8");
    throw new Failure(`the daemon does not become ready: ${text.slice(-600)}`);
  }

  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    await this.ended;
  }

  /** What it counts just now. */
  async scrape() {
    return (await fetch(`${this.metrics}/metrics`)).text();
  }
}
