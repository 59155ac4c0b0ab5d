"""The state in memory: live leaves, and ordered indexes over them, above a source that holds the rest.

`CachedState` is the StateView of production. A leaf is decoded once and then lives as an object that the
transition changes in place; keys that were put or deleted are dirty until `take_dirty` encodes them. What was
taken stays in memory until `release` says that the source has it, so sealing goes on while a batch is
written. Memory is bounded at `release`: the leaves that came first go first, unless they are dirty.

Indexes ("buckets") exist for the kinds that are iterated: one sorted list of keys per account or kind, one
`BookSide` per side of a market. A bucket is complete from the moment it exists: it is loaded from the source
before the first change inside it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, Final, Protocol

from state import keys
from state.book import BookSide
from state.leaves import Leaf, decode_leaf

_ORDER: Final = keys.ORDER
_BOOK_PREFIX: Final = 6
_BUCKET_PREFIX: Final = {
    keys.MARKET_NAME: 1,
    keys.INSTRUMENT: 1,
    keys.MARKET: 1,
    keys.FEED: 1,
    keys.OWNER_ACCOUNT: 21,
    keys.SESSION_KEY: 9,
    keys.POSITION: 9,
    keys.ACCOUNT_ORDER: 9,
    keys.DEAD_MAN: 1,
    keys.EXPIRY_OF: 24,
    keys.EXPIRY_MARKET: 6,
    keys.MARKET_POSITION: 5,
    keys.DUE: 1,
    keys.PROTECTION: 9,
    keys.TRIGGER: 14,
    keys.ACCOUNT_TRIGGER: 9,
    keys.MARKET_TRIGGER: 5,
    keys.TRIGGER_QUEUE: 5,
    keys.QUOTE_USED: 1,
    keys.BLOCK_TRADE: 1,
    keys.CLEANUP: 1,
    keys.AUCTION: 1,
}
"""Length of the prefix that names a key's bucket; kinds that are not here are never iterated."""


class LeafSource(Protocol):
    """What the cache reads: encoded leaves, ordered by key."""

    def get(self, key: bytes, /) -> bytes | None:
        """The encoded leaf under `key`."""

    def scan(self, prefix: bytes, /) -> Iterable[tuple[bytes, bytes]]:
        """All (key, encoded leaf) under `prefix`, ascending."""


