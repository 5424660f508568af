// The daemon as an operator runs it beside Synapse: a configuration file with [matrix], the
// registration its own tool makes, a log on disk. It can be killed, and come back as it was.

import { execFile } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { Failure, sleep } from "../lib/harness.mjs";
import { start } from "./child.mjs";

const START_WITHIN = 10_000;

export class Stellwerk {
  /** One whose files are in `folder`, not started yet; `synapse` is the port of its homeserver. */
  static async make({ folder, server, net, ports, synapse }) {
    const stellwerk = new Stellwerk();
    const address = net?.address ?? "127.0.0.1";
    await mkdir(folder, { recursive: true });
    const file = (name) => join(folder, name);
    Object.assign(stellwerk, { config: file("stellwerk.toml"), log: file("daemon.log"),
      registration: file("registration.yaml"), url: `ws://${net?.rtc ?? address}:${ports.http}`,
      metrics: `http://127.0.0.1:${ports.metrics}` });
    await writeFile(stellwerk.config, `
[http]
listen = ["${address}:${ports.http}"]
[metrics]
listen = "127.0.0.1:${ports.metrics}"
[media]
addresses = ["${address}"]
port = ${ports.media}
workers = 1
[log]
level = "trace"
[matrix]
homeservers = { "${server}" = "http://127.0.0.1:${synapse}" }
full_access = ["${server}"]
url = "${stellwerk.url}"
registration = "${stellwerk.registration}"
leaves = "${file("leaves")}"
${net ? `federation = true\nextra_ca = "${net.authority}"` : ""}
[keys]
${process.env.TEST_KEY} = "${process.env.TEST_SECRET}"
`, { mode: 0o600 });
    return stellwerk;
  }

  /** Makes the registration, by hand with a `url` if the daemon shall be told of events; gives it,
   * and what the tool says that Synapse needs. */
  async register({ told }) {
    const { stdout, stderr } = await promisify(execFile)(process.env.TEST_BIN,
      ["matrix", "registration", "--config", this.config]);
    const [, address] = /proxy_url: ("[^"]+")/.exec(stdout);
    const registration = told ? stdout.replace("url: null", `url: ${address}`) : stdout;
    await writeFile(this.registration, registration, { mode: 0o600 });
    return { registration, recipe: stderr };
  }

  /** Starts it, for the second time as well; `env` is what differs from its file. */
  async start(env = {}) {
    const log = openSync(this.log, "a");
    this.child = start(process.env.TEST_BIN, ["serve", "--config", this.config], log, { env });
    closeSync(log);
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
    await this.child.ended;
  }

  /** What it counts just now. */
  async scrape() {
    return (await fetch(`${this.metrics}/metrics`)).text();
  }
}
