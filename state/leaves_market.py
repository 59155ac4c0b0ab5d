"""Leaves of instruments: what is traded, its market, and the life of what expires."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import ClassVar

from state.leaves_base import FixedLeaf


class Kind(IntEnum):
    """What an instrument is."""

    PERPETUAL = 0
    FUTURE = 1
    CALL = 2
    PUT = 3


class Status(IntEnum):
    """Where an instrument, or all of an expiry, stands in its life; when delisted, its leaves are gone."""

    LISTED = 0
    """Not priced yet."""
    TRADING = 1
    REDUCE_ONLY = 2
    HALTED = 3
    SETTLING = 4
    """Expired: orders and positions are being closed, or the settlement price is not known yet."""
    SETTLED = 5


@dataclass
class Instrument(FixedLeaf):
    """One tradable instrument as listed; `name` is padded with zeros."""

    LAYOUT: ClassVar[Struct] = Struct(">31s B 31s B Q Q Q Q I I I Q Q Q I")

    name: bytes
    kind: int
    """Kind: 0 perpetual, 1 future, 2 call, 3 put."""
    underlying: bytes
    """Feed name of the index."""
    status: int
    """Status. Of a dated instrument its expiry's status counts as well."""
    tick_uusd: int
    lot_ulots: int
    """Tick_uusd * lot_ulots is a multiple of 10^6, so every fill's notional is exact."""
    min_size_ulots: int
    max_size_ulots: int
    """Of one order."""
    band_ppm: int
    """Largest distance of an order's price from the mark."""
    maker_fee_ppm: int
    taker_fee_ppm: int
    impact_notional_uusd: int
    """Depth at which the premium is measured."""
    strike_uusd: int = 0
    """Of options; 0 of others."""
    expiry_s: int = 0
    """When it expires; 0 of perpetuals."""
    expiry: int = 0
    """Number of its Expiry; 0 of perpetuals."""


@dataclass
class MarketName(FixedLeaf):
    """Finds a market by its instrument's name."""

    LAYOUT: ClassVar[Struct] = Struct(">I")

    market: int


@dataclass
class Market(FixedLeaf):
    """What moves in an instrument: its mark, funding, open interest and the batch's reference price."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q q q q Q q Q Q Q Q q Q Q")

    mark_uusd: int
    """0 before the first oracle update."""
    mark_ms: int
    """When the mark was reported."""
    premium_ppb: int
    """Impact premium over the index, sampled at the last oracle update."""
    funding_rate_ppb: int
    """Hourly, in force until the next sample."""
    funding_index_nusd: int
    """Accumulated funding of one lot."""
    funding_ms: int
    """Up to when funding has accrued."""
    funding_pot_uusd: int
    """Paid in by payers, drawn by receivers; keeps roundings. Of a dated instrument: the pot from which
    positions are settled; losses come in, gains go out, what is left goes to the insurance fund."""
    open_interest_ulots: int
    last_price_uusd: int
    reference_batch: int
    """Batch for which the reference below holds."""
    reference_ticks: int
    """Mark in ticks when that batch first used the market."""
    priority_pot_uusd: int = 0
    """From bids for places in blocks, for the makers of later fills (`priority`)."""
    risk_long: int = 0
    """Of a perpetual, made with its mark: what risk of a long ulot costs (`risk_fees`), in 10^-12 uusd."""
    risk_short: int = 0
    """Of a short one."""


@dataclass
class Expiry(FixedLeaf):
    """One expiry of an underlying: its status, its settlement average and price."""

    LAYOUT: ClassVar[Struct] = Struct(">31s Q B Q Q I I I I")

    underlying: bytes
    expiry_s: int
    status: int
    """Status: LISTED, TRADING, SETTLING or SETTLED."""
    settlement_uusd: int
    """0 until the average is complete."""
    average_uusd_s: int
    """Index times seconds, summed over the settlement window so far."""
    average_rest: int
    """Thousandths of the above."""
    covered_ms: int
    """How much of the window that sum covers."""
    instruments: int
    """Listed and not gone."""
    settled: int
    """Instruments settled."""


@dataclass
class ExpiryOf(FixedLeaf):
    """Finds an expiry by underlying and time."""

    LAYOUT: ClassVar[Struct] = Struct(">I")

    expiry: int


@dataclass
class Terms(FixedLeaf):
    """Trading terms of instruments yet to be listed; part of `Series`, not a leaf of its own."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q I I I Q")

    tick_uusd: int
    lot_ulots: int
    min_size_ulots: int
    max_size_ulots: int
    band_ppm: int
    maker_fee_ppm: int
    taker_fee_ppm: int
    impact_notional_uusd: int


@dataclass
class Series(FixedLeaf):
    """A template from which expiries are listed, and how far the one under way has come."""

    LAYOUT: ClassVar[Struct] = Struct(">31s B B B Q I 52s 52s I Q I")

    underlying: bytes
    rule: int
    """calendar.Rule."""
    ahead: int
    """How many of the rule's next expiries are kept listed."""
    kinds: int
    """Bits: 1 futures, 2 calls, 4 puts."""
    strike_step_uusd: int
    strikes: int
    """On each side of the index."""
    future: bytes
    """Encoded Terms; zeros if futures are not listed."""
    option: bytes
    """Encoded Terms; zeros if options are not listed."""
    expiry: int = 0
    """Number of the expiry being listed; 0 when none is."""
    strike_uusd: int = 0
    """The lowest strike of that expiry."""
    listed: int = 0
    """Steps of its listing done: first the future, then a call and a put for each strike."""


@dataclass
class Listings(FixedLeaf):
    """Registers of the life cycle; absent before the first series."""

    LAYOUT: ClassVar[Struct] = Struct(">I I Q")

    next_expiry: int = 1
    next_series: int = 1
    delisted: int = 0
    """Counts instruments that are gone."""


class Due(IntEnum):
    """What block time drives."""

    SETTLE = 0
    """An expiry is over, or its price is known; number: the expiry."""
    DELIST = 1
    """A settled expiry's leaves go; number: the expiry."""
    LIST = 2
    """A series lists what is missing; number: the series."""
