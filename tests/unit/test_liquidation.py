"""Liquidation by hand: starting, bidding, ending, deleveraging, and every refusal."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest

from state.actions import (
    Bid,
    Deleverage,
    EndAuction,
    PlaceOrder,
    Side,
    StartAuction,
    Transfer,
    Withdraw,
)
from state.block import L1Message, LiquidationChange, MessageKind, OrderEnd
from state.errors import RejectCode
from state.keys import LIQUIDATION_KEY, account_key, auction_key
from state.leaves import Auction, AuctionKind, LiquidationParameters
from tests.exchange_checks import assert_conserved, free_of_risk_fees, must_reject_act
from tests.liquidations import auction, health_of_account
from tools.exchange import COIN, USD, VAULT, Exchange, order, owner_address, standard_exchange

POOR = 4
SHORT, RICH, OTHER = 1, 2, 3
HOUR_MS = 3_600_000


def leveraged(cash_uusd: int = 250 * USD) -> Exchange:
    """Account 4 is long one coin from 1000 against account 1; nothing has come into the insurance fund."""
    exchange = standard_exchange(3)
    free_of_risk_fees(exchange)
    assert exchange.deposit(owner_address(9), cash_uusd) == POOR
    exchange.place(SHORT, 1, Side.SELL, 1_000 * USD, COIN)
    exchange.place(POOR, 1, Side.BUY, 1_000 * USD, COIN)
    return exchange


def report(exchange: Exchange, *dollars: int, after_ms: int = 1_000) -> None:
    """Index and mark, one report after another; each may move a fifth."""
    for price in dollars:
        exchange.now_ms += after_ms
        after_ms = 1_000
        exchange.report({"C1": price * USD, "C1-PERPETUAL": price * USD})


def in_auction() -> Exchange:
    """Account 4 has 149.7 of equity, needs 156.6, and is up for auction."""
    exchange = leveraged()
    report(exchange, 900)
    exchange.act(StartAuction, OTHER, liquidated=POOR)
    return exchange


def insolvent(insurance_uusd: int = 0) -> Exchange:
    """Account 4 has lost 150.3 more than it had, and is up for auction."""
    exchange = leveraged()
    system = exchange.system
    system.insurance_uusd += insurance_uusd
    system.collateral_uusd += insurance_uusd
    report(exchange, 800, 700, 600)
    exchange.act(StartAuction, OTHER, liquidated=POOR)
    return exchange


def bid(exchange: Exchange, share_ppm: int, bidder: int = RICH, least: int = 0) -> Any:
    return exchange.act(Bid, bidder, liquidated=POOR, share_ppm=share_ppm, min_reward_uusd=least)


def changes(result: Any) -> list[LiquidationChange]:
    return [LiquidationChange(event.change) for event in result.liquidations]


# StartAuction


def test_start_cancels_orders_and_opens_an_auction() -> None:
    exchange = leveraged(400 * USD)
    for place in range(20):
        exchange.place(POOR, 1, Side.SELL, (1_010 + place) * USD, COIN // 20)
    report(exchange, 850, 700)
    result = exchange.act(StartAuction, OTHER, liquidated=POOR)
    assert changes(result) == [LiquidationChange.STARTED]
    assert sum(each.cancelled_ulots for each in result.operations) == COIN
    assert len(result.operations) == 2, "16 orders a step"
    assert all(event.end == OrderEnd.LIQUIDATION for event in exchange.results[-1].orders)
    assert exchange.account(POOR).orders == 0
    found = auction(exchange, POOR)
    needed = -health_of_account(exchange, POOR).buffer_uusd
    assert found == Auction(1, AuctionKind.SOLVENT, exchange.now_ms, exchange.now_ms, 10**9, needed)
    assert result.liquidations[0].needed_uusd == needed


def test_start_is_refused_above_maintenance_margin() -> None:
    """iLIQ_001."""
    exchange = leveraged()
    report(exchange, 950)
    refusal = must_reject_act(exchange, RejectCode.NOT_LIQUIDATABLE, StartAuction, OTHER, liquidated=POOR)
    assert int(refusal.data["maintenance_uusd"]) >= 0
    must_reject_act(exchange, RejectCode.UNKNOWN_ACCOUNT, StartAuction, OTHER, liquidated=99)


def test_start_is_refused_at_stale_prices_and_twice() -> None:
    """iLIQ_001."""
    exchange = leveraged()
    report(exchange, 900)
    exchange.now_ms += 60_001
    must_reject_act(exchange, RejectCode.ORACLE_STALE, StartAuction, OTHER, liquidated=POOR)
    report(exchange, 900)
    exchange.act(StartAuction, OTHER, liquidated=POOR)
    must_reject_act(exchange, RejectCode.AUCTION_OPEN, StartAuction, RICH, liquidated=POOR)


def test_start_turns_an_auction_whose_account_has_become_insolvent_and_back() -> None:
    exchange = in_auction()
    report(exchange, 750, 620)
    result = exchange.act(StartAuction, OTHER, liquidated=POOR)
    assert changes(result) == [LiquidationChange.TURNED]
    found = auction(exchange, POOR)
    assert found is not None
    assert (found.kind, found.started_ms) == (AuctionKind.INSOLVENT, exchange.now_ms)
    assert found.opened_ms < found.started_ms
    must_reject_act(exchange, RejectCode.AUCTION_OPEN, StartAuction, RICH, liquidated=POOR)
    report(exchange, 740, 880)
    assert changes(exchange.act(StartAuction, OTHER, liquidated=POOR)) == [LiquidationChange.TURNED]


def test_an_account_in_auction_only_reduces() -> None:
    """iLIQ_002."""
    exchange = in_auction()
    refused = RejectCode.ACCOUNT_IN_AUCTION
    placed = order(1, Side.BUY, 900 * USD, COIN)
    must_reject_act(exchange, refused, PlaceOrder, POOR, order=placed)
    must_reject_act(exchange, refused, PlaceOrder, POOR, order=order(1, Side.SELL, 900 * USD, COIN // 2))
    must_reject_act(exchange, refused, Withdraw, POOR, recipient=bytes(20), amount_uusd=1)
    must_reject_act(exchange, refused, Transfer, POOR, to_account=OTHER, amount_uusd=1)
    payload = pack(">Q20sQ", POOR, bytes(20), 1)
    forced = L1Message(MessageKind.FORCED_WITHDRAWAL, owner_address(9), 0, payload)
    assert exchange.messages(forced).messages[0].code == refused
    exchange.place(RICH, 1, Side.BUY, 899 * USD, COIN // 2)
    result = exchange.place(POOR, 1, Side.SELL, 890 * USD, COIN, reduce_only=True)
    assert result.operations[0].filled_ulots == COIN // 2
    assert exchange.account(POOR).orders == 1


# Bid


def test_a_bid_takes_positions_at_the_mark_for_a_reward() -> None:
    exchange = in_auction()
    before, cash = health_of_account(exchange, POOR), exchange.account(RICH).cash_uusd
    result = bid(exchange, 100_000)
    reward = before.equity_uusd * 5 // 1_000
    fee = before.equity_uusd * 95 // 10_000
    mine = result.liquidations
    assert changes(result) == [LiquidationChange.BID, LiquidationChange.FEE, LiquidationChange.SEIZED]
    assert (mine[0].amount_uusd, mine[0].other, mine[0].other_amount_uusd) == (-reward, RICH, reward)
    assert mine[1].amount_uusd == -fee
    assert exchange.system.insurance_uusd == fee
    assert (mine[2].size_ulots, mine[2].price_uusd) == (-COIN // 10, 900 * USD)
    assert exchange.account(RICH).cash_uusd == cash + reward - result.fee_uusd
    taken, kept = exchange.position(RICH, 1), exchange.position(POOR, 1)
    assert taken is not None
    assert kept is not None
    assert (taken.size_ulots, taken.quote_uusd) == (COIN // 10, -90 * USD)
    assert kept.size_ulots == COIN * 9 // 10
    found = auction(exchange, POOR)
    assert found is not None
    assert (found.left_ppb, found.bids) == (900_000_000, 1)
    assert abs(before.equity_uusd - reward - fee - health_of_account(exchange, POOR).equity_uusd) < 10
    assert_conserved(exchange)


def test_the_largest_share_ends_the_auction_and_no_larger_one_is_taken() -> None:
    """iLIQ_003."""
    exchange = in_auction()
    refusal = must_reject_act(
        exchange,
        RejectCode.BID_SHARE,
        Bid,
        RICH,
        liquidated=POOR,
        share_ppm=1_000_000,
        min_reward_uusd=0,
    )
    allowed = int(refusal.data["allowed_ppm"])
    must_reject_act(
        exchange,
        RejectCode.BID_SHARE,
        Bid,
        RICH,
        liquidated=POOR,
        share_ppm=allowed + 1,
        min_reward_uusd=0,
    )
    assert changes(bid(exchange, allowed))[-1] == LiquidationChange.ENDED
    assert auction(exchange, POOR) is None
    left = health_of_account(exchange, POOR)
    assert 0 <= left.buffer_uusd < 2_000, "a ppm of the account, and an ulot"
    refused = {"liquidated": POOR, "share_ppm": 1, "min_reward_uusd": 0}
    must_reject_act(exchange, RejectCode.NO_AUCTION, Bid, RICH, **refused)
    exchange.place(POOR, 1, Side.SELL, 990 * USD, COIN // 2, reduce_only=True)


def test_rewards_rise_with_time() -> None:
    exchange = in_auction()
    report(exchange, 900, after_ms=900_000)
    equity = health_of_account(exchange, POOR).equity_uusd
    assert bid(exchange, 100_000).liquidations[0].other_amount_uusd == equity * 3 // 100
    report(exchange, 900, after_ms=13 * HOUR_MS)
    equity = health_of_account(exchange, POOR).equity_uusd
    result = bid(exchange, 10_000)
    assert result.liquidations[0].other_amount_uusd == equity * 9 // 1_000, "of the nine tenths left"
    assert LiquidationChange.FEE not in changes(result), "there is nothing left to take it of"


def test_refused_bids() -> None:
    exchange = in_auction()
    second = exchange.deposit(owner_address(9), 1_000_000 * USD)
    poor = exchange.deposit(owner_address(10), USD)
    good: dict[str, Any] = {"liquidated": POOR, "share_ppm": 100_000, "min_reward_uusd": 0}
    must_reject_act(exchange, RejectCode.BID_SHARE, Bid, RICH, **(good | {"share_ppm": 0}))
    must_reject_act(exchange, RejectCode.BID_SHARE, Bid, RICH, **(good | {"share_ppm": 2**64 - 1}))
    reward = health_of_account(exchange, POOR).equity_uusd * 5 // 1_000
    refusal = must_reject_act(
        exchange, RejectCode.BID_REWARD, Bid, RICH, **(good | {"min_reward_uusd": reward + 1})
    )
    assert refusal.data["reward_uusd"] == reward
    must_reject_act(exchange, RejectCode.BID_OWN_ACCOUNT, Bid, POOR, **good)
    must_reject_act(exchange, RejectCode.BID_OWN_ACCOUNT, Bid, second, **good)
    refusal = must_reject_act(exchange, RejectCode.INSUFFICIENT_MARGIN, Bid, poor, **good)
    assert int(refusal.data["available_uusd"]) < int(refusal.data["needed_uusd"])
    must_reject_act(exchange, RejectCode.NO_AUCTION, Bid, RICH, **(good | {"liquidated": OTHER}))
    must_reject_act(exchange, RejectCode.UNKNOWN_ACCOUNT, Bid, RICH, **(good | {"liquidated": 99}))
    exchange.now_ms += 60_001
    must_reject_act(exchange, RejectCode.ORACLE_STALE, Bid, RICH, **good)
    report(exchange, 1_000)
    must_reject_act(exchange, RejectCode.NOT_LIQUIDATABLE, Bid, RICH, **good)
    report(exchange, 900)
    bid(exchange, 100_000, least=reward - 1)


def test_a_bidder_in_auction_is_refused_and_so_is_one_with_too_many_positions() -> None:
    """iLIQ_004."""
    exchange = in_auction()
    other = exchange.deposit(owner_address(11), 250 * USD)
    report(exchange, 990)
    exchange.place(SHORT, 1, Side.SELL, 990 * USD, COIN)
    exchange.place(other, 1, Side.BUY, 990 * USD, COIN)
    report(exchange, 880)
    exchange.act(StartAuction, OTHER, liquidated=other)
    fields = {"liquidated": POOR, "share_ppm": 1_000, "min_reward_uusd": 0}
    must_reject_act(exchange, RejectCode.ACCOUNT_IN_AUCTION, Bid, other, **fields)
    parameters = exchange.parameters
    parameters.max_positions = 0
    must_reject_act(exchange, RejectCode.TOO_MANY_POSITIONS, Bid, RICH, **fields)


def test_a_bidder_s_own_prices_must_be_fresh() -> None:
    """iLIQ_004: what it holds elsewhere may be worth nothing by now."""
    exchange = standard_exchange(3, 2)
    assert exchange.deposit(owner_address(9), 250 * USD) == POOR
    for buyer, market in ((POOR, 1), (RICH, 2)):
        exchange.place(SHORT, market, Side.SELL, market * 1_000 * USD, COIN)
        exchange.place(buyer, market, Side.BUY, market * 1_000 * USD, COIN)
    report(exchange, 900, after_ms=61_000)
    exchange.act(StartAuction, OTHER, liquidated=POOR)
    fields = {"liquidated": POOR, "share_ppm": 1_000, "min_reward_uusd": 0}
    must_reject_act(exchange, RejectCode.ORACLE_STALE, Bid, RICH, **fields)
    exchange.report({"C2": 2_000 * USD, "C2-PERPETUAL": 2_000 * USD})
    exchange.now_ms += 1
    bid(exchange, 1_000)
    bid(exchange, 1_000, OTHER)


def test_a_bid_closes_what_the_bidder_holds_on_the_other_side() -> None:
    exchange = in_auction()
    cash = exchange.account(SHORT).cash_uusd
    result = bid(exchange, 100_000, SHORT)
    assert exchange.position(SHORT, 1).size_ulots == -COIN * 9 // 10  # type: ignore[union-attr]
    assert exchange.account(SHORT).cash_uusd > cash + 9 * USD, "a tenth of 100 of profit is realised"
    assert exchange.market(1).open_interest_ulots == COIN * 9 // 10
    assert result.liquidations[-1].other_amount_uusd > 9 * USD
    assert_conserved(exchange)


def test_sizes_off_lot_close_by_reduce_only_orders() -> None:
    exchange = in_auction()
    bid(exchange, 33_333)
    size = exchange.position(POOR, 1).size_ulots  # type: ignore[union-attr]
    assert size % 100 != 0
    exchange.place(RICH, 1, Side.BUY, 900 * USD, 2 * COIN)
    result = exchange.place(POOR, 1, Side.SELL, 900 * USD, COIN, reduce_only=True)
    assert result.operations[0].filled_ulots == size
    assert exchange.position(POOR, 1) is None
    assert_conserved(exchange)


# Insolvent accounts


def test_the_fund_fills_the_hole_and_pays_a_rising_reward() -> None:
    exchange = insolvent(1_000 * USD)
    assert auction(exchange, POOR).kind == AuctionKind.INSOLVENT  # type: ignore[union-attr]
    hole = -health_of_account(exchange, POOR).equity_uusd
    assert hole > 150 * USD
    result = bid(exchange, 500_000)
    assert (result.liquidations[0].amount_uusd, result.liquidations[0].other_amount_uusd) == (
        -(-hole // 2),
        0,
    ), "no reward at the start"
    report(exchange, 600, after_ms=HOUR_MS)
    health = health_of_account(exchange, POOR)
    result = bid(exchange, 1_000_000)
    assert result.liquidations[0].other_amount_uusd == health.equity_uusd - health.maintenance_uusd
    assert changes(result)[-1] == LiquidationChange.ENDED
    assert exchange.position(POOR, 1) is None
    assert 0 <= exchange.account(POOR).cash_uusd < 10
    assert exchange.system.insurance_uusd > 700 * USD
    assert_conserved(exchange)


def test_the_fund_pays_only_what_it_has() -> None:
    """iLIQ_005."""
    exchange = insolvent(75 * USD)
    fields = {"liquidated": POOR, "share_ppm": 1_000_000, "min_reward_uusd": 0}
    refusal = must_reject_act(exchange, RejectCode.BID_SHARE, Bid, RICH, **fields)
    allowed = int(refusal.data["allowed_ppm"])
    assert 490_000 < allowed < 500_000
    bid(exchange, allowed)
    assert 0 <= exchange.system.insurance_uusd < 1_000
    refusal = must_reject_act(exchange, RejectCode.BID_SHARE, Bid, RICH, **fields)
    assert int(refusal.data["allowed_ppm"]) < 10


def test_deleveraging_closes_at_the_bankruptcy_price() -> None:
    exchange = insolvent(20 * USD)
    hole = -health_of_account(exchange, POOR).equity_uusd - 20 * USD
    fields = {"liquidated": POOR, "market": 1, "counterparties": (RICH, 99, SHORT, SHORT)}
    result = exchange.act(Deleverage, OTHER, **fields)
    assert [each.code for each in result.operations] == [
        RejectCode.DELEVERAGE_NOT_OPPOSITE,
        RejectCode.UNKNOWN_ACCOUNT,
        0,
    ], "and then it is closed"
    assert changes(result) == [
        LiquidationChange.DRAWN,
        LiquidationChange.DELEVERAGED,
        LiquidationChange.ENDED,
    ]
    closed = result.liquidations[1]
    assert (closed.other, closed.size_ulots) == (SHORT, -COIN)
    assert closed.price_uusd == 600 * USD + hole
    assert exchange.position(SHORT, 1) is exchange.position(POOR, 1) is None
    assert exchange.account(POOR).cash_uusd == 0
    assert exchange.account(SHORT).cash_uusd > 1_000_000 * USD, "it keeps what the account could pay"
    assert exchange.system.insurance_uusd == 0
    assert_conserved(exchange)


def test_deleveraging_waits_for_the_fund_or_the_end_of_the_ramp() -> None:
    exchange = insolvent(1_000 * USD)
    fields = {"liquidated": POOR, "market": 1, "counterparties": (SHORT,)}
    refusal = must_reject_act(exchange, RejectCode.DELEVERAGE_EARLY, Deleverage, OTHER, **fields)
    assert refusal.data["insurance_uusd"] == 1_000 * USD
    report(exchange, 600, after_ms=HOUR_MS)
    result = exchange.act(Deleverage, OTHER, **fields)
    assert result.liquidations[1].price_uusd == 600 * USD, "the fund filled the hole"
    assert_conserved(exchange)


def test_deleveraging_is_refused_for_a_solvent_account_and_without_a_position() -> None:
    exchange = in_auction()
    fields: dict[str, Any] = {"liquidated": POOR, "market": 1, "counterparties": (SHORT,)}
    must_reject_act(exchange, RejectCode.DELEVERAGE_EARLY, Deleverage, OTHER, **fields)
    must_reject_act(exchange, RejectCode.UNKNOWN_INSTRUMENT, Deleverage, OTHER, **(fields | {"market": 9}))
    must_reject_act(exchange, RejectCode.NO_AUCTION, Deleverage, OTHER, **(fields | {"liquidated": RICH}))
    must_reject_act(exchange, RejectCode.EMPTY_ACTION, Deleverage, OTHER, **(fields | {"counterparties": ()}))
    too_many = fields | {"counterparties": (1,) * 17}
    must_reject_act(exchange, RejectCode.TOO_MANY_OPERATIONS, Deleverage, OTHER, **too_many)
    report(exchange, 750, 620)
    exchange.act(StartAuction, OTHER, liquidated=POOR)
    exchange.act(Deleverage, OTHER, **fields)
    assert exchange.position(POOR, 1) is None
    must_reject_act(exchange, RejectCode.NO_AUCTION, Deleverage, OTHER, **fields)


def test_no_counterparty_that_does_not_profit_or_would_end_worse() -> None:
    """iLIQ_006."""
    exchange = insolvent()
    late = exchange.deposit(owner_address(12), 100_000 * USD)
    exchange.place(RICH, 1, Side.BUY, 598 * USD, COIN)
    exchange.place(late, 1, Side.SELL, 598 * USD, COIN)
    report(exchange, 601)
    thin = exchange.deposit(owner_address(13), 140 * USD)
    exchange.place(RICH, 1, Side.BUY, 601 * USD, COIN)
    exchange.place(thin, 1, Side.SELL, 601 * USD, COIN)
    report(exchange, 600)
    before = exchange.account(thin).cash_uusd, exchange.account(late).cash_uusd
    result = exchange.act(Deleverage, OTHER, liquidated=POOR, market=1, counterparties=(late, thin))
    assert [each.code for each in result.operations] == [
        RejectCode.DELEVERAGE_NO_PROFIT,
        RejectCode.DELEVERAGE_WORSE,
    ]
    assert before == (exchange.account(thin).cash_uusd, exchange.account(late).cash_uusd)
    assert auction(exchange, POOR) is not None


# EndAuction


def test_an_auction_ends_when_buffer_margin_is_back() -> None:
    exchange = in_auction()
    refusal = must_reject_act(exchange, RejectCode.AUCTION_NOT_OVER, EndAuction, OTHER, liquidated=POOR)
    missing = -int(refusal.data["buffer_uusd"])
    exchange.deposit(owner_address(9), missing - 1, POOR)
    must_reject_act(exchange, RejectCode.AUCTION_NOT_OVER, EndAuction, OTHER, liquidated=POOR)
    exchange.deposit(owner_address(9), 1, POOR)
    assert changes(exchange.act(EndAuction, OTHER, liquidated=POOR)) == [LiquidationChange.ENDED]
    must_reject_act(exchange, RejectCode.NO_AUCTION, EndAuction, OTHER, liquidated=POOR)


def test_a_debt_without_positions_waits_for_the_fund() -> None:
    exchange = insolvent()
    exchange.place(RICH, 1, Side.BUY, 600 * USD, COIN)
    exchange.place(POOR, 1, Side.SELL, 600 * USD, COIN, reduce_only=True)
    debt = -exchange.account(POOR).cash_uusd
    assert debt > 150 * USD
    must_reject_act(exchange, RejectCode.AUCTION_NOT_OVER, EndAuction, OTHER, liquidated=POOR)
    system = exchange.system
    system.insurance_uusd += 100 * USD
    system.collateral_uusd += 100 * USD
    assert changes(exchange.act(EndAuction, OTHER, liquidated=POOR)) == [LiquidationChange.DRAWN]
    assert exchange.account(POOR).cash_uusd == 100 * USD - debt
    system = exchange.system
    system.insurance_uusd += 100 * USD
    system.collateral_uusd += 100 * USD
    assert changes(exchange.act(EndAuction, OTHER, liquidated=POOR)) == [
        LiquidationChange.DRAWN,
        LiquidationChange.ENDED,
    ]
    assert exchange.account(POOR).cash_uusd == 0
    assert exchange.view.get(auction_key(POOR)) is None
    assert_conserved(exchange)


# SET_LIQUIDATION


def set_parameters(exchange: Exchange, payload: bytes) -> int:
    return exchange.messages(L1Message(MessageKind.SET_LIQUIDATION, VAULT, 0, payload)).messages[0].code


def test_the_governor_sets_how_auctions_run() -> None:
    exchange = in_auction()
    new = LiquidationParameters(100_000, 100_000, 200_000, 0, 1_000, 2_000, 3_000)
    assert set_parameters(exchange, new.encode()) == 0
    assert exchange.view.get(LIQUIDATION_KEY) == new
    equity = health_of_account(exchange, POOR).equity_uusd
    result = bid(exchange, 100_000)
    assert result.liquidations[0].other_amount_uusd == equity // 100
    assert LiquidationChange.FEE not in changes(result)


@pytest.mark.parametrize(
    "bad",
    [
        {"buffer_ppm": 1_000_001},
        {"start_discount_ppm": 0},
        {"start_discount_ppm": 300_001},
        {"fast_discount_ppm": 1_000_001},
        {"fee_ppm": 1_000_001},
        {"fast_ms": 0},
        {"slow_ms": 0},
        {"insolvent_ms": 7 * 86_400_000 + 1},
    ],
)
def test_bad_parameters_are_refused(bad: dict[str, int]) -> None:
    exchange = standard_exchange(1)
    code = set_parameters(exchange, LiquidationParameters(**bad).encode())
    assert code == RejectCode.BAD_PARAMETERS
    assert exchange.view.get(LIQUIDATION_KEY) is None
    assert set_parameters(exchange, b"short") == RejectCode.MALFORMED_MESSAGE


def test_a_deposit_reaches_an_account_in_auction() -> None:
    exchange = in_auction()
    before = exchange.view.get(account_key(POOR)).cash_uusd
    exchange.deposit(owner_address(9), USD, POOR)
    assert exchange.account(POOR).cash_uusd == before + USD
