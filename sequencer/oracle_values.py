"""From a source's reading to the integers of a report.

Values are rounded to the protocol's units. SVI is moved to a whole second of time to expiry by scaling its
variances, so that its volatilities stay, and everything is rounded to the side where rounding makes no
arbitrage. What has no feed is left out; what is too old, or the exchange would refuse, is left out with a
sentence that says why: one bad value must not cost the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

from sequencer.oracle_sources import Expiry, Observed, Reading
from sequencer.svi import Svi
from state.actions import OracleReport, Price, Rate, SurfaceReport
from state.calendar import expiry_name, is_expiry_time
from state.errors import Rejected
from state.oracle import check_report
from state.pricing import PICO, STABLE_FEED, YEAR_S
from state.units import MS_PER_S, PPB, PPM

UUSD = 1_000_000
PERPETUAL = "-PERPETUAL"
LARGEST = 2.0**62
ROUNDING_PICO = 20
"""By how much the least variance may be below 0 from rounding alone."""

Value = TypeVar("Value")


class Known(NamedTuple):
    """Names of the feeds that exist, by what they report."""

    prices: frozenset[str]
    rates: frozenset[str]
    surfaces: frozenset[str]


def names_of(reading: Reading) -> list[str]:
    """All names that a reading has values for, as the exchange calls them: indices first, then by expiry."""
    names = list(reading.index)
    names += [name + PERPETUAL for name in reading.index]
    if reading.stable is not None:
        names.append(STABLE_FEED)
    expiries = {*reading.forward, *reading.svi, *reading.rate}
    names += [feed_name(each) for each in sorted(expiries, key=lambda each: each.at_ms)]
    return [name for name in names if name]


def feed_name(expiry: Expiry) -> str:
    """The name of an expiry's feeds; empty if the exchange has no expiries at that time."""
    seconds, rest = divmod(expiry.at_ms, MS_PER_S)
    return expiry_name(expiry.underlying, seconds) if not rest and is_expiry_time(seconds) else ""


def report_of(
    reading: Reading, known: Known, now_ms: int, max_age_ms: float, perpetuals: bool
) -> tuple[OracleReport, list[str]]:
    """The unsigned report of `now_ms`, and what was left out and why.

    `perpetuals`: the index is also the mark of the underlying's perpetual.
    """
    problems = list(reading.problems)
    priced = [*reading.index.items(), *_named(reading.forward)]
    if perpetuals:
        priced += [(name + PERPETUAL, each) for name, each in reading.index.items()]
    if reading.stable is not None:
        priced.append((STABLE_FEED, reading.stable))

    def fresh(
        named: Iterable[tuple[str, Observed[Value]]], feeds: frozenset[str]
    ) -> list[tuple[str, Observed[Value]]]:
        found = []
        for name, observed in named:
            age_ms = now_ms - observed.timestamp_ms
            if name in feeds and age_ms > max_age_ms:
                problems.append(f"{name}: a value is {age_ms / MS_PER_S:.1f} s old")
            elif name in feeds:
                found.append((name, observed))
        return found

    prices = [
        Price(name, _integer(each.value, UUSD), _ppm(each)) for name, each in fresh(priced, known.prices)
    ]
    rates = [
        Rate(name, _integer(each.value, PPB), _ppm(each))
        for name, each in fresh(_named(reading.rate), known.rates)
    ]
    surfaces = [
        surface_of(name, each.value, _ppm(each)) for name, each in fresh(_named(reading.svi), known.surfaces)
    ]
    report = OracleReport(
        now_ms,
        tuple(each for each in prices if _is_sound(OracleReport(now_ms, (each,), bytes(64)), problems)),
        bytes(64),
        tuple(each for each in rates if _is_sound(OracleReport(now_ms, (), bytes(64), (each,)), problems)),
        tuple(
            each for each in surfaces if _is_sound(OracleReport(now_ms, (), bytes(64), (), (each,)), problems)
        ),
    )
    return report, problems


def surface_of(name: str, svi: Svi, confidence_ppm: int) -> SurfaceReport:
    """SVI in 10^-12, for a whole number of seconds."""
    seconds = svi.tau * YEAR_S
    tau_s = max(math.floor(seconds), 1)
    scale = tau_s / seconds * PICO
    a, b = _bounded(math.ceil, svi.a * scale), _bounded(math.floor, svi.b * scale)
    rho, sigma = _bounded(math.trunc, svi.rho * PICO), _integer(svi.sigma, PICO)
    least = -(b * sigma * math.isqrt(max(PICO * PICO - rho * rho, 0)) // (PICO * PICO))
    if 0 < least - a <= ROUNDING_PICO:
        a = least
    return SurfaceReport(
        name,
        a,
        b,
        rho,
        _integer(svi.m, PICO),
        sigma,
        _integer(svi.forward, UUSD),
        tau_s,
        confidence_ppm,
    )


def _named(values: Mapping[Expiry, Observed[Value]]) -> list[tuple[str, Observed[Value]]]:
    return [(feed_name(expiry), observed) for expiry, observed in values.items()]


def _is_sound(report: OracleReport, problems: list[str]) -> bool:
    """Whether the exchange could take this report of one value."""
    try:
        check_report(report, report.timestamp_ms)
    except Rejected as refusal:
        problems.append(str(refusal))
        return False
    return True


def _ppm(observed: Observed[Value]) -> int:
    return _integer(observed.confidence, PPM)


def _integer(value: float, unit: int) -> int:
    return _bounded(round, value * unit)


def _bounded(rounded: Callable[[float], int], value: float) -> int:
    """Within 64 bits, so that it can be said at all; what is not sound falls out later. NaN becomes 0."""
    if math.isnan(value):
        return 0
    return rounded(max(-LARGEST, min(LARGEST, value)))
