"""Raw SVI: the total variance of one expiry as a function of log-moneyness, and what makes it arbitrageable.

    w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)),    k = ln(strike / forward)

Volatility is sqrt(w / tau). The exchange takes w at k clamped to +-4 sqrt(a + b sigma) and at most 144, so
that no strike can break it; `Svi.variance` is that function, and the checks look at what the exchange will
use: at k inside the clamp for butterflies (at the clamp itself w has a kink, which is the exchange's choice
and not the fit's), everywhere for calendars.

Conditions after Gatheral and Jacquier, "Arbitrage-free SVI volatility surfaces" (2014): b >= 0, |rho| < 1,
sigma > 0, the least variance a + b sigma sqrt(1 - rho^2) not negative, wing slopes b (1 +- rho) at most 2
(Lee's moment formula), the butterfly function g not negative, and total variance not falling from one expiry
to the next at the same k. A surface that violates one of them sells somebody free money.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sequencer.implied_vol import Floats

CLAMP_DEVIATIONS = 4.0
MAX_VARIANCE = 144.0
MAX_WING_SLOPE = 2.0
GRID_POINTS = 401
LEAST_DIVISOR = 1e-12
TOLERANCE = 1e-9
"""Of each check, for rounding; calendars relative to the later expiry's variance at the money."""


@dataclass(frozen=True, slots=True)
class Svi:
    """Raw SVI parameters of one expiry; `forward` is their reference, `tau` in years of 365 days."""

    a: float
    b: float
    rho: float
    m: float
    sigma: float
    forward: float
    tau: float

    @property
    def clamp(self) -> float:
        """Beyond this log-moneyness, either side, the exchange's variance is constant."""
        return CLAMP_DEVIATIONS * math.sqrt(max(self.a + self.b * self.sigma, 0.0))

    @property
    def least_variance(self) -> float:
        return self.a + self.b * self.sigma * math.sqrt(max(1 - self.rho * self.rho, 0.0))

    @property
    def wing_slope(self) -> float:
        """The steeper of the two wings."""
        return self.b * (1 + abs(self.rho))

    def variance(self, k: Floats) -> Floats:
        """Total variance as the exchange takes it, clamped."""
        bound = self.clamp
        return np.minimum(self._raw(np.clip(k, -bound, bound)), MAX_VARIANCE)

    def vols(self, strikes: Floats) -> Floats:
        """Annual volatilities."""
        return np.asarray(np.sqrt(np.maximum(self.variance(np.log(strikes / self.forward)), 0) / self.tau))

    def butterfly(self, k: Floats) -> Floats:
        """Gatheral's g, up to a positive factor the density of the price at expiry."""
        w = np.maximum(self._raw(k), LEAST_DIVISOR)
        distance = k - self.m
        root = np.sqrt(distance * distance + self.sigma * self.sigma)
        slope = self.b * (self.rho + distance / root)
        curvature = self.b * self.sigma * self.sigma / root**3
        first = 1 - k * slope / (2 * w)
        return np.asarray(first * first - slope * slope / 4 * (1 / w + 0.25) + curvature / 2)

    def _raw(self, k: Floats) -> Floats:
        distance = k - self.m
        root = np.sqrt(distance * distance + self.sigma * self.sigma)
        return np.asarray(self.a + self.b * (self.rho * distance + root))


@dataclass(frozen=True, slots=True)
class ArbitrageReport:
    """What the checks found; `problems` is empty for parameters that may be published."""

    least_variance: float
    wing_slope: float
    least_butterfly: float
    """Smallest g on the grid."""
    least_calendar: float | None
    """Smallest gain of total variance over the earlier expiry, relative to the variance at the money; None
    without an earlier one."""
    problems: tuple[str, ...]


def butterfly_grid(svi: Svi, points: int = GRID_POINTS) -> Floats:
    """Log-moneyness inside the clamp; half of the points stand around m, where a small sigma bends w most."""
    bound = svi.clamp
    bend = svi.m + svi.sigma * np.linspace(-5, 5, points // 2)
    return np.concatenate([np.linspace(-bound, bound, points - len(bend)), np.clip(bend, -bound, bound)])


def calendar_gains(svi: Svi, earlier: Svi, points: int = GRID_POINTS) -> Floats:
    """Total variance gained over the earlier expiry, over a grid of k, relative to that at the money.

    The grid holds the kinks at both clamps, since the least gain is often at one.
    """
    bound = max(svi.clamp, earlier.clamp)
    kinks = np.array([-svi.clamp, svi.clamp, -earlier.clamp, earlier.clamp])
    grid = np.concatenate([np.linspace(-bound, bound, points), kinks])
    at_the_money = float(svi.variance(np.zeros(1))[0])
    return np.asarray((svi.variance(grid) - earlier.variance(grid)) / max(at_the_money, LEAST_DIVISOR))


@np.errstate(all="ignore")
def check_arbitrage(svi: Svi, earlier: Svi | None = None) -> ArbitrageReport:
    """All conditions on one expiry and, with the expiry before it, the calendar's; of any parameters."""
    domain = _domain_problems(svi)
    if domain:
        return ArbitrageReport(math.nan, math.nan, math.nan, None, domain)
    problems: list[str] = []
    if not svi.least_variance >= -TOLERANCE:
        problems.append(f"least variance {svi.least_variance:.3g} below 0")
    if not svi.wing_slope <= MAX_WING_SLOPE + TOLERANCE:
        problems.append(f"wing slope {svi.wing_slope:.3g} above {MAX_WING_SLOPE:g}")
    butterfly = float(svi.butterfly(butterfly_grid(svi)).min())
    if not butterfly >= -TOLERANCE:
        problems.append(f"butterfly: g falls to {butterfly:.3g}")
    calendar = None if earlier is None else float(calendar_gains(svi, earlier).min())
    if calendar is not None and not calendar >= -TOLERANCE:
        problems.append(f"calendar: variance falls by {-calendar:.3g} of that at the money")
    return ArbitrageReport(svi.least_variance, svi.wing_slope, butterfly, calendar, tuple(problems))


def _domain_problems(svi: Svi) -> tuple[str, ...]:
    values = (svi.a, svi.b, svi.rho, svi.m, svi.sigma, svi.forward, svi.tau)
    if not all(map(math.isfinite, values)):
        return ("not all parameters are finite numbers",)
    wrong = (
        (svi.b < 0, f"b {svi.b:.3g} below 0"),
        (abs(svi.rho) >= 1, f"rho {svi.rho:.3g} not between -1 and 1"),
        (svi.sigma <= 0, f"sigma {svi.sigma:.3g} not above 0"),
        (svi.forward <= 0, f"forward {svi.forward:.3g} not above 0"),
        (svi.tau <= 0, f"tau {svi.tau:.3g} not above 0"),
    )
    return tuple(text for is_wrong, text in wrong if is_wrong)
