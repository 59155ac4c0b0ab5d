"""Any block under the recorder: each step, executed again from its witness alone, ends on the same root."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from state.actions import Transaction
from state.block import L1Message
from state.cache import CachedState, MemorySource
from state.errors import Rejected
from state.genesis import genesis_leaves
from state.keys import PROGRESS_KEY, account_key
from state.leaves import Account, Progress, Task
from state.proofs import LeafData
from state.recorder import RecordedExecution, StepInput, StepRecord, StepView, execute_step
from state.transition import BlockExecution, next_batch, open_batch
from state.tree import Tree
from state.witness import MissingWitness, PartialTree
from tests.random_exchange import IN_RANGE, Traffic
from tests.tree_model import MemoryStore
from tools.exchange import l1_origin

INPUT = StepInput("step", 0, l1_origin(0))


class DictionaryStore:
    """Encoded leaves in a dictionary."""

    def __init__(self) -> None:
        self.leaves: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.leaves.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.leaves[key] = value

    def delete(self, key: bytes) -> None:
        del self.leaves[key]

    def first_under(self, prefix: bytes) -> LeafData | None:
        return next(iter(self.iterate_under(prefix, 1)), None)

    def iterate_under(self, prefix: bytes, bound: int) -> Sequence[LeafData]:
        found = sorted(item for item in self.leaves.items() if item[0].startswith(prefix))
        return [LeafData(*item) for item in found[:bound]]


class Witnessed:
    """Checks every step against the tree as it comes."""

    def __init__(self) -> None:
        self.store = DictionaryStore()
        for key, leaf in genesis_leaves().items():
            self.store.put(key, leaf.encode())
        self.tree = Tree(MemoryStore(), 4_096)
        view = StepView(self.store)
        open_batch(view, next_batch(view))
        view.finish(INPUT)
        self.tree.update(self.store.leaves)
        self.steps = 0
        self.tasks: set[int] = set()
        self.witness_bytes = 0

    def step(self, record: StepRecord) -> None:
        made = self.tree.witness(record.keys, record.prefixes, record.iterations)
        assert made.root() == self.tree.root
        encoded = made.encode()
        partial = PartialTree.decode(encoded)
        execute_step(partial, record.input)
        assert partial.root() == self.tree.update(record.changes), record.input
        self.steps += 1
        self.witness_bytes += len(encoded)
        progress = self.store.get(PROGRESS_KEY)
        assert (progress is None) == (record.input.name == "end"), "between blocks there is none"
        if progress is not None:
            self.tasks.add(Progress.decode(progress).task)


def outcome(execution: BlockExecution, transaction: Transaction) -> object:
    try:
        return execution.execute(transaction)
    except Rejected as refusal:
        return refusal.code, refusal.data


@pytest.mark.parametrize("seed", range(3))
def test_every_step_executes_from_its_witness(seed: int) -> None:
    witnessed = Witnessed()
    source = MemorySource({key: leaf.encode() for key, leaf in genesis_leaves().items()})
    view = CachedState(source, 10**6)
    open_batch(view, next_batch(view))
    traffic = Traffic(seed, 0.01)
    traffic.view = view
    messages: list[L1Message] = traffic.setup()
    for _ in range(25):
        transactions = traffic.block()
        recorded = RecordedExecution(witnessed.store, traffic.now_ms, l1_origin(0), messages, witnessed.step)
        made = BlockExecution(view, traffic.now_ms, l1_origin(0), messages)
        for transaction in transactions:
            assert outcome(recorded, transaction) == outcome(made, transaction)
        assert recorded.end() == made.end()
        messages = traffic.messages()
    source.apply(view.take_dirty())
    assert witnessed.store.leaves == source.leaves
    assert witnessed.steps > 300
    assert witnessed.tasks >= {Task.NONE, Task.MATCH, Task.OPERATIONS, Task.FEEDS, Task.TRIGGERS}


def test_refused_transactions_of_a_replay_are_steps_too() -> None:
    witnessed = Witnessed()
    traffic = Traffic(7, extremes=IN_RANGE)
    recorded = RecordedExecution(
        witnessed.store, traffic.now_ms, l1_origin(0), traffic.setup(), witnessed.step
    )
    traffic.absurdity = 1.0
    refused = 0
    for _ in range(20):
        transaction = traffic.transaction()
        try:
            recorded.execute(transaction, b"its bytes")
        except Rejected as refusal:
            recorded.refuse(transaction, b"its bytes", refusal)
            refused += 1
    recorded.end()
    assert refused > 10
    assert Tree(MemoryStore(), 4_096).update(witnessed.store.leaves) == witnessed.tree.root


def test_less_than_the_witness_is_not_enough() -> None:
    witnessed = Witnessed()
    records: list[StepRecord] = []

    def step(record: StepRecord) -> None:
        root = witnessed.tree.root
        for key in record.keys:
            rest = [each for each in record.keys if each != key]
            partial = witnessed.tree.witness(rest, record.prefixes, record.iterations)
            try:
                execute_step(partial, record.input)
            except MissingWitness:
                records.append(record)
        assert witnessed.tree.root == root
        witnessed.step(record)

    traffic = Traffic(1)
    RecordedExecution(witnessed.store, traffic.now_ms, l1_origin(0), traffic.setup(), step).end()
    assert records


def test_a_leaf_changed_but_not_touched_is_a_bug() -> None:
    store = DictionaryStore()
    store.put(account_key(1), Account(bytes(20), 5, 0, bytes(32), 0, 0, 0, 0).encode())
    view = StepView(store)
    view.get(account_key(1)).cash_uusd += 1
    with pytest.raises(AssertionError, match="not touched"):
        view.finish(INPUT)


def test_a_wrong_step_ends_on_another_root() -> None:
    witnessed = Witnessed()
    roots: list[tuple[bytes, bytes]] = []

    def step(record: StepRecord) -> None:
        partial = witnessed.tree.witness(record.keys, record.prefixes, record.iterations)
        witnessed.step(record)
        if record.input.name == "begin":
            later = dataclasses.replace(record.input, timestamp_ms=record.input.timestamp_ms + 1)
            execute_step(partial, later)
            roots.append((partial.root(), witnessed.tree.root))

    traffic = Traffic(1)
    RecordedExecution(witnessed.store, traffic.now_ms, l1_origin(0), traffic.setup(), step).end()
    ((wrong, right),) = roots
    assert wrong != right
