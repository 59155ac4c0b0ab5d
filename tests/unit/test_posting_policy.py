"""When the open batch goes out: every reason, and the prices behind it."""

from __future__ import annotations

import math

import pytest

from l1_bridge.blobs import DATA_BYTES_PER_BLOB
from l1_bridge.posting_policy import L1Prices, PolicyTerms, RecentPrices, Rule, Waiting, decide
from l1_bridge.types import Fees

GWEI = 10**9
TERMS = PolicyTerms(max_age_s=60, max_delay_s=600)
CALLDATA = PolicyTerms(max_age_s=60, max_delay_s=600, full_bytes=112_500, data="calldata")


def prices(gas: float = 1.0, blob: float = 1.0, spread: float = 0.0) -> L1Prices:
    """As multiples of recent prices of 20 and 2 gwei."""
    return L1Prices(20 * GWEI * gas, 2 * GWEI * blob, 20 * GWEI, 2 * GWEI, spread, spread)


def test_a_full_batch_goes_out_at_any_price_and_age() -> None:
    verdict = decide(Waiting(TERMS.full_bytes, 0, 1_000, 0, prices(50)), TERMS)
    assert (verdict.post, verdict.rule) == (True, Rule.FULL)
    assert decide(Waiting(TERMS.full_bytes - 1, 0, 1_000, 0, prices(50)), TERMS).rule is Rule.YOUNG


def test_the_promise_is_kept_at_any_price() -> None:
    """iPOSTING_001"""
    verdict = decide(Waiting(100, 600, 1_000, 0, prices(50)), TERMS)
    assert (verdict.post, verdict.rule) == (True, Rule.MAX_DELAY)
    assert "600 s" in verdict.reason
    assert not decide(Waiting(100, 590, 1_000, 0, prices(50)), TERMS).post


def test_a_backlog_sends_whole_blobs_at_once_but_no_crumbs() -> None:
    behind = TERMS.backlog_bytes - DATA_BYTES_PER_BLOB
    verdict = decide(Waiting(DATA_BYTES_PER_BLOB, 1, 1_000, behind, prices(3)), TERMS)
    assert (verdict.post, verdict.rule) == (True, Rule.BACKLOG)
    assert not decide(Waiting(DATA_BYTES_PER_BLOB, 1, 1_000, behind - 1, prices(3)), TERMS).post
    assert not decide(Waiting(DATA_BYTES_PER_BLOB - 1, 1, 1_000, 10 * behind, prices(3)), TERMS).post


def test_a_young_batch_waits_even_when_gas_is_cheap() -> None:
    verdict = decide(Waiting(200_000, 59, 0, 0, prices(0.1, 0.1)), TERMS)
    assert (verdict.post, verdict.rule) == (False, Rule.YOUNG)


def test_without_a_price_age_decides() -> None:
    assert not decide(Waiting(5_000, 59.9, 80), TERMS).post
    verdict = decide(Waiting(5_000, 60, 80), TERMS)
    assert (verdict.post, verdict.rule) == (True, Rule.NO_PRICE)


def test_a_batch_that_fills_waits_because_it_shares_the_fixed_cost() -> None:
    verdict = decide(Waiting(6_000, 60, 100, 0, prices()), TERMS)
    assert (verdict.post, verdict.rule) == (False, Rule.CHEAPER_LATER)
    assert verdict.level == pytest.approx(1)
    assert verdict.saving > 0.5
    assert "waiting" in verdict.reason
    assert f"{verdict.saving:.1%}" in verdict.reason


def test_without_new_orders_a_usual_price_is_no_reason_to_wait() -> None:
    verdict = decide(Waiting(6_000, 60, 0, 0, prices()), TERMS)
    assert (verdict.post, verdict.rule) == (True, Rule.CHEAP_NOW)


