"""What auctions offer: by hand; the allowed share is the one that restores buffer margin. iLIQ_003."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.auction import (
    Health,
    discount_ppm,
    health_of,
    left_after,
    offer_of,
    price_of,
    ramp_ppm,
    seized_ulots,
)
from state.leaves import LiquidationParameters

DEFAULTS = LiquidationParameters()
MINUTE_MS = 60_000
WHOLE = 10**9


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(0, 50_000), (6, 150_000), (15, 300_000), (15 + 72, 370_000), (15 + 720, 1_000_000), (9_999, 1_000_000)],
)
def test_discount_rises_fast_then_slowly_to_everything(minutes: int, expected: int) -> None:
    assert discount_ppm(DEFAULTS, minutes * MINUTE_MS) == expected


@pytest.mark.parametrize(("minutes", "expected"), [(0, 0), (15, 250_000), (60, 1_000_000), (90, 1_000_000)])
def test_ramp_of_an_insolvent_auction(minutes: int, expected: int) -> None:
    assert ramp_ppm(DEFAULTS, minutes * MINUTE_MS) == expected


def test_buffer_margin_is_maintenance_margin_and_part_of_the_requirement() -> None:
    assert health_of(1_000, -500, DEFAULTS) == Health(1_000, -500, -725)
    assert health_of(1_000, 999, DEFAULTS).buffer_uusd == 998, "rounded down"


def test_a_solvent_offer_by_hand() -> None:
    """B = -725, E = 1000, d = 5 %, fee 10 %: s = 725 / (1725 - (0.05 + 0.095) 1000) = 0.45886."""
    health = health_of(1_000_000, -500_000, DEFAULTS)
    offer = offer_of(health, DEFAULTS, 0, WHOLE, 0)
    assert offer == (False, 50_000, 458_861, 0)
    price = price_of(health, DEFAULTS, offer, WHOLE, 200_000)
    assert price == (10_000, 19_000, 0)
    assert price_of(health, DEFAULTS, offer, WHOLE // 2, 200_000) == (5_000, 9_500, 0)


def test_an_insolvent_offer_by_hand() -> None:
    """E = -100, M = -300: the requirement is 200; after 15 minutes the reward is a quarter of it."""
    health = health_of(-100_000, -300_000, DEFAULTS)
    offer = offer_of(health, DEFAULTS, 15 * MINUTE_MS, WHOLE, 10**9)
    assert offer == (True, 250_000, 1_000_000, 10**9)
    assert price_of(health, DEFAULTS, offer, WHOLE, 500_000) == (25_000, 0, 50_000)
    assert offer_of(health, DEFAULTS, 15 * MINUTE_MS, WHOLE, 0).allowed_ppm == 0


def test_a_fund_of_little_means_fills_the_hole_first() -> None:
    """It has 75 of 100, and would owe a reward of 25 for a half."""
    health = health_of(-100_000, -300_000, DEFAULTS)
    offer = offer_of(health, DEFAULTS, 15 * MINUTE_MS, WHOLE, 75_000)
    assert offer.allowed_ppm == 750_000
    assert price_of(health, DEFAULTS, offer, WHOLE, 500_000) == (25_000, 0, 50_000)
    assert price_of(health, DEFAULTS, offer, WHOLE, 600_000) == (15_000, 0, 60_000)
    assert price_of(health, DEFAULTS, offer, WHOLE, 750_000) == (0, 0, 75_000)


@pytest.mark.parametrize("minutes", [0, 60])
def test_without_a_hole_everything_may_be_taken_for_nothing(minutes: int) -> None:
    """iLIQ_008."""
    offer = offer_of(Health(0, -7, -8), DEFAULTS, minutes * MINUTE_MS, WHOLE, 0)
    assert offer.allowed_ppm == 1_000_000
    assert price_of(Health(0, -7, -8), DEFAULTS, offer, WHOLE, 1_000_000) == (0, 0, 0)


def test_what_is_seized_is_rounded_away_from_zero() -> None:
    assert [seized_ulots(size, 333_333) for size in (3, -3, 10**15, 0)] == [1, -1, 333_333 * 10**9, 0]
    assert seized_ulots(7, 1_000_000) == 7
    assert seized_ulots(-7, 1) == -1
    assert left_after(10**9, 250_000) == 750_000_000
    assert left_after(1, 250_000) == 1


amounts = st.integers(1, 10**18)
shares = st.integers(1, 1_000_000)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(amounts, amounts, st.integers(0, 90_000_000), st.integers(1, WHOLE))
def test_the_allowed_share_restores_buffer_margin_and_one_ppm_less_does_not(
    equity: int, short: int, elapsed_ms: int, left_ppb: int
) -> None:
    health = health_of(equity, -short, DEFAULTS)
    offer = offer_of(health, DEFAULTS, elapsed_ms, left_ppb, 0)
    assert 0 < offer.allowed_ppm <= 1_000_000

    def after(share_ppm: int) -> int:
        """Millionths of a uusd of buffer margin, of positions that scale with the share."""
        price = price_of(health, DEFAULTS, offer, left_ppb, share_ppm)
        needs = (equity - health.buffer_uusd) * (1_000_000 - share_ppm)
        return (equity - price.reward_uusd - price.fee_uusd) * 1_000_000 - needs

    if offer.allowed_ppm < 1_000_000:
        assert after(offer.allowed_ppm) >= 0
    assert after(offer.allowed_ppm - 1) < 3_000_000, "rounding: reward and fee are whole"
    price = price_of(health, DEFAULTS, offer, left_ppb, offer.allowed_ppm)
    assert price.reward_uusd + price.fee_uusd <= equity


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 10**18), amounts, st.integers(0, 9_000_000), st.integers(0, 10**18), shares)
def test_the_fund_never_pays_more_than_it_has(
    hole: int, requirement: int, elapsed_ms: int, insurance: int, share_ppm: int
) -> None:
    """iLIQ_005, with the hole rounded up."""
    health = health_of(-hole, -hole - requirement, DEFAULTS)
    offer = offer_of(health, DEFAULTS, elapsed_ms, WHOLE, insurance)
    share_ppm = min(share_ppm, offer.allowed_ppm)
    price = price_of(health, DEFAULTS, offer, WHOLE, share_ppm)
    assert price.hole_uusd + price.reward_uusd <= insurance
    assert price.hole_uusd >= hole * share_ppm // 1_000_000
