"""Leaves of liquidation: an account's auction, and how auctions run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar

from state.leaves_base import FixedLeaf


class AuctionKind(IntEnum):
    """Which curve an auction is on."""

    SOLVENT = 0
    """The account has equity: bidders are rewarded from it."""
    INSOLVENT = 1
    """It has none: the insurance fund fills the hole and rewards bidders."""


@dataclass
class Auction(FixedLeaf):
    """An account in liquidation (`liquidation`); the leaf exists as long as its auction."""

    LAYOUT: ClassVar[Struct] = Struct(">Q B Q Q Q q I")

    number: int
    """Auctions are numbered from 1."""
    kind: int
    """AuctionKind."""
    started_ms: int
    """Since when it is of this kind."""
    opened_ms: int
    left_ppb: int = 1_000_000_000
    """How much of what was held at the start of this kind no bid has taken yet."""
    needed_uusd: int = 0
    """What buffer margin was short of 0 when the auction was opened."""
    bids: int = 0


@dataclass
class LiquidationParameters(FixedLeaf):
    """How auctions run, set by the venue's governor; absent: these defaults."""

    LAYOUT: ClassVar[Struct] = Struct(">I I I I Q Q Q")

    buffer_ppm: int = 150_000
    """Buffer margin is maintenance margin and so much of the requirement more."""
    start_discount_ppm: int = 50_000
    fast_discount_ppm: int = 300_000
    """At the end of the fast phase; at the end of the slow one it is all."""
    fee_ppm: int = 100_000
    """Of what bidders pay, to the insurance fund."""
    fast_ms: int = 900_000
    slow_ms: int = 43_200_000
    insolvent_ms: int = 3_600_000
    """Over which the insurance fund's reward rises to the maintenance requirement."""


@dataclass
class Liquidations(FixedLeaf):
    """Registers of liquidation; absent before the first auction."""

    LAYOUT: ClassVar[Struct] = Struct(">Q")

    next_auction: int = 1
