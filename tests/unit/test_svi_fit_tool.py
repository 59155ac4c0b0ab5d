"""The fitting tool: its report and its exit status."""

import json
from pathlib import Path

import pytest
import typer

from tests.option_quotes import HEADER, MONTH, QUARTER, chain_file, chain_row
from tools.svi_fit import main

MONTH_END, QUARTER_END = "2026-08-31T18:00:00Z", "2026-10-30T18:00:00Z"


def test_a_clean_chain_passes_and_json_holds_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = chain_file(tmp_path / "chain.csv.gz", [(MONTH_END, MONTH), (QUARTER_END, QUARTER)])
    main(path, as_json=True, limit=0.1)
    result = json.loads(capsys.readouterr().out)
    assert result["overall"]["median_vol_points"] < 0.1
    assert result["overall"]["within_bid_ask"] == 1
    assert [one["expiry"] for one in result["expiries"]] == [MONTH_END, QUARTER_END]
    assert result["expiries"][0]["svi"]["b"] == pytest.approx(MONTH.b, rel=0.02)
    assert result["expiries"][1]["arbitrage"]["problems"] == []
    main(path)
    assert "2026-10-30" in capsys.readouterr().out


def test_a_median_above_the_limit_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = chain_file(tmp_path / "chain.csv.gz", [(MONTH_END, MONTH)])
    with pytest.raises(typer.Exit) as caught:
        main(path, limit=0.0)
    assert caught.value.exit_code == 1
    assert "limit 0" in capsys.readouterr().err


def test_an_expiry_that_cannot_be_fitted_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "chain.csv"
    path.write_text("\n".join([HEADER, chain_row()]))
    with pytest.raises(typer.Exit) as caught:
        main(path)
    assert caught.value.exit_code == 1
    assert "not fitted: 2026-08-28T08:00:00Z: usable two-sided quotes at 1 strikes" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_has_its_own_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught:
        main(tmp_path / "nowhere.csv")
    assert caught.value.exit_code == 2
    assert "nowhere.csv" in capsys.readouterr().err
