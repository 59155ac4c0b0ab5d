"""A naive model of the authenticated tree, written from its definition; shares only keccak with the real one.

`python -m tests.tree_model` writes tests/vectors/tree.json from it.
"""

from __future__ import annotations

import json
import random
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from state import tree_pages, tree_regroup
from state.hashing import keccak

VECTORS = Path(__file__).parent / "vectors" / "tree.json"
Leaves = dict[bytes, bytes]


class MemoryStore:
    """An ordered map in memory with atomic batches."""

    def __init__(self) -> None:
        self.data: dict[bytes, bytes] = {}
        self._ordered: list[bytes] | None = None

    def get(self, key: bytes) -> bytes | None:
        return self.data.get(key)

    def iterate(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        if self._ordered is None:
            self._ordered = sorted(self.data)
        found = self._ordered[bisect_left(self._ordered, start) : bisect_left(self._ordered, stop)]
        return [(key, self.data[key]) for key in found]

    def write(self, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in writes:
            if value is None:
                self.data.pop(key, None)
            else:
                self.data[key] = value
        self._ordered = None


def pages_of(leaves: int) -> ExitStack:
    """Pages of another size, so that few leaves make many pages."""
    stack = ExitStack()
    stack.enter_context(patch.object(tree_pages, "PAGE_LEAVES", leaves))
    stack.enter_context(patch.object(tree_regroup, "PAGE_LEAVES", leaves))
    return stack


def bit_of(key: bytes, bit: int) -> str:
    return f"{int.from_bytes(key, 'big'):0256b}"[bit]


def split(leaves: Leaves) -> tuple[int, Leaves, Leaves]:
    """The first bit at which these (at least two) keys differ, and the two halves."""
    texts = {key: f"{int.from_bytes(key, 'big'):0256b}" for key in leaves}
    bit = next(i for i in range(256) if len({text[i] for text in texts.values()}) == 2)
    left = {key: value for key, value in leaves.items() if texts[key][bit] == "0"}
    return bit, left, {key: value for key, value in leaves.items() if key not in left}


def naive_root(leaves: Leaves) -> bytes:
    if not leaves:
        return bytes(32)
    if len(leaves) == 1:
        ((key, value),) = leaves.items()
        return keccak(b"\x00" + key + value)
    bit, left, right = split(leaves)
    return keccak(b"\x01" + bytes([bit]) + naive_root(left) + naive_root(right))


def naive_path(leaves: Leaves, query: bytes, stop_bit: int = 256) -> tuple[Leaves, list[tuple[int, bytes]]]:
    """The leaves of the node at which a lookup ends, and (bit, sibling) from there to the root."""
    if len(leaves) <= 1:
        return leaves, []
    bit, left, right = split(leaves)
    if bit >= stop_bit:
        return leaves, []
    taken, other = (right, left) if bit_of(query, bit) == "1" else (left, right)
    end, path = naive_path(taken, query, stop_bit)
    return end, [*path, (bit, naive_root(other))]


def naive_pages(leaves: Leaves, page_leaves: int) -> dict[bytes, bytes]:
    """First key to stored row of each maximal subtree of at most `page_leaves` leaves."""
    if not leaves:
        return {}
    if len(leaves) <= page_leaves:
        return {min(leaves): len(leaves).to_bytes(2, "big") + naive_root(leaves)}
    _, left, right = split(leaves)
    return naive_pages(left, page_leaves) | naive_pages(right, page_leaves)


def random_key(rng: random.Random) -> bytes:
    """A key as the protocol makes them: few kinds, dense and sparse fields, zero padding; some deep."""
    if rng.random() < 0.1:
        return (1 << rng.randrange(256)).to_bytes(32, "big")
    kind = rng.choice([0, 8, 11, 12, 255])
    field = rng.choice(
        [rng.randrange(4), rng.randrange(200), rng.randrange(1 << 16), 2**64 - 1 - rng.randrange(9)]
    )
    return (bytes([kind]) + field.to_bytes(8, "big") + bytes([rng.choice([0, 1, 255])])).ljust(32, b"\0")


def random_changes(rng: random.Random, model: Leaves, count: int) -> dict[bytes, bytes | None]:
    """About `count` inserts, overwrites, and deletions of what is and what is not there."""
    changes: dict[bytes, bytes | None] = {}
    deleting = rng.choice([0.1, 0.5, 0.95])
    for _ in range(count):
        key = rng.choice(list(model)) if model and rng.random() < 0.6 else random_key(rng)
        changes[key] = None if rng.random() < deleting else rng.randbytes(rng.randrange(1, 150))
    return changes


def apply(model: Leaves, changes: dict[bytes, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            model.pop(key, None)
        else:
            model[key] = value


def naive_lookup(leaves: Leaves, query: bytes) -> dict[str, Any]:
    """The lookup of a key: where it ends and the path, as JSON."""
    end, path = naive_path(leaves, query)
    ((key, value),) = end.items() if end else ((b"", b""),)
    bits, siblings = bytes(bit for bit, _ in path), [sibling.hex() for _, sibling in path]
    return {
        "query": query.hex(),
        "key": key.hex(),
        "value": value.hex(),
        "bits": bits.hex(),
        "siblings": siblings,
    }


def vector(name: str, leaves: Leaves, queries: list[bytes], prefixes: list[bytes]) -> dict[str, Any]:
    proofs = []
    for prefix in prefixes:
        end, path = naive_path(leaves, prefix.ljust(32, b"\0"), 8 * len(prefix))
        under = {key.hex(): value.hex() for key, value in sorted(end.items()) if key.startswith(prefix)}
        bits, siblings = bytes(bit for bit, _ in path), [sibling.hex() for _, sibling in path]
        proofs.append({"prefix": prefix.hex(), "leaves": under, "bits": bits.hex(), "siblings": siblings})
    return {
        "name": name,
        "leaves": {key.hex(): value.hex() for key, value in sorted(leaves.items())},
        "root": naive_root(leaves).hex(),
        "lookups": [naive_lookup(leaves, query) for query in queries],
        "prefixes": proofs,
    }


def vectors() -> list[dict[str, Any]]:
    def key(kind: int, *fields: int) -> bytes:
        return (bytes([kind]) + b"".join(f.to_bytes(8, "big") for f in fields)).ljust(32, b"\0")

    positions = {
        key(11, account, market): bytes([account, market]) * 20 for account in range(5) for market in (1, 4)
    }
    ladder = {(1 << bit).to_bytes(32, "big"): bytes([bit]) for bit in range(0, 256, 5)}
    rng = random.Random(2)
    clustered = {random_key(rng): rng.randbytes(rng.randrange(1, 40)) for _ in range(40)}
    some = sorted(clustered)[::9]
    return [
        vector("empty", {}, [key(1)], [b"", b"\x0b"]),
        vector("one leaf", {key(0): b"system"}, [key(0), key(9)], [b"", b"\x00", b"\x0b"]),
        vector("two leaves", {key(0): b"a", key(0, 1): b"b"}, [key(0, 1), key(7)], [key(0)[:9], b"\x07"]),
        vector(
            "positions",
            positions,
            [key(11, 2, 4), key(11, 2, 5), key(12)],
            [key(11, 3)[:9], key(11, 7)[:9], b"\x0b", b"\x0c"],
        ),
        vector("ladder", ladder, [(32).to_bytes(32, "big"), (33).to_bytes(32, "big")], [bytes(30)]),
        vector("clustered", clustered, [*some, key(3), key(255, 3)], [b"\x08", b"\x0c", b"\x0c" + bytes(7)]),
    ]


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), indent=1) + "\n")
