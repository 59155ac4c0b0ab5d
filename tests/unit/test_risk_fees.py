"""The fee on risk: by hand, nothing for what reduces, and how its rate rises (iFEE_008, iFEE_009)."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from math import ceil
from typing import Any

import pytest

from state.actions import (
    BulkOrders,
    Cancel,
    CancelAll,
    Order,
    OrderKind,
    PlaceOrder,
    Replacement,
    ReplaceOrder,
    Side,
)
from state.calendar import Rule
from state.keys import INDEX_VARIANCE, instrument_key, name_key, pricing_key
from state.leaves import FeeTerms, IndexVariance, Instrument, Kind, Status
from state.margin_terms import DEFAULT_GRIDS
from state.pricing import expiry_market, mark_of
from state.risk_array import make_risk_array
from state.risk_fees import rate_of, worst_of
from state.risk_grid import make_expiry
from tests.depth import witness_block
from tests.exchange_checks import assert_conserved
from tools.exchange import COIN, USD, Exchange, standard_exchange
from tools.option_exchange import full_update, markets_of, series_message

BUY, SELL = Side.BUY, Side.SELL
PRICE = 1_000 * USD
RATE = 100


@pytest.fixture
def exchange() -> Exchange:
    """The rate is 100 ppm whatever happens."""
    made = standard_exchange(3)
    made.set_fees(risk_ppm=RATE, risk_most_ppm=0)
    mark(made)
    return made


def mark(exchange: Exchange) -> None:
    """Rates are made anew with marks."""
    exchange.now_ms += 1
    exchange.report({"C1": PRICE, "C1-PERPETUAL": PRICE})


def worst(ulots: int, ppm: int) -> int:
    """The fee on a worst loss at the mark of 1,000."""
    return -(-ulots * ppm * 1_000 * RATE // 10**12)


def risk_of(exchange: Exchange, kind: type[Any], **fields: Any) -> int:
    insurance = exchange.system.insurance_uusd
    result = exchange.act(kind, 1, **fields)
    assert exchange.system.insurance_uusd - insurance == result.fee_parts[-1]
    return result.fee_parts[-1]


def place(exchange: Exchange, side: Side, ulots: int, **more: Any) -> int:
    return exchange.place(1, 1, side, PRICE + (10 * USD if side else -10 * USD), ulots, **more).fee_parts[-1]


def test_by_hand(exchange: Exchange) -> None:
    down, up = DEFAULT_GRIDS.down_ppm, DEFAULT_GRIDS.up_ppm
    assert 100_000 < min(down, up) <= max(down, up) < 400_000
    assert place(exchange, BUY, COIN) == worst(COIN, down) > 10_000
    assert place(exchange, SELL, COIN) == max(0, worst(COIN, up) - worst(COIN, down))
    assert place(exchange, SELL, COIN) == worst(2 * COIN, up) - max(worst(COIN, up), worst(COIN, down))
    assert place(exchange, BUY, COIN // 10) == 0, "the other side is worse"
    assert_conserved(exchange)


def test_what_reduces_is_free(exchange: Exchange) -> None:
    exchange.place(2, 1, SELL, PRICE, 2 * COIN)
    exchange.place(1, 1, BUY, PRICE, 2 * COIN)
    assert place(exchange, SELL, 2 * COIN) == 0
    assert place(exchange, SELL, COIN, reduce_only=True) == 0
    assert place(exchange, BUY, COIN, kind=OrderKind.POST_ONLY) > 0
    assert risk_of(exchange, CancelAll, market=0) == 0


def test_replacing_pays_for_what_is_larger(exchange: Exchange) -> None:
    order_id = exchange.place(1, 1, BUY, PRICE - 10 * USD, COIN).operations[0].order_id

    def replace(ulots: int) -> int:
        return risk_of(exchange, ReplaceOrder, replacement=Replacement(1, order_id, PRICE - 20 * USD, ulots))

    assert replace(COIN) == replace(COIN // 2) == 0
    assert replace(COIN) == worst(COIN // 2, DEFAULT_GRIDS.down_ppm)
    assert replace(0) == 0


def test_a_bulk_action_is_taken_together(exchange: Exchange) -> None:
    ids = [exchange.place(1, 1, BUY, PRICE - 10 * USD, COIN).operations[0].order_id for _ in range(2)]
    fresh = Order(1, BUY, OrderKind.LIMIT, PRICE - 20 * USD, COIN)
    moved = (Replacement(1, ids[1], PRICE - 30 * USD, COIN),)
    assert (
        risk_of(exchange, BulkOrders, cancels=(Cancel(1, ids[0]),), replacements=moved, orders=(fresh,)) == 0
    )
    one = worst(COIN, DEFAULT_GRIDS.down_ppm)
    again = (Cancel(1, ids[1]),) * 30
    assert risk_of(exchange, BulkOrders, cancels=again, replacements=(), orders=(fresh,) * 3) == 2 * one
    unknown = (Cancel(1, 77), Cancel(1, ids[1]))
    assert risk_of(exchange, BulkOrders, cancels=unknown, replacements=(), orders=(fresh,)) == one


def test_a_post_only_order_counts_in_part() -> None:
    exchange = standard_exchange(3)
    exchange.set_fees(risk_ppm=RATE, risk_most_ppm=0, risk_resting_ppm=100_000)
    mark(exchange)
    down = DEFAULT_GRIDS.down_ppm
    assert place(exchange, BUY, COIN, kind=OrderKind.POST_ONLY) == worst(COIN // 10, down)
    assert place(exchange, BUY, COIN) == worst(COIN, down), "what rests counts whole from then on"
    orders = [Order(1, BUY, kind, PRICE - 10 * USD, COIN) for kind in (OrderKind.LIMIT, OrderKind.POST_ONLY)]
    assert risk_of(exchange, BulkOrders, cancels=(), replacements=(), orders=tuple(orders)) == worst(
        11 * COIN // 10, down
    )
    everything = tuple(Cancel(1, each.operations[0].order_id) for each in exchange.results[-3].results)
    again = (Order(1, BUY, OrderKind.POST_ONLY, PRICE - 10 * USD, 2 * COIN),)
    assert risk_of(exchange, BulkOrders, cancels=everything, replacements=(), orders=again) == worst(
        COIN // 10, down
    ), "only by what it is more"


@pytest.fixture
def dated() -> tuple[Exchange, dict[str, int]]:
    """A future and options on C1 at 1,000, and their markets by what follows their expiry."""
    made = standard_exchange(3)
    made.messages(series_message("C1", Rule.DAILY, 1, strikes=1))
    made.now_ms += 1
    made.set_fees(risk_ppm=RATE, risk_most_ppm=0)
    made.send(full_update(made, {"C1": 1_000 * USD}))
    return made, {name.partition("-")[2].partition("-")[2]: n for name, n in markets_of(made, 1).items()}


def test_dated_instruments_by_their_worst_scenario(dated: tuple[Exchange, dict[str, int]]) -> None:
    exchange, markets = dated
    forward = settled_at(exchange, markets[""])
    future = exchange.place(1, markets[""], BUY, 990 * USD, COIN).fee_parts[-1]
    assert future == -(-RATE * DEFAULT_GRIDS.down_ppm * forward // 10**12)
    call = markets["1000-C"]
    leaf: Instrument = exchange.view.get(instrument_key(call))
    found = worst_of(exchange.view, exchange.market(call), leaf)
    assert found is not None
    value = mark_of(exchange.view, exchange.market(call), leaf)
    assert value is not None
    assert value * 95 // 100 <= found.price_uusd * found.down_ppm // 10**6 <= value + forward // 10**6 + 1
    in_the_money = forward * DEFAULT_GRIDS.up_ppm // 10**6 - value
    assert in_the_money * 95 // 100 < found.price_uusd * found.up_ppm // 10**6 < in_the_money * 12 // 10
    bought = exchange.place(1, call, BUY, 1 * USD, COIN).fee_parts[-1]
    sold = exchange.place(2, call, SELL, 30 * USD, COIN).fee_parts[-1]
    assert bought == -(-RATE * found.down_ppm * found.price_uusd // 10**12) > 0
    assert sold == -(-RATE * found.up_ppm * found.price_uusd // 10**12) > 3 * bought
    assert exchange.place(2, call, BUY, 1 * USD, COIN).fee_parts[-1] == 0, "the other side is worse"
    assert_conserved(exchange)


def test_what_no_longer_trades_is_refused_and_not_priced(dated: tuple[Exchange, dict[str, int]]) -> None:
    exchange, markets = dated
    leaf: Instrument = exchange.view.get(instrument_key(markets["1000-C"]))
    settling = replace(leaf, status=int(Status.SETTLING))
    assert worst_of(exchange.view, exchange.market(markets["1000-C"]), settling) is None


def test_an_option_loses_most_at_the_worst_of_its_array(dated: tuple[Exchange, dict[str, int]]) -> None:
    """By hand: from the engine's values, scenario by scenario."""
    exchange, markets = dated
    grid = DEFAULT_GRIDS.grid
    for name in ("1000-C", "1000-P"):
        leaf: Instrument = exchange.view.get(instrument_key(markets[name]))
        pricing = exchange.view.get(pricing_key(leaf.expiry))
        expiry = make_expiry(expiry_market(pricing, leaf.expiry_s), grid)
        array = make_risk_array(expiry, grid, leaf.strike_uusd, leaf.kind == Kind.CALL)
        moves = []
        for number, damp in enumerate(grid.damps):
            place = grid.places[number]
            move = Fraction((array.values[place] - array.values[grid.mark]) * damp, 2**112) * 10**6
            moves += [move, -move] if place in grid.skews else [move]
        found = worst_of(exchange.view, exchange.market(markets[name]), leaf)
        assert found == (expiry.forward, ceil(-min(moves)), ceil(max(moves)))


