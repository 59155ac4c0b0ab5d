"""Aggregation fees: what a transaction pays for its way into the state and onto L1, before it is executed.

| part | is | goes to |
|---|---|---|
| data | bytes in the batch at the L1 byte price, which follows what batches cost there | fees |
| bandwidth | the same bytes at their base price | fees |
| execution | execution units at their base price | fees |
| growth | leaves that the action may leave behind at their base price | fees |
| finality | proofs by unit, capital until a batch is final by byte | fees |
| risk | the risk that its orders add (`risk_fee`) | insurance fund |

Each part is rounded up to a uusd by itself, so the sum is exact. Units and leaves follow from the action, and
from which of its markets are dated: both are known before it is sent. An order's units include its matching,
however much it fills; the constants below are rounded from `python -m tools.bench units`, and PROTOCOL 8.13
says what they stand for. The base prices are those of the block (`fee_market`, `l1_market`).
"""

from __future__ import annotations

from typing import Final

from state.leaves import FeeMarket
from state.units import PUSD_PER_UUSD

BASE_UNITS: Final = 4
"""Of every action: its envelope, account and nonce; `rules` adds what it does."""
ORDER_UNITS: Final = 10
"""A limit order; with the base, what one costs that rests in a perpetual is 14 units: that defines them."""
POST_ONLY_UNITS: Final = 8
IMMEDIATE_UNITS: Final = 20
"""Immediate or cancel, market: one that meets one or two resting orders."""
FILL_OR_KILL_UNITS: Final = 60
"""It is matched twice: first to see whether it fills."""
CANCEL_UNITS: Final = 3
REPLACE_UNITS: Final = 12
DATED_UNITS: Final = 70
"""More for an order, replacement, trigger or block trade in options or futures: margin over expiries."""
QUOTE_UNITS: Final = 15
"""Of a block trade, beside its legs."""
LEG_UNITS: Final = 12
TERMS_UNITS: Final = 5
"""Of a block trade whose terms are kept."""
DELEVERAGE_UNITS: Final = 100
"""Of deleveraging, and again of each counterparty."""
RESTING_LEAVES: Final = 2
"""An order in the book, and what finds it by its account; positions are bounded otherwise (8.5)."""
PARTS: Final = ("data", "bandwidth", "execution", "growth", "finality", "risk")
Parts = tuple[int, int, int, int, int, int]
"""In uusd, in the order of `PARTS`."""
_UP: Final = PUSD_PER_UUSD - 1
"""Added before a division, rounds up."""


def charge(
    byte_price_pusd: int, market: FeeMarket, units: int, leaves: int, size_bytes: int, risk_uusd: int
) -> Parts:
    """What a transaction costs that takes so much; `byte_price_pusd` is L1's."""
    finality = units * market.proof_unit_pusd + size_bytes * market.finality_byte_pusd
    return (
        (size_bytes * byte_price_pusd + _UP) // PUSD_PER_UUSD,
        (size_bytes * market.data_pusd + _UP) // PUSD_PER_UUSD,
        (units * market.execution_pusd + _UP) // PUSD_PER_UUSD,
        (leaves * market.growth_pusd + _UP) // PUSD_PER_UUSD,
        (finality + _UP) // PUSD_PER_UUSD,
        risk_uusd,
    )
