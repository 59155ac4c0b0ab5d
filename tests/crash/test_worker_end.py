"""A worker process ends with its owner, also when that is killed and can tell it nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event

OWNER = """
import os, sys
from l1_bridge.workers import worker_process
if __name__ == "__main__":
    pool = worker_process()
    for _ in range(2):
        print(pool.submit(os.getpid).result(), flush=True)
        sys.stdin.readline()
"""
LONGEST_S = 20


def test_a_worker_outlives_ctrl_c_but_not_its_owner(tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        worker = int(owner.stdout.readline())
        os.kill(worker, signal.SIGINT)
        owner.stdin.write(b"\n")
        owner.stdin.flush()
        assert int(owner.stdout.readline()) == worker
        owner.kill()
    deadline = time.monotonic() + LONGEST_S
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline, "the worker goes on without its owner"
        Event().wait(0.02)
