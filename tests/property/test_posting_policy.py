"""The posting policy over all batches and prices: monotone, within the promise, and worth its waiting."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from l1_bridge.posting_policy import L1Prices, PolicyTerms, Rule, Waiting, decide
from tools.l1_fees import synthetic_fees
from tools.posting_curve import cost_per_order_wei, replay, steady_flow, terms_for, times_to_safe_s

DEARER_AT_MOST = 1.02
"""On average over traces, against batches that are always as old as `max_delay`."""

wei = st.floats(1, 1e13)
price_sets = st.builds(L1Prices, wei, wei, wei, wei, st.floats(0, 2), st.floats(0, 2))
all_terms = st.builds(
    lambda age, more, data: PolicyTerms(max_age_s=age, max_delay_s=age + more, data=data),
    st.floats(0.1, 1_000),
    st.floats(0, 10_000),
    st.sampled_from(["auto", "calldata", "blobs"]),
)
batches = st.builds(
    Waiting,
    st.integers(1, 500_000),
    st.floats(0, 12_000),
    st.floats(0, 5_000),
    st.integers(0, 2_000_000),
    st.none() | price_sets,
)


@given(batches, all_terms, st.integers(0, 500_000), st.floats(0, 12_000), st.floats(0, 1), st.floats(0, 1))
def test_fuller_older_and_cheaper_is_never_posted_later(
    seen: Waiting, terms: PolicyTerms, more: int, older_s: float, gas: float, blob: float
) -> None:
    """iPOSTING_002"""
    if not decide(seen, terms).post:
        return
    better = [replace(seen, bytes=seen.bytes + more), replace(seen, age_s=seen.age_s + older_s)]
    if seen.prices is not None:
        now = seen.prices
        cheaper = replace(now, gas_wei=max(1.0, now.gas_wei * gas), blob_wei=max(1.0, now.blob_wei * blob))
        better.append(replace(seen, prices=cheaper))
        better.append(replace(better[0], age_s=seen.age_s + older_s, prices=cheaper))
    for each in better:
        assert decide(each, terms).post, (seen, each)


@given(batches, all_terms)
def test_the_promise_binds_whatever_is_seen(seen: Waiting, terms: PolicyTerms) -> None:
    """iPOSTING_001"""
    assert decide(replace(seen, age_s=terms.max_delay_s), terms).post
    verdict = decide(seen, terms)
    assert verdict.post == (verdict.rule not in (Rule.YOUNG, Rule.CHEAPER_LATER))
    if verdict.rule is Rule.CHEAPER_LATER:
        assert seen.age_s + verdict.wait_s <= terms.max_delay_s
        assert 0 < verdict.saving < 1


@pytest.mark.parametrize("max_delay_s", [300, 1_200])
def test_on_made_up_prices_waiting_pays_and_keeps_the_promise(max_delay_s: int) -> None:
    ratios, times = [], []
    terms = terms_for(max_delay_s, "calldata")
    for seed in range(8):
        blocks = synthetic_fees(900, seed, revert_s=600)
        arrivals = steady_flow(blocks, 1.0, seed)
        posted = replay(blocks, arrivals, terms, "calldata")
        fixed = replay(blocks, arrivals, replace(terms, max_age_s=max_delay_s), "calldata")
        assert all(each.decided_s - each.opened_s <= max_delay_s for each in posted)
        assert {each.rule for each in posted} <= {"cheap_now", "max_delay", "full"}
        ratios.append(cost_per_order_wei(posted) / cost_per_order_wei(fixed))
        times.append(times_to_safe_s(posted, arrivals)[0] / times_to_safe_s(fixed, arrivals)[0])
    assert np.mean(ratios) <= DEARER_AT_MOST
    assert np.mean(times) < 1
