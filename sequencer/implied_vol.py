"""Black-76 and its inverse in floating point, for whole chains at once: for the oracle, not the transition.

Everything is in units of the forward and undiscounted, which is how an exchange with coin-margined options
quotes: `price` is the option's price divided by the forward, `moneyness` the strike divided by the forward,
and `deviation` the total standard deviation, volatility times the square root of the years. All arguments are
arrays of one shape.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MAX_DEVIATION = 24.0
"""As in the exchange's own formula: beyond it a call is worth the forward."""
BISECTIONS = 64


def option_prices(moneyness: Floats, deviation: Floats, is_call: Flags) -> Floats:
    """Prices in units of the forward; every deviation above 0."""
    d1 = _d1(moneyness, deviation)
    calls = ndtr(d1) - moneyness * ndtr(d1 - deviation)
    return np.asarray(np.where(is_call, calls, calls + moneyness - 1))


def deltas(moneyness: Floats, deviation: Floats, is_call: Flags) -> Floats:
    """Derivative of the price by the forward, undiscounted: 0 to 1 for calls, -1 to 0 for puts."""
    calls = ndtr(_d1(moneyness, deviation))
    return np.asarray(np.where(is_call, calls, calls - 1))


def vegas(moneyness: Floats, deviation: Floats) -> Floats:
    """Derivative of the price, in units of the forward, by the deviation."""
    d1 = _d1(moneyness, deviation)
    return np.asarray(np.exp(-d1 * d1 / 2) / np.sqrt(2 * np.pi))


def implied_deviations(price: Floats, moneyness: Floats, is_call: Flags) -> Floats:
    """The deviation at which an option has this price; NaN where none has, or where the price is NaN.

    No deviation gives a price at or below what the option is worth exercised, nor one at or above the forward
    (call) or the strike (put). Bisection on the time value: slower than Newton, and never astray.
    """
    exercised = np.maximum(np.where(is_call, 1 - moneyness, moneyness - 1), 0)
    time_value = price - exercised
    possible = (time_value > 0) & (time_value < np.minimum(1, moneyness))
    call_exercised = np.maximum(1 - moneyness, 0)
    low = np.zeros_like(moneyness)
    high = np.full_like(moneyness, MAX_DEVIATION)
    all_calls = np.ones(moneyness.shape, dtype=np.bool_)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        below = option_prices(moneyness, middle, all_calls) - call_exercised < time_value
        low = np.where(below, middle, low)
        high = np.where(below, high, middle)
    return np.where(possible, (low + high) / 2, np.nan)


def _d1(moneyness: Floats, deviation: Floats) -> Floats:
    return np.asarray(-np.log(moneyness) / deviation + deviation / 2)
