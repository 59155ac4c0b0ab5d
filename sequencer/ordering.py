"""The order of transactions within a block: a rule, not a favour (state/PROTOCOL.md, section 8).

Oracle updates, then cancels, then post-only orders, then everything else by its bid; ties by arrival. The
classes are the transition's own (`state/rules.py`), which refuses what stands out of this order: arranging
only saves honest work.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Protocol, TypeVar

from state.actions import OracleUpdate, Payload
from state.rules import rule_of


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

_BID = int(OrderingClass.BID)


def place_in_order(payload: Payload) -> tuple[int, int]:
    """(class, bid in uusd) of a transaction; the bid counts in the last class only."""
    if isinstance(payload, OracleUpdate):
        return OrderingClass.ORACLE, 0
    action = payload.action
    order_class = rule_of(action).order_class
    return order_class, action.priority_bid_uusd if order_class == _BID else 0


def arrange(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates in the order in which a block executes them."""
    return sorted(candidates, key=lambda it: (it.ordering_class, -it.bid_uusd, it.arrival))
