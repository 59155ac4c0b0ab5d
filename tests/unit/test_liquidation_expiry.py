"""Liquidation by hand where what an account holds expires: before, between and after its settlement."""

from __future__ import annotations

from typing import Any

import pytest

from state.actions import Bid, Deleverage, EndAuction, Side, StartAuction, Withdraw
from state.block import LiquidationChange
from state.errors import RejectCode
from state.keys import SYSTEM_KEY
from state.leaves import AuctionKind, Status
from state.units import MS_PER_S
from tests.exchange_checks import assert_conserved, must_reject_act
from tests.liquidations import auction, health_of_account
from tests.unit.test_expiries import BEAT_MS, INDEX, Life, bought
from tools.exchange import COIN, USD, owner_address
from tools.option_exchange import expiries, make_due

RICH, OTHER, POOR = 2, 3, 5
CALL = "-1000-C"


def short_call(dollars: int = 300) -> Life:
    """Account 5 has sold a call to account 1; the index then rises by a fifth."""
    life = Life()
    life.exchange.set_fees(risk_ppm=0)  # the fund holds what tests pay in, and no more
    assert life.exchange.deposit(owner_address(9), dollars * USD) == POOR
    bought(life, CALL, 1, POOR, 10 * USD, COIN)
    for index in (1_100, 1_200):
        life.report(index * USD, 1_000)
    return life


def up_for_auction(dollars: int = 300) -> Life:
    life = short_call(dollars)
    life.exchange.act(StartAuction, OTHER, liquidated=POOR)
    return life


def settle(life: Life, index: int) -> None:
    life.run_to(0, index * USD)
    make_due(life.exchange)
    assert expiries(life.exchange, "C1")[life.number].status == Status.SETTLED


def pay_in(life: Life, amount_uusd: int) -> None:
    """Into the insurance fund, from outside."""
    system = life.exchange.system
    system.insurance_uusd += amount_uusd
    system.collateral_uusd += amount_uusd
    life.exchange.view.touch(SYSTEM_KEY, system)


def changes(result: Any) -> list[LiquidationChange]:
    return [LiquidationChange(event.change) for event in result.liquidations]


def test_an_auction_of_which_nothing_is_left_but_money_ends() -> None:
    life = up_for_auction()
    exchange = life.exchange
    settle(life, 1_200)
    account = exchange.account(POOR)
    assert (account.positions, account.orders) == (0, 0)
    assert account.cash_uusd > 0
    found = auction(exchange, POOR)
    assert found is not None, "settlement ends no auction"
    bid = {"liquidated": POOR, "share_ppm": 1, "min_reward_uusd": 0}
    must_reject_act(exchange, RejectCode.NOT_LIQUIDATABLE, Bid, RICH, **bid)
    must_reject_act(
        exchange, RejectCode.ACCOUNT_IN_AUCTION, Withdraw, POOR, recipient=bytes(20), amount_uusd=USD
    )
    assert changes(exchange.act(EndAuction, OTHER, liquidated=POOR)) == [LiquidationChange.ENDED]
    exchange.act(Withdraw, POOR, recipient=bytes(20), amount_uusd=USD)
    assert_conserved(exchange)


