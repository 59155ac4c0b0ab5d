"""The order of transactions within a block: a rule, not a favour (state/PROTOCOL.md, section 8).

Oracle updates, then cancels, then post-only orders, then everything else by its bid; ties by arrival. The
transition refuses what stands out of this order, so this page only saves honest work: `arrange` is what the
executor does, as a pure function.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol, TypeVar

from state.actions import (
    BulkOrders,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    OracleUpdate,
    OrderKind,
    Payload,
    PlaceOrder,
    RevokeSessionKey,
)


class OrderingClass(IntEnum):
    ORACLE = 0
    CANCEL = 1
    POST_ONLY = 2
    BID = 3


class Ordered(Protocol):
    """What the rule looks at. `arrival` grows with every transaction that the node takes."""

    ordering_class: int
    bid_uusd: int
    arrival: int


Candidate = TypeVar("Candidate", bound=Ordered)

_CANCELS = (CancelOrder, CancelAll, CancelAllAfter, RevokeSessionKey)


def place_in_order(payload: Payload) -> tuple[int, int]:
    """(class, bid in uusd) of a transaction; the bid counts in the last class only."""
    if isinstance(payload, OracleUpdate):
        return OrderingClass.ORACLE, 0
    action = payload.action
    if isinstance(action, PlaceOrder):
        if action.order.kind is OrderKind.POST_ONLY:
            return OrderingClass.POST_ONLY, 0
    elif isinstance(action, _CANCELS):
        return OrderingClass.CANCEL, 0
    elif isinstance(action, BulkOrders) and not action.replacements:
        if not action.orders:
            return OrderingClass.CANCEL, 0
        if all(order.kind is OrderKind.POST_ONLY for order in action.orders):
            return OrderingClass.POST_ONLY, 0
    return OrderingClass.BID, action.priority_bid_uusd


def arrange(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates in the order in which a block executes them."""
    return sorted(candidates, key=lambda it: (it.ordering_class, -it.bid_uusd, it.arrival))
