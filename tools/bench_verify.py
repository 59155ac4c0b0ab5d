"""How fast a verifier replays what a node produced: the very batches of a node under load, from their bytes.

*Production* is what the node sustains through its public port in arrays of 50 (`bench_rpc.array_rate`), with
its signature worker and the load generator on the same cores. *Replay* is what the verifier does with the
batches that this node closed: decoding, digests and signers in a second process a batch ahead, execution,
root, and the write to its own database. Every root is compared with the node's. Reading L1 comes before that,
in a task of its own: `bench_l1` states it.

The second ratio is of like with like, in processor time: one process does all of either side, without port
and without load. Both must find every signer, about a third of the work, so it cannot be far from one.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from l1_bridge.batch import MAX_BATCH_BYTES, BatchBlock, decode_batch
from l1_bridge.derivation import DerivedBatch
from l1_bridge.recovery import Recovered, Recovering, RecoveryProcess, recover_batch, recover_payload
from l1_bridge.replay import Replay
from l1_bridge.rollup import BatchEvent
from l1_bridge.verifier import BATCHES_AHEAD
from l1_bridge.workers import collect_seldom
from sequencer.committer import BOOKS, stored_batch
from sequencer.config import StoreSection
from sequencer.machine import Machine
from sequencer.startup import Opened, open_state
from state.block import L1Message
from state.genesis import GENESIS_ROOT
from state.store import Identity, Store
from state.store_records import StoredBlock
from tools.bench_node import DOMAIN, messages
from tools.bench_rpc import ACCOUNTS, array_rate, bench_node
from tools.exchange import l1_origin
from tools.figure import Figure, recover_seconds

LAST_BATCH_S = 4.0
"""Until the node has closed its last batch."""
SETUP_TRANSACTIONS = 50
"""A batch with fewer of them was made before the load."""
ROUNDS = 2
VERIFIED_BATCHES = 6
MIN_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class Speed:
    """What one way of doing it took."""

    orders: int
    seconds: float
    cpu_s: float
    """Of this process."""
    executing_s: float = 0.0


def produced(data_dir: Path) -> list[DerivedBatch]:
    """The batches of a stopped benchmark node, as derivation gives them."""
    store = Store.open(data_dir, Identity(DOMAIN.chain_id, DOMAIN.contract, GENESIS_ROOT))
    queue = tuple(messages(ACCOUNTS))
    batches: list[DerivedBatch] = []
    last_root = GENESIS_ROOT
    try:
        while (stored := store.batch(len(batches) + 1)) is not None:
            head = decode_batch(stored.data).head
            assert head is not None
            event = BatchEvent(
                number=stored.number,
                prev_root=last_root,
                root=stored.root,
                commitment=bytes(32),
                data_bytes=len(stored.data),
                blobs=1,
                inbox_next=0,
                inbox_count=len(queue),
                timestamp_ms=0,
                poster=bytes(20),
                l1_block=1,
                l1_block_hash=bytes(32),
                transaction_hash=bytes(32),
            )
            batches.append(DerivedBatch(event, stored.data, queue[head.inbox_start :], {1: l1_origin(1)}))
            last_root = stored.root
    finally:
        store.close()
    return batches


def is_load(derived: DerivedBatch) -> bool:
    """Whether the batch holds the load, and not what was done before it."""
    blocks = decode_batch(derived.data).blocks
    return sum(len(block.transactions) for block in blocks) >= SETUP_TRANSACTIONS


def replayed(batches: list[DerivedBatch], setup: int, path: Path, beside: bool) -> Speed:
    """Verifies the batches, timed after the first `setup`.

    `beside` recovers signers in a second process, batches ahead, as the verifier does.
    """
    with ExitStack() as stack:
        replay = stack.enter_context(Replay(path, DOMAIN))
        for derived in batches[:setup]:
            _keep(replay, derived, recover_batch(DOMAIN, derived.data, replay.names()))
        recovery = stack.enter_context(closing(RecoveryProcess())) if beside else None
        if recovery:
            recovery.submit(DOMAIN, batches[0].data, {}).result()  # it has started
        waiting = deque(batches[setup:])
        ahead: deque[Recovering] = deque()
        orders, executing, begin, cpu_begin = 0, 0.0, time.perf_counter(), time.process_time()
        for derived in batches[setup:]:
            while recovery and waiting and len(ahead) <= BATCHES_AHEAD:
                ahead.append(recovery.submit(DOMAIN, waiting.popleft().data, replay.names()))
            if recovery:
                signed = ahead.popleft().result()
            else:
                signed = recover_batch(DOMAIN, derived.data, replay.names())
            started = time.perf_counter()
            orders += _keep(replay, derived, signed)
            executing += time.perf_counter() - started
        return Speed(orders, time.perf_counter() - begin, time.process_time() - cpu_begin, executing)


def _keep(replay: Replay, derived: DerivedBatch, signed: Recovered) -> int:
    """Executes a batch, compares its root, writes it; how many transactions it had."""
    done = replay.execute(derived, signed)
    if done.root != derived.event.root:
        raise RuntimeError(f"batch {derived.event.number} comes out with another root than the node's")
    replay.keep(derived.event.number)
    return done.transactions


def produced_again(batches: list[DerivedBatch], setup: int, path: Path) -> Speed:
    """A node's work on the same orders without port and fsyncs, in one process: from payloads to batches."""
    limits = StoreSection()
    opened = open_state(path, DOMAIN, limits.clean_leaves, limits.tree_pages)
    orders, seconds, cpu_s = 0, 0.0, 0.0
    try:
        for number, derived in enumerate(batches):
            decoded = decode_batch(derived.data)
            queue = list(derived.messages)
            begin, cpu_begin = time.perf_counter(), time.process_time()
            count = sum(_make_block(opened.machine, block, queue) for block in decoded.blocks)
            _commit(opened, derived.event.root)
            if number >= setup:
                orders += count
                seconds += time.perf_counter() - begin
                cpu_s += time.process_time() - cpu_begin
    finally:
        opened.store.close()
    return Speed(orders, seconds, cpu_s)


