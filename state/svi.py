"""Volatility of an expiry by strike: raw SVI, the total variance as a function of log-moneyness.

    k        = ln(strike / forward_ref), clamped to +-4 sqrt(a + b sigma)
    variance = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), clamped to 0..144

for the time tau to which the parameters belong; `forward_ref` is the forward they were fitted at. Variances
and the slope b carry 112 fractional bits (state/fixed.py): in the last minutes of an option they are so small
that 56 would leave few digits. Parameters of any sign and size give a result; whether they are sound (free of
arbitrage) is for whoever accepts them to check.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from state.fixed import BITS, MAX, ln_ratio, mul, sqrt_x112

MAX_VARIANCE_X112 = 144 << 112


class Svi(NamedTuple):
    """Raw parameters: |a|, |b|, tau below 2^20, tau above 0; rho, m, sigma x56; forward_ref a price."""

    a_x112: int
    b_x112: int
    rho: int
    m: int
    sigma: int
    forward_ref: int
    tau_x112: int


def total_variance_x112(svi: Svi, strike: int) -> int:
    """The clamped total variance until tau; strike in 1..MAX_PRICE, in the unit of forward_ref."""
    bound = min(4 * sqrt_x112(svi.a_x112 + (svi.b_x112 * svi.sigma >> BITS)), MAX)
    k = max(-bound, min(bound, ln_ratio(strike, svi.forward_ref)))
    from_m = k - svi.m
    wing = mul(svi.rho, from_m) + isqrt(from_m * from_m + svi.sigma * svi.sigma)
    return max(0, min(svi.a_x112 + (svi.b_x112 * wing >> BITS), MAX_VARIANCE_X112))


def total_vol(svi: Svi, strike: int, years_x112: int) -> int:
    """sqrt(variance * years / tau), rounded down, saturated; years below 128."""
    return sqrt_x112(total_variance_x112(svi, strike) * years_x112 // svi.tau_x112)
