"""The authenticated tree: roots from changes, beyond memory, with old versions.

What it is: see `state.proofs` for hashes and shape, `state.tree_pages` for pages. This file keeps one tree
up to date and says what must be written.

Database keys (all written by one atomic batch per version, together with whatever else its owner writes):
    L  | key (32)       value of a leaf at the last committed version
    TP | first key (32) count (2) | hash (32) of a page
    TM                  format (1) | version (8) | root (32) | leaves (8) | versions kept, ascending (8 each)
    TU | version (8)    root (32) and changes that lead back to the version before: leaves, then pages

Invariants:
- The database is always exactly at the last committed version, so opening is reading.
- `update` changes memory only; `commit` returns the writes and counts on their being in the database before
  the tree is used again.
- An older version is the database with the undo records of the later ones laid over it, newest first. Cost:
  for each version the old values of the changed leaves and 66 bytes per changed page on disk; for reading,
  the records since that version and one hash per page to rebuild the index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from sha3 import keccak_256

from state.proofs import (
    KEY_BYTES,
    AbsenceProof,
    FirstProof,
    LeafData,
    MembershipProof,
    PrefixProof,
    subtree_hash,
)
from state.tree_forest import Hashes, Ints, Keys, hashes_array, keys_array, keys_list
from state.tree_pages import CacheTooSmall, PageCache, PageIndex, TreeCorrupt
from state.tree_regroup import Changes, Located, plan, rebuild
from state.tree_view import LEAF_PREFIX, LeafSource, PageStore, TreeView
from state.witness import PartialTree

__all__ = ["PageStore", "Tree", "TreeCorrupt", "TreeView", "VersionUnavailable"]

PAGE_ROW_PREFIX = b"TP"
META_KEY = b"TM"
UNDO_PREFIX = b"TU"
FORMAT = 1
MIN_CACHE_PAGES = 128
_CHUNK_KEYS = 65_536

Write = tuple[bytes, bytes | None]


class VersionUnavailable(LookupError):
    """The version was never committed, or is pruned."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The index as it is stored."""

    first_keys: Keys
    counts: Ints
    hashes: Hashes

    @classmethod
    def of(cls, index: PageIndex) -> _Rows:
        return cls(index.first_keys.copy(), index.counts.copy(), index.page_hashes().copy())

    @classmethod
    def decode(cls, rows: list[tuple[bytes, bytes]]) -> _Rows:
        counts = np.array([int.from_bytes(row[:2], "big") for _, row in rows], dtype=np.int64)
        return cls(keys_array([key for key, _ in rows]), counts, hashes_array([row[2:] for _, row in rows]))

    def size_bytes(self) -> int:
        """Memory in use."""
        return self.first_keys.nbytes + self.counts.nbytes + self.hashes.nbytes

    def encoded(self, chosen: Ints) -> dict[bytes, bytes]:
        """First key to stored row, for the chosen rows."""
        keys = keys_list(self.first_keys[chosen])
        rows = zip(keys, self.counts[chosen].tolist(), self.hashes[chosen], strict=True)
        return {key: count.to_bytes(2, "big") + page_hash.tobytes() for key, count, page_hash in rows}

    def not_in(self, other: _Rows) -> dict[bytes, bytes]:
        """The rows that `other` does not have just so."""
        if not len(other.first_keys):
            return self.encoded(np.arange(len(self.first_keys)))
        at = np.minimum(np.searchsorted(other.first_keys, self.first_keys), len(other.first_keys) - 1)
        same = (other.first_keys[at] == self.first_keys) & (other.counts[at] == self.counts)
        same &= (other.hashes[at] == self.hashes).all(axis=1)
        return self.encoded(np.flatnonzero(~same))


