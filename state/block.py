"""What goes into a block, and what comes out of one.

The header is what the sequencer signs and what the next block's `parent_hash` commits to; its hash is the
EIP-712 struct hash (`eip712.header_hash`). An `OrderedBlock` is all that execution needs beside the state; a
`BlockResult` is all that anybody may want to know about it afterwards. Results are outputs only: nothing in
them decides what happens next, that is what leaves are for.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import msgspec

from state.actions import Transaction


class InvalidBlock(ValueError):
    """A block or batch that does not continue the state. Nothing was changed: drop it and what follows."""


class BlockHeader(msgspec.Struct, frozen=True):
    number: int
    parent_hash: bytes
    """Hash of the header before; 32 zero bytes for the first block."""
    timestamp_ms: int
    transactions: bytes
    """From 32 zero bytes, for each transaction in order of execution: keccak(this | its hash)."""
    l1_block: int
    """L1 origin: messages up to this L1 block may have been consumed."""
    inbox_next: int
    """Index of the first L1 message not consumed yet."""


class L1Origin(NamedTuple):
    """The L1 block up to which a block may have read messages, and what its header says of fees.

    A batch has the number alone: the fees are those of that block of L1. Where the number is that of the
    block before they say nothing.
    """

    number: int
    base_fee_wei: int
    excess_blob_gas: int | None
    """None where L1 has no blobs."""


class MessageKind(IntEnum):
    DEPOSIT = 1
    FORCED_WITHDRAWAL = 2
    FORCED_ORDER = 3
    LIST_INSTRUMENT = 4
    SET_INSTRUMENT = 5
    SET_PARAMETERS = 6
    SET_PUBLISHERS = 7
    BATCH_COST = 8
    LIST_SERIES = 9
    LIST_STRIKES = 10
    SET_FEED = 11
    SET_MARGIN = 12
    SET_LIQUIDATION = 16
    SET_FEES = 17
    SET_PRIORITY = 18
    SET_L1_TERMS = 19
    SET_FEE_TIERS = 20


class L1Message(msgspec.Struct, frozen=True):
    """One entry of the L1 inbox (PROTOCOL section 4)."""

    kind: int
    sender: bytes
    l1_block: int
    payload: bytes


class OrderedBlock(msgspec.Struct, frozen=True):
    """A block before execution."""

    timestamp_ms: int
    origin: L1Origin
    messages: tuple[L1Message, ...]
    transactions: tuple[Transaction, ...]
    encoded: tuple[bytes, ...] = ()
    """Each transaction's bytes in the batch, when known (replay); otherwise execution encodes them."""


class BatchStart(msgspec.Struct, frozen=True):
    """What a batch's head says about where it continues."""

    batch_number: int
    first_block: int
    base_timestamp_ms: int
    base_l1_block: int
    inbox_start: int


class OrderEnd(IntEnum):
    """Why an order, or the rest of one, is no longer open."""

    OPEN = 0
    FILLED = 1
    CANCELLED = 2
    """By its account."""
    IMMEDIATE = 3
    """It was not to rest."""
    MARGIN = 4
    """Its account could not carry it."""
    EXPIRED = 5
    SELF_TRADE = 6
    REDUCE_ONLY = 7
    """No position was left to reduce."""
    MATCH_LIMIT = 8
    """It met as many makers as one order may."""
    DEAD_MAN = 9
    REPLACED = 10
    INSTRUMENT_EXPIRED = 11
    PROTECTION = 12
    """Its account's market-maker protection was set off."""
    POSITION_CLOSED = 13
    """Of a reduce-only trigger: the position that it was to reduce is gone."""
    TRIGGERED = 14
    """Of a trigger: it has fired."""
    LIQUIDATION = 15
    """Its account was put up for auction."""


class Trade(msgspec.Struct, frozen=True, gc=False):
    """One fill, at the maker's price."""

    number: int
    market: int
    price_uusd: int
    size_ulots: int
    taker_side: int
    maker_account: int
    maker_order_id: int
    taker_account: int
    taker_order_id: int
    maker_fee_uusd: int
    taker_fee_uusd: int
    maker_change_uusd: int = 0
    """Of the maker's cash: realised profit and reward, less fee and funding that was due."""
    taker_change_uusd: int = 0
    block_trade: int = 0
    """Of a leg of a block trade: the number of its first trade. Then `price_uusd` is rounded down from the
    leg's amount, and the maker's order id is the nonce of the quote."""
    maker_reward_uusd: int = 0
    """From what was paid for places in blocks; part of `maker_change_uusd`."""


class OrderEvent(msgspec.Struct, frozen=True, gc=False):
    """A change of a resting order; the sum of `delta_ulots` at a price is the change of the book there."""

    account: int
    market: int
    order_id: int
    side: int
    price_uusd: int
    delta_ulots: int
    """Change of the open size in the book."""
    open_ulots: int
    """What is open now; 0 when the order is gone."""
    end: int
    """OrderEnd."""


class TriggerEvent(msgspec.Struct, frozen=True, gc=False):
    """A trigger was placed or is gone; what the order does that it places is told like any order's."""

    account: int
    market: int
    order_id: int
    side: int
    kind: int
    """This and the next three: of its order."""
    price_uusd: int
    size_ulots: int
    reduce_only: bool
    end: int
    """OrderEnd; OPEN when it was placed, TRIGGERED when it has fired."""
    code: int = 0
    """RejectCode of the order that it was to place; 0 when that was good."""


