"""What actions do to orders: place, cancel, replace, many of these at once, and all cancelled.

Each operation is a check that raises Rejected and changes nothing, and an application that cannot fail. A
single action's check stands before its envelope is committed; in a bulk action the envelope is committed
first, and every operation has a result of its own.
"""

from __future__ import annotations

from typing import Final

from state.accounts import sweep
from state.actions import BulkOrders, Cancel, CancelAll, Order, OrderKind, Replacement
from state.block import OperationResult, OrderEnd
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.keys import account_key
from state.leaves import Account, Progress, RestingOrder, Task
from state.matching import fills_completely, place, shrink
from state.orders import check_order, find_order, remove
from state.units import OPERATION_BITS
from state.view import StateView

_FILL_OR_KILL: Final = int(OrderKind.FILL_OR_KILL)
_LIMIT: Final = int(OrderKind.LIMIT)
_POST_ONLY: Final = int(OrderKind.POST_ONLY)

ReplacePlan = tuple[bytes, RestingOrder, int, bool]
"""Key of the old order, itself, its new open size, whether it is placed anew; see `check_replace`."""


def order_id_of(nonce: int, place_in_action: int) -> int:
    """Known to the signer before sending."""
    return nonce << OPERATION_BITS | place_in_action


def check_place(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    number: int,
    account: Account,
    cash_uusd: int,
    order: Order,
    order_id: int,
) -> bool:
    """Loads the registers with an order; whether it crosses. Raises Rejected."""
    taker = progress.taker
    taker.account = number
    taker.order_id = order_id
    taker.market = order.market
    taker.side = order.side
    taker.kind = order.kind
    taker.price_uusd = order.price_uusd
    taker.size_ulots = order.size_ulots
    taker.prior_ulots = 0
    taker.reduce_only = order.reduce_only
    taker.expiry_s = order.expiry_s if taker.kind <= _POST_ONLY else 0
    taker.self_trade = order.self_trade
    crossing = check_order(view, block, taker, account, cash_uusd)
    if taker.kind == _FILL_OR_KILL and not (crossing and fills_completely(view, block, taker, cash_uusd)):
        raise Rejected(RejectCode.FILL_OR_KILL_UNFILLED)
    return crossing


def apply_cancel(
    view: StateView, block: BlockContext, key: bytes, order: RestingOrder, order_id: int
) -> None:
    size = order.size_ulots
    remove(view, block, key, order, OrderEnd.CANCELLED)
    block.operations.append(OperationResult(0, order_id, 0, 0, size, OrderEnd.CANCELLED))


def check_replace(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    number: int,
    account: Account,
    cash_uusd: int,
    replacement: Replacement,
) -> tuple[ReplacePlan, bool]:
    """What replacing would do, and whether the new order crosses. Raises Rejected.

    At the same price and not larger, the order shrinks in place (to nothing: it is cancelled). Otherwise the
    registers are loaded with a limit order of the same id and terms, to be placed behind all others.
    """
    market, order_id = replacement.market, replacement.order_id
    key, old, entry = find_order(view, number, market, order_id)
    size = max(0, replacement.size_ulots - old.filled_ulots)
    price = replacement.price_uusd
    if size == 0 or (price == entry.price_uusd and size <= old.size_ulots):
        return (key, old, size, False), False
    taker = progress.taker
    taker.account = number
    taker.order_id = order_id
    taker.market = market
    taker.side = entry.side
    taker.kind = _LIMIT
    taker.price_uusd = price
    taker.size_ulots = size
    taker.prior_ulots = old.filled_ulots
    taker.reduce_only = old.reduce_only
    taker.expiry_s = old.expiry_s
    taker.self_trade = old.self_trade
    return (key, old, size, True), check_order(view, block, taker, account, cash_uusd, old)


def apply_replace(
    view: StateView, block: BlockContext, progress: Progress, plan: ReplacePlan, crossing: bool
) -> None:
    key, old, size, anew = plan
    if anew:
        remove(view, block, key, old, OrderEnd.REPLACED)
        place(view, block, progress, crossing)
        return
    less = old.size_ulots - size
    if size:
        shrink(view, block, key, old, size)
        end = OrderEnd.OPEN
    else:
        remove(view, block, key, old, OrderEnd.CANCELLED)
        end = OrderEnd.CANCELLED
    block.operations.append(OperationResult(0, old.order_id, 0, size, less, end))


def operation_count(action: BulkOrders) -> int:
    return len(action.cancels) + len(action.replacements) + len(action.orders)


def operation_step(view: StateView, block: BlockContext, progress: Progress, action: BulkOrders) -> None:
    """The next operation of a bulk action, or its end."""
    index = progress.operation
    count = operation_count(action)
    if index < count:
        progress.operation = index + 1
        try:
            _operation(view, block, progress, action, index)
        except Rejected as refusal:
            order_id = _order_id(action, index)
            block.operations.append(OperationResult(refusal.code, order_id, data=refusal.data))
    if progress.task == Task.OPERATIONS and progress.operation == count:
        progress.task = progress.parent = Task.NONE
        progress.operation = 0


def _operation(
    view: StateView, block: BlockContext, progress: Progress, action: BulkOrders, index: int
) -> None:
    number = action.account
    if index < len(action.cancels):
        cancel: Cancel = action.cancels[index]
        key, order, _ = find_order(view, number, cancel.market, cancel.order_id)
        apply_cancel(view, block, key, order, cancel.order_id)
        return
    index -= len(action.cancels)
    account: Account = view.get(account_key(number))
    cash = account.cash_uusd
    if index < len(action.replacements):
        plan, crossing = check_replace(
            view, block, progress, number, account, cash, action.replacements[index]
        )
        apply_replace(view, block, progress, plan, crossing)
        return
    index -= len(action.replacements)
    order_id = order_id_of(action.nonce, index)
    crossing = check_place(view, block, progress, number, account, cash, action.orders[index], order_id)
    place(view, block, progress, crossing)


def _order_id(action: BulkOrders, index: int) -> int:
    """Of the order that an operation is about."""
    ids = [cancel.order_id for cancel in action.cancels]
    ids += [replacement.order_id for replacement in action.replacements]
    return ids[index] if index < len(ids) else order_id_of(action.nonce, index - len(ids))


def sweep_step(view: StateView, block: BlockContext, progress: Progress, action: CancelAll) -> None:
    """Cancels some orders of a cancel-all; the results of its steps are one operation each."""
    cancelled, done = sweep(view, block, action.account, action.market, OrderEnd.CANCELLED)
    block.operations.append(OperationResult(cancelled_ulots=cancelled, end=OrderEnd.CANCELLED))
    progress.task = Task.NONE if done else Task.SWEEP
