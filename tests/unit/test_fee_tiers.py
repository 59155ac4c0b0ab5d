"""Maker and taker fees by traded volume: days, tiers, rebates (iTIER_001, iTIER_002)."""

from __future__ import annotations

from struct import pack

import pytest

from state.actions import BulkOrders, Order, OrderKind, Side
from state.block import L1Message, MessageKind, Trade
from state.errors import RejectCode
from state.fee_tiers import DAY_S, make_tiers
from state.keys import FEE_TIERS_KEY, volume_key
from state.leaves import FeeTiers, Volume
from state.units import MS_PER_S, PPM
from tests.depth import witness_block
from tests.exchange_checks import assert_conserved
from tools.exchange import COIN, START_MS, USD, VAULT, Exchange, standard_exchange

DAY_MS = DAY_S * MS_PER_S
PRICE = 1_000 * USD
TIERS = make_tiers([(1_500 * USD, PPM // 2, 900_000), (5_000 * USD, -PPM, 500_000)])


@pytest.fixture
def exchange() -> Exchange:
    """A maker pays 0.01 %, a taker 0.03 %; noon."""
    made = standard_exchange(3)
    made.now_ms = START_MS - START_MS % DAY_MS + DAY_MS + DAY_MS // 2
    assert set_tiers(made, TIERS.encode()) == 0
    return made


def set_tiers(exchange: Exchange, payload: bytes) -> int:
    return exchange.messages(L1Message(MessageKind.SET_FEE_TIERS, VAULT, 0, payload)).messages[0].code


def next_day(exchange: Exchange, days: int = 1) -> None:
    exchange.now_ms += days * DAY_MS


def fill(exchange: Exchange, coins: int, maker: int = 1, taker: int = 2) -> Trade:
    """A fill at 1,000, with fresh prices."""
    exchange.now_ms += 1
    exchange.report({"C1": PRICE, "C1-PERPETUAL": PRICE})
    exchange.place(maker, 1, Side.SELL, PRICE, coins * COIN)
    exchange.place(taker, 1, Side.BUY, PRICE, coins * COIN)
    assert_conserved(exchange)
    return exchange.results[-1].trades[-1]


def fees(trade: Trade) -> tuple[int, int]:
    """In hundredths of the notional's basis points: (100, 300) is what the instrument says."""
    notional = trade.size_ulots * PRICE // COIN
    return trade.maker_fee_uusd * PPM // notional, trade.taker_fee_uusd * PPM // notional


def volume(exchange: Exchange, account: int) -> Volume | None:
    leaf: Volume | None = exchange.view.get(volume_key(account))
    return leaf


def test_a_tier_holds_from_the_next_day_on(exchange: Exchange) -> None:
    """iTIER_002"""
    assert fees(fill(exchange, 1)) == fees(fill(exchange, 1)) == (100, 300), "today does not count"
    next_day(exchange)
    venue = exchange.system.venue_fees_uusd
    assert fees(fill(exchange, 4)) == (50, 270), "2,000 yesterday"
    assert exchange.system.venue_fees_uusd - venue == 4_000 * 320
    leaf = volume(exchange, 1)
    assert leaf is not None
    assert (leaf.today_uusd, leaf.days) == (4_000 * USD, pack(">30Q", 2_000 * USD, *[0] * 29))
    next_day(exchange)
    assert fees(fill(exchange, 1)) == (-100, 150)
    assert fees(fill(exchange, 1, maker=3)) == (100, 150), "each by its own"


def test_thirty_days_and_no_longer(exchange: Exchange) -> None:
    fill(exchange, 2)
    next_day(exchange, 30)
    assert fees(fill(exchange, 1)) == (50, 270)
    next_day(exchange)
    assert fees(fill(exchange, 1)) == (100, 300), "a thousand in 30 days"
    next_day(exchange, 400)
    assert fees(fill(exchange, 1)) == (100, 300)
    leaf = volume(exchange, 2)
    assert leaf is not None
    assert leaf.days == bytes(240)


def test_a_rebate_is_no_more_than_the_taker_pays(exchange: Exchange) -> None:
    """iTIER_001"""
    assert set_tiers(exchange, make_tiers([(0, -PPM, 0)]).encode()) == 0
    cash = exchange.account(1).cash_uusd
    trade = fill(exchange, 1)
    assert (trade.maker_fee_uusd, trade.taker_fee_uusd) == (0, 0)
    assert set_tiers(exchange, make_tiers([(0, -PPM, 200_000)]).encode()) == 0
    next_day(exchange)
    before = exchange.system.venue_fees_uusd
    trade = fill(exchange, 1)
    assert fees(trade) == (-60, 60)
    assert exchange.system.venue_fees_uusd == before
    assert exchange.account(1).cash_uusd > cash - USD


def test_without_tiers_nothing_is_counted() -> None:
    exchange = standard_exchange(3)
    assert fees(fill(exchange, 3)) == (100, 300)
    assert volume(exchange, 1) is volume(exchange, 2) is None


@pytest.mark.parametrize(
    ("tiers", "code"),
    [
        (FeeTiers(9, bytes(128)), RejectCode.BAD_PARAMETERS),
        (FeeTiers(0, bytes(127) + b"\1"), RejectCode.BAD_PARAMETERS),
        (make_tiers([(5, 0, 0), (5, 0, 0)]), RejectCode.BAD_PARAMETERS),
        (make_tiers([(5, -PPM - 1, 0)]), RejectCode.BAD_PARAMETERS),
        (make_tiers([(5, PPM + 1, 0)]), RejectCode.BAD_PARAMETERS),
        (make_tiers([(5, 0, PPM + 1)]), RejectCode.BAD_PARAMETERS),
        (make_tiers([(place, 0, 0) for place in range(8)]), 0),
        (make_tiers([]), 0),
    ],
)
def test_bounds_of_tiers(tiers: FeeTiers, code: int) -> None:
    exchange = standard_exchange(1)
    assert set_tiers(exchange, tiers.encode()) == code
    assert (exchange.view.get(FEE_TIERS_KEY) is None) == bool(code)
    assert set_tiers(exchange, tiers.encode()[:-1]) == RejectCode.MALFORMED_MESSAGE


def test_every_step_has_what_it_needs(exchange: Exchange) -> None:
    fill(exchange, 6)
    next_day(exchange)
    exchange.now_ms += 1
    exchange.report({"C1": PRICE, "C1-PERPETUAL": PRICE})
    transactions = []
    for account, side in ((1, Side.SELL), (3, Side.SELL), (2, Side.BUY)):
        orders = (Order(1, side, OrderKind.LIMIT, PRICE, COIN),) * (1 + side.value % 2)
        fields = exchange.envelope(account)
        transactions.append(exchange.sign(BulkOrders(**fields, cancels=(), replacements=(), orders=orders)))
    witness_block(exchange, *transactions)
    assert exchange.results[-1].trades
