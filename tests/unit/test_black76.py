"""Black-76 and SVI against 50 digits: the shared vectors, random points, limits, implied volatility."""

from __future__ import annotations

import json
import math
import random
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import pytest

from state.black76 import (
    MAX_TOTAL_VOL,
    Greeks,
    black76,
    divisor,
    greeks,
    implied_total_vol,
    otm_fraction,
)
from state.fixed import MAX, ONE
from state.svi import Svi, total_variance_x112, total_vol
from tools import exact_math

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "black76.json"
UNIT = 2**64
"""Of prices here: fine enough for forwards near 1."""
SEED = 20_261_123


@pytest.mark.skipif(not VECTORS.exists(), reason="shared/vectors/black76.json is not beside this checkout")
def test_shared_vectors() -> None:
    for row in json.loads(VECTORS.read_text()):
        exact = {name: Fraction(text) for name, text in row.items()}
        forward, strike = round(exact["forward"] * UNIT), round(exact["strike"] * UNIT)
        years_x112 = round(exact["years"] * 2**112)
        w = math.isqrt(int(exact["vol"] ** 2 * exact["years"] * 2**112))
        call, put = black76(forward, strike, w)
        # The issue asks for 1e-12 of the forward.
        limit = Fraction(1, 2**56)
        assert abs(Fraction(call, UNIT) - exact["call"]) <= limit * exact["forward"]
        assert abs(Fraction(put, UNIT) - exact["put"]) <= limit * exact["forward"]
        got = greeks(forward, strike, w, years_x112)
        error = Fraction(2, ONE) + Fraction(1, w)
        total, years = Fraction(w, ONE), exact["years"]
        root = Fraction(math.isqrt(years_x112), ONE)
        fraction = {name: Fraction(getattr(got, name), ONE) for name in Greeks._fields}
        f = exact["forward"]
        assert abs(fraction["delta"] - exact["delta_call"]) <= error
        assert abs(fraction["gamma_of_forward"] - exact["gamma"] * f) <= error / total + Fraction(1, ONE)
        assert abs(fraction["vega_of_forward"] - exact["vega"] / f) <= error * root + Fraction(1, ONE)
        theta = exact["theta_call_per_year"] / f
        assert abs(fraction["theta_of_forward"] - theta) <= error * total / years + Fraction(1, ONE)


def random_points(count: int) -> list[tuple[int, int]]:
    """(distance, total volatility), crowded where the price is neither 0 nor 1."""
    rng = random.Random(SEED)
    found = []
    for _ in range(count):
        distance = rng.choice(
            [rng.uniform(0, 3), rng.uniform(0, 0.01), rng.uniform(0, 60), 0, 10 ** rng.uniform(-16, 0)]
        )
        near = math.sqrt(2 * distance) * rng.uniform(0.3, 2)
        w = rng.choice(
            [rng.uniform(0, 3), 10 ** rng.uniform(-14, 1.38), distance / 9 * rng.uniform(0.8, 3), near]
        )
        found.append((int(distance * ONE), min(max(int(w * ONE), 1), MAX_TOTAL_VOL - 1)))
    return found


def test_the_price_is_within_1_5_units_everywhere() -> None:
    for distance, w in random_points(2_500):
        with localcontext(exact_math.CONTEXT):
            exact_distance, exact_w = Decimal(distance) / ONE, Decimal(w) / ONE
            h = exact_w / 2 - exact_distance / exact_w
            if h < -40:
                exact = Decimal(0)
            else:
                tail = exact_math.density(h) * exact_math.mills(abs(h))
                exact = (1 - tail if h > 0 else tail) - exact_math.density(h) * exact_math.mills(exact_w - h)
            assert abs(otm_fraction(distance, divisor(w)) - exact * ONE) < Decimal("1.5"), (distance, w)


def test_the_price_rises_with_volatility_and_falls_with_distance() -> None:
    step = ONE >> 30
    for distance, w in random_points(1_500):
        price = otm_fraction(distance, divisor(w))
        assert 0 <= price <= ONE
        assert otm_fraction(distance, divisor(w + step)) >= price - 1
        assert otm_fraction(distance + step, divisor(w)) <= price + 1


