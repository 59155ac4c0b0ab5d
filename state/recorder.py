"""Steps on the record: what each one read and wrote, so that a witness alone can execute it again.

`StepView` is a StateView for one step over encoded leaves: a database, or a witness (`witness.PartialTree`).
Nothing lives longer than the step, so whatever a step needs must come from leaves; `finish` fails when a leaf
was changed but not touched. `RecordedExecution` is `BlockExecution` in which each step has such a view and
`Progress` is a leaf between steps; `execute_step` does one step again from its input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from state.actions import Transaction
from state.block import BlockHeader, L1Message, L1Origin, TransactionResult
from state.codec import Table
from state.context import BlockContext
from state.errors import Rejected
from state.keys import PROGRESS_KEY
from state.leaves import Leaf, Progress, decode_leaf
from state.steps import begin_block, end_block, skip, step
from state.transition import BlockExecution
from state.view import StateView


class LeafData(Protocol):
    """A key and an encoded leaf."""

    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...


class LeafStore(Protocol):
    """Encoded leaves, ordered by key; `PartialTree` is one."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> None: ...
    def first_under(self, prefix: bytes) -> LeafData | None: ...
    def iterate_under(self, prefix: bytes, bound: int) -> Sequence[LeafData]: ...


@dataclass(frozen=True, slots=True)
class StepInput:
    """What a step takes from L1 data: the block's head, and the message or transaction it is about."""

    name: str
    """begin, step, refuse or end."""
    timestamp_ms: int
    origin: L1Origin
    table: Table | None = None
    messages: tuple[L1Message, ...] = ()
    """The block's messages: of `begin` only."""
    item: L1Message | Transaction | None = None
    encoded: bytes = b""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One executed step: `keys`, `prefixes` and `iterations` are what `Tree.witness` asks for."""

    input: StepInput
    keys: tuple[bytes, ...]
    prefixes: tuple[bytes, ...]
    iterations: tuple[tuple[bytes, int], ...]
    changes: dict[bytes, bytes | None]


class StepView:
    """StateView of one step. `finish` once at its end."""

    def __init__(self, store: LeafStore) -> None:
        self._store = store
        self._live: dict[bytes, Leaf | None] = {}
        self._changed: dict[bytes, None] = {}
        self._keys: dict[bytes, None] = {}
        self._prefixes: dict[bytes, None] = {}
        self._iterations: dict[tuple[bytes, int], None] = {}

    def get(self, key: bytes, /) -> Any:
        self._keys[key] = None
        if key not in self._live:
            data = self._store.get(key)
            self._live[key] = None if data is None else decode_leaf(key, data)
        return self._live[key]

    def put(self, key: bytes, leaf: Leaf, /) -> None:
        self._keys[key] = None
        self._live[key] = leaf
        self._changed[key] = None
        self._store.put(key, leaf.encode())

    def touch(self, key: bytes, leaf: Leaf, /) -> None:
        assert self._live[key] is leaf, key.hex()
        self._changed[key] = None

    def delete(self, key: bytes, /) -> None:
        assert self.get(key) is not None, key.hex()
        self._live[key] = None
        self._changed[key] = None
        self._store.delete(key)

    def first_under(self, prefix: bytes, /) -> tuple[bytes, Any] | None:
        self._prefixes[prefix] = None
        found = self._store.first_under(prefix)
        return None if found is None else (found.key, self.get(found.key))

    def iterate_under(self, prefix: bytes, bound: int, /) -> list[tuple[bytes, Any]]:
        self._iterations[prefix, bound] = None
        return [(leaf.key, self.get(leaf.key)) for leaf in self._store.iterate_under(prefix, bound)]

    def finish(self, source: StepInput) -> StepRecord:
        """Writes what changed. Raises AssertionError if a leaf was changed and not touched."""
        changes: dict[bytes, bytes | None] = {}
        for key, leaf in self._live.items():
            data = None if leaf is None else leaf.encode()
            if key in self._changed:
                changes[key] = data
                if data is not None:
                    self._store.put(key, data)
            else:
                assert data == self._store.get(key), f"changed, but not touched: {key.hex()}"
        return StepRecord(source, tuple(self._keys), tuple(self._prefixes), tuple(self._iterations), changes)


def execute_step(store: LeafStore, source: StepInput) -> None:
    """Executes a recorded step from a store that may hold no more than its witness."""
    block = BlockContext(source.timestamp_ms, source.origin, source.table)
    view = StepView(store)
    _run(view, block, source)
    view.finish(source)


def _run(view: StateView, block: BlockContext, source: StepInput) -> Any:
    """What the step returns, with `Progress` taken from its leaf and put back there."""
    if source.name == "begin":
        progress = begin_block(view, block, source.messages)
        view.put(PROGRESS_KEY, progress)
        return progress
    found: Progress = view.get(PROGRESS_KEY)
    if source.name == "end":
        closed = end_block(view, block, found)
        view.delete(PROGRESS_KEY)
        return closed
    if source.name == "refuse":
        assert isinstance(source.item, Transaction)
        skip(view, block, found, source.item, source.encoded)
    else:
        step(view, block, found, source.item, source.encoded)
    view.put(PROGRESS_KEY, found)
    return found


class RecordedExecution(BlockExecution):
    """A block executed step by step on encoded leaves; `on_step` gets each record."""

    def __init__(
        self,
        store: LeafStore,
        timestamp_ms: int,
        origin: L1Origin,
        messages: Sequence[L1Message],
        on_step: Callable[[StepRecord], None],
        table: Table | None = None,
    ) -> None:
        self._store = store
        self._on_step = on_step
        super().__init__(StepView(store), timestamp_ms, origin, messages, table)

    def refuse(self, transaction: Transaction, encoded: bytes, refusal: Rejected) -> TransactionResult:
        self._record("refuse", (), transaction, encoded)
        result = TransactionResult(transaction.hash, refusal.code, data=refusal.data)
        self._results.append(result)
        self._order_ends.append(len(self.block.orders))
        return result

    def _begin(self, messages: Sequence[L1Message]) -> Progress:
        progress: Progress = self._record("begin", tuple(messages), None, b"")
        return progress

    def _step(self, item: L1Message | Transaction | None, encoded: bytes = b"") -> None:
        self.progress = self._record("step", (), item, encoded)

    def _end(self) -> tuple[BlockHeader, bytes]:
        closed: tuple[BlockHeader, bytes] = self._record("end", (), None, b"")
        return closed

    def _record(
        self,
        name: str,
        messages: tuple[L1Message, ...],
        item: L1Message | Transaction | None,
        encoded: bytes,
    ) -> Any:
        block = self.block
        block.entries.clear()
        source = StepInput(name, block.timestamp_ms, block.origin, block.table, messages, item, encoded)
        view = StepView(self._store)
        returned = _run(view, block, source)
        self._on_step(view.finish(source))
        return returned
