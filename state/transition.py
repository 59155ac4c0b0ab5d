"""Blocks and batches: the one way in which the state changes.

A block executes in this order: begin; its L1 messages; dead-man switches that are due; its transactions; end.
Each of these is one or more steps (`steps`). A step reads and writes through the view alone, and where
execution stands between two steps is in `Progress` alone, so that any step can be executed again from a
witness (`recorder`). In production the steps follow each other directly and `Progress` is never encoded.

`BlockExecution` makes a block transaction by transaction; `apply_block` replays one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from state import l1_market
from state.actions import SignedAction, Transaction
from state.block import (
    BatchStart,
    BlockHeader,
    BlockResult,
    InvalidBlock,
    L1Message,
    L1Origin,
    OrderedBlock,
    TransactionResult,
)
from state.codec import Table
from state.context import BlockContext
from state.errors import Rejected
from state.keys import SYSTEM_KEY
from state.leaves import Phase, Progress, System
from state.margin import Margin, margin
from state.overlay import Overlay
from state.steps import begin_block, end_block, skip, step
from state.view import StateView

_NO_TRADES: Final = (0, 0)


class BatchStartLike(Protocol):
    """What `open_batch` needs of a batch's head."""

    @property
    def batch_number(self) -> int: ...
    @property
    def first_block(self) -> int: ...
    @property
    def base_timestamp_ms(self) -> int: ...
    @property
    def base_l1_block(self) -> int: ...
    @property
    def inbox_start(self) -> int: ...


def next_batch(view: StateView) -> BatchStart:
    """The only start that a next batch can have."""
    system: System = view.get(SYSTEM_KEY)
    return BatchStart(
        system.batch_number + 1,
        system.block_number + 1,
        system.timestamp_ms,
        system.l1_block,
        system.inbox_next,
    )


def same_origin(view: StateView) -> L1Origin:
    """The L1 origin of a block that stays with the last block's."""
    system: System = view.get(SYSTEM_KEY)
    return L1Origin(system.l1_block, 0, None)


def open_batch(view: StateView, head: BatchStartLike) -> None:
    """Starts reading a batch. Raises InvalidBlock, with nothing changed, unless it continues the state."""
    expected = next_batch(view)
    for field in BatchStart.__struct_fields__:
        if getattr(head, field) != getattr(expected, field):
            raise InvalidBlock(f"{field} is {getattr(head, field)}, expected {getattr(expected, field)}")
    system: System = view.get(SYSTEM_KEY)
    system.batch_number = expected.batch_number
    system.batch_cursor = 0
    view.touch(SYSTEM_KEY, system)


def close_batch(view: StateView, head_bytes: int, ignored_bytes: int = 0) -> None:
    """All blocks of the batch are read: counts its head, and bytes at its end that are not a block;
    the price of a byte learns its length."""
    system: System = view.get(SYSTEM_KEY)
    system.batch_cursor += head_bytes + ignored_bytes
    view.touch(SYSTEM_KEY, system)
    l1_market.close(view, system.batch_cursor)


def void_batch(view: StateView, size_bytes: int) -> None:
    """A posted batch without a valid head: it is read, and nothing is in it."""
    open_batch(view, next_batch(view))
    close_batch(view, 0, size_bytes)


