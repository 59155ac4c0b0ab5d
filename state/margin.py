"""What an account must hold against its positions and open orders: the interim, per-instrument rule.

The one door to margin: everything that asks whether an account can carry something asks `requirement`,
and `maintenance` where initial margin is missing. The portfolio margin that is to come replaces their inside.

    equity      = cash + sum over markets (quote + floor(size * mark) - funding owed)
    exposure    = max(size + open buys, open sells - size)      per market: the largest |size| orders can make
    initial     = sum over markets ceil(exposure * mark * initial rate)
    maintenance = sum over markets ceil(|size| * mark * maintenance rate)

The rates are of the mark; of a dated instrument, of the higher of its mark and its expiry's expected
settlement price, and its mark is as old as its expiry's pricing.

Reduce-only orders can add no exposure and are not among the open buys and sells.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from state.keys import account_key, instrument_key, market_key, position_key, positions_prefix
from state.leaves import Account, Instrument, Market, Position
from state.positions import NUSD_ULOTS_PER_UUSD
from state.pricing import mark_of, pricing_of, settlement_uusd
from state.units import MAX_POSITIONS, ULOTS_PER_LOT
from state.view import StateView

_RATE_DIVISOR: Final = 10**12
"""ulots * uusd per lot * ppm / this = uusd."""
NEVER_MS: Final = 2**63
"""Report time of the oldest of no marks."""


class Margin(NamedTuple):
    """What an account has and needs, in uusd."""

    equity_uusd: int
    initial_uusd: int
    maintenance_uusd: int
    available_uusd: int
    """equity - initial; may be negative."""
    withdrawable_uusd: int
    """What may leave: at most cash, at most available, never below 0."""
    oldest_mark_ms: int
    """Report time of the oldest mark that this rests on; 2^63 when on none."""


def requirement(
    view: StateView,
    account: int,
    cash_uusd: int,
    market: int = 0,
    size: int = 0,
    quote: int = 0,
    open_buy: int = 0,
    open_sell: int = 0,
) -> tuple[int, int, int]:
    """(equity, initial, oldest mark) of `account` if it had this cash and this in `market`.

    `market` 0 changes nothing: the account as it stands, but for its cash. `quote` has funding settled.
    """
    get = view.get
    own = position_key(account, market)
    equity = cash_uusd
    initial = 0
    oldest = NEVER_MS
    terms: Instrument
    state: Market
    leaf: Position
    for key, leaf in view.iterate_under(positions_prefix(account), MAX_POSITIONS):
        if key == own:
            continue
        terms_key, state_key = _keys_of(key[9:13])
        state = get(state_key)
        terms = get(terms_key)
        mark, base, mark_ms = _marks(view, state, terms)
        held = leaf.size_ulots
        if held:
            equity += leaf.quote_uusd + held * mark // ULOTS_PER_LOT
            if leaf.funding_index_nusd != state.funding_index_nusd:
                change = leaf.funding_index_nusd - state.funding_index_nusd
                equity += held * change // NUSD_ULOTS_PER_UUSD
        exposure = held + leaf.open_buy_ulots
        down = leaf.open_sell_ulots - held
        if down > exposure:
            exposure = down
        if exposure:
            initial -= -exposure * base * terms.initial_margin_ppm // _RATE_DIVISOR
            if mark_ms < oldest:
                oldest = mark_ms
    if market:
        terms = get(instrument_key(market))
        state = get(market_key(market))
        mark, base, mark_ms = _marks(view, state, terms)
        equity += quote + size * mark // ULOTS_PER_LOT
        exposure = size + open_buy
        down = open_sell - size
        if down > exposure:
            exposure = down
        if exposure:
            initial -= -exposure * base * terms.initial_margin_ppm // _RATE_DIVISOR
            if mark_ms < oldest:
                oldest = mark_ms
    return equity, initial, oldest


def maintenance(view: StateView, account: int, market: int = 0, size: int = 0) -> int:
    """Maintenance margin of `account` if it had this size in `market` (0 changes nothing)."""
    own = market.to_bytes(4, "big")
    total = 0
    for key, position in view.iterate_under(positions_prefix(account), MAX_POSITIONS):
        if key[9:13] != own:
            leaf: Position = position
            total += _maintenance(view, int.from_bytes(key[9:13], "big"), leaf.size_ulots)
    return total + _maintenance(view, market, size) if market else total


def _maintenance(view: StateView, market: int, size: int) -> int:
    terms: Instrument = view.get(instrument_key(market))
    state: Market = view.get(market_key(market))
    _, base, _ = _marks(view, state, terms)
    return -(-abs(size) * base * terms.maintenance_margin_ppm // _RATE_DIVISOR)


def _marks(view: StateView, state: Market, terms: Instrument) -> tuple[int, int, int]:
    """(mark, what margin rates are of, when the mark was reported)."""
    if terms.expiry == 0:
        return state.mark_uusd, state.mark_uusd, state.mark_ms
    pricing = pricing_of(view, terms.expiry)
    mark = mark_of(view, state, terms)
    if pricing is None or mark is None:
        return 0, 0, 0
    return mark, max(mark, settlement_uusd(pricing)), pricing.priced_ms


@lru_cache(4_096)
def _keys_of(number: bytes) -> tuple[bytes, bytes]:
    """Keys of the instrument and market whose number stands in a position's key."""
    market = int.from_bytes(number, "big")
    return instrument_key(market), market_key(market)


def margin(view: StateView, account: int) -> Margin | None:
    """The account as it stands, at the last known marks; None when there is no such account."""
    leaf: Account | None = view.get(account_key(account))
    return None if leaf is None else margin_with_cash(view, account, leaf.cash_uusd)


def margin_with_cash(view: StateView, account: int, cash_uusd: int) -> Margin:
    """`margin` if the account had this cash."""
    equity, initial, oldest = requirement(view, account, cash_uusd)
    available = equity - initial
    withdrawable = max(0, min(cash_uusd, available))
    return Margin(equity, initial, maintenance(view, account), available, withdrawable, oldest)
