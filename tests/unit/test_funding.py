"""Premium, rate and settlement of funding by hand. iMONEY_004."""

from __future__ import annotations

import pytest

from state.actions import Side
from state.funding import INTEREST_PPB, MAX_RATE_PPB
from state.units import MS_PER_HOUR
from tests.exchange_checks import assert_conserved
from tools.exchange import COIN, USD, Exchange, standard_exchange

PRICE = 1_000 * USD
FEEDS = {"C1": PRICE, "C1-PERPETUAL": PRICE}


def at_rate(exchange: Exchange, rate_ppb: int) -> None:
    exchange.market(1).funding_rate_ppb = rate_ppb


def test_without_a_book_the_rate_is_interest() -> None:
    market = standard_exchange().market(1)
    assert (market.premium_ppb, market.funding_rate_ppb) == (0, INTEREST_PPB)


def report(exchange: Exchange, mark: int = PRICE, index: int = PRICE) -> None:
    exchange.now_ms += 1_000
    exchange.report({"C1": index, "C1-PERPETUAL": mark})


def test_premium_is_the_average_price_of_the_impact_notional() -> None:
    exchange = standard_exchange()
    exchange.place(1, 1, Side.BUY, 1_020 * USD, 5 * COIN)
    exchange.place(2, 1, Side.BUY, 1_010 * USD, 50 * COIN)
    report(exchange)
    # 10,000 dollars: 5 coins for 5,100, and 4,900/1010 coins; on average 1015.075.
    impact = 10_000 * USD * 1_010 // (5 * 1_010 + 4_900)
    premium = (impact - PRICE) * 10**9 // PRICE
    market = exchange.market(1)
    assert market.premium_ppb == premium
    assert market.funding_rate_ppb == min(MAX_RATE_PPB, premium // 8 + INTEREST_PPB)


def test_premium_below_the_index() -> None:
    exchange = standard_exchange()
    exchange.place(1, 1, Side.SELL, 984 * USD, 20 * COIN)
    report(exchange)
    assert exchange.market(1).premium_ppb == -16_000_000 - 1, "rounded down"
    assert exchange.market(1).funding_rate_ppb == -2_000_001 + INTEREST_PPB


def test_no_premium_without_depth_within_sixteen_orders() -> None:
    exchange = standard_exchange()
    for _ in range(16):
        exchange.place(1, 1, Side.BUY, 1_020 * USD, COIN // 2)
    exchange.place(1, 1, Side.BUY, 1_010 * USD, 50 * COIN)
    report(exchange)
    assert exchange.market(1).premium_ppb == 0


def test_expired_orders_are_no_depth() -> None:
    exchange = standard_exchange()
    exchange.place(1, 1, Side.BUY, 1_020 * USD, 50 * COIN, expiry_s=exchange.now_ms // 1_000 + 1)
    report(exchange)
    assert exchange.market(1).premium_ppb == 0


@pytest.mark.parametrize(("dollars", "rate"), [(1_100, MAX_RATE_PPB), (900, -MAX_RATE_PPB)])
def test_rate_is_clamped(dollars: int, rate: int) -> None:
    exchange = standard_exchange()
    exchange.place(1, 1, Side.BUY if dollars > 1_000 else Side.SELL, dollars * USD, 50 * COIN)
    report(exchange)
    assert exchange.market(1).funding_rate_ppb == rate


def test_index_accrues_at_the_old_rate_and_mark() -> None:
    exchange = standard_exchange()
    at_rate(exchange, 1_000_000)
    exchange.now_ms += MS_PER_HOUR // 2
    exchange.report({"C1": PRICE, "C1-PERPETUAL": PRICE + 100 * USD})
    # A tenth of a percent an hour of 1000 dollars, for half an hour: half a dollar a coin.
    assert exchange.market(1).funding_index_nusd == 500_000_000
    assert exchange.market(1).funding_ms == exchange.now_ms


def test_silence_of_more_than_an_hour_is_forgone() -> None:
    exchange = standard_exchange()
    at_rate(exchange, 1_000_000)
    exchange.now_ms += 5 * MS_PER_HOUR
    exchange.report(FEEDS)
    assert exchange.market(1).funding_index_nusd == 1_000_000_000


def test_imoney_004_longs_pay_shorts_through_the_pot_which_keeps_roundings() -> None:
    exchange = standard_exchange(3, maker_fee_ppm=0, taker_fee_ppm=0)
    exchange.place(2, 1, Side.SELL, PRICE, 700)
    exchange.place(1, 1, Side.BUY, PRICE, 700)
    at_rate(exchange, 333_333)
    exchange.now_ms += 1_234_567
    exchange.report(FEEDS)
    index = exchange.market(1).funding_index_nusd
    assert index == PRICE * 333_333 * 1_234_567 // (1_000_000 * MS_PER_HOUR)
    cash = [exchange.account(account).cash_uusd for account in (1, 2)]
    exchange.place(2, 1, Side.BUY, PRICE, 700)
    fees = exchange.results[-1].results[0].fee_uusd
    fees_1 = exchange.place(1, 1, Side.SELL, PRICE, 700).fee_uusd
    owed = -(-700 * index // 10**9)
    assert exchange.account(1).cash_uusd == cash[0] - owed - fees_1
    assert exchange.account(2).cash_uusd == cash[1] + 700 * index // 10**9 - fees
    assert exchange.market(1).funding_pot_uusd == 1
    assert exchange.position(1, 1) is exchange.position(2, 1) is None
    assert_conserved(exchange)
