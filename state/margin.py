"""What an account must hold against its positions and open orders: the portfolio margin on the state.

The one door to margin: everything that asks whether an account can carry something asks `requirement`, with
the hypothetical changes in as many markets as it has, or one of the rules below that are made of it. The
formulas are PROTOCOL.md's, sections 8.4 and 12; `margin_parts` reads the leaves, `portfolio` computes.

Sizes and prices come from the leaves as they are: the last marks, the last pricing snapshots. Whether these
are fresh is asked where risk may rise. What is remembered in memory (`expiry_books`) decides nothing.

- iMARGIN_022 With open orders counted, initial margin is no higher than after any fills of them at the marks.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.keys import PARAMETERS_KEY, account_key
from state.leaves import Account, Feed, Parameters
from state.margin_parts import (
    EXACTLY,
    NO_CHANGES,
    Change,
    Changes,
    Measure,
    Part,
    measure,
    parts_of,
    perpetual_measure,
)
from state.pricing import STABLE_KEY, check_fresh, demand_feed
from state.view import StateView

__all__ = [
    "MARGIN_CHECKS",
    "NO_CHANGES",
    "Change",
    "Changes",
    "Count",
    "HeldMargin",
    "Margin",
    "carries",
    "demand_fresh",
    "demand_placeable",
    "held_margin",
    "margin",
    "margin_with_cash",
    "requirement",
    "withdrawable_uusd",
]
_NEVER_MS: Final = 0
"""A time at which everything is fresh."""


class Count:
    """How often something was done in this process: to be told, it decides nothing."""

    def __init__(self) -> None:
        self.number: int = 0


MARGIN_CHECKS: Final = Count()
"""Margin requirements computed."""


class Margin(NamedTuple):
    """What an account has and needs, in uusd."""

    equity_uusd: int
    initial_uusd: int
    """With its open orders."""
    maintenance_uusd: int
    """Of its positions alone."""
    available_uusd: int
    """equity - initial; may be negative."""
    withdrawable_uusd: int
    """What may leave: at most cash, at most available, never below 0."""


class HeldMargin(NamedTuple):
    """Of an account's positions, as if it had no open orders, in uusd."""

    equity_uusd: int
    initial_uusd: int
    maintenance_uusd: int


def requirement(view: StateView, account: int, cash_uusd: int, changes: Changes) -> tuple[int, int]:
    """(equity, initial requirement) of `account` if it had this cash and these changes, its open orders
    counted as filled where that is worse."""
    found = _measure(view, account, changes, True, EXACTLY)
    return cash_uusd + found.equity_uusd, found.initial_uusd


def held_margin(view: StateView, account: int, cash_uusd: int, changes: Changes) -> HeldMargin:
    """Of `account` if it had this cash, these changes, and no open orders."""
    found = _measure(view, account, changes, False, EXACTLY)
    return HeldMargin(cash_uusd + found.equity_uusd, found.initial_uusd, found.maintenance_uusd)


def _measure(view: StateView, account: int, changes: Changes, with_orders: bool, cash_uusd: int) -> Measure:
    """As `perpetual_measure` where `cash_uusd` is concerned."""
    MARGIN_CHECKS.number += 1
    found = perpetual_measure(view, account, changes, with_orders, _NEVER_MS, cash_uusd)
    if found is not None:
        return found
    settling, parts = parts_of(view, account, changes, with_orders)
    return measure(view, parts, settling, with_orders)


def _fresh_measure(
    view: StateView, block: BlockContext, account: int, changes: Changes, cash_uusd: int
) -> Measure:
    """`_measure` with open orders. Raises Rejected unless all feeds are fresh that it rests on."""
    MARGIN_CHECKS.number += 1
    found = perpetual_measure(view, account, changes, True, block.timestamp_ms, cash_uusd)
    if found is not None and found.fresh:
        return found
    settling, parts = parts_of(view, account, changes, True)
    _demand_fresh(view, block, parts)
    return measure(view, parts, settling, True) if found is None else found


# Rules


