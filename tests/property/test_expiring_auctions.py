"""Auctions while what they sell expires and prices fall by half: money, counts, and nothing that never ends.

iMONEY_001, iMONEY_002, iORDER_004, iEXPIRY_001, iEXPIRY_003, iEXPIRY_004, iLIQ_005 to iLIQ_008.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from state.block import L1Message, LifeChange, LiquidationChange
from state.transition import BlockExecution
from tests.expiring import Expiring
from tests.liquidations import health_of_account
from tests.property.test_liquidation import Checked
from tests.property.test_options_life import check_life
from tools.exchange import USD, Exchange

DAYS = 2
MEANS_USD = (0, 500, 100_000)
"""What the insurance fund starts with."""


class CheckedLife(Checked):
    """An exchange that checks money, counts and what indexes positions after every block."""

    @contextmanager
    def block(self, *messages: L1Message) -> Iterator[BlockExecution]:
        try:
            with super().block(*messages) as execution:
                yield execution
        finally:
            check_life(self.leaves())


def lived(exchange: Exchange, seed: int) -> Expiring:
    run = Expiring(exchange, seed, MEANS_USD[seed % 3] * USD)
    for _ in range(DAYS):
        run.day()
    return run


def check_end(run: Expiring) -> None:
    """iLIQ_008: an auction that nobody can carry on waits for money; with money, all end."""
    exchange = run.exchange
    run.wind_down()
    for number in run.open_auctions():
        equity = health_of_account(exchange, number).equity_uusd
        assert exchange.system.insurance_uusd < -equity
    run.pay_in(10_000_000 * USD)
    run.wind_down()
    assert run.open_auctions() == []
    for number, standing in run.standings().items():
        assert standing.maintenance_uusd >= 0, number


@pytest.mark.parametrize("seed", range(20, 24))
def test_crashes_while_options_expire(seed: int) -> None:
    run = lived(CheckedLife(), seed)
    check_end(run)
    assert run.done["STARTED"] > 0


def test_it_comes_to_everything_that_can_happen() -> None:
    done: Counter[str] = Counter()
    life: Counter[int] = Counter()
    for seed in range(35, 40):
        run = lived(Exchange(), seed)
        check_end(run)
        done += run.done
        life.update(event.change for result in run.exchange.results for event in result.life)
    assert all(done[change.name] > 0 for change in LiquidationChange), done
    expected = ("EXPIRED_INSTRUMENT", "AUCTION_NOT_OVER", "BID_SHARE", "DELEVERAGE_EARLY", "settled in part")
    assert all(done[name] > 0 for name in expected), done
    assert life[LifeChange.POSITION_SETTLED] > 100