def test_without_new_orders_a_high_price_is_waited_out() -> None:
    verdict = decide(Waiting(6_000, 60, 0, 0, prices(1.5, 1.5)), TERMS)
    assert (verdict.post, verdict.rule) == (False, Rule.CHEAPER_LATER)
    assert verdict.level == pytest.approx(1.5)
    assert 0 < verdict.wait_s <= 540


def test_a_blob_spike_counts_by_its_part_of_the_cost() -> None:
    cheap_blobs = L1Prices(20 * GWEI, 10.0, 20 * GWEI, 1.0)
    assert decide(Waiting(6_000, 60, 0, 0, cheap_blobs), TERMS).post
    dear_blobs = L1Prices(20 * GWEI, 200.0 * GWEI, 20 * GWEI, 20.0 * GWEI)
    verdict = decide(Waiting(350_000, 60, 0, 0, dear_blobs), PolicyTerms(data="blobs"))
    assert not verdict.post
    assert verdict.level is not None
    assert verdict.level > 4


def test_calldata_is_compared_by_its_own_cost() -> None:
    """As calldata most of the cost is bytes, so a batch of some size has no reason to wait for more."""
    assert decide(Waiting(80_000, 60, 80, 0, prices()), CALLDATA).post
    assert not decide(Waiting(80_000, 60, 80, 0, prices()), TERMS).post


def test_wavering_prices_are_worth_a_little_patience() -> None:
    batch = Waiting(80_000, 60, 0, 0, prices(0.99))
    assert decide(batch, CALLDATA).post
    wavering = Waiting(80_000, 60, 0, 0, prices(0.99, spread=0.4))
    assert not decide(wavering, CALLDATA).post


def test_the_last_moment_before_the_promise_says_so() -> None:
    verdict = decide(Waiting(6_000, 599, 100, 0, prices(5)), TERMS)
    assert (verdict.post, verdict.rule) == (True, Rule.MAX_DELAY)
    assert "nearly" in verdict.reason


def test_equal_age_and_delay_leave_nothing_to_the_price() -> None:
    terms = PolicyTerms(max_age_s=5, max_delay_s=5)
    for level in (0.01, 1, 100):
        assert not decide(Waiting(6_000, 4.99, 100, 0, prices(level)), terms).post
        assert decide(Waiting(6_000, 5, 100, 0, prices(level)), terms).post


def test_terms_must_leave_room_for_the_age() -> None:
    with pytest.raises(ValueError, match="max_delay"):
        PolicyTerms(max_age_s=61, max_delay_s=60)
    with pytest.raises(ValueError, match="max_delay"):
        PolicyTerms(max_age_s=0)


def test_recent_prices_follow_in_time_not_by_number_of_looks() -> None:
    seldom, often = RecentPrices(100), RecentPrices(100)
    for follower in (seldom, often):
        follower.observed(0, Fees(10 * GWEI, 0, 5))
    for second in range(1, 100):
        often.observed(second, Fees(20 * GWEI, 0, 5))
    ends = [each.observed(100, Fees(20 * GWEI, 0, 5)) for each in (seldom, often)]
    for end in ends:
        assert end.gas_wei == 20 * GWEI
        assert end.recent_gas_wei == pytest.approx(10 * GWEI * 2 ** (1 - math.exp(-1)))
        assert end.recent_blob_wei == pytest.approx(5)
        assert end.blob_spread == 0
    assert ends[0].gas_spread > 0


def test_recent_prices_take_tips_free_blobs_and_clocks_that_go_back() -> None:
    recent = RecentPrices()
    first = recent.observed(50, Fees(7, 3, 0))
    assert (first.gas_wei, first.blob_wei) == (10, 1)
    assert first.recent_gas_wei == pytest.approx(10)
    back = recent.observed(40, Fees(1_000, 0, 9))
    assert back.gas_wei == 1_000
    assert back.recent_gas_wei == pytest.approx(10)
    assert recent.observed(51, Fees(0, 0, 0)).gas_wei == 1
