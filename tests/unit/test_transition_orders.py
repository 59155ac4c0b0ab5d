"""Placing, matching, cancelling, replacing. iBOOK_*, iMARGIN_*, iORDER_*."""

from __future__ import annotations

from typing import Any

import pytest

from state.actions import (
    BulkOrders,
    Cancel,
    CancelAll,
    CancelOrder,
    Order,
    OrderKind,
    PlaceOrder,
    Replacement,
    ReplaceOrder,
    SelfTrade,
    Side,
)
from state.block import L1Message, MessageKind, OrderEnd
from state.errors import RejectCode
from state.keys import instrument_key, order_book_prefix, parse_order_key
from state.leaves import Instrument
from state.margin import Margin, margin
from state.units import MAX_FILL_OR_KILL_MAKERS, MAX_MAKERS_PER_ORDER
from tests.exchange_checks import assert_conserved, ending, free_of_risk_fees, must_reject_act
from tools.exchange import COIN, USD, VAULT, Exchange, owner_address, standard_exchange

BUY, SELL = Side.BUY, Side.SELL
LIMIT, POST_ONLY, IOC, FOK, MARKET = OrderKind
FILLED, IMMEDIATE = OrderEnd.FILLED, OrderEnd.IMMEDIATE
PRICE = 1_000 * USD


@pytest.fixture
def exchange() -> Exchange:
    return standard_exchange(4)


def book(exchange: Exchange, side: Side) -> list[tuple[int, int, int]]:
    """(price, open size, account), best first."""
    found = exchange.view.iterate_under(order_book_prefix(1, side), 1_000)
    return [(parse_order_key(key)[2], order.size_ulots, order.account) for key, order in found]


def must_reject_order(
    exchange: Exchange, code: RejectCode, *terms: Any, account: int = 1, **more: Any
) -> None:
    must_reject_act(exchange, code, PlaceOrder, account, order=Order(1, *terms, **more))


def margin_of(exchange: Exchange, account: int) -> Margin:
    found = margin(exchange.view, account)
    assert found is not None
    return found


# iBOOK_001: best price first, then first come; every fill at the resting order's price.


def test_ibook_001_price_then_time(exchange: Exchange) -> None:
    exchange.place(1, 1, SELL, PRICE + USD, COIN)
    exchange.place(2, 1, SELL, PRICE, COIN)
    exchange.place(1, 1, SELL, PRICE, COIN)
    result = exchange.place(3, 1, BUY, PRICE + 5 * USD, 3 * COIN)
    trades = exchange.results[-1].trades
    assert [(trade.maker_account, trade.price_uusd) for trade in trades] == [
        (2, PRICE),
        (1, PRICE),
        (1, PRICE + USD),
    ]
    assert result.trades == (1, 4)
    assert book(exchange, SELL) == book(exchange, BUY) == []
    assert_conserved(exchange)


def test_ibook_001_bids_best_first(exchange: Exchange) -> None:
    for account, dollars in ((1, 998), (2, 999), (1, 997)):
        exchange.place(account, 1, BUY, dollars * USD, COIN)
    assert [price for price, _, _ in book(exchange, BUY)] == [999 * USD, 998 * USD, 997 * USD]
    exchange.place(3, 1, SELL, 998 * USD, 2 * COIN)
    assert book(exchange, BUY) == [(997 * USD, COIN, 1)]


def test_ibook_002_the_book_is_never_crossed(exchange: Exchange) -> None:
    exchange.place(1, 1, SELL, PRICE, COIN)
    assert ending(lambda: exchange.place(2, 1, BUY, PRICE, 3 * COIN)) == (COIN, 2 * COIN, 0, OrderEnd.OPEN)
    assert book(exchange, BUY) == [(PRICE, 2 * COIN, 2)]
    assert book(exchange, SELL) == []


# Kinds


def test_kinds_that_do_not_rest(exchange: Exchange) -> None:
    exchange.place(1, 1, SELL, PRICE, COIN)
    assert ending(lambda: exchange.place(2, 1, BUY, PRICE - USD, COIN, IOC)) == (0, 0, COIN, IMMEDIATE)
    assert ending(lambda: exchange.place(2, 1, BUY, PRICE, 3 * COIN, MARKET)) == (
        COIN,
        0,
        2 * COIN,
        IMMEDIATE,
    )
    assert book(exchange, BUY) == []


