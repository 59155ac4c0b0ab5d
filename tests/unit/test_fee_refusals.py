"""Forged cost reports: what is refused changes nothing, what is absurd moves the price by bounded steps.

That nobody but the contract can queue one is shown on L1 (integration/test_bridge_fees); here is what the
transition makes of one, were it there. Bad bids are in test_priority, L1 origins that cannot be in
test_transition_messages and test_due_blocks.
"""

from __future__ import annotations

from struct import pack

import pytest

from state import l1_market, l1_price
from state.actions import Side
from state.block import L1Message, MessageKind
from state.errors import RejectCode
from state.keys import L1_PRICE_KEY, SYSTEM_KEY
from state.leaves import L1Price, L1Terms
from state.units import PPM
from tests.exchange_checks import assert_conserved
from tools.exchange import COIN, USD, VAULT, Exchange, standard_exchange

MAX_U64 = 2**64 - 1
TERMS = L1Terms()


def report(size: int, gas: int, base_fee: int, blobs: int, blob_fee: int, batch: int = 1) -> bytes:
    return pack(">QIQQBQ", batch, size, gas, base_fee, blobs, blob_fee)


GOOD = report(1_000, 200_000, 10**10, 1, 10**9)
ABSURD = [
    report(2**32 - 1, MAX_U64, MAX_U64, 255, MAX_U64),
    report(1, MAX_U64, MAX_U64, 0, 0),
    report(2**32 - 1, 0, 0, 0, 0),
    report(1_000, 200_000, 10**10, 1, 10**9, batch=MAX_U64),
]


def consumed(exchange: Exchange, payload: bytes) -> int:
    """The code that the message gets."""
    message = L1Message(MessageKind.BATCH_COST, VAULT, 0, payload)
    return exchange.messages(message).messages[0].code


def price(exchange: Exchange) -> L1Price:
    leaf: L1Price = exchange.view.get(L1_PRICE_KEY)
    return leaf


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (report(0, 200_000, 10**10, 1, 10**9), RejectCode.BAD_PARAMETERS),
        (GOOD[:-1], RejectCode.MALFORMED_MESSAGE),
        (GOOD + b"\0", RejectCode.MALFORMED_MESSAGE),
        (b"", RejectCode.MALFORMED_MESSAGE),
    ],
    ids=("no bytes", "short", "long", "empty"),
)
def test_a_report_that_cannot_be_is_read_and_changes_nothing(payload: bytes, code: RejectCode) -> None:
    """Beside the queue's position all is as after a block without it."""
    with_it, without = standard_exchange(2), standard_exchange(2)
    assert consumed(with_it, payload) == code
    without.messages()
    assert with_it.system.inbox_next == without.system.inbox_next + 1
    ours, theirs = with_it.leaves(), without.leaves()
    assert {key for key in ours if ours[key] != theirs.get(key)} == {SYSTEM_KEY}
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("payload", ABSURD, ids=("all", "one byte", "free", "unknown batch"))
def test_absurd_reports_move_the_price_by_steps_within_bounds(payload: bytes) -> None:
    """iL1PRICE_001: twenty of them, a slot apart; no target is far from the cost at the origin's fees."""
    exchange = standard_exchange(2)
    for _ in range(20):
        before = price(exchange).price_pusd
        assert consumed(exchange, payload) == 0
        exchange.now_ms += TERMS.slot_ms
        exchange.messages()
        now = price(exchange)
        step = before * TERMS.step_ppm // PPM + 1
        # One step in the slot of the report, one in the next.
        assert abs(now.price_pusd - before) <= 2 * step + step * TERMS.step_ppm // PPM + 1
        assert TERMS.min_pusd <= now.price_pusd <= TERMS.max_pusd
        eth_uusd = l1_market.eth_price_uusd(exchange.view, exchange.now_ms)
        plain = l1_price.feed_forward(now, TERMS, eth_uusd) * now.overhead_ppm // PPM + 1
        assert now.target_pusd <= max(plain * (PPM + 2 * TERMS.feedback_ppm) // PPM + 1, TERMS.min_pusd)
    exchange.report({"C1": 1_000 * USD, "C1-PERPETUAL": 1_000 * USD})
    exchange.place(1, 1, Side.BUY, 900 * USD, COIN)
    assert_conserved(exchange)
