"""Where an oracle publisher gets its values: the `Source` protocol and what a source answers.

A source answers `read` with a `Reading`: the newest value of every feed it knows, each with a confidence and
a time, and in words what it could not get. Reading never fails as a whole: a feed without a good value is
left out, and the chain's heartbeat does the rest. Floats: the publisher rounds them to the protocol's
integers.

Confidence is a number from 0 (worthless) to 1 (certain), linear in how uncertain the source itself finds the
value to be, and 0 from the bounds below on. (The margin asks for more below 0.55.)

- prices: half the spread over the mid, `PRICE_ZERO`;
- rates: half the spreads of forward and index over the time, per year, `RATE_ZERO`;
- volatility: half the quotes' median spread plus the mean error of those that do not hold the model, over the
  volatility at the money, `VOLATILITY_ZERO`;
- values that come without any of these, such as configured ones: what the configuration says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from sequencer.svi import Svi

PRICE_ZERO = 0.01
RATE_ZERO = 0.05
VOLATILITY_ZERO = 0.5

Value = TypeVar("Value")


class Expiry(NamedTuple):
    """Which expiry of which underlying a value belongs to."""

    underlying: str
    at_ms: int
    """Since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Observed(Generic[Value]):
    value: Value
    confidence: float
    """0 to 1."""
    timestamp_ms: int
    """When the value held; never after the time of the reading."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source knows now."""

    index: Mapping[str, Observed[float]] = field(default_factory=dict)
    """By underlying: dollars a coin."""
    forward: Mapping[Expiry, Observed[float]] = field(default_factory=dict)
    """Dollars a coin, at expiry."""
    svi: Mapping[Expiry, Observed[Svi]] = field(default_factory=dict)
    """Without arbitrage in itself; across expiries only as its source ensures."""
    rate: Mapping[Expiry, Observed[float]] = field(default_factory=dict)
    """Continuously compounded, per year, from now to the expiry: 0.05 is 5 %."""
    stable: Observed[float] | None = None
    """Dollars for one unit of the collateral."""
    problems: tuple[str, ...] = ()
    """What could not be read and why, one sentence for each."""


class Source(Protocol):
    """Where values come from."""

    async def read(self, now_ms: int) -> Reading:
        """The newest values at this time. Raises nothing but trio.Cancelled; bounded in time."""


def confidence(uncertainty: float, zero: float) -> float:
    """1 without uncertainty, 0 from `zero` on, linear between; 0 for NaN."""
    return max(0.0, 1 - uncertainty / zero) if uncertainty >= 0 else 0.0
