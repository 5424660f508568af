// A small test runner for the browser suite: named tests, each with the checks it covers, a time
// limit, and one line per result in the shared result file. Not node:test, because results of
// Node, Python and bash have to end up in one table (see tests/conformance).

import { appendFileSync } from "node:fs";

const tests = [];

/** A failed expectation; its message is what a person reads first. */
export class Failure extends Error {}

/** Declares a test. `ids` is a space-separated list of rows of tests/conformance.tsv, or "". */
export function test(ids, name, body, { seconds = 60, long = false } = {}) {
  tests.push({ ids, name, body, seconds, long });
}

export function expect(condition, message) {
  if (!condition) throw new Failure(message);
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** Polls `probe` until it gives something truthy; fails with what `describe` says at the end. */
export async function until(probe, what, { seconds = 10, every = 50 } = {}) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > deadline) throw new Failure(`${what}: not within ${seconds} s`);
    await sleep(every);
  }
}

function record(status, suite, test, started, detail) {
  const seconds = ((Date.now() - started) / 1000).toFixed(1);
  const clean = String(detail ?? "").replace(/[\t\r\n]+/g, " ").slice(0, 600);
  const row = [status, test.ids || "-", suite, test.name, seconds, clean].join("\t");
  if (process.env.TEST_RESULTS) appendFileSync(process.env.TEST_RESULTS, row + "\n");
  const mark = { pass: "ok  ", fail: "FAIL", skip: "skip" }[status];
  console.log(`${mark} ${suite}: ${test.ids ? test.ids + " " : ""}${test.name} (${seconds} s)` +
    (clean ? `\n       ${clean}` : ""));
}

/** Runs what matches TEST_FILTER, one after the other; gives the number of failures. */
export async function run(suite, { before, after }) {
  const filter = new RegExp(process.env.TEST_FILTER || ".", "i");
  const chosen = tests.filter((t) => filter.test(`${suite} ${t.ids} ${t.name}`));
  let failed = 0;
  for (const test of chosen) {
    const started = Date.now();
    if (test.long && !process.env.TEST_LONG) {
      record("skip", suite, test, started, "only with --long");
      continue;
    }
    let timer;
    const limit = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Failure(`over its limit of ${test.seconds} s`)),
        test.seconds * 1000);
    });
    let context;
    try {
      context = await before(test);
      const note = await Promise.race([test.body(context), limit]);
      record("pass", suite, test, started, note);
    } catch (error) {
      failed += 1;
      const where = error instanceof Failure ? "" : ` ${(error.stack || "").split("\n")[1] ?? ""}`;
      record("fail", suite, test, started, (error.message ?? error) + where);
    } finally {
      clearTimeout(timer);
      await after(test, context).catch((error) => console.error(`after: ${error.message}`));
    }
  }
  return failed;
}
