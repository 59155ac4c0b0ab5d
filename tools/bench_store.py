"""`python -m tools.bench_store`: what durability costs, how opening grows with the journal, and memory.

Stated, not limited: the journal's blocks a second with one fdatasync for each group of blocks; opening and
reading a journal of some lengths (blocks of 20 orders at 80 bytes, as a busy 50 ms gives); one checkpoint of
10,000 leaves; restarts that execute everything again, and memory (`tools.bench_restart`). All in a temporary
directory, so on whatever disk that is (TMPDIR chooses).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from state.journal_format import Identity
from state.store import LEAF, Store
from state.store_records import JournalBatch, JournalBlock, StoredBatch, StoredBlock
from tools.bench_restart import memory_figures, restart_figure
from tools.figure import Figure

IDENTITY = Identity(31337, b"\x11" * 20, b"\x22" * 32)
ORDERS_PER_BLOCK = 20
BYTES_PER_ORDER = 80
GROUPS = (1, 10)
SYNCS = 300
LENGTHS = (1_000, 10_000)
BLOCKS_PER_SEGMENT = 1_000
RESTART_ORDERS = (1_000, 10_000, 100_000)
CHECKPOINT_LEAVES = 10_000
LEAF_BYTES = 100


def block(number: int) -> JournalBlock:
    """A block of the size of ORDERS_PER_BLOCK orders."""
    word = number.to_bytes(32, "big")
    encoded = (word * (ORDERS_PER_BLOCK * BYTES_PER_ORDER // 32 + 1))[: ORDERS_PER_BLOCK * BYTES_PER_ORDER]
    return JournalBlock(
        number, 1, word, number, word, number, 0, word, word * 2, word, encoded, (), (), 7, None
    )


def append_figures(group: int) -> list[Figure]:
    """Appending `group` blocks and waiting for the disk, again and again."""
    with tempfile.TemporaryDirectory() as name:
        store = Store.open(Path(name) / "data", IDENTITY)
        times = []
        for i in range(SYNCS):
            blocks = [block(i * group + k) for k in range(group)]
            begin = time.perf_counter()
            store.append_blocks(blocks)
            store.sync()
            times.append(time.perf_counter() - begin)
        store.close()
    times.sort()
    note = f"{group} blocks of {ORDERS_PER_BLOCK} orders to a fdatasync"
    return [
        Figure(f"journal, group of {group}: blocks", group * SYNCS / sum(times), "1/s", note=note),
        Figure(f"journal, group of {group}: p50", times[SYNCS // 2] * 1_000, "ms"),
        Figure(f"journal, group of {group}: p99", times[SYNCS * 99 // 100] * 1_000, "ms"),
    ]


def open_figures(length: int) -> list[Figure]:
    """Opening a store whose journal has `length` blocks, and reading them back."""
    with tempfile.TemporaryDirectory() as name:
        store = Store.open(Path(name) / "data", IDENTITY)
        for number in range(1, length + 1):
            store.append_blocks([block(number)])
            if number % BLOCKS_PER_SEGMENT == 0:
                store.close_batch(JournalBatch(number // BLOCKS_PER_SEGMENT, number, number, b""))
        store.sync()
        store.close()
        begin = time.perf_counter()
        store = Store.open(Path(name) / "data", IDENTITY)
        opened = time.perf_counter()
        count = sum(1 for _, record in store.journal_records() if isinstance(record, JournalBlock))
        read = time.perf_counter()
        store.close()
    if count != length:
        raise RuntimeError(f"{count} of {length} blocks came back")
    return [
        Figure(f"open, {length:,} blocks in the journal", (opened - begin) * 1_000, "ms", note="checks all"),
        Figure(f"read back {length:,} blocks", (read - opened) * 1_000, "ms", note="without executing them"),
    ]


def checkpoint_figure() -> Figure:
    """One checkpoint: leaves, a batch of a thousand blocks with their index, synced."""
    with tempfile.TemporaryDirectory() as name:
        store = Store.open(Path(name) / "data", IDENTITY)
        store.checkpoint(StoredBatch(0, 1, 0, bytes(32), bytes(32), b""), [], [], 1)
        leaves = [(LEAF + i.to_bytes(32, "big"), bytes(LEAF_BYTES)) for i in range(CHECKPOINT_LEAVES)]
        hashes = [n.to_bytes(32, "big") for n in range(BLOCKS_PER_SEGMENT * ORDERS_PER_BLOCK)]
        blocks = [
            StoredBlock(n + 1, bytes(2_000), tuple(hashes[n * ORDERS_PER_BLOCK : (n + 1) * ORDERS_PER_BLOCK]))
            for n in range(BLOCKS_PER_SEGMENT)
        ]
        batch = StoredBatch(1, 1, BLOCKS_PER_SEGMENT, bytes(32), bytes(32), bytes(2**20))
        begin = time.perf_counter()
        store.checkpoint(batch, leaves, blocks, 1)
        elapsed = time.perf_counter() - begin
        store.close()
    note = f"{CHECKPOINT_LEAVES:,} leaves, {BLOCKS_PER_SEGMENT:,} blocks of {ORDERS_PER_BLOCK}, 1 MiB of data"
    return Figure("write a checkpoint", elapsed * 1_000, "ms", note=note)


def bench_recovery() -> list[Figure]:
    """All figures of the journal and the database, of restarting, and of memory."""
    figures = [figure for group in GROUPS for figure in append_figures(group)]
    figures += [figure for length in LENGTHS for figure in open_figures(length)]
    figures.append(checkpoint_figure())
    figures += [restart_figure(orders) for orders in RESTART_ORDERS]
    return figures + memory_figures()


if __name__ == "__main__":
    for figure in bench_recovery():
        print(f"{figure.name:45} {figure.value:12,.3f} {figure.unit:4} {figure.note}")
