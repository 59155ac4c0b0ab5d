"""The book against a naive matcher: lists, sorting, no margin. iBOOK_001 to iBOOK_003, iORDER_002."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from state.actions import (
    Order,
    OrderKind,
    PlaceOrder,
    Replacement,
    ReplaceOrder,
    SelfTrade,
    Side,
)
from state.errors import RejectCode, Rejected
from state.keys import account_order_key, order_book_prefix, parse_order_key
from state.leaves import RestingOrder
from tools.exchange import COIN, USD, Exchange, owner_address, standard_exchange

PRICE = 1_000 * USD
TICK = 10_000
SIZE = COIN // 10
OPERATIONS = 250
ACCOUNTS = 5
"""Accounts 1 to 4 have owners of their own; account 5 belongs to the owner of account 1."""


@dataclass
class Resting:
    account: int
    order_id: int
    side: Side
    price: int
    size: int
    filled: int
    reduce_only: bool
    expiry_s: int
    self_trade: SelfTrade
    sequence: int


class NaiveMarket:
    """What the rules say, in the plainest way."""

    def __init__(self) -> None:
        self.orders: list[Resting] = []
        self.positions = dict.fromkeys(range(1, ACCOUNTS + 1), 0)
        self.trades: list[tuple[int, int, int, int, int, int]] = []
        self.sequence = 0

    def side(self, side: Side) -> list[Resting]:
        """Best first."""
        orders = [order for order in self.orders if order.side is side]
        return sorted(orders, key=lambda o: (o.price if side else -o.price, o.sequence))

    def reducible(self, account: int, side: Side) -> int:
        return max(0, self.positions[account] if side else -self.positions[account])

    def crossing(self, side: Side, price: int) -> list[Resting]:
        other = self.side(Side(1 - side))
        return [order for order in other if (order.price >= price if side else order.price <= price)]

    def match(self, taker: Resting, now_s: int) -> int:
        """Fills `taker`; returns what is left to it, 0 where it must not go on."""
        while taker.size and (crossing := self.crossing(taker.side, taker.price)):
            maker = crossing[0]
            own = maker.account == taker.account or {maker.account, taker.account} == {1, 5}
            size = min(maker.size, taker.size)
            if 0 < maker.expiry_s <= now_s:
                self.orders.remove(maker)
                continue
            if own and taker.self_trade is SelfTrade.CANCEL_TAKER:
                return 0
            if own and taker.self_trade is SelfTrade.CANCEL_MAKER:
                self.orders.remove(maker)
                continue
            if own:
                taker.size -= size
                maker.size -= size
            else:
                if maker.reduce_only:
                    size = min(size, self.reducible(maker.account, maker.side))
                if size == 0:
                    self.orders.remove(maker)
                    continue
                if taker.reduce_only:
                    size = min(size, self.reducible(taker.account, taker.side))
                if size == 0:
                    return 0
                self.fill(maker, taker, size)
            if maker.size == 0:
                self.orders.remove(maker)
        return taker.size

    def fill(self, maker: Resting, taker: Resting, size: int) -> None:
        sign = -1 if taker.side else 1
        self.positions[taker.account] += sign * size
        self.positions[maker.account] -= sign * size
        for order in (maker, taker):
            order.size -= size
            order.filled += size
        self.trades.append((maker.account, maker.order_id, taker.account, taker.order_id, maker.price, size))

    def rest(self, order: Resting) -> None:
        self.sequence += 1
        order.sequence = self.sequence
        self.orders.append(order)


class Comparison:
    """The same random operations on both."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.exchange: Exchange = standard_exchange(4, 1, 10**9 * USD)
        self.exchange.deposit(owner_address(1), 10**9 * USD)
        self.model = NaiveMarket()
        self.ids: list[tuple[int, int]] = []

    def now_s(self) -> int:
        return self.exchange.now_ms // 1_000

    def price(self) -> int:
        return PRICE + self.random.randint(-6, 6) * TICK

    def step(self) -> None:
        chance = self.random.random()
        if chance < 0.1:
            self.exchange.now_ms += self.random.choice((50, 1_000))
            self.exchange.report({"C1": PRICE, "C1-PERPETUAL": PRICE})
        elif chance < 0.25 and self.ids:
            self.cancel(*self.random.choice(self.ids))
        elif chance < 0.4 and self.ids:
            self.replace(*self.random.choice(self.ids))
        else:
            self.place()
        self.compare()

    def place(self) -> None:
        account = self.random.randint(1, ACCOUNTS)
        order = Order(
            1,
            Side(self.random.getrandbits(1)),
            self.random.choice((OrderKind.LIMIT, OrderKind.LIMIT, *OrderKind)),
            self.price(),
            self.random.randint(1, 6) * SIZE,
            self.random.random() < 0.2,
            self.random.choice((0, 0, self.now_s() + 2)),
            self.random.choice(list(SelfTrade)),
        )
        envelope = self.exchange.envelope(account)
        order_id = envelope["nonce"] * 64
        expected = self.expected_refusal(account, order)
        transaction = self.exchange.sign(PlaceOrder(**envelope, order=order))
        if expected is not None:
            with pytest.raises(Rejected, match=expected.name):
                self.exchange.send(transaction)
            return
        self.exchange.send(transaction)
        resting = Resting(
            account, order_id, order.side, order.price_uusd, order.size_ulots, 0,
            order.reduce_only, order.expiry_s, order.self_trade, 0,
        )  # fmt: skip
        self.model_place(resting, order.kind)

    def model_place(self, resting: Resting, kind: OrderKind) -> None:
        model = self.model
        if kind is not OrderKind.POST_ONLY:
            filled = resting.filled
            left = model.match(resting, self.now_s())
            is_void = resting.reduce_only and not model.reducible(resting.account, resting.side)
            if resting.filled != filled and is_void:
                left = 0
            resting.size = left
        if resting.size and kind in (OrderKind.LIMIT, OrderKind.POST_ONLY):
            model.rest(resting)
            self.ids.append((resting.account, resting.order_id))

    def expected_refusal(self, account: int, order: Order) -> RejectCode | None:
        model, now_s = self.model, self.now_s()
        if order.reduce_only and not model.reducible(account, order.side):
            return RejectCode.REDUCE_ONLY_INCREASES
        crossing = model.crossing(order.side, order.price_uusd)
        live = [maker for maker in crossing if not 0 < maker.expiry_s <= now_s]
        if order.kind is OrderKind.POST_ONLY and live:
            return RejectCode.POST_ONLY_CROSSES
        if order.kind is OrderKind.FILL_OR_KILL and not self.would_fill(account, order):
            return RejectCode.FILL_OR_KILL_UNFILLED
        return None

    def would_fill(self, account: int, order: Order) -> bool:
        trial = NaiveMarket()
        trial.orders = [Resting(**vars(each)) for each in self.model.orders]
        trial.positions = dict(self.model.positions)
        taker = Resting(
            account, 0, order.side, order.price_uusd, order.size_ulots, 0,
            order.reduce_only, 0, order.self_trade, 0,
        )  # fmt: skip
        trial.match(taker, self.now_s())
        return taker.filled == order.size_ulots

    def find(self, account: int, order_id: int) -> Resting | None:
        for order in self.model.orders:
            if (order.account, order.order_id) == (account, order_id):
                return order
        return None

    def cancel(self, account: int, order_id: int) -> None:
        order = self.find(account, order_id)
        if order is None:
            with pytest.raises(Rejected, match="UNKNOWN_ORDER"):
                self.exchange.cancel(account, 1, order_id)
            return
        self.exchange.cancel(account, 1, order_id)
        self.model.orders.remove(order)

    def replace(self, account: int, order_id: int) -> None:
        order = self.find(account, order_id)
        price, size = self.price(), self.random.randint(0, 6) * SIZE
        if order is not None and self.random.random() < 0.3:
            price = order.price
        fields = {"replacement": Replacement(1, order_id, price, size)}
        if order is None:
            with pytest.raises(Rejected, match="UNKNOWN_ORDER"):
                self.exchange.act(ReplaceOrder, account, **fields)
            return
        left = max(0, size - order.filled)
        anew = left > 0 and not (price == order.price and left <= order.size)
        if anew and 0 < order.expiry_s <= self.now_s():
            with pytest.raises(Rejected, match="ORDER_EXPIRED"):
                self.exchange.act(ReplaceOrder, account, **fields)
            return
        if anew and order.reduce_only and not self.model.reducible(account, order.side):
            with pytest.raises(Rejected, match="REDUCE_ONLY_INCREASES"):
                self.exchange.act(ReplaceOrder, account, **fields)
            return
        self.exchange.act(ReplaceOrder, account, **fields)
        if not anew:
            order.size = left
            if left == 0:
                self.model.orders.remove(order)
            return
        self.model.orders.remove(order)
        order.price, order.size = price, left
        self.model_place(order, OrderKind.LIMIT)

    def compare(self) -> None:
        exchange, model = self.exchange, self.model
        trades = [
            (t.maker_account, t.maker_order_id, t.taker_account, t.taker_order_id, t.price_uusd, t.size_ulots)
            for result in exchange.results
            for t in result.trades
        ]
        assert trades == model.trades
        for side in Side:
            found: list[tuple[int, int, int, int, int]] = []
            for key, leaf in exchange.view.iterate_under(order_book_prefix(1, side), 10_000):
                order: RestingOrder = leaf
                price = parse_order_key(key)[2]
                found.append((order.account, order.order_id, price, order.size_ulots, order.filled_ulots))
                assert exchange.view.get(account_order_key(order.account, 1, order.order_id)) is not None
            expected = [(o.account, o.order_id, o.price, o.size, o.filled) for o in model.side(side)]
            assert found == expected
        for account, size in model.positions.items():
            position = exchange.position(account, 1)
            assert (position.size_ulots if position else 0) == size
        self.not_crossed()

    def not_crossed(self) -> None:
        """iBOOK_002, among orders that have not expired."""
        live = [order for order in self.model.orders if not 0 < order.expiry_s <= self.now_s()]
        bids = [order.price for order in live if order.side is Side.BUY]
        asks = [order.price for order in live if order.side is Side.SELL]
        assert not bids or not asks or max(bids) < min(asks)


@pytest.mark.parametrize("seed", range(20))
def test_book_matches_the_naive_matcher(seed: int) -> None:
    comparison = Comparison(seed)
    for _ in range(OPERATIONS):
        comparison.step()
    assert len(comparison.model.trades) > 20
