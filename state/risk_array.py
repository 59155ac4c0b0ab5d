"""The risk array of an option: its value at every point of the margin grid (state/risk_grid.py).

A value is a fraction of the expiry's forward, before discount, x56: so it fits 64 bits whatever the price,
and has the same relative resolution for all. A put is valued less its strike (so its values are not above 0),

    call = value * forward                put = value * forward + strike

which makes the put's value that of the call less the forward at the point: they share one evaluation, and the
strike, which may be far above the forward, stays an exact amount of money. The error of a value is at most
4 * 2^-56 for shocks of the forward up to 2, and 2 * 2^-56 of the shocked forward beyond.

state/vector_risk.py makes the same arrays for whole chains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from state.black76 import Divisor, divisor, otm_fraction
from state.fixed import BITS, MAX, ONE, ln_ratio, mul, ratio
from state.lanes import pack
from state.risk_grid import Expiry, Grid, Vol
from state.svi import total_vol


class StrikeTerms(NamedTuple):
    """What the options of one strike have in common."""

    log_moneyness: int
    """ln(strike / forward)."""
    moneyness: int
    """strike / forward, saturated."""
    vols: tuple[int, ...]
    """Total volatility by `Vol`."""


@dataclass(frozen=True, slots=True)
class RiskArray:
    """`row`: the values packed by state/lanes.py; `put_strike`: what a put's value lacks, 0 of a call."""

    strike: int
    put_strike: int
    values: tuple[int, ...]
    row: int


def strike_terms(expiry: Expiry, strike: int) -> StrikeTerms:
    """For a strike in 1..MAX_PRICE, in the unit of the expiry's forward."""
    k = ln_ratio(strike, expiry.forward)
    flat = total_vol(expiry.svi, strike, expiry.years_x112)
    by_kind = {
        Vol.NONE: flat,
        Vol.UP: max(expiry.floor_up, mul(flat, expiry.vol_up)),
        Vol.DOWN: mul(flat, expiry.vol_down),
        Vol.LINEAR: mul(flat, _skew(k, expiry.linear_cap, expiry.k_star)),
        Vol.ABS: mul(flat, _skew(abs(k), expiry.abs_cap, expiry.k_star)),
    }
    return StrikeTerms(k, ratio(strike, expiry.forward), tuple(min(by_kind[kind], MAX) for kind in Vol))


def _skew(k: int, cap: int, k_star: int) -> int:
    """Factor of volatility at log-moneyness k: 1 + k cap / k_star, to nearest, no further from 1 than cap."""
    slope = (2 * k * cap + k_star) // (2 * k_star)
    return max(ONE + (min(cap, slope) if k >= 0 else max(-cap, slope)), 0)


def call_fraction(distance: int, forward: int, moneyness: int, by: Divisor) -> int:
    """A call as a fraction of the unshocked forward; `forward` is the shocked one, `distance` ln(strike /
    it)."""
    otm = mul(otm_fraction(abs(distance), by), min(forward, moneyness))
    return otm + max(forward - moneyness, 0)


def make_risk_array(expiry: Expiry, grid: Grid, strike: int, is_call: bool) -> RiskArray:
    """The array of one option."""
    terms = strike_terms(expiry, strike)
    divisors = [divisor(vol) for vol in terms.vols]
    values = []
    for point, forward, log in zip(grid.points, expiry.forwards, expiry.logs, strict=True):
        call = call_fraction(terms.log_moneyness - log, forward, terms.moneyness, divisors[point.vol])
        values.append(call if is_call else call - forward)
    return RiskArray(strike, 0 if is_call else strike, tuple(values), pack(values))


def option_value(expiry: Expiry, array: RiskArray, point: int) -> int:
    """What one unit of the underlying's option is worth at a point, discounted, in the unit of the forward,
    rounded down."""
    undiscounted = array.values[point] * expiry.forward + (array.put_strike << BITS)
    return undiscounted * expiry.discount >> 2 * BITS
