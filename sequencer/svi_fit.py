"""SVI fitted to option quotes, one expiry after the other, without arbitrage.

Least squares of (model deviation - mid's deviation) x vega / half spread: each residual is the error in units
of half the quote's spread, so a quote pulls as hard as it is tight and as its price can tell. The residuals
go through a soft L1 loss, since some quotes are simply wrong; violations of the butterfly and the calendar
condition are added as penalties whose weight grows until `svi.check_arbitrage` finds nothing. The other
conditions hold by construction: the fit's variables are the least variance and the slopes of the two wings,
within bounds, in units in which the variance at the money is 1.

    w(k) = least + (right - left)/2 (k - m) + (right + left)/2 sqrt((k - m)^2 + sigma^2)
           - sigma sqrt(left right)

The start comes from a grid over (m, sigma): with these two fixed w is linear in the rest. The same quotes
give the same parameters. Expiries are fitted from the nearest on, each at least as high in total variance as
the one before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from sequencer.implied_vol import Flags, Floats, deltas, implied_deviations, vegas
from sequencer.option_chain import ChainExpiry, OptionChain, OptionQuotes
from sequencer.svi import (
    MAX_WING_SLOPE,
    ArbitrageReport,
    Svi,
    butterfly_grid,
    calendar_gains,
    check_arbitrage,
)

MIN_STRIKES = 5
"""As many as SVI has parameters."""
MIN_HALF_SPREAD = 0.000_05
"""In units of the forward: half of Deribit's smallest tick."""
MIN_VEGA = 0.000_1
"""Below it a price says nothing about volatility."""
BAND = (0.1, 0.9)
"""The |delta| within which errors are judged."""
SOFT_SCALE = 0.3
"""In half spreads: errors well beyond it count linearly."""
PENALTIES = ((1e2, 1e-4), (1e3, 1e-3), (1e4, 5e-3), (1e4, 2e-2))
"""(weight, margin) of each attempt: how hard, and how long before the condition breaks."""
PENALTY_POINTS = 81
MAX_EVALUATIONS = 200

_START_M = (-1.0, -0.5, 0.0, 0.5, 1.0)
_START_SIGMA = (0.1, 0.3, 0.6, 1.2, 2.4)
_LOWEST = np.array([0.0, 1e-4, 1e-4, -4.0, 0.01])
_HIGHEST = np.array([4.0, np.inf, np.inf, 4.0, 6.0])


class FitError(ValueError):
    """These quotes give no parameters that may be published; the message says why."""


@dataclass(frozen=True, slots=True)
class QuoteErrors:
    """How a fit meets two-sided quotes; volatilities as fractions (0.01 is one vol point)."""

    abs_error: Floats
    """|model - mid| of each quote whose |delta| at the mid's volatility is inside BAND."""
    half_spread: Floats
    """Half the ask's volatility less the bid's, of the same quotes; NaN where the bid has none."""
    contained: Flags
    """Whether the model lies between the bid's and the ask's volatility, of the same quotes."""
    without_vol: int
    """Two-sided quotes whose mid no volatility explains: most are far in the money."""

    @property
    def count(self) -> int:
        return len(self.abs_error)

    @property
    def median(self) -> float:
        return float(np.median(self.abs_error)) if self.count else float("nan")

    @property
    def rms(self) -> float:
        return float(np.sqrt(np.mean(self.abs_error**2))) if self.count else float("nan")

    @property
    def containment(self) -> float:
        return float(np.mean(self.contained)) if self.count else float("nan")


@dataclass(frozen=True, slots=True)
class FittedExpiry:
    expiry_ms: int
    svi: Svi
    arbitrage: ArbitrageReport
    """Without problems."""
    quotes: int
    """Two-sided ones."""
    errors: QuoteErrors


@dataclass(frozen=True, slots=True)
class FittedChain:
    expiries: tuple[FittedExpiry, ...]
    refused: tuple[tuple[int, str], ...]
    """(expiry in ms, reason) of those that could not be fitted."""


