"""Market-maker protection: what counts, what a breach does, and what is refused then. iPROTECT_001, 002."""

from __future__ import annotations

from typing import Any

import pytest

from state.actions import (
    BulkOrders,
    Cancel,
    CancelOrder,
    Order,
    OrderKind,
    PlaceOrder,
    Replacement,
    ReplaceOrder,
    ResetProtection,
    SetProtection,
    Side,
)
from state.black76 import black76
from state.block import L1Message, MessageKind, OrderEnd
from state.errors import RejectCode
from state.keys import CLEANUP, MAX_U64, instrument_key, protection_key
from state.leaves import Instrument, Protection, Task
from state.protection import exposure
from tests.depth import chain_exchange, extras, witness_block
from tests.exchange_checks import assert_conserved, must_reject, must_reject_act
from tools.exchange import COIN, USD, Exchange, owner_address


def protect(exchange: Exchange, account: int = 1, underlying: str = "C1", **limits: int) -> None:
    terms = {"interval_ms": 5_000, "frozen_ms": 60_000, "quantity_ulots": 0, "delta_ulots": 0, "vega_uusd": 0}
    exchange.act(SetProtection, account, underlying=underlying, **(terms | limits))


def protection(exchange: Exchange, account: int = 1) -> Protection:
    leaf: Protection = exchange.view.get(protection_key(account, b"C1"))
    return leaf


def quoting(count: int = 3, **limits: int) -> tuple[Exchange, dict[str, int]]:
    """Account 1 sells 1 coin of the perpetual at each of some prices, a call, and C2's perpetual."""
    exchange, markets = chain_exchange()
    protect(exchange, 1, "C1", **limits)
    for place in range(count):
        exchange.place(1, 1, Side.SELL, (1_001 + place) * USD, COIN)
    exchange.place(1, markets["1000C"], Side.SELL, 40 * USD, COIN)
    exchange.place(1, 2, Side.SELL, 2_001 * USD, COIN)
    return exchange, markets


def taking(exchange: Exchange, size: int, account: int = 2, market: int = 1, price: int = 1_050) -> Any:
    order = Order(market, Side.BUY, OrderKind.LIMIT, price * USD, size)
    return exchange.sign(PlaceOrder(**exchange.envelope(account), order=order))


def test_a_breach_is_the_last_fill_and_cancels_there_alone() -> None:
    """iPROTECT_001, iPROTECT_002"""
    exchange, _ = quoting(quantity_ulots=COIN)
    tasks = witness_block(exchange, taking(exchange, 3 * COIN))
    result = exchange.results[-1]
    assert tasks >= {Task.MATCH, Task.CLEANUP}
    assert [trade.size_ulots for trade in result.trades] == [COIN, COIN], "the second breaches, and happens"
    gone = [
        (event.market, event.end) for event in result.orders if event.account == 1 and not event.open_ulots
    ]
    assert gone.count((1, OrderEnd.PROTECTION)) == 1
    assert exchange.account(1).orders == 1, "that of another underlying stays"
    assert protection(exchange).frozen_until_ms == exchange.now_ms + 60_000
    assert exchange.view.first_under(bytes([CLEANUP])) is None
    (operation,) = result.results[0].operations
    assert (operation.filled_ulots, operation.resting_ulots) == (2 * COIN, COIN)
    assert_conserved(exchange)


