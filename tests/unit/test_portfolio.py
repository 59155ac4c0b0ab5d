"""Portfolio margin by hand: linear positions, factors of an expiry, contingencies, bounds."""

from __future__ import annotations

import random
from decimal import Decimal, localcontext

import pytest

from state.expiry_sums import ExpiryHolding
from state.fixed import MAX, ONE
from state.margin_defaults import default_parameters
from state.portfolio import (
    CollateralHolding,
    PerpHolding,
    UnderlyingHolding,
    UnderlyingMargin,
    portfolio_margin,
)
from state.risk_array import make_risk_array, option_value
from state.risk_grid import ExpiryMarket, MarginParameters, Point, Scenario, Vol, make_expiry, make_grid
from tests.risk_support import COIN, DAY_S, GRID, USD, expiry_at, flat_svi, x56
from tools import exact_math

SPOT = 60_000 * USD
NAMES = MarginParameters.__slots__


def parameters_with(**changes: object) -> MarginParameters:
    values = {name: getattr(default_parameters(), name) for name in NAMES}
    return MarginParameters(**(values | changes))


def only(holding: UnderlyingHolding, cash: int = 0, stable_price: int = ONE) -> UnderlyingMargin:
    (part,) = portfolio_margin([holding], cash, stable_price).underlyings
    return part


def near(value: int, expected: int) -> bool:
    return abs(value - expected) <= 1


def test_an_account_of_cash_only() -> None:
    margin = portfolio_margin([], 123)
    assert (margin.initial_margin, margin.maintenance_margin, margin.mark_to_market) == (123, 123, 0)


