"""Leaves of what transactions cost: the governor's terms, and the base prices' registers (`fee_market`)."""

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

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q Q Q Q I I I")

    execution_target: int = 100_000
    """Execution units a second: above it the price rises, below it falls."""
    data_target: int = 1_000_000
    """Bytes a second."""
    growth_target: int = 20_000
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
