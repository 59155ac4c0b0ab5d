"""What became of a transaction: receipts, made from sealed blocks when somebody asks.

A `SealedBlock` is everything there is to know about a block: its header with the sequencer's signature and
the results of its transactions. It is what is kept, in memory until the next checkpoint and in the database
afterwards; a receipt is one transaction's share of it, with names and hex in place of numbers and bytes.

`stage` says how far it has come: `sealed` (signed, on this node's disk), `posted` (its batch is on L1),
`finalized` (nobody can dispute it any more). Only the stage of a receipt ever changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from sequencer.markets import Markets
from state.block import (
    BlockHeader,
    LifeEvent,
    MessageResult,
    OperationResult,
    OrderEnd,
    Trade,
    TransactionResult,
)
from state.errors import RejectCode
from state.store import Store

SIDE_NAMES = ("buy", "sell")
END_NAMES = tuple(OrderEnd(end).name.lower().replace("_", "-") for end in range(len(OrderEnd)))


class SealedBlock(msgspec.Struct, frozen=True, array_like=True):
    """A durable block; `signature` is the sequencer's over the header, 64 bytes."""

    header: BlockHeader
    hash: bytes
    signature: bytes
    batch: int
    """Number of the batch that it is part of."""
    results: tuple[TransactionResult, ...]
    trades: tuple[Trade, ...]
    messages: tuple[MessageResult, ...]
    life: tuple[LifeEvent, ...] = ()
    """Listings and settlements."""


class FillView(msgspec.Struct, frozen=True):
    """One trade of this transaction's order with a resting one, at the resting order's price."""

    trade: int
    instrument: str
    side: str
    order_id: int
    price_uusd: int
    size_ulots: int
    fee_uusd: int
    maker_account: int
    maker_order_id: int
    maker_fee_uusd: int
    block_trade: int | None = None
    """The number of the block trade that it is a leg of; then the maker's order id is its quote's nonce."""


class OperationView(msgspec.Struct, frozen=True):
    """What became of one order, cancel or replacement; `code` is OK or why this one was refused."""

    code: str
    order_id: int
    filled_ulots: int
    resting_ulots: int
    cancelled_ulots: int
    end: str
    data: dict[str, int | str | bool]


class FeeView(msgspec.Struct, frozen=True):
    """What was charged: for inclusion, on fills (negative is a rebate), and for the place in the block (at
    most the bid). The other parts add up to inclusion; what each is: `state/fees.py`."""

    total_uusd: int
    inclusion_uusd: int
    trading_uusd: int
    priority_uusd: int = 0
    data_uusd: int = 0
    bandwidth_uusd: int = 0
    execution_uusd: int = 0
    growth_uusd: int = 0
    finality_uusd: int = 0
    risk_uusd: int = 0


class Receipt(msgspec.Struct, frozen=True):
    """The signed answer to a transaction."""

    hash: str
    status: str
    stage: str
    block_number: int
    block_hash: str
    timestamp_ms: int
    header_signature: str
    index: int
    batch: int
    operations: list[OperationView]
    fills: list[FillView]
    fee: FeeView
    withdrawal: int | None


class Stages:
    """Up to which block batches are on L1, and final there. The poster's tracker moves both."""

    def __init__(self, posted_block: int = 0, finalized_block: int = 0) -> None:
        self.posted_block = posted_block
        self.finalized_block = finalized_block

    def of(self, block_number: int) -> str:
        if block_number <= self.finalized_block:
            return "finalized"
        return "posted" if block_number <= self.posted_block else "sealed"


def hex_of(data: bytes) -> str:
    return "0x" + data.hex()


def wallet_signature(signature: bytes) -> str:
    """65 bytes (r, s, v) in hex, as wallets and libraries take it, of the 64-byte form."""
    v = 27 + (signature[32] >> 7)
    return f"0x{signature[:32].hex()}{signature[32] & 0x7F:02x}{signature[33:].hex()}{v:02x}"


