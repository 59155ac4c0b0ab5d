"""Triggers in and out of the state, and how those are found that a price sets off.

A trigger is a leaf under its scope (the mark of its market, or an index) and direction, ordered by the price
at which it fires, so the next to fire is the first leaf there. An AccountTrigger finds it by account, and an
entry by market those of dated instruments, which go when these settle. Marks of dated instruments change all
at once, with their expiry's Pricing: a queue for each expiry has the markets in which triggers wait for the
mark, the one longest not looked at first (`triggers`).

- iTRIGGER_001 `Extras.triggers` counts an account's Trigger leaves, `TriggerCount.triggers` those on the mark
  of a dated market; every Trigger has one AccountTrigger.
"""

from __future__ import annotations

from typing import Final

from state.actions import TriggerSource
from state.block import OrderEnd, TriggerEvent
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.extras import count_extras, extras_of
from state.keys import (
    account_trigger_key,
    account_triggers_prefix,
    cleanup_triggers_key,
    index_scope,
    instrument_key,
    mark_scope,
    market_trigger_key,
    pricing_key,
    reducing_triggers_prefix,
    trigger_count_key,
    trigger_key,
    trigger_queue_key,
)
from state.leaves import AccountTrigger, Instrument, Marker, Pricing, Trigger, TriggerCount
from state.view import StateView

_MARK: Final = int(TriggerSource.MARK)
_MAX_U32: Final = 2**32 - 1


def scope_of(terms: Instrument, market: int, source: int) -> bytes:
    """Under which triggers on this source are found."""
    return mark_scope(market) if source == _MARK else index_scope(terms.underlying)


def add_trigger(view: StateView, block: BlockContext, trigger: Trigger, found: AccountTrigger) -> None:
    """Puts a checked trigger where it is found."""
    number, market = trigger.account, trigger.market
    terms: Instrument = view.get(instrument_key(market))
    scope = scope_of(terms, market, found.source)
    view.put(trigger_key(scope, found.below, found.trigger_uusd, found.sequence), trigger)
    view.put(account_trigger_key(number, market, trigger.reduce_only, trigger.order_id), found)
    if terms.expiry:
        view.put(market_trigger_key(market, number, trigger.order_id), Marker(1))
        if found.source == _MARK:
            _count_on_mark(view, terms.expiry, market, 1)
    count_extras(view, number, triggers=1)
    block.accounts.add(number)
    block.triggers.append(event_of(trigger, OrderEnd.OPEN))


def remove_trigger(
    view: StateView,
    block: BlockContext,
    key: bytes,
    trigger: Trigger,
    found: AccountTrigger,
    end: OrderEnd,
) -> None:
    """Takes a trigger, `key`, and everything that finds it out of the state, and tells why."""
    number, market = trigger.account, trigger.market
    terms: Instrument = view.get(instrument_key(market))
    view.delete(key)
    view.delete(account_trigger_key(number, market, trigger.reduce_only, trigger.order_id))
    if terms.expiry:
        view.delete(market_trigger_key(market, number, trigger.order_id))
        if found.source == _MARK:
            _count_on_mark(view, terms.expiry, market, -1)
    count_extras(view, number, triggers=-1)
    block.accounts.add(number)
    block.triggers.append(event_of(trigger, end))


def event_of(trigger: Trigger, end: OrderEnd, code: int = 0) -> TriggerEvent:
    """What is told of a trigger."""
    return TriggerEvent(
        trigger.account,
        trigger.market,
        trigger.order_id,
        trigger.side,
        trigger.kind,
        trigger.price_uusd,
        trigger.size_ulots,
        bool(trigger.reduce_only),
        end,
        code,
    )


def _count_on_mark(view: StateView, expiry: int, market: int, change: int) -> None:
    """Counts triggers on a dated mark; its market stands in its expiry's queue while there are any."""
    key = trigger_count_key(market)
    count: TriggerCount | None = view.get(key)
    if count is None:
        pricing: Pricing = view.get(pricing_key(expiry))
        view.put(key, TriggerCount(change, pricing.version))
        view.put(trigger_queue_key(expiry, pricing.version, market), Marker(1))
        return
    count.triggers += change
    if count.triggers:
        view.touch(key, count)
    else:
        view.delete(trigger_queue_key(expiry, count.version, market))
        view.delete(key)


def move_in_queue(view: StateView, expiry: int, market: int, version: int) -> None:
    """The market's triggers have been compared with the marks of this version of its expiry's Pricing."""
    key = trigger_count_key(market)
    count: TriggerCount = view.get(key)
    view.delete(trigger_queue_key(expiry, count.version, market))
    count.version = version
    view.touch(key, count)
    view.put(trigger_queue_key(expiry, version, market), Marker(1))


def find_trigger(
    view: StateView, account: int, market: int, order_id: int
) -> tuple[bytes, Trigger, AccountTrigger]:
    """The trigger of that id: its key, itself, its entry. Raises Rejected UNKNOWN_TRIGGER."""
    if 0 < market <= _MAX_U32:
        for reduce_only in (0, 1):
            found: AccountTrigger | None = view.get(
                account_trigger_key(account, market, reduce_only, order_id)
            )
            if found is not None:
                key = _key_of(view, market, found)
                return key, view.get(key), found
    raise Rejected(RejectCode.UNKNOWN_TRIGGER, market=market, order_id=order_id)


def _key_of(view: StateView, market: int, found: AccountTrigger) -> bytes:
    terms: Instrument = view.get(instrument_key(market))
    scope = scope_of(terms, market, found.source)
    return trigger_key(scope, found.below, found.trigger_uusd, found.sequence)


def sweep_triggers(
    view: StateView, block: BlockContext, account: int, market: int, limit: int, end: OrderEnd
) -> bool:
    """Removes up to `limit` of the account's triggers, in one market or (0) in all; whether that were all."""
    if extras_of(view, account) is None:
        return True
    return _sweep(view, block, account_triggers_prefix(account, market), limit, end)


def sweep_reducing(view: StateView, block: BlockContext, account: int, market: int, limit: int) -> bool:
    """`sweep_triggers` of reduce-only ones, whose position has been closed."""
    prefix = reducing_triggers_prefix(account, market)
    return _sweep(view, block, prefix, limit, OrderEnd.POSITION_CLOSED)


def _sweep(view: StateView, block: BlockContext, prefix: bytes, limit: int, end: OrderEnd) -> bool:
    entries = view.iterate_under(prefix, limit + 1)
    for entry_key, leaf in entries[:limit]:
        found: AccountTrigger = leaf
        key = _key_of(view, int.from_bytes(entry_key[9:13], "big"), found)
        remove_trigger(view, block, key, view.get(key), found, end)
    return len(entries) <= limit


def position_closed(view: StateView, account: int, market: int, before: int, after: int) -> bool:
    """Whether the change of the account's position from one size to another leaves reduce-only triggers
    behind, because it is gone or has changed its sign; then they are marked for the CLEANUP task, which the
    caller starts."""
    if before == 0 or after * before > 0:
        return False
    extras = extras_of(view, account)
    if extras is None or not extras.triggers:
        return False
    if view.first_under(reducing_triggers_prefix(account, market)) is None:
        return False
    view.put(cleanup_triggers_key(account, market), Marker(1))
    return True