def test_post_only(exchange: Exchange) -> None:
    exchange.place(1, 1, SELL, PRICE, COIN)
    must_reject_order(exchange, RejectCode.POST_ONLY_CROSSES, BUY, POST_ONLY, PRICE, COIN)
    outcome = ending(lambda: exchange.place(2, 1, BUY, PRICE - 10_000, COIN, POST_ONLY))
    assert outcome == (0, COIN, 0, OrderEnd.OPEN)


def test_post_only_does_not_mind_expired_orders(exchange: Exchange) -> None:
    exchange.place(1, 1, SELL, PRICE, COIN, expiry_s=exchange.now_ms // 1_000 + 1)
    exchange.now_ms += 1_000
    assert ending(lambda: exchange.place(2, 1, BUY, PRICE, COIN, POST_ONLY))[1] == COIN


def test_fill_or_kill(exchange: Exchange) -> None:
    exchange.place(1, 1, SELL, PRICE, COIN)
    exchange.place(2, 1, SELL, PRICE + USD, COIN)
    must_reject_order(exchange, RejectCode.FILL_OR_KILL_UNFILLED, BUY, FOK, PRICE, 2 * COIN, account=3)
    must_reject_order(exchange, RejectCode.FILL_OR_KILL_UNFILLED, BUY, FOK, PRICE - USD, COIN, account=3)
    outcome = ending(lambda: exchange.place(3, 1, BUY, PRICE + USD, 2 * COIN, FOK))
    assert outcome == (2 * COIN, 0, 0, FILLED)
    assert_conserved(exchange)


def test_fill_or_kill_counts_makers_that_cannot_pay() -> None:
    # The poor maker can carry one of its two orders: judged one by one both would count.
    exchange = standard_exchange(3)
    poor = exchange.deposit(owner_address(9), 450 * USD)
    for _ in range(2):
        exchange.place(poor, 1, SELL, PRICE, COIN)
    exchange.now_ms += 1_000
    exchange.report({"C1": PRICE * 11 // 10, "C1-PERPETUAL": PRICE * 11 // 10})
    must_reject_order(exchange, RejectCode.FILL_OR_KILL_UNFILLED, BUY, FOK, PRICE, 2 * COIN)
    assert ending(lambda: exchange.place(1, 1, BUY, PRICE, COIN, FOK)) == (COIN, 0, 0, FILLED)


def test_fill_or_kill_meets_a_bounded_number_of_makers(exchange: Exchange) -> None:
    for _ in range(MAX_FILL_OR_KILL_MAKERS + 1):
        exchange.place(1, 1, SELL, PRICE, COIN)
    many = MAX_FILL_OR_KILL_MAKERS * COIN
    must_reject_order(exchange, RejectCode.FILL_OR_KILL_UNFILLED, BUY, FOK, PRICE, many + COIN, account=2)
    assert ending(lambda: exchange.place(2, 1, BUY, PRICE, many, FOK)) == (many, 0, 0, FILLED)


def test_one_order_meets_a_bounded_number_of_makers(exchange: Exchange) -> None:
    for _ in range(MAX_MAKERS_PER_ORDER + 1):
        exchange.place(1, 1, SELL, PRICE, COIN)
    most = MAX_MAKERS_PER_ORDER * COIN
    outcome = ending(lambda: exchange.place(2, 1, BUY, PRICE, most + 5 * COIN))
    assert outcome == (most, 0, 5 * COIN, OrderEnd.MATCH_LIMIT)
    assert len(book(exchange, SELL)) == 1


# Terms


@pytest.mark.parametrize(
    ("code", "price", "size"),
    [
        (RejectCode.SIZE_ZERO, PRICE, 0),
        (RejectCode.SIZE_TOO_SMALL, PRICE, 100),
        (RejectCode.SIZE_TOO_LARGE, PRICE, 1_001 * COIN),
        (RejectCode.PRICE_OUT_OF_BAND, 0, COIN),
        (RejectCode.PRICE_OUT_OF_BAND, 799 * USD, COIN),
        (RejectCode.PRICE_OUT_OF_BAND, 1_201 * USD, COIN),
    ],
)
def test_terms_that_the_instrument_refuses(code: RejectCode, price: int, size: int) -> None:
    exchange = standard_exchange(1, min_size_ulots=200)
    must_reject_order(exchange, code, BUY, LIMIT, price, size)


def test_order_that_has_expired(exchange: Exchange) -> None:
    now_s = exchange.now_ms // 1_000
    must_reject_order(exchange, RejectCode.ORDER_EXPIRED, BUY, LIMIT, PRICE, COIN, expiry_s=now_s)
    assert ending(lambda: exchange.place(1, 1, BUY, PRICE, COIN, IOC, expiry_s=now_s))[3] == IMMEDIATE


def test_expired_maker_is_removed_not_filled(exchange: Exchange) -> None:
    exchange.place(1, 1, SELL, PRICE, COIN, expiry_s=exchange.now_ms // 1_000 + 1)
    exchange.place(2, 1, SELL, PRICE, COIN)
    exchange.now_ms += 1_000
    exchange.place(3, 1, BUY, PRICE, COIN)
    assert exchange.account(1).orders == 0
    assert [trade.maker_account for trade in exchange.results[-1].trades] == [2]
    assert [(event.account, event.end) for event in exchange.results[-1].orders] == [
        (1, OrderEnd.EXPIRED),
        (2, FILLED),
    ]


@pytest.mark.parametrize("status", [0, 2, 3])
def test_instrument_that_does_not_trade(exchange: Exchange, status: int) -> None:
    exchange.place(1, 1, BUY, PRICE, COIN)
    exchange.place(2, 1, SELL, PRICE, COIN)
    terms: Instrument = exchange.view.get(instrument_key(1))
    changed = Instrument.decode(terms.encode())
    changed.status = status
    payload = b"\0\0\0\1" + changed.encode()
    exchange.messages(L1Message(MessageKind.SET_INSTRUMENT, VAULT, 0, payload))
    must_reject_order(exchange, RejectCode.INSTRUMENT_NOT_TRADING, BUY, LIMIT, PRICE, COIN)
    reducing = Order(1, SELL, LIMIT, PRICE, COIN, True)
    if status == 2:
        assert exchange.act(PlaceOrder, 1, order=reducing).code == 0
    else:
        must_reject_act(exchange, RejectCode.INSTRUMENT_NOT_TRADING, PlaceOrder, 1, order=reducing)


def test_limits_of_an_account() -> None:
    exchange = standard_exchange(1, 3)
    parameters = exchange.parameters
    changed = type(parameters).decode(parameters.encode())
    changed.max_orders, changed.max_positions = 3, 2
    exchange.messages(L1Message(MessageKind.SET_PARAMETERS, VAULT, 0, changed.encode()))
    first = exchange.place(1, 1, BUY, 900 * USD, COIN).operations[0].order_id
    exchange.place(1, 2, BUY, 1_900 * USD, COIN)
    refused = Order(3, BUY, LIMIT, 2_900 * USD, COIN)
    must_reject_act(exchange, RejectCode.TOO_MANY_POSITIONS, PlaceOrder, 1, order=refused)
    exchange.place(1, 1, BUY, 900 * USD, COIN)
    must_reject_order(exchange, RejectCode.TOO_MANY_ORDERS, BUY, LIMIT, 900 * USD, COIN)
    assert exchange.place(1, 1, BUY, 900 * USD, COIN, IOC).code == 0, "does not rest"
    replacement = Replacement(1, first, 901 * USD, COIN)
    assert exchange.act(ReplaceOrder, 1, replacement=replacement).code == 0, "one for one"


def test_notional_is_bounded() -> None:
    exchange = standard_exchange(1, max_size_ulots=10**15)
    free_of_risk_fees(exchange)
    must_reject_order(exchange, RejectCode.NOTIONAL_TOO_LARGE, BUY, LIMIT, PRICE, 10**14 + 10**8)


# Self-trade


@pytest.mark.parametrize(
    ("own", "taken", "mode", "outcome", "left"),
    [
        (2, 3, SelfTrade.CANCEL_MAKER, (COIN, 2 * COIN, 0, OrderEnd.OPEN), 0),
        (2, 1, SelfTrade.CANCEL_MAKER, (COIN, 0, 0, FILLED), 0),
        (2, 3, SelfTrade.CANCEL_TAKER, (0, 0, 3 * COIN, OrderEnd.SELF_TRADE), 2),
        (2, 3, SelfTrade.DECREMENT_BOTH, (COIN, 0, 0, FILLED), 0),
        (3, 2, SelfTrade.DECREMENT_BOTH, (0, 0, 0, OrderEnd.SELF_TRADE), 1),
        (2, 2, SelfTrade.DECREMENT_BOTH, (0, 0, 0, OrderEnd.SELF_TRADE), 0),
    ],
)
def test_ibook_003_no_owner_trades_with_itself(
    exchange: Exchange,
    own: int,
    taken: int,
    mode: SelfTrade,
    outcome: tuple[int, int, int, int],
    left: int,
) -> None:
    second = exchange.deposit(owner_address(1), 1_000_000 * USD)
    exchange.place(1, 1, SELL, PRICE, own * COIN)
    exchange.place(2, 1, SELL, PRICE, COIN)
    result = ending(lambda: exchange.place(second, 1, BUY, PRICE, taken * COIN, self_trade=mode))
    assert result == outcome
    assert sum(size for _, size, account in book(exchange, SELL) if account == 1) == left * COIN
    if left:
        position = exchange.position(1, 1)
        assert position is not None
        assert position.open_sell_ulots == left * COIN


# Reduce-only


def opened(exchange: Exchange, size: int = 2 * COIN) -> None:
    """Account 1 is long, account 2 short."""
    exchange.place(2, 1, SELL, PRICE, size)
    exchange.place(1, 1, BUY, PRICE, size)


def test_reduce_only_must_reduce(exchange: Exchange) -> None:
    must_reject_order(exchange, RejectCode.REDUCE_ONLY_INCREASES, SELL, LIMIT, PRICE, COIN, reduce_only=True)
    opened(exchange)
    must_reject_order(exchange, RejectCode.REDUCE_ONLY_INCREASES, BUY, LIMIT, PRICE, COIN, reduce_only=True)


def test_iorder_002_reduce_only_stops_at_zero(exchange: Exchange) -> None:
    opened(exchange)
    exchange.place(3, 1, BUY, PRICE, 9 * COIN)
    outcome = ending(lambda: exchange.place(1, 1, SELL, PRICE, 5 * COIN, reduce_only=True))
    assert outcome == (2 * COIN, 0, 3 * COIN, OrderEnd.REDUCE_ONLY)
    assert exchange.position(1, 1) is None


def test_iorder_002_resting_reduce_only_stops_at_zero(exchange: Exchange) -> None:
    opened(exchange)
    exchange.place(1, 1, SELL, PRICE, 5 * COIN, reduce_only=True)
    position = exchange.position(1, 1)
    assert position is not None
    assert (position.open_sell_ulots, position.orders) == (0, 1), "it can add no exposure"
    outcome = ending(lambda: exchange.place(3, 1, BUY, PRICE, 5 * COIN))
    assert outcome == (2 * COIN, 3 * COIN, 0, OrderEnd.OPEN)
    assert exchange.position(1, 1) is None
    assert exchange.account(1).orders == exchange.account(1).positions == 0


# iMARGIN_*


def test_imargin_001_placement_needs_initial_margin_for_the_largest_exposure(exchange: Exchange) -> None:
    account = exchange.deposit(owner_address(9), 221 * USD)
    refusal = must_reject_act(
        exchange,
        RejectCode.INSUFFICIENT_MARGIN,
        PlaceOrder,
        account,
        order=Order(1, BUY, LIMIT, PRICE, COIN + 10_000),
    )
    assert 0 <= int(refusal.data["needed_uusd"]) - 222_200_000 <= 3
    assert 220 * USD < int(refusal.data["available_uusd"]) < 221 * USD
    exchange.place(account, 1, BUY, 900 * USD, COIN)
    assert 0 <= margin_of(exchange, account).initial_uusd - 220 * USD <= 3
    before = margin_of(exchange, account).initial_uusd
    more = exchange.deposit(owner_address(9), 10_000, account)
    exchange.place(more, 1, SELL, 1_100 * USD, COIN)
    assert margin_of(exchange, account).initial_uusd == before, "the other side is covered by the first"


def test_imargin_002_maker_that_cannot_carry_its_order_is_removed(exchange: Exchange) -> None:
    poor = exchange.deposit(owner_address(9), 221 * USD)
    exchange.place(poor, 1, SELL, PRICE, COIN)
    exchange.now_ms += 1_000
    exchange.report({"C1": PRICE * 11 // 10, "C1-PERPETUAL": PRICE * 11 // 10})
    outcome = ending(lambda: exchange.place(1, 1, BUY, PRICE, COIN, IOC))
    assert outcome == (0, 0, COIN, IMMEDIATE)
    assert exchange.results[-1].orders[0].end == OrderEnd.MARGIN
    assert exchange.account(poor).orders == 0
    assert exchange.position(poor, 1) is None


def test_imargin_003_taker_stops_where_its_margin_ends(exchange: Exchange) -> None:
    # The mark is 1000; buying at 1100 loses a tenth at once.
    exchange.place(1, 1, SELL, 1_100 * USD, COIN)
    poor = exchange.deposit(owner_address(9), 230 * USD)
    outcome = ending(lambda: exchange.place(poor, 1, BUY, 1_100 * USD, COIN))
    assert outcome == (0, 0, COIN, OrderEnd.MARGIN)
    assert len(book(exchange, SELL)) == 1, "the maker did nothing wrong"


def test_imargin_003_rest_of_a_taker_is_checked_again(exchange: Exchange) -> None:
    exchange.place(1, 1, SELL, 1_100 * USD, COIN)
    poor = exchange.deposit(owner_address(9), 450 * USD)
    outcome = ending(lambda: exchange.place(poor, 1, BUY, 1_100 * USD, 2 * COIN))
    assert outcome == (COIN, 0, COIN, OrderEnd.MARGIN)


def test_imargin_004_reducing_is_allowed_below_initial_margin(exchange: Exchange) -> None:
    poor = exchange.deposit(owner_address(9), 230 * USD)
    exchange.place(1, 1, SELL, PRICE, COIN)
    exchange.place(poor, 1, BUY, PRICE, COIN)
    exchange.now_ms += 1_000
    exchange.report({"C1": PRICE * 85 // 100, "C1-PERPETUAL": PRICE * 85 // 100})
    state = margin_of(exchange, poor)
    assert 0 < state.equity_uusd < state.maintenance_uusd
    exchange.place(2, 1, BUY, 850 * USD, COIN)
    must_reject_order(exchange, RejectCode.INSUFFICIENT_MARGIN, BUY, LIMIT, 850 * USD, COIN, account=poor)
    must_reject_order(
        exchange, RejectCode.INSUFFICIENT_MARGIN, SELL, LIMIT, 850 * USD, 3 * COIN, account=poor
    )
    outcome = ending(lambda: exchange.place(poor, 1, SELL, 850 * USD, 2 * COIN))
    assert outcome == (COIN, 0, COIN, OrderEnd.MARGIN), "closes, and may not go short"
    assert exchange.position(poor, 1) is None
    assert_conserved(exchange)


def test_imargin_004_reducing_must_not_worsen_an_account_below_maintenance() -> None:
    exchange = standard_exchange(4, band_ppm=500_000)
    poor = exchange.deposit(owner_address(9), 230 * USD)
    exchange.place(1, 1, SELL, PRICE, COIN)
    exchange.place(poor, 1, BUY, PRICE, COIN)
    exchange.now_ms += 1_000
    exchange.report({"C1": PRICE * 85 // 100, "C1-PERPETUAL": PRICE * 85 // 100})
    exchange.place(2, 1, BUY, 600 * USD, COIN)
    outcome = ending(lambda: exchange.place(poor, 1, SELL, 600 * USD, COIN))
    assert outcome == (0, 0, COIN, OrderEnd.MARGIN), "250 lost against 148 of maintenance margin freed"


def test_stale_prices_stop_what_increases_risk_only(exchange: Exchange) -> None:
    opened(exchange)
    order_id = exchange.place(1, 1, BUY, 900 * USD, COIN).operations[0].order_id
    exchange.now_ms += exchange.parameters.oracle_max_age_ms + 1
    must_reject_order(exchange, RejectCode.ORACLE_STALE, BUY, LIMIT, PRICE, COIN)
    must_reject_order(exchange, RejectCode.ORACLE_STALE, SELL, LIMIT, PRICE, 9 * COIN)
    assert exchange.place(1, 1, SELL, PRICE, COIN).code == 0
    assert exchange.place(1, 1, SELL, PRICE, COIN, reduce_only=True).code == 0
    assert exchange.cancel(1, 1, order_id).code == 0


def test_index_must_be_fresh_too(exchange: Exchange) -> None:
    exchange.now_ms += exchange.parameters.oracle_max_age_ms + 1
    exchange.report({"C1-PERPETUAL": PRICE})
    must_reject_order(exchange, RejectCode.ORACLE_STALE, BUY, LIMIT, PRICE, COIN)
    exchange.report({"C1": PRICE})
    assert exchange.place(1, 1, BUY, PRICE, COIN).code == 0


# Cancel, replace, bulk


def test_cancel(exchange: Exchange) -> None:
    order_id = exchange.place(1, 1, BUY, PRICE, COIN).operations[0].order_id
    must_reject_act(exchange, RejectCode.UNKNOWN_ORDER, CancelOrder, 2, cancel=Cancel(1, order_id))
    must_reject_act(exchange, RejectCode.UNKNOWN_ORDER, CancelOrder, 1, cancel=Cancel(9, order_id))
    assert ending(lambda: exchange.cancel(1, 1, order_id)) == (0, 0, COIN, OrderEnd.CANCELLED)
    must_reject_act(exchange, RejectCode.UNKNOWN_ORDER, CancelOrder, 1, cancel=Cancel(1, order_id))
    assert exchange.position(1, 1) is None
    assert exchange.account(1).positions == 0


def test_cancel_all() -> None:
    exchange = standard_exchange(2, 2)
    for market in (1, 2):
        for _ in range(20):
            exchange.place(1, market, BUY, market * 900 * USD, COIN)
    exchange.place(2, 1, BUY, 900 * USD, COIN)
    exchange.act(CancelAll, 1, market=2)
    assert exchange.account(1).orders == 20
    assert sum(each.cancelled_ulots for each in exchange.act(CancelAll, 1).operations) == 20 * COIN
    assert exchange.account(1).orders == exchange.account(1).positions == 0
    assert exchange.account(2).orders == 1
    must_reject_act(exchange, RejectCode.UNKNOWN_INSTRUMENT, CancelAll, 1, market=3)


def test_iorder_003_replace_keeps_priority_only_when_shrinking(exchange: Exchange) -> None:
    first = exchange.place(1, 1, BUY, PRICE, 3 * COIN).operations[0].order_id
    exchange.place(2, 1, BUY, PRICE, COIN)

    def replace(price: int, size: int) -> tuple[int, int, int, int]:
        replacement = Replacement(1, first, price, size)
        return ending(lambda: exchange.act(ReplaceOrder, 1, replacement=replacement))

    assert replace(PRICE, 2 * COIN) == (0, 2 * COIN, COIN, OrderEnd.OPEN)
    assert [account for _, _, account in book(exchange, BUY)] == [1, 2]
    assert replace(PRICE, 3 * COIN)[1] == 3 * COIN
    assert [account for _, _, account in book(exchange, BUY)] == [2, 1]
    assert replace(PRICE + USD, COIN)[1] == COIN
    assert book(exchange, BUY)[0] == (PRICE + USD, COIN, 1)
    assert exchange.cancel(1, 1, first).code == 0, "the id stays"


def test_replace_counts_what_was_filled(exchange: Exchange) -> None:
    order_id = exchange.place(1, 1, BUY, PRICE, 3 * COIN).operations[0].order_id
    exchange.place(2, 1, SELL, PRICE, COIN)
    exchange.act(ReplaceOrder, 1, replacement=Replacement(1, order_id, PRICE - USD, 4 * COIN))
    assert book(exchange, BUY) == [(PRICE - USD, 3 * COIN, 1)]
    outcome = ending(
        lambda: exchange.act(ReplaceOrder, 1, replacement=Replacement(1, order_id, PRICE - USD, COIN))
    )
    assert outcome == (0, 0, 3 * COIN, OrderEnd.CANCELLED)
    assert book(exchange, BUY) == []


def test_replacement_may_match(exchange: Exchange) -> None:
    order_id = exchange.place(1, 1, BUY, PRICE - USD, 3 * COIN).operations[0].order_id
    exchange.place(2, 1, SELL, PRICE, COIN)
    outcome = ending(
        lambda: exchange.act(ReplaceOrder, 1, replacement=Replacement(1, order_id, PRICE, 3 * COIN))
    )
    assert outcome == (COIN, 2 * COIN, 0, OrderEnd.OPEN)


def test_failing_replacement_leaves_the_old_order(exchange: Exchange) -> None:
    order_id = exchange.place(1, 1, BUY, PRICE, COIN).operations[0].order_id
    for code, price, size in (
        (RejectCode.PRICE_OUT_OF_BAND, 1_300 * USD, COIN),
        (RejectCode.NOTIONAL_TOO_LARGE, PRICE, 10**15),
        (RejectCode.PRICE_OFF_TICK, PRICE + 1, COIN),
    ):
        if code is RejectCode.NOTIONAL_TOO_LARGE:
            code = RejectCode.SIZE_TOO_LARGE
        must_reject_act(exchange, code, ReplaceOrder, 1, replacement=Replacement(1, order_id, price, size))
    must_reject_act(
        exchange, RejectCode.UNKNOWN_ORDER, ReplaceOrder, 1, replacement=Replacement(1, 77, PRICE, COIN)
    )
    assert book(exchange, BUY) == [(PRICE, COIN, 1)]


def test_replacement_margin_counts_without_the_old_order(exchange: Exchange) -> None:
    account = exchange.deposit(owner_address(9), 221 * USD)
    order_id = exchange.place(account, 1, BUY, 900 * USD, COIN).operations[0].order_id
    replacement = Replacement(1, order_id, 901 * USD, COIN)
    assert exchange.act(ReplaceOrder, account, replacement=replacement).code == 0
    larger = Replacement(1, order_id, 901 * USD, 2 * COIN)
    must_reject_act(exchange, RejectCode.INSUFFICIENT_MARGIN, ReplaceOrder, account, replacement=larger)


def test_bulk_gives_each_operation_its_own_result(exchange: Exchange) -> None:
    old = exchange.place(1, 1, BUY, 900 * USD, COIN).operations[0].order_id
    other = exchange.place(1, 1, BUY, 901 * USD, COIN).operations[0].order_id
    exchange.place(2, 1, SELL, PRICE, COIN)
    nonce = exchange.nonces[1]
    result = exchange.act(
        BulkOrders,
        1,
        cancels=(Cancel(1, old), Cancel(1, old)),
        replacements=(Replacement(1, other, 902 * USD, COIN), Replacement(1, 77, PRICE, COIN)),
        orders=(
            Order(1, BUY, LIMIT, PRICE, 3 * COIN),
            Order(1, BUY, LIMIT, 1_300 * USD, COIN),
            Order(1, BUY, FOK, PRICE, COIN),
            Order(1, BUY, LIMIT, 903 * USD, COIN),
        ),
    )
    assert [each.code for each in result.operations] == [
        0,
        RejectCode.UNKNOWN_ORDER,
        0,
        RejectCode.UNKNOWN_ORDER,
        0,
        RejectCode.PRICE_OUT_OF_BAND,
        RejectCode.FILL_OR_KILL_UNFILLED,
        0,
    ]
    ids = [each.order_id for each in result.operations]
    assert ids == [old, old, other, 77, *(nonce * 64 + place for place in range(4))]
    assert result.operations[4].filled_ulots == COIN
    assert result.operations[4].resting_ulots == 2 * COIN
    assert exchange.account(1).orders == 3
    assert_conserved(exchange)
