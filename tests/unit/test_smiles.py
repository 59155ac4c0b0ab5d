"""The main job's oracle source: its surfaces are free of arbitrage and the exchange takes them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sequencer.option_chain import ChainError
from sequencer.oracle_sources import Expiry
from sequencer.oracle_values import Known, names_of, report_of
from sequencer.svi import check_arbitrage
from tools.job_oracle import EXPIRIES, MarketSource, next_expiries
from tools.smiles import MODEL_VOLATILITY, ModelSmile, RecordedSmile, smile_of

DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS + 3 * 3_600_000
CHAIN = Path(__file__).resolve().parents[3] / "shared" / "data" / "deribit_btc_options_20260801.csv.gz"
recorded = pytest.mark.skipif(not CHAIN.is_file(), reason="needs the recorded chain")


@pytest.mark.parametrize("years", [1e-7, 1e-4, 1 / 365, 2 / 365, 0.25, 1.0])
def test_the_model_has_no_arbitrage_and_its_volatility_at_the_money(years: float) -> None:
    quoted = ModelSmile().at(0, 60_000.0, years)
    assert check_arbitrage(quoted.svi, None).problems == ()
    (at_the_money,) = quoted.svi.vols(np.array([quoted.forward]))
    assert math.isclose(at_the_money, MODEL_VOLATILITY, rel_tol=1e-9)
    assert quoted.forward > 60_000


def test_the_model_has_no_arbitrage_between_expiries() -> None:
    nearer, later = (ModelSmile().at(0, 100.0, years).svi for years in (1 / 365, 2 / 365))
    assert check_arbitrage(later, nearer).problems == ()


def test_expiries_are_the_next_days_at_eight() -> None:
    assert next_expiries(NOW_MS) == [20_000 * DAY_MS + 8 * 3_600_000 + n * DAY_MS for n in range(EXPIRIES)]
    at_expiry = 20_000 * DAY_MS + 8 * 3_600_000
    assert next_expiries(at_expiry)[0] == at_expiry + DAY_MS


async def test_the_source_says_what_the_tape_says_and_all_of_it_can_be_reported() -> None:
    prices = {"BTC": 60_000_000_000, "ETH": 2_500_000_000}
    source = MarketSource(prices, "BTC", ModelSmile())
    prices["BTC"] = 61_000_500_000
    reading = await source.read(NOW_MS)
    assert {name: each.value for name, each in reading.index.items()} == {"BTC": 61_000.5, "ETH": 2_500.0}
    assert set(reading.forward) == {Expiry("BTC", expiry_ms) for expiry_ms in next_expiries(NOW_MS)}
    names = frozenset(names_of(reading))
    report, problems = report_of(reading, Known(names, names, names), NOW_MS, 10_000, True)
    assert problems == []
    assert len(report.prices) == 2 * len(prices) + EXPIRIES
    assert len(report.rates) == len(report.surfaces) == EXPIRIES
    assert all(each.timestamp_ms == NOW_MS for each in reading.svi.values())


async def test_up_to_its_last_second_an_expiry_has_a_surface() -> None:
    source = MarketSource({"BTC": 60_000_000_000}, "BTC", ModelSmile())
    last_ms = next_expiries(NOW_MS)[0] - 1_000
    reading = await source.read(last_ms)
    names = frozenset(names_of(reading))
    report, problems = report_of(reading, Known(names, names, names), last_ms, 10_000, True)
    assert problems == []
    assert report.surfaces[0].tau_s == 1


@pytest.fixture(scope="module")
def chain() -> RecordedSmile:
    return smile_of(CHAIN)


@recorded
def test_a_recorded_surface_keeps_its_volatilities_at_another_time_to_expiry(chain: RecordedSmile) -> None:
    fitted = chain.fitted[-1]
    years = fitted.svi.tau * 0.95
    quoted = chain.at(1, 50_000.0, years)
    strikes = np.array([0.9, 0.95, 1.0, 1.05, 1.1])
    now, then = quoted.svi.vols(strikes * quoted.svi.forward), fitted.svi.vols(strikes * fitted.svi.forward)
    assert np.allclose(now, then, rtol=1e-9)
    assert check_arbitrage(quoted.svi, None).problems == ()
    assert 0 < quoted.forward / 50_000 - 1 < 0.05


@recorded
def test_an_expiry_keeps_the_recorded_one_that_it_began_with(chain: RecordedSmile) -> None:
    first, second = chain.fitted[0].svi, chain.fitted[1].svi
    begun = chain.at(2, 100.0, second.tau)
    later = chain.at(2, 100.0, first.tau)
    assert begun.svi.rho == later.svi.rho == second.rho
    assert chain.at(3, 100.0, first.tau).svi.rho == first.rho


def test_a_file_that_is_no_chain_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chain.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ChainError, match=r"chain\.csv: not an option chain"):
        smile_of(path)
