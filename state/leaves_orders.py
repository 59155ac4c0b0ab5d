"""Leaves of orders that rest or wait for a price, and of block trades."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from state.leaves_base import FixedLeaf


@dataclass
class RestingOrder(FixedLeaf):
    """An order in the book; its price and priority are in its key."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q Q B B")

    account: int
    order_id: int
    size_ulots: int
    """Open."""
    filled_ulots: int
    expiry_s: int
    """0: good till cancelled."""
    reduce_only: int
    self_trade: int


@dataclass
class AccountOrder(FixedLeaf):
    """Finds an account's order in the book."""

    LAYOUT: ClassVar[Struct] = Struct(">B Q Q")

    side: int
    price_uusd: int
    sequence: int


@dataclass
class Trigger(FixedLeaf):
    """An order that waits for a price; which one is in its key."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q I B B Q Q B Q B")

    account: int
    order_id: int
    """That the order will have."""
    market: int
    side: int
    kind: int
    """OrderKind."""
    price_uusd: int
    size_ulots: int
    reduce_only: int
    expiry_s: int
    """Of the order; at or after it the trigger places nothing. 0: none."""
    self_trade: int


@dataclass
class AccountTrigger(FixedLeaf):
    """Finds an account's trigger."""

    LAYOUT: ClassVar[Struct] = Struct(">B B Q Q")

    source: int
    """TriggerSource."""
    below: int
    """1: fires at or below its price."""
    trigger_uusd: int
    sequence: int


@dataclass
class TriggerCount(FixedLeaf):
    """How many triggers wait for the mark of a dated instrument."""

    LAYOUT: ClassVar[Struct] = Struct(">I Q")

    triggers: int
    version: int
    """Of its expiry's Pricing when they were last looked at: where the market stands in the queue."""


@dataclass
class BlockTrade(FixedLeaf):
    """What two parties agreed on when they traded, so that it can be proved (`blocks`)."""

    LAYOUT: ClassVar[Struct] = Struct(">32s 32s Q Q q Q")

    terms_hash: bytes
    legs_hash: bytes
    """Of market, side, size and amount of each leg."""
    maker: int
    taker: int
    net_uusd: int
    """What the maker received."""
    timestamp_ms: int