class Tree:
    """One tree over a store. Not for use by two threads at once; `update` may run in a worker thread."""

    def __init__(self, db: PageStore, cache_pages: int) -> None:
        """Opens what the store holds, keeping nodes of at most `cache_pages` pages (at least 128; 8 KB each).

        Raises TreeCorrupt if the stored index does not give the stored root, naming what differs.
        """
        if cache_pages < MIN_CACHE_PAGES:
            raise ValueError(f"cache_pages {cache_pages} is below {MIN_CACHE_PAGES}")
        self._db = db
        self._cache = PageCache(cache_pages)
        self._cache_pages = cache_pages
        self._changes = LeafSource(db, {})
        self._views: dict[int, TreeView] = {}
        self._versions: list[int] = []
        self._index = self._opened()
        self._committed, self._committed_root = _Rows.of(self._index), self._index.root()
        self._cache.renumber(np.full(len(self._index.first_keys), -1, dtype=np.int64))

    @property
    def root(self) -> bytes:
        """The root after all updates."""
        return self._index.root()

    @property
    def version(self) -> int | None:
        """The last committed version."""
        return self._versions[-1] if self._versions else None

    @property
    def versions(self) -> tuple[int, ...]:
        """All versions that can be read, ascending."""
        return tuple(self._versions)

    @property
    def leaf_count(self) -> int:
        """The number of leaves after all updates."""
        return int(self._index.counts.sum())

    @property
    def page_count(self) -> int:
        """The number of pages after all updates."""
        return len(self._index.counts)

    @property
    def index_bytes(self) -> int:
        """Memory of the index over the pages and of its copy as last committed, in bytes."""
        return self._index.size_bytes() + self._committed.size_bytes()

    def update(self, changes: Mapping[bytes, bytes | None]) -> bytes:
        """Sets (value) and deletes (None) leaves; returns the new root.

        Deleting what is not there is no change. Raises ValueError on a wrong length, before anything is
        changed, TreeCorrupt when stored leaves turn out to be damaged; the tree must then not be used
        further.
        """
        ordered = sorted(changes)
        if any(len(key) != KEY_BYTES for key in ordered):
            raise ValueError(f"a key has not {KEY_BYTES} bytes")
        if b"" in changes.values():
            raise ValueError("a leaf's value must not be empty")
        for start in range(0, len(ordered), _CHUNK_KEYS):
            leaves = [(key, changes[key]) for key in ordered[start : start + _CHUNK_KEYS]]
            self._apply_in_parts(Changes.of(leaves))
        return self.root

    def commit(self, version: int) -> list[Write]:
        """The writes that make the database this version; the caller must write all of them in one batch.

        None deletes. Raises ValueError unless `version` is above the last one.
        """
        if version < 0 or (self._versions and version <= self._versions[-1]):
            raise ValueError(f"version {version} does not come after {self.version}")
        rows = _Rows.of(self._index)
        gone, new = self._committed.not_in(rows), rows.not_in(self._committed)
        old_leaves: dict[bytes, bytes | None] = {}
        writes: list[Write] = []
        for key, value in self._changes.changes.items():
            before = self._db.get(LEAF_PREFIX + key)
            if before != value:
                old_leaves[key] = before
                writes.append((LEAF_PREFIX + key, value))
        writes += [(PAGE_ROW_PREFIX + key, None) for key in gone if key not in new]
        writes += [(PAGE_ROW_PREFIX + key, row) for key, row in new.items()]
        old_rows: dict[bytes, bytes | None] = {**dict.fromkeys(new), **gone}
        if self._versions:
            undo = self._committed_root + _encode_changes(old_leaves) + _encode_changes(old_rows)
            writes.append((UNDO_PREFIX + _u64(version), undo))
        self._versions.append(version)
        self._committed, self._committed_root = rows, self.root
        writes.append((META_KEY, self._meta()))
        self._changes = LeafSource(self._db, {})
        self._views.clear()
        return writes

    def prune(self, before_version: int) -> list[Write]:
        """The writes that give up all versions below `before_version`, but never the last one."""
        keep = [v for v in self._versions[:-1] if v >= before_version] + self._versions[-1:]
        dropped = self._versions[: len(self._versions) - len(keep)]
        if not dropped:
            return []
        # The record of the oldest version kept leads to one that is given up.
        writes: list[Write] = [(UNDO_PREFIX + _u64(v), None) for v in [*dropped[1:], keep[0]]]
        self._versions = keep
        self._views = {v: view for v, view in self._views.items() if v in keep}
        writes.append((META_KEY, self._meta()))
        return writes

    def at(self, version: int) -> TreeView:
        """A view of a kept version, valid until the next commit. Raises VersionUnavailable, TreeCorrupt."""
        if version not in self._versions:
            raise VersionUnavailable(f"version {version} is not among those kept: {self._versions}")
        if version not in self._views:
            self._views[version] = self._view_of(version)
        return self._views[version]

    def view(self) -> TreeView:
        """A view of the tree after all updates, valid until the next one."""
        return TreeView(self._index, self._changes)

    def prove(self, key: bytes) -> MembershipProof | AbsenceProof:
        """`TreeView.prove` of the tree after all updates."""
        return self.view().prove(key)

    def prove_first(self, prefix: bytes) -> FirstProof:
        """`TreeView.prove_first` of the tree after all updates."""
        return self.view().prove_first(prefix)

    def prove_prefix(self, prefix: bytes) -> PrefixProof:
        """`TreeView.prove_prefix` of the tree after all updates."""
        return self.view().prove_prefix(prefix)

    def witness(
        self,
        keys: Iterable[bytes],
        prefixes: Iterable[bytes] = (),
        iterations: Iterable[tuple[bytes, int]] = (),
    ) -> PartialTree:
        """`TreeView.witness` of the tree after all updates."""
        return self.view().witness(keys, prefixes, iterations)

    def check(self) -> list[str]:
        """Reads every leaf of the last committed version; says what differs, page by page."""
        committed = LeafSource(self._db, {})
        keys = keys_list(self._committed.first_keys)
        problems = []
        for i, (start, stop) in enumerate(zip(keys, [*keys[1:], None], strict=True)):
            found = subtree_hash([LeafData(*leaf) for leaf in committed.between(start, stop)])
            if found != self._committed.hashes[i].tobytes():
                problems.append(f"page {start.hex()}: leaves hash to {found.hex()}, not as recorded")
        return problems

    def _apply_in_parts(self, changes: Changes) -> None:
        """Applies changes, halving them until the pages they need fit the cache."""
        try:
            self._apply(changes)
        except CacheTooSmall:
            if len(changes.leaves) == 1:
                raise
            for half in changes.halves():
                self._apply_in_parts(half)

    def _apply(self, changes: Changes) -> None:
        """Applies changes. Raises CacheTooSmall before anything is changed."""
        index, cache = self._index, self._cache
        cache.begin()
        located = self._located(changes)
        opened = np.zeros(len(index.counts), dtype=np.bool_)
        regrouping = bool(located.structural().any())
        if regrouping:
            units, inner, opened = plan(index, cache, located, self._load)
        simple = np.flatnonzero(located.found & changes.is_put)
        simple = simple[~opened[located.pages[simple]]]
        places = located.places[simple]
        cache.forest.hashes[2 * places] = changes.hashes[simple]
        cache.forest.rehash(places)
        pages = np.unique(located.pages[simple])
        index.page_hashes()[pages] = cache.root_hashes(pages)
        if regrouping:
            self._index = rebuild(units, inner, index, cache, self._cache_pages)
        else:
            index.forest.rehash(pages)
        self._changes.change(dict(changes.leaves))

    def _located(self, changes: Changes) -> Located:
        """Loads the pages that the changes belong to and finds the keys in them."""
        count = len(changes.leaves)
        if self._index.is_empty():
            nowhere = np.zeros(count, dtype=np.int64)
            return Located(changes, nowhere, nowhere, np.zeros(count, dtype=np.bool_))
        pages = self._index.pages_of(changes.keys)
        needed = np.unique(pages)
        if len(needed) > self._cache_pages:
            raise CacheTooSmall
        self._load(needed)
        places, found = self._cache.locate(pages, self._index.counts, changes.keys)
        return Located(changes, pages, places, found)

    def _load(self, pages: Ints) -> None:
        """Brings pages into the cache. Raises TreeCorrupt if their leaves do not give the hashes recorded."""
        missing = self._cache.use(pages)
        if not len(missing):
            return
        index = self._index
        starts = keys_list(index.first_keys[missing])
        stops: list[bytes | None] = [
            *keys_list(index.first_keys[np.minimum(missing + 1, len(index.counts) - 1)])
        ]
        if missing[-1] == len(index.counts) - 1:
            stops[-1] = None
        leaves: list[tuple[bytes, bytes]] = []
        for start, stop, count in zip(starts, stops, index.counts[missing].tolist(), strict=True):
            page = self._changes.between(start, stop)
            if len(page) != count or page[0][0] != start:
                raise TreeCorrupt(f"page {start.hex()} has {len(page)} leaves in the database, not {count}")
            leaves += page
        hashes = np.zeros((2 * len(leaves), 32), dtype=np.uint8)
        hashes[0::2] = hashes_array([keccak_256(b"\x00" + key + value).digest() for key, value in leaves])
        keys = keys_array([key for key, _ in leaves])
        all_dirty = np.ones(len(leaves), dtype=np.bool_)
        self._cache.place(missing, index.counts[missing], keys, hashes, all_dirty)
        wrong = (self._cache.root_hashes(missing) != index.page_hashes()[missing]).any(axis=1)
        if wrong.any():
            names = [starts[i].hex() for i in np.flatnonzero(wrong).tolist()]
            raise TreeCorrupt(f"leaves of pages {', '.join(names)} do not give the recorded hashes")

    def _opened(self) -> PageIndex:
        """Reads the index and compares its root with the one recorded."""
        meta = self._db.get(META_KEY)
        stop = PAGE_ROW_PREFIX[:-1] + bytes([PAGE_ROW_PREFIX[-1] + 1])
        stored = self._db.iterate(PAGE_ROW_PREFIX, stop)
        rows = _Rows.decode([(key[len(PAGE_ROW_PREFIX) :], row) for key, row in stored])
        index = PageIndex.of_rows(rows.first_keys, rows.counts, rows.hashes)
        if meta is None:
            if not index.is_empty():
                raise TreeCorrupt(f"{len(rows.counts)} pages are stored, but no version is recorded")
            return index
        if meta[0] != FORMAT:
            raise TreeCorrupt(f"the tree is stored in format {meta[0]}, not {FORMAT}")
        root, leaves = meta[9:41], int.from_bytes(meta[41:49], "big")
        self._versions = [int.from_bytes(meta[i : i + 8], "big") for i in range(49, len(meta), 8)]
        if index.root() != root or int(index.counts.sum()) != leaves:
            self._committed = rows
            found = f"index has root {index.root().hex()} and {int(index.counts.sum())} leaves"
            details = (
                "; ".join(self.check()[:8]) or "every page agrees with its leaves: rows are missing or added"
            )
            raise TreeCorrupt(f"{found}, recorded are {root.hex()} and {leaves} leaves. {details}")
        return index

    def _meta(self) -> bytes:
        head = bytes([FORMAT]) + _u64(self._versions[-1]) + self._committed_root
        return head + _u64(int(self._committed.counts.sum())) + b"".join(map(_u64, self._versions))

    def _view_of(self, version: int) -> TreeView:
        """Lays the undo records of later versions over the last one."""
        everything = np.arange(len(self._committed.counts))
        rows: dict[bytes, bytes | None] = {**self._committed.encoded(everything)}
        leaves: dict[bytes, bytes | None] = {}
        root = self._committed_root
        for later in reversed(self._versions[self._versions.index(version) + 1 :]):
            record = self._db.get(UNDO_PREFIX + _u64(later))
            if record is None:
                raise TreeCorrupt(f"the undo record of version {later} is missing")
            root = record[:32]
            old_leaves, end = _decode_changes(record, 32)
            old_rows, _ = _decode_changes(record, end)
            leaves.update(old_leaves)
            rows.update(old_rows)
        decoded = _Rows.decode(sorted((key, row) for key, row in rows.items() if row is not None))
        index = PageIndex.of_rows(decoded.first_keys, decoded.counts, decoded.hashes)
        if index.root() != root:
            raise TreeCorrupt(f"version {version} comes out with root {index.root().hex()}, not {root.hex()}")
        return TreeView(index, LeafSource(self._db, leaves))


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _encode_changes(changes: Mapping[bytes, bytes | None]) -> bytes:
    """count (4) | for each: key (32) | length (4), 0 for None | value."""
    out = [len(changes).to_bytes(4, "big")]
    for key, value in changes.items():
        value = value or b""
        out += (key, len(value).to_bytes(4, "big"), value)
    return b"".join(out)


def _decode_changes(data: bytes, at: int) -> tuple[dict[bytes, bytes | None], int]:
    """The inverse of `_encode_changes`, and where it ends."""
    count = int.from_bytes(data[at : at + 4], "big")
    at += 4
    changes: dict[bytes, bytes | None] = {}
    for _ in range(count):
        start = at + 36
        size = int.from_bytes(data[start - 4 : start], "big")
        changes[data[at : at + 32]] = data[start : start + size] or None
        at = start + size
    return changes, at
