"""The main job as `make run` starts it: a few seconds on each L1, and what wrong options get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from l1_bridge.anvil import AnvilMissing, find_anvil
from tools.job_settlement import held
from tools.main_job import TAKERS_BIDS_UUSD

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "orders",
    "rejected",
    "fills",
    "options_settled",
    "liquidations",
    "block_trades",
    "margin_checks",
    "blocks",
    "batches_posted",
    "roots_verified",
    "roots_mismatched",
    "withdrawals_paid",
    "conservation_ok",
    "orders_per_s",
    "ack_ms_p50",
    "ack_ms_p99",
    "l1_gas_total",
    "l1_gas_per_order",
    "batch_bytes_per_order",
    "fee_data_per_order",
    "fee_exec_per_order",
    "fee_risk_per_order",
    "priority_paid",
    "fee_other_per_order",
    "l1_spend",
    "operator_pnl",
    "data_fees_not_posted",
    "byte_price_position",
    "quotes_asked",
    "quote_exceeded",
}


def run(folder: Path, **options: str) -> subprocess.CompletedProcess[str]:
    """The main job in a folder of its own, where it keeps its run: another one may be under way."""
    command = [sys.executable, "-m", "tools.main_job"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | options
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)


def anvil_is_there() -> bool:
    try:
        find_anvil()
    except AnvilMissing:
        return False
    return True


@pytest.mark.parametrize(
    "l1",
    [
        "embedded",
        pytest.param(
            "anvil", marks=[pytest.mark.anvil, pytest.mark.skipif(not anvil_is_there(), reason="needs anvil")]
        ),
    ],
)
def test_a_market_from_deposits_to_a_paid_withdrawal(l1: str, tmp_path: Path) -> None:
    tape = tmp_path / "BTCUSDT-trades.csv"
    rows = [
        f"{n},{61_000 + n % 7},0.0{1 + n % 5},1,{1_723_161_255_000 + 41 * n},{n % 3 == 0}" for n in range(150)
    ]
    tape.write_text("\n".join(rows) + "\n")
    summary_path = tmp_path / "summary.json"
    done = run(tmp_path, L1=l1, TAPE=str(tape), DURATION="20", JSON=str(summary_path))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(summary_path.read_text())
    assert set(summary) == FIELDS
    assert held(summary)
    assert summary["fills"] >= 150
    assert summary["rejected"] == 0
    assert summary["options_settled"] == 14
    assert summary["liquidations"] == summary["block_trades"] == 1
    assert summary["margin_checks"] > summary["orders"]
    assert summary["fee_data_per_order"] > 0
    assert summary["fee_exec_per_order"] > 0
    assert summary["fee_risk_per_order"] >= 0
    assert 0 < summary["priority_paid"] < summary["orders"] * max(TAKERS_BIDS_UUSD) / 1_000_000
    assert isinstance(summary["operator_pnl"], float)
    assert summary["operator_pnl"] + summary["l1_spend"] + summary["data_fees_not_posted"] == pytest.approx(
        summary["fee_data_per_order"] * summary["orders"], abs=0.01
    )
    assert "operator, posted batches: data fees less L1 spend" in done.stdout
    assert "for the past the byte price has still to collect" in done.stdout
    assert not held(summary | {"quote_exceeded": 1})
    assert not held(summary | {"quotes_asked": 0})
    assert not held(summary | {"roots_verified": summary["roots_verified"] - 1})
    assert not held(summary | {"options_settled": 0})
    assert held(summary | {"options_settled": None})


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("L1", "mainnet", "expected embedded, anvil or a URL"),
        ("DURATION", "soon", "expected a number of seconds"),
        ("TAPE", "no-such-file.csv", "there is no such file"),
        ("TAPE", str(ROOT / "Makefile"), "columns; expected Binance trades"),
        ("CHAIN", "no-such-file.csv", "there is no such file"),
        ("CHAIN", str(ROOT / "Makefile"), "Makefile: not an option chain"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: str, says: str, tmp_path: Path) -> None:
    done = run(tmp_path, **{option: value})
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
