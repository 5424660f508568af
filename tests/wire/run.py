"""Runs the wire probe's tests against the daemon at TEST_URL."""

import asyncio
import os
import sys

sys.dont_write_bytecode = True
here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, "..", "lib")]

import harness  # noqa: E402
import probe  # noqa: E402

import test_http  # noqa: E402,F401
import test_join  # noqa: E402,F401
import test_negotiation  # noqa: E402,F401
import test_shapes  # noqa: E402,F401
import test_cuts  # noqa: E402,F401
import test_resume  # noqa: E402,F401
import test_tracks  # noqa: E402,F401
import test_layers  # noqa: E402,F401
import test_notices  # noqa: E402,F401
import test_simulate  # noqa: E402,F401
import test_codecs  # noqa: E402,F401
import test_hostile  # noqa: E402,F401
import test_daemon  # noqa: E402,F401
import test_addresses  # noqa: E402,F401
import test_mobile  # noqa: E402,F401
import test_single_port  # noqa: E402,F401
import test_spread  # noqa: E402,F401
import test_tcp  # noqa: E402,F401
import test_dual  # noqa: E402,F401
import test_api  # noqa: E402,F401
import test_control  # noqa: E402,F401
import test_matrix  # noqa: E402,F401
import test_proxy  # noqa: E402,F401
import test_calls  # noqa: E402,F401
import test_service  # noqa: E402,F401
import test_leaves  # noqa: E402,F401
import test_webhook  # noqa: E402,F401
import test_discovery  # noqa: E402,F401
import test_doctor  # noqa: E402,F401

sys.exit(3 if asyncio.run(harness.run("wire", probe.close_all)) else 0)
