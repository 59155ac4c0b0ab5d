"""The price of a batch byte under any events, and its loop on synthetic L1 fees."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.l1_price import (
    L1Price,
    L1Terms,
    advanced,
    closed,
    collected,
    feed_forward,
    most_within,
    observed,
    reported,
    starting,
)
from state.units import PUSD_PER_UUSD

TERMS = L1Terms()
ETH_UUSD = 3_000_000_000
GWEI = 10**9
NOW_MS = 1_700_000_000_000
SIGNED = {"surplus_uusd"}

EVENT = st.one_of(
    st.tuples(st.just("block"), st.integers(1, 200_000)),
    st.tuples(st.just("origin"), st.integers(1, 50), st.integers(0, 10**13), st.integers(0, 10**13)),
    st.tuples(st.just("collect"), st.integers(1, 10**6), st.integers(0, 10**12)),
    st.tuples(st.just("close"), st.integers(1, 2**20)),
    st.tuples(
        st.just("report"),
        st.integers(1, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 255),
        st.integers(0, 2**64 - 1),
    ),
)


def apply(price: L1Price, event: tuple[str | int, ...], now_ms: int) -> int:
    match event:
        case ("block", int(passed)):
            now_ms += passed
            advanced(price, TERMS, ETH_UUSD, now_ms)
        case ("origin", int(blocks), int(base), int(blob)):
            observed(price, TERMS, price.l1_block + blocks, base, blob)
        case ("collect", int(size), int(uusd)):
            collected(price, TERMS, size, uusd)
        case ("close", int(size)):
            closed(price, TERMS, size)
        case ("report", int(size), int(gas), int(base), int(blobs), int(blob)):
            reported(price, TERMS, ETH_UUSD, size, gas, base, blobs, blob)
    return now_ms


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENT, max_size=60), st.integers(0, 2**40))
def test_bounds_hold_whatever_happens(events: list[tuple[str | int, ...]], start_pusd: int) -> None:
    """iL1PRICE_001, iL1PRICE_002, and each register fits its width, under events that L1 would never send."""
    price = starting(TERMS, start_pusd, 100, 20 * GWEI, 1, NOW_MS)
    now_ms, quotes = NOW_MS, list[tuple[int, int]]()
    for event in events:
        before = price.price_pusd
        now_ms = apply(price, event, now_ms)
        assert TERMS.min_pusd <= price.price_pusd <= TERMS.max_pusd
        assert before * 8 // 9 <= price.price_pusd <= before + max(before // 8, 1)
        assert all(price.price_pusd <= most for until_ms, most in quotes if now_ms <= until_ms)
        for seconds in (1, 12, 60, 300):
            quotes.append((now_ms + seconds * 1_000, most_within(price, TERMS, now_ms, seconds)))
        for name in (each.name for each in fields(price)):
            value = getattr(price, name)
            low, high = (-(2**63), 2**63) if name in SIGNED else (0, 2**64)
            assert low <= value < high, name


class Loop:
    """A flow of bytes, a batch a minute, a report two blocks after; one step is one L1 block."""

    def __init__(self, base_fee_wei: int, start: float, gas: int = 162_000, size: int = 20_000) -> None:
        self.gas, self.size = gas, size
        self.block = 100
        probe = starting(TERMS, 1, 100, base_fee_wei, 1, NOW_MS, 5 * size)
        first = int(feed_forward(probe, TERMS, ETH_UUSD) * start)
        self.price = starting(TERMS, first, 100, base_fee_wei, 1, NOW_MS, 5 * size)
        self.due: list[tuple[int, int]] = []
        self.surplus = self.spent = 0

    def step(self, base_fee_wei: int) -> float:
        """One L1 block; returns price over what the byte costs at this block's fee."""
        self.block += 1
        price, index = self.price, self.block - 100
        observed(price, TERMS, self.block, base_fee_wei, 1)
        while self.due and self.due[0][0] <= self.block:
            _, paid_wei = self.due.pop(0)
            reported(price, TERMS, ETH_UUSD, 5 * self.size, self.gas, paid_wei, 1, 1)
        if index > 1 and index % 5 == 1:
            closed(price, TERMS, 5 * self.size)
            self.due.append((self.block + 3, base_fee_wei))
            cost = self.gas * base_fee_wei * ETH_UUSD // 10**18
            self.surplus -= cost
            self.spent += cost
        advanced(price, TERMS, ETH_UUSD, NOW_MS + index * 12_000)
        paid = -(-self.size * price.price_pusd // PUSD_PER_UUSD)
        collected(price, TERMS, self.size, paid)
        self.surplus += paid
        cost_pusd = self.gas * base_fee_wei * ETH_UUSD * PUSD_PER_UUSD / (10**18 * 5 * self.size)
        return price.price_pusd / cost_pusd

    @property
    def hour_uusd(self) -> float:
        return self.spent / ((self.block - 100) / 300)


def away_twice(ratios: list[float]) -> int:
    """How often the price moves away from what a byte costs for two batches in a row."""
    ends = [abs(math.log(ratio)) for ratio in ratios[4::5]]
    grows = [after > before + 1e-3 for before, after in pairwise(ends)]
    return sum(first and second for first, second in pairwise(grows))


@pytest.mark.parametrize("start", [5.0, 0.2, 1.0])
def test_a_wrong_start_converges(start: float) -> None:
    loop = Loop(20 * GWEI, start)
    ratios = [loop.step(20 * GWEI) for _ in range(300)]
    assert away_twice(ratios) == 0
    assert all(0.9 < ratio < 1.1 for ratio in ratios[20:])
    assert all(0.99 < ratio < 1.01 for ratio in ratios[150:])


@pytest.mark.parametrize("gas", [81_000, 324_000])
def test_a_wrong_gas_model_converges(gas: int) -> None:
    """The predictor is off by a factor of 2, and the loop has nothing but reports to find out."""
    loop = Loop(20 * GWEI, gas / 162_000, gas)
    ratios = [loop.step(20 * GWEI) for _ in range(1_500)]
    assert all(0.4 < ratio < 2.5 for ratio in ratios)
    assert all(0.98 < ratio < 1.02 for ratio in ratios[-200:])
    assert abs(loop.surplus) < 0.2 * loop.hour_uusd


@pytest.mark.parametrize(
    ("wrong", "least"), [(0.0, 0.0), (1 / 3, 0.0), (1.0, -0.2)], ids=["right", "a third", "knows nothing"]
)
def test_a_wrong_prediction_overshoots_as_derived(wrong: float, least: float) -> None:
    """The loop that the gain comes from: of a share of the position only reports tell."""
    delay, horizon = 100, TERMS.horizon_ppm * 100 // 10**6
    positions = [1.0] * (delay + 1)
    for _ in range(5_000):
        seen = (1 - wrong) * positions[-1] + wrong * positions[-1 - delay]
        positions.append(positions[-1] - seen / horizon)
    assert min(positions) > least - 1e-9
    assert abs(positions[-1]) < 1e-3


@pytest.mark.parametrize(
    "shape",
    [
        lambda block: 2.0 if block > 50 else 1.0,
        lambda block: 1.125 ** min(max(block - 50, 0), 24),
        lambda block: 1.125 ** (24 - abs(min(max(block - 50, 0), 48) - 24)),
        lambda block: 1.0 + 0.1 * (block % 2),
    ],
    ids=["step", "ramp", "spike", "zigzag"],
)
def test_the_operator_is_made_whole(shape: Callable[[int], float]) -> None:
    """L1 moves as fast as it may; the surplus comes back inside 5 % of an hour's cost and stays."""
    loop = Loop(20 * GWEI, 1.0)
    surplus = []
    for block in range(700):
        loop.step(int(20 * GWEI * shape(block)))
        surplus.append(loop.surplus)
    in_flight = 8 / 300
    assert min(surplus) / loop.hour_uusd > -0.05 - in_flight
    assert all(abs(each) / loop.hour_uusd < 0.05 + in_flight for each in surplus[400:])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_random_walks_within_l1s_bounds(seed: int) -> None:
    """Quotes hold, and the mean charge is what batches cost."""
    rng = random.Random(seed)
    loop, base = Loop(20 * GWEI, 1.0), 20 * GWEI
    ratios = []
    for _ in range(900):
        step = min(max(rng.gauss(0, 0.05), -0.12), 0.12)
        base = max(int(base * (1 + step)), 1_000)
        most = most_within(loop.price, TERMS, NOW_MS + (loop.block - 100) * 12_000, 12)
        ratios.append(loop.step(base))
        assert loop.price.price_pusd <= most
    assert abs(loop.surplus) < 0.08 * loop.spent


def test_a_price_at_its_limit_does_not_wind_up() -> None:
    """Four hours at the maximum: what was lost is remembered no longer than `memory_batches` allows."""
    terms = L1Terms(max_pusd=100_000)
    price = starting(terms, 100_000, 100, 20 * GWEI, 1, NOW_MS, 100_000)
    for block in range(101, 1_301):
        observed(price, terms, block, 20 * GWEI, 1)
        advanced(price, terms, ETH_UUSD, NOW_MS + 12_000 * block)
        collected(price, terms, 20_000, 20_000 * price.price_pusd // PUSD_PER_UUSD)
        if block % 5 == 0:
            closed(price, terms, 100_000)
            reported(price, terms, ETH_UUSD, 100_000, 162_000, 20 * GWEI, 1, 1)
    assert price.price_pusd == 100_000
    assert price.surplus_uusd >= -(terms.memory_batches + 2) * price.batch_cost_uusd
