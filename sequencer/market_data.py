"""What the market looks like to those who watch: books by price, last trades, a day's statistics.

Made from durable blocks only, by adding up what each block says it changed; never decides anything. Prices
are uusd and sizes ulots here; the API turns them into Deribit's units at its edge.

- iDATA_001 A book here is the book of the state as of the last durable block.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from sequencer.receipts import SealedBlock
from state import keys
from state.block import LifeChange, OrderEvent, Trade
from state.leaves import RestingOrder
from state.view import StateView

DAY_MS = 86_400_000
BUCKET_MS = 300_000
"""The day's statistics forget in steps of five minutes."""
KEPT_TRADES = 1_000
MAX_BOOK_ORDERS = 1_000_000
"""Bound of one side of a book, far above what margin and order limits allow in practice."""

Level = tuple[int, int]
"""(price_uusd, size_ulots)"""


@dataclass(frozen=True, slots=True)
class TradeRecord:
    """A trade with its block's time."""

    trade: Trade
    timestamp_ms: int
    block: int


@dataclass(slots=True)
class _Bucket:
    start_ms: int
    volume_ulots: int = 0
    notional_uusd: int = 0
    high_uusd: int = 0
    low_uusd: int = 0
    open_uusd: int = 0


@dataclass(slots=True)
class MarketBook:
    """One instrument. Block trades count in the day's volume, not in its prices."""

    sides: tuple[dict[int, int], dict[int, int]] = field(default_factory=lambda: ({}, {}))
    """Size by price: bids, asks."""
    trades: deque[TradeRecord] = field(default_factory=lambda: deque(maxlen=KEPT_TRADES))
    buckets: deque[_Bucket] = field(default_factory=deque)
    changed: dict[tuple[int, int], int] = field(default_factory=dict)
    """(side, price) whose level changed since `take_changes`, with its size before."""
    changes: int = 0
    """Counts changes of the book."""

    def levels(self, side: int, depth: int) -> list[Level]:
        """The best `depth` levels of a side (0 bids, 1 asks), best first."""
        book = self.sides[side]
        if depth == 1:
            best = (min if side else max)(book, default=None)
            return [] if best is None else [(best, book[best])]
        prices = heapq.nsmallest(depth, book) if side else heapq.nlargest(depth, book)
        return [(price, book[price]) for price in prices]

    def add(self, side: int, price_uusd: int, delta_ulots: int) -> None:
        """The open size at a price changed."""
        book = self.sides[side]
        before = book.get(price_uusd, 0)
        self.changed.setdefault((side, price_uusd), before)
        size = before + delta_ulots
        if size:
            book[price_uusd] = size
        else:
            book.pop(price_uusd, None)
        self.changes += 1

    def take_changes(self) -> list[tuple[int, int, int, int]]:
        """(side, price, size before, size now) of levels that differ since the last call."""
        changed, self.changed = self.changed, {}
        found = []
        for (side, price), before in changed.items():
            now = self.sides[side].get(price, 0)
            if now != before:
                found.append((side, price, before, now))
        return found

    def traded(self, record: TradeRecord, notional_uusd: int) -> None:
        self.trades.append(record)
        price = record.trade.price_uusd
        start = record.timestamp_ms - record.timestamp_ms % BUCKET_MS
        if not self.buckets or self.buckets[-1].start_ms != start:
            self.buckets.append(_Bucket(start))
            while self.buckets[0].start_ms <= record.timestamp_ms - DAY_MS:
                self.buckets.popleft()
        bucket = self.buckets[-1]
        bucket.volume_ulots += record.trade.size_ulots
        bucket.notional_uusd += notional_uusd
        if record.trade.block_trade:
            return
        bucket.open_uusd = bucket.open_uusd or price
        bucket.high_uusd = max(bucket.high_uusd, price)
        bucket.low_uusd = min(bucket.low_uusd or price, price)

    def day(self, now_ms: int) -> _Bucket:
        """The last 24 hours as one bucket; all zero without trades."""
        kept = [bucket for bucket in self.buckets if bucket.start_ms > now_ms - DAY_MS]
        if not kept:
            return _Bucket(0)
        priced = [bucket for bucket in kept if bucket.open_uusd]
        return _Bucket(
            kept[0].start_ms,
            sum(bucket.volume_ulots for bucket in kept),
            sum(bucket.notional_uusd for bucket in kept),
            max((bucket.high_uusd for bucket in priced), default=0),
            min((bucket.low_uusd for bucket in priced), default=0),
            priced[0].open_uusd if priced else 0,
        )


class MarketData:
    """Every instrument's `MarketBook`."""

    def __init__(self) -> None:
        self._books: dict[int, MarketBook] = {}

    def of(self, market: int) -> MarketBook:
        book = self._books.get(market)
        if book is None:
            book = self._books[market] = MarketBook()
        return book

    def load(self, view: StateView, markets: Iterable[int], blocks: Iterable[SealedBlock]) -> None:
        """Starts from a recovered state, and from the last blocks for their trades."""
        for market in markets:
            book = self.of(market)
            for side in (0, 1):
                prefix = keys.order_book_prefix(market, side)
                for key, order in view.iterate_under(prefix, MAX_BOOK_ORDERS):
                    leaf: RestingOrder = order
                    book.add(side, keys.parse_order_key(key)[2], leaf.size_ulots)
            book.take_changes()
        for block in blocks:
            self._take_trades(block)

    def block_sealed(self, block: SealedBlock, orders: Iterable[OrderEvent]) -> None:
        """Adds what a durable block changed."""
        for event in orders:
            if event.delta_ulots:
                self.of(event.market).add(event.side, event.price_uusd, event.delta_ulots)
        self._take_trades(block)
        for life in block.life:
            if life.change == LifeChange.DELISTED:
                self._books.pop(life.market, None)

    def _take_trades(self, block: SealedBlock) -> None:
        header = block.header
        for trade in block.trades:
            record = TradeRecord(trade, header.timestamp_ms, header.number)
            notional_uusd = trade.price_uusd * trade.size_ulots // 1_000_000
            self.of(trade.market).traded(record, notional_uusd)
