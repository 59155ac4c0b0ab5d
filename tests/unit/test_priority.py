"""Places in a block: what bids pay, when, and to whom (iAUCTION_BID_001 to 006)."""

from __future__ import annotations

from typing import Any

import pytest

from state.actions import (
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    Order,
    OrderKind,
    PlaceOrder,
    Side,
    Transfer,
)
from state.block import L1Message, MessageKind
from state.errors import RejectCode, Rejected
from state.keys import PRIORITY_KEY
from state.leaves import PriorityTerms
from state.priority import market_of
from state.transition import simulate
from tests.exchange_checks import assert_conserved, must_reject
from tools.exchange import COIN, USD, VAULT, Exchange, owner_address, standard_exchange

FAR = Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN)
POST = Order(1, Side.BUY, OrderKind.POST_ONLY, 900 * USD, COIN)
ELSEWHERE = Order(2, Side.BUY, OrderKind.LIMIT, 1_900 * USD, COIN)


@pytest.fixture
def exchange() -> Exchange:
    return standard_exchange(traders=6, markets=2)


def place(account: int, bid: int = 0, order: Order = FAR, **fields: Any) -> tuple[type[PlaceOrder], int, Any]:
    return PlaceOrder, account, {"order": order, "priority_bid_uusd": bid, **fields}


def block(exchange: Exchange, *sent: tuple[type[Any], int, Any]) -> list[tuple[int, int]]:
    """(fee, price of its place) of transactions in one block; money is conserved after it."""
    with exchange.block() as execution:
        for kind, account, fields in sent:
            execution.execute(exchange.sign(kind(**(exchange.envelope(account) | fields))))
    assert_conserved(exchange)
    return [(each.fee_uusd, each.priority_uusd) for each in exchange.results[-1].results]


def prices(exchange: Exchange, *sent: tuple[type[Any], int, Any]) -> list[int]:
    return [price for _, price in block(exchange, *sent)]


def cash(exchange: Exchange) -> list[int]:
    return [exchange.account(number).cash_uusd for number in range(1, 7)]


def pots(exchange: Exchange) -> tuple[int, int, int, int]:
    """(insurance, operator's fees, pot of market 1, pot of market 2)."""
    first, second = (exchange.market(number).priority_pot_uusd for number in (1, 2))
    return exchange.system.insurance_uusd, exchange.system.fees_uusd, first, second


def set_terms(exchange: Exchange, *terms: int) -> int:
    message = L1Message(MessageKind.SET_PRIORITY, VAULT, 0, PriorityTerms(*terms).encode())
    return exchange.messages(message).messages[0].code


# What is paid


def test_each_pays_the_next_bid_and_the_last_nothing(exchange: Exchange) -> None:
    """iAUCTION_BID_002, and what was paid is all that left the accounts beside fees."""
    before = cash(exchange)
    paid = block(exchange, place(1, 900), place(2, 500), place(3, 500), place(4, 20), place(5))
    assert [price for _, price in paid] == [500, 500, 20, 0, 0]
    after = cash(exchange)
    assert [old - new for old, new in zip(before, after, strict=True)] == [*map(sum, paid), 0]


def test_a_bid_alone_pays_nothing(exchange: Exchange) -> None:
    before = cash(exchange)
    ((fee, price),) = block(exchange, place(1, 10_000))
    assert price == 0
    assert before[0] - cash(exchange)[0] == fee


def test_classes_are_auctions_of_their_own(exchange: Exchange) -> None:
    cancels = [(CancelAll, account, {"priority_bid_uusd": bid}) for account, bid in ((1, 70), (2, 60))]
    post_only = [place(3, 500, POST), place(4, 50, POST)]
    assert prices(exchange, *cancels, *post_only, place(5, 9_000), place(6, 8)) == [60, 0, 50, 0, 8, 0]


def test_blocks_are_auctions_of_their_own(exchange: Exchange) -> None:
    assert prices(exchange, place(1, 500)) == [0]
    assert prices(exchange, place(2, 400)) == [0]


@pytest.mark.parametrize("order", [FAR, POST])
def test_in_each_class_a_higher_bid_may_not_follow(exchange: Exchange, order: Order) -> None:
    """iORDER_001."""
    with exchange.block() as execution:
        execution.execute(exchange.sign(PlaceOrder(**exchange.envelope(1), order=order, priority_bid_uusd=5)))
        late = PlaceOrder(**exchange.envelope(2), order=order, priority_bid_uusd=6)
        with pytest.raises(Rejected) as refusal:
            execution.execute(exchange.sign(late))
    assert refusal.value.code is RejectCode.OUT_OF_ORDER
    assert exchange.results[-1].results[0].priority_uusd == 0, "whoever stands out of order sets no price"


