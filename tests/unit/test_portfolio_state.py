"""The margin of accounts with options and futures on the state, against plain definitions.

iMARGIN_020, iMARGIN_022, and the rules of section 8.4.
"""

from __future__ import annotations

import random
from itertools import product

import pytest

from state.actions import OrderKind, PlaceOrder, Side
from state.block import L1Message, MessageKind
from state.errors import RejectCode
from state.expiry_sums import ExpiryHolding
from state.keys import account_key, instrument_key, market_key, position_key, pricing_key
from state.leaves import Account, Instrument, Kind, MarginTerms, Market, Position, Pricing
from state.margin import NO_CHANGES, Change, held_margin, margin, requirement
from state.margin_defaults import DEFAULTS_PPM, REGULAR_MOVES_PPM, default_parameters
from state.margin_parts import perpetual_measure
from state.margin_terms import check_margin_terms, parameters_of
from state.portfolio import PerpHolding, UnderlyingHolding, portfolio_margin
from state.pricing import expiry_market, settlement_uusd
from state.risk_array import make_risk_array
from state.risk_grid import make_expiry, make_grid
from tests.exchange_checks import assert_conserved, must_reject_act
from tools.exchange import COIN, USD, VAULT, Exchange, order, owner_address, standard_exchange
from tools.option_exchange import full_update, make_due, markets_of, send_message, series_message

GRID = make_grid(default_parameters())
INDEX = 1_000 * USD
Book = dict[int, Change]


@pytest.fixture(scope="module")
def options() -> Exchange:
    """C1 and C2 with two expiries each and their chains, priced; two perpetuals. Tests do not change it."""
    exchange = standard_exchange(4, 2)
    for name in ("C1", "C2"):
        send_message(exchange, series_message(name, ahead=2))
    make_due(exchange)
    exchange.now_ms += 1_000
    exchange.send(full_update(exchange, {"C1": INDEX, "C2": 2 * INDEX}))
    return exchange


def terms_of(exchange: Exchange, market: int) -> Instrument:
    leaf: Instrument = exchange.view.get(instrument_key(market))
    return leaf


def dated_markets(exchange: Exchange) -> list[int]:
    return [market for number in range(1, 5) for market in markets_of(exchange, number).values()]


def random_book(rng: random.Random, markets: list[int], count: int, with_orders: bool = True) -> Book:
    """Positions and orders in some markets, some of them with only one of the two."""
    book: Book = {}
    for market in rng.sample(markets, count):
        size = rng.choice([0, rng.randint(-30 * COIN, 30 * COIN)])
        buy, sell = (rng.choice([0, rng.randint(1, 20 * COIN)]) if with_orders else 0 for _ in "bs")
        if size or buy or sell:
            book[market] = (size, -size * rng.randint(0, 1_000), buy, sell)
    return book


def definition(exchange: Exchange, book: Book) -> tuple[int, int]:
    """(equity, initial requirement) by the general form, from leaves, nothing shared or remembered."""
    view, equity = exchange.view, 0
    holdings: list[UnderlyingHolding] = []
    for name in ("C1", "C2"):
        perps: list[PerpHolding] = []
        expiries: dict[int, ExpiryHolding] = {}
        unrealised = 0
        for market, (size, quote, buy, sell) in sorted(book.items()):
            terms = terms_of(exchange, market)
            if terms.underlying.rstrip(b"\0").decode() != name:
                continue
            unrealised += quote
            state: Market = view.get(market_key(market))
            if terms.kind == Kind.PERPETUAL:
                perps.append(PerpHolding(size, state.mark_uusd, 1 << 56, buy, sell))
                unrealised += size * state.mark_uusd // COIN
                continue
            pricing: Pricing = view.get(pricing_key(terms.expiry))
            expiry = make_expiry(expiry_market(pricing, terms.expiry_s), GRID)
            held = expiries.get(terms.expiry, ExpiryHolding(expiry))
            if terms.kind == Kind.FUTURE:
                unrealised += size * settlement_uusd(pricing) // COIN
                held = held._replace(future_amount=size, future_buy=buy, future_sell=sell)
            else:
                array = make_risk_array(expiry, GRID, terms.strike_uusd, terms.kind == Kind.CALL)
                held = held._replace(
                    options=[*held.options, array],
                    amounts=[*held.amounts, size],
                    buys=[*held.buys, buy],
                    sells=[*held.sells, sell],
                )
            expiries[terms.expiry] = held
        index = (1 if name == "C1" else 2) * INDEX
        holdings.append(UnderlyingHolding(GRID, index, 1 << 56, unrealised, perps, list(expiries.values())))
    margin = portfolio_margin(holdings, 0)
    equity = margin.mark_to_market
    return equity, equity - margin.initial_margin


