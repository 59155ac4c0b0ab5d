"""Trigger orders: stops and take-profits, placed when a mark or an index gets to a price.

An oracle update, when its prices are in force, looks at what they set off: first, of each of its feeds, at
the triggers on that index or perpetual's mark; then, of each expiry that a feed belongs to, at markets in
which triggers wait for a dated mark: up to MAX_LOOKED that do not fire, those first that have waited longest,
so that none is passed over for ever. Each step fires one trigger or has looked at one market. After MAX_FIRED
the rest waits for the next update.

A trigger that fires is gone, and its order is placed as if its account had sent it then: it is checked then,
and may be refused. Reduce-only triggers go when the position that they reduce is closed or changes its sign.

- iTRIGGER_002 No trigger fires whose price has not been reached, and one that has been fires in the order of
  distance, then age.
- iTRIGGER_003 A trigger fires at most once.
"""

from __future__ import annotations

from typing import Final

from state.actions import Order, OrderKind, PlaceTrigger, SelfTrade, Side, TriggerCondition, TriggerSource
from state.block import OperationResult, OrderEnd
from state.calendar import MAX_UNDERLYING_BYTES
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.extras import extras_of
from state.keys import (
    FEED,
    PARAMETERS_KEY,
    SYSTEM_KEY,
    account_key,
    index_scope,
    instrument_key,
    mark_scope,
    market_key,
    parse_trigger_key,
    parse_trigger_queue,
    position_key,
    trigger_queue_prefix,
    triggers_prefix,
)
from state.leaves import (
    Account,
    AccountTrigger,
    Feed,
    Instrument,
    Market,
    Parameters,
    Position,
    Progress,
    System,
    Task,
    Trigger,
)
from state.matching import place
from state.operations import check_place, order_id_of
from state.orders import check_size, check_trading, instrument_of, reducible
from state.pricing import mark_of, pricing_of
from state.trigger_book import add_trigger, event_of, move_in_queue, remove_trigger, scope_of
from state.units import MAX_FIRED, MAX_LOOKED, MAX_PRICE_UUSD
from state.view import StateView

_MARK: Final = int(TriggerSource.MARK)
_INDEX: Final = int(TriggerSource.INDEX)
_BELOW: Final = int(TriggerCondition.AT_OR_BELOW)
_POST_ONLY: Final = int(OrderKind.POST_ONLY)


def check_place_trigger(view: StateView, block: BlockContext, action: PlaceTrigger, account: Account) -> None:
    """Raises Rejected; tick and lot have been checked. Margin and price band wait until it is placed."""
    order, number = action.order, action.account
    terms = instrument_of(view, order.market)
    check_trading(view, block, terms, order.reduce_only)
    check_size(terms, order.size_ulots)
    if order.expiry_s < 0 or (order.kind <= _POST_ONLY and 0 < order.expiry_s <= block.now_s):
        raise Rejected(RejectCode.ORDER_EXPIRED, now_s=block.now_s, got=order.expiry_s)
    if not 0 < action.trigger_uusd <= MAX_PRICE_UUSD:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, maximum=MAX_PRICE_UUSD, got=action.trigger_uusd)
    if action.source == _INDEX and len(terms.underlying.rstrip(b"\0")) > MAX_UNDERLYING_BYTES:
        raise Rejected(RejectCode.UNKNOWN_UNDERLYING, longest=MAX_UNDERLYING_BYTES)
    parameters: Parameters = view.get(PARAMETERS_KEY)
    extras = extras_of(view, number)
    if account.orders + (extras.triggers if extras else 0) >= parameters.max_orders:
        raise Rejected(RejectCode.TOO_MANY_ORDERS, limit=parameters.max_orders)
    if order.reduce_only:
        position: Position | None = view.get(position_key(number, order.market))
        if reducible(position, order.side) == 0:
            held = position.size_ulots if position else 0
            raise Rejected(RejectCode.REDUCE_ONLY_INCREASES, position_ulots=held)
    price = _price_of(view, terms, order.market, action.source)
    if price is None:
        raise Rejected(RejectCode.ORACLE_STALE, mark_ms=0)
    if _is_reached(action.condition, action.trigger_uusd, price):
        raise Rejected(RejectCode.TRIGGER_FIRES_AT_ONCE, price_uusd=price, trigger_uusd=action.trigger_uusd)