def fit_chain(chain: OptionChain) -> FittedChain:
    """Every expiry that can be fitted. Takes about a second for a chain of a thousand options."""
    fitted: list[FittedExpiry] = []
    refused: list[tuple[int, str]] = []
    for expiry in chain.expiries:
        earlier = fitted[-1].svi if fitted else None
        try:
            fitted.append(_fit_expiry(expiry, earlier))
        except FitError as error:
            refused.append((expiry.expiry_ms, str(error)))
    return FittedChain(tuple(fitted), tuple(refused))


def _fit_expiry(expiry: ChainExpiry, earlier: Svi | None) -> FittedExpiry:
    quotes = expiry.quotes.two_sided()
    svi = fit_svi(quotes, expiry.forward.mid, expiry.tau, earlier)
    report = check_arbitrage(svi, earlier)
    return FittedExpiry(expiry.expiry_ms, svi, report, len(quotes), quote_errors(svi, quotes))


def fit_svi(quotes: OptionQuotes, forward: float, tau: float, earlier: Svi | None = None) -> Svi:
    """The parameters nearest to the quotes that admit no arbitrage, alone and after `earlier`.

    `forward` in the strikes' unit, `tau` in years. Raises FitError when fewer than MIN_STRIKES strikes have
    usable quotes, and when no penalty keeps the fit free of arbitrage.
    """
    if not (np.isfinite(forward) and forward > 0 and np.isfinite(tau) and tau > 0):
        raise FitError(f"forward {forward:g} and tau {tau:g} must be above 0")
    target = _target(quotes.two_sided(), forward)
    problem = _Problem(target, forward, tau, earlier)
    x = problem.start()
    for weight, margin in PENALTIES:
        x = problem.solve(x, weight, margin)
        svi = problem.svi(x)
        problems = check_arbitrage(svi, earlier).problems
        if not problems:
            return svi
    raise FitError("no fit without arbitrage: " + "; ".join(problems))


def quote_errors(svi: Svi, quotes: OptionQuotes) -> QuoteErrors:
    """The fit against two-sided quotes; others are left out."""
    quotes = quotes.two_sided()
    moneyness, root_tau = quotes.strike / svi.forward, np.sqrt(svi.tau)
    mid = implied_deviations((quotes.bid + quotes.ask) / 2, moneyness, quotes.is_call)
    has_vol = ~np.isnan(mid)
    delta = np.zeros_like(mid)
    delta[has_vol] = np.abs(deltas(moneyness[has_vol], mid[has_vol], quotes.is_call[has_vol]))
    judged = has_vol & (delta >= BAND[0]) & (delta <= BAND[1])
    quotes, moneyness, mid = quotes.where(judged), moneyness[judged], mid[judged]
    bid = implied_deviations(quotes.bid, moneyness, quotes.is_call)
    ask = implied_deviations(quotes.ask, moneyness, quotes.is_call)
    model = svi.vols(quotes.strike) * root_tau
    contained = (np.isnan(bid) | (model >= bid)) & (np.isnan(ask) | (model <= ask))
    return QuoteErrors(
        abs_error=np.abs(model - mid) / root_tau,
        half_spread=(ask - bid) / 2 / root_tau,
        contained=contained,
        without_vol=int(np.count_nonzero(~has_vol)),
    )


@dataclass(frozen=True, slots=True)
class _Target:
    k: Floats
    deviation: Floats
    weight: Floats
    """Half spreads per unit of deviation."""


def _target(quotes: OptionQuotes, forward: float) -> _Target:
    moneyness = quotes.strike / forward
    deviation = implied_deviations((quotes.bid + quotes.ask) / 2, moneyness, quotes.is_call)
    has_vol = ~np.isnan(deviation)
    quotes, moneyness, deviation = quotes.where(has_vol), moneyness[has_vol], deviation[has_vol]
    vega = vegas(moneyness, deviation)
    used = vega > MIN_VEGA
    strikes = len(np.unique(quotes.strike[used]))
    if strikes < MIN_STRIKES:
        raise FitError(f"usable two-sided quotes at {strikes} strikes, {MIN_STRIKES} needed")
    half_spread = np.maximum((quotes.ask - quotes.bid) / 2, MIN_HALF_SPREAD)
    return _Target(np.log(moneyness[used]), deviation[used], (vega / half_spread)[used])