@pytest.mark.parametrize("count", [1, 2, 5, 12, 20])
def test_an_account_s_margin_is_the_engine_s(options: Exchange, count: int) -> None:
    rng = random.Random(count)
    markets = [1, 2, *dated_markets(options)]
    for _ in range(6):
        book = random_book(rng, markets, min(count, len(markets)))
        assert requirement(options.view, 4, 7, book) == (
            definition(options, book)[0] + 7,
            definition(options, book)[1],
        )
        held = {market: (size, quote, 0, 0) for market, (size, quote, _, _) in book.items()}
        alone = held_margin(options.view, 4, 7, book)
        assert (alone.equity_uusd - 7, alone.initial_uusd) == definition(options, held)
        assert alone.maintenance_uusd <= alone.initial_uusd


def test_imargin_020_perpetuals_have_a_closed_form(options: Exchange) -> None:
    rng = random.Random(20)
    for _ in range(200):
        book = random_book(rng, [1, 2], rng.randint(1, 2))
        equity, initial = requirement(options.view, 4, 0, book)
        assert (equity, initial) == definition(options, book)


def test_imargin_023_a_bound_that_cash_covers_never_lies(options: Exchange) -> None:
    rng = random.Random(23)
    bounds = 0
    for _ in range(2_000):
        book = random_book(rng, [1, 2], rng.randint(1, 2))
        equity, initial = requirement(options.view, 4, 0, book)
        needed = initial - equity
        for cash in (needed - 1, needed, needed + rng.randint(1, 10), needed + rng.randint(0, 10_000 * USD)):
            found = perpetual_measure(options.view, 4, book, True, 0, cash)
            assert found is not None
            assert found.equity_uusd == equity
            assert (cash + equity >= found.initial_uusd) == (cash >= needed)
            assert found.initial_uusd >= initial
            bounds += found.initial_uusd > initial
    assert bounds > 1_000


def fills(book: Book) -> list[Book]:
    """All that full fills can make of a book's orders, at the marks and so with nothing else changed."""
    choices = []
    for market, (size, quote, buy, sell) in book.items():
        sizes = {size, size + buy, size - sell, size + buy - sell}
        choices.append([(market, (each, quote, 0, 0)) for each in sizes])
    return [dict(choice) for choice in product(*choices)]


def test_imargin_022_open_orders_count_at_their_worst(options: Exchange) -> None:
    """No fills require more than what is counted before; of one perpetual the worst fill requires as much."""
    rng = random.Random(22)
    markets = [1, 2, *dated_markets(options)]
    for _ in range(60):
        book = random_book(rng, markets, rng.randint(1, 4))
        _, counted = requirement(options.view, 4, 0, book)
        after = [requirement(options.view, 4, 0, each)[1] for each in fills(book)]
        assert max(after, default=0) <= counted + 2
        _, nothing = requirement(options.view, 4, 0, {m: (c[0], c[1], 0, 0) for m, c in book.items()})
        assert nothing <= counted
    for _ in range(60):
        book = random_book(rng, [1], 1)
        _, counted = requirement(options.view, 4, 0, book)
        assert max([requirement(options.view, 4, 0, each)[1] for each in fills(book)], default=0) == counted


def test_what_is_remembered_does_not_matter(options: Exchange) -> None:
    """The same book asked for in another order, and after others, has the same margin."""
    rng = random.Random(5)
    books = [random_book(rng, [1, 2, *dated_markets(options)], 9) for _ in range(5)]
    first = [requirement(options.view, 4, 0, book) for book in books]
    again = [requirement(options.view, 4, 0, dict(reversed(book.items()))) for book in reversed(books)]
    assert again == first[::-1]


