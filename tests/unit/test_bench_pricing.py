"""The benchmark of pricing measures what it says: the calls of its repetitions are those of the blocks."""

from __future__ import annotations

import pytest

from state.actions import Transaction
from state.fees import Parts
from state.leaves import FeeMarket
from tools import bench_pricing
from tools.bench_pricing import NOTHING, PRICING, check_unchanged, execute, repeated
from tools.exchange import Exchange


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_pricing, "BOOK_ORDERS", 200)
    monkeypatch.setattr(bench_pricing, "FLOW", 600)
    usual = bench_pricing.prepare

    def without_load() -> tuple[Exchange, list[list[Transaction]]]:
        """Base prices that no block raises: those made again would be the next block's."""
        exchange, blocks = usual()
        exchange.set_fees(execution_target=10**9, data_target=10**9, growth_target=10**9)
        return exchange, blocks

    monkeypatch.setattr(bench_pricing, "prepare", without_load)


def test_prices_made_again_are_those_charged_and_change_nothing() -> None:
    exchange, blocks = bench_pricing.prepare()
    again: list[Parts] = []

    def charge(byte: int, market: FeeMarket, units: int, leaves: int, size: int, risk: int) -> Parts:
        again.append(PRICING.charge(byte, market, units, leaves, size, risk))
        return again[-1]

    fills = bids = 0
    for transactions in blocks:
        execution, charged = execute(exchange, transactions)
        again.clear()
        _, filled = repeated(exchange, execution, charged, PRICING._replace(charge=charge))
        repeated(exchange, execution, charged, NOTHING)
        results = exchange.results[-1].results
        # Risk is that of an account after the block, not in the midst of it.
        assert [parts[:-1] for parts in again] == [result.fee_parts[:-1] for result in results]
        fills += filled
        bids += sum(result.priority_uusd > 0 for result in results)
    assert fills > 10
    assert bids > 100
    check_unchanged(exchange)


def test_a_repetition_that_changed_something_would_be_noticed() -> None:
    exchange, blocks = bench_pricing.prepare()
    for transactions in blocks:
        execute(exchange, transactions)
    exchange.system.fees_uusd += 1
    with pytest.raises(AssertionError, match="changed something"):
        check_unchanged(exchange)