def test_debts_that_settlement_leaves_wait_for_the_fund() -> None:
    """iLIQ_005, iLIQ_008."""
    life = up_for_auction(250)
    exchange = life.exchange
    settle(life, 1_400)
    debt = -exchange.account(POOR).cash_uusd
    assert debt > 100 * USD
    end = {"liquidated": POOR}
    must_reject_act(exchange, RejectCode.AUCTION_NOT_OVER, EndAuction, OTHER, **end)
    bid = {"liquidated": POOR, "share_ppm": 1, "min_reward_uusd": 0}
    must_reject_act(exchange, RejectCode.BID_SHARE, Bid, RICH, **bid)
    ask = {"liquidated": POOR, "market": life.market(CALL), "counterparties": (1,)}
    must_reject_act(exchange, RejectCode.DELEVERAGE_NO_POSITION, Deleverage, OTHER, **ask)
    pay_in(life, debt // 2)
    assert changes(exchange.act(EndAuction, OTHER, **end)) == [LiquidationChange.DRAWN]
    assert (exchange.system.insurance_uusd, auction(exchange, POOR) is None) == (0, False)
    pay_in(life, debt)
    assert changes(exchange.act(EndAuction, OTHER, **end)) == [
        LiquidationChange.DRAWN,
        LiquidationChange.ENDED,
    ]
    assert exchange.account(POOR).cash_uusd == 0
    assert exchange.system.insurance_uusd == debt // 2 * 2 + debt % 2 - (debt - debt // 2)
    assert_conserved(exchange)


def test_debts_that_settlement_leaves_without_an_auction() -> None:
    """An account that nobody has put up for auction in time."""
    life = short_call(250)
    exchange = life.exchange
    settle(life, 1_400)
    pay_in(life, 1_000 * USD)
    result = exchange.act(StartAuction, OTHER, liquidated=POOR)
    assert changes(result) == [LiquidationChange.STARTED]
    assert auction(exchange, POOR).kind == AuctionKind.INSOLVENT  # type: ignore[union-attr]
    result = exchange.act(Bid, RICH, liquidated=POOR, share_ppm=500_000, min_reward_uusd=0)
    assert changes(result) == [LiquidationChange.BID, LiquidationChange.DRAWN, LiquidationChange.ENDED]
    assert result.liquidations[0].other_amount_uusd == 0, "nothing is taken over: no reward"
    assert exchange.account(POOR).cash_uusd == 0
    assert auction(exchange, POOR) is None
    assert_conserved(exchange)


def test_a_deposit_ends_an_auction_of_debts_alone() -> None:
    life = up_for_auction(250)
    exchange = life.exchange
    settle(life, 1_400)
    exchange.deposit(owner_address(9), -exchange.account(POOR).cash_uusd, POOR)
    assert changes(exchange.act(EndAuction, OTHER, liquidated=POOR)) == [LiquidationChange.ENDED]


@pytest.mark.parametrize("silent_beats", [0, 3])
def test_between_expiry_and_settlement_liquidation_waits(silent_beats: int) -> None:
    life = up_for_auction()
    exchange = life.exchange
    life.run_to(-10 * BEAT_MS, 1_200 * USD)
    exchange.now_ms += silent_beats * BEAT_MS
    while exchange.now_ms < life.expiry_s * MS_PER_S - BEAT_MS:
        life.report(1_200 * USD, BEAT_MS)
    exchange.now_ms += BEAT_MS
    exchange.messages()
    if silent_beats:
        life.report(1_200 * USD, 1_000)
    refused = RejectCode.EXPIRED_INSTRUMENT
    must_reject_act(exchange, refused, Bid, RICH, liquidated=POOR, share_ppm=1_000, min_reward_uusd=0)
    ask = {"liquidated": POOR, "market": life.market(CALL), "counterparties": (1,)}
    must_reject_act(exchange, refused, Deleverage, OTHER, **ask)
    must_reject_act(exchange, refused, EndAuction, OTHER, liquidated=POOR)
    must_reject_act(exchange, refused, StartAuction, OTHER, liquidated=1)
    for _ in range(silent_beats + 1):
        life.report(1_200 * USD, BEAT_MS)
    make_due(exchange)
    exchange.act(EndAuction, OTHER, liquidated=POOR)
    assert_conserved(exchange)


def test_what_is_left_after_some_of_it_has_settled_is_auctioned_on() -> None:
    """The account is also long a perpetual, which falls: only that is seized."""
    life = Life()
    exchange = life.exchange
    exchange.deposit(owner_address(9), 280 * USD)
    bought(life, CALL, 1, POOR, 10 * USD, COIN // 10)
    exchange.place(1, 1, Side.SELL, INDEX, COIN)
    exchange.place(POOR, 1, Side.BUY, INDEX, COIN)
    life.report(860 * USD, 1_000)
    exchange.act(StartAuction, OTHER, liquidated=POOR)
    life.run_to(0, 860 * USD)
    make_due(exchange)
    found = health_of_account(exchange, POOR)
    assert found.maintenance_uusd < 0 < found.equity_uusd
    assert exchange.account(POOR).positions == 1
    result = exchange.act(Bid, RICH, liquidated=POOR, share_ppm=100_000, min_reward_uusd=0)
    seized = [each for each in result.liquidations if each.change == LiquidationChange.SEIZED]
    assert [(each.market, each.size_ulots) for each in seized] == [(1, -COIN // 10)]
    assert_conserved(exchange)
