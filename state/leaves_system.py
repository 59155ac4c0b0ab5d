"""Leaves of the machine as a whole: its registers, what the governor sets, where a block stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar

from state.leaves_base import FixedLeaf


@dataclass
class System(FixedLeaf):
    """The machine's registers. `Rollup.sol` reads this leaf by offsets, so new fields go at the end."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q 32s Q Q Q 32s Q Q I Q Q Q q q q q B Q")

    block_number: int = 0
    """Of the last block executed."""
    timestamp_ms: int = 0
    """Of that block."""
    parent_hash: bytes = bytes(32)
    """Hash of that block's header."""
    batch_number: int = 0
    """Of the batch being read, or last read."""
    batch_cursor: int = 0
    """Bytes of that batch read so far; its whole length once closed."""
    inbox_next: int = 0
    """Index of the next L1 message to consume."""
    inbox_hash: bytes = bytes(32)
    """Rolling hash of all messages consumed."""
    l1_block: int = 0
    """L1 origin: the L1 block up to which messages may have been consumed."""
    next_account: int = 0
    next_market: int = 0
    next_sequence: int = 0
    """Of the next resting order: time priority."""
    next_trade: int = 0
    next_withdrawal: int = 0
    collateral_uusd: int = 0
    """Deposits less withdrawals begun: what the money below must add up to."""
    insurance_uusd: int = 0
    fees_uusd: int = 0
    """Aggregation fees collected."""
    venue_fees_uusd: int = 0
    """Maker and taker fees collected."""
    order_class: int = 0
    """Ordering: class of the last transaction in this block."""
    order_bid: int = 0
    """Ordering: its bid."""


@dataclass
class Parameters(FixedLeaf):
    """What the venue's governor sets by L1 message."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q I I I I")

    exec_price_pusd: int
    """Per execution unit, without load."""
    eth_price_uusd: int
    """Converts L1's fees and cost reports, when no fresh ETH feed does."""
    oracle_max_age_ms: int
    """Heartbeat: older prices are stale."""
    oracle_deviation_ppm: int
    """Largest relative move of one update."""
    max_orders: int
    """Open orders per account."""
    max_positions: int
    """Positions per account."""
    max_session_keys: int
    """Per account."""


class Phase(IntEnum):
    """What a block is at."""

    MESSAGES = 0
    SWITCHES = 1
    DUE = 2
    TRANSACTIONS = 3


class Task(IntEnum):
    """What is under way within a message or transaction."""

    NONE = 0
    MATCH = 1
    """The order in the registers is being matched."""
    OPERATIONS = 2
    """A bulk action."""
    SWEEP = 3
    """Orders are being cancelled."""
    FEEDS = 4
    """The feeds of an oracle update are being applied."""
    PRICINGS = 5
    """The expiries that the feeds of an oracle update belong to are being priced."""
    TRIGGERS = 8
    """Triggers that the prices of an oracle update set off are being fired."""
    CLEANUP = 9
    """What trades made void is being cancelled; then the parent task goes on."""
    AUCTION_ORDERS = 20
    """Orders of an account that is put up for auction are being cancelled."""
    SEIZE = 21
    """A bidder takes over positions."""
    DELEVERAGE = 22
    """A position is being closed against counterparties."""


@dataclass
class Taker(FixedLeaf):
    """Registers of the order that is being placed; part of `Progress`, not a leaf of its own."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q I B B Q Q Q Q B Q B I B")

    account: int = 0
    order_id: int = 0
    market: int = 0
    side: int = 0
    kind: int = 0
    """OrderKind."""
    price_uusd: int = 0
    size_ulots: int = 0
    """Not filled yet."""
    filled_ulots: int = 0
    prior_ulots: int = 0
    """Filled before it was replaced."""
    reduce_only: int = 0
    expiry_s: int = 0
    self_trade: int = 0
    makers: int = 0
    """Resting orders met so far: filled or removed."""
    cleanup: int = 0
    """1: its fills made something void, which is cancelled when it is done."""


class Progress:
    """Where execution stands between two steps of a block; absent between blocks.

    The registers of the order being placed are part of it only while that order is matching.
    """

    __slots__ = (
        "accumulator",
        "bid_market",
        "bidder",
        "bytes_used",
        "cursor",
        "data_uusd",
        "due",
        "fired",
        "leaves_used",
        "looked",
        "messages_left",
        "operation",
        "parent",
        "phase",
        "switches",
        "taker",
        "task",
        "units_used",
    )
    LAYOUT: ClassVar[Struct] = Struct(">BBBIIII32sQIIIIIQQI")

    def __init__(
        self,
        phase: int = Phase.MESSAGES,
        task: int = Task.NONE,
        parent: int = Task.NONE,
        messages_left: int = 0,
        switches: int = 0,
        due: int = 0,
        operation: int = 0,
        accumulator: bytes = bytes(32),
        cursor: int = 0,
        fired: int = 0,
        looked: int = 0,
        units_used: int = 0,
        bytes_used: int = 0,
        leaves_used: int = 0,
        data_uusd: int = 0,
        bidder: int = 0,
        bid_market: int = 0,
        taker: Taker | None = None,
    ) -> None:
        self.phase = phase
        self.task = task
        self.parent = parent
        """Task that goes on when an order has been matched."""
        self.messages_left = messages_left
        self.switches = switches
        """Dead-man switches executed."""
        self.due = due
        """Steps done of what block time drives."""
        self.operation = operation
        """Next operation of a bulk action, next feed or name of an oracle update."""
        self.accumulator = accumulator
        """Rolling hash of the block's transactions."""
        self.cursor = cursor
        """How far a walk over leaves has come, as its task says; 0 at its start."""
        self.fired = fired
        """Triggers fired in this oracle update."""
        self.looked = looked
        """Markets of one expiry looked at for triggers."""
        self.units_used = units_used
        """Execution units that this block's transactions were charged for so far."""
        self.bytes_used = bytes_used
        self.leaves_used = leaves_used
        self.data_uusd = data_uusd
        """Charged for data so far."""
        self.bidder = bidder
        """Account whose bid is held, that of the last transaction; 0: none."""
        self.bid_market = bid_market
        """The one market that this transaction names, or 0."""
        self.taker = taker or Taker()

    def encode(self) -> bytes:
        head = self.LAYOUT.pack(
            self.phase,
            self.task,
            self.parent,
            self.messages_left,
            self.switches,
            self.due,
            self.operation,
            self.accumulator,
            self.cursor,
            self.fired,
            self.looked,
            self.units_used,
            self.bytes_used,
            self.leaves_used,
            self.data_uusd,
            self.bidder,
            self.bid_market,
        )
        return head + self.taker.encode() if self.task == Task.MATCH else head

    @classmethod
    def decode(cls, data: bytes) -> Progress:
        """Raises ValueError when the length does not fit the task."""
        size = cls.LAYOUT.size
        if len(data) < size:
            raise ValueError(f"Progress: {len(data)} bytes, expected at least {size}")
        progress = cls(*cls.LAYOUT.unpack_from(data))
        if progress.task == Task.MATCH:
            progress.taker = Taker.decode(data[size:])
        elif len(data) != size:
            raise ValueError(f"Progress: {len(data)} bytes, expected {size}")
        return progress
