"""Markets and holdings for tests of the risk engine, in the exchange's units."""

from __future__ import annotations

import random
from fractions import Fraction

from state.expiry_sums import ExpiryHolding
from state.fixed import ONE
from state.margin_defaults import default_parameters
from state.risk_array import make_risk_array
from state.risk_grid import Expiry, ExpiryMarket, Grid, make_expiry, make_grid
from state.svi import Svi
from state.units import MAX_PRICE_UUSD, MAX_SIZE_ULOTS

USD = 10**6
COIN = 10**6
DAY_S = 86_400
GRID = make_grid(default_parameters())


def x56(value: float | str) -> int:
    return round(Fraction(value) * ONE)


def flat_svi(vol: float, seconds: int, forward: int) -> Svi:
    """One volatility for all strikes."""
    tau = Fraction(max(seconds, 1), 365 * DAY_S)
    variance = Fraction(vol) ** 2 * tau
    return Svi(round(variance * 2**112), 0, 0, 0, ONE // 10, forward, round(tau * 2**112))


def expiry_at(seconds: int, forward: int, vol: float = 0.6, grid: Grid = GRID, **market: int) -> Expiry:
    rate = market.pop("rate", 0)
    return make_expiry(
        ExpiryMarket(seconds << 56, forward, rate, flat_svi(vol, seconds, forward), **market), grid
    )


def random_expiry(rng: random.Random, grid: Grid = GRID) -> Expiry:
    """Of any time, forward and volatility."""
    seconds = rng.choice([0, 1, 60, 1_700, 1_800, DAY_S, 30 * DAY_S, rng.randrange(900 * DAY_S)])
    forward = rng.choice([rng.randrange(1, 100), rng.randrange(1, MAX_PRICE_UUSD + 1), 63_000 * USD])
    svi = Svi(
        rng.getrandbits(rng.randint(60, 112)),
        rng.getrandbits(rng.randint(60, 112)),
        rng.randint(-ONE, ONE),
        rng.randint(-ONE, ONE),
        rng.randint(0, ONE),
        max(1, forward * rng.randint(1, 40) // 20),
        max(1, (seconds << 112) // (365 * DAY_S)),
    )
    confidences = {
        name: rng.choice([ONE, ONE // 2, 0])
        for name in ("forward_confidence", "rate_confidence", "vol_confidence")
    }
    return make_expiry(
        ExpiryMarket(seconds << 56, forward, rng.randint(-ONE // 10, ONE), svi, **confidences), grid
    )


def random_strike(rng: random.Random, forward: int) -> int:
    """Near the forward, far from it, at the bounds."""
    near = forward * rng.randint(10, 500) // 100
    return min(max(rng.choice([near, forward, 1, MAX_PRICE_UUSD, near * 1_000]), 1), MAX_PRICE_UUSD)


def random_expiry_holding(rng: random.Random, options: int, grid: Grid = GRID) -> ExpiryHolding:
    """With amounts up to the largest, some of them 0, sometimes a future."""
    expiry = random_expiry(rng, grid)
    arrays, amounts = [], []
    for _ in range(options):
        is_call = rng.random() < 0.5
        arrays.append(make_risk_array(expiry, grid, random_strike(rng, expiry.forward), is_call))
        limit = rng.choice([0, COIN, 100 * COIN, MAX_SIZE_ULOTS])
        amounts.append(rng.randint(-limit, limit))
    future = rng.choice([0, 0, rng.randint(-MAX_SIZE_ULOTS, MAX_SIZE_ULOTS)])
    return ExpiryHolding(expiry, arrays, amounts, future)