def test_a_higher_bid_may_not_follow_among_cancels(exchange: Exchange) -> None:
    with exchange.block() as execution:
        execution.execute(exchange.sign(CancelAll(**exchange.envelope(1))))
        late = CancelAllAfter(**exchange.envelope(2), timeout_s=5, priority_bid_uusd=1)
        with pytest.raises(Rejected, match="OUT_OF_ORDER"):
            execution.execute(exchange.sign(late))


def test_whoever_is_refused_sets_no_price_and_changes_nothing(exchange: Exchange) -> None:
    """A bid is held while others are refused: also the account's own next, also in a replay."""
    with exchange.block() as execution:
        execution.execute(exchange.sign(PlaceOrder(**exchange.envelope(1), order=FAR, priority_bid_uusd=900)))
        for account in (1, 2):
            bad = PlaceOrder(**exchange.envelope(account), order=FAR, priority_bid_uusd=800)
            bad = PlaceOrder(**{**bad_fields(bad), "deadline_s": 0})
            transaction = exchange.sign(bad)
            before = exchange.leaves()
            progress = execution.progress.encode()
            with pytest.raises(Rejected) as refusal:
                execution.execute(transaction)
            assert exchange.leaves() == before
            assert execution.progress.encode() == progress
            execution.refuse(transaction, b"its bytes", refusal.value)
        execution.execute(exchange.sign(PlaceOrder(**exchange.envelope(3), order=FAR, priority_bid_uusd=7)))
    results = exchange.results[-1].results
    assert [each.priority_uusd for each in results] == [7, 0, 0, 0]
    assert_conserved(exchange)


def bad_fields(action: PlaceOrder) -> dict[str, Any]:
    return {name: getattr(action, name) for name in action.__struct_fields__}


def test_money_that_a_bid_does_not_pay_is_there_when_the_next_is_judged(exchange: Exchange) -> None:
    """Its own next transaction may need it, and others' look at its margin."""
    poor = exchange.deposit(owner_address(9), 2 * USD)
    receiver = {"to_account": 1, "amount_uusd": USD + USD // 2}
    bid = place(poor, USD, Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD, 100), max_fee_uusd=2 * USD)
    assert prices(exchange, bid, (Transfer, poor, receiver)) == [0, 0]


def test_a_simulation_pays_nothing_for_its_place(exchange: Exchange) -> None:
    transaction = exchange.sign(PlaceOrder(**exchange.envelope(1), order=FAR, priority_bid_uusd=500))
    found = simulate(exchange.view, exchange.now_ms, transaction)
    assert found.result is not None
    assert found.result.priority_uusd == 0


# Bad bids


