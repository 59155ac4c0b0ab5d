"""Where Position leaves come and go, so that what is counted and indexed beside them stays right.

- iEXPIRY_001 `Account.positions` counts the account's Position leaves, and a MARKET_POSITION entry stands for
  each of them in a dated instrument, and no other: settlement finds every holder.
"""

from __future__ import annotations

from state.keys import instrument_key, market_position_key, position_key
from state.leaves import Account, Instrument, Marker, Position
from state.view import StateView


def open_position(view: StateView, account: Account, number: int, market: int) -> Position:
    """A new, empty position. `account` is account `number`; the caller touches it."""
    position = Position(0, 0, 0, 0, 0, 0)
    view.put(position_key(number, market), position)
    account.positions += 1
    if _is_dated(view, market):
        view.put(market_position_key(market, number), Marker(1))
    return position


def close_position(view: StateView, account: Account, number: int, market: int) -> None:
    """Removes a position, whatever is in it. `account` is account `number`; the caller touches it."""
    view.delete(position_key(number, market))
    account.positions -= 1
    if _is_dated(view, market):
        view.delete(market_position_key(market, number))


def _is_dated(view: StateView, market: int) -> bool:
    terms: Instrument = view.get(instrument_key(market))
    return terms.expiry != 0