def test_a_perpetual_alone() -> None:
    """iMARGIN_014: its worst scenario is the largest damped move against it."""
    part = only(UnderlyingHolding(GRID, SPOT, ONE, 77, [PerpHolding(2 * COIN, SPOT, ONE)]))
    notional = 2 * SPOT
    assert near(part.scenario_pnl[0], notional * 18 // 100)
    assert near(part.scenario_pnl[23], -notional * 66 * 21 // 10_000)
    assert near(part.worst, -notional * 18 // 100)
    assert near(part.contingencies.perp_mm, notional * 3 // 100)
    assert near(part.contingencies.perp_im, notional // 100)
    assert part.mark_to_market == 77
    short = only(UnderlyingHolding(GRID, SPOT, ONE, 77, [PerpHolding(-2 * COIN, SPOT, ONE)]))
    assert all(abs(a + b) <= 1 for a, b in zip(part.scenario_pnl, short.scenario_pnl, strict=True))


def test_a_future_is_a_perpetual_at_its_forward() -> None:
    expiry = expiry_at(30 * DAY_S, SPOT)
    future = only(UnderlyingHolding(GRID, SPOT, ONE, 0, [], [ExpiryHolding(expiry, future_amount=COIN)]))
    perp = only(UnderlyingHolding(GRID, SPOT, ONE, 0, [PerpHolding(COIN, SPOT, ONE)]))
    assert future.scenario_pnl == perp.scenario_pnl
    assert future.contingencies == perp.contingencies
    assert future.basis_contingency < 0 == perp.basis_contingency


def test_a_future_settles_gradually_inside_the_last_half_hour() -> None:
    for seconds, part in ((1_800, 1), (900, 2), (450, 4)):
        expiry = expiry_at(seconds, SPOT)
        margin = only(UnderlyingHolding(GRID, SPOT, ONE, 0, [], [ExpiryHolding(expiry, future_amount=COIN)]))
        assert near(margin.scenario_pnl[0], SPOT * 18 // 100 // part)
    expired = ExpiryHolding(expiry_at(0, SPOT), future_amount=COIN)
    assert set(only(UnderlyingHolding(GRID, SPOT, ONE, 0, [], [expired])).scenario_pnl) == {0}


def test_synthetic_forward_offsets_a_future() -> None:
    """iMARGIN_015: call less put is the forward, and the future offsets it."""
    expiry = expiry_at(DAY_S, SPOT, grid=GRID)
    call, put = (make_risk_array(expiry, GRID, SPOT, is_call) for is_call in (True, False))
    holding = ExpiryHolding(expiry, [call, put], [COIN, -COIN], -COIN)
    part = only(UnderlyingHolding(GRID, SPOT, ONE, 0, [], [holding]))
    assert part.basis_contingency == 0
    assert near(part.scenario_pnl[11], 0)
    assert part.contingencies.option_mm == 0


def test_marks_are_black_76() -> None:
    expiry = expiry_at(30 * DAY_S, SPOT, 0.5, rate=x56("0.05"))
    call = make_risk_array(expiry, GRID, SPOT, True)
    put = make_risk_array(expiry, GRID, SPOT, False)
    value = option_value(expiry, call, GRID.mark)
    # At the money a call is worth about 0.4 of forward, volatility and root of time.
    assert abs(value - int(0.3989 * SPOT * 0.5 * (30 / 365) ** 0.5 * 0.9959)) < SPOT // 10_000
    assert abs(option_value(expiry, put, GRID.mark) - value) <= 1
    held = ExpiryHolding(expiry, [call, put], [3 * COIN, COIN])
    part = only(UnderlyingHolding(GRID, SPOT, ONE, 5, [], [held]))
    assert abs(part.mark_to_market - 5 - 4 * value) <= 4


def test_naked_shorts_are_covered_by_the_same_strike_only() -> None:
    expiry = expiry_at(30 * DAY_S, SPOT)
    strikes = [SPOT, SPOT, SPOT + 1_000 * USD]
    options = [make_risk_array(expiry, GRID, strike, place == 0) for place, strike in enumerate(strikes)]

    def naked(*amounts: int) -> int:
        held = ExpiryHolding(expiry, options, amounts)
        return only(UnderlyingHolding(GRID, SPOT, ONE, 0, [], [held])).contingencies.option_mm

    one = naked(-COIN, 0, 0)
    assert near(one, SPOT * 3 // 1_000)
    assert naked(-COIN, COIN, 0) == 0
    assert naked(-COIN, 2 * COIN, 0) == 0
    assert naked(-COIN, 0, COIN) == one
    assert near(naked(-COIN, 0, -COIN), 2 * one)


def test_low_confidence_costs_initial_margin_only() -> None:
    low = x56("0.4")
    perp = [PerpHolding(COIN, SPOT, low)]
    sure = only(UnderlyingHolding(GRID, SPOT, ONE, 0, [PerpHolding(COIN, SPOT, ONE)]))
    unsure = only(UnderlyingHolding(GRID, SPOT, ONE, 0, perp))
    assert near(unsure.contingencies.perp_oracle, SPOT * 6 // 10)
    assert sure.contingencies.perp_oracle == 0
    assert unsure.maintenance_margin == sure.maintenance_margin
    assert near(sure.initial_margin - unsure.initial_margin, SPOT * 6 // 10)
    # The perpetual's confidence counts for options beside it; one that is not held does not.
    expiry = expiry_at(DAY_S, SPOT)
    held = ExpiryHolding(expiry, [make_risk_array(expiry, GRID, SPOT, True)], [COIN])
    beside = only(UnderlyingHolding(GRID, SPOT, ONE, 0, perp, [held]))
    assert near(beside.contingencies.option_oracle, SPOT * 6 // 10)
    without = only(UnderlyingHolding(GRID, SPOT, ONE, 0, [PerpHolding(0, SPOT, low)], [held]))
    assert without.contingencies.option_oracle == 0
    at_threshold = UnderlyingHolding(GRID, SPOT, x56("0.55"), 0, [PerpHolding(COIN, SPOT, ONE)])
    assert only(at_threshold).contingencies.perp_oracle == 0


def test_a_doubted_forward_counts_for_the_future() -> None:
    expiry = expiry_at(DAY_S, SPOT, forward_confidence=0)
    held = ExpiryHolding(expiry, future_amount=-COIN)
    assert near(only(UnderlyingHolding(GRID, SPOT, ONE, 0, [], [held])).contingencies.perp_oracle, SPOT)


def test_collateral_that_offsets_risk() -> None:
    coin = CollateralHolding(COIN, SPOT, ONE, x56("0.1"), x56("0.05"), True)
    short = [PerpHolding(-COIN, SPOT, ONE)]
    part = only(UnderlyingHolding(GRID, SPOT, ONE, 0, short, [], [coin]))
    assert all(-1 <= pnl <= 0 for pnl in part.scenario_pnl)
    assert part.mark_to_market == SPOT
    assert near(part.contingencies.collateral_mm, SPOT // 20)
    assert near(part.contingencies.collateral_im, SPOT // 10)
    plain = only(UnderlyingHolding(GRID, SPOT, ONE, 0, short, [], [coin._replace(offsets_risk=False)]))
    assert plain.worst < -SPOT // 10


def test_a_lost_peg() -> None:
    """The stable price enters other assets' value and, below the threshold, the factor of initial margin."""
    holding = UnderlyingHolding(
        GRID,
        SPOT,
        ONE,
        0,
        [PerpHolding(COIN, SPOT, ONE)],
        [],
        [CollateralHolding(COIN, SPOT, ONE, 0, 0, False)],
    )
    sound, lost = only(holding), only(holding, stable_price=x56("0.94"))
    assert near(lost.mark_to_market, SPOT * 100 // 94)
    moved = lost.initial_margin - lost.mark_to_market - (sound.initial_margin - sound.mark_to_market)
    assert abs(moved - sound.worst * 20 // 100) <= 3


def test_points_are_shared() -> None:
    assert len(GRID.points) == 33
    assert GRID.points[GRID.mark] == Point(ONE, Vol.NONE)
    assert GRID.places[11] == GRID.mark
    assert (GRID.points[GRID.basis_up].spot, GRID.points[GRID.basis_down].spot) == (
        x56("1.045"),
        x56("0.955"),
    )
    assert [GRID.points[place].vol for place in GRID.places] == [s.vol for s in GRID.parameters.scenarios]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenarios": ()}, "scenarios"),
        ({"scenarios": (Scenario(ONE, Vol.UP, ONE),) * 65}, "scenarios"),
        ({"scenarios": (Scenario(-1, Vol.UP, ONE),)}, "number 0"),
        ({"scenarios": (Scenario(33 * ONE, Vol.UP, ONE),)}, "number 0"),
        ({"scenarios": (Scenario(ONE, Vol.UP, -1),)}, "number 0"),
        ({"basis_up": 33 * ONE}, "basis_up"),
        ({"basis_down": -1}, "basis_down"),
        ({"min_k_star": 0}, "min_k_star"),
        ({"im_factor": MAX + 1}, "im_factor"),
    ],
)
def test_parameters_out_of_bounds(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameters_with(**changes)


def test_an_expiry_out_of_bounds() -> None:
    svi = flat_svi(0.5, DAY_S, SPOT)
    for market in (ExpiryMarket(DAY_S << 56, 0, 0, svi), ExpiryMarket(101 * 365 * DAY_S << 56, SPOT, 0, svi)):
        with pytest.raises(ValueError, match="out of bounds"):
            make_expiry(market, GRID)


def test_an_expiry_saturates() -> None:
    """iENGINE_002: no rate, time or parameter makes a factor leave its word."""
    svi = flat_svi(0.5, DAY_S, SPOT)
    extreme = parameters_with(
        range_up=MAX,
        range_down=MAX,
        power_short=MAX,
        power_long=MAX,
        days_floor=0,
        short_rate_add=MAX,
        static_short=MAX,
        basis_mult=MAX,
        long_rate_add=-MAX,
        static_long=MAX,
    )
    grid = make_grid(extreme)
    for seconds, rate in ((0, MAX), (1, -MAX), (99 * 365 * DAY_S, MAX), (-5, 0)):
        expiry = make_expiry(ExpiryMarket(seconds << 56, SPOT, rate, svi), grid)
        for name in ("discount", "vol_up", "vol_down", "long_factor", "short_factor", "basis_weight"):
            assert 0 <= getattr(expiry, name) <= MAX
        array = make_risk_array(expiry, grid, SPOT, True)
        assert all(0 <= value <= 32 * ONE for value in array.values)


def test_an_expired_option_is_its_pay_off() -> None:
    expiry = expiry_at(0, SPOT)
    for strike in (SPOT - 1_000 * USD, SPOT, SPOT + 1_000 * USD):
        call, put = (make_risk_array(expiry, GRID, strike, is_call) for is_call in (True, False))
        for place in GRID.places:
            assert near(option_value(expiry, call, place), max(SPOT - strike, 0))
            assert near(option_value(expiry, put, place), max(strike - SPOT, 0))


def test_too_many_instruments() -> None:
    expiry = expiry_at(DAY_S, SPOT)
    array = make_risk_array(expiry, GRID, SPOT, True)
    held = ExpiryHolding(expiry, [array] * 126, [COIN] * 126, COIN)
    perp = PerpHolding(COIN, SPOT, ONE)
    portfolio_margin([UnderlyingHolding(GRID, SPOT, ONE, 0, [perp], [held])], 0)
    with pytest.raises(ValueError, match="more than 128"):
        portfolio_margin([UnderlyingHolding(GRID, SPOT, ONE, 0, [perp, perp], [held])], 0)


def test_a_worthless_stable_price() -> None:
    portfolio_margin([], 0, ONE >> 7)
    with pytest.raises(ValueError, match="stable price"):
        portfolio_margin([], 0, (ONE >> 7) - 1)


def test_the_error_of_values() -> None:
    """Against 50 digits: below 4 units for shocks up to 2, 2 units of the shocked forward beyond."""
    rng = random.Random(20_261_123)
    for _ in range(25):
        seconds, vol = rng.choice([3, 900, 1_799, DAY_S, 100 * DAY_S, 900 * DAY_S]), rng.uniform(0.05, 2.5)
        expiry = expiry_at(seconds, SPOT, vol)
        strike = round(SPOT * rng.choice([1, rng.uniform(0.5, 2), rng.uniform(0.01, 20)]))
        values = make_risk_array(expiry, GRID, strike, True).values
        with localcontext(exact_math.CONTEXT):
            years = Decimal(seconds) / (365 * DAY_S)
            live = min(Decimal(seconds) / 1_800, Decimal(1))
            flat = Decimal(vol) * years.sqrt()
            floor_up = Decimal("0.4") * years.sqrt()
            factors = {Vol.NONE: Decimal(1), Vol.DOWN: Decimal(expiry.vol_down) / ONE}
            for point, value in zip(GRID.points, values, strict=True):
                if point.vol in (Vol.LINEAR, Vol.ABS):
                    continue
                total = flat * factors.get(point.vol, Decimal(expiry.vol_up) / ONE)
                total = max(total, floor_up) if point.vol == Vol.UP else total
                forward = live * point.spot / ONE + 1 - live
                call, _, _ = exact_math.black76(forward, Decimal(strike) / SPOT, total)
                assert abs(value - call * ONE) < max(Decimal(4), 2 * forward), (seconds, vol, strike, point)
