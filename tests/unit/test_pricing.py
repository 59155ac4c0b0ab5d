"""The pricing snapshot: when it moves, what it holds, what marks follow from it, and what is stale."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.actions import Side
from state.calendar import expiry_name, next_expiry_s
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.fixed import ONE
from state.keys import (
    FEED,
    RATE,
    SURFACE,
    expiry_key,
    instrument_key,
    market_key,
    name_key,
    pricing_key,
)
from state.leaves import Expiry, Feed, Instrument, Kind, Market, Pricing, Status, Task
from state.margin_defaults import default_parameters
from state.pricing import (
    check_fresh,
    expiry_market,
    is_fresh,
    mark_of,
    pricing_of,
    settlement_uusd,
    volatility_ppb,
)
from state.recorder import RecordedExecution
from state.risk_array import make_risk_array, option_value
from state.risk_grid import make_expiry, make_grid
from state.transition import same_origin
from state.units import MAX_EXPIRIES
from tests.dated import (
    EXPIRY_S,
    FORWARD,
    INDEX,
    NAME,
    TAU_S,
    add_expiry,
    add_instrument,
    flat,
    full_report,
    priced_exchange,
    report_of,
    update_of,
)
from tests.unit.test_transition_steps import Witnessed
from tools.exchange import USD, Exchange, instrument, l1_origin, standard_exchange

GRID = make_grid(default_parameters())
YEAR_S = 365 * 86_400


@pytest.fixture
def exchange() -> Exchange:
    return priced_exchange()


def pricing(exchange: Exchange) -> Pricing:
    leaf: Pricing = exchange.view.get(pricing_key(1))
    return leaf


def mark(exchange: Exchange, market: int) -> int | None:
    terms: Instrument = exchange.view.get(instrument_key(market))
    state: Market = exchange.view.get(market_key(market))
    return mark_of(exchange.view, state, terms)


# When it moves


def test_the_first_snapshot_needs_index_and_forward() -> None:
    exchange = standard_exchange()
    add_expiry(exchange)
    exchange.now_ms += 1_000
    exchange.send(update_of(*[report_of(exchange, surfaces=[flat(600_000)])] * 3))
    assert pricing(exchange) == Pricing()
    assert pricing_of(exchange.view, 1) is None
    exchange.now_ms += 1_000
    exchange.send(update_of(*[report_of(exchange, {NAME: FORWARD})] * 3))
    assert pricing_of(exchange.view, 1) is pricing(exchange)
    assert pricing(exchange).version == 1
    assert pricing(exchange).rate_confidence_ppm == 0, "no rate yet: not to be trusted"
    expiry: Expiry = exchange.view.get(expiry_key(1))
    assert expiry.status == Status.TRADING


def test_a_snapshot_holds_all_values_together(exchange: Exchange) -> None:
    surface = flat(600_000)
    assert pricing(exchange) == Pricing(
        INDEX, 990_000, FORWARD, 990_000, 40_000_000, 950_000,
        surface.a_pico, 0, 0, 0, 10**11, FORWARD, TAU_S, 900_000,
        0, 10**9, 1_000_000, exchange.now_ms, 1,
    )  # fmt: skip


MOVES = {
    "index inside": ({"C1": INDEX * 10_002 // 10_000}, 600_000, False),
    "index outside": ({"C1": INDEX * 10_002 // 10_000 + 1}, 600_000, True),
    "index down": ({"C1": INDEX * 9_998 // 10_000 - 1}, 600_000, True),
    "forward inside": ({NAME: FORWARD * 9_998 // 10_000}, 600_000, False),
    "forward outside": ({NAME: FORWARD * 9_998 // 10_000 - 1}, 600_000, True),
    "volatility inside": ({}, 600_500, False),
    "volatility outside": ({}, 600_700, True),
    "a perpetual's mark": ({"C1-PERPETUAL": INDEX * 105 // 100}, 600_000, False),
}


@pytest.mark.parametrize("case", MOVES)
def test_the_dead_band(exchange: Exchange, case: str) -> None:
    prices, vol_ppm, moves = MOVES[case]
    before = replace(pricing(exchange))
    exchange.now_ms += 1_000
    exchange.send(update_of(*[report_of(exchange, prices, surfaces=[flat(vol_ppm)])] * 3))
    after = pricing(exchange)
    assert after.version == before.version + moves
    if moves:
        assert after.priced_ms == exchange.now_ms
    else:
        assert after == before


def test_after_ten_seconds_it_moves_however_little(exchange: Exchange) -> None:
    for elapsed_ms, version in ((10_000, 1), (1, 2)):
        exchange.now_ms += elapsed_ms
        exchange.send(update_of(*[report_of(exchange, {NAME: FORWARD + elapsed_ms})] * 3))
        assert pricing(exchange).version == version
    assert pricing(exchange).forward_uusd == FORWARD + 1


def test_inside_the_window_every_update_moves_it(exchange: Exchange) -> None:
    expiry: Expiry = exchange.view.get(expiry_key(1))
    exchange.now_ms = EXPIRY_S * 1_000 - 900_000
    exchange.send(update_of(*[full_report(exchange)] * 3))
    version = pricing(exchange).version
    exchange.now_ms += 1
    exchange.send(update_of(*[report_of(exchange, {NAME: FORWARD + 1})] * 3))
    assert pricing(exchange).version == version + 1
    exchange.now_ms += 3_000
    exchange.send(update_of(*[full_report(exchange)] * 3))
    assert pricing(exchange).version == version + 2, "once, though four of its feeds moved"
    assert expiry.covered_ms == 3_001
    assert pricing(exchange).live_ppb == (1_800_000 - 3_001) * 10**9 // 1_800_000
    assert pricing(exchange).fixed_uusd == INDEX * 3_001 // 1_800_000


def test_an_index_prices_all_its_expiries_and_no_others() -> None:
    exchange = priced_exchange()
    times = []
    after_s = EXPIRY_S
    for number in range(2, MAX_EXPIRIES + 1):
        after_s = next_expiry_s(1, after_s)
        times.append(after_s)
        add_expiry(exchange, number, after_s)
    exchange.now_ms += 1_000
    forwards = {expiry_name("C1", each): FORWARD for each in times}
    exchange.send(update_of(*[report_of(exchange, forwards)] * 3))
    versions = [exchange.view.get(pricing_key(number)).version for number in range(1, MAX_EXPIRIES + 1)]
    assert versions == [1] * MAX_EXPIRIES
    exchange.now_ms += 1_000
    exchange.report({"C1": INDEX * 101 // 100})
    versions = [exchange.view.get(pricing_key(number)).version for number in range(1, MAX_EXPIRIES + 1)]
    assert versions == [2] * MAX_EXPIRIES
    exchange.view.get(expiry_key(3)).status = int(Status.SETTLED)
    exchange.now_ms += 1_000
    exchange.report({"C1": INDEX})
    assert exchange.view.get(pricing_key(3)).version == 2, "settled"
    assert exchange.view.get(pricing_key(4)).version == 3


def test_every_step_of_an_update_executes_from_its_witness() -> None:
    exchange = priced_exchange()
    for number in (2, 3):
        add_expiry(exchange, number, EXPIRY_S + 86_400 * (number - 1))
    exchange.now_ms += 1_000
    witnessed = Witnessed()
    witnessed.store.leaves = exchange.leaves()
    witnessed.tree.update(witnessed.store.leaves)
    transaction = update_of(*[full_report(exchange, 700_000, FORWARD * 101 // 100)] * 3)
    recorded = RecordedExecution(witnessed.store, exchange.now_ms, l1_origin(0), (), witnessed.step)
    recorded.execute(transaction)
    recorded.end()
    exchange.send(transaction)
    assert witnessed.store.leaves == exchange.leaves()
    assert witnessed.tasks == {Task.NONE, Task.FEEDS, Task.PRICINGS, Task.TRIGGERS}
    # Begin, switches, what is due, end; the envelope; three prices, a rate, a surface; then C1 with its three
    # expiries, the expiry by its own name, the perpetual. After each feed and expiry one looks for triggers.
    assert witnessed.steps == 4 + 1 + 2 * (5 + 3 + 1) + 1


# Marks


def test_marks_of_what_has_no_values(exchange: Exchange) -> None:
    future = add_instrument(exchange, Kind.FUTURE)
    option = add_instrument(exchange, Kind.CALL, INDEX)
    assert mark(exchange, 1) == INDEX
    assert mark(exchange, future) == FORWARD
    exchange.view.put(pricing_key(1), replace(pricing(exchange), tau_s=0))
    assert mark(exchange, option) is None
    exchange.view.put(pricing_key(1), Pricing())
    assert mark(exchange, future) is None
    exchange.view.get(market_key(1)).mark_uusd = 0
    assert mark(exchange, 1) is None


def test_the_mark_of_what_settles_is_its_pay_off(exchange: Exchange) -> None:
    option = add_instrument(exchange, Kind.PUT, INDEX)
    exchange.view.get(instrument_key(option)).status = int(Status.SETTLING)
    exchange.view.get(market_key(option)).mark_uusd = 12_345
    assert mark(exchange, option) == 12_345
    exchange.view.get(market_key(option)).mark_uusd = 0
    assert mark(exchange, option) == 0


def black76(forward: float, strike: float, total_vol: float, discount: float, is_call: bool) -> float:
    def cdf(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    d1 = math.log(forward / strike) / total_vol + total_vol / 2
    sign = 1 if is_call else -1
    return discount * sign * (forward * cdf(sign * d1) - strike * cdf(sign * (d1 - total_vol)))


@pytest.mark.parametrize("is_call", [True, False])
@pytest.mark.parametrize("percent", [50, 80, 100, 125, 300])
def test_marks_are_black_76_at_the_surface(exchange: Exchange, percent: int, is_call: bool) -> None:
    strike = INDEX * percent // 100
    option = add_instrument(exchange, Kind.CALL if is_call else Kind.PUT, strike)
    years = (EXPIRY_S * 1_000 - pricing(exchange).priced_ms) / 1_000 / YEAR_S
    discount = math.exp(-0.04 * years)
    expected = black76(FORWARD, strike, 0.6 * math.sqrt(years), discount, is_call)
    found = mark(exchange, option)
    assert found is not None
    assert found == pytest.approx(expected, abs=3), "the variance was rounded to 10^-12"


any_pricing = st.builds(
    Pricing,
    st.integers(1, 10**15), st.integers(0, 10**6), st.integers(1, 10**15), st.integers(0, 10**6),
    st.integers(-(10**10), 10**10), st.integers(0, 10**6),
    st.integers(-(10**12), 144 * 10**12), st.integers(0, 2 * 10**12), st.integers(1 - 10**12, 10**12 - 1),
    st.integers(-16 * 10**12, 16 * 10**12), st.integers(1, 16 * 10**12),
    st.integers(1, 10**15), st.integers(1, 100 * YEAR_S), st.integers(0, 10**6),
    st.integers(0, 10**15), st.integers(0, 10**9), st.integers(1, 10**15), st.integers(0, 2**47),
    st.integers(1, 2**64 - 1),
)  # fmt: skip


@given(any_pricing, st.integers(1, 10**15), st.booleans())
def test_any_mark_is_that_of_the_risk_array(snapshot: Pricing, strike: int, is_call: bool) -> None:
    """So margin and mark agree to the last unit, and nothing in the domain raises."""
    exchange = Exchange()
    exchange.view.put(pricing_key(1), snapshot)
    dated = {"kind": 2 if is_call else 3, "strike_uusd": strike, "expiry_s": EXPIRY_S, "expiry": 1}
    terms = instrument("any", "C1", **dated)
    expiry = make_expiry(expiry_market(snapshot, EXPIRY_S), GRID)
    array = make_risk_array(expiry, GRID, strike, is_call)
    market = Market(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert mark_of(exchange.view, market, terms) == max(0, option_value(expiry, array, GRID.mark))
    assert expiry.forward == settlement_uusd(snapshot)


def test_inside_the_window_the_covered_part_is_certain(exchange: Exchange) -> None:
    half = replace(pricing(exchange), fixed_uusd=480 * USD, live_ppb=500_000_000)
    assert settlement_uusd(half) == 480 * USD + FORWARD // 2
    market = expiry_market(half, EXPIRY_S)
    assert market.forward == settlement_uusd(half)
    half.priced_ms = EXPIRY_S * 1_000 - 900_000
    assert expiry_market(half, EXPIRY_S).seconds_x56 == 900 * ONE
    half.priced_ms = EXPIRY_S * 1_000 + 500_000
    assert expiry_market(half, EXPIRY_S).seconds_x56 == 900 * ONE, "settlement waits, and so do options"
    done = replace(half, fixed_uusd=960 * USD, live_ppb=0)
    assert settlement_uusd(done) == 960 * USD
    assert expiry_market(done, EXPIRY_S).seconds_x56 == 0


def test_what_is_remembered_goes_by_values_not_by_version(exchange: Exchange) -> None:
    """iORACLE_003"""
    option = add_instrument(exchange, Kind.CALL, INDEX)
    before = mark(exchange, option)
    exchange.view.put(pricing_key(1), replace(pricing(exchange), forward_uusd=FORWARD * 2))
    assert mark(exchange, option) != before
    exchange.view.put(pricing_key(1), replace(pricing(exchange), forward_uusd=FORWARD, version=77))
    assert mark(exchange, option) == before


def test_volatility_at_the_money() -> None:
    assert volatility_ppb(360_000_000_000, 0, 0, 0, 1, YEAR_S) == 600_000_000
    assert volatility_ppb(90_000_000_000, 0, 0, 0, 1, YEAR_S // 4) == 600_000_000
    assert volatility_ppb(-1, 0, 0, 0, 1, YEAR_S) == 0
    # 0.01 + 0.1 (-0.5 (0 - 0.3) + sqrt(0.09 + 0.16)) = 0.075
    found = volatility_ppb(10**10, 10**11, -5 * 10**11, 3 * 10**11, 4 * 10**11, YEAR_S)
    assert found == int(math.sqrt(0.075) * 1e9)


# Freshness

FEED_KEYS: dict[str, tuple[bytes, dict[int, RejectCode]]] = {
    "stable": (
        name_key(FEED, "STABLE"),
        dict.fromkeys((0, 1, 2, 3), RejectCode.STABLE_STALE),
    ),
    "index": (name_key(FEED, "C1"), dict.fromkeys((0, 1, 2, 3), RejectCode.ORACLE_STALE)),
    "mark": (name_key(FEED, "C1-PERPETUAL"), {0: RejectCode.ORACLE_STALE}),
    "forward": (name_key(FEED, NAME), dict.fromkeys((1, 2, 3), RejectCode.FORWARD_STALE)),
    "rate": (name_key(RATE, NAME), dict.fromkeys((2, 3), RejectCode.RATE_STALE)),
    "surface": (name_key(SURFACE, NAME), dict.fromkeys((2, 3), RejectCode.VOLATILITY_STALE)),
}


def code_of(exchange: Exchange, terms: Instrument) -> int:
    try:
        check_fresh(exchange.view, BlockContext(exchange.now_ms, same_origin(exchange.view), None), terms)
    except Rejected as refusal:
        return refusal.code
    return 0


@pytest.mark.parametrize("name", FEED_KEYS)
def test_a_stale_or_missing_feed_stops_what_needs_it_and_nothing_else(exchange: Exchange, name: str) -> None:
    """iORACLE_004"""
    exchange.view.put(name_key(FEED, "STABLE"), Feed(1_000_000, 10**6, exchange.now_ms, 1))
    perpetual: Instrument = exchange.view.get(instrument_key(1))
    kinds: list[tuple[Kind, int]] = [(Kind.FUTURE, 0), (Kind.CALL, INDEX), (Kind.PUT, INDEX)]
    terms = [perpetual]
    terms += [exchange.view.get(instrument_key(add_instrument(exchange, *each))) for each in kinds]
    assert [code_of(exchange, each) for each in terms] == [0] * 4
    key, codes = FEED_KEYS[name]
    expected = [int(codes.get(each.kind, 0)) for each in terms]
    feed: Any = exchange.view.get(key)
    age_ms = exchange.parameters.oracle_max_age_ms
    feed.timestamp_ms = exchange.now_ms - age_ms
    assert [code_of(exchange, each) for each in terms] == [0] * 4, "just fresh"
    feed.timestamp_ms -= 1
    assert [code_of(exchange, each) for each in terms] == expected
    feed.heartbeat_ms = age_ms + 1
    assert [code_of(exchange, each) for each in terms] == [0] * 4, "its own heartbeat counts"
    if name != "stable":
        feed.version = 0
        assert [code_of(exchange, each) for each in terms] == expected


def test_without_a_stable_feed_the_collateral_is_at_par(exchange: Exchange) -> None:
    terms: Instrument = exchange.view.get(instrument_key(1))
    assert code_of(exchange, terms) == 0
    assert pricing(exchange).stable_uusd == 1_000_000
    exchange.view.put(name_key(FEED, "STABLE"), Feed())
    assert code_of(exchange, terms) == 0, "a feed without a value is not a peg lost"
    assert not is_fresh(Feed(), exchange.parameters, 0)


def test_stale_feeds_refuse_what_raises_risk_and_nothing_else(exchange: Exchange) -> None:
    """Orders that increase are refused with the feed's code; cancels and reduce-only orders always work."""
    exchange.view.put(name_key(FEED, "STABLE"), Feed())
    exchange.report({"STABLE": 1_000_000})
    exchange.place(1, 1, Side.BUY, INDEX, 1_000_000)
    exchange.place(2, 1, Side.SELL, INDEX, 1_000_000)
    resting = exchange.place(1, 1, Side.BUY, INDEX * 99 // 100, 1_000_000)
    exchange.now_ms += exchange.parameters.oracle_max_age_ms + 1
    exchange.report({"C1": INDEX, "C1-PERPETUAL": INDEX})
    for account, side in ((1, Side.BUY), (3, Side.SELL)):
        with pytest.raises(Rejected) as refusal:
            exchange.place(account, 1, side, INDEX, 1_000_000)
        assert refusal.value.code == RejectCode.STABLE_STALE
    exchange.cancel(1, 1, resting.operations[0].order_id)
    exchange.place(2, 1, Side.BUY, INDEX, 1_000_000, reduce_only=True)
    exchange.place(1, 1, Side.SELL, INDEX, 1_000_000, reduce_only=True)
    assert exchange.position(1, 1) is None
    exchange.report({"STABLE": 1_000_000})
    exchange.place(1, 1, Side.BUY, INDEX, 1_000_000)
