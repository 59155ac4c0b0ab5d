"""The transition is total, and its result depends on nothing but state and input. iMONEY_001, iMONEY_002."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.actions import OracleUpdate, SignedAction, Transaction
from state.cache import CachedState, MemorySource
from state.codec import MAX_TIMESTAMP_MS
from state.conservation import conservation
from state.errors import Rejected
from state.genesis import genesis_leaves
from state.hashing import keccak
from state.keys import (
    ACCOUNT,
    ACCOUNT_ORDER,
    MARKET,
    ORDER,
    PARAMETERS_KEY,
    POSITION,
    SYSTEM_KEY,
    parse_order_key,
)
from state.leaves import Account, Market, Position, RestingOrder
from state.transition import BlockExecution, close_batch, next_batch, open_batch
from tests.property.action_strategies import TABLE, payloads
from tests.random_exchange import Traffic
from tools.exchange import PUBLISHERS, l1_origin, owner_address, standard_exchange

BLOCKS = 60


class Run:
    """Random blocks on a fresh state. `max_clean` 0 forgets and reloads everything after every block."""

    def __init__(self, seed: int, absurdity: float, max_clean: int = 10**6) -> None:
        self.source = MemorySource({key: leaf.encode() for key, leaf in genesis_leaves().items()})
        self.view = CachedState(self.source, max_clean)
        self.traffic = Traffic(seed, absurdity)
        self.traffic.view = self.view
        self.executed = self.refused = self.trades = 0
        self.liquidations: Counter[int] = Counter()
        open_batch(self.view, next_batch(self.view))
        BlockExecution(self.view, self.traffic.now_ms, l1_origin(0), self.traffic.setup()).end()

    def block(self) -> None:
        transactions = self.traffic.block()
        execution = BlockExecution(self.view, self.traffic.now_ms, l1_origin(0), self.traffic.messages())
        for transaction in transactions:
            self.execute(execution, transaction)
        self.trades += len(execution.end().trades)
        self.source.apply(self.view.take_dirty())
        self.view.release()
        if self.traffic.random.random() < 0.1:
            close_batch(self.view, 30)
            open_batch(self.view, next_batch(self.view))

    def execute(self, execution: BlockExecution, transaction: Transaction) -> None:
        try:
            result = execution.execute(transaction)
            self.liquidations.update(event.change for event in result.liquidations)
            self.executed += 1
        except Rejected:
            self.refused += 1

    def digest(self) -> bytes:
        return keccak(b"".join(key + value for key, value in sorted(self.source.leaves.items())))


def check_invariants(leaves: dict[bytes, bytes]) -> None:
    """iMONEY_001, iMONEY_002, iORDER_004: money, open interest, and what counts orders."""
    assert conservation(leaves.items()) == 0
    counts: dict[tuple[int, int], list[int]] = {}
    entries = 0
    interest: dict[int, int] = {}
    for key, data in leaves.items():
        if key[0] == ORDER:
            market, side, _, _ = parse_order_key(key)
            order = RestingOrder.decode(data)
            assert order.size_ulots > 0
            count = counts.setdefault((order.account, market), [0, 0, 0])
            count[2] += 1
            if not order.reduce_only:
                count[side] += order.size_ulots
        elif key[0] == ACCOUNT_ORDER:
            entries += 1
    accounts: dict[int, list[int]] = {}
    for key, data in leaves.items():
        if key[0] == POSITION:
            position = Position.decode(data)
            account, market = int.from_bytes(key[1:9], "big"), int.from_bytes(key[9:13], "big")
            expected = counts.pop((account, market), [0, 0, 0])
            assert [position.open_buy_ulots, position.open_sell_ulots, position.orders] == expected
            assert position.size_ulots or position.orders
            assert position.size_ulots or not position.quote_uusd
            totals = accounts.setdefault(account, [0, 0])
            totals[0] += position.orders
            totals[1] += 1
            interest[market] = interest.get(market, 0) + max(0, position.size_ulots)
    assert not counts, "orders without a position"
    assert entries == sum(orders for orders, _ in accounts.values())
    for key, data in leaves.items():
        if key[0] == ACCOUNT:
            account_leaf = Account.decode(data)
            number = int.from_bytes(key[1:9], "big")
            assert [account_leaf.orders, account_leaf.positions] == accounts.pop(number, [0, 0])
        elif key[0] == MARKET:
            assert Market.decode(data).open_interest_ulots == interest.get(int.from_bytes(key[1:5], "big"), 0)
    assert not accounts


@pytest.mark.parametrize("seed", range(100, 108))
def test_absurd_numbers_never_raise_anything_but_rejected(seed: int) -> None:
    run = Run(seed, absurdity=0.12)
    for _ in range(BLOCKS):
        run.block()
        check_invariants(run.source.leaves)
    assert run.refused > 50


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(payloads, st.integers(0, 4)), min_size=1, max_size=5), st.booleans())
def test_whatever_decodes_is_executed_or_refused(
    listed: list[tuple[SignedAction | OracleUpdate, int]], is_replay: bool
) -> None:
    """Any payload that a batch can hold, in a replay with any table; or as it comes in."""
    exchange = standard_exchange(4, 2)
    block = BlockExecution(exchange.view, exchange.now_ms, l1_origin(0), (), TABLE if is_replay else None)
    for payload, owner in listed:
        signers: tuple[bytes | None, ...] = (owner_address(owner),)
        if isinstance(payload, OracleUpdate):
            signers = (*PUBLISHERS, *[None] * 16)[: len(payload.reports)]
        transaction = Transaction(payload, signers, bytes(32))
        encoded = b"bytes" if is_replay else b""
        try:
            block.execute(transaction, encoded)
        except Rejected as refusal:
            block.refuse(transaction, encoded, refusal)
    assert len(block.end().results) == len(listed)
    check_invariants(exchange.leaves())


@pytest.mark.parametrize("seed", range(3))
def test_memory_decides_nothing(seed: int) -> None:
    """A state that is reloaded from its source after every block ends like one that never was."""
    kept, reloaded = Run(seed, 0.02), Run(seed, 0.02, max_clean=0)
    for _ in range(BLOCKS):
        kept.block()
        reloaded.block()
    assert kept.source.leaves == reloaded.source.leaves


def test_neither_hash_seed_nor_compiled_modules_decide_anything() -> None:
    code = (
        "from tests.property.test_transition_total import Run\n"
        "run = Run(5, 0.02)\n"
        "for _ in range(25): run.block()\n"
        "print(run.digest().hex())"
    )
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "STRADDLE_PURE": pure},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, pure in (("0", ""), ("1", "1"), ("4242", ""), ("4242", "1"))
    }
    assert len(digests) == 1


def test_numbers_of_leaves_stay_in_their_fields_at_the_end_of_time() -> None:
    run = Run(1, 0)
    run.traffic.now_ms = MAX_TIMESTAMP_MS - 10
    run.traffic.mark = [10**15, 10**15]
    BlockExecution(run.view, run.traffic.now_ms, l1_origin(2**63 - 1), ()).end()
    assert len(run.view.get(SYSTEM_KEY).encode()) == 189
    assert run.view.get(PARAMETERS_KEY) is not None
