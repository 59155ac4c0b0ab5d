"""From readings to reports: names, rounding that keeps the smile and makes no arbitrage, what is left out."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from sequencer.oracle_config import RecordedSection, SourceConfig, SourceSection
from sequencer.oracle_open import open_source
from sequencer.oracle_sources import Expiry, Observed, Reading
from sequencer.oracle_values import Known, feed_name, names_of, report_of, surface_of
from sequencer.svi import Svi, check_arbitrage
from state.actions import Price, Rate, SurfaceReport
from state.oracle import check_report
from state.pricing import PICO, YEAR_S

AT_MS = int(datetime(2026, 12, 25, 8, tzinfo=UTC).timestamp()) * 1_000
NOW_MS = AT_MS - 30 * 86_400_000
BTC = Expiry("BTC", AT_MS)
NAME = "BTC-25DEC26"
SVI = Svi(0.01, 0.05, -0.3, 0.02, 0.1, 61_000.25, 30 / 365)
CHAIN = Path(__file__).parents[3] / "shared" / "data" / "deribit_btc_options_20260801.csv.gz"


def everything() -> Known:
    return Known(frozenset({"BTC", "BTC-PERPETUAL", "STABLE", NAME}), frozenset({NAME}), frozenset({NAME}))


def seen(value: float, ago_ms: int = 0) -> Observed[float]:
    return Observed(value, 0.9, NOW_MS - ago_ms)


READING = Reading(
    {"BTC": seen(60_000.1234567)},
    {BTC: seen(61_000.25)},
    {BTC: Observed(SVI, 0.5, NOW_MS)},
    {BTC: seen(-0.0125)},
    Observed(0.9998, 1.0, NOW_MS),
    ("ETH: no answer",),
)


def test_a_reading_becomes_integers() -> None:
    report, problems = report_of(READING, everything(), NOW_MS, 1_000, True)
    assert report.timestamp_ms == NOW_MS
    assert report.prices == (
        Price("BTC", 60_000_123_457, 900_000),
        Price(NAME, 61_000_250_000, 900_000),
        Price("BTC-PERPETUAL", 60_000_123_457, 900_000),
        Price("STABLE", 999_800, 1_000_000),
    )
    assert report.rates == (Rate(NAME, -12_500_000, 900_000),)
    assert report.surfaces == (
        SurfaceReport(
            NAME, 10**10, 5 * 10**10, -3 * 10**11, 2 * 10**10, 10**11, 61_000_250_000, 30 * 86_400, 500_000
        ),
    )
    assert problems == ["ETH: no answer"]
    check_report(report, NOW_MS)


def test_only_feeds_that_exist_are_reported() -> None:
    known = Known(frozenset({"BTC"}), frozenset(), frozenset())
    report, problems = report_of(READING, known, NOW_MS, 1_000, True)
    assert [each.feed for each in report.prices] == ["BTC"]
    assert not report.rates
    assert not report.surfaces
    assert problems == ["ETH: no answer"], "what has no feed is no problem"
    report, _ = report_of(READING, everything(), NOW_MS, 1_000, False)
    assert "BTC-PERPETUAL" not in {each.feed for each in report.prices}


def test_old_and_unsound_values_are_left_out_alone() -> None:
    wild = Svi(-1.0, 0.05, -0.3, 0.02, 0.1, 61_000.0, 30 / 365)
    reading = Reading(
        {"BTC": seen(60_000, ago_ms=1_001)},
        {BTC: seen(math.inf)},
        {BTC: Observed(wild, 0.5, NOW_MS)},
        {BTC: seen(math.nan)},
        seen(1.0),
    )
    report, problems = report_of(reading, everything(), NOW_MS, 1_000, False)
    assert [each.feed for each in report.prices] == ["STABLE"]
    assert report.rates == (Rate(NAME, 0, 900_000),)
    assert not report.surfaces
    assert len(problems) == 3
    assert problems[0] == "BTC: a value is 1.0 s old"
    assert "least variance" in problems[2]


def test_names() -> None:
    assert names_of(READING) == ["BTC", "BTC-PERPETUAL", "STABLE", NAME]
    assert feed_name(BTC) == NAME
    assert not feed_name(Expiry("BTC", AT_MS + 1)), "between two seconds"
    assert not feed_name(Expiry("BTC", AT_MS + 3_600_000)), "at nine"
    assert names_of(Reading({}, {Expiry("BTC", AT_MS + 1): seen(1.0)})) == []


def test_rounding_keeps_volatilities_and_makes_no_arbitrage() -> None:
    """Sound surfaces of all lives and shapes, many on the edge, stay sound and keep their smile."""
    random_ = random.Random(20_261_225)
    for _ in range(300):
        tau = math.exp(random_.uniform(math.log(20 / YEAR_S), math.log(2.0)))
        level = random_.uniform(0.05, 4.0) * tau
        rho = random_.uniform(-0.99, 0.99)
        sigma = math.exp(random_.uniform(math.log(0.01), math.log(2.0)))
        b = min(level / sigma, 2 / (1 + abs(rho))) * random_.choice((1.0, random_.random()))
        least = -b * sigma * math.sqrt(1 - rho * rho)
        a = random_.choice((least, least + level))
        svi = Svi(a, b, rho, random_.uniform(-0.5, 0.5), sigma, 60_000.0, tau)
        if svi.variance(np.zeros(1))[0] < 1e-3 * tau:
            continue
        found = surface_of("A", svi, 1)
        report, problems = report_of(
            Reading({}, {}, {BTC: Observed(svi, 1.0, NOW_MS)}), everything(), NOW_MS, 1, False
        )
        assert len(report.surfaces) == 1, problems
        back = Svi(
            found.a_pico / PICO, found.b_pico / PICO, found.rho_pico / PICO, found.m_pico / PICO,
            found.sigma_pico / PICO, found.forward_uusd / 1e6, found.tau_s / YEAR_S,
        )  # fmt: skip
        strikes = np.array([60_000.0])
        assert back.vols(strikes)[0] == pytest.approx(svi.vols(strikes)[0], rel=1e-4)
        assert back.wing_slope <= 2 + 1e-9


@pytest.mark.skipif(not CHAIN.exists(), reason="the recorded chains are not here")
async def test_every_surface_of_a_recorded_chain_is_reported() -> None:
    recorded = RecordedSection(files=(str(CHAIN),), dates="days", start="2026-11-01T00:00:00Z")
    config = SourceConfig(SourceSection("recorded"), recorded=recorded)
    now_ms = int(datetime(2026, 11, 1, 0, 1, tzinfo=UTC).timestamp()) * 1_000
    reading = await open_source(config, now_ms).read(now_ms)
    names = frozenset(names_of(reading))
    report, problems = report_of(reading, Known(names, names, names), now_ms, 1_000, True)
    check_report(report, now_ms)
    assert len(report.surfaces) == len(reading.svi) >= 5
    assert len(report.prices) == len(reading.index) * 2 + len(reading.forward) + 1
    assert not problems
    assert all(not check_arbitrage(each.value).problems for each in reading.svi.values())
