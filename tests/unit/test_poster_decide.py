"""The poster's decisions, case by case: `posting.decide` sees everything and does nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from l1_bridge.blobs import DATA_BYTES_PER_BLOB
from l1_bridge.posting import (
    GWEI,
    Attempt,
    Bump,
    DataKind,
    Discard,
    Halt,
    Idle,
    Intent,
    Limits,
    Offer,
    Own,
    Prepare,
    Seen,
    Send,
    Wait,
    calldata_gas,
    choose_kind,
    decide,
    raised,
)
from l1_bridge.types import Fees, L1Receipt

ROOT = b"\x11" * 32
LIMITS = Limits()
FEES = Fees(10 * GWEI, GWEI, 5)
NOW_S = 1_000.0
OFFER = Offer(21 * GWEI, GWEI, 10)
ATTEMPT = Attempt(b"\xaa" * 32, b"raw", OFFER, NOW_S - 10)
INTENT = Intent(8, DataKind.CALLDATA, 3, 1_000_000, b"\x01" * 20, b"call", None, (ATTEMPT,))
SEEN = Seen(7, ROOT, False, 3, 3, 10**18, FEES, {}, frozenset())
OWN = Own(ROOT, True, None, 0, None)
IN_FLIGHT = replace(OWN, intent=INTENT)


def receipt(attempt: Attempt, succeeded: bool) -> L1Receipt:
    return L1Receipt(attempt.hash, 5, b"\x05" * 32, succeeded, 100, GWEI, 0, 0, None, ())


def aged(seconds: float) -> Intent:
    old = Attempt(ATTEMPT.hash, ATTEMPT.raw, ATTEMPT.offer, NOW_S - seconds)
    return Intent(8, DataKind.CALLDATA, 3, 1_000_000, b"\x01" * 20, b"call", None, (old,))


def test_nothing_to_post_is_idle() -> None:
    assert decide(LIMITS, SEEN, replace(OWN, next_closed=False), NOW_S) == Idle()


def test_a_closed_batch_is_prepared_at_the_mined_nonce() -> None:
    assert decide(LIMITS, SEEN, OWN, NOW_S) == Prepare(3, OFFER)


def test_another_root_on_l1_halts() -> None:
    step = decide(LIMITS, replace(SEEN, posted_root=b"\x22" * 32), IN_FLIGHT, NOW_S)
    assert isinstance(step, Halt)
    assert "batch 7 on L1 has root 0x2222" in step.reason


def test_a_root_that_we_no_longer_know_does_not_halt() -> None:
    assert isinstance(decide(LIMITS, SEEN, replace(OWN, root=None), NOW_S), Prepare)


def test_the_guardians_revert_halts() -> None:
    step = decide(LIMITS, replace(SEEN, guardian_reverted=True), OWN, NOW_S)
    assert step == Halt("the guardian took L1 back to batch 7")


def test_a_pending_attempt_is_waited_for_then_bumped() -> None:
    pending = replace(SEEN, pending=frozenset([ATTEMPT.hash]))
    assert isinstance(decide(LIMITS, pending, IN_FLIGHT, NOW_S), Wait)
    old = replace(OWN, intent=aged(LIMITS.bump_after_s))
    step = decide(LIMITS, pending, old, NOW_S)
    assert isinstance(step, Bump)
    assert step.offer.max_fee_wei * 8 >= OFFER.max_fee_wei * 9
    assert step.offer.tip_wei * 8 >= OFFER.tip_wei * 9


def test_blob_replacements_double_every_fee() -> None:
    bumped = raised(OFFER, Fees(0, 0, 0), DataKind.BLOBS)
    assert bumped == Offer(42 * GWEI, 2 * GWEI, 20)


@pytest.mark.parametrize(
    "limits",
    [
        Limits(max_fee_wei=OFFER.max_fee_wei),
        Limits(max_batch_cost_wei=INTENT.gas_limit * OFFER.max_fee_wei),
        Limits(balance_floor_wei=SEEN.balance_wei),
    ],
)
def test_no_bump_beyond_a_cap(limits: Limits) -> None:
    pending = replace(SEEN, pending=frozenset([ATTEMPT.hash]))
    step = decide(limits, pending, replace(OWN, intent=aged(limits.bump_after_s)), NOW_S)
    assert isinstance(step, Wait)


def test_an_attempt_that_l1_does_not_know_is_sent_again_as_it_was() -> None:
    assert decide(LIMITS, SEEN, IN_FLIGHT, NOW_S) == Send(ATTEMPT)


def test_it_is_not_sent_again_at_once() -> None:
    just_sent = replace(IN_FLIGHT, sent_at_s=NOW_S - 1)
    assert isinstance(decide(LIMITS, SEEN, just_sent, NOW_S), Wait)


def test_an_unknown_attempt_below_the_base_fee_is_bumped_instead() -> None:
    dear = replace(SEEN, fees=Fees(30 * GWEI, GWEI, 5))
    step = decide(LIMITS, dear, IN_FLIGHT, NOW_S)
    assert isinstance(step, Bump)
    assert step.offer.max_fee_wei >= 61 * GWEI


def test_a_reverted_attempt_is_discarded_and_the_second_one_halts() -> None:
    reverted = receipt(ATTEMPT, succeeded=False)
    spent = replace(SEEN, nonce=4, pending_nonce=4, receipts={ATTEMPT.hash: reverted})
    step = decide(LIMITS, spent, IN_FLIGHT, NOW_S)
    assert isinstance(step, Discard)
    assert step.reverted == reverted
    assert isinstance(decide(LIMITS, SEEN, replace(OWN, reverts=2), NOW_S), Halt)


def test_a_mined_attempt_that_the_contract_does_not_show_yet_is_waited_for() -> None:
    mined = replace(SEEN, nonce=4, receipts={ATTEMPT.hash: receipt(ATTEMPT, succeeded=True)})
    assert isinstance(decide(LIMITS, mined, IN_FLIGHT, NOW_S), Wait)


def test_a_nonce_spent_by_something_else_discards_the_intent() -> None:
    step = decide(LIMITS, replace(SEEN, nonce=4, pending_nonce=4), IN_FLIGHT, NOW_S)
    assert step == Discard("nonce 3 was spent by another transaction", None)


def test_a_foreign_pending_transaction_is_given_time() -> None:
    foreign = replace(SEEN, pending_nonce=4)
    assert isinstance(decide(LIMITS, foreign, OWN, NOW_S), Wait)
    old = replace(OWN, foreign_since_s=NOW_S - LIMITS.bump_after_s)
    assert isinstance(decide(LIMITS, foreign, old, NOW_S), Prepare)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (replace(SEEN, fees=Fees(LIMITS.max_fee_wei, GWEI, 5)), "L1 gas costs"),
        (replace(SEEN, fees=Fees(GWEI, GWEI, LIMITS.max_blob_fee_wei + 1)), "L1 blob gas costs"),
        (replace(SEEN, balance_wei=LIMITS.balance_floor_wei - 1), "below the floor"),
    ],
)
def test_it_waits_when_l1_is_too_dear_or_the_purse_too_light(seen: Seen, words: str) -> None:
    step = decide(LIMITS, seen, OWN, NOW_S)
    assert isinstance(step, Wait)
    assert words in step.reason


def test_the_cheaper_kind_of_data_is_chosen() -> None:
    data = b"\x01" * 100_000
    assert choose_kind(LIMITS, data, Fees(GWEI, GWEI, 1)) is DataKind.BLOBS
    assert choose_kind(LIMITS, data, Fees(GWEI, GWEI, 100 * GWEI)) is DataKind.CALLDATA
    assert choose_kind(LIMITS, b"\x01" * 100, Fees(GWEI, GWEI, GWEI)) is DataKind.CALLDATA


def test_the_configured_kind_wins_and_limits_hold() -> None:
    cheap_blobs = Fees(GWEI, GWEI, 1)
    assert choose_kind(Limits(data="calldata"), b"\x01" * 1_000, cheap_blobs) is DataKind.CALLDATA
    assert choose_kind(Limits(data="blobs"), b"\x01", Fees(1, 1, GWEI)) is DataKind.BLOBS
    assert choose_kind(Limits(data="calldata"), b"\x01" * 120_001, cheap_blobs) is None
    assert choose_kind(Limits(data="blobs", max_blobs=1), bytes(DATA_BYTES_PER_BLOB + 1), cheap_blobs) is None


def test_calldata_pays_the_floor_of_eip_7623() -> None:
    assert calldata_gas(0, 100_000) == 21_000 + 40 * 100_000
    assert calldata_gas(100_000, 0) == 21_000 + 10 * 100_000
    assert calldata_gas(0, 10) > 21_000 + 40 * 10
