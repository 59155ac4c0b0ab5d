"""Static and recorded sources, wandering prices, and the configuration that opens them."""

import math
from pathlib import Path

import numpy as np
import pytest

from sequencer.config_file import ConfigError, default_text, load
from sequencer.oracle_config import SourceConfig
from sequencer.oracle_http import HttpSource
from sequencer.oracle_open import open_source
from sequencer.oracle_recorded import RecordedSource, shift_ms, surface_confidence
from sequencer.oracle_sources import Expiry, Reading, confidence
from sequencer.oracle_static import Wander
from sequencer.svi import check_arbitrage
from sequencer.svi_fit import FittedExpiry, QuoteErrors
from tests.option_quotes import HEADER, MONTH, QUARTER, chain_file, chain_row

SNAPSHOT_MS = 1_785_607_200_000
DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
STATIC = """
[source]
kind = "static"
[[static.underlyings]]
name = "BTC"
index = 60000.0
[[static.underlyings.expiries]]
at = 2026-08-28T08:00:00Z
volatility = 0.6
rate = 0.05
[[static.underlyings.expiries]]
at = 2026-08-01T08:00:00Z
volatility = 0.6
"""


def config(directory: Path, text: str) -> SourceConfig:
    path = directory / "oracle.toml"
    path.write_text(text)
    return load(SourceConfig, path, {})


async def read(directory: Path, text: str, now_ms: int, opened_ms: int | None = None) -> Reading:
    source = open_source(config(directory, text), now_ms if opened_ms is None else opened_ms)
    return await source.read(now_ms)


async def test_static_prices(tmp_path: Path) -> None:
    reading = await read(tmp_path, STATIC, SNAPSHOT_MS)
    key = Expiry("BTC", 1_787_904_000_000)
    tau = (key.at_ms - SNAPSHOT_MS) / YEAR_MS
    assert reading.index["BTC"].value == 60_000
    assert list(reading.forward) == [key], "the other expiry has passed"
    assert reading.forward[key].value == pytest.approx(60_000 * math.exp(0.05 * tau))
    assert reading.rate[key].value == 0.05
    svi = reading.svi[key].value
    assert check_arbitrage(svi).problems == ()
    assert svi.vols(np.array([30_000.0, 60_000.0, 120_000.0])) == pytest.approx([0.6] * 3)
    assert reading.stable is not None
    assert reading.stable.value == 1.0
    assert {reading.index["BTC"].timestamp_ms, reading.svi[key].timestamp_ms} == {SNAPSHOT_MS}
    assert reading.problems == ()


def test_wandering_is_a_function_of_the_time() -> None:
    one, same, other = Wander(7, 0.8), Wander(7, 0.8), Wander(8, 0.8)
    times = range(SNAPSHOT_MS, SNAPSHOT_MS + 60_000, 1_700)
    path = [one.factor("BTC", now) for now in times]
    assert [same.factor("BTC", now) for now in reversed(times)] == path[::-1], "in any order"
    assert [other.factor("BTC", now) for now in times] != path
    assert [one.factor("ETH", now) for now in times] != path
    assert [Wander(7, 0.0).factor("BTC", now) for now in times] == [1.0] * len(path)
    assert len(set(path)) == len(path)


@pytest.mark.parametrize("lag_ms", [4_000, 60_000, 900_000])
def test_wandering_has_the_volatility_it_is_given(lag_ms: int) -> None:
    wander = Wander(1, 0.8)
    path = [math.log(wander.factor("BTC", SNAPSHOT_MS + number * lag_ms)) for number in range(400)]
    measured = float(np.std(np.diff(path))) * math.sqrt(YEAR_MS / lag_ms)
    assert measured == pytest.approx(0.8, rel=0.25)
    assert max(map(abs, path)) < 0.5


def recorded(tmp_path: Path, **keys: str) -> str:
    path = tmp_path / "chain.csv.gz"
    chain_file(path, [("2026-08-31T18:00:00Z", MONTH), ("2026-10-30T18:00:00Z", QUARTER)])
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    return "\n".join(["[source]", 'kind = "recorded"', "[recorded]", f'files = ["{path}"]', *lines])


async def test_a_recorded_chain_reads_as_if_live(tmp_path: Path) -> None:
    reading = await read(tmp_path, recorded(tmp_path, dates="recorded"), SNAPSHOT_MS + DAY_MS)
    near, far = reading.forward
    assert (near.at_ms, far.at_ms) == (SNAPSHOT_MS + 30 * DAY_MS, SNAPSHOT_MS + 90 * DAY_MS)
    assert reading.index["BTC"].value == 60_000
    assert reading.index["BTC"].confidence == pytest.approx(1 - 5 / 60_000 / 0.01)
    assert reading.forward[near].value == MONTH.forward
    assert reading.rate[far].value == pytest.approx(math.log(61_000 / 60_000) / (90 / 365))
    assert 0.9 < reading.rate[far].confidence < 1
    strikes = np.array([50_000.0, 60_000.0, 70_000.0])
    assert reading.svi[near].value.vols(strikes) == pytest.approx(MONTH.vols(strikes), abs=1e-3)
    assert check_arbitrage(reading.svi[far].value, reading.svi[near].value).problems == ()
    assert 0.9 < reading.svi[near].confidence < 1
    assert reading.svi[near].timestamp_ms == SNAPSHOT_MS + DAY_MS
    assert reading.problems == ()


