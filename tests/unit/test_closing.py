"""The executor closes batches as the posting policy says, on a virtual clock; and what it tells of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from l1_bridge.posting_policy import L1Prices
from l1_bridge.rollup import RollupInfo
from l1_bridge.types import Fees, L1Unavailable
from sequencer.bridge import PRICE_LOOK_S, NodeBridge
from sequencer.cli_services import check_delay
from sequencer.closing import Closing, L1Side
from sequencer.config import BatchesSection, L1Section, NodeConfig, PosterSection
from sequencer.config_file import ConfigError, load
from sequencer.l1_link import PRICE_KEPT_S, L1Link
from sequencer.machine import ClosedBatch
from sequencer.metrics import Metrics
from state import wire
from tests.unit.test_executor import INTERVAL_MS, Bench, _update, opened
from tools.exchange import standard_exchange
from tools.services import node_config

GWEI = 10**9
SLACK_S = 2 * INTERVAL_MS / 1000 + 1.0
"""Between what the policy says and the closing: two slots, and the executor's look when nothing comes."""
PATIENT = BatchesSection(max_age_ms=10_000, max_delay_ms=60_000)


def prices(level: float) -> L1Prices:
    return L1Prices(20 * GWEI * level, 2 * GWEI * level, 20 * GWEI, 2 * GWEI)


def ages_s(bench: Bench) -> list[float]:
    """Of the closed batches, from their first block."""
    ages, first = [], None
    for item, time_s in zip(bench.items, bench.times, strict=True):
        if isinstance(item, ClosedBatch):
            assert first is not None
            ages.append(time_s - first)
            first = None
        elif first is None:
            first = time_s
    return ages


def closed_by(bench: Bench, rule: str) -> float:
    return bench.metrics.registry.get_sample_value("straddle_batches_closed_total", {"rule": rule}) or 0.0