def settled_at(exchange: Exchange, market: int) -> int:
    leaf: Instrument = exchange.view.get(instrument_key(market))
    found = mark_of(exchange.view, exchange.market(market), leaf)
    assert found is not None
    return found


# The rate


def test_rate_by_hand() -> None:
    terms = FeeTerms(risk_ppm=2, risk_most_ppm=100, open_interest_uusd=10**12, fund_target_ppm=10_000)
    one = 10**6
    assert rate_of(terms, 0, 0, 0) == 2 * one
    # 80 % a year is 0.64 of variance, of 31,536,000 seconds.
    assert rate_of(terms, 64 * 10**16 // 31_536_000 + 1, 0, 0) == 4 * one
    assert rate_of(terms, 0, 5 * 10**11, 10**12) == 3 * one, "half the limit is open"
    assert rate_of(terms, 0, 5 * 10**11, 5 * 10**9) == 3 * one, "the fund has its hundredth"
    assert rate_of(terms, 0, 5 * 10**11, 25 * 10**8) == 4 * one, "the fund has half of it"
    assert rate_of(terms, 0, 5 * 10**11, 0) == 5 * one
    assert rate_of(terms, 2**60, 10**17, 0) == 100 * one
    assert rate_of(FeeTerms(risk_ppm=2, risk_most_ppm=1), 2**60, 10**17, 0) == 2 * one


def test_rate_is_bounded_and_never_falls_with_risk() -> None:
    """iFEE_009"""
    chance = random.Random(5)
    for _ in range(2_000):
        terms = FeeTerms(
            open_interest_uusd=chance.choice((1, 10**12, 2**63)),
            risk_most_ppm=chance.choice((0, 5, 10_000)),
            volatility_ppm=chance.choice((1, 10**6, 2**32 - 1)),
            fund_target_ppm=chance.choice((0, 10_000, 10**6)),
            risk_ppm=chance.choice((0, 1, 10_000)),
        )
        base = terms.risk_ppm
        at = [chance.randrange(2 ** chance.randrange(1, 57)) for _ in range(3)]
        rate = rate_of(terms, *at)
        assert base * 10**6 <= rate <= max(base, terms.risk_most_ppm) * 10**6 or base == rate == 0
        more = chance.randrange(10**12)
        assert rate_of(terms, at[0] + more, at[1], at[2]) >= rate
        assert rate_of(terms, at[0], at[1], max(0, at[2] - more)) >= rate


def variance(exchange: Exchange) -> int:
    leaf: IndexVariance | None = exchange.view.get(name_key(INDEX_VARIANCE, "C1"))
    return 0 if leaf is None else leaf.ppb2_per_s


def test_variance_of_the_index_by_hand() -> None:
    exchange = standard_exchange(1)
    exchange.now_ms += 4_000
    exchange.report({"C1": 1_010 * USD, "C1-PERPETUAL": 1_000 * USD})
    # A hundredth in 4 s: 10^14 / 4 a second, with a weight of 4 in 3,604.
    assert variance(exchange) == 10**14 // 3_604
    exchange.now_ms += 60_000
    exchange.report({"C1": 1_010 * USD, "C1-PERPETUAL": 1_100 * USD})
    assert variance(exchange) == 10**14 // 3_604 * 3_600 // 3_660, "marks do not count"
    assert exchange.view.get(name_key(INDEX_VARIANCE, "C1-PERPETUAL")) is None


def test_every_step_has_what_it_needs() -> None:
    exchange = standard_exchange(3)
    exchange.set_fees(risk_ppm=50)
    mark(exchange)
    exchange.now_ms += 1_000
    transactions = [exchange.update({"C1": 1_020 * USD})]
    for number, side in enumerate((BUY, SELL, BUY)):
        order = Order(1, side, OrderKind.LIMIT, PRICE, (number + 1) * COIN)
        transactions.append(
            exchange.sign(
                BulkOrders(**exchange.envelope(number + 1), cancels=(), replacements=(), orders=(order,))
            )
        )
    witness_block(exchange, *transactions)
    assert [result.fee_parts[-1] > 0 for result in exchange.results[-1].results[1:]] == [True] * 3


def test_every_step_of_dated_instruments_has_what_it_needs(dated: tuple[Exchange, dict[str, int]]) -> None:
    exchange, markets = dated
    transactions = [
        exchange.sign(
            PlaceOrder(
                **exchange.envelope(number), order=Order(markets[name], side, OrderKind.LIMIT, 20 * USD, COIN)
            )
        )
        for number, (name, side) in enumerate((("1000-C", BUY), ("1000-C", SELL), ("1000-P", SELL)), start=1)
    ]
    witness_block(exchange, *transactions)
    assert all(result.fee_parts[-1] > 0 for result in exchange.results[-1].results)