class MemorySource:
    """A source in memory: for tests, benchmarks and small verifiers."""

    def __init__(self, leaves: Mapping[bytes, bytes] | None = None) -> None:
        self.leaves = dict(leaves or {})

    def get(self, key: bytes, /) -> bytes | None:
        return self.leaves.get(key)

    def scan(self, prefix: bytes, /) -> list[tuple[bytes, bytes]]:
        return sorted(item for item in self.leaves.items() if item[0].startswith(prefix))

    def apply(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Takes over what `take_dirty` gave."""
        for key, value in changes.items():
            if value is None:
                self.leaves.pop(key, None)
            else:
                self.leaves[key] = value


class _Leaves(dict[bytes, Leaf | None]):
    """Leaves by key; a key that is missing is looked up in the source and remembered, present or not."""

    __slots__ = ("source",)

    def __init__(self, source: LeafSource) -> None:
        super().__init__()
        self.source = source

    def __missing__(self, key: bytes) -> Leaf | None:
        data = self.source.get(key)
        leaf = None if data is None else decode_leaf(key, data)
        self[key] = leaf
        return leaf


class CachedState:
    """StateView over live leaves. Not for two threads at once, except that `source` may be written by one."""

    get: Callable[[bytes], Any]
    touch: Callable[[bytes, Leaf], None]

    def __init__(self, source: LeafSource, max_clean: int) -> None:
        """`max_clean`: how many leaves may stay in memory that the source has too."""
        self._source = source
        self._max_clean = max_clean
        self._leaves = _Leaves(source)
        self.get = self._leaves.__getitem__
        self._dirty: dict[bytes, Leaf | None] = {}
        self.touch = self._dirty.__setitem__
        self._taken: deque[set[bytes]] = deque()
        """What the source does not have yet, oldest first."""
        self._books: dict[bytes, BookSide] = {}
        self._buckets: dict[bytes, list[bytes]] = {}

    def put(self, key: bytes, leaf: Leaf, /) -> None:
        before = self._leaves.get(key)
        if before is not leaf:
            if before is None:
                self._index(key)
            self._leaves[key] = leaf
        self._dirty[key] = leaf

    def delete(self, key: bytes, /) -> None:
        if key[0] == _ORDER:
            self._book(key[:_BOOK_PREFIX]).remove(key)
        else:
            length = _BUCKET_PREFIX.get(key[0])
            if length is not None:
                bucket = self._bucket(key[:length])
                del bucket[bisect_left(bucket, key)]
        self._leaves[key] = None
        self._dirty[key] = None

    def first_under(self, prefix: bytes, /) -> tuple[bytes, Any] | None:
        book = self._books.get(prefix)
        if book is None and prefix[0] == _ORDER:
            book = self._book(prefix)
        if book is not None:
            key = book.first()
            return None if key is None else (key, self.get(key))
        found = self.iterate_under(prefix, 1)
        return found[0] if found else None

    def iterate_under(self, prefix: bytes, bound: int, /) -> list[tuple[bytes, Any]]:
        get = self.get
        bucket = self._buckets.get(prefix)
        if bucket is not None and len(bucket) <= bound:
            return [(key, get(key)) for key in bucket]
        return [(key, get(key)) for key in self._keys_under(prefix, bound)]

    def _keys_under(self, prefix: bytes, bound: int) -> list[bytes]:
        if prefix[0] == _ORDER:
            return self._book(prefix).iterate(bound)
        length = _BUCKET_PREFIX[prefix[0]]
        bucket = self._bucket(prefix[:length])
        if len(prefix) == length:
            return bucket[:bound]
        start = bisect_left(bucket, prefix)
        return [key for key in bucket[start : start + bound] if key.startswith(prefix)]

    @property
    def dirty(self) -> int:
        """How many leaves changed since `take_dirty`."""
        return len(self._dirty)

    @property
    def resident(self) -> int:
        """How many keys are remembered, including those known to be absent."""
        return len(self._leaves)

    def take_dirty(self) -> dict[bytes, bytes | None]:
        """The encoded leaves changed since the last call; None for those that are gone.

        They stay in memory until `release`. A leaf that came and went in between is among them, as None.
        """
        taken = {key: None if leaf is None else leaf.encode() for key, leaf in self._dirty.items()}
        self._taken.append(set(taken))
        self._dirty.clear()
        return taken

    def release(self) -> None:
        """The source has what the oldest `take_dirty` gave; call between transactions. Forgets surplus."""
        self._taken.popleft()
        needed = set(self._dirty).union(*self._taken)
        excess = len(self._leaves) - len(needed) - self._max_clean
        if excess > 0:
            candidates = islice(self._leaves, excess + len(needed))
            for key in [key for key in candidates if key not in needed]:
                del self._leaves[key]
        excess = len(self._buckets) - self._max_clean // 4
        if excess > 0:
            lengths = _BUCKET_PREFIX
            kept = {key[: lengths[key[0]]] for key in needed if key[0] in lengths}
            for prefix in [name for name in islice(self._buckets, excess) if name not in kept]:
                del self._buckets[prefix]

    def _index(self, key: bytes) -> None:
        """Notes a key that is new, or at least not in memory."""
        if key[0] == _ORDER:
            book = self._books.get(key[:_BOOK_PREFIX])
            if book is None:
                book = self._book(key[:_BOOK_PREFIX])
            book.add(key)
            return
        length = _BUCKET_PREFIX.get(key[0])
        if length is not None:
            bucket = self._buckets.get(key[:length])
            if bucket is None:
                bucket = self._bucket(key[:length])
            if not bucket or key > bucket[-1]:
                bucket.append(key)
            elif bucket[bisect_left(bucket, key)] != key:
                insort(bucket, key)

    def _book(self, prefix: bytes) -> BookSide:
        book = self._books.get(prefix)
        if book is None:
            book = self._books[prefix] = BookSide()
            for key in self._load(prefix):
                book.add(key)
        return book

    def _bucket(self, prefix: bytes) -> list[bytes]:
        bucket = self._buckets.get(prefix)
        if bucket is None:
            bucket = self._buckets[prefix] = self._load(prefix)
        return bucket

    def _load(self, prefix: bytes) -> list[bytes]:
        """Keys of a bucket from the source: nothing in it was changed yet, so the source is right."""
        leaves = self._leaves
        found = []
        for key, data in self._source.scan(prefix):
            if key not in leaves:
                leaves[key] = decode_leaf(key, data)
            found.append(key)
        return found