class ReceiptMaker:
    """Makes the receipts of one block; what they share is written once."""

    __slots__ = ("_block", "_block_hash", "_first_trade", "_markets", "_signature")

    def __init__(self, block: SealedBlock, markets: Markets) -> None:
        self._block = block
        self._markets = markets
        self._block_hash = hex_of(block.hash)
        self._signature = wallet_signature(block.signature)
        self._first_trade = block.trades[0].number if block.trades else 0

    def receipt(self, index: int, stage: str) -> Receipt:
        """Raises IndexError when the block has no such transaction."""
        block = self._block
        result = block.results[index]
        first, end = result.trades
        fills: list[FillView] = []
        trading_uusd = 0
        if first != end:
            start = first - self._first_trade
            for trade in block.trades[start : start + end - first]:
                trading_uusd += trade.taker_fee_uusd
                fills.append(_fill(trade, self._markets))
        return Receipt(
            "0x" + result.hash.hex(),
            "executed" if not result.code else RejectCode(result.code).name,
            stage,
            block.header.number,
            self._block_hash,
            block.header.timestamp_ms,
            self._signature,
            index,
            block.batch,
            [operation_view(each) for each in result.operations],
            fills,
            FeeView(
                result.fee_uusd + trading_uusd + result.priority_uusd,
                result.fee_uusd,
                trading_uusd,
                result.priority_uusd,
                *result.fee_parts,
            ),
            result.withdrawal or None,
        )


def operation_view(result: OperationResult) -> OperationView:
    return OperationView(
        RejectCode(result.code).name if result.code else "OK",
        result.order_id,
        result.filled_ulots,
        result.resting_ulots,
        result.cancelled_ulots,
        END_NAMES[result.end],
        result.data,
    )


def _fill(trade: Trade, markets: Markets) -> FillView:
    return FillView(
        trade.number,
        markets.past_name_of(trade.market),
        SIDE_NAMES[trade.taker_side],
        trade.taker_order_id,
        trade.price_uusd,
        trade.size_ulots,
        trade.taker_fee_uusd,
        trade.maker_account,
        trade.maker_order_id,
        trade.maker_fee_uusd,
        trade.block_trade or None,
    )


class BlockArchive(Protocol):
    """Blocks that a checkpoint has written; both may read the disk."""

    def block(self, number: int) -> bytes | None:
        """A SealedBlock as `encode_block` wrote it."""

    def transaction_place(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """(block number, index) of a transaction."""


class StoreArchive(BlockArchive):
    """The node's store as an archive."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def block(self, number: int) -> bytes | None:
        stored = self._store.block(number)
        return None if stored is None else stored.data

    def transaction_place(self, transaction_hash: bytes) -> tuple[int, int] | None:
        return self._store.transaction(transaction_hash)


encode_block: Callable[[SealedBlock], bytes] = msgspec.msgpack.Encoder().encode
decode_block: Callable[[bytes], SealedBlock] = msgspec.msgpack.Decoder(SealedBlock).decode


class Receipts:
    """Every block ever sealed: the last ones here, the others in the archive."""

    def __init__(self, archive: BlockArchive, markets: Markets, stages: Stages, last_block: int) -> None:
        self.stages = stages
        self.last_block = last_block
        """Number of the last durable block."""
        self._archive = archive
        self._markets = markets
        self._blocks: dict[int, SealedBlock] = {}
        self._recent: dict[bytes, tuple[SealedBlock, int]] = {}

    def add(self, block: SealedBlock) -> None:
        """A block became durable."""
        self.last_block = block.header.number
        self._blocks[self.last_block] = block
        recent = self._recent
        for index, result in enumerate(block.results):
            recent[result.hash] = (block, index)

    def archived(self, through: int) -> None:
        """The archive has all blocks up to this number: forget them here."""
        for number in [number for number in self._blocks if number <= through]:
            for result in self._blocks.pop(number).results:
                self._recent.pop(result.hash, None)

    def is_recent(self, transaction_hash: bytes) -> bool:
        """Whether `find` answers without reading the disk."""
        return transaction_hash in self._recent

    def find(self, transaction_hash: bytes) -> Receipt | None:
        """The receipt of a transaction, or None if no block has it. May read the disk."""
        place = self._recent.get(transaction_hash)
        if place is None:
            archived = self._archive.transaction_place(transaction_hash)
            if archived is None:
                return None
            number, index = archived
            block = self.block(number)
            if block is None:
                return None
            place = block, index
        block, index = place
        return ReceiptMaker(block, self._markets).receipt(index, self.stages.of(block.header.number))

    def of_block(self, block: SealedBlock) -> list[Receipt]:
        """The receipts of all transactions of a block."""
        maker = ReceiptMaker(block, self._markets)
        stage = self.stages.of(block.header.number)
        return [maker.receipt(index, stage) for index in range(len(block.results))]

    def block(self, number: int) -> SealedBlock | None:
        """A sealed block, or None. May read the disk."""
        block = self._blocks.get(number)
        if block is not None:
            return block
        data = self._archive.block(number)
        return decode_block(data) if data is not None else None
