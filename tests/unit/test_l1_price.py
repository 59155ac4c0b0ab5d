"""The price of a batch byte: bounds, accounting, what it refuses. Invariants iL1PRICE."""

from __future__ import annotations

import math

import pytest

from state.l1_price import (
    MAX_FEE_WEI,
    L1Price,
    L1Terms,
    advanced,
    blob_base_fee,
    byte_price,
    closed,
    collected,
    feed_forward,
    feedback_ppm,
    most_within,
    observed,
    position_uusd,
    premium_ppm,
    reported,
    starting,
)
from state.units import PPM, PUSD_PER_UUSD

TERMS = L1Terms()
ETH_UUSD = 3_000_000_000
GWEI = 10**9
BATCH = 100_000
NOW_MS = 1_700_000_000_000 // TERMS.slot_ms * TERMS.slot_ms


def fresh(price_pusd: int | None = None, base_fee_wei: int = 20 * GWEI, blob_fee_wei: int = 1) -> L1Price:
    price = starting(TERMS, 1, 100, base_fee_wei, blob_fee_wei, NOW_MS, BATCH)
    right = feed_forward(price, TERMS, ETH_UUSD)
    start = right if price_pusd is None else price_pusd
    return starting(TERMS, start, 100, base_fee_wei, blob_fee_wei, NOW_MS, BATCH)


