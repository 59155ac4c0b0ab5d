"""What an account must hold against its positions and open orders: the interim, per-instrument rule.

The one door to margin: everything that asks whether an account can carry something asks `requirement`. The
portfolio margin that is to come replaces the inside of it.

    equity      = cash + sum over markets (quote + floor(size * mark) - funding owed)
    exposure    = max(size + open buys, open sells - size)      per market: the largest |size| orders can make
    initial     = sum over markets ceil(exposure * mark * initial rate)
    maintenance = sum over markets ceil(|size| * mark * maintenance rate)

Reduce-only orders can add no exposure and are not among the open buys and sells.
"""

from __future__ import annotations

from typing import NamedTuple

from state.keys import INSTRUMENT, MARKET, account_key, positions_prefix
from state.leaves import Account, Instrument, Market, Position
from state.positions import NUSD_ULOTS_PER_UUSD
from state.units import MAX_POSITIONS, ULOTS_PER_LOT
from state.view import StateView

_RATE_DIVISOR = 10**12
"""ulots * uusd per lot * ppm / this = uusd."""
_INSTRUMENT = bytes((INSTRUMENT,))
_MARKET = bytes((MARKET,))
_PADDING = bytes(27)
_NEVER_MS = 2**63


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
) -> tuple[int, int, int, int]:
    """(equity, initial, maintenance, oldest mark) of `account` if it had this cash and this in `market`.

    `market` 0 changes nothing: the account as it stands, but for its cash. `quote` has funding settled.
    """
    get = view.get
    own = market.to_bytes(4, "big")
    equity = cash_uusd
    initial = maintenance = 0
    oldest = _NEVER_MS
    for key, position in view.iterate_under(positions_prefix(account), MAX_POSITIONS):
        number = key[9:13]
        if number == own:
            continue
        leaf: Position = position
        terms: Instrument = get(_INSTRUMENT + number + _PADDING)
        state: Market = get(_MARKET + number + _PADDING)
        mark = state.mark_uusd
        held = leaf.size_ulots
        if held:
            owed = held * (leaf.funding_index_nusd - state.funding_index_nusd) // NUSD_ULOTS_PER_UUSD
            equity += leaf.quote_uusd + held * mark // ULOTS_PER_LOT + owed
            maintenance -= -abs(held) * mark * terms.maintenance_margin_ppm // _RATE_DIVISOR
        up = held + leaf.open_buy_ulots
        down = leaf.open_sell_ulots - held
        exposure = up if up > down else down
        if exposure:
            initial -= -exposure * mark * terms.initial_margin_ppm // _RATE_DIVISOR
            if state.mark_ms < oldest:
                oldest = state.mark_ms
    if market:
        terms = get(_INSTRUMENT + own + _PADDING)
        state = get(_MARKET + own + _PADDING)
        mark = state.mark_uusd
        equity += quote + size * mark // ULOTS_PER_LOT
        maintenance -= -abs(size) * mark * terms.maintenance_margin_ppm // _RATE_DIVISOR
        exposure = max(size + open_buy, open_sell - size)
        if exposure:
            initial -= -exposure * mark * terms.initial_margin_ppm // _RATE_DIVISOR
            oldest = min(oldest, state.mark_ms)
    return equity, initial, maintenance, oldest


def margin(view: StateView, account: int) -> Margin | None:
    """The account as it stands, at the last known marks; None when there is no such account."""
    leaf: Account | None = view.get(account_key(account))
    return None if leaf is None else margin_with_cash(view, account, leaf.cash_uusd)


def margin_with_cash(view: StateView, account: int, cash_uusd: int) -> Margin:
    """`margin` if the account had this cash."""
    equity, initial, maintenance, oldest = requirement(view, account, cash_uusd)
    available = equity - initial
    return Margin(equity, initial, maintenance, available, max(0, min(cash_uusd, available)), oldest)
