"""`python -m tools.bench_root`: what a new state root costs per changed leaf, and how that grows.

Trees of 10^4, 10^5 and 10^6 leaves of 100 bytes with keys as the protocol makes them (accounts, positions,
resting orders), in LevelDB, nodes in the cache. A round overwrites 10,000 random leaves (all of the
smallest tree). The yardstick, one keccak of 64 bytes, is measured next to every round and the median of the
quotients is the figure, because shared machines change speed from second to second. The largest tree also
shows inserting, deleting, committing, opening, an update with nothing in the cache, a proof of an old
version, and memory.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import plyvel

from state.hashing import keccak
from state.keys import account_key, order_key, position_key
from state.tree import Tree
from tools.figure import Figure

SIZES = (10_000, 100_000, 1_000_000)
DIRTY = 10_000
ROUNDS = 7
VALUE_BYTES = 100
LIMIT_KECCAKS = 20


class LevelStore:
    """LevelDB in a directory, as the node's store gives it to the tree."""

    def __init__(self, path: Path) -> None:
        self._db = plyvel.DB(str(path), create_if_missing=True)

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self._db.get(key)
        return value

    def iterate(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        found: Iterable[tuple[bytes, bytes]] = self._db.iterator(start=start, stop=stop)
        return found

    def write(self, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        with self._db.write_batch(transaction=True) as batch:
            for key, value in writes:
                if value is None:
                    batch.delete(key)
                else:
                    batch.put(key, value)

    def close(self) -> None:
        self._db.close()


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def one_keccak() -> float:
    """Seconds of one keccak of 64 bytes, now."""
    data = bytes(64)
    return seconds(lambda: [keccak(data) for _ in range(20_000)]) / 20_000


def random_keys(rng: random.Random, count: int, accounts: int) -> list[bytes]:
    """Distinct keys: a quarter accounts, half positions in 16 markets, a quarter orders around 16 prices."""
    keys: set[bytes] = {account_key(i) for i in range(1, count // 4 + 1)}
    while len(keys) < count * 3 // 4:
        keys.add(position_key(rng.randrange(1, accounts), rng.randrange(1, 17)))
    while len(keys) < count:
        market, side = rng.randrange(1, 17), rng.randrange(2)
        keys.add(order_key(market, side, market * 10**9 + rng.randrange(4000) * 10**5, rng.randrange(2**24)))
    return sorted(keys)


def overwrite_figures(rng: random.Random, tree: Tree, keys: list[bytes]) -> list[Figure]:
    """Microseconds and keccaks per dirty leaf, everything in the cache."""
    dirty = min(DIRTY, len(keys))
    costs: list[tuple[float, float]] = []
    tree.update({key: rng.randbytes(VALUE_BYTES) for key in rng.sample(keys, dirty)})
    for _ in range(ROUNDS):
        changes: dict[bytes, bytes | None] = {
            key: rng.randbytes(VALUE_BYTES) for key in rng.sample(keys, dirty)
        }
        yardstick = one_keccak()
        cost = seconds(lambda changes=changes: tree.update(changes)) / dirty  # type: ignore[misc]
        costs.append((cost / ((yardstick + one_keccak()) / 2), cost))
    keccaks, cost = sorted(costs)[ROUNDS // 2]
    name = f"of {len(keys):,} leaves, {dirty:,} random dirty"
    limit = LIMIT_KECCAKS if len(keys) == SIZES[-1] else None
    return [
        Figure(f"{name}: time per dirty leaf", cost * 1e6, "us"),
        Figure(f"{name}: in keccaks", keccaks, "keccaks", limit),
    ]


def further_figures(rng: random.Random, tree: Tree, store: LevelStore, keys: list[bytes]) -> list[Figure]:
    """What else a tree of this size costs; stated, not limited."""
    version = tree.version or 0
    new = sorted(set(random_keys(rng, len(keys), len(keys) // 4)).difference(keys))
    changes: dict[bytes, bytes | None] = {key: rng.randbytes(VALUE_BYTES) for key in rng.sample(new, DIRTY)}
    insert = seconds(lambda: tree.update(changes)) / DIRTY
    begin = time.perf_counter()
    writes = tree.commit(version + 1)
    commit = time.perf_counter() - begin
    written = sum(len(key) + len(value or b"") for key, value in writes)
    store.write(writes)
    delete = seconds(lambda: tree.update(dict.fromkeys(changes))) / DIRTY
    lone = seconds(lambda: tree.update({next(iter(changes)): b"one"}))
    begin = time.perf_counter()
    view = tree.at(version)
    old = time.perf_counter() - begin
    proof = seconds(lambda: [view.prove(key) for key in rng.sample(keys, 200)]) / 200
    opening = seconds(lambda: Tree(store, 2**15))
    cold_tree = Tree(store, 2**15)
    cold: dict[bytes, bytes | None] = {key: rng.randbytes(VALUE_BYTES) for key in rng.sample(keys, DIRTY)}
    loading = seconds(lambda: cold_tree.update(cold)) / DIRTY
    name = f"of {len(keys):,} leaves"
    return [
        Figure(f"{name}: {DIRTY:,} random inserts, each", insert * 1e6, "us"),
        Figure(f"{name}: {DIRTY:,} random deletions, each", delete * 1e6, "us"),
        Figure(f"{name}: one insert alone", lone * 1e3, "ms"),
        Figure(f"{name}: {DIRTY:,} overwrites with an empty cache, each", loading * 1e6, "us"),
        Figure(
            f"{name}: commit of these inserts",
            commit * 1e3,
            "ms",
            note=f"{len(writes):,} writes, {written:,} bytes",
        ),
        Figure(f"{name}: opening", opening * 1e3, "ms"),
        Figure(f"{name}: view of the version before", old * 1e3, "ms"),
        Figure(f"{name}: proof from that view", proof * 1e3, "ms"),
        Figure(f"{name}: index in memory", tree.index_bytes / 1e6, "MB", note=f"{tree.page_count:,} pages"),
    ]


def bench_root() -> list[Figure]:
    """All figures; about a minute."""
    figures = []
    for size in SIZES:
        rng = random.Random(size)
        keys = random_keys(rng, size, size // 4)
        with tempfile.TemporaryDirectory() as folder:
            store = LevelStore(Path(folder))
            tree = Tree(store, 2**15)
            building = seconds(lambda: tree.update({key: rng.randbytes(VALUE_BYTES) for key in keys}))  # noqa: B023
            store.write(tree.commit(1))
            figures += overwrite_figures(rng, tree, keys)
            if size == SIZES[-1]:
                store.write(tree.commit(2))
                figures.append(Figure(f"of {size:,} leaves: building, each", building / size * 1e6, "us"))
                figures += further_figures(rng, tree, store, keys)
            store.close()
    return figures


if __name__ == "__main__":
    for figure in bench_root():
        print({name: value for name, value in asdict(figure).items() if value not in (None, "")})