async def test_without_a_price_a_batch_closes_at_its_age(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(batches=PATIENT) as bench:
        bench.l1 = L1Side(None, 0)
        await trio.sleep(15)
        assert ages_s(bench) == [pytest.approx(10, abs=SLACK_S)]
        assert closed_by(bench, "no_price") == 1


async def test_at_usual_prices_a_batch_stays_open_and_fills_but_not_beyond_its_delay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """iPOSTING_001"""
    async with opened(batches=PATIENT) as bench:
        for level in (1.0, 40.0):
            bench.l1 = L1Side(prices(level), 0)
            for _ in range(7):
                bench.ingress.submit_update(wire.to_oracle_update(_update(bench.now_ms())), True)
                await trio.sleep(10)
        assert len(ages_s(bench)) == 2
        assert all(59 <= age <= 60 + SLACK_S for age in ages_s(bench))
        assert closed_by(bench, "max_delay") == 2


async def test_a_cheap_moment_closes_the_batch(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(batches=BatchesSection(max_age_ms=10_000, max_delay_ms=600_000)) as bench:
        bench.l1 = L1Side(prices(1.0), 0)
        await trio.sleep(100)
        assert bench.closed == []
        bench.l1 = L1Side(prices(0.001), 0)
        await trio.sleep(2)
        assert len(bench.closed) == 1
        assert closed_by(bench, "cheap_now") == 1


async def test_where_delay_is_age_prices_change_nothing(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(batches=BatchesSection(max_age_ms=5_000, max_delay_ms=5_000)) as bench:
        for level in (0.0001, 1.0, 1_000.0):
            bench.l1 = L1Side(prices(level), 0)
            bench.buy()
            await trio.sleep(8)
        assert ages_s(bench) == [pytest.approx(5, abs=SLACK_S)] * 3


async def test_status_says_why_it_waits(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(batches=PATIENT) as bench:
        young = bench.closing.view("idle")
        assert (young.rule, young.poster, young.level_ppm, young.l1_gas_wei) == ("young", "idle", None, None)
        assert "10 s" in young.reason
        bench.l1 = L1Side(prices(2.0), 0)
        await trio.sleep(20)
        waits = bench.closing.view("idle")
        assert waits.rule == "cheaper_later"
        assert "waiting" in waits.reason
        assert waits.level_ppm == 2_000_000
        assert (waits.l1_gas_wei, waits.recent_l1_gas_wei) == (40 * GWEI, 20 * GWEI)
        assert waits.bytes == sum(len(block.result.encoded) for block in bench.blocks)
        assert 0 < waits.wait_ms <= 40_000
        assert 0 < waits.saving_ppm < 1_000_000
        assert 20_000 <= waits.age_ms <= 21_000
        bench.closing.watch(bench.metrics)
        sample = bench.metrics.registry.get_sample_value
        assert sample("straddle_l1_price_level_ratio") == 2.0
        assert sample("straddle_open_batch_saving_ratio") == pytest.approx(waits.saving_ppm / 1e6)
        bench.executor.close_now()
        await trio.sleep(2)
        assert closed_by(bench, "asked") == 1
        nothing = bench.closing.view("")
        assert (nothing.reason, nothing.bytes, nothing.age_ms) == ("no batch is open", 0, 0)
        assert nothing.l1_gas_wei == 40 * GWEI


async def test_what_is_closed_and_not_on_l1_is_the_backlog(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(batches=PATIENT) as bench:
        for _ in range(2):
            bench.buy()
            await trio.sleep(0.2)
            bench.executor.close_now()
            await trio.sleep(0.2)
        bench.buy()
        await trio.sleep(0.2)
        assert bench.closing.view("").backlog_bytes == 0, "nobody posts here"
        sizes = [len(batch.data) for batch in bench.closed]
        for posted in range(3):
            bench.l1 = L1Side(None, posted)
            assert bench.closing.view("").backlog_bytes == sum(sizes[posted:])


async def test_flow_is_measured_over_the_last_batch_and_this_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    now_ms = 0
    machine = SimpleNamespace(batch=SimpleNamespace(bytes=500, opened_ms=0, encoded=[bytes(100)]))
    closing = Closing(machine, PATIENT, "auto", lambda: None, now_ms=lambda: now_ms)  # type: ignore[arg-type]
    now_ms = 10_000
    assert closing.view("").bytes_per_s == 40, "the block that opened the batch is no flow"
    closing.closed(1, 3_500, 0)
    machine.batch = SimpleNamespace(bytes=100, opened_ms=30_000)
    now_ms = 40_000
    assert closing.view("").bytes_per_s == 90


async def test_old_prices_count_as_none(autojump_clock: trio.testing.MockClock) -> None:
    view = standard_exchange(1).view
    link = L1Link(None, None, None, None, Metrics(), view, lambda: None)  # type: ignore[arg-type]
    assert link.side() is None, "no poster, no L1"
    link.poster = SimpleNamespace(state="idle")  # type: ignore[assignment]
    assert link.side() == L1Side(None, 0)
    link.priced(prices(1.0))
    await trio.sleep(PRICE_KEPT_S)
    assert link.side() == L1Side(prices(1.0), 0)
    await trio.sleep(1)
    assert link.side() == L1Side(None, 0)


async def test_the_bridge_leaves_prices_behind_and_survives_an_l1_that_is_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    answers: list[Fees | L1Unavailable] = [
        Fees(10 * GWEI, GWEI, 7),
        L1Unavailable("away"),
        Fees(20 * GWEI, 2 * GWEI, 7),
    ]
    seen: list[L1Prices] = []

    async def fees() -> Fees:
        answer = answers.pop(0)
        if isinstance(answer, L1Unavailable):
            raise answer
        return answer

    client, link = SimpleNamespace(fees=fees), SimpleNamespace(priced=seen.append)
    bridge = NodeBridge(client, None, L1Section(), PosterSection(), None)  # type: ignore[arg-type]
    with trio.move_on_after(2.5 * PRICE_LOOK_S):
        await bridge._watch_prices(link)  # type: ignore[arg-type]
    assert not answers
    assert [each.gas_wei for each in seen] == [11 * GWEI, 22 * GWEI]
    assert 11 * GWEI < seen[1].recent_gas_wei < 12 * GWEI


def test_a_devnet_never_waits_for_a_cheaper_moment_unless_told_to(tmp_path: Path) -> None:
    deployment = SimpleNamespace(rollup_chain_id=1, rollup="0x" + "11" * 20)
    devnet: Any = SimpleNamespace(deployment=deployment, l1_url="http://127.0.0.1:1")
    for tables, delay_ms in (({}, 5_000), ({"max_age_ms": 300}, 300), ({"max_delay_ms": 9_000}, 9_000)):
        path = tmp_path / "node.toml"
        path.write_text(node_config(devnet, tmp_path, 1, 2, batches=tables))
        assert load(NodeConfig, path, {}).batches.max_delay_ms == delay_ms


def test_a_batch_may_not_wait_for_as_long_as_forced_messages_may() -> None:
    info = RollupInfo(b"", b"", b"", b"", 1, 0, 0, 1_200, b"")
    check_delay(BatchesSection(max_delay_ms=600_000), info)
    with pytest.raises(ConfigError, match=r"max_delay_ms: must not exceed 600000"):
        check_delay(BatchesSection(max_delay_ms=600_001), info)
