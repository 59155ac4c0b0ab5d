"""Random lives of dated instruments: what counts and indexes them stays right, and no money is lost.

iEXPIRY_001, iEXPIRY_003, iEXPIRY_004, iMONEY_001, iMONEY_002, iORDER_004.
"""

from __future__ import annotations

from collections import Counter

import pytest

from state.block import LifeChange
from state.cache import CachedState, MemorySource
from state.errors import Rejected
from state.genesis import genesis_leaves
from state.keys import (
    DUE,
    EXPIRY,
    EXPIRY_MARKET,
    EXPIRY_OF,
    INSTRUMENT,
    MARKET,
    MARKET_NAME,
    MARKET_POSITION,
    ORDER,
    POSITION,
    PRICING,
    expiry_key,
    market_position_key,
    position_key,
)
from state.leaves import Due, Expiry, Instrument, Status
from state.transition import BlockExecution, next_batch, open_batch
from state.units import MAX_DUE_STEPS, SETTLEMENT_WINDOW_MS
from tests.property.test_transition_total import check_invariants
from tests.random_options import OptionTraffic
from tools.exchange import l1_origin

BLOCKS = 200


class OptionRun:
    """Random blocks on a fresh state. `max_clean` 0 forgets and reloads everything after every block."""

    def __init__(self, seed: int, absurdity: float = 0.0, max_clean: int = 10**6) -> None:
        self.source = MemorySource({key: leaf.encode() for key, leaf in genesis_leaves().items()})
        self.view = CachedState(self.source, max_clean)
        self.traffic = OptionTraffic(seed, self.view, absurdity)
        self.events: Counter[int] = Counter()
        self.trades: Counter[bool] = Counter()
        open_batch(self.view, next_batch(self.view))
        BlockExecution(self.view, self.traffic.now_ms, l1_origin(0), self.traffic.setup()).end()
        self.save()

    def block(self) -> None:
        transactions = self.traffic.block(12)
        execution = BlockExecution(self.view, self.traffic.now_ms, l1_origin(0), self.traffic.messages())
        assert execution.progress.due <= MAX_DUE_STEPS
        for transaction in transactions:
            try:
                execution.execute(transaction)
            except Rejected:
                continue
        result = execution.end()
        self.events.update(event.change for event in result.life)
        dated = {market for market, terms in self.traffic.instruments().items() if terms.expiry}
        self.trades.update(trade.market in dated for trade in result.trades)
        self.save()

    def save(self) -> None:
        self.source.apply(self.view.take_dirty())
        self.view.release()


def of_kind(leaves: dict[bytes, bytes], kind: int) -> dict[bytes, bytes]:
    return {key: data for key, data in leaves.items() if key[0] == kind}


def check_life(leaves: dict[bytes, bytes]) -> None:
    """iEXPIRY_001, iEXPIRY_004, and that every leaf of an expiry belongs to one that exists."""
    instruments = {
        int.from_bytes(key[1:5], "big"): Instrument.decode(data)
        for key, data in of_kind(leaves, INSTRUMENT).items()
    }
    assert len(of_kind(leaves, MARKET)) == len(of_kind(leaves, MARKET_NAME)) == len(instruments)
    holders = set()
    for key in of_kind(leaves, POSITION):
        account, market = int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:13], "big")
        assert position_key(account, market) == key
        assert instruments[market].status != Status.SETTLED
        if instruments[market].expiry:
            holders.add(market_position_key(market, account))
    assert holders == set(of_kind(leaves, MARKET_POSITION))
    for key in of_kind(leaves, ORDER):
        assert instruments[int.from_bytes(key[1:5], "big")].status != Status.SETTLED
    expiries = {key: Expiry.decode(data) for key, data in of_kind(leaves, EXPIRY).items()}
    stages: dict[bytes, list[int]] = {key: [0, 0] for key in expiries}
    for key in of_kind(leaves, EXPIRY_MARKET):
        number, market = int.from_bytes(key[1:5], "big"), int.from_bytes(key[6:10], "big")
        stages[expiry_key(number)][key[5]] += 1
        assert instruments[market].expiry == number
        assert (instruments[market].status == Status.SETTLED) == (key[5] == 1)
    due = {(key[9], int.from_bytes(key[10:18], "big")) for key in of_kind(leaves, DUE)}
    for key, expiry in expiries.items():
        assert stages[key] == [expiry.instruments - expiry.settled, expiry.settled]
        assert (expiry.settlement_uusd > 0) == (expiry.covered_ms == SETTLEMENT_WINDOW_MS)
        number = int.from_bytes(key[1:5], "big")
        waits = expiry.status == Status.SETTLING and expiry.settlement_uusd == 0
        driven = Due.DELIST if expiry.status == Status.SETTLED else Due.SETTLE
        assert waits or (driven, number) in due
    assert len(of_kind(leaves, EXPIRY_OF)) == len(of_kind(leaves, PRICING)) == len(expiries)


@pytest.mark.parametrize("seed", range(4))
def test_random_lives_conserve_money_and_counts(seed: int) -> None:
    run = OptionRun(seed)
    for _ in range(BLOCKS):
        run.block()
        check_invariants(run.source.leaves)
        check_life(run.source.leaves)
    assert run.trades[True] > 20
    assert all(run.events[change] > 0 for change in LifeChange)
    assert run.events[LifeChange.POSITION_SETTLED] > 10


@pytest.mark.parametrize("seed", range(50, 53))
def test_absurd_numbers_never_raise_anything_but_rejected(seed: int) -> None:
    run = OptionRun(seed, 0.08)
    for _ in range(BLOCKS):
        run.block()
        check_invariants(run.source.leaves)
        check_life(run.source.leaves)


def test_memory_decides_nothing() -> None:
    kept, reloaded = OptionRun(9), OptionRun(9, max_clean=0)
    for _ in range(BLOCKS):
        kept.block()
        reloaded.block()
    assert kept.source.leaves == reloaded.source.leaves