def test_bid_without_funds(exchange: Exchange) -> None:
    poor = exchange.deposit(owner_address(9), USD)
    action = CancelAll(**(exchange.envelope(poor) | {"priority_bid_uusd": USD, "max_fee_uusd": 9 * USD}))
    refusal = must_reject(exchange, RejectCode.INSUFFICIENT_CASH, exchange.sign(action))
    fee = block(exchange, (CancelAll, poor, {}))[0][0]
    assert 0 < fee < int(refusal.data["needed_uusd"]) - USD + 100
    left = USD - fee
    transfer = {"to_account": 1, "amount_uusd": left // 2}
    over = Transfer(**exchange.envelope(poor), **transfer, priority_bid_uusd=left // 2)
    must_reject(exchange, RejectCode.INSUFFICIENT_CASH, exchange.sign(over))


def test_fee_and_bid_together_above_max_fee(exchange: Exchange) -> None:
    """iAUCTION_BID_001: max_fee bounds what a transaction may cost in all."""
    fee, _ = block(exchange, place(1, 100, max_fee_uusd=10_000))[0]
    fields = exchange.envelope(1) | {"max_fee_uusd": fee + 99, "priority_bid_uusd": 100}
    refusal = must_reject(
        exchange, RejectCode.BID_ABOVE_MAX_FEE, exchange.sign(PlaceOrder(**fields, order=FAR))
    )
    assert refusal.data == {"bid_uusd": 100, "fee_uusd": fee, "max_fee_uusd": fee + 99}
    assert block(exchange, place(1, 100, max_fee_uusd=fee + 100))[0] == (fee, 0)


def test_a_bid_of_the_largest_number(exchange: Exchange) -> None:
    fields = exchange.envelope(1) | {"max_fee_uusd": 2**64 - 1, "priority_bid_uusd": 2**64 - 1}
    code = RejectCode.BID_ABOVE_MAX_FEE
    must_reject(exchange, code, exchange.sign(PlaceOrder(**fields, order=FAR)))
    fields["priority_bid_uusd"] = 2**63
    must_reject(exchange, RejectCode.INSUFFICIENT_CASH, exchange.sign(PlaceOrder(**fields, order=FAR)))


# Where it goes


def test_half_to_the_market_named_and_nothing_to_the_operator(exchange: Exchange) -> None:
    """iAUCTION_BID_003."""
    insurance, fees, first, second = pots(exchange)
    sent = place(1, 1_001), place(2, 801, ELSEWHERE), (Transfer, 3, {"to_account": 1, "amount_uusd": USD})
    sent[2][2]["priority_bid_uusd"] = 601
    paid = block(exchange, *sent, place(4, 400))
    assert [price for _, price in paid] == [801, 601, 400, 0]
    got = [new - old for new, old in zip(pots(exchange), (insurance, fees, first, second), strict=True)]
    charged = sum(fee for fee, _ in paid)
    assert got[2:] == [400, 300]
    assert got[0] >= 401 + 301 + 400, "with what a transfer, naming no market, paid; risk fees go there too"
    assert got[0] + got[1] == 401 + 301 + 400 + charged


def test_shares_are_the_governors(exchange: Exchange) -> None:
    assert set_terms(exchange, 200_000, 500_000, 50) == 0
    before = pots(exchange)
    paid = block(exchange, place(1, 1_001), place(2, 999))
    got = [new - old for new, old in zip(pots(exchange), before, strict=True)]
    assert got[2] == 199
    assert got[0] + got[1] == 999 - 199 + sum(fee for fee, _ in paid)


@pytest.mark.parametrize(
    "terms", [(1_000_001, 0, 50), (0, 500_001, 50), (600_000, 400_001, 50), (500_000, 0, 100_001)]
)
def test_shares_out_of_bounds(exchange: Exchange, terms: tuple[int, ...]) -> None:
    assert set_terms(exchange, *terms) == RejectCode.BAD_PARAMETERS
    assert exchange.view.get(PRIORITY_KEY) is None


def test_the_market_of_an_action() -> None:
    envelope: dict[str, Any] = {"account": 1, "nonce": 1, "deadline_s": 1, "max_fee_uusd": 0}
    assert market_of(PlaceOrder(**envelope, order=ELSEWHERE)) == 2
    assert market_of(CancelAll(**envelope, market=2)) == 2
    assert market_of(CancelAll(**envelope)) == 0
    assert market_of(BulkOrders(**envelope, cancels=(Cancel(2, 1),), orders=(ELSEWHERE,))) == 2
    assert market_of(BulkOrders(**envelope, cancels=(Cancel(1, 1),), orders=(ELSEWHERE,))) == 0
    assert market_of(Transfer(**envelope, to_account=2, amount_uusd=1)) == 0


# Rewards


def filled_pot(exchange: Exchange, amount: int) -> None:
    block(exchange, place(5, 2 * amount, max_fee_uusd=10**9), place(6, 2 * amount, max_fee_uusd=10**9))
    assert exchange.market(1).priority_pot_uusd == amount


def fill(exchange: Exchange) -> tuple[int, int, int]:
    """(reward, what the maker's cash changed by, notional) of a trade between accounts 1 and 2."""
    exchange.place(1, 1, Side.SELL, 1_000 * USD, COIN)
    before = exchange.account(1).cash_uusd
    exchange.place(2, 1, Side.BUY, 1_000 * USD, COIN)
    (trade,) = exchange.results[-1].trades
    assert exchange.account(1).cash_uusd - before == trade.maker_change_uusd
    assert_conserved(exchange)
    return trade.maker_reward_uusd, trade.maker_change_uusd + trade.maker_fee_uusd, 1_000 * USD


def test_makers_are_paid_at_the_rate_until_the_pot_is_empty(exchange: Exchange) -> None:
    """iAUCTION_BID_005."""
    filled_pot(exchange, 80_000)
    reward, change, notional = fill(exchange)
    assert reward == change == notional * 50 // 10**6 == 50_000
    assert exchange.market(1).priority_pot_uusd == 30_000
    assert fill(exchange)[0] == 30_000
    assert fill(exchange)[0] == 0


def test_no_reward_above_half_of_what_a_fill_costs(exchange: Exchange) -> None:
    """Trading with oneself for the pot costs at least twice what it brings, whatever the rate."""
    assert set_terms(exchange, 500_000, 0, 100_000) == 0
    filled_pot(exchange, 10 * USD)
    reward, _, notional = fill(exchange)
    assert reward == notional * (100 + 300) // 10**6 // 2


def test_no_reward_where_fills_cost_nothing() -> None:
    free = standard_exchange(traders=6, markets=2, maker_fee_ppm=0, taker_fee_ppm=0)
    filled_pot(free, 1_000)
    assert fill(free)[0] == 0
    assert free.market(1).priority_pot_uusd == 1_000
