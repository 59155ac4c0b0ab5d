"""The exchange as the node runs it: the state, the batch that is open, and how both move on, without waiting.

Three things happen to it, in the live node and in recovery alike: a block is executed, a batch is opened (by
its first block), a batch is closed. Everything that has to be written is returned; nothing is written here.

- iMACHINE_001 Closing takes the changed leaves of exactly the blocks of that batch.
- iMACHINE_002 The head of a batch is encoded when it is closed, from the references that its blocks used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from l1_bridge.batch import BatchHead, assemble, encode_head
from sequencer.markets import Markets
from state import keys
from state.actions import BulkOrders, ExecuteQuote, OracleUpdate, Payload, Transaction
from state.block import (
    BatchStart,
    BlockResult,
    L1Message,
    L1Origin,
    LifeChange,
    MessageKind,
    OrderedBlock,
    TransactionResult,
)
from state.cache import CachedState
from state.codec import MarketEntry
from state.errors import Rejected
from state.leaves import Market, System, decode_leaf
from state.transition import BlockExecution, apply_block, close_batch, next_batch, open_batch

Outcome = TransactionResult | Rejected
Changes = dict[bytes, bytes | None]
"""Encoded leaves by key; None for those that are gone."""
HEAD_BYTES_AT_MOST = 512
"""Kept free for a batch's head and a block's start and end; heads with more than some 30 markets are larger,
and batches with them somewhat larger than asked."""
BLOCK_PARTS_IF_EMPTY = 1
"""A block's encoding begins with its start; every transaction adds a part."""
_REGISTERS = (keys.SYSTEM_KEY, keys.FEE_MARKET_KEY, keys.L1_PRICE_KEY)
"""What the beginning of a block changes."""

_LISTING = frozenset({MessageKind.LIST_INSTRUMENT, MessageKind.SET_INSTRUMENT})


@dataclass(slots=True)
class OpenBatch:
    """What the batch that is being filled has so far."""

    start: BatchStart
    opened_ms: int
    """Timestamp of its first block."""
    table: dict[int, MarketEntry] = field(default_factory=dict)
    encoded: list[bytes] = field(default_factory=list)
    bytes: int = 0
    """Of its blocks, without the head."""
    changes: list[Changes] = field(default_factory=list)
    """Taken from the state so far."""


@dataclass(frozen=True, slots=True)
class ExecutedBlock:
    """A block that is executed and not yet durable."""

    result: BlockResult
    batch: int
    origin: L1Origin
    messages: tuple[L1Message, ...]
    table_added: tuple[tuple[int, MarketEntry], ...]
    """Markets that no earlier block of the batch used."""
    transactions: tuple[Transaction, ...]
    """In the order of `result.results`."""


@dataclass(frozen=True, slots=True)
class ClosedBatch:
    """A batch that nothing can be added to."""

    number: int
    first_block: int
    last_block: int
    last_block_hash: bytes
    head: bytes
    data: bytes
    changes: tuple[Changes, ...]
    """Leaves in the order in which `take_changes` and at last `close` took them."""

    def dirty(self) -> Changes:
        """All leaves that the batch changed, as they are after it."""
        merged: Changes = {}
        for part in self.changes:
            merged.update(part)
        return merged


