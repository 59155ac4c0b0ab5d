"""The libraries' recursion limit does not stay: deep JSON raises, and the process lives."""

import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import {module}
assert sys.getrecursionlimit() <= 3_000, sys.getrecursionlimit()
import msgspec
for decode in (json.loads, msgspec.json.decode):
    try:
        decode(b"[" * 1_000_000)
    except RecursionError:
        continue
    raise SystemExit("no RecursionError")
"""


@pytest.mark.parametrize(
    "module",
    ["l1_bridge.keys", "l1_bridge.client", "l1_bridge.embedded", "sequencer.signing", "sequencer.cli"],
)
def test_deep_json_raises_whatever_was_imported(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(module=module)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
