"""Triggers and market-maker protection of an account, as they stand in the state."""

from __future__ import annotations

from typing import Any

import msgspec

from sequencer.api_chain import AccountParams
from sequencer.api_context import ApiContext
from sequencer.jsonrpc import Context, Method
from sequencer.receipts import SIDE_NAMES
from state import keys
from state.eip712_types import ORDER_KINDS, SELF_TRADES, TRIGGER_CONDITIONS, TRIGGER_SOURCES
from state.leaves import AccountTrigger, Protection, Trigger
from state.trigger_book import find_trigger

MAX_TRIGGERS = 10_000
MAX_PROTECTIONS = 1_000


class TriggerView(msgspec.Struct, frozen=True):
    """A trigger that has not fired; `order_id` is the id that its order will have."""

    instrument: str
    order_id: int
    source: str
    condition: str
    trigger_uusd: int
    side: str
    kind: str
    price_uusd: int
    size_ulots: int
    reduce_only: bool
    expiry_s: int
    self_trade: str


class ProtectionView(msgspec.Struct, frozen=True):
    """Market-maker protection in one underlying; the sums are of the interval that `started_ms` began."""

    underlying: str
    interval_ms: int
    frozen_ms: int
    quantity_limit_ulots: int
    delta_limit_ulots: int
    vega_limit_uusd: int
    started_ms: int
    quantity_ulots: int
    delta_ulots: int
    vega_uusd: int
    frozen: bool
    frozen_until_ms: str
    """As text: until it is reset is 2^64-1."""


class DepthApi:
    """The methods; they read."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_getTriggers",
                AccountParams,
                list[TriggerView],
                self._get_triggers,
                "An account's trigger orders that have not fired.",
            ),
            Method(
                "straddle_getProtections",
                AccountParams,
                list[ProtectionView],
                self._get_protections,
                "An account's market-maker protections: limits, what was traded, whether it is frozen.",
            ),
        ]

    def _get_triggers(self, params: AccountParams, _context: Context) -> list[TriggerView]:
        if params.account > keys.MAX_U64:
            return []
        machine = self._context.machine
        prefix = keys.account_triggers_prefix(params.account)
        views = []
        for key, found in machine.view.iterate_under(prefix, MAX_TRIGGERS):
            entry: AccountTrigger = found
            market, order_id = int.from_bytes(key[9:13], "big"), int.from_bytes(key[14:22], "big")
            trigger: Trigger = find_trigger(machine.view, params.account, market, order_id)[1]
            views.append(
                TriggerView(
                    machine.markets.name_of(market),
                    order_id,
                    TRIGGER_SOURCES[entry.source],
                    TRIGGER_CONDITIONS[entry.below],
                    entry.trigger_uusd,
                    SIDE_NAMES[trigger.side],
                    ORDER_KINDS[trigger.kind],
                    trigger.price_uusd,
                    trigger.size_ulots,
                    bool(trigger.reduce_only),
                    trigger.expiry_s,
                    SELF_TRADES[trigger.self_trade],
                )
            )
        return views

    def _get_protections(self, params: AccountParams, _context: Context) -> list[ProtectionView]:
        if params.account > keys.MAX_U64:
            return []
        machine = self._context.machine
        now_ms = max(self._context.now_ms(), machine.system.timestamp_ms)
        prefix = keys.protections_prefix(params.account)
        views = []
        for key, found in machine.view.iterate_under(prefix, MAX_PROTECTIONS):
            leaf: Protection = found
            views.append(
                ProtectionView(
                    key[9:].rstrip(b"\0").decode("ascii"),
                    leaf.interval_ms,
                    leaf.frozen_ms,
                    leaf.quantity_limit_ulots,
                    leaf.delta_limit_ulots,
                    leaf.vega_limit_uusd,
                    leaf.started_ms,
                    leaf.quantity_ulots,
                    leaf.delta_ulots,
                    leaf.vega_uusd,
                    leaf.frozen_until_ms > now_ms,
                    str(leaf.frozen_until_ms),
                )
            )
        return views
