"""Oracle values without a market: configured prices, still or wandering, for tests and development."""

from __future__ import annotations

import math
import random

from sequencer.option_chain import MS_PER_YEAR
from sequencer.oracle_config import StaticSection, moment_ms
from sequencer.oracle_sources import Expiry, Observed, Reading
from sequencer.svi import Svi

FLAT_SIGMA = 0.1
"""With b = 0 any sigma gives the same smile; it must be above 0."""


class Wander:
    """Price factors around 1 that look like a random walk and are a function of the time alone.

    So publishers with the same seed agree at every moment without talking, and one that restarts goes on
    where the others are. Noise of periods from a second to three days, each with a variance in proportion
    to its period, as the increments of a random walk have it; beyond three days the price comes back, so that
    a development network stays near its strikes.
    """

    PERIODS_MS = tuple(1_000 * 4**octave for octave in range(10))
    INCREMENT = 2.1
    """Variance of the sum's increments over a period, in units of what that period is given."""

    def __init__(self, seed: int, volatility: float) -> None:
        self.seed = seed
        self.volatility = volatility
        """Per year; 0 stands still."""

    def factor(self, name: str, now_ms: int) -> float:
        """Of the price called `name` at this time; different names move apart."""
        if self.volatility == 0:
            return 1.0
        total = 0.0
        for period in self.PERIODS_MS:
            cell, inside = divmod(now_ms, period)
            share = inside / period
            scale = self.volatility * math.sqrt(period / MS_PER_YEAR / self.INCREMENT)
            total += scale * (
                (1 - share) * self._noise(name, period, cell) + share * self._noise(name, period, cell + 1)
            )
        return math.exp(total)

    def _noise(self, name: str, period: int, cell: int) -> float:
        return random.Random(f"{self.seed}/{name}/{period}/{cell}").gauss(0, 1)


class StaticSource:
    """Configured prices, for tests and development networks: still, or wandering around what is configured.

    Each expiry has one volatility for all strikes (SVI with b = 0) and its forward follows from the rate.
    Times are those of the reading; expiries that have passed are left out.
    """

    def __init__(self, section: StaticSection, wander: Wander) -> None:
        self._section = section
        self._wander = wander

    async def read(self, now_ms: int) -> Reading:
        trust = self._section.confidence
        index: dict[str, Observed[float]] = {}
        forward: dict[Expiry, Observed[float]] = {}
        svi: dict[Expiry, Observed[Svi]] = {}
        rate: dict[Expiry, Observed[float]] = {}
        for underlying in self._section.underlyings:
            price = underlying.index * self._wander.factor(underlying.name, now_ms)
            index[underlying.name] = Observed(price, trust, now_ms)
            for one in underlying.expiries:
                key = Expiry(underlying.name, moment_ms(one.at))
                if key.at_ms <= now_ms:
                    continue
                tau = (key.at_ms - now_ms) / MS_PER_YEAR
                ahead = price * math.exp(one.rate * tau)
                flat = Svi(one.volatility**2 * tau, 0.0, 0.0, 0.0, FLAT_SIGMA, ahead, tau)
                forward[key] = Observed(ahead, trust, now_ms)
                svi[key] = Observed(flat, trust, now_ms)
                rate[key] = Observed(one.rate, trust, now_ms)
        return Reading(index, forward, svi, rate, Observed(self._section.stable, trust, now_ms))
