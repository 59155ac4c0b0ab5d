"""The auction for places (PROTOCOL 8.1): the transition charges by the rule, and what nobody gains by."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.actions import Order, OrderKind, PlaceOrder, Side
from state.block import L1Message, MessageKind
from state.errors import Rejected
from state.leaves import PriorityTerms
from state.priority import MAX_OPERATOR_PPM
from state.transition import BlockExecution
from tests.exchange_checks import assert_conserved
from tests.property.test_transition_total import Run, check_invariants
from tools.auction_sim import (
    OPERATOR,
    TRADERS,
    deviation,
    execute,
    falling,
    one_prize,
    play,
    prices,
    ranking,
    try_operator,
)
from tools.exchange import COIN, USD, VAULT, Exchange, l1_origin, standard_exchange

bids_of = st.lists(st.integers(0, 12), min_size=2, max_size=7)
FAR = Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD, 100)


@pytest.fixture(scope="module")
def exchange() -> Exchange:
    """One for all examples: orders rest far from the mark, and each example begins a block of its own."""
    return standard_exchange(TRADERS, cash_uusd=10**6 * USD, max_size_ulots=COIN)


def income(exchange: Exchange, bids: list[int]) -> int:
    """What a block of these bids of accounts 1 and on brings the operator."""
    return execute(exchange, list(enumerate(bids, start=1))).operator


def set_share(exchange: Exchange, operator_ppm: int) -> None:
    terms = PriorityTerms(operator_ppm=operator_ppm)
    exchange.messages(L1Message(MessageKind.SET_PRIORITY, VAULT, 0, terms.encode()))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(bids_of)
def test_the_transition_charges_what_the_rule_says(exchange: Exchange, bids: list[int]) -> None:
    """iAUCTION_BID_002 and 003: all of it goes to the fund and the pot, none to the operator."""
    set_share(exchange, 0)
    cash = [exchange.account(number).cash_uusd for number in range(1, len(bids) + 1)]
    found = execute(exchange, list(enumerate(bids, start=1)))
    assert list(found.paid[1 : len(bids) + 1]) == prices(bids)
    assert found.operator == 0
    assert found.insurance + found.pot == sum(prices(bids))
    fees = {result.hash: result.fee_uusd for result in exchange.results[-1].results}
    spent = sum(cash) - sum(exchange.account(number).cash_uusd for number in range(1, len(bids) + 1))
    assert spent == sum(prices(bids)) + sum(fees.values())
    assert_conserved(exchange)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(bids_of, st.randoms(use_true_random=False))
def test_any_order_but_the_rules_is_refused(
    exchange: Exchange, bids: list[int], chance: random.Random
) -> None:
    """iORDER_001: what stands behind a lower bid is not executed; what is executed pays the next of those."""
    shuffled = chance.sample(range(len(bids)), len(bids))
    executed: list[int] = []
    with exchange.block() as execution:
        for index in shuffled:
            fields = exchange.envelope(index + 1) | {"priority_bid_uusd": bids[index]}
            try:
                execution.execute(exchange.sign(PlaceOrder(**fields, order=FAR)))
            except Rejected:
                assert executed
                assert bids[index] > bids[executed[-1]]
            else:
                assert not executed or bids[index] <= bids[executed[-1]]
                executed.append(index)
    standing = [bids[index] for index in executed]
    assert [result.priority_uusd for result in exchange.results[-1].results] == [*standing[1:], 0]
    assert_conserved(exchange)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(bids_of, st.integers(0, 6), st.integers(1, 9))
def test_raising_a_bid_never_lowers_its_rank_nor_others_beyond_the_rule(
    bids: list[int], place: int, more: int
) -> None:
    """iAUCTION_BID_006: only the one that stands directly before it may pay more, and just that bid."""
    mine = place % len(bids)
    raised = [bid + more if index == mine else bid for index, bid in enumerate(bids)]
    before, after = ranking(bids), ranking(raised)
    assert after.index(mine) <= before.index(mine)
    was, now = prices(bids), prices(raised)
    for other in range(len(bids)):
        if other == mine:
            continue
        if after.index(other) + 1 == after.index(mine):
            assert now[other] == raised[mine] <= bids[other]
        else:
            assert now[other] <= was[other]
    assert all(paid <= bid for paid, bid in zip(now, raised, strict=True))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(bids_of, st.lists(st.integers(0, 12), min_size=6, max_size=6))
def test_a_bid_above_value_is_never_better_whatever_others_bid(bids: list[int], worth: list[int]) -> None:
    """The others need not be truthful for that."""
    falling_worth = [*sorted(worth, reverse=True)[: len(bids) - 1], 0]
    bids = [falling_worth[0], *bids[1:]]
    found = deviation(bids, 0, falling_worth)
    assert found.above <= found.within
    assert found.within >= 0, "bidding nothing costs nothing"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 20), st.integers(0, 20))
def test_of_two_truth_is_best_whatever_the_other_bids(value: int, other: int) -> None:
    found = deviation([value, other], 0, [value, 0])
    assert found.truthful == max(found.within, found.above)


def test_of_three_truth_is_not_always_best() -> None:
    """What the rule does not promise: the second pays for a place that is worth nothing to it."""
    assert deviation([90, 100, 80], 0, [90, 0, 0]).truthful == -80
    assert deviation([90, 100, 80], 0, [90, 0, 0]).within == 0
    assert deviation([90, 100, 80], 0, [90, 85, 0]).truthful == 5


@pytest.mark.parametrize("bidders", [2, 3, 6])
def test_games(bidders: int) -> None:
    for worth_of in (one_prize, falling):
        games = play(3, 300, bidders, worth_of)
        assert games.above_beats_within == 0
        assert games.truth_is_best + games.lower_is_better == games.games
        assert (games.lower_is_better == 0) == (bidders == 2)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(bids_of, st.integers(0, 6), st.randoms(use_true_random=False))
def test_reordering_and_leaving_out_bring_the_operator_nothing(
    exchange: Exchange, bids: list[int], place: int, chance: random.Random
) -> None:
    """Even with the largest share that a governor can give it."""
    for share in (0, MAX_OPERATOR_PPM):
        set_share(exchange, share)
        honest = income(exchange, bids)
        gone = place % len(bids)
        assert income(exchange, chance.sample(bids, len(bids))) == honest
        roundings = len(bids)
        assert income(exchange, bids[:gone] + bids[gone + 1 :]) <= honest + roundings
        first, second = income(exchange, bids[:gone]), income(exchange, bids[gone:])
        assert first + second <= honest + roundings, "in two blocks"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(bids_of, st.integers(0, 12))
def test_an_operator_that_bids_pays_what_its_users_would(
    exchange: Exchange, bids: list[int], own: int
) -> None:
    set_share(exchange, 0)
    users = list(enumerate(bids[:6], start=1))
    mine = execute(exchange, [*users, (OPERATOR, own)])
    theirs = execute(exchange, [*users, (OPERATOR - 1, own)])
    assert mine.paid[OPERATOR] == theirs.paid[OPERATOR - 1]
    assert mine.operator == theirs.operator == 0


def test_the_simulations_operator() -> None:
    found = try_operator(seed=5, blocks=4)
    assert found.bidding_cost == found.user_cost > 0
    assert found.honest_income == found.reordered_income == found.dropped_income == found.bidding_income == 0
    share = try_operator(seed=5, blocks=4, share_ppm=MAX_OPERATOR_PPM)
    assert share.honest_income == share.reordered_income > share.dropped_income


@pytest.mark.parametrize("seed", range(3))
def test_random_traffic_pays_makers_from_pots_and_conserves_money(seed: int) -> None:
    """iAUCTION_BID_004 and 005: after each block nothing is held and every pot is counted."""
    run = Run(seed, absurdity=0)
    paid = rewards = 0
    for _ in range(60):
        transactions = run.traffic.block()
        execution = BlockExecution(run.view, run.traffic.now_ms, l1_origin(0), run.traffic.messages())
        for transaction in transactions:
            run.execute(execution, transaction)
        result = execution.end()
        run.source.apply(run.view.take_dirty())
        run.view.release()
        paid += sum(each.priority_uusd for each in result.results)
        for trade in result.trades:
            rewards += trade.maker_reward_uusd
            assert 0 <= 2 * trade.maker_reward_uusd <= max(0, trade.maker_fee_uusd + trade.taker_fee_uusd)
        check_invariants(run.source.leaves)
    assert paid > 50
    assert 0 < rewards <= paid