def demand_placeable(
    view: StateView,
    block: BlockContext,
    account: int,
    cash_uusd: int,
    market: int,
    change: Change,
    delta: int,
    raises: bool,
) -> None:
    """iMARGIN_001. Whether an order for `delta` ulots may rest or match, so that `change` is what the account
    has in its market; raises Rejected.

    The account has initial margin then; or the order only reduces risk: with all of it filled, what the
    positions alone require initially is no more than now. If it raises (`raises`) what the market may come
    to, all feeds that the margin rests on must be fresh.
    """
    changes = {market: change}
    if raises:
        found = _fresh_measure(view, block, account, changes, cash_uusd)
    else:
        found = _measure(view, account, changes, True, cash_uusd)
    equity, initial = cash_uusd + found.equity_uusd, found.initial_uusd
    if equity >= initial:
        return
    now = held_margin(view, account, cash_uusd, NO_CHANGES)
    filled = held_margin(view, account, cash_uusd, {market: (change[0] + delta, change[1], 0, 0)})
    if filled.initial_uusd > now.initial_uusd:
        raise Rejected(RejectCode.INSUFFICIENT_MARGIN, needed_uusd=initial, available_uusd=equity)


def carries(view: StateView, account: int, cash_uusd: int, changes: Changes, cash_now_uusd: int) -> bool:
    """iMARGIN_003, iMARGIN_004. Whether the account may come to have this cash and these changes by trading.

    It has initial margin then; or what its positions alone require initially is no more than now, and they
    leave maintenance margin, or no less above it than now.
    """
    found = _measure(view, account, changes, True, cash_uusd)
    if cash_uusd + found.equity_uusd >= found.initial_uusd:
        return True
    now = held_margin(view, account, cash_now_uusd, NO_CHANGES)
    then = held_margin(view, account, cash_uusd, changes)
    if then.initial_uusd > now.initial_uusd:
        return False
    above = then.equity_uusd - then.maintenance_uusd
    return above >= 0 or above >= now.equity_uusd - now.maintenance_uusd


def withdrawable_uusd(view: StateView, block: BlockContext, account: int, cash_uusd: int) -> int:
    """What may leave an account of this cash: at most cash, at most what is above initial margin.

    Raises Rejected when that rests on a feed that is not fresh.
    """
    found = _fresh_measure(view, block, account, NO_CHANGES, EXACTLY)
    return max(0, min(cash_uusd, cash_uusd + found.equity_uusd - found.initial_uusd))


def demand_fresh(view: StateView, block: BlockContext, account: int, changes: Changes) -> None:
    """Raises Rejected unless all feeds are fresh that the account's margin with these changes rests on."""
    _demand_fresh(view, block, parts_of(view, account, changes, True)[1])


def _demand_fresh(view: StateView, block: BlockContext, parts: list[Part]) -> None:
    """Raises Rejected, with the feed's code, unless all feeds of what is held or may come are fresh."""
    now_ms = block.timestamp_ms
    parameters: Parameters = view.get(PARAMETERS_KEY)
    stable: Feed | None = view.get(STABLE_KEY)
    if parts and stable is not None and stable.version:
        demand_feed(stable, parameters, now_ms, RejectCode.STABLE_STALE)
    for part in parts:
        if part.perpetuals or part.dated:
            demand_feed(part.index, parameters, now_ms, RejectCode.ORACLE_STALE)
        for each in part.perpetuals:
            demand_feed(each[0], parameters, now_ms, RejectCode.ORACLE_STALE)
        for dated in part.dated.values():
            check_fresh(view, block, dated.terms)


# As it stands


def margin(view: StateView, account: int) -> Margin | None:
    """The account as it stands, at the last known marks; None when there is no such account."""
    leaf: Account | None = view.get(account_key(account))
    return None if leaf is None else margin_with_cash(view, account, leaf.cash_uusd)


def margin_with_cash(view: StateView, account: int, cash_uusd: int) -> Margin:
    """`margin` if the account had this cash."""
    equity, initial = requirement(view, account, cash_uusd, NO_CHANGES)
    maintenance = held_margin(view, account, cash_uusd, NO_CHANGES).maintenance_uusd
    available = equity - initial
    withdrawable = max(0, min(cash_uusd, available))
    return Margin(equity, initial, maintenance, available, withdrawable)
