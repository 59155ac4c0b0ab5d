"""Random crashes of half the price: money is conserved through insolvency, and nobody pays but by the rules.

iMONEY_001, iMONEY_002, iORDER_004, iLIQ_003, iLIQ_005, iLIQ_006, iLIQ_007.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from state.actions import Transaction
from state.block import L1Message, LiquidationChange, TransactionResult
from state.errors import RejectCode, Rejected
from state.keys import SYSTEM_KEY
from state.leaves import System, Task
from state.recorder import RecordedExecution
from state.transition import BlockExecution
from tests.liquidations import Crash
from tests.property.test_transition_total import check_invariants
from tests.unit.test_transition_steps import Witnessed, outcome
from tools.exchange import USD, Exchange, l1_origin


class Checked(Exchange):
    """An exchange that checks money and counts after every block."""

    @contextmanager
    def block(self, *messages: L1Message) -> Iterator[BlockExecution]:
        try:
            with super().block(*messages) as execution:
                yield execution
        finally:
            leaves = self.leaves()
            check_invariants(leaves)
            assert System.decode(leaves[SYSTEM_KEY]).insurance_uusd >= 0, "iLIQ_005"


@pytest.mark.parametrize("seed", range(6))
def test_crashes_conserve_money_and_only_the_rules_take_it(seed: int) -> None:
    crash = Crash(Checked(), seed, (0, 200, 100_000)[seed % 3] * USD)
    crash.run(12)
    assert crash.done["STARTED"] > 1


def test_crashes_come_to_everything_that_can_happen() -> None:
    done: Counter[str] = Counter()
    for seed in range(20, 26):
        crash = Crash(Exchange(), seed, seed % 2 * 100_000 * USD)
        crash.run(14)
        done += crash.done
    assert all(done[change.name] > 0 for change in LiquidationChange), done
    expected = (
        "NOT_LIQUIDATABLE", "AUCTION_OPEN", "NO_AUCTION", "AUCTION_NOT_OVER", "BID_SHARE", "BID_OWN_ACCOUNT",
        "INSUFFICIENT_MARGIN", "ACCOUNT_IN_AUCTION", "DELEVERAGE_EARLY",
    )  # fmt: skip
    assert all(done[name] > 0 for name in expected), done
    assert {name for name in done if name.isupper()} <= {code.name for code in RejectCode} | {
        change.name for change in LiquidationChange
    }


class WitnessedExchange(Exchange):
    """An exchange whose every block is executed once more, each step from its witness alone."""

    def __init__(self) -> None:
        self.witnessed = Witnessed()
        self.sent: list[Transaction] = []
        super().__init__()

    @contextmanager
    def block(self, *messages: L1Message) -> Iterator[BlockExecution]:
        l1_block = self.system.l1_block
        try:
            with super().block(*messages) as execution:
                yield execution
        finally:
            self.again(messages, l1_block)

    def again(self, messages: tuple[L1Message, ...], l1_block: int) -> None:
        recorded = RecordedExecution(
            self.witnessed.store, self.now_ms, l1_origin(l1_block), messages, self.witnessed.step
        )
        for transaction in self.sent:
            outcome(recorded, transaction)
        self.sent.clear()
        assert recorded.end() == self.results[-1]

    def send(self, transaction: Transaction) -> TransactionResult:
        self.sent.append(transaction)
        return super().send(transaction)


def test_every_step_executes_from_its_witness() -> None:
    crash = Crash(WitnessedExchange(), 3)
    crash.run(4)
    exchange = crash.exchange
    assert isinstance(exchange, WitnessedExchange)
    assert exchange.witnessed.store.leaves == exchange.leaves()
    assert exchange.witnessed.tasks >= {Task.AUCTION_ORDERS, Task.SEIZE}


def test_a_refusal_changes_nothing() -> None:
    crash = Crash(Exchange(), 4)
    refused = 0
    send = crash.exchange.send

    def checked(transaction: Transaction) -> TransactionResult:
        nonlocal refused
        with crash.exchange.block() as execution:
            before = crash.exchange.leaves()
            try:
                return execution.execute(transaction)
            except Rejected:
                refused += 1
                assert crash.exchange.leaves() == before
                raise

    crash.exchange.send = checked  # type: ignore[method-assign]
    crash.run(4)
    crash.exchange.send = send  # type: ignore[method-assign]
    assert refused > 20
