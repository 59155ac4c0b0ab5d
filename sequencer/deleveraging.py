"""Whom a keeper picks when it closes an insolvent account's positions against others.

The rules leave the choice to whoever sends the action and check it (PROTOCOL 8.12). This is the usual order
of exchanges: those who profit most for what they have put in come first. Only accounts that the rules would
take now are picked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from state import keys
from state.deleverage import MAX_COUNTERPARTIES, closing_of
from state.errors import Rejected
from state.leaves import Account, Position
from state.seizure import health, holdings
from state.units import PPM, ULOTS_PER_LOT
from state.view import StateView

MAX_CANDIDATES = 256
"""Looked at for one position."""


class Pick(NamedTuple):
    """A market, and the accounts against which the position there is closed, in order."""

    market: int
    counterparties: tuple[int, ...]


def pick(view: StateView, account: int, holders: Callable[[int], Iterable[int]]) -> Pick | None:
    """For the account's largest position that can be closed; None when none can. `holders` of a market."""
    held = sorted(
        holdings(view, account), key=lambda each: abs(each.size_ulots) * each.mark_uusd, reverse=True
    )
    for holding in held:
        ranked: list[tuple[int, int]] = []
        looked = 0
        for other in holders(holding.market):
            position: Position | None = view.get(keys.position_key(other, holding.market))
            if position is None or position.size_ulots * holding.size_ulots >= 0:
                continue
            looked += 1
            if looked > MAX_CANDIDATES:
                break
            try:
                closing_of(view, account, holding.market, other)
            except Rejected:
                continue
            profit = position.quote_uusd + position.size_ulots * holding.mark_uusd // ULOTS_PER_LOT
            leaf: Account = view.get(keys.account_key(other))
            equity = max(health(view, other, leaf.cash_uusd).equity_uusd, 1)
            ranked.append((-profit * PPM // equity, other))
        if ranked:
            chosen = [other for _, other in sorted(ranked)[:MAX_COUNTERPARTIES]]
            return Pick(holding.market, tuple(chosen))
    return None
