"""Recorded option chains as an oracle source: index, forwards, rates and fitted SVI, with dates moved.

The chain's prices are reported as if they were seen now (their time is the reading's), with these rules:

- index: the perpetual's mid, since a chain has no index; forwards: the mid of the future of the same expiry.
- SVI keeps the tau that it was fitted with, and so its volatilities, however near the expiry has come since.
- rate: ln(forward / index) over the time to expiry, at least a week of it: an option worth x coins is worth x
  index dollars, which is its undiscounted value discounted by just this rate. Below a week a tick of basis
  would make a rate of tens of percent, and discounts nothing.
- when prices wander, forwards and the SVI's reference forward move with the index.
- expiries that have passed are left out.

Expiries follow the recorded dates or are moved (`RecordedSection.dates`). Moving by whole days rounds down:
the first expiry then comes up to a day sooner after the start than after the snapshot, or has passed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sequencer.option_chain import ChainExpiry, OptionChain
from sequencer.oracle_sources import (
    PRICE_ZERO,
    RATE_ZERO,
    VOLATILITY_ZERO,
    Expiry,
    Observed,
    Reading,
    confidence,
)
from sequencer.oracle_static import Wander
from sequencer.svi import Svi
from sequencer.svi_fit import FittedChain, FittedExpiry

MS_PER_DAY = 86_400_000
LEAST_RATE_YEARS = 7 / 365


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What one expiry of the chain says; `fitted` is None when its quotes gave no surface."""

    at_ms: int
    forward: float
    forward_confidence: float
    rate: float
    rate_confidence: float
    fitted: FittedExpiry | None
    svi_confidence: float


def shift_ms(dates: Literal["recorded", "days", "exact"], snapshot_ms: int, start_ms: int) -> int:
    """By how much later expiries are than recorded; whole seconds."""
    if dates == "recorded":
        return 0
    step = MS_PER_DAY if dates == "days" else 1_000
    return (start_ms - snapshot_ms) // step * step


class RecordedSource:
    """Reports fitted chains of different underlyings; reading them takes no time."""

    def __init__(
        self,
        chains: Sequence[tuple[OptionChain, FittedChain]],
        dates: Literal["recorded", "days", "exact"],
        start_ms: int,
        stable: float,
        wander: Wander,
    ) -> None:
        """Raises ValueError for two chains of one underlying."""
        self._chains: dict[str, tuple[OptionChain, list[_Recorded]]] = {}
        self._stable = stable
        self._wander = wander
        self.refused: list[str] = []
        """Expiries without a surface, and why."""
        for chain, fitted in chains:
            if chain.underlying in self._chains:
                raise ValueError(f"two chains of {chain.underlying}")
            later = shift_ms(dates, chain.snapshot_ms, start_ms)
            by_expiry = {one.expiry_ms: one for one in fitted.expiries}
            recorded = [
                _recorded(chain, expiry, by_expiry.get(expiry.expiry_ms), later) for expiry in chain.expiries
            ]
            self._chains[chain.underlying] = (chain, recorded)
            self.refused += [
                f"{chain.underlying} expiry {at_ms + later} ms: {reason}" for at_ms, reason in fitted.refused
            ]

    async def read(self, now_ms: int) -> Reading:
        index: dict[str, Observed[float]] = {}
        forward: dict[Expiry, Observed[float]] = {}
        svi: dict[Expiry, Observed[Svi]] = {}
        rate: dict[Expiry, Observed[float]] = {}
        for underlying, (chain, recorded) in self._chains.items():
            factor = self._wander.factor(underlying, now_ms)
            trust = confidence(chain.index.half_spread, PRICE_ZERO)
            index[underlying] = Observed(chain.index.mid * factor, trust, now_ms)
            for one in recorded:
                if one.at_ms <= now_ms:
                    continue
                key = Expiry(underlying, one.at_ms)
                forward[key] = Observed(one.forward * factor, one.forward_confidence, now_ms)
                rate[key] = Observed(one.rate, one.rate_confidence, now_ms)
                if one.fitted is not None:
                    moved = replace(one.fitted.svi, forward=one.fitted.svi.forward * factor)
                    svi[key] = Observed(moved, one.svi_confidence, now_ms)
        return Reading(index, forward, svi, rate, Observed(self._stable, 1.0, now_ms), tuple(self.refused))


def _recorded(chain: OptionChain, expiry: ChainExpiry, fitted: FittedExpiry | None, later: int) -> _Recorded:
    years = max(expiry.tau, LEAST_RATE_YEARS)
    rate = math.log(expiry.forward.mid / chain.index.mid) / years
    uncertain = (expiry.forward.half_spread + chain.index.half_spread) / years
    return _Recorded(
        at_ms=expiry.expiry_ms + later,
        forward=expiry.forward.mid,
        forward_confidence=confidence(expiry.forward.half_spread, PRICE_ZERO),
        rate=rate,
        rate_confidence=confidence(uncertain, RATE_ZERO),
        fitted=fitted,
        svi_confidence=0.0 if fitted is None else surface_confidence(fitted),
    )


def surface_confidence(fitted: FittedExpiry) -> float:
    """From half the median spread and the mean error of quotes that do not hold the model, over the
    volatility at the money; 0 without spreads. A model inside a wide quote is no error: its mid means
    little."""
    spreads = fitted.errors.half_spread[np.isfinite(fitted.errors.half_spread)]
    if not len(spreads):
        return 0.0
    at_the_money = float(fitted.svi.vols(np.array([fitted.svi.forward]))[0])
    missed = np.where(fitted.errors.contained, 0, fitted.errors.abs_error)
    uncertain = float(np.median(spreads)) + float(np.mean(missed))
    return confidence(uncertain / at_the_money, VOLATILITY_ZERO)