class _Problem:
    """The least-squares problem of one expiry, in scaled variables (least, left, right, m, sigma)."""

    def __init__(self, target: _Target, forward: float, tau: float, earlier: Svi | None) -> None:
        self.target = target
        self.forward = forward
        self.tau = tau
        self.earlier = earlier
        order = np.argsort(target.k)
        self.at_the_money = float(np.interp(0.0, target.k[order], target.deviation[order])) ** 2
        self.unit = math.sqrt(self.at_the_money)
        """Of k: one standard deviation."""
        self.highest = _HIGHEST.copy()
        self.highest[1:3] = MAX_WING_SLOPE / self.unit

    def svi(self, x: Floats) -> Svi:
        least, left, right, m, sigma = (float(value) for value in x)
        b = (left + right) / 2
        return Svi(
            a=(least - sigma * math.sqrt(left * right)) * self.at_the_money,
            b=b * self.unit,
            rho=(right - left) / (right + left),
            m=m * self.unit,
            sigma=sigma * self.unit,
            forward=self.forward,
            tau=self.tau,
        )

    def start(self) -> Floats:
        """The best of the grid over m and sigma; for each the other three by linear least squares."""
        z = self.target.k / self.unit
        weight = self.target.weight * self.unit / (2 * self.target.deviation)
        w = self.target.deviation**2 / self.at_the_money
        best, least_cost = np.array([0.5, 0.5, 0.5, 0.0, 0.6]), np.inf
        for m in _START_M:
            for sigma in _START_SIGMA:
                columns = np.stack([np.ones_like(z), z - m, np.sqrt((z - m) ** 2 + sigma**2)], axis=1)
                solved = np.linalg.lstsq(columns * weight[:, None], w * weight, rcond=None)[0]
                level, tilt, b = (float(value) for value in solved)
                left, right = max(b - tilt, 1e-3), max(b + tilt, 1e-3)
                x = np.array([level + sigma * np.sqrt(left * right), left, right, m, sigma])
                x = np.clip(x, _LOWEST * 1.001, self.highest * 0.999)
                cost = float(np.sum(_soften(self.residuals(x)) ** 2))
                if cost < least_cost:
                    best, least_cost = x, cost
        return best

    def solve(self, start: Floats, weight: float, margin: float) -> Floats:
        def residuals(x: Floats) -> Floats:
            return np.concatenate([_soften(self.residuals(x)), weight * self.violations(x, margin)])

        start = np.clip(start, _LOWEST + 1e-9, self.highest - 1e-9)
        solved = least_squares(
            residuals, start, bounds=(_LOWEST, self.highest), x_scale=1.0, max_nfev=MAX_EVALUATIONS
        )
        return np.asarray(solved.x)

    def residuals(self, x: Floats) -> Floats:
        """In half spreads."""
        model = np.sqrt(np.maximum(self.svi(x).variance(self.target.k), 1e-16))
        return np.asarray((model - self.target.deviation) * self.target.weight)

    def violations(self, x: Floats, margin: float) -> Floats:
        """How far the two conditions that the variables do not ensure are missed, at each point of a grid."""
        svi = self.svi(x)
        kept = svi.butterfly(butterfly_grid(svi, PENALTY_POINTS))
        if self.earlier is not None:
            kept = np.concatenate([kept, calendar_gains(svi, self.earlier, PENALTY_POINTS)])
        return np.minimum(kept - margin, 0)


def _soften(residuals: Floats) -> Floats:
    """Residuals whose squares are the soft L1 loss of the original ones."""
    scaled = residuals / SOFT_SCALE
    return np.asarray(SOFT_SCALE * np.sign(scaled) * np.sqrt(2 * (np.sqrt(1 + scaled * scaled) - 1)))