class BlockExecution:
    """One block being made. Use: construct, `execute` each transaction, `end` once."""

    def __init__(
        self,
        view: StateView,
        timestamp_ms: int,
        origin: L1Origin,
        messages: Sequence[L1Message],
        table: Table | None = None,
    ) -> None:
        """Begins the block; executes its messages and the switches that are due.

        `table` is the batch's market table in a replay, None where the batch is being made. Raises
        InvalidBlock, with nothing changed, when the block cannot follow the state.
        """
        self.view = view
        self.block = BlockContext(timestamp_ms, origin, table)
        self._results: list[TransactionResult] = []
        self._executed = 0
        """Index of the last result that is of an executed transaction."""
        self.progress = self._begin(messages)
        for message in messages:
            self._step(message)
            while self.progress.task:
                self._step(message)
        while self.progress.phase != Phase.TRANSACTIONS:
            self._step(None)
        self._order_ends = [len(self.block.orders)]

    def execute(self, transaction: Transaction, encoded: bytes = b"") -> TransactionResult:
        """Executes a transaction; `encoded` is its bytes in the batch if known.

        Raises Rejected, with nothing changed, when its envelope or, of a single action, its own check fails.
        What it pays for its place is known when the next one executes: `end` has it in its result.
        """
        block = self.block
        operations, trades = block.operations, block.trades
        operations.clear()
        block.liquidations.clear()
        block.withdrawal = 0
        block.price_uusd = 0
        count = len(trades)
        self._step(transaction, encoded)
        while self.progress.task:
            self._step(transaction, encoded)
        result = TransactionResult(
            transaction.hash,
            0,
            block.fee_uusd,
            tuple(operations),
            block.withdrawal,
            _NO_TRADES if len(trades) == count else (trades[count].number, trades[-1].number + 1),
            liquidations=tuple(block.liquidations),
            fee_parts=block.fee_parts,
        )
        results = self._results
        if block.price_uusd:
            before = results[self._executed]
            results[self._executed] = replace(before, priority_uusd=block.price_uusd)
        self._executed = len(results)
        results.append(result)
        self._order_ends.append(len(block.orders))
        return result

    def refuse(self, transaction: Transaction, encoded: bytes, refusal: Rejected) -> TransactionResult:
        """Takes a transaction that was refused into the block as a no-op: in a replay, where it stands."""
        skip(self.view, self.block, self.progress, transaction, encoded)
        result = TransactionResult(transaction.hash, refusal.code, data=refusal.data)
        self._results.append(result)
        self._order_ends.append(len(self.block.orders))
        return result

    def end(self) -> BlockResult:
        """Closes the block."""
        header, block_hash = self._end()
        block = self.block
        return BlockResult(
            header,
            block_hash,
            tuple(block.message_results),
            tuple(self._results),
            tuple(block.trades),
            tuple(block.orders),
            tuple(sorted(block.accounts)),
            tuple(sorted(block.markets)),
            b"".join(block.encoded),
            tuple(block.life),
            tuple(self._order_ends),
            tuple(block.triggers),
        )

    def _begin(self, messages: Sequence[L1Message]) -> Progress:
        return begin_block(self.view, self.block, messages)

    def _step(self, item: L1Message | Transaction | None, encoded: bytes = b"") -> None:
        step(self.view, self.block, self.progress, item, encoded)

    def _end(self) -> tuple[BlockHeader, bytes]:
        return end_block(self.view, self.block, self.progress)


def apply_block(view: StateView, block: OrderedBlock, table: Table) -> BlockResult:
    """Replays a block of a batch with this market table; refused transactions are no-ops with a code.

    `block.encoded` must hold the bytes of each transaction. Raises InvalidBlock, with nothing changed, when
    the block cannot follow the state.
    """
    execution = BlockExecution(view, block.timestamp_ms, block.origin, block.messages, table)
    for transaction, encoded in zip(block.transactions, block.encoded, strict=True):
        try:
            execution.execute(transaction, encoded)
        except Rejected as refusal:
            execution.refuse(transaction, encoded, refusal)
    return execution.end()


class Simulation(Struct, frozen=True):
    """What a transaction would do now."""

    result: TransactionResult | None
    rejected: Rejected | None
    before: Margin | None
    """Margin of its account; None for an unknown account or an oracle update."""
    after: Margin | None


def simulate(view: StateView, timestamp_ms: int, transaction: Transaction) -> Simulation:
    """Executes a transaction alone in a block of its own, on a copy of what it touches."""
    overlay = Overlay(view)
    payload = transaction.payload
    account = payload.action.account if isinstance(payload, SignedAction) else 0
    before = margin(overlay, account)
    execution = BlockExecution(overlay, timestamp_ms, same_origin(view), ())
    try:
        result = execution.execute(transaction)
    except Rejected as rejected:
        return Simulation(None, rejected, before, before)
    return Simulation(result, None, before, margin(overlay, account))
