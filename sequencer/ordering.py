"""The order of transactions within a block: a rule, not a favour (state/PROTOCOL.md, section 8).

Oracle updates, then cancels, then post-only orders, then everything else; in each class by bid, ties by
arrival. Classes and bids are the transition's own rule, which refuses what stands out of it: arranging only
saves honest work. When not all that waits fits a block, lanes say what must not be crowded out.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol, TypeVar

from state.actions import (
    Action,
    Bid,
    BulkOrders,
    Deleverage,
    EndAuction,
    OracleUpdate,
    Payload,
    PlaceOrder,
    PlaceTrigger,
    SignedAction,
    StartAuction,
)
from state.rules import rule_of


class OrderingClass(IntEnum):
    ORACLE = 0
    CANCEL = 1
    POST_ONLY = 2
    OTHER = 3


class Lane(IntEnum):
    """Who gets room in a block first."""

    ORACLE = 0
    CANCEL = 1
    REDUCING = 2
    """Reduce-only orders, and what liquidates."""
    OTHER = 3


class Ordered(Protocol):
    """What the rule looks at. `arrival` grows with every transaction that the node takes."""

    ordering_class: int
    bid_uusd: int
    arrival: int


Candidate = TypeVar("Candidate", bound=Ordered)

_CANCEL = int(OrderingClass.CANCEL)
_REDUCING, _OTHER = Lane.REDUCING, Lane.OTHER
_ONE_ORDER = (PlaceOrder, PlaceTrigger)
_LIQUIDATING = (StartAuction, Bid, EndAuction, Deleverage)


def place_in_order(payload: Payload) -> tuple[int, int]:
    """(class, bid in uusd) of a transaction."""
    if isinstance(payload, OracleUpdate):
        return OrderingClass.ORACLE, 0
    action = payload.action
    return rule_of(action).order_class, action.priority_bid_uusd


def lane_of(ordering_class: int, payload: Payload) -> Lane:
    """Of a transaction of this class."""
    if ordering_class <= _CANCEL:
        return Lane(ordering_class)
    return _REDUCING if type(payload) is SignedAction and _reduces(payload.action) else _OTHER


def _reduces(action: Action) -> bool:
    """Whether it can only take risk away: from its own account, or from one that cannot carry it."""
    if isinstance(action, _ONE_ORDER):
        return action.order.reduce_only
    if isinstance(action, BulkOrders):
        return not action.replacements and all(order.reduce_only for order in action.orders)
    return isinstance(action, _LIQUIDATING)


def arrange(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates in the order in which a block executes them."""
    return sorted(candidates, key=lambda it: (it.ordering_class, -it.bid_uusd, it.arrival))
