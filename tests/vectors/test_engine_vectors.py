"""The calculation engine still gives the golden integers (iENGINE_001)."""

from __future__ import annotations

import json

from tests.vectors.engine_vectors import FILE, build

GOLDEN = json.loads(FILE.read_text())


def test_nothing_changed() -> None:
    assert build() == GOLDEN


def test_every_word_fits_and_money_adds_up() -> None:
    portfolio = GOLDEN["portfolio"]
    values = [int(value) for expiry in portfolio["values"] for option in expiry for value in option]
    assert all(-(2**61) <= value <= 2**61 for value in values)
    contingencies = {name: int(value) for name, value in portfolio["contingencies"].items()}
    maintenance = sum(value for name, value in contingencies.items() if name.endswith("_mm"))
    cash, stable_price = map(int, portfolio["cash_and_stable_price"])
    kept = int(portfolio["mark_to_market"]) + cash - maintenance
    worst = min(int(value) for value in [portfolio["basis_contingency"], *portfolio["scenario_pnl"]])
    lost_peg = (int(portfolio["parameters"]["peg_threshold"]) - stable_price) * 4
    factor = int(portfolio["parameters"]["im_factor"]) + lost_peg
    initial = (worst * factor >> 56) - (sum(contingencies.values()) - maintenance) + kept
    assert abs(int(portfolio["initial_margin"]) - initial) <= 1
