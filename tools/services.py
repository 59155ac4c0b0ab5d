"""The node and the verifier as child processes, started and stopped the way an operator would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from sequencer.cli_support import CliError
from sequencer.client import NodeClient, NodeUnreachable
from tools.devnet import Devnet

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 40


class ServiceFailed(CliError):
    """A child process ended when it should not have; the message says where its log is."""


def node_config(
    devnet: Devnet, data_dir: Path, port: int, admin_port: int, **overrides: dict[str, Any]
) -> str:
    """A node's TOML for a devnet: small batches often, so that there is something to watch; they do not
    wait for a cheaper moment unless `max_delay_ms` says so."""
    tables: dict[str, dict[str, Any]] = {
        "node": {"data_dir": str(data_dir), "chain_id": devnet.deployment.rollup_chain_id},
        "server": {"port": port},
        "admin": {"port": admin_port},
        "l1": {"url": devnet.l1_url, "rollup": devnet.deployment.rollup, "confirmations": 1, "poll_ms": 500},
        "batches": {"max_age_ms": 5_000},
    }
    for name, values in overrides.items():
        tables[name] = tables.get(name, {}) | values
    tables["batches"].setdefault("max_delay_ms", tables["batches"]["max_age_ms"])
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def _toml(value: Any) -> str:
    return msgspec.json.encode(value).decode()


@asynccontextmanager
async def running_node(
    config: Path, log: Path, environment: dict[str, str], url: str
) -> AsyncIterator[trio.Process]:
    """A node that answers at `url`; drained by SIGTERM at the end. Raises ServiceFailed."""
    with log.open("ab") as sink:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "sequencer.cli", "node", "--config", str(config)],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        await _until_ready(process, url, log)
        yield process
    finally:
        await _stop(process)
    if process.returncode != 0:
        raise ServiceFailed(f"the node ended with status {process.returncode}; its log is {log}")


async def _until_ready(process: trio.Process, url: str, log: Path) -> None:
    with trio.move_on_after(START_TIMEOUT_S):
        async with NodeClient(url, timeout_s=5) as client:
            while process.poll() is None:
                try:
                    if (await client.call("straddle_status"))["ready"]:
                        return
                except NodeUnreachable:
                    pass
                await trio.sleep(0.1)
    raise ServiceFailed(f"the node did not get ready (status {process.poll()}); its log is {log}")


@asynccontextmanager
async def following_verifier(
    devnet: Devnet, data_dir: Path, log: Path, on_batch: Callable[[dict[str, Any]], None]
) -> AsyncIterator[trio.Process]:
    """A verifier that knows L1's URL and the contract's address only; `on_batch` gets each verified batch."""
    environment = {
        "STRADDLE_L1_URL": devnet.l1_url,
        "STRADDLE_L1_ROLLUP": devnet.deployment.rollup,
        "STRADDLE_L1_CONFIRMATIONS": "1",
        "STRADDLE_L1_POLL_MS": "500",
        "STRADDLE_VERIFIER_DATA_DIR": str(data_dir),
    }
    with log.open("ab") as sink:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "sequencer.cli", "verifier", "--follow", "--json"],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=sink,
        )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read_lines, process, on_batch)
        try:
            yield process
        finally:
            await _stop(process)
            nursery.cancel_scope.cancel()


async def _read_lines(process: trio.Process, on_batch: Callable[[dict[str, Any]], None]) -> None:
    assert process.stdout is not None
    waiting = b""
    async for data in process.stdout:
        *lines, waiting = (waiting + data).split(b"\n")
        for line in lines:
            on_batch(msgspec.json.decode(line))


async def _stop(process: trio.Process) -> None:
    with trio.CancelScope(shield=True), trio.move_on_after(STOP_TIMEOUT_S):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
        return
    process.kill()
