"""What execution carries beside the state: the block's constants, and what it has to tell afterwards.

Nothing here decides what happens next. Times come from the block's head in the batch, so they are known to
whoever executes any single step; everything else only collects output.
"""

from __future__ import annotations

from state.block import (
    L1Origin,
    LifeEvent,
    LiquidationEvent,
    MessageResult,
    OperationResult,
    OrderEvent,
    Trade,
    TriggerEvent,
)
from state.codec import MarketEntry, Table
from state.units import MS_PER_S


class BlockContext:
    """One block's constants and outputs."""

    __slots__ = (
        "accounts",
        "encoded",
        "entries",
        "fee_parts",
        "fee_uusd",
        "life",
        "liquidations",
        "markets",
        "message_results",
        "now_s",
        "operations",
        "orders",
        "origin",
        "price_uusd",
        "table",
        "timestamp_ms",
        "trades",
        "triggers",
        "withdrawal",
    )

    def __init__(self, timestamp_ms: int, origin: L1Origin, table: Table | None) -> None:
        self.timestamp_ms = timestamp_ms
        self.now_s = timestamp_ms // MS_PER_S
        self.origin = origin
        self.table = table
        """The batch's market table in a replay; None where the batch is being made."""
        self.entries: dict[int, MarketEntry] = {}
        """Table entries that are fixed for the batch; may be forgotten between any two steps."""
        self.encoded: list[bytes] = []
        self.trades: list[Trade] = []
        self.orders: list[OrderEvent] = []
        self.life: list[LifeEvent] = []
        self.triggers: list[TriggerEvent] = []
        self.accounts: set[int] = set()
        self.markets: set[int] = set()
        self.message_results: list[MessageResult] = []
        self.operations: list[OperationResult] = []
        """Of the current transaction."""
        self.liquidations: list[LiquidationEvent] = []
        """Of the current transaction."""
        self.fee_uusd = 0
        """Charged to the current transaction."""
        self.price_uusd = 0
        """What the transaction before the current one paid for its place."""
        self.fee_parts: tuple[int, ...] = ()
        """What it is made of, in the order of `fees.PARTS`."""
        self.withdrawal = 0
        """Begun by the current transaction."""