# On a changing exchange


class Trading:
    """One expiry of C1, 20 hours ahead; accounts 1 to 4 are rich."""

    def __init__(self) -> None:
        self.exchange = standard_exchange(4)
        send_message(self.exchange, series_message("C1", strikes=1))
        make_due(self.exchange)
        self.report()
        names = markets_of(self.exchange, 1)
        self.future, self.call, self.put = next(iter(names.values())), 0, 0
        for market in names.values():
            terms = terms_of(self.exchange, market)
            if terms.strike_uusd == INDEX:
                self.call = market if terms.kind == Kind.CALL else self.call
                self.put = market if terms.kind == Kind.PUT else self.put

    def report(self, index: int = INDEX) -> None:
        self.exchange.now_ms += 1_000
        self.exchange.send(full_update(self.exchange, {"C1": index}))

    def poor(self, dollars: int) -> int:
        return self.exchange.deposit(owner_address(9), dollars * USD)

    def trade(self, buyer: int, seller: int, market: int, price: int, size: int = COIN) -> None:
        self.exchange.place(seller, market, Side.SELL, price, size)
        self.exchange.place(buyer, market, Side.BUY, price, size)


def test_a_naked_short_needs_margin_and_a_long_its_price() -> None:
    market = Trading()
    exchange, poor = market.exchange, market.poor(60)
    refusal = must_reject_act(
        exchange,
        RejectCode.INSUFFICIENT_MARGIN,
        PlaceOrder,
        poor,
        order=order(market.call, Side.SELL, 20 * USD, COIN),
    )
    assert 100 * USD < int(refusal.data["needed_uusd"]) < 250 * USD
    exchange.place(poor, market.call, Side.BUY, 20 * USD, COIN)
    assert_conserved(exchange)


