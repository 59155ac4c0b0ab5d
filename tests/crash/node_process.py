"""`straddle node` as a process on a devnet whose L1 lives in the test: started, killed, told to stop.

`devnet_here` deploys on an embedded L1 of this process and funds traders. A `Home` is a data directory with
its configuration and ports, on which one process after another runs. `PostingTrap` kills a node at the very
moment when L1 gets its batch.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Self

import msgspec
import trio

from l1_bridge.embedded import EmbeddedL1
from l1_bridge.embedded_chain import RpcFailure
from l1_bridge.rollup import BatchEvent, RollupContract
from sequencer.client import NodeClient, NodeUnreachable
from state.signatures import address_of
from tools.devnet import Devnet, open_devnet
from tools.market import Trader, spec_for
from tools.services import node_config

PRICE_UUSD = 60_000_000_000
SPEC = spec_for("BTC", PRICE_UUSD)
DEPOSIT_UUSD = 50_000_000 * 10**6
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 60
LOOK_S = 0.02


@dataclass
class Place:
    """An L1 in this process, and the rollup deployed on it."""

    l1: EmbeddedL1
    devnet: Devnet
    traders: list[Trader]

    async def posted(self) -> list[BatchEvent]:
        """Every posting that L1 has seen, in its order."""
        rollup = RollupContract(self.devnet.client, self.devnet.deployment.rollup_address)
        head = await self.devnet.client.head()
        return await rollup.posted(self.devnet.deployment.deploy_block, head.number)


@asynccontextmanager
async def devnet_here(traders: int) -> AsyncIterator[Place]:
    """One perpetual, prices from three publishers, and that many traders with a deposit each."""
    people = [Trader(f"crash {number}") for number in range(1, traders + 1)]
    with EmbeddedL1(block_time_s=0.5) as l1:
        async with open_devnet(l1.url, [SPEC]) as devnet:
            await devnet.fund(people, DEPOSIT_UUSD)
            yield Place(l1, devnet, people)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@dataclass
class Home:
    """A data directory and the node that runs on it; `overrides` are configuration tables.

    A context manager, which ends the last process when a test has left it behind.
    """

    devnet: Devnet
    directory: Path
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    runs: int = 0
    process: trio.Process | None = None
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            while self.process.poll() is None:
                Event().wait(LOOK_S)

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Of the last process."""
        return self.directory / f"node-{self.runs}.log"

    async def spawn(self) -> trio.Process:
        """A new process, in the middle of its start."""
        self.directory.mkdir(exist_ok=True)
        self.runs += 1
        config = self.directory / "node.toml"
        quick: dict[str, dict[str, Any]] = {
            "l1": {"poll_ms": 150},
            "blocks": {"block_interval_ms": 10},
            "batches": {"max_age_ms": 300, "max_delay_ms": 300, "max_bytes": 100_000},
            "poster": {"data": "calldata"},
        }
        tables = {name: quick.get(name, {}) | self.overrides.get(name, {}) for name in quick | self.overrides}
        config.write_text(node_config(self.devnet, self.data, self.port, self.admin_port, **tables))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STRADDLE_")}
        with self.log.open("wb") as log:
            self.process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "sequencer.cli", "node", "--config", str(config)],
                env=environment | self.devnet.node_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self.process

    async def start(self) -> trio.Process:
        """A process that is ready for orders."""
        process = await self.spawn()
        await self.until_ready(process)
        return process

    async def until_ready(self, process: trio.Process) -> None:
        with trio.fail_after(START_TIMEOUT_S):
            async with NodeClient(self.url) as client:
                while True:
                    assert process.poll() is None, self.log.read_text()
                    try:
                        if (await client.call("straddle_status"))["ready"]:
                            return
                    except NodeUnreachable:
                        pass
                    await trio.sleep(LOOK_S)

    async def until_opening(self, process: trio.Process) -> None:
        """Until the process has locked its data directory: what follows is recovery."""
        with trio.fail_after(START_TIMEOUT_S):
            while self._holder() != process.pid:
                assert process.poll() is None, self.log.read_text()
                await trio.sleep(0.001)

    def _holder(self) -> int:
        try:
            return int(self.data.joinpath("LOCK").read_text())
        except (OSError, ValueError):
            return 0

    async def stop(self, process: trio.Process) -> None:
        """Drains the node; it must end well."""
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(STOP_TIMEOUT_S):
            assert await process.wait() == 0, self.log.read_text()

    async def refused(self) -> str:
        """What a node says that must not start: its last line, when it said nothing that helps nobody."""
        process = await self.spawn()
        with trio.fail_after(START_TIMEOUT_S):
            return await self.failure(process)

    async def failure(self, process: trio.Process) -> str:
        """The last line of a node that ends by itself, with status 1 and without a traceback."""
        with trio.fail_after(STOP_TIMEOUT_S):
            status = await process.wait()
        text = self.log.read_text()
        assert status == 1, text
        assert "Traceback" not in text, text
        return text.splitlines()[-1]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of the last process with this event."""
        lines = [line for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        rows: list[dict[str, Any]] = [msgspec.json.decode(line) for line in lines]
        return [row for row in rows if row["event"] == name]

    async def open_accounts(self, traders: Sequence[Trader]) -> None:
        """Waits for the traders' deposits and notes their account numbers."""
        with trio.fail_after(START_TIMEOUT_S):
            async with NodeClient(self.url) as client:
                for trader in traders:
                    owner = "0x" + address_of(trader.secret).hex()
                    found: list[int] = []
                    while not found:
                        await trio.sleep(LOOK_S)
                        found = await client.call("straddle_getAccounts", [owner])
                    trader.account = found[0]


async def kill(process: trio.Process) -> None:
    """kill -9. What the process had started must end with it."""
    children = children_of(process.pid)
    process.kill()
    await process.wait()
    await gone(children)


async def gone(pids: Sequence[int]) -> None:
    """Waits until these processes have ended."""
    with trio.fail_after(10):
        while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110 - nobody tells of their end
            await trio.sleep(LOOK_S)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def children_of(pid: int) -> list[int]:
    """Processes started by the main or another thread of this one."""
    tasks = Path(f"/proc/{pid}/task")
    found: list[int] = []
    try:
        for task in tasks.iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found


class PostingTrap:
    """Kills a node when its next batch reaches L1: before L1 has taken it, or after, before it answers."""

    def __init__(self, l1: EmbeddedL1) -> None:
        self.children: list[int] = []
        """Of the process that was killed last."""
        self._send = l1.chain.send
        self._victim: tuple[int, bool] | None = None
        l1.chain.send = self.send  # type: ignore[method-assign]

    def set(self, pid: int, before: bool) -> None:
        self._victim = pid, before

    def send(self, plain: bytes, sidecar: dict[bytes, bytes]) -> bytes:
        victim, self._victim = self._victim, None
        if victim is None:
            return self._send(plain, sidecar)
        pid, before = victim
        self.children = children_of(pid)
        if before:
            os.kill(pid, signal.SIGKILL)
            raise RpcFailure(-32000, "it never arrived")
        found = self._send(plain, sidecar)
        os.kill(pid, signal.SIGKILL)
        return found
