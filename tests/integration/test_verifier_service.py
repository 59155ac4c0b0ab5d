"""The verifier as the command line runs it: its metrics, and its exit status when a root is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random
from urllib.error import URLError
from urllib.request import urlopen

import trio

from l1_bridge.embedded import EmbeddedL1
from state.genesis import GENESIS_ROOT
from tests.crash.node_process import free_port
from tests.integration.bridge_support import connected, deployed
from tests.integration.test_bridge_embedded import first_batch, post_all, start


def environment(l1_url: str, rollup: str, data_dir: Path) -> dict[str, str]:
    return os.environ | {
        "STRADDLE_L1_URL": l1_url,
        "STRADDLE_L1_ROLLUP": rollup,
        "STRADDLE_L1_CONFIRMATIONS": "0",
        "STRADDLE_L1_POLL_MS": "200",
        "STRADDLE_VERIFIER_DATA_DIR": str(data_dir),
    }


def scraped(port: int) -> str:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text
    except (URLError, OSError):
        return ""


async def test_a_wrong_root_is_named_and_ends_with_status_1(tmp_path: Path) -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = await start(bridge)
        await first_batch(sequencer, follower, b"\xaa" * 20)
        sequencer.close(lie=Random(7))
        await post_all(poster)
        done = await trio.run_process(
            [sys.executable, "-m", "sequencer.cli", "verifier"],
            env=environment(l1.url, bridge.deployment.rollup, tmp_path),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    claimed = sequencer.root(1)
    assert claimed is not None
    assert done.returncode == 1
    message = done.stderr.decode()
    assert f"batch 1: L1 has root 0x{claimed.hex()}" in message
    assert "Traceback" not in message


async def test_a_following_verifier_shows_its_metrics(tmp_path: Path) -> None:
    port = free_port()
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = await start(bridge)
        await first_batch(sequencer, follower, b"\xaa" * 20)
        sequencer.close()
        await post_all(poster)
        variables = environment(l1.url, bridge.deployment.rollup, tmp_path)
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "sequencer.cli", "verifier", "--follow", "--json"],
            env=variables | {"STRADDLE_VERIFIER_METRICS_PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with trio.fail_after(60):
                while "straddle_verifier_batch 1.0" not in await trio.to_thread.run_sync(scraped, port):
                    assert process.poll() is None
                    await trio.sleep(0.1)
            assert "straddle_verifier_mismatches_total 0.0" in await trio.to_thread.run_sync(scraped, port)
        finally:
            process.terminate()
            await process.wait()
    assert process.returncode == 0
