"""The leaf of the auction for places in a block (`priority`)."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from state.leaves_base import FixedLeaf


@dataclass
class PriorityTerms(FixedLeaf):
    """Where what is paid for places goes; absent: these defaults. The rest is the insurance fund's."""

    LAYOUT: ClassVar[Struct] = Struct(">I I I")

    makers_ppm: int = 500_000
    """To the pot of the market that the transaction names."""
    operator_ppm: int = 0
    """To the operator. Above 0 it may bid against its users at a discount."""
    rate_ppm: int = 50
    """Of a fill's notional, at most, from its market's pot to its maker."""
