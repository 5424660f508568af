// A bad network for a browser, as in link.py, which makes it.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { Failure } from "./harness.mjs";

const PROGRAM = new URL("link.py", import.meta.url).pathname;

export class Link {
  /** `up` and `down` are what a Path takes; `origin` is of what else can be reached. */
  static async open({ up, down, origin }) {
    const link = new Link();
    const first = Number(process.env.TEST_MEDIA_PORT);
    const ports = Array.from({ length: Number(process.env.TEST_WORKERS) }, (_, i) => first + i);
    link.child = spawn("python3", [PROGRAM, JSON.stringify({ url: process.env.TEST_URL,
      media_ports: ports, up, down, streams: [Number(new URL(origin).port)] })],
    { stdio: ["pipe", "pipe", "inherit"] });
    link.lines = createInterface({ input: link.child.stdout })[Symbol.asyncIterator]();
    const name = await link.answer();
    link.folder = await mkdtemp(join(tmpdir(), "stellwerk-"));
    /** Chromium within it. */
    link.chromium = join(link.folder, "chromium");
    const chromium = process.env.CHROMIUM ?? "/usr/bin/chromium";
    await writeFile(link.chromium, `#!/bin/sh\nexec ip netns exec ${name} ${chromium} "$@"\n`,
      { mode: 0o755 });
    return link;
  }

  async answer() {
    const { value, done } = await this.lines.next();
    if (done) throw new Failure("there is no link");
    return value;
  }

  /** What changes with time begins; gives when that was, in milliseconds as Date.now() does. */
  async begin() {
    this.child.stdin.write("\n");
    return Number(await this.answer());
  }

  /** Gives what came of it: datagrams `lost` and `dropped`, and how `late` the relay was. */
  async close() {
    this.child.stdin.end();
    const result = JSON.parse(await this.answer());
    await rm(this.folder, { recursive: true });
    return result;
  }
}
