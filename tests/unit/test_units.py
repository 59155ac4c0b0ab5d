"""Units and leaves of each kind of action: the table of PROTOCOL 8.13, line by line."""

from __future__ import annotations

from typing import Any

import pytest

from state.actions import (
    Action,
    AuthorizeSessionKey,
    Bid,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    CancelQuote,
    CancelTrigger,
    Deleverage,
    EndAuction,
    ExecuteQuote,
    Leg,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    Quote,
    Replacement,
    ReplaceOrder,
    ResetProtection,
    RevokeSessionKey,
    Scope,
    SetProtection,
    Side,
    StartAuction,
    Transfer,
    TriggerCondition,
    TriggerSource,
    Withdraw,
)
from state.keys import FEE_MARKET_KEY
from state.leaves import FeeMarket
from state.rules import rule_of, use_of
from tests.depth import chain_exchange
from tools.exchange import COIN, USD, Exchange

DATED = 70
BY_KIND = {
    OrderKind.LIMIT: (10, 2),
    OrderKind.POST_ONLY: (8, 2),
    OrderKind.IMMEDIATE_OR_CANCEL: (20, 0),
    OrderKind.FILL_OR_KILL: (60, 0),
    OrderKind.MARKET: (20, 0),
}


@pytest.fixture(scope="module")
def chain() -> tuple[Exchange, dict[str, int]]:
    return chain_exchange()


def make(kind: type[Any], **fields: Any) -> Action:
    envelope = {"account": 1, "nonce": 1, "deadline_s": 1, "max_fee_uusd": 1, "priority_bid_uusd": 0}
    action: Action = kind(**envelope, **fields)
    return action


def order(market: int, kind: OrderKind = OrderKind.LIMIT) -> Order:
    return Order(market, Side.BUY, kind, USD, COIN)


def trigger(market: int) -> Action:
    above, mark = TriggerCondition.AT_OR_ABOVE, TriggerSource.MARK
    return make(PlaceTrigger, order=order(market), source=mark, condition=above, trigger_uusd=USD)


def quote(*markets: int, terms: bytes = bytes(32)) -> Action:
    legs = tuple(Leg(market, Side.BUY, COIN) for market in markets)
    offer = Quote(2, legs, 0, 0, terms, 1, 1, 1)
    return make(ExecuteQuote, quote=offer, quote_signature=bytes(64), limit_uusd=0)


def use(chain: tuple[Exchange, dict[str, int]], action: Action) -> tuple[int, int]:
    return use_of(chain[0].view, action, rule_of(action))


@pytest.mark.parametrize("kind", OrderKind)
@pytest.mark.parametrize("name", ["P", "F", "1000C"])
def test_orders(chain: tuple[Exchange, dict[str, int]], kind: OrderKind, name: str) -> None:
    """Of its kind; more in a future or an option. Alone and among others."""
    each = order(chain[1][name], kind)
    units, leaves = BY_KIND[kind]
    units += DATED * (name != "P")
    assert use(chain, make(PlaceOrder, order=each)) == (4 + units, leaves)
    assert use(chain, make(BulkOrders, orders=(each,) * 3)) == (4 + 3 * units, 3 * leaves)


def test_bulks_are_the_sum_of_their_parts(chain: tuple[Exchange, dict[str, int]]) -> None:
    perpetual, option = chain[1]["P"], chain[1]["1000C"]
    cancels = (Cancel(perpetual, 1), Cancel(option, 1))
    replacements = (Replacement(perpetual, 1, USD, COIN), Replacement(option, 1, USD, COIN))
    orders = tuple(order(perpetual, kind) for kind in OrderKind)
    bulk = make(BulkOrders, cancels=cancels, replacements=replacements, orders=orders)
    assert use(chain, bulk) == (4 + 2 * 3 + 12 + 12 + DATED + 10 + 8 + 20 + 60 + 20, 4)
    assert use(chain, make(ReplaceOrder, replacement=replacements[0])) == (16, 0)
    assert use(chain, make(ReplaceOrder, replacement=replacements[1])) == (16 + DATED, 0)


def test_block_trades(chain: tuple[Exchange, dict[str, int]]) -> None:
    """By leg; for dated ones once; the same for a leg of a market that there is not, which is refused."""
    perpetual, option, future = chain[1]["P"], chain[1]["1000C"], chain[1]["F"]
    assert use(chain, quote(perpetual)) == (4 + 15 + 12, 1)
    assert use(chain, quote(option)) == (4 + 15 + 12 + DATED, 1)
    assert use(chain, quote(perpetual, future, option)) == (4 + 15 + 36 + DATED, 1)
    assert use(chain, quote(option, terms=b"\1" * 32)) == (4 + 15 + 12 + DATED + 5, 2)
    for unknown in (0, 99_999, 2**32, 2**64):
        assert use(chain, quote(unknown)) == (4 + 15 + 12, 1)


def test_everything_else(chain: tuple[Exchange, dict[str, int]]) -> None:
    limits = {"interval_ms": 1, "frozen_ms": 0, "quantity_ulots": 1, "delta_ulots": 0, "vega_uusd": 0}
    about = {"liquidated": 2}
    expected = [
        (make(CancelOrder, cancel=Cancel(1, 1)), (7, 0)),
        (make(CancelAll), (24, 0)),
        (make(Transfer, to_account=2, amount_uusd=1), (10, 0)),
        (make(Withdraw, recipient=bytes(20), amount_uusd=1), (14, 1)),
        (make(AuthorizeSessionKey, key=bytes(20), scope=Scope.TRADE, expiry_s=1), (6, 1)),
        (make(RevokeSessionKey, key=bytes(20)), (5, 0)),
        (make(CancelAllAfter, timeout_s=1), (6, 1)),
        (make(CancelQuote, quote_nonce=1, quote_expiry_s=1), (7, 0)),
        (make(SetProtection, underlying="C1", **limits), (8, 2)),
        (make(ResetProtection, underlying="C1"), (5, 0)),
        (trigger(chain[1]["P"]), (24, 3)),
        (trigger(chain[1]["1000C"]), (24 + DATED, 3)),
        (make(CancelTrigger, cancel=Cancel(1, 1)), (7, 0)),
        (make(StartAuction, **about), (84, 1)),
        (make(Bid, **about, share_ppm=1, min_reward_uusd=0), (804, 0)),
        (make(EndAuction, **about), (104, 0)),
        (make(Deleverage, **about, market=1, counterparties=(3,)), (204, 0)),
        (make(Deleverage, **about, market=1, counterparties=tuple(range(3, 19))), (1_704, 0)),
    ]
    for action, units_and_leaves in expected:
        assert use(chain, action) == units_and_leaves, type(action)


def test_units_are_charged_and_counted() -> None:
    """Of an option's order: in the fee's execution part, and in what the block leaves to the next one."""
    exchange, markets = chain_exchange()
    result = exchange.place(1, markets["1000C"], Side.BUY, USD, COIN)
    registers: FeeMarket = exchange.view.get(FEE_MARKET_KEY)
    units = 4 + 10 + DATED
    assert registers.execution_used == units
    assert result.fee_parts[2] == -(-units * registers.execution_pusd // 10**6)
