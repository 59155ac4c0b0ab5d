"""The posting curve: on made-up fees by hand, and on recorded ones when they are there."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from l1_bridge.posting import POST_GAS
from l1_bridge.posting_policy import PolicyTerms
from tools import posting_curve
from tools.l1_fees import BlockFees, FeesError, read_fees, synthetic_fees
from tools.posting_curve import ORDER_BYTES, Point, curve, replay, times_to_safe_s

RECORDED = sorted((Path(__file__).parents[2] / "../shared/data").glob("ethereum_l1_*.csv.gz"))
GWEI = 10**9
APP = typer.Typer()
APP.command()(posting_curve.main)


def test_a_replay_by_hand() -> None:
    """One order a second, blocks every 12 s, batches of 24 s: what is paid, and when orders are safe."""
    blocks = [BlockFees(number, number * 12, (10 + number) * GWEI, 1) for number in range(8)]
    arrivals = np.ones(84, dtype=np.int64)
    posted = replay(blocks, arrivals, PolicyTerms(max_age_s=24, max_delay_s=24, data="blobs"), "blobs")
    assert [(each.opened_s, each.decided_s, each.safe_s) for each in posted] == [
        (0, 24, 36),
        (25, 49, 60),
        (50, 74, 84),
    ]
    assert [each.orders for each in posted] == [25, 25, 25]
    assert posted[0].cost_wei == POST_GAS * 13 * GWEI + 131_072
    mean_s, p99_s = times_to_safe_s(posted[:1], arrivals)
    assert (mean_s, p99_s) == (24, 36)


def test_a_full_batch_ends_before_its_time() -> None:
    blocks = synthetic_fees(20, 1)
    arrivals = np.full(200, 100, dtype=np.int64)
    terms = PolicyTerms(max_age_s=100, max_delay_s=100, full_bytes=50_000)
    posted = replay(blocks, arrivals, terms, "auto")
    assert {each.rule for each in posted} == {"full"}
    assert all(50_000 <= each.orders * ORDER_BYTES < 50_000 + 101 * ORDER_BYTES for each in posted)


def check(points: list[Point]) -> None:
    """Longer delays cost no more than a little more, and nothing is older than its delay."""
    assert len(points) >= 4
    for before, after in pairwise(points):
        assert after.gwei_per_order <= 1.05 * before.gwei_per_order
        assert after.safe_p99_s >= 0.9 * before.safe_p99_s
    for each in points:
        assert each.oldest_s <= each.max_delay_s
        assert sum(each.rules.values()) == each.batches
    assert points[-1].gwei_per_order < points[0].gwei_per_order / 2


def test_the_curve_falls_on_made_up_fees() -> None:
    check(curve(synthetic_fees(500, 3), 1.0, "auto"))


@pytest.mark.skipif(not RECORDED, reason="no recorded fees beside the repository")
def test_the_curve_falls_on_recorded_fees() -> None:
    check(curve(read_fees(RECORDED[-1]), 1.0, "calldata"))


def test_the_command_writes_a_picture_and_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting_curve, "DELAYS_S", (30, 120))
    recording = tmp_path / "fees.csv.gz"
    rows = [f"{each.number},{each.timestamp_s},{each.base_fee_wei}" for each in synthetic_fees(150, 5)]
    recording.write_bytes(gzip.compress("\n".join(["block_number,timestamp_s,base_fee_wei", *rows]).encode()))
    picture = tmp_path / "curve.png"
    result = CliRunner().invoke(APP, [str(recording), "--json", "--plot", str(picture)])
    assert result.exit_code == 0, result.output
    points = json.loads(result.stdout)["curves"]["fees"]
    assert [each["max_delay_s"] for each in points] == [30, 120]
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    table = CliRunner().invoke(APP, [str(recording), "--plot", str(picture)])
    assert "gwei/order" in table.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("block_number,base_fee_wei\n1,2\n", "no column timestamp_s"),
        ("block_number,timestamp_s,base_fee_wei\n1,2,x\n", "line 2: not integers"),
        ("block_number,timestamp_s,base_fee_wei\n1,2,-1\n", "line 2: a fee below"),
        ("block_number,timestamp_s,base_fee_wei\n2,2,1\n1,3,1\n", "line 3: not later"),
        ("block_number,timestamp_s,base_fee_wei\n1,2,1\n", "fewer than two"),
    ],
)
def test_what_is_no_recording_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "fees.csv"
    path.write_text(text)
    with pytest.raises(FeesError, match=said):
        read_fees(path)
    result = CliRunner().invoke(APP, [str(path)])
    assert result.exit_code == 2
    assert said in result.output


def test_broken_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fees.csv.gz"
    path.write_bytes(b"\x1f\x8bnot gzip")
    with pytest.raises(FeesError, match="neither text nor gzip"):
        read_fees(path)
