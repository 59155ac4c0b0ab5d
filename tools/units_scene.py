"""The exchange on which `bench_units` executes actions: many accounts, filled books, options held.

Two thousand accounts quote in four perpetuals; on the first one's underlying stand thirteen expiries with
their futures and options, in which a few accounts hold nothing, 8 positions, or 64.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from state.actions import (
    Action,
    Cancel,
    CancelAll,
    Order,
    OrderKind,
    PlaceOrder,
    Side,
    SignedAction,
    Transaction,
)
from state.calendar import Rule
from state.deleverage import MAX_COUNTERPARTIES
from state.holdings import open_position
from state.keys import account_key, instrument_key, market_key, position_key
from state.leaves import Account, Instrument, Kind, Position
from state.margin import NO_CHANGES, held_margin
from state.pricing import mark_of
from state.units import OPERATION_BITS
from tools.exchange import COIN, USD, owner_address, standard_exchange
from tools.option_exchange import expiries, full_update, make_due, markets_of, series_message

CROWD: Final = 2_000
PERPETUALS: Final = 4
BOOK_ORDERS: Final = 2_500
"""Of each perpetual."""
DATED: Final = (0, 8, 64)
"""Positions of holders, `HOLDERS` accounts of each number."""
LIQUIDATED: Final = (1, 16, 64)
"""Positions of those who are liquidated."""
HOLDERS: Final = 4
COUNT: Final = 16
"""Actions of one case."""
SMALL: Final = COIN // 10
TICK: Final = 10_000
MARK: Final = 1_000 * USD
"""Of C1, about; of others their number of times that."""
MAX_FEE_UUSD: Final = 10_000 * USD
_CLOSEST_TICKS: Final = 30
"""How far from the mark orders rest: further than ticks of the oracle take it."""
_DEEPEST_TICKS: Final = 2_000
_OPTIONS: Final = 100
"""Options that are held and traded: those of the nearest strikes."""
_SERIES: Final = ((Rule.DAILY, 6), (Rule.WEEKLY, 4), (Rule.MONTHLY, 4), (Rule.QUARTERLY, 3))


class Placed(NamedTuple):
    """An order that a transaction placed."""

    account: int
    order: Order
    order_id: int

    @property
    def cancel(self) -> Cancel:
        return Cancel(self.order.market, self.order_id)


def placed_by(transactions: Sequence[Transaction]) -> list[Placed]:
    """Of actions of one order and of bulk actions that only place."""
    found = []
    for transaction in transactions:
        payload = transaction.payload
        assert isinstance(payload, SignedAction)
        action: Any = payload.action
        orders = (action.order,) if hasattr(action, "order") else action.orders
        first = action.nonce << OPERATION_BITS
        found += [Placed(action.account, order, first + place) for place, order in enumerate(orders)]
    return found


class Scene:
    """Account 1 is for nothing; the crowd is in the books; `idle` accounts begin with nothing at all."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.exchange = standard_exchange(CROWD, PERPETUALS, cash_uusd=10**8 * USD)
        self.view = self.exchange.view
        for rule, ahead in _SERIES:
            self.exchange.messages(series_message("C1", rule, ahead, step_uusd=20 * USD, strikes=8))
            make_due(self.exchange)
        options, self.futures = self._dated_markets()
        self.options = options[:_OPTIONS]
        self.tick()
        parameters = self.exchange.parameters
        parameters.max_orders, parameters.max_positions = 4_096, 128
        self.crowd = range(2, CROWD + 1)
        self.idle = self.accounts(2 * COUNT)
        self.held: dict[int, list[int]] = {}
        """Markets in which an account holds options."""
        self.holders = {count: self.holding(count) for count in DATED}
        self.victims = {count: self.holding(count) for count in LIQUIDATED}
        self.bidders = self.accounts(HOLDERS)
        self.winners = self.accounts(HOLDERS * MAX_COUNTERPARTIES)
        """Who is deleveraged."""
        for market in range(1, PERPETUALS + 1):
            makers = self.random.choices(self.crowd, k=BOOK_ORDERS)
            self.execute([self.place(account, self.resting(market)) for account in makers])

    def tick(self) -> None:
        """All prices anew, a little elsewhere."""
        self.exchange.now_ms += 11_000
        step = self.random.randint(-5, 5) * TICK
        indexes = {f"C{number}": number * MARK + step for number in range(1, PERPETUALS + 1)}
        self.exchange.send(full_update(self.exchange, indexes))
        self.exchange.results.clear()

    def warm_up(self) -> None:
        """Every option has been looked at since the last tick."""
        self.execute([self.place(self.idle[0], self.resting(market)) for market in self.options])
        self.clear(self.idle[:1])

    def accounts(self, count: int) -> list[int]:
        """New ones, with money."""
        first = self.exchange.system.next_account
        return [
            self.exchange.deposit(owner_address(number), 10**8 * USD)
            for number in range(first, first + count)
        ]

    def holding(self, count: int) -> list[int]:
        """New accounts with so many options each, among the nearest."""
        found = self.accounts(HOLDERS)
        for account in found:
            self.held[account] = self.random.sample(self.options, count)
            for market in self.held[account]:
                self.give(account, market, self.random.choice((-1, 1)) * self.random.randint(1, 10) * COIN)
            for market in self.held[account][:1]:
                self.give(account, market, -10 * COIN)
        return found

    def give(self, account: int, market: int, size_ulots: int, cost_uusd: int = 0) -> None:
        """Makes an account's position this, with no other side: enough for what an action costs."""
        key = position_key(account, market)
        position: Position | None = self.view.get(key)
        if position is None:
            leaf = self.account(account)
            position = open_position(self.view, leaf, account, market)
            self.view.touch(account_key(account), leaf)
        position.size_ulots, position.quote_uusd = size_ulots, cost_uusd
        self.view.touch(key, position)

    def account(self, number: int) -> Account:
        leaf: Account = self.view.get(account_key(number))
        return leaf

    def set_cash(self, number: int, cash_uusd: int) -> None:
        leaf = self.account(number)
        leaf.cash_uusd = cash_uusd
        self.view.touch(account_key(number), leaf)

    def set_equity(self, number: int, *, healthy: bool) -> None:
        """So much cash that it is rich, or has half of its maintenance requirement."""
        found = held_margin(self.view, number, 0, NO_CHANGES)
        wanted = 10**8 * USD if healthy else found.maintenance_uusd // 2
        self.set_cash(number, wanted - found.equity_uusd)

    def sign(self, kind: type[Any], account: int, **fields: Any) -> Transaction:
        """An action of this kind that may cost what it likes."""
        envelope = self.exchange.envelope(account) | {"max_fee_uusd": MAX_FEE_UUSD}
        action: Action = kind(**envelope, **fields)
        return self.exchange.sign(action)

    def execute(self, transactions: Sequence[Transaction]) -> None:
        """Unmeasured, in a block of their own."""
        with self.exchange.block() as execution:
            for transaction in transactions:
                execution.execute(transaction)

    def some(self, count: int = COUNT) -> list[int]:
        """Different accounts of the crowd."""
        return self.random.sample(self.crowd, count)

    def perpetual(self) -> int:
        return self.random.randint(1, PERPETUALS)

    def price(self, market: int, ticks: int) -> int:
        """So far above the mark, a tick at least."""
        terms: Instrument = self.view.get(instrument_key(market))
        return max(self.mark(market) // terms.tick_uusd + ticks, 1) * terms.tick_uusd

    def mark(self, market: int) -> int:
        return (
            mark_of(self.view, self.view.get(market_key(market)), self.view.get(instrument_key(market))) or 0
        )

    def resting(self, market: int, kind: OrderKind = OrderKind.LIMIT) -> Order:
        """An order that crosses nothing."""
        side = Side(self.random.getrandbits(1))
        ticks = self.random.randint(_CLOSEST_TICKS, _DEEPEST_TICKS)
        return Order(market, side, kind, self.price(market, ticks if side else -ticks), SMALL)

    def place(self, account: int, order: Order) -> Transaction:
        return self.sign(PlaceOrder, account, order=order)

    def clear(self, accounts: Sequence[int]) -> None:
        """Cancels all that these accounts have open."""
        self.execute([self.sign(CancelAll, account) for account in accounts])

    def _dated_markets(self) -> tuple[list[int], list[int]]:
        """Options, near strikes first, and futures."""
        options: list[tuple[int, int]] = []
        futures: list[int] = []
        for number in expiries(self.exchange, "C1"):
            for market in markets_of(self.exchange, number).values():
                terms: Instrument = self.view.get(instrument_key(market))
                if terms.kind == Kind.FUTURE:
                    futures.append(market)
                else:
                    options.append((abs(terms.strike_uusd - MARK), market))
        return [market for _, market in sorted(options)], futures
