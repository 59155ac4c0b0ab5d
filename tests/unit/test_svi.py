"""SVI as the exchange takes it, and every arbitrage check."""

import importlib.util
import math
from dataclasses import replace

import numpy as np
import pytest

from sequencer.svi import Svi, check_arbitrage
from tests.option_quotes import MONTH, QUARTER, shared


def test_variance_is_the_formula_and_constant_beyond_the_clamp() -> None:
    k = 0.1
    expected = 0.004 + 0.06 * (-0.3 * (k - 0.02) + math.sqrt((k - 0.02) ** 2 + 0.15**2))
    assert MONTH.variance(np.array([k]))[0] == pytest.approx(expected, rel=1e-14)
    assert MONTH.clamp == pytest.approx(4 * math.sqrt(0.004 + 0.06 * 0.15))
    far, further = MONTH.variance(np.array([MONTH.clamp, 3 * MONTH.clamp]))
    assert far == further
    assert replace(MONTH, a=200.0).variance(np.zeros(1))[0] == 144


def test_vols_equal_the_reference_margin_model() -> None:
    path = shared("reference/portfolio_margin.py")
    spec = importlib.util.spec_from_file_location("portfolio_margin", path)
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    strikes = np.array([1.0, 20_000.0, 59_000.0, 60_000.0, 75_000.0, 1e7])
    for svi in (MONTH, QUARTER, replace(MONTH, rho=0.9)):
        parameters = [svi.a, svi.b, svi.rho, svi.m, svi.sigma, svi.forward, svi.tau]
        expected = [reference.svi_vol(strike, parameters) for strike in strikes]
        assert svi.vols(strikes) == pytest.approx(expected, rel=1e-13)


def test_a_sound_surface_has_no_problems() -> None:
    assert check_arbitrage(MONTH).problems == ()
    report = check_arbitrage(QUARTER, MONTH)
    assert report.problems == ()
    assert report.least_butterfly > 0
    assert report.least_calendar is not None
    assert report.least_calendar > 0


@pytest.mark.parametrize(
    ("svi", "said"),
    [
        (replace(MONTH, a=-0.0092, b=0.08, rho=0.5, m=0.12), "butterfly"),
        (replace(MONTH, a=0.0, m=0.0, sigma=0.0001), "butterfly"),
        (replace(MONTH, a=-0.02), "least variance"),
        (replace(MONTH, b=1.6), "wing slope"),
        (replace(MONTH, b=-0.01), "b -0.01 below 0"),
        (replace(MONTH, rho=1.0), "rho"),
        (replace(MONTH, rho=-1.5), "rho"),
        (replace(MONTH, sigma=0.0), "sigma"),
        (replace(MONTH, forward=0.0), "forward"),
        (replace(MONTH, tau=-1.0), "tau"),
        (replace(MONTH, m=float("nan")), "finite"),
        (replace(MONTH, a=float("inf")), "finite"),
        (replace(MONTH, m=1e300, sigma=1e300), "butterfly"),
    ],
)
def test_each_arbitrage_is_named(svi: Svi, said: str) -> None:
    assert any(said in problem for problem in check_arbitrage(svi).problems)


def test_variance_must_not_fall_with_expiry() -> None:
    assert any("calendar" in problem for problem in check_arbitrage(MONTH, QUARTER).problems)
    steep = replace(QUARTER, a=MONTH.a, b=MONTH.b * 0.9, m=MONTH.m, sigma=MONTH.sigma, rho=0.3)
    report = check_arbitrage(steep, MONTH)
    assert any("calendar" in problem for problem in report.problems), "lower in the left wing only"