class Machine:
    """Owns the state between blocks; used by one thread at a time."""

    def __init__(self, view: CachedState) -> None:
        self.view = view
        self.markets = Markets(view)
        self.batch: OpenBatch | None = None

    @property
    def system(self) -> System:
        """The registers, as the last block left them."""
        system: System = self.view.get(keys.SYSTEM_KEY)
        return system

    def execute(
        self,
        timestamp_ms: int,
        origin: L1Origin,
        messages: tuple[L1Message, ...],
        transactions: Sequence[Transaction],
        max_batch_bytes: int,
    ) -> tuple[tuple[Outcome, ...], ExecutedBlock | None]:
        """Executes the next block. Stops early where the batch would exceed `max_batch_bytes`.

        Returns what became of each transaction that was tried, in order (those after them did not fit), and
        the block: None, with nothing changed, when there is nothing in it. A refused transaction changes
        nothing and is not part of the block. The first transaction of a batch is always tried.
        """
        batch_before = self.batch
        before = {key: self.view.get(key).encode() for key in _REGISTERS}
        batch = self._open(timestamp_ms)
        execution = BlockExecution(self.view, timestamp_ms, origin, messages)
        room = max_batch_bytes - batch.bytes - HEAD_BYTES_AT_MOST
        encoded = execution.block.encoded
        outcomes: list[Outcome] = []
        for transaction in transactions:
            if room < bytes_at_most(transaction.payload) and (batch.bytes or outcomes):
                break
            try:
                outcomes.append(execution.execute(transaction))
            except Rejected as rejected:
                outcomes.append(rejected)
            else:
                room -= len(encoded[-1])
        has_acted = messages or execution.progress.switches or execution.progress.due
        if not (has_acted or len(encoded) > BLOCK_PARTS_IF_EMPTY):
            for key, data in before.items():
                self.view.put(key, decode_leaf(key, data))
            self.batch = batch_before
            return tuple(outcomes), None
        tried = zip(transactions, outcomes, strict=False)
        included = tuple([each for each, outcome in tried if type(outcome) is TransactionResult])
        return tuple(outcomes), self._executed(execution.end(), batch, origin, messages, included)

    def replay(self, block: OrderedBlock, table: dict[int, MarketEntry]) -> ExecutedBlock:
        """Executes a block again, with the batch's table as it stood after it."""
        batch = self._open(block.timestamp_ms)
        result = apply_block(self.view, block, table)
        return self._executed(result, batch, block.origin, block.messages, block.transactions)

    def close(self) -> ClosedBatch:
        """Closes the open batch and takes its changes. It is a bug if none is open."""
        batch = self.batch
        assert batch is not None
        start = batch.start
        head = BatchHead(
            start.batch_number,
            start.first_block,
            start.base_timestamp_ms,
            start.base_l1_block,
            start.inbox_start,
            batch.table,
        )
        head_bytes = encode_head(head)
        close_batch(self.view, len(head_bytes))
        system = self.system
        self.batch = None
        return ClosedBatch(
            start.batch_number,
            start.first_block,
            system.block_number,
            system.parent_hash,
            head_bytes,
            assemble(head, batch.encoded),
            (*batch.changes, self.view.take_dirty()),
        )

    def take_changes(self) -> Changes:
        """What changed since the open batch began, or since the last call. It is a bug if none is open."""
        assert self.batch is not None
        taken = self.view.take_dirty()
        self.batch.changes.append(taken)
        return taken

    def _open(self, timestamp_ms: int) -> OpenBatch:
        if self.batch is None:
            start = next_batch(self.view)
            open_batch(self.view, start)
            self.batch = OpenBatch(start, timestamp_ms)
        return self.batch

    def _executed(
        self,
        result: BlockResult,
        batch: OpenBatch,
        origin: L1Origin,
        messages: tuple[L1Message, ...],
        transactions: tuple[Transaction, ...],
    ) -> ExecutedBlock:
        if any(message.kind in _LISTING for message in messages):
            self.markets.refresh()
        elif result.life:
            self.markets.update(
                {event.market for event in result.life if event.change != LifeChange.POSITION_SETTLED}
            )
        added = tuple(self._newly_used(batch))
        batch.table.update(added)
        batch.encoded.append(result.encoded)
        batch.bytes += len(result.encoded)
        return ExecutedBlock(result, batch.start.batch_number, origin, messages, added, transactions)

    def _newly_used(self, batch: OpenBatch) -> list[tuple[int, MarketEntry]]:
        """Markets whose leaf took a reference price for this batch since the last look."""
        number = batch.start.batch_number
        added = []
        for market, listed in self.markets.by_number.items():
            if market not in batch.table:
                leaf: Market = self.view.get(keys.market_key(market))
                if leaf.reference_batch == number:
                    entry = MarketEntry(listed.leaf.tick_uusd, listed.leaf.lot_ulots, leaf.reference_ticks)
                    added.append((market, entry))
        return added


def bytes_at_most(payload: Payload) -> int:
    """A bound on the bytes that a transaction takes in a batch, found without encoding it."""
    if isinstance(payload, OracleUpdate):
        return 8 + sum(
            80 + 48 * (len(report.prices) + len(report.rates)) + 96 * len(report.surfaces)
            for report in payload.reports
        )
    action = payload.action
    if isinstance(action, BulkOrders):
        operations = len(action.cancels) + len(action.replacements) + len(action.orders)
        return 128 + 40 * operations
    if isinstance(action, ExecuteQuote):
        return 384 + 16 * len(action.quote.legs)
    return 192