def apply_place_trigger(view: StateView, block: BlockContext, action: PlaceTrigger) -> None:
    order = action.order
    system: System = view.get(SYSTEM_KEY)
    sequence = system.next_sequence
    system.next_sequence = sequence + 1
    view.touch(SYSTEM_KEY, system)
    trigger = Trigger(
        action.account,
        order_id_of(action.nonce, 0),
        order.market,
        order.side,
        order.kind,
        order.price_uusd,
        order.size_ulots,
        order.reduce_only,
        order.expiry_s,
        order.self_trade,
    )
    found = AccountTrigger(int(action.source), int(action.condition), action.trigger_uusd, sequence)
    add_trigger(view, block, trigger, found)
    block.operations.append(OperationResult(0, trigger.order_id))


def _price_of(view: StateView, terms: Instrument, market: int, source: int) -> int | None:
    """What triggers of this source look at; None before it is known."""
    if source == _MARK:
        return mark_of(view, view.get(market_key(market)), terms)
    index: Feed | None = view.get(bytes((FEED,)) + terms.underlying)
    return index.value_uusd if index is not None and index.version else None


def _is_reached(below: int, trigger_uusd: int, price_uusd: int) -> bool:
    return price_uusd <= trigger_uusd if below == _BELOW else price_uusd >= trigger_uusd


# Firing


def fire_on_feed(
    view: StateView, block: BlockContext, progress: Progress, name: str, market: int, value_uusd: int
) -> bool:
    """Fires the next trigger that an index (`market` 0) or a perpetual's mark sets off, if there is one."""
    if market:
        return _fire_next(view, block, progress, mark_scope(market), value_uusd)
    raw = name.encode()
    return len(raw) <= MAX_UNDERLYING_BYTES and _fire_next(
        view, block, progress, index_scope(raw), value_uusd
    )


def fire_in_expiry(view: StateView, block: BlockContext, progress: Progress, expiry: int) -> bool:
    """Fires a trigger on a mark of the expiry, or has looked at one market for some; whether to go on:
    not when enough, or all, of its markets have been looked at since it was priced."""
    found = view.first_under(trigger_queue_prefix(expiry))
    pricing = pricing_of(view, expiry)
    if found is None or pricing is None:
        return False
    version, market = parse_trigger_queue(found[0])
    if version == pricing.version:
        return False
    terms: Instrument = view.get(instrument_key(market))
    state: Market = view.get(market_key(market))
    mark = mark_of(view, state, terms)
    if mark is None or not _fire_next(view, block, progress, mark_scope(market), mark):
        move_in_queue(view, expiry, market, pricing.version)
        progress.looked += 1
    return progress.looked < MAX_LOOKED


def has_room(progress: Progress) -> bool:
    """Whether this update may still fire triggers."""
    return progress.fired < MAX_FIRED


def _fire_next(
    view: StateView, block: BlockContext, progress: Progress, scope: bytes, price_uusd: int
) -> bool:
    for below in (0, 1):
        found = view.first_under(triggers_prefix(scope, below))
        if found is not None and _is_reached(below, parse_trigger_key(found[0])[2], price_uusd):
            _fire(view, block, progress, found[0], found[1])
            progress.fired += 1
            return True
    return False


def _fire(view: StateView, block: BlockContext, progress: Progress, key: bytes, trigger: Trigger) -> None:
    """The trigger goes, its order is placed if it may be; the update goes on when that has been matched."""
    scope, below, price = parse_trigger_key(key)
    number, market = trigger.account, trigger.market
    terms: Instrument = view.get(instrument_key(market))
    source = _MARK if scope == scope_of(terms, market, _MARK) else _INDEX
    entry = AccountTrigger(source, below, price, int.from_bytes(key[22:30], "big"))
    remove_trigger(view, block, key, trigger, entry, OrderEnd.TRIGGERED)
    order = Order(
        market,
        Side(trigger.side),
        OrderKind(trigger.kind),
        trigger.price_uusd,
        trigger.size_ulots,
        bool(trigger.reduce_only),
        trigger.expiry_s,
        SelfTrade(trigger.self_trade),
    )
    account: Account = view.get(account_key(number))
    progress.parent = Task.TRIGGERS
    try:
        crossing = check_place(
            view, block, progress, number, account, account.cash_uusd, order, trigger.order_id
        )
    except Rejected as refusal:
        block.triggers[-1] = event_of(trigger, OrderEnd.TRIGGERED, int(refusal.code))
        block.operations.append(OperationResult(refusal.code, trigger.order_id, data=refusal.data))
        return
    place(view, block, progress, crossing)