def test_many_orders_go_in_steps() -> None:
    exchange, markets = quoting(count=3, quantity_ulots=COIN // 2)
    for place in range(40):
        exchange.place(1, markets["P"], Side.BUY, (900 + place) * USD, COIN // 100)
    tasks = witness_block(exchange, taking(exchange, COIN))
    assert Task.CLEANUP in tasks
    assert exchange.account(1).orders == 1
    assert len(exchange.results[-1].orders) == 1 + 2 + 40 + 1


def test_only_resting_orders_count() -> None:
    exchange, _ = chain_exchange()
    protect(exchange, quantity_ulots=1)
    exchange.place(2, 1, Side.SELL, 1_001 * USD, COIN)
    exchange.place(1, 1, Side.BUY, 1_001 * USD, COIN)
    assert protection(exchange).quantity_ulots == 0


def test_limits_are_of_an_interval() -> None:
    exchange, _ = quoting(quantity_ulots=COIN)
    exchange.send(taking(exchange, COIN))
    exchange.now_ms += 4_999
    assert protection(exchange).quantity_ulots == COIN
    exchange.now_ms += 1
    exchange.send(taking(exchange, COIN))
    assert (protection(exchange).quantity_ulots, protection(exchange).frozen_until_ms) == (COIN, 0)
    exchange.send(taking(exchange, COIN))
    assert protection(exchange).frozen_until_ms > exchange.now_ms


def test_delta_is_signed_and_the_engines() -> None:
    """Selling the perpetual and buying it back has no delta; a call's is below 1."""
    exchange, markets = quoting(delta_ulots=COIN // 2 + 1)
    exchange.place(1, 1, Side.BUY, 999 * USD, COIN // 2)
    exchange.send(taking(exchange, COIN // 2))
    order = Order(1, Side.SELL, OrderKind.LIMIT, 999 * USD, COIN // 2)
    exchange.act(PlaceOrder, 2, order=order)
    assert protection(exchange).delta_ulots == 0
    exchange.send(taking(exchange, COIN, market=markets["1000C"], price=60))
    assert -COIN * 6 // 10 < protection(exchange).delta_ulots < -COIN // 2
    assert protection(exchange).frozen_until_ms > exchange.now_ms


def test_vega_freezes_too() -> None:
    exchange, markets = quoting(vega_uusd=10_000)
    exchange.send(taking(exchange, COIN, market=markets["1000C"], price=60))
    assert protection(exchange).vega_uusd < -10_000
    assert protection(exchange).frozen_until_ms > exchange.now_ms
    assert exchange.account(1).orders == 1


def test_exposure_is_what_the_price_does() -> None:
    """Delta and vega against differences of the engine's own prices."""
    exchange, markets = chain_exchange()
    for name, kind in (("1000C", 0), ("1000P", 1), ("1200C", 0), ("800P", 1)):
        terms: Instrument = exchange.view.get(instrument_key(markets[name]))
        delta, vega = exposure(exchange.view, terms, COIN)
        years = (terms.expiry_s * 1_000 - exchange.now_ms) / (365 * 86_400_000)
        root = int(years**0.5 * 2**56)

        def price(forward: int, vol: float, strike: int, root: int) -> tuple[int, int]:
            return black76(forward, strike, int(root * vol))

        of = terms.strike_uusd, root
        up, down = price(1_000 * USD + 50_000, 0.6, *of)[kind], price(1_000 * USD - 50_000, 0.6, *of)[kind]
        assert delta == pytest.approx((up - down) * COIN / 100_000, abs=2_000)
        rise = price(1_000 * USD, 0.605, *of)[kind] - price(1_000 * USD, 0.595, *of)[kind]
        assert vega == pytest.approx(rise, rel=0.02, abs=20)
    future: Instrument = exchange.view.get(instrument_key(markets["F"]))
    assert exposure(exchange.view, future, -5) == (-5, 0)


def test_a_freeze_refuses_until_it_is_over_or_reset() -> None:
    exchange, markets = quoting(quantity_ulots=1)
    exchange.send(taking(exchange, COIN))
    good = Order(1, Side.BUY, OrderKind.LIMIT, 990 * USD, COIN)
    refused = must_reject_act(exchange, RejectCode.MMP_FROZEN, PlaceOrder, 1, order=good)
    assert refused.data["until_ms"] == exchange.now_ms + 60_000
    call = Order(markets["1000C"], Side.BUY, OrderKind.IMMEDIATE_OR_CANCEL, 10 * USD, COIN)
    must_reject_act(exchange, RejectCode.MMP_FROZEN, PlaceOrder, 1, order=call)
    exchange.act(PlaceOrder, 1, order=Order(2, Side.BUY, OrderKind.LIMIT, 1_990 * USD, COIN))
    (operation,) = exchange.act(BulkOrders, 1, orders=(good,)).operations
    assert operation.code == RejectCode.MMP_FROZEN
    closing = Order(1, Side.BUY, OrderKind.MARKET, 1_050 * USD, COIN, True)
    exchange.act(PlaceOrder, 1, order=closing)
    resting = Order(1, Side.BUY, OrderKind.LIMIT, 990 * USD, COIN, True)
    must_reject_act(exchange, RejectCode.MMP_FROZEN, PlaceOrder, 1, order=resting)
    exchange.act(ResetProtection, 1, underlying="C1")
    exchange.act(PlaceOrder, 1, order=good)
    exchange.place(1, 1, Side.SELL, 1_001 * USD, COIN)
    exchange.send(taking(exchange, COIN))
    must_reject_act(exchange, RejectCode.MMP_FROZEN, PlaceOrder, 1, order=good)
    exchange.now_ms += 60_000
    exchange.report({"C1": 1_000 * USD, "C1-PERPETUAL": 1_000 * USD, "C2": 2_000 * USD})
    exchange.act(PlaceOrder, 1, order=good)


def test_replacing_is_placing_and_cancelling_always_works() -> None:
    exchange, _ = chain_exchange()
    exchange.place(1, 1, Side.SELL, 1_010 * USD, COIN)
    protect(exchange)
    leaf = protection(exchange)
    leaf.frozen_until_ms = MAX_U64
    order_id = (exchange.nonces[1] - 2) * 64
    larger = Replacement(1, order_id, 1_011 * USD, COIN)
    must_reject_act(exchange, RejectCode.MMP_FROZEN, ReplaceOrder, 1, replacement=larger)
    exchange.act(ReplaceOrder, 1, replacement=Replacement(1, order_id, 1_010 * USD, COIN // 2))
    exchange.act(CancelOrder, 1, cancel=Cancel(1, order_id))


def test_a_freeze_of_0_lasts_until_reset() -> None:
    exchange, _ = quoting(quantity_ulots=1, frozen_ms=0)
    exchange.send(taking(exchange, COIN))
    assert protection(exchange).frozen_until_ms == MAX_U64


def test_orders_met_after_the_breach_are_removed_unfilled() -> None:
    """Also in a trial of fill-or-kill, which then does not fill."""
    exchange, _ = quoting(quantity_ulots=1)
    exchange.place(3, 1, Side.SELL, 1_010 * USD, COIN)
    order = Order(1, Side.BUY, OrderKind.FILL_OR_KILL, 1_009 * USD, 2 * COIN)
    must_reject_act(exchange, RejectCode.FILL_OR_KILL_UNFILLED, PlaceOrder, 2, order=order)
    order = Order(1, Side.BUY, OrderKind.FILL_OR_KILL, 1_010 * USD, 2 * COIN)
    exchange.act(PlaceOrder, 2, order=order)
    trades = exchange.results[-1].trades
    assert [trade.maker_account for trade in trades] == [1, 3]


def test_an_order_forced_through_l1_sets_it_off() -> None:
    exchange, _ = chain_exchange()
    exchange.place(3, 1, Side.SELL, 1_000 * USD, COIN)
    exchange.place(2, 1, Side.BUY, 1_000 * USD, COIN)
    protect(exchange, quantity_ulots=1)
    for place in range(3):
        exchange.place(1, 1, Side.BUY, (990 + place) * USD, COIN // 10)
    payload = (2).to_bytes(8, "big") + (1).to_bytes(4, "big") + b"\x01"
    payload += (980 * USD).to_bytes(8, "big") + COIN.to_bytes(8, "big")
    result = exchange.messages(L1Message(MessageKind.FORCED_ORDER, owner_address(2), 0, payload))
    assert result.messages[0].operation is not None
    assert result.messages[0].operation.filled_ulots == COIN // 10
    assert exchange.account(1).orders == 0


# The actions


def test_set_change_and_end() -> None:
    exchange, _ = chain_exchange()
    protect(exchange, quantity_ulots=5)
    protect(exchange, underlying="C2")
    found = extras(exchange, 1)
    assert found is not None
    assert found.protections == 2
    protection(exchange).frozen_until_ms = 77
    protect(exchange, quantity_ulots=6)
    assert (protection(exchange).quantity_limit_ulots, protection(exchange).frozen_until_ms) == (6, 77)
    protect(exchange, interval_ms=0)
    protect(exchange, underlying="C2", interval_ms=0)
    assert extras(exchange, 1) is None
    assert exchange.view.get(protection_key(1, b"C1")) is None


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (RejectCode.UNKNOWN_UNDERLYING, {"underlying": "C9"}),
        (RejectCode.UNKNOWN_UNDERLYING, {"underlying": "é"}),
        (RejectCode.UNKNOWN_UNDERLYING, {"underlying": "C" * 23}),
        (RejectCode.NUMBER_OUT_OF_RANGE, {"interval_ms": 86_400_001}),
        (RejectCode.NUMBER_OUT_OF_RANGE, {"frozen_ms": 86_400_001}),
        (RejectCode.NUMBER_OUT_OF_RANGE, {"quantity_ulots": 10**15 + 1}),
        (RejectCode.UNKNOWN_PROTECTION, {"interval_ms": 0}),
    ],
)
def test_bad_terms(code: RejectCode, changes: dict[str, Any]) -> None:
    exchange, _ = chain_exchange()
    terms: dict[str, Any] = {
        "underlying": "C1",
        "interval_ms": 1_000,
        "frozen_ms": 0,
        "quantity_ulots": 0,
        "delta_ulots": 0,
        "vega_uusd": 0,
    }
    action = SetProtection(**exchange.envelope(1), **(terms | changes))
    if changes.get("underlying") == "é":
        code = RejectCode.NUMBER_OUT_OF_RANGE
    must_reject(exchange, code, exchange.sign(action))


def test_there_must_be_something_to_reset() -> None:
    exchange, _ = chain_exchange()
    must_reject_act(exchange, RejectCode.UNKNOWN_PROTECTION, ResetProtection, 1, underlying="C1")
