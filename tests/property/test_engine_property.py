"""The quick forms of the calculation engine equal their definitions, bit for bit.

Vectors against scalars (iENGINE_003), packed rows against sums of products (iMARGIN_012), words and
intermediates within their bounds at the extremes of amounts and prices (iENGINE_004, iMARGIN_013).
"""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from state import black76, fixed, lanes, vector_fixed
from state.expiry_sums import ExpiryHolding, expiry_sums, lane_sums, plain_sums
from state.fixed import MAX, ONE, TAIL
from state.margin_defaults import default_parameters
from state.portfolio import (
    CollateralHolding,
    PerpHolding,
    UnderlyingHolding,
    portfolio_margin,
)
from state.risk_array import make_risk_array
from state.risk_grid import MAX_SPOT_SHOCK, Grid, MarginParameters, Scenario, Vol, make_grid
from state.units import MAX_PRICE_UUSD, MAX_SIZE_ULOTS
from state.vector_risk import make_risk_arrays
from tests.risk_support import GRID, random_expiry, random_expiry_holding, random_strike

seeds = st.integers(0, 2**32)
words = st.integers(0, 62).flatmap(lambda bits: st.integers(0, 2**bits))
CONTRACT_BITS = 255


def vector(values: list[int]) -> vector_fixed.Vector:
    return np.array(values, dtype=np.int64)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=20))
def test_vector_prices_are_the_scalar_ones(pairs: list[tuple[int, int]]) -> None:
    divisors = [black76.divisor(w) for _, w in pairs]
    columns = [vector(list(column)) for column in zip(*divisors, strict=True)]
    got = vector_fixed.otm_fraction(vector([d for d, _ in pairs]), vector_fixed.VectorDivisor(*columns))
    expected = [black76.otm_fraction(d, by) for (d, _), by in zip(pairs, divisors, strict=True)]
    assert got.tolist() == expected


@settings(deadline=None, max_examples=200)
@given(st.lists(words, min_size=1, max_size=20))
def test_vector_functions_are_the_scalar_ones(xs: list[int]) -> None:
    clamped = [min(x, TAIL) for x in xs]
    assert vector_fixed.density_x62(vector(clamped)).tolist() == [fixed.density_x62(x) for x in clamped]
    assert vector_fixed.mills_x61(vector(xs)).tolist() == [fixed.mills_x61(x) for x in xs]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(-(2**59), 2**59), st.integers(-(2**59), 2**59)), min_size=1))
def test_vector_products_are_the_scalar_ones(pairs: list[tuple[int, int]]) -> None:
    got = vector_fixed.mul(vector([a for a, _ in pairs]), vector([b for _, b in pairs]))
    assert got.tolist() == [fixed.mul(a, b) for a, b in pairs]


def random_grid(rng: random.Random) -> Grid:
    """Scenarios and parameters of all sizes that are allowed."""
    kinds = list(Vol)
    scenarios = tuple(
        Scenario(
            rng.choice([0, ONE, rng.randint(0, MAX_SPOT_SHOCK)]), rng.choice(kinds), rng.randint(0, 2 * ONE)
        )
        for _ in range(rng.randint(1, 30))
    )
    default = default_parameters()
    moved = {
        name: rng.choice([value, value * rng.randint(50, 150) // 100, rng.randint(0, ONE)])
        for name, value in ((name, getattr(default, name)) for name in MarginParameters.__slots__[1:])
    }
    moved["min_k_star"] = max(moved["min_k_star"], 1)
    moved["linear_base"] = rng.randint(-ONE, ONE)
    return make_grid(MarginParameters(scenarios=scenarios, **moved))


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_chains_are_the_scalar_arrays(seed: int) -> None:
    rng = random.Random(seed)
    grid = rng.choice([GRID, random_grid(rng)])
    chain = []
    for _ in range(rng.randint(0, 4)):
        expiry = random_expiry(rng, grid)
        options = [(random_strike(rng, expiry.forward), rng.random() < 0.5) for _ in range(rng.randint(0, 9))]
        chain.append((expiry, options))
    expected = [[make_risk_array(expiry, grid, *option) for option in options] for expiry, options in chain]
    assert make_risk_arrays(grid, chain) == expected


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_values_are_within_their_bounds(seed: int) -> None:
    rng = random.Random(seed)
    grid = random_grid(rng)
    expiry = random_expiry(rng, grid)
    strike = random_strike(rng, expiry.forward)
    call, put = (make_risk_array(expiry, grid, strike, is_call) for is_call in (True, False))
    for c, p, forward in zip(call.values, put.values, expiry.forwards, strict=True):
        assert 0 <= c <= forward <= MAX_SPOT_SHOCK
        assert p == c - forward
        # A call is worth no less than its pay-off, and a put no less than its own.
        assert c * expiry.forward >= (forward * expiry.forward) - (strike << 56) - expiry.forward


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-(2**238), 2**238), min_size=1, max_size=68))
def test_lanes(values: list[int]) -> None:
    row = lanes.pack(values)
    found = lanes.make_lanes(len(values))
    assert row == sum(value << (lanes.LANE_BITS * place) for place, value in enumerate(values))
    assert found.unpack(row) == values
    lifted = row + found.halves
    assert [lanes.lane(lifted, place) for place in range(len(values))] == values
    assert found.unpack(found.positive_part(lifted)) == [max(value, 0) for value in values]


