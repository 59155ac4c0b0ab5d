"""The desk's quotes and hedges, and the choices of those who trade with it."""

from __future__ import annotations

from typing import Any

import pytest

from state.actions import OrderKind, Side
from state.eip712 import Domain
from tools.block_scene import EDGE, quote_of, spread
from tools.flow import Listed
from tools.market import Trader, spec_for, strike_step_uusd
from tools.option_desk import (
    MOST_QUOTES,
    QUOTED_USD,
    VOLATILITY_POINTS,
    delta_of,
    hedge_of,
    quotes_of,
)
from tools.option_market import Contract
from tools.option_takers import taking
from tools.order_sender import OrderSender

USD = 1_000_000
INDEX = 60_000.0
CALL = Contract("BTC-27DEC26-60000-C", 7, True, 1_000, 60_000.0, USD, 10_000)
FUTURE = Contract("BTC-27DEC26", 5, False, 1_000, 0.0, USD, 10_000)
PERPETUAL = Listed(1, spec_for("BTC", 60_000 * USD))


def ticker(mark: float | None = 1_000.0, **fields: Any) -> dict[str, Any]:
    return {
        "mark_price": mark,
        "index_price": INDEX,
        "min_price": 1.0,
        "max_price": 13_000.0,
        "best_bid_price": 990.0,
        "best_ask_price": 1_010.0,
        "greeks": {"delta": 0.5, "vega": 12.0},
    } | fields


def test_an_option_is_quoted_as_wide_as_its_vega_says() -> None:
    bid, ask = quotes_of(CALL, ticker(), 0)
    half = 12 * VOLATILITY_POINTS
    assert (bid.price_uusd, ask.price_uusd) == ((1_000 - half) * USD, (1_000 + half) * USD)
    assert (bid.side, ask.side, bid.kind) == (Side.BUY, Side.SELL, OrderKind.POST_ONLY)
    assert bid.size_ulots == ask.size_ulots == CALL.lots(QUOTED_USD, INDEX)
    assert bid.size_ulots % CALL.lot_ulots == 0


def test_a_quote_is_a_tick_wide_at_least_and_on_the_tick() -> None:
    bid, ask = quotes_of(CALL, ticker(1_000.3, greeks={"delta": 0.0, "vega": 0.001}), 0)
    assert (bid.price_uusd, ask.price_uusd) == (999 * USD, 1_002 * USD)


def test_what_it_holds_moves_its_quotes_and_at_last_stops_one_side() -> None:
    size = CALL.lots(QUOTED_USD, INDEX)
    flat, long = (quotes_of(CALL, ticker(), held) for held in (0, size * MOST_QUOTES // 2))
    assert long[0].price_uusd < flat[0].price_uusd
    assert long[1].price_uusd < flat[1].price_uusd
    full = quotes_of(CALL, ticker(), size * MOST_QUOTES)
    assert [each.side for each in full] == [Side.SELL]
    full = quotes_of(CALL, ticker(), -size * MOST_QUOTES)
    assert [each.side for each in full] == [Side.BUY]


def test_a_worthless_option_has_no_bid_and_the_band_bounds_quotes() -> None:
    assert [each.side for each in quotes_of(CALL, ticker(0.2), 0)] == [Side.SELL]
    (bid,) = quotes_of(CALL, ticker(1_000.0, min_price=990.0, max_price=1_003.0), 0)
    assert bid.side == Side.BUY


@pytest.mark.parametrize("missing", [{"mark_price": None}, {"index_price": None}, {"greeks": None}])
def test_without_mark_index_or_greeks_there_is_no_quote(missing: dict[str, Any]) -> None:
    assert quotes_of(CALL, ticker() | missing, 0) == []


def test_deltas() -> None:
    assert delta_of(CALL, ticker()) == 0.5
    assert delta_of(CALL, ticker(greeks=None)) == 0
    assert delta_of(FUTURE, {}) == 1


def test_a_hedge_brings_delta_back_and_small_deltas_are_left() -> None:
    perpetual = ticker(INDEX, best_bid_price=59_990.0, best_ask_price=60_010.0)
    sell = hedge_of(PERPETUAL, perpetual, 1.2345678)
    assert sell is not None
    assert (sell.side, sell.size_ulots, sell.kind) == (Side.SELL, 1_234_000, OrderKind.IMMEDIATE_OR_CANCEL)
    assert sell.price_uusd < 59_990 * USD
    assert sell.price_uusd % PERPETUAL.spec.tick_uusd == 0
    buy = hedge_of(PERPETUAL, perpetual, -1.0)
    assert buy is not None
    assert (buy.side, buy.size_ulots) == (Side.BUY, 1_000_000)
    assert buy.price_uusd > 60_010 * USD
    assert hedge_of(PERPETUAL, perpetual, 0.1) is None
    assert hedge_of(PERPETUAL, ticker(best_ask_price=None), -1.0) is None


def test_takers_take_the_other_sides_best() -> None:
    buy = taking(CALL, ticker(best_ask_price=1_010.000000001), Side.BUY, 12_000.0)
    assert buy is not None
    assert (buy.price_uusd, buy.size_ulots) == (1_010 * USD, 200_000)
    sell = taking(CALL, ticker(best_bid_price=989.999999999), Side.SELL, 12_000.0)
    assert sell is not None
    assert sell.price_uusd == 990 * USD
    assert taking(CALL, ticker(best_ask_price=None), Side.BUY, 12_000.0) is None


def test_the_block_trades_legs_and_price() -> None:
    further = Contract("BTC-27DEC26-61000-C", 9, True, 1_000, 61_000.0, USD, 10_000)
    legs = spread([FUTURE, CALL, further])
    assert legs == [(CALL, Side.SELL), (further, Side.BUY), (FUTURE, Side.BUY)]
    assert spread([]) == spread([FUTURE, CALL]) == spread([CALL, further]) == []
    sender = OrderSender(Domain(1, bytes(20)), lambda: 5_000)
    maker, taker = Trader("a"), Trader("b")
    maker.account, taker.account = 1, 2
    found = [ticker(1_000.0), ticker(600.0), ticker(60_100.0)]
    quote = quote_of(sender, maker, taker, legs, found)
    assert [leg.size_ulots for leg in quote.legs] == [1_000_000, 1_000_000, 500_000]
    worth = 60_000 * 2.5
    assert quote.net_uusd == round((1_000 - 600 - 60_100 / 2 + worth * EDGE) * USD)
    assert (quote.account, quote.taker_account, quote.expiry_s) == (1, 2, 65)


@pytest.mark.parametrize(
    ("price", "step"),
    [(60_000 * USD, 1_000 * USD), (2_500 * USD, 50 * USD), (100 * USD, USD), (150_000, 10_000), (1, 10_000)],
)
def test_strikes_are_a_round_percent_or_two_apart(price: int, step: int) -> None:
    assert strike_step_uusd(price) == step