def test_feed_forward_is_the_cheaper_way() -> None:
    blobs = fresh()
    wei = 162_000 * 20 * GWEI + 131_072
    assert feed_forward(blobs, TERMS, ETH_UUSD) == -(-wei * ETH_UUSD * PUSD_PER_UUSD // (10**18 * BATCH))
    calldata = fresh(blob_fee_wei=0)
    gas = 21_000 + 40 * BATCH
    assert feed_forward(calldata, TERMS, ETH_UUSD) == gas * 20 * ETH_UUSD * PUSD_PER_UUSD // (GWEI * BATCH)
    dear_blobs = fresh(blob_fee_wei=10**15)
    assert feed_forward(dear_blobs, TERMS, ETH_UUSD) == feed_forward(calldata, TERMS, ETH_UUSD)


def test_a_usual_tip_counts_like_the_base_fee() -> None:
    """In what a byte is to cost, and in what a batch has cost: there whatever the operator bid."""
    tipped = L1Terms(tip_wei=5 * GWEI)
    for blob_fee_wei in (0, 1):
        low, high = fresh(None, 15 * GWEI, blob_fee_wei), fresh(None, 20 * GWEI, blob_fee_wei)
        assert feed_forward(low, tipped, ETH_UUSD) == feed_forward(high, TERMS, ETH_UUSD)
        reported(low, tipped, ETH_UUSD, BATCH, 200_000, 15 * GWEI, blob_fee_wei, blob_fee_wei)
        reported(high, TERMS, ETH_UUSD, BATCH, 200_000, 20 * GWEI, blob_fee_wei, blob_fee_wei)
        assert low.surplus_uusd == high.surplus_uusd < 0


def test_a_step_a_slot_and_a_block() -> None:
    """iL1PRICE_001."""
    price = fresh()
    start = byte_price(price)
    observed(price, TERMS, 110, 60 * GWEI, 1)
    advanced(price, TERMS, ETH_UUSD, NOW_MS + 50)
    assert byte_price(price) == start + start // 8
    for later in range(100, 12_000, 700):
        advanced(price, TERMS, ETH_UUSD, NOW_MS + later)
        assert byte_price(price) == start + start // 8
    advanced(price, TERMS, ETH_UUSD, NOW_MS + 12_000)
    second = byte_price(price)
    assert second == start + start // 8 + (start + start // 8) // 8
    advanced(price, TERMS, ETH_UUSD, NOW_MS + 10 * 12_000)
    assert byte_price(price) == second + second // 8  # one block, one step, however long it took
    advanced(price, TERMS, ETH_UUSD, NOW_MS + 10 * 12_000 + 50)
    assert byte_price(price) > second + second // 8  # the steps of the time without blocks are still there


def test_most_within_counts_slots() -> None:
    """iL1PRICE_002."""
    price = fresh(1_000_000)
    assert most_within(price, TERMS, NOW_MS, 11) == 1_125_000
    assert most_within(price, TERMS, NOW_MS, 12) == 1_265_625
    assert most_within(price, TERMS, NOW_MS + 11_999, 1) == 1_265_625
    assert most_within(price, TERMS, NOW_MS, 10**9) == TERMS.max_pusd


def test_what_is_on_its_way_is_no_surplus() -> None:
    price = fresh()
    right = byte_price(price)
    collected(price, TERMS, BATCH, BATCH * right // PUSD_PER_UUSD + 1)
    assert abs(position_uusd(price, TERMS, ETH_UUSD)) <= 1
    closed(price, TERMS, BATCH)
    assert abs(position_uusd(price, TERMS, ETH_UUSD)) <= 1
    observed(price, TERMS, 101, 22 * GWEI, 1)
    loss = position_uusd(price, TERMS, ETH_UUSD)
    assert loss == pytest.approx(-BATCH * right // 10 // PUSD_PER_UUSD, rel=1e-3)
    reported(price, TERMS, ETH_UUSD, BATCH, 162_000, 22 * GWEI, 1, 1)
    assert position_uusd(price, TERMS, ETH_UUSD) == pytest.approx(loss, rel=1e-3)
    assert feedback_ppm(price, TERMS, ETH_UUSD) > 0


def test_reports_correct_the_gas() -> None:
    price = fresh()
    before = feed_forward(price, TERMS, ETH_UUSD)
    for _ in range(60):
        closed(price, TERMS, BATCH)
        reported(price, TERMS, ETH_UUSD, BATCH, 324_000, 20 * GWEI, 1, 1)
    assert feed_forward(price, TERMS, ETH_UUSD) == pytest.approx(2 * before, rel=1e-2)


def test_overhead_is_paid_by_bytes() -> None:
    price = fresh()
    for _ in range(60):
        collected(price, TERMS, 80_000, 0)
        closed(price, TERMS, 100_000)
        reported(price, TERMS, ETH_UUSD, 100_000, 0, 20 * GWEI, 1, 1)
    assert price.overhead_ppm == pytest.approx(1_250_000, rel=1e-3)
    assert price.closed_bytes == price.open_bytes == 0


def test_one_absurd_posting_is_forgotten() -> None:
    price = fresh()
    for _ in range(20):
        closed(price, TERMS, BATCH)
        reported(price, TERMS, ETH_UUSD, BATCH, 162_000, 20 * GWEI, 1, 1)
    usual = price.batch_cost_uusd
    reported(price, TERMS, ETH_UUSD, BATCH, 162_000, 10**18, 1, 1)
    bound = TERMS.memory_batches * price.batch_cost_uusd
    assert position_uusd(price, TERMS, ETH_UUSD) >= -bound
    assert bound < 10**9 * usual
    assert feedback_ppm(price, TERMS, ETH_UUSD) == TERMS.feedback_ppm


def test_volatility_costs_a_premium() -> None:
    price = fresh()
    assert premium_ppm(price, TERMS) == 0
    base = 20 * GWEI
    for block in range(101, 400):
        base += base // 10 if block % 2 else -base // 11
        observed(price, TERMS, block, base, 1)
    assert price.variance_ppt == pytest.approx(95_000**2, rel=0.1)
    calm = premium_ppm(price, TERMS)
    assert 0 < calm <= TERMS.feedback_ppm
    for block in range(400, 1_200):
        observed(price, TERMS, block, base, 1)
    assert premium_ppm(price, TERMS) < calm // 10


@pytest.mark.parametrize(
    ("excess", "fraction", "fee_wei"),
    [
        (0, 3_338_477, 1),
        (2_314_057, 3_338_477, 1),
        (2_314_058, 3_338_477, 2),
        (10 * 2**20, 3_338_477, 23),
        (0, 11_684_671, 1),
        (10**9, 11_684_671, MAX_FEE_WEI),
    ],
)
def test_a_blob_base_fee_is_that_of_the_eip(excess: int, fraction: int, fee_wei: int) -> None:
    """iL1PRICE_003; the first four are of go-ethereum's TestCalcBlobFee, nothing is above 2^64 - 1."""
    assert blob_base_fee(excess, L1Terms(blob_fraction=fraction)) == fee_wei


def test_a_blob_base_fee_is_the_exponential_of_the_excess() -> None:
    terms = L1Terms()
    for excess in range(0, 44 * terms.blob_fraction, 7_654_321):
        fee_wei = blob_base_fee(excess, terms)
        exact = math.exp(excess / terms.blob_fraction)
        assert exact - 1 - exact / 10**6 <= fee_wei <= exact * (1 + 1e-12)
    assert blob_base_fee(44 * terms.blob_fraction, terms) == MAX_FEE_WEI


def test_the_first_origin_is_no_change() -> None:
    price = starting(TERMS, 10**6, 0, 1_000, 800, NOW_MS)
    observed(price, TERMS, 21_000_000, 10 * GWEI, 5 * GWEI)
    assert (price.closed_block, price.variance_ppt) == (21_000_000, 0)
    observed(price, TERMS, 21_000_001, 11 * GWEI, 5 * GWEI)
    assert price.closed_block == 21_000_000
    assert price.variance_ppt > 0


def test_free_gas_is_no_division_by_zero() -> None:
    price = fresh(base_fee_wei=0, blob_fee_wei=0)
    observed(price, TERMS, 101, 1, 0)
    advanced(price, TERMS, ETH_UUSD, NOW_MS + 1)
    assert byte_price(price) >= TERMS.min_pusd
    assert price.variance_ppt == 0


def test_start_is_within_bounds() -> None:
    assert byte_price(fresh(1)) == TERMS.min_pusd
    assert byte_price(fresh(10**15)) == TERMS.max_pusd
    assert TERMS.step_ppm < PPM
