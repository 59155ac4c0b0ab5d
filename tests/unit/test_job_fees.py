"""The main job's fees: sums by part over orders, and what the operator is left with."""

from __future__ import annotations

from typing import Any

from tools.job_fees import JobFees

HISTORY: dict[str, Any] = {
    "total": {
        "transactions": 10,
        "priority_uusd": 1_500,
        "data_uusd": 3_000_000,
        "bandwidth_uusd": 100,
        "execution_uusd": 20_000,
        "growth_uusd": 10,
        "finality_uusd": 1,
        "risk_uusd": 7,
    },
    "eth_price_uusd": 2_000_000_000,
}


def test_parts_per_order_and_the_operators_loss() -> None:
    fees = JobFees.of(HISTORY, 2 * 10**15)
    assert fees.summary(20) == {
        "fee_data_per_order": 0.15,
        "fee_exec_per_order": 0.001,
        "fee_risk_per_order": 0.0,
        "priority_paid": 0.0015,
        "operator_pnl": -1.0,
    }
    facts = dict(fees.facts(20))
    assert facts["fees per order: data/execution/other/risk"] == "$0.150000 / 0.001000 / 0.000006 / 0.000000"
    assert facts["operator: data fees less L1 spend"] == "$3.00 - $4.00 = -$1.00"


def test_without_orders_sums_stand_alone() -> None:
    assert JobFees.of(HISTORY, 0).summary(0)["operator_pnl"] == 3.0
