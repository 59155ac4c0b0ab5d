"""The history of fees: sums are those of receipts, prices those that were charged, memory is bounded."""

from __future__ import annotations

from typing import Any

import trio
import trio.testing

from sequencer.fee_history import FeeHistory
from sequencer.machine import ExecutedBlock
from sequencer.receipts import Receipt
from state.actions import OrderKind
from state.fees import PARTS, charge
from state.rules import rule_of, use_of
from state.units import PUSD_PER_UUSD
from tests.unit.test_executor import Bench, opened, outcome_of


async def traded(bench: Bench, bids: list[int]) -> list[Receipt]:
    """One block of orders with these bids; their receipts."""
    answers = [bench.buy(kind=OrderKind.LIMIT, bid=bid) for bid in bids]
    await trio.sleep(0.1)
    return [outcome_of(answer) for answer in answers]


async def test_what_was_collected_is_what_receipts_say(autojump_clock: trio.testing.MockClock) -> None:
    """iFEEHIST_001"""
    async with opened() as bench:
        receipts = await traded(bench, [0, 70, 900, 50])
        (block,) = bench.fees.last(1, bench.receipts.last_block)
        found = block.collected
        assert found.transactions == 4
        views = [receipt.fee for receipt in receipts]
        expected = [
            sum(getattr(view, f"{part}_uusd") for view in views)
            for part in ("data", "bandwidth", "execution", "growth", "finality", "risk")
        ]
        assert list(found.parts_uusd) == expected
        assert found.parts_uusd[0] > 0
        assert found.priority_uusd == 70 + 50 == sum(view.priority_uusd for view in views)
        assert sum(expected) + 120 == sum(view.total_uusd - view.trading_uusd for view in views)
        await traded(bench, [0])
        newest, before = bench.fees.last(2, bench.receipts.last_block)
        assert before is block
        assert newest.through == before.through + newest.collected
        assert newest.elapsed_ms == newest.timestamp_ms - before.timestamp_ms > 0


async def test_a_blocks_prices_charge_what_its_transactions_paid(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened() as bench:
        await traded(bench, [0])
        executed = bench.blocks[-1]
        (block,) = bench.fees.last(1, executed.result.header.number)
        payload: Any = executed.transactions[0].payload
        units, leaves = use_of(bench.machine.view, payload.action, rule_of(payload.action))
        size = block.market.data_used
        assert (block.market.execution_used, block.market.growth_used) == (units, leaves)
        paid = executed.result.results[0].fee_parts
        risk = paid[PARTS.index("risk")]
        assert risk > 0
        assert paid == charge(block.byte_price_pusd, block.market, units, leaves, size, risk)


async def test_percentiles_of_places_are_weighted_by_units(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as bench:
        await traded(bench, [0, 70, 900, 50])
        executed = bench.blocks[-1]
        (block,) = bench.fees.last(1, executed.result.header.number)
        payload: Any = executed.transactions[0].payload
        units, _ = use_of(bench.machine.view, payload.action, rule_of(payload.action))
        rewards = block.rewards_pusd
        assert len(rewards) == 101
        assert set(rewards[:51]) == {0}, "half of the units, all alike, paid nothing"
        assert set(rewards[51:76]) == {50 * PUSD_PER_UUSD // units}
        assert set(rewards[76:]) == {70 * PUSD_PER_UUSD // units}
        await traded(bench, [0, 0])
        assert bench.fees.last(1, bench.receipts.last_block)[0].rewards_pusd == ()


async def test_blocks_are_bounded_and_the_newest_are_first(autojump_clock: trio.testing.MockClock) -> None:
    """iFEEHIST_002"""
    async with opened() as bench:
        for _ in range(5):
            await traded(bench, [0])
        blocks: list[ExecutedBlock] = bench.blocks[-5:]
        numbers = [block.result.header.number for block in blocks]
        last = numbers[-1]
        assert [each.number for each in bench.fees.last(3, last)] == [last, last - 1, last - 2]
        assert [each.number for each in bench.fees.last(2, last - 1)] == [last - 1, last - 2]
        assert bench.fees.last(1, last + 7)[0].number == last
        assert bench.fees.last(5, 0) == []
        small = FeeHistory(bench.machine.view, 0, kept=2)
        assert small.last(9, 9) == []
        for block in blocks:
            small.executed(block)
        assert [each.number for each in small.last(9, last)] == [last, last - 1]
        assert small.last(9, last - 2) == []
        assert small.last(1, last)[0].through.transactions == 5, "totals go on when blocks are dropped"
