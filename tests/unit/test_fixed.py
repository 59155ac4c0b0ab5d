"""Worst error of each elementary function over its domain, limits, symmetry; tables as generated."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal, localcontext
from itertools import pairwise
from pathlib import Path

import pytest

from state import fixed
from state.fixed import BITS, MAX, ONE, TAIL
from tools import exact_math
from tools.engine_tables import mills_segments, source

ROOT = Path(__file__).resolve().parents[2]
SEED = 20_261_123


def points(low: float, high: float, count: int = 1_500) -> list[int]:
    """Evenly spread and random, both ends included."""
    rng = random.Random(SEED)
    first, last = int(low * ONE), int(high * ONE)
    spread = [first + (last - first) * i // 200 for i in range(201)]
    return spread + [rng.randint(first, last) for _ in range(count)]


def worst(
    function: Callable[[int], int], exact: Callable[[Decimal], Decimal], xs: list[int], bits: int = BITS
) -> Decimal:
    """The largest error, in units of 2^-bits."""
    with localcontext(exact_math.CONTEXT):
        errors: list[Decimal] = [abs(function(x) - exact(Decimal(x) / ONE) * 2**bits) for x in xs]
        return max(errors)


def test_the_committed_tables_are_what_the_generator_makes() -> None:
    assert (ROOT / "state" / "fixed_tables.py").read_text() == source()


def test_cdf() -> None:
    assert worst(fixed.cdf, exact_math.cdf, points(-10, 10)) < Decimal("0.7")


def test_density() -> None:
    assert worst(fixed.density, exact_math.density, points(-10, 10)) < Decimal("0.8")


def test_mills_in_every_segment() -> None:
    for low, high in mills_segments():
        xs = [x for x in points(float(low), float(high), 40) if x <= fixed.MILLS_END]
        assert worst(fixed.mills_x61, exact_math.mills, xs, 61) < Decimal("6.4")


def test_exp() -> None:
    below_one = points(-41, 0)
    assert worst(fixed.exp, Decimal.exp, below_one) < Decimal("0.57")
    for x in points(0, 4.852):
        with localcontext(exact_math.CONTEXT):
            value = (Decimal(x) / ONE).exp()
            assert abs(fixed.exp(x) - value * ONE) < Decimal("0.5") + value * Decimal("0.07")


def test_ln() -> None:
    rng = random.Random(SEED)
    pairs = [
        (rng.randrange(1, 2 ** rng.randint(1, 128)), rng.randrange(1, 2 ** rng.randint(1, 128)))
        for _ in range(3_000)
    ]
    with localcontext(exact_math.CONTEXT):
        assert max(
            abs(fixed.ln_ratio(a, b) - (Decimal(a) / Decimal(b)).ln() * ONE) for a, b in pairs
        ) < Decimal("0.51")


def test_sqrt_is_rounded_down() -> None:
    rng = random.Random(SEED)
    for x in [0, 1, 2, 3, ONE, ONE * ONE] + [rng.getrandbits(rng.randint(1, 125)) for _ in range(1_000)]:
        root = fixed.sqrt_x112(x)
        assert root * root <= x < (root + 1) * (root + 1)


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (fixed.exp(0), ONE),
        (fixed.exp(-40 * ONE), 0),
        (fixed.exp(-(10**30)), 0),
        (fixed.exp(5 * ONE), MAX),
        (fixed.exp(10**30), MAX),
        (fixed.ln(ONE), 0),
        (fixed.ln(0), -MAX),
        (fixed.ln(-5), -MAX),
        (fixed.sqrt_x112(-1), 0),
        (fixed.sqrt_x112(2**250), MAX),
        (fixed.cdf(0), ONE // 2),
        (fixed.cdf(TAIL), ONE),
        (fixed.cdf(MAX), ONE),
        (fixed.cdf(-TAIL), 0),
        (fixed.cdf(-MAX), 0),
        (fixed.density(MAX), 0),
        (fixed.mills_x61(MAX), fixed.mills_x61(fixed.MILLS_END)),
        (fixed.ratio(10**40, 1), MAX),
        (fixed.ratio(-(10**40), 1), -MAX),
        (fixed.ratio(500_000, 10**6), ONE // 2),
        (fixed.mul(3, ONE // 2), 2),
    ],
)
def test_limits(got: int, expected: int) -> None:
    assert got == expected


def test_cdf_is_symmetric_and_density_even() -> None:
    for x in points(-12, 12, 300):
        assert fixed.cdf(x) + fixed.cdf(-x) == ONE
        assert fixed.density(x) == fixed.density(-x)


@pytest.mark.parametrize("function", [fixed.cdf, fixed.exp, fixed.ln])
def test_rising_up_to_one_unit_between_neighbours(function: Callable[[int], int]) -> None:
    for x in [*points(0.001, 4, 500), *points(-9, 0, 500)]:
        assert function(x + 1) >= function(x) - 1 - (abs(function(x)) >> 59)


@pytest.mark.parametrize("function", [fixed.cdf, fixed.exp, fixed.ln, fixed.sqrt_x112])
def test_rising_over_any_real_distance(function: Callable[[int], int]) -> None:
    xs = sorted(points(-9, 9, 2_000))
    values = [function(x) for x in xs]
    assert all(a <= b for a, b in pairwise(values))


def test_every_word_stays_in_64_bits() -> None:
    for x in points(0, 9, 300):
        for value in (fixed.density_x62(x), fixed.mills_x61(x), 2 * fixed.mills_x61(x)):
            assert 0 <= value < 2**63