def _make_block(machine: Machine, block: BatchBlock, queue: list[L1Message]) -> int:
    messages, queue[: block.messages] = tuple(queue[: block.messages]), []
    transactions = [
        recover_payload(DOMAIN, payload, machine.markets.name_hash_of).transaction(payload)
        for payload in block.transactions
    ]
    machine.execute(block.timestamp_ms, l1_origin(block.l1_block), messages, transactions, MAX_BATCH_BYTES)
    return len(transactions)


def _commit(opened: Opened, root: bytes) -> None:
    """Closes the batch: its root, and everything of the state to the database."""
    closed = opened.machine.close()
    tree = opened.trees.tree
    if tree.update(closed.dirty()) != root:
        raise RuntimeError(f"batch {closed.number} comes out with another root than the node's")
    opened.books.take(closed.dirty())
    writes = tree.commit(closed.number) + tree.prune(closed.number)
    blocks = [StoredBlock(n, b"", ()) for n in range(closed.first_block, closed.last_block + 1)]
    meta = {BOOKS: opened.books.encode()}
    opened.store.checkpoint(stored_batch(closed, root), writes, blocks, 1, meta)
    opened.machine.view.release()


def bench_verify() -> list[Figure]:
    """Runs a node under load, then verifies its batches and makes them again; the best of two rounds of each.

    Other work on the machine only ever slows a round down.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with bench_node(directory / "node") as bench:
            production = max(array_rate(bench) for _ in range(ROUNDS))
            time.sleep(LAST_BATCH_S)
        batches = produced(directory / "node")
        setup = next(place for place, derived in enumerate(batches) if is_load(derived))
        batches = batches[: setup + VERIFIED_BATCHES]
        thresholds = gc.get_threshold()
        collect_seldom()
        beside = [replayed(batches, setup, directory / f"beside {n}", beside=True) for n in range(ROUNDS)]
        alone = [replayed(batches, setup, directory / f"alone {n}", beside=False) for n in range(ROUNDS)]
        again = [produced_again(batches, setup, directory / f"again {n}") for n in range(ROUNDS)]
        gc.unfreeze()
        gc.set_threshold(*thresholds)
    fastest = min(beside, key=lambda speed: speed.seconds)
    verifying, producing = (min(speed.cpu_s for speed in speeds) for speeds in (alone, again))
    orders = fastest.orders
    share = f"{fastest.executing_s / fastest.seconds:.0%} of the time executing"
    note = f"{orders:,} orders; {share}; {recover_seconds() * orders / fastest.seconds:.2f} x recover_limit"
    return [
        Figure("node through its port, arrays of 50", production, "orders/s"),
        Figure("verifier, two processes", orders / fastest.seconds, "orders/s", note=note),
        Figure("verifier / node", orders / fastest.seconds / production, "x", MIN_RATIO, ">="),
        Figure("verifying, all of it", verifying / orders * 1e6, "CPU us/order"),
        Figure("producing, without port", producing / orders * 1e6, "CPU us/order"),
        Figure("producing / verifying", producing / verifying, "x", note="speeds' ratio, a core each"),
    ]


if __name__ == "__main__":
    for figure in bench_verify():
        print(figure)
