"""The node under load over its public port: orders per second singly, in arrays, in bulk; receipt latency.

Four processes share two cores, as the limits demand: the node, its two signature workers, a load generator
(`tools.load`) that sends orders signed beforehand over keep-alive HTTP. Every order is accepted, executed,
fsynced and answered with its receipt (`straddle_sendTransactionSync`). Orders are good-till-cancelled limit
orders within ten ticks of the mark; one in ten is priced to trade, as in the benchmark of the transition.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import trio

from sequencer.client import NodeClient, NodeUnreachable
from state.actions import (
    Action,
    BulkOrders,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Price,
    Side,
    SignedAction,
)
from state.eip712 import action_digest, report_digest
from state.hashing import keccak
from state.signatures import sign
from state.wire import to_json
from tools.bench_node import DOMAIN, PUBLISHER, SPEC, traders
from tools.figure import Figure, recover_seconds
from tools.market import Trader

ACCOUNTS = 512
MARK_UUSD = 60_000_000_000
BLOCK_INTERVAL_MS = 50
SINGLE_CONNECTIONS = 1_000
LATENCY_CONNECTIONS = 256
ARRAY_CONNECTIONS = 96
BULK_CONNECTIONS = 64
ARRAY = 50
BULK = 64
ORDERS = 20_000
START_TIMEOUT_S = 60
LOAD_TIMEOUT_S = 300


class Bench:
    """A running node, and what is needed to make orders for it."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self._traders = traders(ACCOUNTS)
        self._random = random.Random(seed)
        self._turn = 0

    def price(self) -> None:
        """Reports the mark, which orders need to be fresh."""
        trio.run(self._report)

    def single(self) -> bytes:
        """One JSON-RPC call that places one order."""
        trader = self._next_trader()
        return self._call(trader, PlaceOrder(**self._envelope(trader), order=self._order()))

    def bulk(self) -> bytes:
        """One JSON-RPC call that places 64 orders under one signature."""
        trader = self._next_trader()
        orders = tuple(self._order() for _ in range(BULK))
        return self._call(trader, BulkOrders(**self._envelope(trader), orders=orders))

    def load(self, bodies: list[bytes], connections: int, rate: float | None = None) -> dict[str, Any]:
        """Sends the bodies from a process of its own. Raises RuntimeError if any was answered by an error."""
        self.price()
        head = "POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: "
        requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        plan = {
            "host": "127.0.0.1",
            "port": self.port,
            "connections": connections,
            "rate": rate,
            "requests": requests,
        }
        with tempfile.NamedTemporaryFile() as file:
            file.write(msgpack.packb(plan))
            file.flush()
            command = [sys.executable, "-m", "tools.load", file.name]
            done = subprocess.run(command, capture_output=True, timeout=LOAD_TIMEOUT_S, check=True)
        result: dict[str, Any] = json.loads(done.stdout)
        if result["errors"]:
            raise RuntimeError(f"orders were refused: {result['errors']}")
        return result

    def _next_trader(self) -> Trader:
        self._turn += 1
        return self._traders[self._turn % ACCOUNTS]

    def _envelope(self, trader: Trader) -> dict[str, Any]:
        deadline_s = int(time.time()) + 600
        nonce = trader.next_nonce()
        return {
            "account": trader.account,
            "nonce": nonce,
            "deadline_s": deadline_s,
            "max_fee_uusd": 1_000_000,
        }

    def _order(self, kind: OrderKind = OrderKind.LIMIT) -> Order:
        side = Side.BUY if self._random.random() < 0.5 else Side.SELL
        away = self._random.randint(1, 10) if self._random.random() < 0.9 else -3
        ticks = -away if side is Side.BUY else away
        price = MARK_UUSD + ticks * SPEC.tick_uusd
        return Order(1, side, kind, price, SPEC.lot_ulots * self._random.randint(1, 5))

    def _call(self, trader: Trader, action: Action) -> bytes:
        digest = action_digest(DOMAIN, action, _name_hash)
        signed = to_json(SignedAction(action, sign(digest, trader.secret)), lambda _: SPEC.instrument)
        request = {
            "jsonrpc": "2.0",
            "id": self._turn,
            "method": "straddle_sendTransactionSync",
            "params": [signed],
        }
        return msgspec.json.encode(request)

    async def _report(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        prices = (Price(SPEC.underlying, MARK_UUSD, 1_000_000), Price(SPEC.instrument, MARK_UUSD, 1_000_000))
        unsigned = OracleReport(now_ms, prices, bytes(64))
        signature = sign(report_digest(DOMAIN, unsigned), PUBLISHER.secret)
        update = OracleUpdate((OracleReport(now_ms, prices, signature),))
        async with NodeClient(f"http://127.0.0.1:{self.port}") as client:
            await client.call("straddle_sendOracleUpdate", to_json(update, lambda _: SPEC.instrument))


@contextmanager
def bench_node(data_dir: Path | None = None) -> Iterator[Bench]:
    """A node on a fresh directory, or on `data_dir` (TMPDIR chooses the disk); ended by SIGTERM."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as temporary:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        command = [
            sys.executable,
            "-m",
            "tools.bench_node",
            str(port),
            str(data_dir or temporary),
            str(ACCOUNTS),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            trio.run(_until_funded, port, process)
            yield Bench(port, seed=1)
        finally:
            process.terminate()
            process.wait(60)


async def _until_funded(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = trio.current_time() + START_TIMEOUT_S
    async with NodeClient(f"http://127.0.0.1:{port}") as client:
        while trio.current_time() < deadline and process.poll() is None:
            try:
                if (await client.call("straddle_status"))["inbox_next"] >= ACCOUNTS + 2:
                    return
            except NodeUnreachable:
                pass
            await trio.sleep(0.1)
    raise RuntimeError(f"the benchmark's node did not get ready (status {process.poll()})")


def _name_hash(_: int) -> bytes:
    return keccak(SPEC.instrument.encode())


def _array(bodies: list[bytes]) -> bytes:
    return b"[" + b",".join(bodies) + b"]"


@cache
def single_rate() -> float:
    """Single orders per second; measured once, because the latency benchmark needs it too."""
    with bench_node() as bench:
        result = bench.load([bench.single() for _ in range(ORDERS)], SINGLE_CONNECTIONS)
    return float(result["requests_per_s"])


def _figure(name: str, orders_per_s: float, floor: float) -> list[Figure]:
    recoveries = 1 / recover_seconds()
    ratio = orders_per_s / recoveries
    return [
        Figure(name, orders_per_s, "orders/s"),
        Figure(f"{name}, of recover_limit", ratio, "x", floor, ">=", f"{recoveries:,.0f} recoveries/s"),
    ]


def bench_rpc_single() -> list[Figure]:
    """One order a request."""
    return _figure("single orders", single_rate(), 0.35)


def array_rate(bench: Bench) -> float:
    """Orders per second in arrays of 50; also what the verifier is compared with."""
    bodies = [_array([bench.single() for _ in range(ARRAY)]) for _ in range(2 * ORDERS // ARRAY)]
    return float(bench.load(bodies, ARRAY_CONNECTIONS)["requests_per_s"]) * ARRAY


def bench_rpc_array() -> list[Figure]:
    """Arrays of 50 single orders a request."""
    with bench_node() as bench:
        rate = array_rate(bench)
    return _figure("orders in arrays of 50", rate, 0.8)


def bench_rpc_bulk() -> list[Figure]:
    """Bulk actions of 64 orders a request."""
    with bench_node() as bench:
        result = bench.load([bench.bulk() for _ in range(3 * ORDERS // BULK)], BULK_CONNECTIONS)
    return _figure("orders in bulks of 64", result["requests_per_s"] * BULK, 0.9)


def bench_ack_latency() -> list[Figure]:
    """Receipts at half the single rate, for several batches' length (a batch closes every two seconds)."""
    rate = single_rate() / 2
    with bench_node() as bench:
        result = bench.load([bench.single() for _ in range(int(rate * 10))], LATENCY_CONNECTIONS, rate)
    note = f"at {rate:,.0f} orders/s over 10 s"
    return [
        Figure("receipt p50", result["p50_ms"], "ms", note=note),
        Figure("receipt p99", result["p99_ms"], "ms", 2 * BLOCK_INTERVAL_MS, "<=", note),
        Figure("receipt worst", result["max_ms"], "ms", note=note),
    ]