def test_implied_volatility_gives_the_price_back() -> None:
    for distance, w in random_points(600):
        forward = 10**11
        with localcontext(exact_math.CONTEXT):
            strike = int(forward * (Decimal(min(distance, 25 * ONE)) / ONE).exp())
        for f, k, is_call in ((forward, strike, True), (strike, forward, False), (forward, strike, False)):
            fine_f, fine_k = f << 64, k << 64
            price = black76(fine_f, fine_k, w)[0 if is_call else 1]
            solved = implied_total_vol(price, fine_f, fine_k, is_call)
            again = black76(fine_f, fine_k, solved)[0 if is_call else 1]
            assert abs(again - price) <= 3 * min(fine_f, fine_k) >> 56


@pytest.mark.parametrize(
    ("is_call", "price", "expected"),
    [
        (True, 0, 0),
        (True, 10, 0),
        (True, 9, 0),
        (True, 100, MAX_TOTAL_VOL),
        (True, 10**9, MAX_TOTAL_VOL),
        (False, 0, 0),
        (False, -3, 0),
        (False, 90, MAX_TOTAL_VOL),
    ],
)
def test_implied_volatility_of_what_no_volatility_gives(is_call: bool, price: int, expected: int) -> None:
    assert implied_total_vol(price, 100, 90, is_call) == expected


def test_limits() -> None:
    assert black76(100, 90, 0) == (10, 0)
    assert black76(90, 100, 0) == (0, 10)
    assert black76(100, 100, 0) == (0, 0)
    assert black76(100, 90, MAX_TOTAL_VOL) == (100, 90)
    assert black76(100, 90, MAX) == (100, 90)
    assert black76(10**20, 1, ONE) == (10**20 - 1, 0)
    assert greeks(100, 90, 0, 0) == (ONE, 0, 0, 0)
    assert greeks(90, 100, 0, 0) == (0, 0, 0, 0)
    assert greeks(100, 100, 0, 0) == (ONE // 2, 0, 0, 0)


def test_parity_is_exact() -> None:
    rng = random.Random(SEED)
    for _ in range(500):
        forward, strike = rng.randrange(1, 10**15), rng.randrange(1, 10**15)
        call, put = black76(forward, strike, rng.randrange(0, 3 * ONE))
        assert call - put == forward - strike
        assert call >= max(forward - strike, 0)
        assert put >= max(strike - forward, 0)


def svi_of(a: float, b: float, rho: float, m: float, sigma: float, tau: float) -> Svi:
    """With a forward of 100."""
    wide = [int(Fraction(x) * 2**112) for x in (a, b, tau)]
    narrow = [int(Fraction(x) * ONE) for x in (rho, m, sigma)]
    return Svi(wide[0], wide[1], narrow[0], narrow[1], narrow[2], 100 * 2**64, wide[2])


@pytest.mark.parametrize("tau", [1e-7, 3e-5, 0.003, 0.25, 2.0])
def test_svi_is_exact_to_14_digits_at_any_time(tau: float) -> None:
    rng = random.Random(SEED)
    for _ in range(100):
        a, b = rng.uniform(0.05, 1) * tau, rng.uniform(0.02, 0.2) * tau**0.5
        rho, m, sigma = rng.uniform(-0.9, 0.9), rng.uniform(-0.1, 0.1), rng.uniform(0.01, 0.3)
        svi, strike = svi_of(a, b, rho, m, sigma, tau), int(100 * rng.uniform(0.05, 5) * 2**64)
        with localcontext(exact_math.CONTEXT):
            da, db, drho, dm, dsigma = map(Decimal, (a, b, rho, m, sigma))
            k = (Decimal(strike) / svi.forward_ref).ln()
            bound = 4 * (da + db * dsigma).sqrt()
            from_m = max(-bound, min(bound, k)) - dm
            variance = da + db * ((from_m * from_m + dsigma * dsigma).sqrt() + drho * from_m)
            total = Decimal(total_vol(svi, strike, svi.tau_x112)) / ONE
            assert abs(total - variance.sqrt()) < Decimal("5e-17")


def test_svi_clamps() -> None:
    at_100 = 100 * 2**64
    assert total_variance_x112(svi_of(100, 100, 0, 0, 1, 1), at_100) == 144 << 112
    assert total_variance_x112(svi_of(-1, 0.1, 0, 0, 0.1, 1), at_100) == 0
    narrow = svi_of(0.01, 0.1, 0, 0, 0.1, 1)
    assert total_variance_x112(narrow, at_100 * 1_000) == total_variance_x112(narrow, at_100 * 100_000)
