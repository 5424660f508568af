"""A small asyncio test runner: named tests, a time limit each, one result line each.

Not pytest: results of Python, Node and bash have to end up in one table (see tests/conformance),
and this is all of it.
"""

import asyncio
import os
import re
import time
import traceback

_tests = []


class Failure(AssertionError):
    """An expectation that does not hold; its text is what a person reads first."""


def test(ids, name, seconds=30, long=False):
    """Declares an async test. `ids` is a space-separated list of rows of tests/conformance.tsv."""

    def declare(body):
        _tests.append((ids, name, body, seconds, long))
        return body

    return declare


def expect(condition, message):
    if not condition:
        raise Failure(message)


async def until(probe, what, seconds=10.0, every=0.02):
    """Polls `probe` (a plain function) until it is truthy, and gives that."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {seconds} s")
        await asyncio.sleep(every)


def record(status, suite, ids, name, seconds, detail):
    clean = re.sub(r"\s+", " ", str(detail or ""))[:600]
    path = os.environ.get("TEST_RESULTS")
    if path:
        with open(path, "a", encoding="utf-8") as results:
            row = (status, ids or "-", suite, name, f"{seconds:.1f}", clean)
            results.write("\t".join(row) + "\n")
    mark = {"pass": "ok  ", "fail": "FAIL", "skip": "skip"}[status]
    print(f"{mark} {suite}: {ids + ' ' if ids else ''}{name} ({seconds:.1f} s)", flush=True)
    if clean:
        print(f"       {clean}", flush=True)


def _where(error):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({os.path.basename(frame.filename)}:{frame.lineno})"


async def _run_one(suite, ids, name, body, seconds, cleanup):
    started = time.monotonic()
    try:
        note = await asyncio.wait_for(body(), seconds)
        record("pass", suite, ids, name, time.monotonic() - started, note)
        return True
    except asyncio.TimeoutError as error:
        detail = f"over its limit of {seconds} s{_where(error)}"
    except Failure as error:
        detail = str(error)
    except Exception as error:  # whatever breaks a test is its result, not the runner's end
        detail = f"{type(error).__name__}: {error}{_where(error)}"
    finally:
        try:
            await asyncio.wait_for(cleanup(), 10)
        except Exception as error:
            print(f"cleanup: {type(error).__name__}: {error}", flush=True)
    record("fail", suite, ids, name, time.monotonic() - started, detail)
    return False


async def run(suite, cleanup):
    """Runs what matches TEST_FILTER, one after the other; gives the number of failures.

    TEST_LANE=1/2 is every second test, beginning with the first.
    """
    lane, lanes = map(int, os.environ.get("TEST_LANE", "1/1").split("/"))
    chosen = re.compile(os.environ.get("TEST_FILTER") or ".", re.IGNORECASE)
    failed = 0
    for ids, name, body, seconds, long in _tests[lane - 1::lanes]:
        if not chosen.search(f"{suite} {ids} {name}"):
            continue
        if long and not os.environ.get("TEST_LONG"):
            record("skip", suite, ids, name, 0, "only with --long")
            continue
        failed += not await _run_one(suite, ids, name, body, seconds, cleanup)
    return failed
