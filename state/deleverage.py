"""Auto-deleveraging: what no bid and no insurance pays for, those on the other side who profit give up.

The last resort for an insolvent account, when the insurance fund cannot fill its hole, or its auction's ramp
is over. The fund pays first, as far as it has means. What is still missing, the hole H, is spread over the
account's positions by what they are worth: with W the sum of |size| * mark, each is closed at its bankruptcy
price, mark * (1 + H / W) where the account is long and mark * (1 - H / W) where it is short, so that with the
last of them equity is 0. The rest of the positions has the same bankruptcy prices after each closing.

Whoever sends the action picks the counterparties; the rules decide for each of them (iLIQ_006): it has the
opposite position, in profit at the mark, and its margin ratio, equity to maintenance requirement, is no worse
after closing than before. One that does not fit is passed over with a code. A counterparty is one step.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from state.actions import Deleverage
from state.block import LiquidationChange, OperationResult
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.keys import SYSTEM_KEY, account_key, market_key, position_key
from state.leaves import Account, Auction, AuctionKind, Market, Position, Progress, System, Task
from state.liquidation import auction_of, liquidated_of, turn
from state.margin import NO_CHANGES
from state.orders import instrument_of
from state.positions import funding_owed, notional_of
from state.seizure import (
    Party,
    check_markets,
    draw,
    finish,
    health,
    holdings,
    is_within_cash,
    mark_uusd,
    move,
    parameters_of,
    standing,
)
from state.units import ULOTS_PER_LOT
from state.view import StateView

MAX_COUNTERPARTIES: Final = 16
_DELEVERAGED: Final = LiquidationChange.DELEVERAGED


class Closing(NamedTuple):
    """What one counterparty would do."""

    own: Party
    other: Party
    delta_ulots: int
    """Change of the liquidated account's position."""
    notional_uusd: int


def check_deleverage(view: StateView, block: BlockContext, action: Deleverage, fee: int) -> None:
    number = action.liquidated
    if not action.counterparties:
        raise Rejected(RejectCode.EMPTY_ACTION)
    if len(action.counterparties) > MAX_COUNTERPARTIES:
        raise Rejected(
            RejectCode.TOO_MANY_OPERATIONS, limit=MAX_COUNTERPARTIES, got=len(action.counterparties)
        )
    instrument_of(view, action.market)
    cash = liquidated_of(view, number, action.account, fee)
    auction = auction_of(view, number)
    if _size_of(view, number, action.market) == 0:
        raise Rejected(RejectCode.DELEVERAGE_NO_POSITION, market=action.market)
    check_markets(view, block, number)
    equity = health(view, number, cash).equity_uusd
    if not is_last_resort(view, auction, equity, block.timestamp_ms):
        system: System = view.get(SYSTEM_KEY)
        raise Rejected(RejectCode.DELEVERAGE_EARLY, hole_uusd=-equity, insurance_uusd=system.insurance_uusd)


def is_last_resort(view: StateView, auction: Auction, equity_uusd: int, now_ms: int) -> bool:
    """Whether the account has no equity, and the fund has less than that, or the ramp is over."""
    system: System = view.get(SYSTEM_KEY)
    elapsed_ms = now_ms - auction.started_ms if auction.kind == AuctionKind.INSOLVENT else 0
    is_over = elapsed_ms >= parameters_of(view).insolvent_ms
    return equity_uusd <= 0 and (is_over or system.insurance_uusd < -equity_uusd)


def apply_deleverage(view: StateView, block: BlockContext, progress: Progress, action: Deleverage) -> None:
    """The insurance fund pays; the counterparties follow."""
    number = action.liquidated
    auction = turn(view, block, number, AuctionKind.INSOLVENT)
    draw(view, block, auction, number, _hole(view, number))
    progress.task = Task.DELEVERAGE
    progress.operation = 0


def deleverage_step(view: StateView, block: BlockContext, progress: Progress, action: Deleverage) -> None:
    """Closes against the next counterparty, or ends."""
    number, place = action.liquidated, progress.operation
    if place < len(action.counterparties) and _size_of(view, number, action.market):
        progress.operation = place + 1
        try:
            closing = closing_of(view, number, action.market, action.counterparties[place])
        except Rejected as refusal:
            block.operations.append(OperationResult(refusal.code, data=refusal.data))
            return
        auction: Auction = auction_of(view, number)
        own, other, delta, notional = closing
        move(view, block, _DELEVERAGED, auction, own, other, delta, notional)
        block.operations.append(OperationResult(filled_ulots=abs(delta)))
        return
    finish(view, block, progress, number)


def _hole(view: StateView, number: int) -> int:
    account: Account = view.get(account_key(number))
    return max(0, -health(view, number, account.cash_uusd).equity_uusd)


def _size_of(view: StateView, number: int, market: int) -> int:
    position: Position | None = view.get(position_key(number, market))
    return 0 if position is None else position.size_ulots


def closing_of(view: StateView, number: int, market: int, counterparty: int) -> Closing:
    """What closing against this account would do. Raises Rejected."""
    other_account: Account | None = view.get(account_key(counterparty))
    if other_account is None:
        raise Rejected(RejectCode.UNKNOWN_ACCOUNT, account=counterparty)
    size, opposite = _size_of(view, number, market), _size_of(view, counterparty, market)
    if size * opposite >= 0:
        raise Rejected(RejectCode.DELEVERAGE_NOT_OPPOSITE, account=counterparty, position_ulots=opposite)
    state: Market = view.get(market_key(market))
    index, mark = state.funding_index_nusd, mark_uusd(view, market)
    closed = min(abs(size), abs(opposite))
    delta = -closed if size > 0 else closed
    notional = _bankruptcy_notional(view, number, size > 0, notional_of(mark, closed))
    own, other = Party(view, number, market), Party(view, counterparty, market)
    position = other.position
    assert position is not None
    profit = position.quote_uusd + opposite * mark // ULOTS_PER_LOT
    profit -= funding_owed(opposite, position.funding_index_nusd, index)
    if profit <= 0:
        raise Rejected(RejectCode.DELEVERAGE_NO_PROFIT, account=counterparty, profit_uusd=profit)
    own.trade(index, delta, notional)
    other.trade(index, -delta, notional)
    account: Account = view.get(account_key(number))
    cash = other_account.cash_uusd
    if not is_within_cash(account.cash_uusd + own.cash_change, cash + other.cash_change):
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, account=counterparty)
    _check_no_worse(view, counterparty, market, cash, other)
    return Closing(own, other, delta, notional)


def _bankruptcy_notional(view: StateView, number: int, is_long: bool, worth: int) -> int:
    """For how much positions worth so much are closed; the hole's part is rounded up, and what is owed for
    an option is not below 0."""
    total = sum(notional_of(holding.mark_uusd, abs(holding.size_ulots)) for holding in holdings(view, number))
    hole = _hole(view, number)
    part = min(hole, -(-worth * hole // total)) if total else 0
    return worth + part if is_long else max(0, worth - part)


def _check_no_worse(view: StateView, number: int, market: int, cash: int, after: Party) -> None:
    """iLIQ_006: equity to requirement, compared without dividing."""
    equity, left = standing(view, number, cash, NO_CHANGES)
    changes = {market: after.change}
    equity_after, left_after = standing(view, number, cash + after.cash_change, changes)
    if equity_after * (equity - left) < equity * (equity_after - left_after):
        raise Rejected(
            RejectCode.DELEVERAGE_WORSE, account=number, equity_uusd=equity, equity_after_uusd=equity_after
        )