async def test_expiries_pass(tmp_path: Path) -> None:
    text = recorded(tmp_path, dates="recorded")
    reading = await read(tmp_path, text, SNAPSHOT_MS + 30 * DAY_MS)
    assert len(reading.forward) == len(reading.svi) == len(reading.rate) == 1
    assert "BTC" in (await read(tmp_path, text, SNAPSHOT_MS + 900 * DAY_MS)).index


@pytest.mark.parametrize(
    ("dates", "later_ms", "expected_ms"),
    [
        ("recorded", 100 * DAY_MS + 5_500, 0),
        ("days", 100 * DAY_MS + 5_500, 100 * DAY_MS),
        ("days", DAY_MS - 1, 0),
        ("days", -1, -DAY_MS),
        ("exact", 100 * DAY_MS + 5_500, 100 * DAY_MS + 5_000),
    ],
)
def test_dates_move_as_configured(dates: str, later_ms: int, expected_ms: int) -> None:
    assert shift_ms(dates, SNAPSHOT_MS, SNAPSHOT_MS + later_ms) == expected_ms  # type: ignore[arg-type]


async def test_publishers_that_share_a_start_report_the_same_expiries(tmp_path: Path) -> None:
    text = recorded(tmp_path, dates="exact", start="2026-12-01T00:00:00Z")
    now_ms = 1_796_083_200_000 + 5_000
    first = await read(tmp_path, text, now_ms, opened_ms=now_ms - 4_000)
    second = await read(tmp_path, text, now_ms, opened_ms=now_ms)
    assert first == second
    assert [key.at_ms for key in first.forward] == [
        now_ms - 5_000 + 30 * DAY_MS,
        now_ms - 5_000 + 90 * DAY_MS,
    ]


async def test_wandering_moves_index_forward_and_surface_together(tmp_path: Path) -> None:
    text = recorded(tmp_path, dates="recorded").replace(
        "[recorded]", "volatility = 0.9\nseed = 3\n[recorded]"
    )
    reading = await read(tmp_path, text, SNAPSHOT_MS)
    factor = reading.index["BTC"].value / 60_000
    assert factor != 1.0
    near = next(iter(reading.forward))
    assert reading.forward[near].value == pytest.approx(MONTH.forward * factor)
    assert reading.svi[near].value.forward == pytest.approx(MONTH.forward * factor)


async def test_an_expiry_without_a_surface_is_a_problem_not_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "chain.csv"
    path.write_text("\n".join([HEADER, chain_row()]))
    text = f'[source]\nkind = "recorded"\n[recorded]\nfiles = ["{path}"]\ndates = "recorded"\n'
    reading = await read(tmp_path, text, SNAPSHOT_MS)
    assert (len(reading.forward), len(reading.svi)) == (1, 0)
    assert "usable two-sided quotes at 1 strikes" in reading.problems[0]


def test_the_surface_is_trusted_less_for_wide_quotes_and_for_misses() -> None:
    svi = MONTH
    at_the_money = float(svi.vols(np.array([svi.forward]))[0])

    def trust(errors: list[float], spreads: list[float], contained: list[bool]) -> float:
        judged = QuoteErrors(np.array(errors), np.array(spreads), np.array(contained), 0)
        return surface_confidence(FittedExpiry(0, svi, check_arbitrage(svi), 3, judged))

    wide = [0.02 * at_the_money] * 2 + [float("nan")]
    assert trust([0.0] * 3, wide, [True] * 3) == pytest.approx(1 - 0.02 / 0.5)
    assert trust([9.0] * 3, wide, [True] * 3) == pytest.approx(1 - 0.02 / 0.5), "inside the quotes"
    missed = trust([0.3 * at_the_money] * 3, wide, [False, True, True])
    assert missed == pytest.approx(1 - (0.02 + 0.1) / 0.5)
    assert trust([0.0], [float("nan")], [True]) == 0
    assert trust([], [], []) == 0


@pytest.mark.parametrize(
    ("uncertainty", "expected"),
    [(0.0, 1.0), (0.005, 0.5), (0.01, 0.0), (5.0, 0.0), (float("nan"), 0.0), (float("inf"), 0.0)],
)
def test_confidence_is_linear_and_bounded(uncertainty: float, expected: float) -> None:
    assert confidence(uncertainty, 0.01) == pytest.approx(expected)


