"""The fee replay: its baselines by hand, its figures, bad files, and its floors on recorded fees.

`tests/vectors/l1_fees_synthetic.csv` is made up: 420 blocks, two of them missing, a base fee that walks by
5 % a block with a rise by 9 % a block for five minutes and a slower fall, and a blob base fee that walks.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from l1_bridge.blobs import DATA_BYTES_PER_BLOB, GAS_PER_BLOB
from state.units import PPM, PUSD_PER_UUSD
from tools.fee_baselines import OpenLoop, Straddle, SurplusFeedback, break_even_pusd
from tools.fee_measures import drive, measure, moves_away
from tools.fee_recording import ETH_PRICE_UUSD, LAG_BLOCKS, SIZES, Posted, Replay, load_trace, replay
from tools.fee_replay import MEAN_TPS, SEED, app, convergence, floors, pricers
from tools.l1_fees import BlockFees, read_fees

SYNTHETIC = Path(__file__).parents[1] / "vectors" / "l1_fees_synthetic.csv"
RECORDED = Path(__file__).parents[3] / "shared" / "data"
GWEI = 10**9


def recorded(name: str) -> Replay:
    path = RECORDED / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip("no recorded fees")
    return replay(read_fees(path), SEED, MEAN_TPS)


@pytest.fixture(scope="module")
def synthetic() -> Replay:
    return replay(read_fees(SYNTHETIC), SEED, MEAN_TPS)


def block(number: int, base_fee_wei: int, blob_wei: int = 1) -> BlockFees:
    return BlockFees(number, 12 * number, base_fee_wei, blob_wei)


def test_every_transaction_is_in_one_batch(synthetic: Replay) -> None:
    charged = [0] * (len(synthetic.batches) + 1)
    for second in synthetic.seconds:
        charged[second.batch] += sum(count * size for count, size in zip(second.counts, SIZES, strict=True))
    assert charged[:-1] == [batch.charged_bytes for batch in synthetic.batches]
    reported = [batch.number for second in synthetic.seconds for batch in second.reports]
    assert reported == list(range(len(reported)))
    assert len(reported) >= len(synthetic.batches) - 2
    for second in synthetic.seconds:
        for batch in second.reports:
            assert second.origin is not None
            assert batch.block.number <= second.origin.number
        if second.closed is not None:
            assert second.closed.block.timestamp_s > second.time_s


@pytest.mark.parametrize("lag", [0, 6])
def test_origins_and_reports_lie_behind_the_head(lag: int) -> None:
    blocks = [block(n, (n % 7 + 1) * GWEI) for n in range(100, 300)]
    replayed = replay(blocks, SEED, MEAN_TPS, lag_blocks=lag)
    for second in replayed.seconds:
        head = second.time_s // 12
        if second.origin is not None:
            assert second.origin.number == head - lag
        assert all(batch.block.number <= head - lag for batch in second.reports)
    assert sum(len(second.reports) for second in replayed.seconds) > 0


def test_lag_is_an_option() -> None:
    runner = CliRunner()
    answers = [
        json.loads(runner.invoke(app, [str(SYNTHETIC), "--json", "--lag", lag]).output) for lag in ("2", "6")
    ]
    assert [answer["lag_blocks"] for answer in answers] == [2, 6]
    assert answers[0]["pricers"][0] != answers[1]["pricers"][0]
    refused = runner.invoke(app, [str(SYNTHETIC), "--lag", "10000"])
    assert refused.exit_code == 2
    assert "too few" in refused.output


def test_a_full_batch_fits_what_it_is_posted_by(synthetic: Replay) -> None:
    assert max(batch.size_bytes for batch in synthetic.batches) <= 3 * DATA_BYTES_PER_BLOB
    assert max(batch.blobs for batch in synthetic.batches) <= 3


def test_the_load_is_seeded() -> None:
    first = load_trace(3_600, 1, 20.0)
    assert first == load_trace(3_600, 1, 20.0)
    assert first != load_trace(3_600, 2, 20.0)
    many = load_trace(100_000, 3, 20.0)
    assert sum(map(sum, many)) / len(many) == pytest.approx(20, rel=0.2)


def test_surplus_feedback_by_hand() -> None:
    """Two reports, the formula's numbers worked out on paper."""
    empty = Replay(block(100, GWEI), "auto")
    batch = Posted(0, 10_000, 10_100, 1_212, block(101, GWEI), 1_000_000, 0)
    empty.seconds = replay([block(n, GWEI) for n in range(100, 200)], 1, 20.0).seconds[:1]
    start_s = empty.seconds[0].time_s
    pricer = SurplusFeedback(empty, ETH_PRICE_UUSD * 16 * PUSD_PER_UUSD // GWEI)
    assert pricer.price_pusd(start_s) == 16 * ETH_PRICE_UUSD * PUSD_PER_UUSD // GWEI  # a gwei for a unit
    pricer.collected(10_000, 480_000)  # 160,000 units, 1.6e14 wei
    mined = Posted(0, 10_000, 10_100, 0, BlockFees(101, start_s + 60, GWEI, 1), 1_000_000, 0)
    pricer.reported(mined, start_s + 120)
    # half of the units; surplus 1.6e14 - 1e15 = -8.4e14; desired 5,250,000; actual -1.05e10
    change = (5_250_000 + 10_500_000_000) * 80_000 // (16_000_000 + 80_000)
    assert pricer.price_pusd(0) == -(-(GWEI + change) * 16 * ETH_PRICE_UUSD * PUSD_PER_UUSD // 10**18)
    assert batch.cost_wei == 10**15


def test_open_loop_by_hand() -> None:
    blocks = [block(n, 20 * GWEI, 5 * GWEI) for n in range(100, 400)]
    replayed = replay(blocks, 1, 20.0)
    pricer = OpenLoop(replayed)
    charged = sum(batch.charged_bytes for batch in replayed.batches)
    wei = sum(batch.gas for batch in replayed.batches) * 20 * GWEI
    wei += sum(batch.blobs for batch in replayed.batches) * GAS_PER_BLOB * 5 * GWEI
    uusd_per_byte = wei * ETH_PRICE_UUSD / 10**18 / charged
    pricer.observed(blocks[5])
    assert pricer.price_pusd(0) / PUSD_PER_UUSD == pytest.approx(uusd_per_byte, rel=1e-4)


def test_steady_fees_are_paid_exactly() -> None:
    """On constant fees everybody breaks even, but for rounding and the load's swings."""
    replayed = replay([block(n, 20 * GWEI) for n in range(100, 800)], 1, 50.0, "calldata")
    all_figures = [measure(replayed, drive(replayed, pricer)) for pricer in pricers(replayed)]
    assert all(abs(figures.mean_error) < 0.01 for figures in all_figures)
    assert all(figures.recovery_s == 0 for figures in all_figures)
    assert all_figures[0].worst_deficit_hours < 0.005
    assert all_figures[0].mean_overcharge < 0.005


def test_figures_on_a_synthetic_storm(synthetic: Replay) -> None:
    runs = [drive(synthetic, pricer) for pricer in pricers(synthetic)]
    figures = [measure(synthetic, run) for run in runs]
    off = convergence(synthetic, runs)
    held = floors(figures, off)
    assert figures[0].quotes > 0
    assert figures[0].quotes_exceeded == 0
    assert figures[0].largest_jump <= 0.1251
    assert held["converges without moving away for two batches"]
    assert held["mean overcharge, over less under, below 3 %"]
    assert figures[0].worst_deficit_hours < min(each.worst_deficit_hours for each in figures[1:])


def test_exceeded_quotes_are_counted(synthetic: Replay) -> None:
    """A pricer that quotes its present price is caught."""

    class Careless(Straddle):
        def most_pusd(self, now_s: int, seconds: int) -> int | None:
            return self.registers.price_pusd

    figures = measure(synthetic, drive(synthetic, Careless(synthetic, break_even_pusd(synthetic))))
    assert figures.quotes_exceeded > 0


def test_moving_away_is_counted(synthetic: Replay) -> None:
    right = drive(synthetic, Straddle(synthetic, break_even_pusd(synthetic)))
    assert moves_away(synthetic, right, right) == (0, 0)
    off = drive(synthetic, OpenLoop(synthetic, 5 * PPM))
    assert moves_away(synthetic, right, off)[0] > 0


@pytest.mark.parametrize(
    "name",
    [
        "ethereum_l1_basefee_20220512",
        "ethereum_l1_base_and_blob_fee_20241015",
        "ethereum_l1_basefee_20251126",
    ],
)
def test_floors_on_recorded_fees(name: str) -> None:
    replayed = recorded(name)
    runs = [drive(replayed, pricer) for pricer in pricers(replayed)]
    held = floors([measure(replayed, run) for run in runs], [])
    assert all(held.values()), held


def test_command_writes_json_and_plots(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(SYNTHETIC), "--json", "--plot", str(tmp_path / "plots")])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.output)
    assert [each["name"] for each in answer["pricers"]] == ["straddle", "surplus feedback", "open loop"]
    plots = sorted((tmp_path / "plots").iterdir())
    assert [path.name for path in plots] == [
        f"l1_fees_synthetic_{kind}.png" for kind in ("charge", "price", "surplus")
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "block_number,timestamp_s\n1,2\n",
        "block_number,timestamp_s,base_fee_wei\n",
        "block_number,timestamp_s,base_fee_wei\n" + "".join(f"{n},{12 * n},7\n" for n in range(LAG_BLOCKS)),
        "block_number,timestamp_s,base_fee_wei\n1,12,x\n2,24,7\n",
        "block_number,timestamp_s,base_fee_wei\n2,12,7\n1,24,7\n",
        "block_number,timestamp_s,base_fee_wei\n1,12,7\n2,24,7\n3,36,7\n4,48,7\n",
    ],
    ids=["empty", "no column", "no rows", "few rows", "no number", "order", "no batch"],
)
def test_bad_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "fees.csv"
    path.write_text(text)
    result = CliRunner().invoke(app, [str(path)])
    assert result.exit_code == 2
    assert "fees.csv" in result.output
