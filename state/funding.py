"""Funding of perpetuals: what longs pay shorts, accrued in the market by an index, settled when touched.

With every report of an instrument's mark, in this order: funding accrues for the time since the last one at
the rate in force and the mark before; the premium of the book over the index is sampled; the next rate is

    rate = clamp(premium / 8 + 0.0000125, -0.4 %, +0.4 %) an hour

The premium is dYdX v3's ("Perpetual funding rate", its documentation): (max(0, impact bid - index) -
max(0, index - impact ask)) / index, where the impact price of a side is the average at which
`impact_notional_uusd` would trade against it; so are the eighth and the hourly interest of 0.00125 %. A side
that has no such depth within its best IMPACT_ORDERS orders adds nothing.
"""

from __future__ import annotations

from typing import Final

from state.context import BlockContext
from state.keys import FEED, MAX_U64, instrument_key, market_key, order_book_prefix
from state.leaves import Feed, Instrument, Market
from state.orders import is_expired
from state.units import IMPACT_ORDERS, MS_PER_HOUR, PPB, ULOTS_PER_LOT
from state.view import StateView

PERPETUAL: Final = 0
INTEREST_PPB: Final = 12_500
MAX_RATE_PPB: Final = 4_000_000
PREMIUM_DIVISOR: Final = 8
_INDEX_DIVISOR: Final = PPB // 1_000 * MS_PER_HOUR
"""uusd * ppb * ms / this = nusd a lot."""
_MAX_INDEX_NUSD: Final = 2**62
_FINE: Final = 1_000_000
_FEED: Final = bytes((FEED,))


def update_mark(view: StateView, block: BlockContext, market: int, mark_uusd: int, mark_ms: int) -> None:
    """Takes over a reported mark; for a perpetual also accrues funding and sets the next rate."""
    terms: Instrument = view.get(instrument_key(market))
    state: Market = view.get(market_key(market))
    if terms.kind == PERPETUAL:
        index: Feed = view.get(_FEED + terms.underlying)
        accrue(state, block.timestamp_ms)
        state.premium_ppb = premium_ppb(view, block, market, terms, index.value_uusd)
        rate = state.premium_ppb // PREMIUM_DIVISOR + INTEREST_PPB
        state.funding_rate_ppb = max(-MAX_RATE_PPB, min(MAX_RATE_PPB, rate))
    state.mark_uusd = mark_uusd
    state.mark_ms = mark_ms
    view.touch(market_key(market), state)
    block.markets.add(market)


def accrue(state: Market, now_ms: int) -> None:
    """Moves the funding index up to now; at most an hour of silence counts, the rest is forgone."""
    if state.mark_ms:
        elapsed = min(now_ms - state.funding_ms, MS_PER_HOUR)
        index = (
            state.funding_index_nusd + state.mark_uusd * state.funding_rate_ppb * elapsed // _INDEX_DIVISOR
        )
        state.funding_index_nusd = max(-_MAX_INDEX_NUSD, min(_MAX_INDEX_NUSD, index))
    state.funding_ms = now_ms


def premium_ppb(view: StateView, block: BlockContext, market: int, terms: Instrument, index_uusd: int) -> int:
    """The impact premium over the index, rounded down; 0 without an index."""
    if index_uusd == 0:
        return 0
    bid = _impact_price(view, block, market, 0, terms.impact_notional_uusd)
    ask = _impact_price(view, block, market, 1, terms.impact_notional_uusd)
    above = max(0, bid - index_uusd) if bid is not None else 0
    below = max(0, index_uusd - ask) if ask is not None else 0
    return (above - below) * PPB // index_uusd


def _impact_price(
    view: StateView, block: BlockContext, market: int, side: int, notional_uusd: int
) -> int | None:
    """Average price in uusd, rounded down, at which `notional_uusd` trades against a side."""
    left = notional_uusd * ULOTS_PER_LOT
    size = 0
    for key, order in view.iterate_under(order_book_prefix(market, side), IMPACT_ORDERS):
        if is_expired(order, block.now_s):
            continue
        price = int.from_bytes(key[6:14], "big")
        if side == 0:
            price = MAX_U64 - price
        worth = price * order.size_ulots
        if worth >= left:
            # The last order fills in part: in millionths of an ulot, rounded up, so the average is down.
            fine = size * _FINE - -left * _FINE // price
            return notional_uusd * ULOTS_PER_LOT * _FINE // fine
        left -= worth
        size += order.size_ulots
    return None
