// A real Synapse on loopback, with SQLite: what operators merge into its configuration is what
// `stellwerk matrix registration` prints, the rest is what any homeserver has.

import { createHmac, randomBytes } from "node:crypto";
import { closeSync, openSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Failure, sleep } from "../lib/harness.mjs";
import { start } from "./child.mjs";

/** How long it may take to start on a busy machine, and to end. */
const START_WITHIN = 90_000;
const END_WITHIN = 15_000;

const secret = () => randomBytes(24).toString("base64url");

/** What is not Stellwerk's business. Nothing here loosens a limit. */
function site(folder, server, shared, net) {
  return `
server_name: ${server}
report_stats: false
trusted_key_servers: []
signing_key_path: ${join(folder, "signing.key")}
media_store_path: ${join(folder, "media")}
log_config: ${join(folder, "log.yaml")}
registration_shared_secret: ${shared}
macaroon_secret_key: ${secret()}
database:
  name: sqlite3
  args: { database: ${join(folder, "homeserver.db")} }
${net ? `
tls_certificate_path: ${net.certificate}
tls_private_key_path: ${net.certificate}
federation_custom_ca_list: [${net.authority}]` : ""}
`;
}

/** Where other homeservers find it, which a proxy usually stands for. */
const federation = (address) => `
  - port: 8448
    type: http
    tls: true
    bind_addresses: [${address}]
    resources: [{ names: [federation] }]
`;

const LOG = (file) => `
version: 1
disable_existing_loggers: false
formatters: { plain: { format: "%(asctime)s %(levelname)s %(name)s %(message)s" } }
handlers: { file: { class: logging.FileHandler, filename: ${file}, formatter: plain } }
root: { level: INFO, handlers: [file] }
`;

/** The recipe with this machine's places, which an operator edits by hand. */
function placed(recipe, port, registration) {
  const text = recipe
    .replace(/port: 8008\b/, `port: ${port}`)
    .replace(/- \/etc\/matrix-synapse\/.*registration.yaml/, `- ${registration}`);
  if (!text.includes(`port: ${port}`) || !text.includes(registration)) {
    throw new Failure("the recipe for homeserver.yaml has another shape than this test knows");
  }
  return text;
}

export class Synapse {
  /** Starts one in `folder`; `recipe` and `registration` are the texts the daemon's tool prints. */
  static async start({ folder, server, net, port, recipe, registration }) {
    const synapse = new Synapse();
    synapse.url = `http://127.0.0.1:${port}`;
    synapse.shared = secret();
    await mkdir(folder, { recursive: true });
    const file = (name) => join(folder, name);
    synapse.log = file("homeserver.log");
    await writeFile(file("signing.key"),
      `ed25519 a_test ${randomBytes(32).toString("base64").replace(/=+$/, "")}\n`);
    await writeFile(file("log.yaml"), LOG(synapse.log));
    await writeFile(file("site.yaml"), site(folder, server, synapse.shared, net));
    await writeFile(file("registration.yaml"), registration);
    // The listeners are the last of the recipe.
    await writeFile(file("stellwerk.yaml"), placed(recipe, port, file("registration.yaml")) +
      (net ? federation(net.address) : ""));
    const output = openSync(file("output.log"), "w");
    synapse.child = start(process.env.SYNAPSE_PYTHON, ["-m", "synapse.app.homeserver",
      "-c", file("site.yaml"), "-c", file("stellwerk.yaml")], output, { cwd: folder });
    closeSync(output);
    await synapse.ready(file("output.log"));
    return synapse;
  }

  async ready(output) {
    const deadline = Date.now() + START_WITHIN;
    while (Date.now() < deadline && this.child.exitCode === null) {
      const answer = await fetch(`${this.url}/_matrix/client/versions`).catch(() => null);
      if (answer?.ok) return;
      await sleep(100);
    }
    await this.stop();
    const text = await readFile(output, "utf8");
    throw new Failure(`Synapse does not start: ${text.slice(-800)}`);
  }

  async stop() {
    this.child.kill();
    await Promise.race([this.child.ended, sleep(END_WITHIN)]);
    this.child.kill("SIGKILL");
    await this.child.ended;
  }

  /** An answer to a request, with its status; `token` is whose request it is. */
  async ask(method, path, { token, body } = {}) {
    const headers = { "content-type": "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    const answer = await fetch(this.url + path,
      { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
    return { status: answer.status, json: await answer.json().catch(() => null) };
  }

  /** The same, where nothing but success will do. */
  async must(method, path, options) {
    const { status, json } = await this.ask(method, path, options);
    if (status !== 200) throw new Failure(`${method} ${path}: ${status} ${JSON.stringify(json)}`);
    return json;
  }

  /** A new user of that name, with a device. */
  async register(name) {
    const path = "/_synapse/admin/v1/register";
    const { nonce } = await this.must("GET", path);
    const password = secret();
    const mac = createHmac("sha1", this.shared)
      .update([nonce, name, password, "notadmin"].join("\0")).digest("hex");
    const made = await this.must("POST", path,
      { body: { nonce, username: name, password, admin: false, mac } });
    return new User(this, { name, id: made.user_id, device: made.device_id,
      token: made.access_token });
  }
}

const ENCRYPTION = { type: "m.room.encryption", state_key: "",
  content: { algorithm: "m.megolm.v1.aes-sha2" } };

/** Somebody with an account. */
export class User {
  constructor(synapse, account) {
    Object.assign(this, { synapse, ...account });
  }

  must(method, path, body) {
    return this.synapse.must(method, `/_matrix/client/v3${path}`, { token: this.token, body });
  }

  /** A room with these others in it, where everybody may join calls; encrypted unless said. */
  async room(others, { sealed = true } = {}) {
    const { room_id: room } = await this.must("POST", "/createRoom", {
      preset: "private_chat",
      invite: others.map((user) => user.id),
      initial_state: sealed ? [ENCRYPTION] : [],
      power_level_content_override: { events: { "org.matrix.msc3401.call.member": 0 } },
    });
    for (const user of others) await user.must("POST", `/join/${encodeURIComponent(room)}`, {});
    return room;
  }
}
