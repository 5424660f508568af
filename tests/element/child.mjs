// Processes that end with the test run, however that ends.

import { spawn } from "node:child_process";

const running = new Set();
process.once("exit", () => { for (const child of running) child.kill("SIGKILL"); });
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => process.exit(1));

/** Starts one whose output goes to the file descriptor `output`; `ended` is when it has ended. */
export function start(command, options, output, more = {}) {
  const child = spawn(command, options, { ...more, stdio: ["ignore", output, output] });
  running.add(child);
  child.ended = new Promise((done) => child.once("exit", done));
  child.ended.then(() => running.delete(child));
  return child;
}