class LifeChange(IntEnum):
    """What happened to an instrument, an expiry, or a position when it expired."""

    LISTED = 0
    """An instrument."""
    TRADING = 1
    """An expiry has its first prices."""
    EXPIRED = 2
    """An expiry is over; `price_uusd` is the settlement price if it is known already."""
    PRICED = 3
    """An expiry's settlement price is known."""
    POSITION_SETTLED = 4
    SETTLED = 5
    """All of an instrument's positions, or (market 0) all of an expiry's instruments, are settled."""
    DELISTED = 6
    """An instrument, or (market 0) an expiry, is gone."""


class LifeEvent(msgspec.Struct, frozen=True, gc=False):
    """One event in the life of a dated instrument; what does not apply is 0."""

    change: int
    """LifeChange."""
    expiry: int
    market: int = 0
    account: int = 0
    size_ulots: int = 0
    """Of the position that was settled."""
    price_uusd: int = 0
    """Of an expiry: its settlement price; of an instrument or position: what one coin of it is worth."""
    amount_uusd: int = 0
    """What a position's account gained in cash, including the cost it had paid or received."""


class LiquidationChange(IntEnum):
    """What happened in a liquidation."""

    STARTED = 0
    """An auction is open."""
    TURNED = 1
    """The auction has changed its kind."""
    BID = 2
    """`other` takes over a share of the positions for a reward; in an insolvent auction the fund pays it, and
    the share's part of what the account is short of."""
    FEE = 3
    """Of a bid, to the insurance fund."""
    SEIZED = 4
    """A position, or some of it, went to `other`."""
    DRAWN = 5
    """The insurance fund paid to the account."""
    DELEVERAGED = 6
    """A position, or some of it, was closed against `other`."""
    ENDED = 7


class LiquidationEvent(msgspec.Struct, frozen=True, gc=False):
    """One event of a liquidation; what does not apply is 0."""

    change: int
    """LiquidationChange."""
    auction: int
    account: int
    """The one that is liquidated."""
    amount_uusd: int = 0
    """Change of its cash."""
    other: int = 0
    """Bidder or counterparty."""
    other_amount_uusd: int = 0
    """Change of the other's cash."""
    market: int = 0
    size_ulots: int = 0
    """Change of the account's position; the other's is the opposite."""
    price_uusd: int = 0
    """At which a position went, rounded down."""
    share_ppm: int = 0
    """Of a bid."""
    kind: int = 0
    """AuctionKind, of an auction that starts or turns."""
    needed_uusd: int = 0
    """What buffer margin was short of 0, of an auction that starts."""


class OperationResult(msgspec.Struct, frozen=True, gc=False):
    """What became of one order, cancel or replacement."""

    code: int = 0
    """0, or the RejectCode of this operation of a bulk action."""
    order_id: int = 0
    filled_ulots: int = 0
    resting_ulots: int = 0
    cancelled_ulots: int = 0
    """Rest of the order that neither filled nor rests, or what a cancel took out of the book."""
    end: int = 0
    """OrderEnd: why the rest was cancelled."""
    data: dict[str, int | str | bool] = {}


class TransactionResult(msgspec.Struct, frozen=True, gc=False):
    """The outcome of a transaction; `code` is 0 when it was executed."""

    hash: bytes
    code: int = 0
    fee_uusd: int = 0
    operations: tuple[OperationResult, ...] = ()
    withdrawal: int = 0
    """Number of the withdrawal that a Withdraw began."""
    trades: tuple[int, int] = (0, 0)
    """Numbers of its first trade and of the one after its last; equal when it traded nothing."""
    data: dict[str, int | str | bool] = {}
    liquidations: tuple[LiquidationEvent, ...] = ()
    """What it did in a liquidation, in order."""
    fee_parts: tuple[int, ...] = ()
    """What `fee_uusd` is made of, in the order of `fees.PARTS`; empty when nothing was charged."""
    priority_uusd: int = 0
    """What it paid for its place in the block, beside the fee."""


class MessageResult(msgspec.Struct, frozen=True, gc=False):
    """The outcome of an L1 message; with a code it was consumed and changed nothing else."""

    index: int
    kind: int
    code: int = 0
    account: int = 0
    market: int = 0
    amount_uusd: int = 0
    withdrawal: int = 0
    operation: OperationResult | None = None
    series: int = 0
    """Number of the series that the message created."""


class BlockResult(msgspec.Struct, frozen=True):
    """A block after execution."""

    header: BlockHeader
    hash: bytes
    messages: tuple[MessageResult, ...]
    results: tuple[TransactionResult, ...]
    trades: tuple[Trade, ...]
    orders: tuple[OrderEvent, ...]
    accounts: tuple[int, ...]
    """Accounts that were touched, ascending."""
    markets: tuple[int, ...]
    """Markets whose mark or terms changed, ascending."""
    encoded: bytes
    """The block's bytes in the batch (PROTOCOL section 6)."""
    life: tuple[LifeEvent, ...] = ()
    """Listings and settlements, in order; at most two a step of what was due or reported."""
    order_ends: tuple[int, ...] = ()
    """How many of `orders` there were before the first transaction, and after each one."""
    triggers: tuple[TriggerEvent, ...] = ()
