"""Leaves of what transactions cost: the governor's terms, and the registers behind prices
(`fee_market`, `l1_price`).
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from state.leaves_base import FixedLeaf


@dataclass
class FeeTerms(FixedLeaf):
    """How base prices follow load, and what proofs and finality cost; absent: these defaults.

    The minimum price of an execution unit is `Parameters.exec_price_pusd`.
    """

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q Q Q Q I I I Q I I I I I I")

    execution_target: int = 40_000
    """Execution units a second: above it the price rises, below it falls. Half of what the reference machine
    sustains (PROTOCOL 8.13 has the figures behind this and the next two)."""
    data_target: int = 37_000
    """Bytes a second: a quarter of what L1 has blobs for."""
    growth_target: int = 2_500
    """Leaves a second."""
    data_min_pusd: int = 200_000
    """Per byte."""
    growth_min_pusd: int = 10_000_000
    """Per leaf."""
    proof_unit_pusd: int = 500_000
    """Amortised cost of verifying one execution unit."""
    finality_byte_pusd: int = 10_000
    """Cost of the capital that a byte on L1 binds until it is final."""
    inertia_s: int = 60
    """A backlog of so much time multiplies the price by e."""
    burst: int = 5
    """Use counts as at most so many times the target."""
    most_exponent_milli: int = 6_908
    """No price is above its minimum times e to this many thousandths."""
    open_interest_uusd: int = 10**15
    """Of a market; at it the rate on risk has risen by once its base."""
    risk_ppm: int = 1
    """Rate on the worst loss that orders add, before anything raises it."""
    risk_resting_ppm: int = 10_000
    """What post-only orders add counts by this part of it."""
    risk_most_ppm: int = 10
    """No rate is above it, but for a base that is."""
    volatility_ppm: int = 800_000
    """A year; at it the rate has risen by once its base."""
    variance_window_s: int = 3_600
    """Over which squared moves are averaged."""
    fund_target_ppm: int = 10_000
    """Of a market's open interest: an insurance fund below it raises the rate."""


@dataclass
class FeeMarket(FixedLeaf):
    """What the transactions of this block pay, and the loads behind it."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q Q Q Q Q Q Q Q")

    execution_pusd: int = 0
    """Per execution unit."""
    data_pusd: int = 0
    """Per byte, beside what a byte costs on L1."""
    growth_pusd: int = 0
    """Per leaf that a transaction may add."""
    proof_unit_pusd: int = 0
    """Per execution unit; this and the next as the terms said at the block's start."""
    finality_byte_pusd: int = 0
    """Per byte."""
    execution_backlog_ns: int = 0
    """How long the venue would take, at its target, for what was used beyond it."""
    data_backlog_ns: int = 0
    growth_backlog_ns: int = 0
    execution_used: int = 0
    """In the last block."""
    data_used: int = 0
    growth_used: int = 0


@dataclass
class L1Terms(FixedLeaf):
    """How the price of a batch byte follows L1; absent: these defaults, which `l1_price` derives."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q I I I I I I I I I I Q")

    min_pusd: int = 1_000
    max_pusd: int = 10**12
    """A dollar per byte."""
    step_ppm: int = 125_000
    slot_ms: int = 12_000
    horizon_ppm: int = 1_500_000
    """Of the bytes on their way: over how many bytes the position is brought back."""
    feedback_ppm: int = 500_000
    """Of the feed-forward: the most that others' past adds to or takes from a price."""
    reserve_ppm: int = 2_000_000
    """The standing reserve, in standard deviations of what the bytes on their way may come to cost more."""
    batch_weight: int = 8
    """A batch moves the averages of sizes and gas by this part of the distance."""
    variance_weight: int = 64
    """An L1 block moves the variance by this part of the distance."""
    memory_batches: int = 64
    post_gas: int = 162_000
    """Of posting beside its data (contracts/README.md)."""
    blob_fraction: int = 11_684_671
    """L1's BLOB_BASE_FEE_UPDATE_FRACTION (EIP-4844), here that of EIP-7892's second step; an L1 fork may
    change it, and the governor must follow."""
    tip_wei: int = 0
    """Per gas: what inclusion usually costs beside the base fee. Reports leave out what the operator chose to
    bid; this much is counted of every batch."""


@dataclass
class L1Price(FixedLeaf):
    """The price of a batch byte, and what it follows (`l1_price`)."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q Q Q Q Q Q Q Q Q Q Q Q q Q Q Q Q Q")

    l1_block: int
    """The latest origin."""
    base_fee_wei: int
    blob_fee_wei: int
    """0: L1 has no blobs."""
    variance_ppt: int
    """Of the byte's cost: mean squared relative change per L1 block, times 10^12."""
    batch_bytes: int
    """Average encoded size of a batch."""
    batch_blobs_ppm: int
    """Average blobs of a batch."""
    batch_blocks_ppm: int
    """Average L1 blocks between two batches' ends."""
    batch_cost_uusd: int
    """Average reported cost, over `memory_batches`."""
    blob_gas_ppm: int
    """Reported gas of posting by blobs, over the model's."""
    calldata_gas_ppm: int
    """Reported gas of posting by calldata, over the model's."""
    overhead_ppm: int
    """Encoded bytes of a batch over those that transactions were charged for; at least 1."""
    flight_bytes: int
    """Average of the bytes on their way when a report comes, those of its batch included."""
    closed_block: int
    """Origin when the last batch closed."""
    open_bytes: int
    """Charged for in the open batch."""
    closed_bytes: int
    """Encoded, in closed batches that are not reported yet."""
    surplus_uusd: int
    """Collected less reported cost; signed."""
    slot: int
    """Block time over `slot_ms`."""
    low_pusd: int
    """Bounds of the price in this slot."""
    high_pusd: int
    target_pusd: int
    """What the price would be without the slot's bounds."""
    price_pusd: int


@dataclass
class IndexVariance(FixedLeaf):
    """How much an index moves: an exponential average of its squared moves (`risk_fees`)."""

    LAYOUT: ClassVar[Struct] = Struct(">Q")

    ppb2_per_s: int = 0
    """Squared billionths, by second."""


@dataclass
class FeeTiers(FixedLeaf):
    """Shares of instruments' fees by what an account has traded (`fee_tiers`); absent: all is paid."""

    LAYOUT: ClassVar[Struct] = Struct(">B 128s")

    count: int
    rows: bytes
    """Of each tier: volume u64, maker's share in ppm i32, taker's u32; then zeros."""


@dataclass
class Volume(FixedLeaf):
    """What an account has traded, by day; absent before its first fill under tiers."""

    LAYOUT: ClassVar[Struct] = Struct(">I i I Q 240s")

    day: int
    """Of its last fill: block time over 86,400 s."""
    maker_ppm: int
    """What it pays that day of the instruments' fees."""
    taker_ppm: int
    today_uusd: int
    days: bytes
    """The 30 days before, the latest first, u64 each."""
