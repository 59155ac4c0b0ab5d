"""Every account's history of orders, trades and money: written with each checkpoint, served in pages.

Durable blocks are kept as they are until their batch is checkpointed; only then, in the committer's thread,
or when somebody asks earlier, they are turned into records (`history_events`). The rows go into the
checkpoint's own write batch, and blocks that no checkpoint covers are made again from the journal at the
start. So after any crash the history is what the durable blocks say, and the event loop pays nothing for it.

Rows (all begin with `H`; numbers big-endian):

    H 0                                                  HistoryState
    H 1 | batch u64                                      BatchRows: what pruning deletes with the batch
    H 2 | account u64 | stream u8 | place                records of that account, up to CHUNK_RECORDS
    H 3 | market u32                                     an instrument's name: it may be gone from the state
    H 4 | name | 0 | market u32                          the same, by name

A place is `timestamp_ms u64 | block u64 | index u32`, that of the row's first record. Pages are range scans
in either direction; where one ends is a place too, so it stays good while the history grows at its end and is
pruned at its beginning.

- iHISTORY_001 Each record of each durable block is served exactly once, in the order of its place, from
  memory before the block's checkpoint and from the database after it. Nothing else is served.
- iHISTORY_002 Bounded: memory by two batches, a page by its limit and by MAX_SCANNED records looked at, the
  database by age and size (`HistorySection`). What is gone went from the beginning, and `kept_from_ms` says
  so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from heapq import merge
from itertools import islice
from struct import Struct
from typing import NamedTuple, Protocol

import msgspec

from sequencer.config import HistorySection
from sequencer.history_events import BlockEvents
from sequencer.history_records import MoneyRecord, OrderRecord, Record, TradeRecord
from sequencer.machine import ExecutedBlock
from sequencer.markets import Markets
from state.store import HISTORY, Write

CHUNK_RECORDS = 256
MAX_SCANNED = 20_000
"""Records that one page may look at; a rare instrument's pages may be short, or empty, before the last."""
PRUNED_AT_ONCE = 4
"""Batches that one checkpoint may prune: faster than they come, and never long."""
DAY_MS = 86_400_000
MIB = 2**20
MAX_U64 = 2**64 - 1

_STATE_KEY = HISTORY + b"\0"
_batch_key = Struct(">2sQ").pack
_ROW_KEY = Struct(">2sQBQQI")
_row_key = _ROW_KEY.pack
_market_key = Struct(">2sI").pack
_market = Struct(">I")
_BATCH, _ROW, _NAME, _NUMBER = (HISTORY + bytes([kind]) for kind in (1, 2, 3, 4))


class Stream(IntEnum):
    ORDERS = 1
    TRADES = 2
    MONEY = 3


class Place(NamedTuple):
    """Where a record stands in the history of its account."""

    timestamp_ms: int
    block: int
    number: int
    """Index of the record in its block."""


FIRST = Place(0, 0, 0)
AFTER_ALL = Place(MAX_U64, MAX_U64, 2**32 - 1)
Placed = tuple[Place, Record]
Group = tuple[int, int, Sequence[Record]]
"""(timestamp_ms, block, records) of one block."""


