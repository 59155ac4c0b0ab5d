"""Floating-point Black-76: against recorded high-precision values, and its inverse against itself."""

import json

import numpy as np
import pytest

from sequencer.implied_vol import deltas, implied_deviations, option_prices, vegas
from tests.option_quotes import shared

ONE = np.ones(1)


def test_prices_and_greeks_equal_the_shared_vectors() -> None:
    cases = json.loads(shared("vectors/black76.json").read_text())
    strike, forward, vol, years, call, put, delta, vega = (
        np.array([float(case[name]) for case in cases])
        for name in ("strike", "forward", "vol", "years", "call", "put", "delta_call", "vega")
    )
    moneyness, deviation = strike / forward, vol * np.sqrt(years)
    calls = np.ones(len(cases), dtype=np.bool_)
    assert np.abs(option_prices(moneyness, deviation, calls) - call / forward).max() < 1e-13
    assert np.abs(option_prices(moneyness, deviation, ~calls) - put / forward).max() < 1e-13 * moneyness.max()
    assert np.abs(deltas(moneyness, deviation, calls) - delta).max() < 1e-12
    assert np.abs(vegas(moneyness, deviation) * np.sqrt(years) - vega / forward).max() < 1e-12


def test_the_inverse_gives_the_deviation_back() -> None:
    moneyness, deviation = (grid.ravel() for grid in np.meshgrid([0.5, 0.9, 1.0, 1.1, 2.0], [0.05, 0.3, 1.5]))
    for is_call in (np.ones(15, dtype=np.bool_), np.zeros(15, dtype=np.bool_)):
        price = option_prices(moneyness, deviation, is_call)
        tells = vegas(moneyness, deviation) > 1e-6
        found = implied_deviations(price, moneyness, is_call)
        assert tells.sum() >= 11
        assert np.abs(found - deviation)[tells].max() < 1e-8


@pytest.mark.parametrize(
    ("price", "moneyness", "is_call"),
    [
        (0.0999999, 0.9, True),  # less than it is worth exercised
        (0.05, 0.9, True),
        (1.0, 1.0, True),  # the forward
        (0.91, 0.9, False),  # more than the strike
        (0.0, 1.1, True),
        (-0.1, 1.0, False),
        (float("nan"), 1.0, True),
        (float("inf"), 1.0, True),
    ],
)
def test_prices_without_volatility_give_nan(price: float, moneyness: float, is_call: bool) -> None:
    assert np.isnan(implied_deviations(ONE * price, ONE * moneyness, np.array([is_call]))).all()
