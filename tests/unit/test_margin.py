"""The margin of perpetuals by hand, and a position's arithmetic. iMARGIN_005, iMONEY_003."""

from __future__ import annotations

import random

from state.actions import Side
from state.leaves import Market
from state.margin import margin
from state.positions import after_trade, fee_of, funding_owed
from tools.exchange import COIN, USD, standard_exchange

PRICE = 1_000 * USD


def test_unknown_account_has_no_margin() -> None:
    assert margin(standard_exchange().view, 99) is None


def near(value: int, expected: int, by: int = 3) -> bool:
    """Each of a few components is rounded against the account."""
    return 0 <= value - expected <= by


def test_margin_by_hand() -> None:
    exchange = standard_exchange(2, 2, maker_fee_ppm=0, taker_fee_ppm=0)
    exchange.place(2, 1, Side.SELL, PRICE, 3 * COIN)
    exchange.place(1, 1, Side.BUY, PRICE, 3 * COIN)
    exchange.place(1, 1, Side.BUY, 990 * USD, 2 * COIN)
    exchange.place(1, 1, Side.SELL, 1_010 * USD, 7 * COIN)
    exchange.place(1, 2, Side.SELL, 2_010 * USD, COIN)
    exchange.market(1).funding_rate_ppb = 0
    exchange.now_ms += 1_000
    exchange.report({"C1-PERPETUAL": 1_100 * USD})
    cash = exchange.account(1).cash_uusd
    # Market 1: 3 long at 1000, mark 1100, index 1000; orders could make it +5 or -4. Market 2: up to -1 at
    # 2000. The worst shock is 18 % of the mark, the contingencies are 3 and 1 % of the index.
    found = margin(exchange.view, 1)
    assert found is not None
    assert found.equity_uusd == cash + 3 * 100 * USD
    assert near(found.initial_uusd, 5 * (198 + 40) * USD + (360 + 80) * USD, 6)
    assert near(found.maintenance_uusd, 3 * (1_100 * 18 * 8 // 1_000 + 30) * USD + 3 * 400_000)
    assert found.available_uusd == found.equity_uusd - found.initial_uusd
    assert found.withdrawable_uusd == min(cash, found.available_uusd)


def test_imargin_005_rounding_is_against_the_trader() -> None:
    exchange = standard_exchange(2, tick_uusd=10_000)
    exchange.place(2, 1, Side.SELL, PRICE, 100)
    exchange.place(1, 1, Side.BUY, PRICE, 100)
    exchange.market(1).funding_rate_ppb = 0
    exchange.now_ms += 1_000
    exchange.report({"C1": PRICE + 1, "C1-PERPETUAL": PRICE + 1})
    long, short = margin(exchange.view, 1), margin(exchange.view, 2)
    assert long is not None
    assert short is not None
    # 100 ulots at a mark of 1,000,000,001 are worth 100,000.0001 uusd: 18,000.000018, 3,000.000003 and
    # 1,000.000001 are rounded up one by one.
    assert long.equity_uusd == exchange.account(1).cash_uusd + 0
    assert short.equity_uusd == exchange.account(2).cash_uusd - 1
    assert long.initial_uusd == short.initial_uusd == 18_001 + 3_001 + 1_001
    assert long.maintenance_uusd == 14_401 + 3_001


def test_margin_counts_funding_not_settled_yet() -> None:
    exchange = standard_exchange(2, maker_fee_ppm=0, taker_fee_ppm=0)
    exchange.place(2, 1, Side.SELL, PRICE, COIN)
    exchange.place(1, 1, Side.BUY, PRICE, COIN)
    market: Market = exchange.market(1)
    before = [margin(exchange.view, account) for account in (1, 2)]
    market.funding_index_nusd += 1_500
    after = [margin(exchange.view, account) for account in (1, 2)]
    # The longs owe 1.5 uusd: rounded to 2 paid, 1 received.
    changes = [a.equity_uusd - b.equity_uusd for a, b in zip(after, before, strict=True) if a and b]
    assert changes == [-2, 1]


def test_after_trade_by_hand() -> None:
    assert after_trade(0, 0, 5, 50) == (5, -50, 0)
    assert after_trade(5, -50, 5, 60) == (10, -110, 0)
    assert after_trade(10, -110, -3, 45) == (7, -77, 12), "33 of cost released, 45 received"
    assert after_trade(7, -77, -7, 70) == (0, 0, -7)
    assert after_trade(7, -77, -10, 100) == (-3, 30, -7), "closes 7 for 70, opens 3 for 30"
    assert after_trade(-3, 30, 4, 44) == (1, -11, -3)
    assert after_trade(3, -10, -1, 3) == (2, -6, -1), "a third of -10 is -4, rounded down"


def test_imoney_003_a_trade_moves_exactly_its_notional() -> None:
    source = random.Random(3)
    for _ in range(5_000):
        size, lots = source.randint(-50, 50), source.randint(1, 60)
        quote = -size * source.randint(1, 1_000) if size else 0
        delta, price = source.choice((-lots, lots)), source.randint(1, 10_000)
        notional = price * lots
        new_size, new_quote, realised = after_trade(size, quote, delta, notional)
        assert new_size == size + delta
        assert new_quote - quote + realised == (-notional if delta > 0 else notional)
        assert new_size or not new_quote


def test_fees_and_funding_round_up() -> None:
    assert [fee_of(notional, 300) for notional in (0, 1, 10_000, 10_001)] == [0, 1, 3, 4]
    assert funding_owed(COIN, 0, 1_500) == 2
    assert funding_owed(-COIN, 0, 1_500) == -1
    assert funding_owed(COIN, 1_500, 0) == -1
