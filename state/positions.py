"""Arithmetic of a position: what a trade does to size, cost and cash. Pure integers, no state.

Sizes are signed (long above zero), `quote` is the signed cost: minus what was paid, plus what was received.
Every unit of quote that a trade moves appears on the other side with the opposite sign, and what is released
into cash is taken from quote, so cash and quotes together are conserved exactly.
"""

from typing import Final

from state.leaves import Position
from state.units import PPM, ULOTS_PER_LOT

NUSD_ULOTS_PER_UUSD: Final = 1_000_000_000
"""funding index (nusd a lot) * size (ulots) / this = uusd."""


def after_trade(size: int, quote: int, delta: int, notional: int) -> tuple[int, int, int]:
    """(size, quote, realised) after trading `delta` ulots for `notional` uusd (>= 0).

    Opening adds to quote. Reducing releases quote pro rata, rounded down, together with what the trade paid:
    that is the realised profit. A trade through zero closes first and opens the rest.
    """
    flow = -notional if delta > 0 else notional
    if size == 0 or (size > 0) == (delta > 0):
        return size + delta, quote + flow, 0
    held, traded = abs(size), abs(delta)
    if traded <= held:
        released = quote * traded // held
        return size + delta, quote - released, flow + released
    closing = flow * held // traded  # exact: lots and ticks make every part's notional an integer
    return size + delta, flow - closing, quote + closing


def notional_of(price_uusd: int, size_ulots: int) -> int:
    """uusd of a trade; exact, because tick * lot is a multiple of 10^6."""
    return price_uusd * size_ulots // ULOTS_PER_LOT


def fee_of(notional: int, rate_ppm: int) -> int:
    """Venue fee in uusd, rounded up."""
    return -(-notional * rate_ppm // PPM)


def funding_owed(size: int, from_index: int, to_index: int) -> int:
    """uusd that a position owes for funding (negative: is owed), rounded up: payers pay for roundings."""
    return -(size * (from_index - to_index) // NUSD_ULOTS_PER_UUSD)


def is_empty(position: Position) -> bool:
    """Whether the leaf may go."""
    return not (
        position.size_ulots
        or position.orders
        or position.quote_uusd
        or position.open_buy_ulots
        or position.open_sell_ulots
    )
