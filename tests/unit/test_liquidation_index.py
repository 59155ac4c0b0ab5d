"""Who must be liquidated is found, and nobody is looked at who need not be. iKEEPER_001, iKEEPER_002."""

from __future__ import annotations

import pytest

from sequencer.liquidation_index import SLICE, LiquidationIndex, Todo
from sequencer.machine import ExecutedBlock
from state.actions import Deleverage, EndAuction, Side, StartAuction, Transaction
from state.block import TransactionResult
from state.leaves import AuctionKind
from tests.liquidations import Crash, auction, health_of_account
from tools.exchange import COIN, USD, Exchange, l1_origin, owner_address, standard_exchange


class Followed(Exchange):
    """An exchange whose blocks an index follows."""

    def __init__(self) -> None:
        super().__init__()
        self.index = LiquidationIndex(self.view)
        self.told = 0
        self.sent: dict[int, list[Transaction]] = {}

    def send(self, transaction: Transaction) -> TransactionResult:
        self.sent.setdefault(len(self.results), []).append(transaction)
        return super().send(transaction)

    def look(self) -> dict[int, Todo]:
        """Tells the index of the blocks since the last time; what is to do now."""
        for place in range(self.told, len(self.results)):
            sent = tuple(self.sent.pop(place, ()))
            self.index.executed(ExecutedBlock(self.results[place], 1, l1_origin(1), (), (), sent))
        self.told = len(self.results)
        while self.index.look(self.now_ms):
            pass
        return self.index.todo


def expected(exchange: Exchange, accounts: range) -> dict[int, Todo]:
    """By looking at every account."""
    found = {}
    for number in accounts:
        standing, open_auction = health_of_account(exchange, number), auction(exchange, number)
        kind = AuctionKind.SOLVENT if standing.equity_uusd > 0 else AuctionKind.INSOLVENT
        nothing = not any(exchange.position(number, market) for market in range(1, 40))
        payable = nothing and exchange.system.insurance_uusd > 0
        if open_auction is not None and (standing.buffer_uusd >= 0 or payable):
            found[number] = Todo.END
        elif standing.maintenance_uusd < 0 and (open_auction is None or open_auction.kind != kind):
            found[number] = Todo.START
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_to_do_is_what_a_look_at_everybody_finds(seed: int) -> None:
    exchange = Followed()
    crash = Crash(exchange, seed, seed % 2 * 1_000 * USD)
    for place in range(10):
        for _ in range(6):
            crash.trade()
        check(exchange, crash.accounts)
        crash.move(450_000, 560_000) if place % 4 == 2 else crash.move(930_000, 1_080_000)
        check(exchange, crash.accounts)
        crash.liquidate()
        check(exchange, crash.accounts)


def check(exchange: Followed, accounts: range) -> None:
    """What the index says, but for deleveraging, is what a look at everybody says."""
    todo = exchange.look()
    assert {each: what for each, what in todo.items() if what is not Todo.DELEVERAGE} == expected(
        exchange, accounts
    )
    for account, what in todo.items():
        assert (what is Todo.DELEVERAGE) == (account in exchange.index.picks)


def report(exchange: Followed, dollars: int) -> None:
    exchange.now_ms += 1
    exchange.report({"C1": dollars * USD, "C1-PERPETUAL": dollars * USD})


def crowd(count: int, cash_uusd: int = 1_000 * USD) -> Followed:
    """So many accounts are long one coin at 1000 against account 1."""
    exchange = Followed()
    made = standard_exchange(1, cash_uusd=10**9 * USD)
    exchange.__dict__.update({name: value for name, value in made.__dict__.items() if name != "sent"})
    exchange.index = LiquidationIndex(exchange.view)
    exchange.told = len(exchange.results)
    for number in range(2, count + 2):
        exchange.deposit(owner_address(number), cash_uusd + number * USD)
        exchange.place(1, 1, Side.SELL, 1_000 * USD, COIN)
        exchange.place(number, 1, Side.BUY, 1_000 * USD, COIN)
    exchange.look()
    return exchange


