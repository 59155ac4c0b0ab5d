"""Money: conserved by random traffic, through crashes and insolvency; the check finds what is missing."""

from __future__ import annotations

from collections import Counter

import pytest

from state.actions import Side
from state.block import LiquidationChange
from state.conservation import conservation
from state.keys import account_key, position_key
from state.leaves import Account, Position
from state.margin import margin
from tests.exchange_checks import assert_conserved
from tests.property.test_transition_total import BLOCKS, Run, check_invariants
from tools.exchange import COIN, USD, Exchange, owner_address, standard_exchange


@pytest.mark.parametrize("seed", range(8))
def test_random_blocks_conserve_money_and_counts(seed: int) -> None:
    run = Run(seed, absurdity=0)
    for _ in range(BLOCKS):
        run.block()
        check_invariants(run.source.leaves)
    assert run.trades > 20
    assert run.executed > 2 * BLOCKS


def test_the_traffic_liquidates() -> None:
    """So what uses it looks at liquidations too."""
    done: Counter[int] = Counter()
    for seed in range(8):
        run = Run(seed, absurdity=0)
        for _ in range(BLOCKS):
            run.block()
        done += run.liquidations
    assert set(done) >= {
        LiquidationChange.STARTED,
        LiquidationChange.TURNED,
        LiquidationChange.BID,
        LiquidationChange.SEIZED,
        LiquidationChange.DELEVERAGED,
        LiquidationChange.ENDED,
    }


def traded() -> Exchange:
    exchange = standard_exchange(3)
    exchange.place(1, 1, Side.SELL, 1_000 * USD, 3 * COIN)
    exchange.place(2, 1, Side.BUY, 1_000 * USD, 2 * COIN)
    return exchange


def test_one_unit_too_many_is_found() -> None:
    leaves = traded().leaves()
    account = Account.decode(leaves[account_key(1)])
    account.cash_uusd += 1
    assert conservation({**leaves, account_key(1): account.encode()}.items()) == 1


def test_sizes_that_do_not_add_up_are_found() -> None:
    leaves = traded().leaves()
    position = Position.decode(leaves[position_key(1, 1)])
    position.size_ulots += 1
    with pytest.raises(ValueError, match="add up"):
        conservation({**leaves, position_key(1, 1): position.encode()}.items())


def test_conserved_when_an_account_loses_more_than_it_has() -> None:
    exchange = standard_exchange(3)
    poor = exchange.deposit(owner_address(9), 230 * USD)
    exchange.place(1, 1, Side.SELL, 1_000 * USD, COIN)
    exchange.place(poor, 1, Side.BUY, 1_000 * USD, COIN)
    for dollars in (850, 700, 600, 490):
        exchange.now_ms += 1_000
        exchange.report({"C1": dollars * USD, "C1-PERPETUAL": dollars * USD})
    state = margin(exchange.view, poor)
    assert state is not None
    assert state.equity_uusd < -270 * USD
    exchange.place(2, 1, Side.BUY, 490 * USD, COIN)
    exchange.place(poor, 1, Side.SELL, 490 * USD, COIN, reduce_only=True)
    assert exchange.account(poor).cash_uusd < -270 * USD
    assert exchange.position(poor, 1) is None
    assert_conserved(exchange)
