"""Reading one version of the authenticated tree: proofs and witnesses.

A view is an index of pages (see `state.tree_pages`) and a source of leaves. It rebuilds the few pages that a
question touches from their leaves and compares each with the hash the index has for it, so that whatever the
database returns, no view answers for another tree than that of its root.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

from state.proofs import (
    KEY_BITS,
    KEY_BYTES,
    AbsenceProof,
    FirstProof,
    LeafData,
    MembershipProof,
    Path,
    PrefixProof,
    fold_ordered,
    key_bit,
    padded,
)
from state.tree_forest import keys_list
from state.tree_pages import PageIndex, TreeCorrupt
from state.witness import Branch, Leaf, Node, Opaque, PartialTree

LEAF_PREFIX = b"L"
_PAGES_KEPT = 256


class PageStore(Protocol):
    """What the tree reads: an ordered map of bytes."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key."""

    def iterate(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        """All (key, value) with start <= key < stop, ascending by key."""


class LeafSource:
    """The leaves in the database under changes that are not in it (None: no such leaf)."""

    def __init__(self, db: PageStore, changes: Mapping[bytes, bytes | None]) -> None:
        self.changes: dict[bytes, bytes | None] = dict(changes)
        self._db = db
        self._ordered: list[bytes] | None = None

    def change(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Lays more changes over the database."""
        self.changes.update(changes)
        self._ordered = None

    def get(self, key: bytes) -> bytes | None:
        """The value of a leaf."""
        return self.changes[key] if key in self.changes else self._db.get(LEAF_PREFIX + key)

    def between(self, start: bytes, stop: bytes | None) -> list[tuple[bytes, bytes]]:
        """All leaves with start <= key (< stop unless that is None), ascending."""
        end = bytes([LEAF_PREFIX[0] + 1]) if stop is None else LEAF_PREFIX + stop
        stored = [(key[1:], value) for key, value in self._db.iterate(LEAF_PREFIX + start, end)]
        if self._ordered is None:
            self._ordered = sorted(self.changes)
        first = bisect_left(self._ordered, start)
        last = len(self._ordered) if stop is None else bisect_left(self._ordered, stop)
        if first == last:
            return stored
        leaves: dict[bytes, bytes | None] = dict(stored)
        leaves.update((key, self.changes[key]) for key in self._ordered[first:last])
        return sorted((key, value) for key, value in leaves.items() if value is not None)


class _Folded(Opaque):
    """A node of the index that is opened only when a walk comes to it."""

    __slots__ = ("number",)
    number: int

    def __init__(self, node_hash: bytes, number: int) -> None:
        super().__init__(node_hash)
        object.__setattr__(self, "number", number)


class TreeView:
    """The tree at one version; valid until the tree is next updated or committed."""

    def __init__(self, index: PageIndex, source: LeafSource) -> None:
        self._index = index
        self._source = source
        self._first_keys: list[bytes] | None = None
        self._pages: dict[int, Node] = {}

    @property
    def root(self) -> bytes:
        """The root hash of this version."""
        return self._index.root()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key at this version, unproved."""
        return self._source.get(key)

    def prove(self, key: bytes) -> MembershipProof | AbsenceProof:
        """Proof of the value of `key`, or that it has none. Raises ValueError (length), TreeCorrupt."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"key has {len(key)} bytes, not {KEY_BYTES}")
        path, node = self._descend(key, KEY_BITS)
        leaf = _data(node)
        if leaf is not None and leaf.key == key:
            return MembershipProof(key, leaf.value, path)
        return AbsenceProof(key, leaf, path)

    def prove_first(self, prefix: bytes) -> FirstProof:
        """Proof of the first leaf under `prefix`, or that there is none. Raises ValueError, TreeCorrupt."""
        _check_prefix(prefix)
        path, node = self._descend(padded(prefix), KEY_BITS)
        return FirstProof(prefix, _data(node), path)

    def prove_prefix(self, prefix: bytes, max_leaves: int = 65_536) -> PrefixProof:
        """Proof of all leaves under `prefix`. Raises ValueError beyond `max_leaves`, TreeCorrupt."""
        _check_prefix(prefix)
        path, node = self._descend(padded(prefix), 8 * len(prefix))
        leaves = tuple(islice(self._leaves(node), max_leaves + 1))
        if not leaves or not leaves[0].key.startswith(prefix):
            first = self.prove_first(prefix)
            return PrefixProof(prefix, (), first.leaf, first.path)
        if len(leaves) > max_leaves:
            raise ValueError(f"more than {max_leaves} leaves under prefix {prefix.hex()}")
        return PrefixProof(prefix, leaves, None, path)

    def iterate_under(self, prefix: bytes, bound: int) -> list[LeafData]:
        """The first `bound` leaves under `prefix`, ascending. Raises ValueError, TreeCorrupt."""
        _check_prefix(prefix)
        _, node = self._descend(padded(prefix), 8 * len(prefix))
        leaves = list(islice(self._leaves(node), bound))
        return leaves if leaves and leaves[0].key.startswith(prefix) else []

    def witness(
        self,
        keys: Iterable[bytes],
        prefixes: Iterable[bytes] = (),
        iterations: Iterable[tuple[bytes, int]] = (),
    ) -> PartialTree:
        """The part of this tree that suffices for the questions of one step.

        `keys`: all keys read, written or deleted, and all that a prefix question answered with. `prefixes`:
        where the first leaf was asked for. `iterations`: (prefix, bound) as asked of this version. Within
        the step, prefix questions may follow changes, provided the keys changed and answered are among
        `keys`. Raises TreeCorrupt.
        """
        queries = {*keys, *map(padded, prefixes)}
        for prefix, bound in iterations:
            queries.add(padded(prefix))
            queries.update(leaf.key for leaf in self.iterate_under(prefix, bound))
        ends = {
            leaf.key for query in queries if (leaf := _data(self._descend(query, KEY_BITS)[1])) is not None
        }
        if self._index.is_empty():
            return PartialTree(None)
        return PartialTree(self._pruned(self._root_node(), sorted(ends)))

    def _pruned(self, node: Node, ends: Sequence[bytes]) -> Node:
        """A copy of the subtree that keeps the leaves with these keys (all below `node`, ascending)."""
        if not ends:
            return Opaque(node.hash)
        node = self._opened(node)
        if isinstance(node, Leaf):
            return node
        cut = next((i for i, key in enumerate(ends) if key_bit(key, node.bit)), len(ends))
        return Branch(node.bit, self._pruned(node.left, ends[:cut]), self._pruned(node.right, ends[cut:]))

    def _descend(self, query: bytes, stop_bit: int) -> tuple[Path, Node | None]:
        """Turns by `query`'s bits at branches with an index below `stop_bit`; None for the empty tree."""
        bits = bytearray()
        siblings: list[bytes] = []
        if self._index.is_empty():
            return Path(b"", ()), None
        node = self._opened(self._root_node())
        while isinstance(node, Branch) and node.bit < stop_bit:
            side = key_bit(query, node.bit)
            bits.append(node.bit)
            siblings.append(node.child(1 - side).hash)
            node = self._opened(node.child(side))
        return Path(bytes(reversed(bits)), tuple(reversed(siblings))), node

    def _leaves(self, node: Node | None) -> Iterator[LeafData]:
        """All leaves below a node, ascending."""
        stack = [] if node is None else [node]
        while stack:
            top = self._opened(stack.pop())
            if isinstance(top, Branch):
                stack += [top.right, top.left]
            else:
                assert isinstance(top, Leaf)
                yield LeafData(top.key, top.value)

    def _root_node(self) -> Node:
        return self._folded(self._index.root_node)

    def _folded(self, number: int) -> _Folded:
        return _Folded(self._index.forest.hashes[number].tobytes(), number)

    def _opened(self, node: Node) -> Leaf | Branch:
        if isinstance(node, _Folded):
            place = node.number >> 1
            if not node.number & 1:
                return self._page(place)
            forest = self._index.forest
            left, right = self._folded(int(forest.left[place])), self._folded(int(forest.right[place]))
            return Branch(int(forest.bits[place]), left, right)
        assert not isinstance(node, Opaque)
        return node

    def _page(self, page: int) -> Leaf | Branch:
        """The top node of a page, rebuilt from its leaves. Raises TreeCorrupt if they give another hash."""
        node = self._pages.get(page)
        if node is None:
            if self._first_keys is None:
                self._first_keys = keys_list(self._index.first_keys)
            start = self._first_keys[page]
            stop = self._first_keys[page + 1] if page + 1 < len(self._first_keys) else None
            leaves = self._source.between(start, stop)
            if not leaves:
                raise TreeCorrupt(f"page {start.hex()} has no leaves in the database")
            nodes: list[Node] = [Leaf(key, value) for key, value in leaves]
            node = fold_ordered([key for key, _ in leaves], nodes, Branch)
            recorded = self._index.forest.hashes[2 * page].tobytes()
            if node.hash != recorded:
                raise TreeCorrupt(
                    f"page {start.hex()}: leaves hash to {node.hash.hex()}, not {recorded.hex()}"
                )
            if len(self._pages) >= _PAGES_KEPT:
                self._pages.clear()
            self._pages[page] = node
        assert not isinstance(node, Opaque)
        return node


def _data(node: Node | None) -> LeafData | None:
    return LeafData(node.key, node.value) if isinstance(node, Leaf) else None


def _check_prefix(prefix: bytes) -> None:
    if len(prefix) > KEY_BYTES:
        raise ValueError(f"prefix has {len(prefix)} bytes, more than a key")
