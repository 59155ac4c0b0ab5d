"""Each kind of action: who may sign it, where it stands in a block, what it checks, what it does.

A check raises Rejected and changes nothing; what it found goes to the application as its plan. The checks see
the account before the fee is taken, and count with the cash that will be left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from state import accounts
from state.accounts import CANCEL_RIGHT, LAST_CLASS, OWNER_RIGHT, TRADE_RIGHT
from state.actions import (
    Action,
    AuthorizeSessionKey,
    Bid,
    BulkOrders,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    CancelQuote,
    CancelTrigger,
    Deleverage,
    EndAuction,
    ExecuteQuote,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    Replacement,
    ReplaceOrder,
    ResetProtection,
    RevokeSessionKey,
    SetProtection,
    StartAuction,
    Transfer,
    Withdraw,
)
from state.block import OperationResult, OrderEnd
from state.blocks import (
    apply_cancel_quote,
    apply_execute,
    check_cancel_quote,
    check_execute,
    check_legs,
)
from state.codec_format import NO_HASH
from state.context import BlockContext
from state.deleverage import apply_deleverage, check_deleverage
from state.errors import RejectCode, Rejected
from state.fees import (
    BASE_UNITS,
    CANCEL_UNITS,
    DATED_UNITS,
    DELEVERAGE_UNITS,
    FILL_OR_KILL_UNITS,
    IMMEDIATE_UNITS,
    LEG_UNITS,
    ORDER_UNITS,
    POST_ONLY_UNITS,
    QUOTE_UNITS,
    REPLACE_UNITS,
    RESTING_LEAVES,
    TERMS_UNITS,
)
from state.keys import instrument_key
from state.leaves import Account, AccountTrigger, Instrument, Progress, RestingOrder, Task, Trigger
from state.liquidation import apply_bid, apply_end, apply_start, check_bid, check_end, check_start
from state.matching import place
from state.operations import (
    ReplacePlan,
    apply_cancel,
    apply_replace,
    check_place,
    check_replace,
    operation_count,
    order_id_of,
)
from state.orders import find_order, instrument_of
from state.protection import apply_reset, apply_set, check_reset, check_set
from state.trigger_book import find_trigger, remove_trigger
from state.triggers import apply_place_trigger, check_place_trigger
from state.units import MAX_BULK_OPERATIONS
from state.view import StateView

ORACLE_CLASS: Final = 0
CANCEL_CLASS: Final = 1
POST_ONLY_CLASS: Final = 2
_LIMIT: Final = OrderKind.LIMIT
_POST_ONLY: Final = OrderKind.POST_ONLY
_FILL_OR_KILL: Final = OrderKind.FILL_OR_KILL
_MAX_U32: Final = 2**32 - 1

Check = Callable[[StateView, BlockContext, Progress, Any, Account, int], Any]
"""(view, block, progress, action, account, fee) -> plan"""
Apply = Callable[[StateView, BlockContext, Progress, Any, Any], None]
"""(view, block, progress, action, plan)"""


class Rule(NamedTuple):
    units: int
    """Execution units in undated markets; 0 for what has parts that count (`use_of`)."""
    right: int
    order_class: int
    check: Check
    apply: Apply
    leaves: int = 0
    """That it may leave behind; of an action whose parts count: beside them."""


def _check_place(
    view: StateView, block: BlockContext, progress: Progress, action: PlaceOrder, account: Account, fee: int
) -> bool:
    order_id = order_id_of(action.nonce, 0)
    cash = account.cash_uusd - fee
    return check_place(view, block, progress, action.account, account, cash, action.order, order_id)


def _apply_place(
    view: StateView, block: BlockContext, progress: Progress, action: PlaceOrder, crossing: bool
) -> None:
    place(view, block, progress, crossing)


def _check_cancel(
    view: StateView, block: BlockContext, progress: Progress, action: CancelOrder, account: Account, fee: int
) -> tuple[bytes, RestingOrder]:
    key, order, _ = find_order(view, action.account, action.cancel.market, action.cancel.order_id)
    return key, order


def _apply_cancel(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    action: CancelOrder,
    plan: tuple[bytes, RestingOrder],
) -> None:
    apply_cancel(view, block, plan[0], plan[1], action.cancel.order_id)


def _check_cancel_all(
    view: StateView, block: BlockContext, progress: Progress, action: CancelAll, account: Account, fee: int
) -> None:
    if action.market:
        instrument_of(view, action.market)


def _apply_cancel_all(
    view: StateView, block: BlockContext, progress: Progress, action: CancelAll, plan: None
) -> None:
    progress.task = Task.SWEEP


def _check_replace(
    view: StateView, block: BlockContext, progress: Progress, action: ReplaceOrder, account: Account, fee: int
) -> tuple[ReplacePlan, bool]:
    cash = account.cash_uusd - fee
    return check_replace(view, block, progress, action.account, account, cash, action.replacement)


def _apply_replace(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    action: ReplaceOrder,
    plan: tuple[ReplacePlan, bool],
) -> None:
    apply_replace(view, block, progress, plan[0], plan[1])


def _check_bulk(
    view: StateView, block: BlockContext, progress: Progress, action: BulkOrders, account: Account, fee: int
) -> None:
    """Its operations are checked one by one, each when its turn comes; but no market in it is unknown.

    What was signed holds their names, and a name ends with its instrument.
    """
    for cancel in action.cancels:
        instrument_of(view, cancel.market)


def _apply_bulk(
    view: StateView, block: BlockContext, progress: Progress, action: BulkOrders, plan: None
) -> None:
    progress.task = progress.parent = Task.OPERATIONS
    progress.operation = 0


def _check_cancel_trigger(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    action: CancelTrigger,
    account: Account,
    fee: int,
) -> tuple[bytes, Trigger, AccountTrigger]:
    return find_trigger(view, action.account, action.cancel.market, action.cancel.order_id)


def _apply_cancel_trigger(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    action: CancelTrigger,
    plan: tuple[bytes, Trigger, AccountTrigger],
) -> None:
    key, trigger, found = plan
    remove_trigger(view, block, key, trigger, found, OrderEnd.CANCELLED)
    size = trigger.size_ulots
    result = OperationResult(0, trigger.order_id, cancelled_ulots=size, end=OrderEnd.CANCELLED)
    block.operations.append(result)


_RULES: dict[type[Any], Rule] = {
    PlaceOrder: Rule(
        BASE_UNITS + ORDER_UNITS, TRADE_RIGHT, LAST_CLASS, _check_place, _apply_place, RESTING_LEAVES
    ),
    CancelOrder: Rule(BASE_UNITS + CANCEL_UNITS, CANCEL_RIGHT, CANCEL_CLASS, _check_cancel, _apply_cancel),
    CancelAll: Rule(BASE_UNITS + 20, CANCEL_RIGHT, CANCEL_CLASS, _check_cancel_all, _apply_cancel_all),
    ReplaceOrder: Rule(BASE_UNITS + REPLACE_UNITS, TRADE_RIGHT, LAST_CLASS, _check_replace, _apply_replace),
    BulkOrders: Rule(0, TRADE_RIGHT, LAST_CLASS, _check_bulk, _apply_bulk),
    Transfer: Rule(
        BASE_UNITS + 6,
        OWNER_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, account, fee: accounts.check_transfer(
            view, block, action, account, fee
        ),
        lambda view, block, _, action, __: accounts.apply_transfer(view, block, action),
    ),
    Withdraw: Rule(
        BASE_UNITS + 10,
        OWNER_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, account, fee: accounts.check_withdraw(
            view, block, action, account, fee
        ),
        lambda view, block, _, action, __: accounts.apply_withdraw(view, block, action),
        leaves=1,
    ),
    AuthorizeSessionKey: Rule(
        BASE_UNITS + 2,
        OWNER_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, account, fee: accounts.check_authorize(view, block, action, account),
        lambda view, block, _, action, __: accounts.apply_authorize(view, action),
        leaves=1,
    ),
    RevokeSessionKey: Rule(
        BASE_UNITS + 1,
        OWNER_RIGHT,
        CANCEL_CLASS,
        lambda view, block, _, action, account, fee: accounts.check_revoke(view, action.account, action.key),
        lambda view, block, _, action, __: accounts.apply_revoke(view, action.account, action.key),
    ),
    CancelAllAfter: Rule(
        BASE_UNITS + 2,
        CANCEL_RIGHT,
        CANCEL_CLASS,
        lambda view, block, _, action, account, fee: accounts.check_switch(action.timeout_s),
        lambda view, block, _, action, __: accounts.apply_switch(view, block, action),
        leaves=1,
    ),
    ExecuteQuote: Rule(
        0,
        TRADE_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, account, fee: check_execute(view, block, action, account, fee),
        apply_execute,
        leaves=1,
    ),
    CancelQuote: Rule(
        BASE_UNITS + CANCEL_UNITS,
        CANCEL_RIGHT,
        CANCEL_CLASS,
        lambda view, block, _, action, __, ___: check_cancel_quote(view, block, action),
        lambda view, block, _, action, __: apply_cancel_quote(view, block, action),
    ),
    SetProtection: Rule(
        BASE_UNITS + 4,
        TRADE_RIGHT,
        LAST_CLASS,
        lambda view, _, __, action, ___, ____: check_set(view, action),
        lambda view, block, _, action, __: apply_set(view, block, action),
        leaves=2,
    ),
    ResetProtection: Rule(
        BASE_UNITS + 1,
        TRADE_RIGHT,
        LAST_CLASS,
        lambda view, _, __, action, ___, ____: check_reset(view, action),
        lambda view, block, _, action, __: apply_reset(view, block, action),
    ),
    PlaceTrigger: Rule(
        BASE_UNITS + 2 * ORDER_UNITS,
        TRADE_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, account, __: check_place_trigger(view, block, action, account),
        lambda view, block, _, action, __: apply_place_trigger(view, block, action),
        leaves=3,
    ),
    CancelTrigger: Rule(
        BASE_UNITS + CANCEL_UNITS, CANCEL_RIGHT, CANCEL_CLASS, _check_cancel_trigger, _apply_cancel_trigger
    ),
    StartAuction: Rule(
        BASE_UNITS + 80,
        TRADE_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, __, fee: check_start(view, block, action, fee),
        apply_start,
        leaves=1,
    ),
    Bid: Rule(
        BASE_UNITS + 800,
        TRADE_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, account, fee: check_bid(view, block, action, account, fee),
        apply_bid,
    ),
    EndAuction: Rule(
        BASE_UNITS + 100,
        TRADE_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, __, fee: check_end(view, block, action, fee),
        lambda view, block, _, action, __: apply_end(view, block, action),
    ),
    Deleverage: Rule(
        0,
        TRADE_RIGHT,
        LAST_CLASS,
        lambda view, block, _, action, __, fee: check_deleverage(view, block, action, fee),
        lambda view, block, progress, action, __: apply_deleverage(view, block, progress, action),
    ),
}
_PLACE_RULE: Final = _RULES[PlaceOrder]
_POST_ONLY_RULE: Final = _PLACE_RULE._replace(units=BASE_UNITS + POST_ONLY_UNITS, order_class=POST_ONLY_CLASS)
_IMMEDIATE_RULE: Final = _PLACE_RULE._replace(units=BASE_UNITS + IMMEDIATE_UNITS, leaves=0)
_FILL_OR_KILL_RULE: Final = _IMMEDIATE_RULE._replace(units=BASE_UNITS + FILL_OR_KILL_UNITS)
_BULK_CANCEL_RULE: Final = _RULES[BulkOrders]._replace(right=CANCEL_RIGHT, order_class=CANCEL_CLASS)
_BULK_POST_ONLY_RULE: Final = _RULES[BulkOrders]._replace(order_class=POST_ONLY_CLASS)


def rule_of(action: Action) -> Rule:
    """The rule of an action; its ordering class depends on what it contains."""
    if isinstance(action, PlaceOrder):
        kind = action.order.kind
        if kind is _LIMIT:
            return _PLACE_RULE
        if kind is _POST_ONLY:
            return _POST_ONLY_RULE
        return _FILL_OR_KILL_RULE if kind is _FILL_OR_KILL else _IMMEDIATE_RULE
    if isinstance(action, BulkOrders) and not action.replacements:
        if not action.orders:
            return _BULK_CANCEL_RULE
        if all(order.kind is _POST_ONLY for order in action.orders):
            return _BULK_POST_ONLY_RULE
    return _RULES[type(action)]


def use_of(view: StateView, action: Action, rule: Rule) -> tuple[int, int]:
    """(execution units, leaves that it may leave behind) of an action with its rule."""
    units = rule.units
    if units == 0:
        return _use_of_many(view, action, rule)
    if type(action) is PlaceOrder or type(action) is PlaceTrigger:
        if _is_dated(view, action.order.market):
            units += DATED_UNITS
    elif type(action) is ReplaceOrder and _is_dated(view, action.replacement.market):
        units += DATED_UNITS
    return units, rule.leaves


def _is_dated(view: StateView, market: int) -> bool:
    """Never changes of a market. False of one that is not known: the action will be refused."""
    terms: Instrument | None = view.get(instrument_key(market)) if 0 < market <= _MAX_U32 else None
    return terms is not None and terms.expiry != 0


def _use_of_many(view: StateView, action: Action, rule: Rule) -> tuple[int, int]:
    """Of an action of many parts."""
    if isinstance(action, ExecuteQuote):
        legs = action.quote.legs
        kept = int(action.quote.terms_hash != NO_HASH)
        # Margin is looked at once for all legs.
        dated = int(any(_is_dated(view, leg.market) for leg in legs))
        units = BASE_UNITS + QUOTE_UNITS + LEG_UNITS * len(legs) + TERMS_UNITS * kept + DATED_UNITS * dated
        return units, rule.leaves + kept
    if isinstance(action, Deleverage):
        return BASE_UNITS + DELEVERAGE_UNITS * (1 + len(action.counterparties)), rule.leaves
    assert isinstance(action, BulkOrders)
    units = BASE_UNITS + CANCEL_UNITS * len(action.cancels) + REPLACE_UNITS * len(action.replacements)
    rest = 0
    order: Order
    for order in action.orders:
        kind = order.kind
        if kind is _POST_ONLY:
            rest += 1
            units += POST_ONLY_UNITS
        elif kind is _LIMIT:
            rest += 1
            units += ORDER_UNITS
        else:
            units += FILL_OR_KILL_UNITS if kind is _FILL_OR_KILL else IMMEDIATE_UNITS
        if _is_dated(view, order.market):
            units += DATED_UNITS
    for each in action.replacements:
        if _is_dated(view, each.market):
            units += DATED_UNITS
    return units, RESTING_LEAVES * rest


def check_count(action: BulkOrders) -> None:
    """Raises Rejected unless it has between 1 and 64 operations."""
    count = operation_count(action)
    if count == 0:
        raise Rejected(RejectCode.EMPTY_ACTION)
    if count > MAX_BULK_OPERATIONS:
        raise Rejected(RejectCode.TOO_MANY_OPERATIONS, limit=MAX_BULK_OPERATIONS, got=count)


def priced_of(action: Action) -> Sequence[Order | Replacement]:
    """What in an action has a price in ticks and a size in lots, so needs its market in the batch's table."""
    if isinstance(action, PlaceOrder | PlaceTrigger):
        return (action.order,)
    if isinstance(action, ExecuteQuote):
        check_legs(action.quote)
    if isinstance(action, ReplaceOrder):
        return (action.replacement,)
    if isinstance(action, BulkOrders):
        check_count(action)
        return (*action.replacements, *action.orders)
    return ()
