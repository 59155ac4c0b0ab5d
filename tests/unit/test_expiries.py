"""The end of dated instruments: the average, settlement step by step, delisting, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest

from state.actions import CancelAllAfter, Order, OrderKind, PlaceOrder, Side
from state.block import L1Message, LifeChange, LifeEvent, MessageKind, OrderEnd
from state.calendar import DAY_S
from state.errors import RejectCode
from state.expiries import payoff_uusd
from state.keys import (
    EXPIRY,
    EXPIRY_MARKET,
    EXPIRY_OF,
    MARKET_POSITION,
    PRICING,
    RATE,
    SURFACE,
    instrument_key,
)
from state.leaves import Instrument, Kind, Status
from state.pricing import fixed_part
from state.series import FUTURES
from state.units import MAX_DUE_STEPS, MS_PER_S, SETTLEMENT_WINDOW_MS
from tests.exchange_checks import assert_conserved, must_reject_act
from tools.exchange import COIN, USD, VAULT, owner_address, standard_exchange
from tools.option_exchange import (
    expiries,
    full_update,
    is_due,
    make_due,
    markets_of,
    send_message,
    series_message,
)

BEAT_MS = 60_000
"""The usual heartbeat."""
INDEX = 1_000 * USD


class Life:
    """An exchange with one expiry of futures, calls and puts, trading, two hours before its end."""

    def __init__(self, traders: int = 4, strikes: int = 1) -> None:
        self.exchange = standard_exchange(traders)
        send_message(self.exchange, series_message("C1", strikes=strikes))
        make_due(self.exchange)
        ((self.number, expiry),) = expiries(self.exchange, "C1").items()
        self.expiry_s = expiry.expiry_s
        self.exchange.now_ms = (self.expiry_s - 7_200) * MS_PER_S
        self.report()
        self.markets = markets_of(self.exchange, self.number)
        self.name = next(iter(self.markets))

    def report(self, index_uusd: int = INDEX, after_ms: int = 0) -> None:
        self.exchange.now_ms += after_ms
        self.exchange.send(full_update(self.exchange, {"C1": index_uusd}))

    def market(self, suffix: str = "") -> int:
        return self.markets[self.name + suffix]

    def run_to(self, until_ms: int, index_uusd: int = INDEX) -> None:
        """Fresh reports up to a time relative to the expiry."""
        end_ms = self.expiry_s * MS_PER_S + until_ms
        while self.exchange.now_ms < end_ms:
            self.report(index_uusd, min(BEAT_MS, end_ms - self.exchange.now_ms))

    def events(self) -> list[LifeEvent]:
        return [event for result in self.exchange.results for event in result.life]


def bought(life: Life, suffix: str, buyer: int, seller: int, price_uusd: int, size_ulots: int) -> None:
    life.exchange.place(seller, life.market(suffix), Side.SELL, price_uusd, size_ulots)
    result = life.exchange.place(buyer, life.market(suffix), Side.BUY, price_uusd, size_ulots)
    assert result.operations[0].filled_ulots == size_ulots


def cash(life: Life) -> list[int]:
    return [life.exchange.account(number).cash_uusd for number in range(1, 5)]


@pytest.mark.parametrize(
    ("kind", "settlement", "expected"),
    [
        (Kind.FUTURE, 7, 7),
        (Kind.CALL, 12, 2),
        (Kind.CALL, 10, 0),
        (Kind.CALL, 9, 0),
        (Kind.PUT, 9, 1),
        (Kind.PUT, 11, 0),
    ],
)
def test_payoffs(kind: Kind, settlement: int, expected: int) -> None:
    assert payoff_uusd(kind, 0 if kind == Kind.FUTURE else 10, settlement) == expected


def test_everything_settles_at_the_average_and_nothing_is_lost() -> None:
    """iEXPIRY_003, iEXPIRY_004: cash moves by the payoff less the price, for each side."""
    life = Life()
    bought(life, "", 1, 2, 1_000 * USD, 3 * COIN)
    bought(life, "-1000-C", 2, 3, 30 * USD, 2 * COIN)
    bought(life, "-1100-P", 4, 1, 110 * USD, COIN)
    before = cash(life)
    life.run_to(0, 1_050 * USD)
    assert not is_due(life.exchange) or life.exchange.results[-1].life
    make_due(life.exchange)
    assert expiries(life.exchange, "C1")[life.number].settlement_uusd == 1_050 * USD
    gains = [after - was for after, was in zip(cash(life), before, strict=True)]
    assert gains == [
        3 * 50 * USD + (110 - 50) * USD,
        -3 * 50 * USD + 2 * (50 - 30) * USD,
        -2 * (50 - 30) * USD,
        (50 - 110) * USD,
    ]
    for market in life.markets.values():
        terms: Instrument = life.exchange.view.get(instrument_key(market))
        assert terms.status == Status.SETTLED
        assert life.exchange.market(market).open_interest_ulots == 0
    assert not [key for key in life.exchange.leaves() if key[0] == MARKET_POSITION]
    assert_conserved(life.exchange)
    settled = [event for event in life.events() if event.change == LifeChange.POSITION_SETTLED]
    assert len(settled) == 6
    assert sum(event.size_ulots for event in settled) == 0


def test_resting_orders_are_cancelled_and_positions_of_orders_alone_go() -> None:
    life = Life()
    for number in (1, 2, 3):
        life.exchange.place(number, life.market("-1000-C"), Side.BUY, (20 + number) * USD, COIN)
        life.exchange.place(number, life.market(), Side.SELL, (1_010 + number) * USD, COIN)
    life.run_to(0)
    make_due(life.exchange)
    for number in (1, 2, 3):
        assert life.exchange.account(number).orders == 0
        assert life.exchange.account(number).positions == 0
    ends = [event.end for result in life.exchange.results for event in result.orders if event.end]
    assert ends == [OrderEnd.INSTRUMENT_EXPIRED] * 6
    assert_conserved(life.exchange)


def test_roundings_go_to_the_insurance_fund() -> None:
    """iEXPIRY_003: a payoff that does not divide is rounded down for both sides."""
    life = Life()
    bought(life, "", 1, 2, 1_000 * USD, 100)
    insurance = life.exchange.system.insurance_uusd
    life.run_to(0, INDEX + 1)
    make_due(life.exchange)
    assert expiries(life.exchange, "C1")[life.number].settlement_uusd == INDEX + 1
    assert life.exchange.system.insurance_uusd == insurance + 1
    assert_conserved(life.exchange)


def test_from_the_expiry_on_orders_are_refused() -> None:
    """iEXPIRY_006"""
    life = Life()
    life.exchange.place(1, life.market(), Side.SELL, 1_001 * USD, COIN)
    resting = life.exchange.place(2, life.market("-900-P"), Side.BUY, 5 * USD, COIN).operations[0].order_id
    life.run_to(-1)
    life.exchange.place(3, life.market(), Side.BUY, 1_000 * USD, COIN)
    life.exchange.now_ms += 1
    order = Order(life.market(), Side.BUY, OrderKind.LIMIT, 1_001 * USD, COIN)
    rejected = must_reject_act(life.exchange, RejectCode.EXPIRED_INSTRUMENT, PlaceOrder, 3, order=order)
    assert rejected.data["expiry_s"] == life.expiry_s
    life.exchange.cancel(2, life.market("-900-P"), resting)
    assert not life.exchange.results[-1].trades


def test_a_forced_order_in_an_expired_instrument_is_refused() -> None:
    life = Life()
    bought(life, "", 1, 2, 1_000 * USD, COIN)
    life.run_to(0)
    payload = (
        (1).to_bytes(8, "big")
        + life.market().to_bytes(4, "big")
        + b"\x01"
        + (1_000 * USD).to_bytes(8, "big")
        + COIN.to_bytes(8, "big")
    )
    message = L1Message(MessageKind.FORCED_ORDER, owner_address(1), 0, payload)
    assert send_message(life.exchange, message).code == RejectCode.EXPIRED_INSTRUMENT


def test_before_its_first_prices_an_expiry_does_not_trade() -> None:
    exchange = standard_exchange(2)
    send_message(exchange, series_message("C1"))
    make_due(exchange)
    ((number, expiry),) = expiries(exchange, "C1").items()
    assert expiry.status == Status.LISTED
    market = next(iter(markets_of(exchange, number).values()))
    order = Order(market, Side.BUY, OrderKind.LIMIT, INDEX, COIN)
    must_reject_act(exchange, RejectCode.INSTRUMENT_NOT_TRADING, PlaceOrder, 1, order=order)
    exchange.now_ms += 1
    exchange.send(full_update(exchange, {"C1": INDEX}))
    assert expiries(exchange, "C1")[number].status == Status.TRADING
    assert [event.change for event in exchange.results[-1].life] == [LifeChange.TRADING]


def test_the_average_weighs_values_by_their_time() -> None:
    """iEXPIRY_002: the value before the window counts from the window's start, none after its end."""
    life = Life()
    life.run_to(-SETTLEMENT_WINDOW_MS - 10_000, 800 * USD)
    life.report(900 * USD, 10_001)
    window_ms = SETTLEMENT_WINDOW_MS
    life.run_to(-window_ms // 2 + 1, 900 * USD)
    life.report(1_000 * USD, 29_999)
    first_ms = window_ms // 2 + 30_000 - 1
    life.run_to(30_000, 1_000 * USD)
    expiry = expiries(life.exchange, "C1")[life.number]
    assert expiry.covered_ms == window_ms
    total = 800 * USD + first_ms * 900 * USD + (window_ms - first_ms - 1) * 1_000 * USD
    assert expiry.settlement_uusd == total // window_ms


def test_the_fixed_part_grows_to_the_settlement_price() -> None:
    life = Life()
    life.run_to(-SETTLEMENT_WINDOW_MS)
    assert fixed_part(expiries(life.exchange, "C1")[life.number]) == (0, 10**9)
    life.run_to(-SETTLEMENT_WINDOW_MS // 4)
    assert fixed_part(expiries(life.exchange, "C1")[life.number]) == (INDEX * 3 // 4, 10**9 // 4)
    life.run_to(0)
    assert fixed_part(expiries(life.exchange, "C1")[life.number]) == (INDEX, 0)


@pytest.mark.parametrize("silence_ms", [BEAT_MS + 1, 10 * BEAT_MS])
def test_an_outage_delays_settlement_by_its_own_length(silence_ms: int) -> None:
    """iEXPIRY_002: only fresh time counts, so the window ends later by what was not fresh."""
    life = Life()
    bought(life, "", 1, 2, 1_000 * USD, COIN)
    life.run_to(-10 * BEAT_MS)
    life.report(2_000 * USD // 2, silence_ms)
    missing_ms = silence_ms - BEAT_MS
    life.run_to(missing_ms - 1)
    make_due(life.exchange)
    expiry = expiries(life.exchange, "C1")[life.number]
    assert (expiry.status, expiry.settlement_uusd) == (Status.SETTLING, 0)
    assert life.exchange.position(1, life.market()) is not None
    life.report(INDEX, 1)
    assert make_due(life.exchange) > 0
    expiry = expiries(life.exchange, "C1")[life.number]
    assert (expiry.status, expiry.settlement_uusd) == (Status.SETTLED, INDEX)
    assert life.exchange.position(1, life.market()) is None
    assert_conserved(life.exchange)


def test_without_an_oracle_nothing_settles() -> None:
    life = Life()
    bought(life, "", 1, 2, 1_000 * USD, COIN)
    life.run_to(-5 * BEAT_MS)
    for _ in range(5):
        life.exchange.now_ms += DAY_S * MS_PER_S
        make_due(life.exchange)
    assert expiries(life.exchange, "C1")[life.number].status == Status.SETTLING
    assert life.exchange.position(2, life.market()) is not None


def test_settlement_is_spread_over_blocks_and_conserved_after_each() -> None:
    """iEXPIRY_003, iEXPIRY_005: at most MAX_DUE_STEPS a block; trading elsewhere goes on in between."""
    life = Life(traders=160)
    for number in range(1, 160, 2):
        bought(life, "", number, number + 1, INDEX, COIN + number * 100)
        for suffix in ("-900-P", "-1000-C"):
            life.exchange.place(number, life.market(suffix), Side.BUY, 5 * USD, COIN)
    life.run_to(0, 1_003 * USD + 333)
    first = len(life.exchange.results)
    while is_due(life.exchange):
        life.exchange.place(1 + len(life.exchange.results) - first, 1, Side.BUY, 999 * USD, COIN)
        assert_conserved(life.exchange)
    settling = life.exchange.results[first:]
    assert len(settling) >= 2
    assert all(len(result.life) + len(result.orders) <= MAX_DUE_STEPS + 1 for result in settling)
    assert all(result.results[0].code == 0 for result in settling)
    assert expiries(life.exchange, "C1")[life.number].status == Status.SETTLED


def test_a_day_later_the_leaves_are_gone() -> None:
    """iEXPIRY_004."""
    life = Life()
    bought(life, "-1000-C", 1, 2, 30 * USD, COIN)
    order = Order(life.market(), Side.BUY, OrderKind.LIMIT, INDEX, COIN)
    with life.exchange.block():
        for account in (1, 2):
            life.exchange.act(PlaceOrder, account, order=order, priority_bid_uusd=2_000)
    life.run_to(0)
    make_due(life.exchange)
    assert life.exchange.market(life.market()).priority_pot_uusd == 1_000
    insurance = life.exchange.system.insurance_uusd
    life.exchange.now_ms += DAY_S * MS_PER_S
    make_due(life.exchange)
    assert life.exchange.system.insurance_uusd == insurance + 1_000
    assert life.number not in expiries(life.exchange, "C1")
    kinds = (EXPIRY, EXPIRY_OF, EXPIRY_MARKET, RATE, SURFACE, PRICING)
    left = expiries(life.exchange, "C1")
    counts = [sum(key[0] == kind for key in life.exchange.leaves()) for kind in kinds]
    assert counts == [len(left), len(left), sum(each.instruments for each in left.values())] + [len(left)] * 3
    for market in life.markets.values():
        assert life.exchange.view.get(instrument_key(market)) is None
    must_reject_act(life.exchange, RejectCode.UNKNOWN_INSTRUMENT, PlaceOrder, 1, order=order)
    assert_conserved(life.exchange)


def test_an_expired_instrument_can_not_be_set_trading_again() -> None:
    life = Life()
    life.run_to(0)
    make_due(life.exchange)
    market = life.market()
    terms: Instrument = life.exchange.view.get(instrument_key(market))
    again = Instrument.decode(terms.encode())
    again.status = int(Status.TRADING)
    message = L1Message(MessageKind.SET_INSTRUMENT, VAULT, 0, market.to_bytes(4, "big") + again.encode())
    assert send_message(life.exchange, message).code == RejectCode.BAD_PARAMETERS


def test_a_dated_instruments_terms_may_be_set() -> None:
    life = Life()
    market = life.market("-1000-C")
    terms = Instrument.decode(life.exchange.view.get(instrument_key(market)).encode())
    terms.status = int(Status.REDUCE_ONLY)
    message = L1Message(MessageKind.SET_INSTRUMENT, VAULT, 0, market.to_bytes(4, "big") + terms.encode())
    assert send_message(life.exchange, message).code == 0
    order = Order(market, Side.BUY, OrderKind.LIMIT, 30 * USD, COIN)
    must_reject_act(life.exchange, RejectCode.INSTRUMENT_NOT_TRADING, PlaceOrder, 1, order=order)
    terms.strike_uusd += 100 * USD
    message = L1Message(MessageKind.SET_INSTRUMENT, VAULT, 0, market.to_bytes(4, "big") + terms.encode())
    assert send_message(life.exchange, message).code == RejectCode.BAD_PARAMETERS


def test_an_options_price_band_is_a_share_of_the_forward() -> None:
    life = Life()
    order = Order(life.market("-1100-C"), Side.BUY, OrderKind.LIMIT, 190 * USD, COIN)
    life.exchange.act(PlaceOrder, 1, order=order)
    order = Order(life.market("-1100-C"), Side.BUY, OrderKind.LIMIT, 250 * USD, COIN)
    must_reject_act(life.exchange, RejectCode.PRICE_OUT_OF_BAND, PlaceOrder, 1, order=order)
    order = Order(life.market("-1100-C"), Side.SELL, OrderKind.LIMIT, 0, COIN)
    must_reject_act(life.exchange, RejectCode.PRICE_OUT_OF_BAND, PlaceOrder, 1, order=order)


def test_due_work_does_not_disturb_switches() -> None:
    life = Life()
    life.exchange.place(1, life.market(), Side.BUY, 999 * USD, COIN)
    life.run_to(-10_000)
    life.exchange.act(CancelAllAfter, 1, timeout_s=10)
    life.run_to(0)
    make_due(life.exchange)
    ends = [event.end for result in life.exchange.results for event in result.orders if event.end]
    assert ends == [OrderEnd.DEAD_MAN]
    assert expiries(life.exchange, "C1")[life.number].status == Status.SETTLED


def test_two_expiries_average_at_once() -> None:
    """A daily and a weekly of one underlying, each with its own window."""
    exchange = standard_exchange(2)
    send_message(exchange, series_message("C1", ahead=3, kinds=FUTURES, strikes=0, step_uusd=0, option=None))
    make_due(exchange)
    numbers = list(expiries(exchange, "C1"))
    assert len(numbers) == 3
    times = [expiry.expiry_s for expiry in expiries(exchange, "C1").values()]
    assert [later - earlier for earlier, later in pairwise(times)] == [DAY_S, DAY_S]
    exchange.now_ms = (times[0] - 1_800) * MS_PER_S
    for _ in range(61):
        exchange.send(full_update(exchange, {"C1": INDEX}))
        exchange.now_ms += 30_000
        make_due(exchange)
    assert [expiries(exchange, "C1")[number].covered_ms for number in numbers] == [SETTLEMENT_WINDOW_MS, 0, 0]