def with_orders(rng: random.Random, holding: ExpiryHolding) -> ExpiryHolding:
    """Open orders in some of its options, up to twice the largest amount."""
    limit = rng.choice([10**6, 2 * MAX_SIZE_ULOTS])
    buys, sells = ([rng.choice([0, rng.randint(0, limit)]) for _ in holding.options] for _ in "bs")
    return holding._replace(buys=buys, sells=sells)


def assert_packed_is_plain(grid: Grid, holding: ExpiryHolding) -> None:
    """iMARGIN_012."""
    packed, plain = lane_sums(grid, holding, ()), plain_sums(grid, holding)
    assert lanes.make_lanes(len(grid.points)).unpack(packed.row) == list(plain.values)
    assert packed._replace(row=0, values=plain.values) == plain


@settings(deadline=None, max_examples=60)
@given(seeds)
def test_packed_rows_give_the_definition(seed: int) -> None:
    rng = random.Random(seed)
    grid = rng.choice([GRID, random_grid(rng)])
    expiries = [random_expiry_holding(rng, rng.randint(1, 12), grid) for _ in range(rng.randint(0, 5))]
    for holding in expiries:
        if rng.random() < 0.7:
            holding = with_orders(rng, holding)
        assert_packed_is_plain(grid, holding)
        assert expiry_sums(grid, holding) in (lane_sums(grid, holding, ()), plain_sums(grid, holding))


def test_packed_rows_at_the_extremes() -> None:
    """128 options at the highest forward, all of the largest amount, valued as high as any grid allows."""
    widest = default_parameters().scenarios[0]._replace(spot=MAX_SPOT_SHOCK)
    parameters = {name: getattr(default_parameters(), name) for name in MarginParameters.__slots__}
    parameters |= {"scenarios": (widest,), "static_long": MAX, "static_short": MAX, "short_rate_add": MAX}
    grid = make_grid(MarginParameters(**parameters))
    rng = random.Random(1)
    for amount in (MAX_SIZE_ULOTS, -MAX_SIZE_ULOTS):
        for is_call in (True, False):
            expiry = random_expiry(rng, grid)
            expiry = type(expiry)(
                **{name: getattr(expiry, name) for name in expiry.__slots__}
                | {"forward": MAX_PRICE_UUSD, "long_factor": MAX, "short_factor": MAX}
            )
            array = make_risk_array(expiry, grid, MAX_PRICE_UUSD if not is_call else 1, is_call)
            holding = random_expiry_holding(rng, 0, grid)._replace(
                expiry=expiry, options=[array] * 128, amounts=[amount] * 128
            )
            assert_packed_is_plain(grid, holding)
            orders = holding._replace(buys=[2 * MAX_SIZE_ULOTS] * 128, sells=[2 * MAX_SIZE_ULOTS] * 128)
            assert_packed_is_plain(grid, orders)
            widest_product = max(map(abs, array.values)) * 128 * abs(amount) * MAX_PRICE_UUSD * MAX
            assert widest_product.bit_length() < lanes.LANE_BITS < CONTRACT_BITS


@settings(deadline=None, max_examples=40)
@given(seeds)
def test_the_margin_of_everything_at_once_adds_up(seed: int) -> None:
    """iMARGIN_010, iMARGIN_011: components add up exactly, underlyings do not offset, cash counts once."""
    rng = random.Random(seed)
    holdings = []
    for _ in range(rng.randint(0, 3)):
        expiries = [random_expiry_holding(rng, rng.randint(0, 6)) for _ in range(rng.randint(0, 3))]
        perps = [
            PerpHolding(rng.randint(-(10**9), 10**9), rng.randint(1, 10**12), rng.choice([ONE, ONE // 3]))
            for _ in range(rng.randint(0, 2))
        ]
        collaterals = [
            CollateralHolding(
                rng.randint(0, 10**9),
                rng.randint(1, 10**12),
                ONE // 2,
                ONE // 9,
                ONE // 8,
                rng.random() < 0.5,
            )
            for _ in range(rng.randint(0, 2))
        ]
        holdings.append(
            UnderlyingHolding(
                GRID,
                rng.randint(1, 10**12),
                ONE,
                rng.randint(-(10**12), 10**12),
                perps,
                expiries,
                collaterals,
            )
        )
    cash = rng.randint(-(10**15), 10**15)
    total = portfolio_margin(holdings, cash)
    alone = [portfolio_margin([each], 0) for each in holdings]
    assert total.initial_margin == cash + sum(each.initial_margin for each in alone)
    assert total.maintenance_margin == cash + sum(each.maintenance_margin for each in alone)
    assert total.mark_to_market == sum(each.mark_to_market for each in alone)
    for part in total.underlyings:
        assert part.worst == min(part.basis_contingency, *part.scenario_pnl)
        assert part.basis_contingency <= 0
        kept = part.mark_to_market - part.contingencies.maintenance
        assert part.initial_margin == part.worst - part.contingencies.initial + kept
        assert 0 <= part.maintenance_margin - kept - (part.worst * GRID.parameters.mm_factor >> 56) <= 1