def test_imargin_001_a_hedge_may_be_placed_and_filled_below_initial_margin() -> None:
    """Short calls against which the index has moved: buying the perpetual requires less, selling it more."""
    market = Trading()
    exchange, poor = market.exchange, market.poor(215)
    market.trade(1, poor, market.call, 25 * USD)
    market.report(INDEX * 107 // 100)
    found = margin(exchange.view, poor)
    assert found is not None
    assert found.maintenance_uusd < found.equity_uusd < found.initial_uusd
    price = 1_070 * USD
    exchange.place(2, 1, Side.SELL, price, COIN)
    must_reject_act(
        exchange,
        RejectCode.INSUFFICIENT_MARGIN,
        PlaceOrder,
        poor,
        order=order(1, Side.SELL, price, COIN // 10),
    )
    must_reject_act(
        exchange,
        RejectCode.INSUFFICIENT_MARGIN,
        PlaceOrder,
        poor,
        order=order(market.call, Side.SELL, 90 * USD, COIN),
    )
    result = exchange.place(poor, 1, Side.BUY, price, COIN // 10)
    assert result.operations[0].filled_ulots == COIN // 10
    after = margin(exchange.view, poor)
    assert after is not None
    assert after.available_uusd > found.available_uusd
    # Taking the hedge off again, which brings that position closer to zero, requires more.
    exchange.place(2, 1, Side.BUY, price, COIN)
    assert after.available_uusd < 0
    must_reject_act(
        exchange,
        RejectCode.INSUFFICIENT_MARGIN,
        PlaceOrder,
        poor,
        order=order(1, Side.SELL, price, COIN // 10),
    )
    closing = order(1, Side.SELL, price, COIN // 10, reduce_only=True)
    assert exchange.act(PlaceOrder, poor, order=closing).operations[0].filled_ulots == 0, "iMARGIN_004"
    assert_conserved(exchange)


def test_closing_an_option_below_initial_margin() -> None:
    market = Trading()
    exchange, poor = market.exchange, market.poor(215)
    market.trade(1, poor, market.call, 25 * USD)
    market.report(INDEX * 107 // 100)
    exchange.place(2, market.call, Side.SELL, 75 * USD, COIN)
    result = exchange.place(poor, market.call, Side.BUY, 75 * USD, COIN)
    assert result.operations[0].filled_ulots == COIN
    assert_conserved(exchange)


def test_imargin_002_a_maker_of_options_that_cannot_carry_its_fill_is_removed() -> None:
    market = Trading()
    exchange, poor = market.exchange, market.poor(220)
    exchange.place(poor, market.call, Side.SELL, 25 * USD, COIN)
    market.report(INDEX * 110 // 100)
    result = exchange.place(1, market.call, Side.BUY, 100 * USD, COIN, OrderKind.IMMEDIATE_OR_CANCEL)
    assert result.operations[0].filled_ulots == 0
    assert exchange.account(poor).orders == 0


def test_stale_volatility_stops_who_depends_on_it() -> None:
    market = Trading()
    exchange = market.exchange
    market.trade(1, 2, market.call, 25 * USD)
    exchange.now_ms += exchange.parameters.oracle_max_age_ms + 1
    exchange.report({"C1": INDEX, "C1-PERPETUAL": INDEX})
    opening = order(1, Side.BUY, INDEX, COIN)
    must_reject_act(exchange, RejectCode.FORWARD_STALE, PlaceOrder, 1, order=opening)
    assert exchange.act(PlaceOrder, 3, order=opening).code == 0, "holds nothing of the expiry"
    closing = order(market.call, Side.SELL, 25 * USD, COIN, reduce_only=True)
    assert exchange.act(PlaceOrder, 1, order=closing).code == 0


def test_inside_the_window_only_the_open_part_moves() -> None:
    """The future's scenarios shrink with the share of its average that is open."""
    market = Trading()
    exchange, size = market.exchange, 10 * COIN
    alone: Book = {market.future: (size, -10 * INDEX, 0, 0)}
    before = requirement(exchange.view, 4, 0, alone)[1]
    expiry_ms = terms_of(exchange, market.future).expiry_s * 1_000
    for left_s in (1_860, 900):
        exchange.now_ms = expiry_ms - (left_s + 60) * 1_000
        while exchange.now_ms < expiry_ms - left_s * 1_000:
            market.report()
            exchange.now_ms += 29_000
    exchange.now_ms = expiry_ms - 900_000
    while exchange.now_ms < expiry_ms - 600_000:
        market.report()
        exchange.now_ms += 29_000
    pricing: Pricing = exchange.view.get(pricing_key(1))
    assert pricing.live_ppb < 10**9
    _, inside = requirement(exchange.view, 4, 0, alone)
    contingency = 10 * 40 * USD
    expected = (before - contingency) * pricing.live_ppb // 10**9 + contingency
    assert abs(inside - expected) <= USD // 100


def margin_payload(name: str = "C1", **changes: int) -> bytes:
    values = tuple((DEFAULTS_PPM | changes).values())
    scenarios = tuple((move, vol, 1_000_000) for move in REGULAR_MOVES_PPM for vol in (0, 1))
    return name.encode().ljust(31, b"\0") + MarginTerms(scenarios, values).encode()


def test_set_margin() -> None:
    exchange = standard_exchange(2, 2)
    exchange.place(1, 1, Side.BUY, 990 * USD, COIN)
    exchange.place(1, 2, Side.BUY, 1_990 * USD, COIN)
    before = margin(exchange.view, 1)
    message = L1Message(MessageKind.SET_MARGIN, VAULT, 0, margin_payload(im_perp=60_000))
    assert send_message(exchange, message).code == 0
    after = margin(exchange.view, 1)
    assert before is not None
    assert after is not None
    # The largest move is now 13.5 instead of 18 %, and the contingency 9 instead of 4 %; C2 is as before.
    assert abs(after.initial_uusd - before.initial_uusd - 5 * USD) <= 5
    again = L1Message(MessageKind.SET_MARGIN, VAULT, 0, margin_payload())
    assert send_message(exchange, again).code == 0


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        (RejectCode.MALFORMED_MESSAGE, b"C1"),
        (RejectCode.MALFORMED_MESSAGE, margin_payload()[:-1]),
        (RejectCode.MALFORMED_MESSAGE, margin_payload() + b"\0"),
        (RejectCode.BAD_PARAMETERS, margin_payload("C9")),
        (RejectCode.BAD_PARAMETERS, margin_payload("")),
        (RejectCode.BAD_PARAMETERS, margin_payload(im_factor=0)),
        (RejectCode.BAD_PARAMETERS, margin_payload(mm_factor=1_000_001)),
        (RejectCode.BAD_PARAMETERS, margin_payload(static_long=1_000_001)),
        (RejectCode.BAD_PARAMETERS, margin_payload(static_short=999_999)),
        (RejectCode.BAD_PARAMETERS, margin_payload(short_rate_add=-1)),
        (RejectCode.BAD_PARAMETERS, margin_payload(min_k_star=0)),
        (RejectCode.BAD_PARAMETERS, margin_payload(basis_up=999_999)),
    ],
)
def test_set_margin_must_reject(code: RejectCode, payload: bytes) -> None:
    exchange = standard_exchange(1)
    leaves = exchange.leaves()
    result = send_message(exchange, L1Message(MessageKind.SET_MARGIN, VAULT, 0, payload))
    assert result.code == code
    assert {key for key, value in exchange.leaves().items() if leaves.get(key) != value} == {bytes(32)}


def test_margin_terms_of_the_defaults_are_the_defaults() -> None:
    scenarios = tuple(
        (round(each.spot * 10**6 / 2**56), int(each.vol), round(each.damp * 10**6 / 2**56))
        for each in default_parameters().scenarios
    )
    terms = MarginTerms(scenarios, tuple(DEFAULTS_PPM.values()))
    check_margin_terms(terms)
    assert parameters_of(terms) == default_parameters()
    assert MarginTerms.decode(terms.encode()).encode() == terms.encode()
    expiries = [make_expiry(expiry_market(Pricing(forward_uusd=1, tau_s=1), 9), GRID)]
    assert all(each.long_factor <= each.short_factor for each in expiries), "iMARGIN_021"


def test_a_lost_peg_raises_initial_margin() -> None:
    exchange = standard_exchange(2)
    payload = b"\x00" + b"STABLE".ljust(31, b"\0") + bytes(8)
    assert send_message(exchange, L1Message(MessageKind.SET_FEED, VAULT, 0, payload)).code == 0
    exchange.place(1, 1, Side.BUY, 990 * USD, COIN)
    before = margin(exchange.view, 1)
    exchange.now_ms += 1_000
    exchange.report({"STABLE": 940_000, "C1": INDEX, "C1-PERPETUAL": INDEX})
    after = margin(exchange.view, 1)
    assert before is not None
    assert after is not None
    # The worst loss of 180 counts (0.99 - 0.94) * 4 more.
    assert abs(after.initial_uusd - before.initial_uusd - 36 * USD) <= 3
    assert after.maintenance_uusd == before.maintenance_uusd
    exchange.now_ms += exchange.parameters.oracle_max_age_ms + 1
    exchange.report({"C1": INDEX, "C1-PERPETUAL": INDEX})
    must_reject_act(
        exchange, RejectCode.STABLE_STALE, PlaceOrder, 1, order=order(1, Side.BUY, 990 * USD, COIN)
    )


def test_doubted_prices_raise_initial_margin() -> None:
    exchange = standard_exchange(2)
    exchange.place(1, 1, Side.BUY, 990 * USD, COIN)
    before = margin(exchange.view, 1)
    index = exchange.view.get(b"\x07" + b"C1".ljust(31, b"\0"))
    index.confidence_ppm = 400_000
    after = margin(exchange.view, 1)
    assert before is not None
    assert after is not None
    assert abs(after.initial_uusd - before.initial_uusd - 600 * USD) <= 2
    assert after.maintenance_uusd == before.maintenance_uusd


def test_a_position_that_settles_counts_as_its_pay_off() -> None:
    market = Trading()
    exchange = market.exchange
    market.trade(1, 2, market.call, 25 * USD, 3 * COIN)
    terms, state = terms_of(exchange, market.call), exchange.market(market.call)
    terms.status, state.mark_uusd = 4, 40 * USD
    account: Account = exchange.view.get(account_key(1))
    position: Position = exchange.view.get(position_key(1, market.call))
    equity, initial = requirement(exchange.view, 1, account.cash_uusd, NO_CHANGES)
    assert (equity, initial) == (account.cash_uusd + position.quote_uusd + 120 * USD, 0)