def test_small_moves_look_at_nobody_and_a_crash_finds_all() -> None:
    exchange = crowd(60, 600 * USD)
    before = exchange.index.looks
    for dollars in (1_001, 999, 1_010, 980, 1_020, 990):
        report(exchange, dollars)
        assert exchange.look() == {}
    assert exchange.index.looks == before, "iKEEPER_002"
    for dollars in (800, 640, 512, 410, 330, 265, 212):
        report(exchange, dollars)
        assert exchange.look() == expected(exchange, range(1, 62))
    found = exchange.index.todo
    assert len(found) > 30
    assert 1 not in found
    assert exchange.index.looks - before < 60 * 12


def test_everybody_is_looked_at_once_at_the_start_in_slices() -> None:
    exchange = crowd(20, 250 * USD)
    report(exchange, 870)
    index = LiquidationIndex(exchange.view)
    index.load(22)
    assert not index.look(exchange.now_ms)
    assert index.todo == exchange.look() == expected(exchange, range(1, 22)) != {}
    assert index.looks == 21
    many = LiquidationIndex(exchange.view)
    many.load(3 * SLICE)
    assert many.look(exchange.now_ms)
    assert many.looks == SLICE
    assert many.look(exchange.now_ms)
    assert not many.look(exchange.now_ms)


def test_started_turned_and_ended() -> None:
    exchange = crowd(1, 250 * USD)
    report(exchange, 870)
    assert exchange.look() == {2: Todo.START}
    exchange.act(StartAuction, 1, liquidated=2)
    assert exchange.look() == {}
    for dollars in (750, 690):
        report(exchange, dollars)
    assert exchange.look() == {2: Todo.START}, "it has become insolvent"
    exchange.act(StartAuction, 1, liquidated=2)
    for dollars in (820, 980):
        report(exchange, dollars)
    assert exchange.look() == {2: Todo.END}
    exchange.act(EndAuction, 1, liquidated=2)
    assert exchange.look() == {}


def test_accounts_are_looked_at_again_after_a_while() -> None:
    exchange = crowd(3)
    before = exchange.index.looks
    exchange.now_ms += 599_000
    exchange.look()
    assert exchange.index.looks == before
    exchange.now_ms += 2_000
    exchange.look()
    assert exchange.index.looks == before + 4


def test_counterparties_of_deleveraging_are_picked_by_profit_and_the_rules_take_them() -> None:
    exchange = crowd(1, 250 * USD)
    for number, size in ((30, 2), (31, 4), (32, 1)):
        account = exchange.deposit(owner_address(number), 4_000 * USD)
        exchange.place(1, 1, Side.BUY, 1_000 * USD, size * COIN)
        exchange.place(account, 1, Side.SELL, 1_000 * USD, size * COIN)
    for dollars in (800, 700):
        report(exchange, dollars)
    assert exchange.look() == {2: Todo.START}
    exchange.act(StartAuction, 1, liquidated=2)
    assert exchange.look() == {2: Todo.DELEVERAGE}
    picked = exchange.index.picks[2]
    assert (picked.market, picked.counterparties) == (1, (4, 3, 5)), "account 1 is long by now"
    exchange.act(Deleverage, 1, liquidated=2, market=1, counterparties=picked.counterparties)
    assert exchange.look() == {}
    assert exchange.position(2, 1) is None
    assert exchange.position(4, 1).size_ulots == -3 * COIN  # type: ignore[union-attr]


def test_nobody_is_picked_while_the_fund_can_pay() -> None:
    exchange = crowd(1, 250 * USD)
    exchange.system.insurance_uusd += 1_000 * USD
    exchange.system.collateral_uusd += 1_000 * USD
    for dollars in (800, 700):
        report(exchange, dollars)
    exchange.look()
    exchange.act(StartAuction, 1, liquidated=2)
    assert exchange.look() == {}
    exchange.now_ms += 3_599_000
    report(exchange, 700)
    assert exchange.look() == {}
    exchange.now_ms += 1_001
    assert exchange.look() == {2: Todo.DELEVERAGE}, "the ramp is over"