class Rows(Protocol):
    """The database as history reads it (`state.store.Pages`)."""

    def get(self, key: bytes) -> bytes | None: ...

    def iterate(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...


class HistoryState(msgspec.Struct, array_like=True):
    """How much history the database has."""

    oldest_batch: int
    next_batch: int
    bytes: int = 0
    """Of the rows with records, keys included."""
    kept_from_ms: int = 0
    """Everything that happened at or after this time is there."""


class BatchRows(msgspec.Struct, frozen=True, array_like=True):
    """Of one batch: the time of its last block, the size of its rows, and their keys in a row."""

    last_ms: int
    size: int
    keys: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """What a page is asked for: records with low <= place < high, those that are `wanted`."""

    account: int
    streams: tuple[Stream, ...]
    low: Place = FIRST
    high: Place = AFTER_ALL
    newest_first: bool = False
    wanted: Callable[[Record], bool] = lambda _: True
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Records in order; `last` is the place up to which the page has looked, None when nothing is beyond."""

    records: list[Placed]
    last: Place | None
    kept_from_ms: int


class _Recent:
    """A durable block that no checkpoint covers; its records are made once, when they are first needed."""

    __slots__ = ("_events", "_executed", "block", "timestamp_ms")

    def __init__(self, executed: ExecutedBlock) -> None:
        header = executed.result.header
        self.block = header.number
        self.timestamp_ms = header.timestamp_ms
        self._executed: ExecutedBlock | None = executed
        self._events: BlockEvents | None = None

    @property
    def events(self) -> BlockEvents:
        """Any thread may ask; two at once make the same twice."""
        executed = self._executed
        if executed is not None:
            self._events = BlockEvents(executed)
            self._executed = None
        assert self._events is not None
        return self._events


class History:
    """See the module's text. `last_batch` is that of the last checkpoint.

    `since_ms`: if the database has no history up to there, that of what happened before is not complete.
    `sealed`, `archived` are called by the task that owns the blocks, `rows` by one thread at a time, reads by
    any thread. Reads raise StoreError.
    """

    def __init__(
        self, pages: Rows, markets: Markets, limits: HistorySection, last_batch: int, since_ms: int
    ) -> None:
        self._pages = pages
        self._markets = markets
        self._limits = limits
        self._recent: list[_Recent] = []
        self._named: set[int] = set()
        row = pages.get(_STATE_KEY)
        self._state = (
            msgspec.msgpack.decode(row, type=HistoryState) if row else HistoryState(last_batch + 1, 0)
        )
        if self._state.next_batch != last_batch + 1:  # new, or a release without history has written batches
            self._state.kept_from_ms = since_ms
        self._oldest: tuple[int, BatchRows] | None = None

    @property
    def kept_from_ms(self) -> int:
        """Everything that happened at or after this time is served."""
        return self._state.kept_from_ms

    @property
    def size_bytes(self) -> int:
        """Of the records in the database."""
        return self._state.bytes

    def sealed(self, executed: ExecutedBlock) -> None:
        """A block is durable."""
        self._recent.append(_Recent(executed))

    def prepare(self) -> None:
        """Makes the records of the blocks so far, so that `rows` has less to do."""
        for recent in list(self._recent):
            _ = recent.events

    def archived(self, last_block: int) -> None:
        """The checkpoint with the rows up to this block is written: the database serves them now."""
        self._recent = [recent for recent in self._recent if recent.block > last_block]

    def rows(self, batch: int, last_block: int) -> list[Write]:
        """What the checkpoint of a batch has to write: its blocks' records, and what becomes too old."""
        blocks = [recent for recent in self._recent if recent.block <= last_block]
        writes: list[Write] = []
        size = 0
        for stream, groups in _by_account([recent.events for recent in blocks]):
            for account, of_account in groups.items():
                for chunk in _chunks(of_account):
                    first_ms, block, records = chunk[0]
                    key = _row_key(_ROW, account, stream, first_ms, block, records[0].index)
                    value = msgspec.msgpack.encode(chunk)
                    size += len(key) + len(value)
                    writes.append((key, value))
        keys = b"".join([key for key, _ in writes])
        last_ms = blocks[-1].timestamp_ms if blocks else 0
        index = BatchRows(last_ms, size, keys)
        writes.append((_batch_key(_BATCH, batch), msgspec.msgpack.encode(index)))
        writes += self._name_rows(set[int]().union(*(recent.events.markets for recent in blocks)))
        state = self._state
        state.next_batch = batch + 1
        state.bytes += size
        writes += self._pruned(last_ms)
        writes.append((_STATE_KEY, msgspec.msgpack.encode(state)))
        return writes

    def page(self, query: Query) -> Page:
        """The next records of an account. May read the disk. Raises StoreError."""
        recent = list(self._recent)  # before the database is read: what leaves this list is there by then
        streams = [self._records(query, stream, recent) for stream in query.streams]
        placed = streams[0]
        if len(streams) > 1:
            placed = merge(*streams, key=lambda found: found[0], reverse=query.newest_first)
        records: list[Placed] = []
        last: Place | None = None
        for looked_at, (place, record) in enumerate(placed):
            if len(records) == query.limit or looked_at == MAX_SCANNED:
                return Page(records, last, self.kept_from_ms)
            last = place
            if query.wanted(record):
                records.append((place, record))
        return Page(records, None, self.kept_from_ms)

    def name_of(self, market: int) -> str | None:
        """An instrument's name, also when it is gone from the state; None if there never was one."""
        listed = self._markets.by_number.get(market)
        if listed is not None:
            return listed.name
        row = self._pages.get(_market_key(_NAME, market)) if 0 < market < 2**32 else None
        return None if row is None else row.decode()

    def markets_of(self, name: str) -> frozenset[int]:
        """The numbers of the instruments that have, or had, this name."""
        if not name.isascii():
            return frozenset()
        prefix = _NUMBER + name.encode() + b"\0"
        rows = self._pages.iterate(prefix, prefix + b"\xff" * 5)
        numbers = {_market.unpack(key[-4:])[0] for key, _ in rows if len(key) == len(prefix) + 4}
        listed = self._markets.by_name.get(name)
        return frozenset(numbers | {listed.market} if listed else numbers)

    def _records(self, query: Query, stream: Stream, recent: list[_Recent]) -> Iterator[Placed]:
        """One stream of the account: from the database what is older than `recent`, and that."""
        low, high = query.low, query.high
        border = Place(recent[0].timestamp_ms, recent[0].block, 0) if recent else AFTER_ALL
        parts = [self._stored(query, stream, min(high, border)), _of_blocks(query, stream, recent)]
        for part in reversed(parts) if query.newest_first else parts:
            for placed in part:
                if low <= placed[0] < high:
                    yield placed

    def _stored(self, query: Query, stream: Stream, high: Place) -> Iterator[Placed]:
        """Records in the database below `high`; some of them may stand before `query.low`."""

        def key(place: Place) -> bytes:
            return _row_key(_ROW, query.account, stream, *place)

        start = key(query.low)
        for row, _ in islice(self._pages.iterate(key(FIRST), start, reverse=True), 1):
            start = row  # it begins before, and may reach beyond
        decode = _DECODERS[stream]
        for _, value in self._pages.iterate(start, key(high), reverse=query.newest_first):
            placed = list(_placed(decode(value)))
            for found in reversed(placed) if query.newest_first else placed:
                if found[0] < high:
                    yield found

    def _name_rows(self, markets: set[int]) -> Iterator[Write]:
        """The names of instruments that have no rows yet."""
        for market in markets - self._named:
            listed = self._markets.by_number.get(market)
            if listed is not None:
                name = listed.name.encode()
                yield _market_key(_NAME, market), name
                yield _NUMBER + name + b"\0" + _market.pack(market), b""
                self._named.add(market)

    def _pruned(self, now_ms: int) -> Iterator[Write]:
        """Deletes the rows of the oldest batches as far as they are too old or too many."""
        state, limits = self._state, self._limits
        for _ in range(PRUNED_AT_ONCE):
            batch = state.oldest_batch
            if batch >= state.next_batch - 1:
                return
            if self._oldest is None or self._oldest[0] != batch:
                row = self._pages.get(_batch_key(_BATCH, batch))
                found = msgspec.msgpack.decode(row, type=BatchRows) if row else BatchRows(0, 0, b"")
                self._oldest = batch, found
            rows = self._oldest[1]
            is_old = rows.last_ms < now_ms - limits.keep_days * DAY_MS
            if not is_old and state.bytes <= limits.max_mib * MIB:
                return
            for start in range(0, len(rows.keys), _ROW_KEY.size):
                yield rows.keys[start : start + _ROW_KEY.size], None
            yield _batch_key(_BATCH, batch), None
            state.oldest_batch += 1
            state.bytes -= rows.size
            state.kept_from_ms = max(state.kept_from_ms, rows.last_ms + 1)


def _by_account(blocks: Sequence[BlockEvents]) -> Iterator[tuple[Stream, dict[int, list[Group]]]]:
    """Each stream's records by account."""
    for stream in Stream:
        groups: dict[int, list[Group]] = {}
        for events in blocks:
            for account, records in _of_stream(events, stream).items():
                groups.setdefault(account, []).append((events.timestamp_ms, events.block, records))
        yield stream, groups


def _of_stream(events: BlockEvents, stream: Stream) -> Mapping[int, Sequence[Record]]:
    if stream is Stream.ORDERS:
        return events.orders
    return events.trades if stream is Stream.TRADES else events.money


def _chunks(groups: Sequence[Group]) -> Iterator[list[Group]]:
    """An account's records in rows of at most CHUNK_RECORDS."""
    chunk: list[Group] = []
    room = CHUNK_RECORDS
    for timestamp_ms, block, records in groups:
        start = 0
        while start < len(records):
            part = records[start : start + room] if start or len(records) > room else records
            chunk.append((timestamp_ms, block, part))
            start += len(part)
            room -= len(part)
            if room == 0:
                yield chunk
                chunk, room = [], CHUNK_RECORDS
    if chunk:
        yield chunk


def _of_blocks(query: Query, stream: Stream, recent: list[_Recent]) -> Iterator[Placed]:
    """Records in memory, of blocks that the query may want."""
    low, high = query.low, query.high
    wanted = [block for block in recent if low.timestamp_ms <= block.timestamp_ms <= high.timestamp_ms]
    for block in reversed(wanted) if query.newest_first else wanted:
        records = _of_stream(block.events, stream).get(query.account, ())
        placed = list(_placed([(block.timestamp_ms, block.block, records)]))
        yield from reversed(placed) if query.newest_first else placed


def _placed(groups: Iterable[Group]) -> Iterator[Placed]:
    for timestamp_ms, block, records in groups:
        for record in records:
            yield Place(timestamp_ms, block, record.index), record


_DECODERS: dict[Stream, Callable[[bytes], Sequence[Group]]] = {
    Stream.ORDERS: msgspec.msgpack.Decoder(list[tuple[int, int, list[OrderRecord]]]).decode,
    Stream.TRADES: msgspec.msgpack.Decoder(list[tuple[int, int, list[TradeRecord]]]).decode,
    Stream.MONEY: msgspec.msgpack.Decoder(list[tuple[int, int, list[MoneyRecord]]]).decode,
}
