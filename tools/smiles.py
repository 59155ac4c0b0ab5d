"""Forward, rate and volatilities for expiries that have no market of their own: a model, or a recorded chain.

A recorded chain's surfaces belong to its own expiries. One of the devnet's takes the recorded one that is
nearest in time to expiry when it is first asked for, and keeps it: another one later would be a jump, which
the exchange's deviation bounds refuse. Its variances are scaled to the time that is left, in proportion, so
that volatilities stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sequencer.option_chain import ChainError, ChainExpiry, OptionChain, read_chain
from sequencer.oracle_recorded import LEAST_RATE_YEARS, surface_confidence
from sequencer.oracle_sources import PRICE_ZERO, confidence
from sequencer.svi import Svi
from sequencer.svi_fit import FittedExpiry, fit_chain

MODEL_RATE = 0.04
MODEL_VOLATILITY = 0.55
"""At the money."""
MODEL_WING = 0.25
MODEL_SKEW = -0.2
MODEL_WIDTH = 1.5
"""How far from the money the smile bends, in standard deviations."""


@dataclass(frozen=True, slots=True)
class Quoted:
    """What options of one expiry are priced from; confidences from 0 to 1."""

    forward: float
    forward_confidence: float
    rate: float
    """Continuously compounded, a year."""
    svi: Svi
    svi_confidence: float


class Smile(Protocol):
    """Where forwards and volatilities come from."""

    def at(self, expiry_ms: int, index: float, years: float) -> Quoted:
        """For an expiry in that many years of 365 days, with the index there; above 0 both."""


class ModelSmile:
    """A smile whose shape in standard deviations is the same for every expiry."""

    def at(self, expiry_ms: int, index: float, years: float) -> Quoted:
        forward = index * math.exp(MODEL_RATE * years)
        deviation = MODEL_VOLATILITY * math.sqrt(years)
        svi = Svi(
            a=deviation * deviation * (1 - MODEL_WING * MODEL_WIDTH),
            b=deviation * MODEL_WING,
            rho=MODEL_SKEW,
            m=0.0,
            sigma=deviation * MODEL_WIDTH,
            forward=forward,
            tau=years,
        )
        return Quoted(forward, 1.0, MODEL_RATE, svi, 1.0)


class RecordedSmile:
    """The smiles of a recorded chain."""

    def __init__(self, chain: OptionChain) -> None:
        """Fits the chain, which takes a second or so. Raises ChainError if no expiry can be fitted."""
        self.underlying = chain.underlying
        self.fitted = fit_chain(chain).expiries
        if not self.fitted:
            raise ChainError("no expiry of the chain gives volatilities without arbitrage")
        self._chain = chain
        self._expiries = {each.expiry_ms: each for each in chain.expiries}
        self._taken: dict[int, FittedExpiry] = {}

    def at(self, expiry_ms: int, index: float, years: float) -> Quoted:
        fitted = self._taken.get(expiry_ms)
        if fitted is None:
            fitted = min(self.fitted, key=lambda each: abs(each.svi.tau - years))
            self._taken[expiry_ms] = fitted
        recorded = self._expiries[fitted.expiry_ms]
        rate = self._rate(recorded)
        forward = index * math.exp(rate * years)
        share = years / fitted.svi.tau
        svi = replace(fitted.svi, a=fitted.svi.a * share, b=fitted.svi.b * share, forward=forward, tau=years)
        trust = confidence(recorded.forward.half_spread, PRICE_ZERO)
        return Quoted(forward, trust, rate, svi, surface_confidence(fitted))

    def _rate(self, recorded: ChainExpiry) -> float:
        """As the recorded source has it: a week at least, below which a tick would be tens of percent."""
        return math.log(recorded.forward.mid / self._chain.index.mid) / max(recorded.tau, LEAST_RATE_YEARS)


def smile_of(path: Path) -> RecordedSmile:
    """Of a chain's file. Raises ChainError with the file's name, OSError."""
    try:
        return RecordedSmile(read_chain(path))
    except ChainError as error:
        text = str(error)
        raise ChainError(text if path.name in text else f"{path.name}: {text}") from None