def test_the_default_file_loads_and_needs_content(tmp_path: Path) -> None:
    assert config(tmp_path, default_text(SourceConfig)) == SourceConfig()
    for kind in ("static", "recorded", "http"):
        with pytest.raises(ConfigError, match=f"the source {kind} needs at least one"):
            open_source(config(tmp_path, f'[source]\nkind = "{kind}"'), SNAPSHOT_MS)


def test_the_documented_example_opens(tmp_path: Path) -> None:
    from sequencer import oracle_config

    assert oracle_config.__doc__ is not None
    example = [line[4:] for line in oracle_config.__doc__.splitlines() if line.startswith("    ")]
    source = open_source(config(tmp_path, "\n".join(example)), SNAPSHOT_MS)
    assert isinstance(source, HttpSource)


FEED = '[[http.feeds]]\nkind = "index"\nunderlying = "BTC"\nurl = "http://h/"\nvalue = "$"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[source]\nkind = "magic"\n', "source.kind"),
        ("[sauce]\n", "did you mean source?"),
        ("[source]\nsead = 1\n", "did you mean seed?"),
        ("[source]\nvolatility = 11.0\n", "between 0 and 10"),
        ('[source]\nkind = "http"\nvolatility = 0.5\n', "do not wander"),
        ("[static]\nstable = 0.0\n", "static.stable: must be above 0"),
        ("[static]\nconfidence = 1.5\n", "between 0 and 1"),
        (STATIC + 'at = "soon"\n', "not TOML"),
        (STATIC.replace("volatility = 0.6", "volatility = 0.0"), "volatility: must be above 0"),
        (STATIC.replace("rate = 0.05", "rate = 5.0"), "between -1 and 1"),
        (STATIC.replace("rate = 0.05", "rates = 0.05"), "unknown field `rates`"),
        (STATIC.replace("08-28T08:00:00Z", "08-28T08:00:00"), "needs a time zone"),
        (STATIC.replace("08-28", "08-01"), "all different"),
        (STATIC.replace("60000.0", "-1.0"), "index: must be above 0"),
        (STATIC.replace('"BTC"', '""'), "name: must not be empty"),
        ('[recorded]\nstart = "soon"\n', "no time like"),
        ('[recorded]\nstart = "2026-12-01T00:00:00"\n', "needs a time zone"),
        ('[recorded]\ndates = "some"\n', "recorded.dates"),
        ("[http]\ntimeout_s = 0.0\n", "timeout_s: must be above 0"),
        (FEED + FEED, "two feeds for the same value"),
        (FEED.replace("http://h/", "h"), "expected http://host"),
        (FEED.replace('"$"', '"result.price"'), "must begin with $"),
        (FEED.replace('value = "$"', ""), "give either value, or bid and ask"),
        (FEED + 'bid = "$"\nask = "$"\n', "give either value, or bid and ask"),
        (FEED.replace("value", "bid"), "give either value, or bid and ask"),
        (FEED.replace('"index"', '"forward"'), "expiry: needed by forward"),
        (FEED + "expiry = 2026-08-28T08:00:00Z\n", "expiry: needed by forward"),
        (FEED.replace('"BTC"', '""'), "underlying: needed"),
        (FEED.replace('"index"', '"stable"'), "underlying: needed"),
        (FEED + "confidence = -0.1\n", "between 0 and 1"),
        (FEED + 'timestamp_unit = "h"\n', "timestamp_unit"),
        (FEED + 'vallue = "$"\n', "unknown field `vallue`"),
    ],
)
def test_wrong_configurations_are_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, text)
    assert said in str(caught.value)


def test_chain_files_that_cannot_be_used(tmp_path: Path) -> None:
    nowhere = f'[source]\nkind = "recorded"\n[recorded]\nfiles = ["{tmp_path}/nowhere.csv"]\n'
    with pytest.raises(ConfigError, match=r"recorded.files: .*nowhere.csv"):
        open_source(config(tmp_path, nowhere), SNAPSHOT_MS)
    garbage = tmp_path / "garbage.csv"
    garbage.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="not an option chain"):
        open_source(config(tmp_path, nowhere.replace("nowhere", "garbage")), SNAPSHOT_MS)
    path = chain_file(tmp_path / "chain.gz", [("2026-08-31T18:00:00Z", MONTH)])
    twice = f'[source]\nkind = "recorded"\n[recorded]\nfiles = ["{path}", "{path}"]\n'
    with pytest.raises(ConfigError, match="two chains of BTC"):
        open_source(config(tmp_path, twice), SNAPSHOT_MS)


def test_a_recorded_source_opens_by_configuration(tmp_path: Path) -> None:
    assert isinstance(open_source(config(tmp_path, recorded(tmp_path)), SNAPSHOT_MS), RecordedSource)
