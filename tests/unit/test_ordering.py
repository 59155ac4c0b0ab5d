"""Ordering classes of PROTOCOL section 8."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest

from sequencer.ordering import Lane, OrderingClass, arrange, lane_of, place_in_order
from state.actions import (
    Action,
    AuthorizeSessionKey,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Replacement,
    ReplaceOrder,
    RevokeSessionKey,
    Scope,
    Side,
    SignedAction,
    StartAuction,
    Transfer,
    Withdraw,
)

ENVELOPE: dict[str, Any] = {
    "account": 1,
    "nonce": 1,
    "deadline_s": 10,
    "max_fee_uusd": 9,
    "priority_bid_uusd": 7,
}
LIMIT = Order(1, Side.BUY, OrderKind.LIMIT, 100, 100)
POST = Order(1, Side.BUY, OrderKind.POST_ONLY, 100, 100)
CLOSING = Order(1, Side.SELL, OrderKind.LIMIT, 100, 100, True)
CANCEL = Cancel(1, 64)
REPLACE = Replacement(1, 64, 100, 100)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (CancelOrder(**ENVELOPE, cancel=CANCEL), (OrderingClass.CANCEL, 7)),
        (CancelAll(**ENVELOPE), (OrderingClass.CANCEL, 7)),
        (CancelAllAfter(**ENVELOPE, timeout_s=5), (OrderingClass.CANCEL, 7)),
        (RevokeSessionKey(**ENVELOPE, key=bytes(20)), (OrderingClass.CANCEL, 7)),
        (BulkOrders(**ENVELOPE, cancels=(CANCEL,)), (OrderingClass.CANCEL, 7)),
        (PlaceOrder(**ENVELOPE, order=POST), (OrderingClass.POST_ONLY, 7)),
        (BulkOrders(**ENVELOPE, cancels=(CANCEL,), orders=(POST, POST)), (OrderingClass.POST_ONLY, 7)),
        (BulkOrders(**ENVELOPE, orders=(POST, LIMIT)), (OrderingClass.OTHER, 7)),
        (BulkOrders(**ENVELOPE, replacements=(REPLACE,)), (OrderingClass.OTHER, 7)),
        (BulkOrders(**ENVELOPE, replacements=(REPLACE,), orders=(POST,)), (OrderingClass.OTHER, 7)),
        (PlaceOrder(**ENVELOPE, order=LIMIT), (OrderingClass.OTHER, 7)),
        (ReplaceOrder(**ENVELOPE, replacement=REPLACE), (OrderingClass.OTHER, 7)),
        (Transfer(**ENVELOPE, to_account=2, amount_uusd=1), (OrderingClass.OTHER, 7)),
        (Withdraw(**ENVELOPE, recipient=bytes(20), amount_uusd=1), (OrderingClass.OTHER, 7)),
        (
            AuthorizeSessionKey(**ENVELOPE, key=bytes(20), scope=Scope.TRADE, expiry_s=1),
            (OrderingClass.OTHER, 7),
        ),
    ],
)
def test_class_and_bid_of_every_action(action: Action, expected: tuple[int, int]) -> None:
    assert place_in_order(SignedAction(action, bytes(64))) == expected


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (CancelOrder(**ENVELOPE, cancel=CANCEL), Lane.CANCEL),
        (PlaceOrder(**ENVELOPE, order=LIMIT), Lane.OTHER),
        (PlaceOrder(**ENVELOPE, order=POST), Lane.OTHER),
        (PlaceOrder(**ENVELOPE, order=CLOSING), Lane.REDUCING),
        (BulkOrders(**ENVELOPE, cancels=(CANCEL,), orders=(CLOSING, CLOSING)), Lane.REDUCING),
        (BulkOrders(**ENVELOPE, orders=(CLOSING, LIMIT)), Lane.OTHER),
        (BulkOrders(**ENVELOPE, replacements=(REPLACE,), orders=(CLOSING,)), Lane.OTHER),
        (StartAuction(**ENVELOPE, liquidated=2), Lane.REDUCING),
        (Transfer(**ENVELOPE, to_account=2, amount_uusd=1), Lane.OTHER),
    ],
)
def test_lanes(action: Action, expected: Lane) -> None:
    payload = SignedAction(action, bytes(64))
    assert lane_of(place_in_order(payload)[0], payload) is expected


def test_oracle_updates_come_first() -> None:
    assert place_in_order(OracleUpdate(())) == (OrderingClass.ORACLE, 0)


@dataclass
class Candidate:
    ordering_class: int
    bid_uusd: int
    arrival: int


def test_by_class_then_bid_then_arrival() -> None:
    random.seed(7)
    places = [(0, 0), (1, 3), (1, 0), (1, 0), (2, 4), (2, 0), (3, 9), (3, 5), (3, 5), (3, 0)]
    wanted = [Candidate(kind, bid, arrival) for arrival, (kind, bid) in enumerate(places)]
    for _ in range(20):
        shuffled = random.sample(wanted, len(wanted))
        assert arrange(shuffled) == wanted
