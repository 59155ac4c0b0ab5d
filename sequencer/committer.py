"""What happens to a closed batch beside the sealing of new blocks: root, tree, database, then the poster.

One batch at a time, in a worker thread: the tree takes the changed leaves, the root goes into the journal,
the money is counted, accounts' history is made, and one atomic write moves the database to the end of the
batch. Blocks of the next batch are executed and sealed meanwhile; the cache keeps the changed leaves in
memory until the database has them. While a batch is open the tree takes slices of its changes already, and
history its blocks so far, because all at once would keep the event loop waiting for the interpreter.

- iCOMMIT_001 Money is conserved: over all accounts, cash and position cost, and the pots, add up to the
  collateral. A batch that fails this is not checkpointed, and the node stops.
- iCOMMIT_002 A batch reaches the poster only after its checkpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

import trio

from sequencer.conservation import Books, ConservationError
from sequencer.history import History
from sequencer.machine import Changes, ClosedBatch, Machine
from sequencer.metrics import Metrics
from sequencer.receipts import Receipts
from sequencer.sealer import Closed, Sealed
from state.store import Store
from state.store_records import JournalRoot, StoredBatch, StoredBlock
from state.tree import Tree

PART_LEAVES = 1_024
"""Given to the tree in one go: it holds the interpreter meanwhile, some ten milliseconds."""
BOOKS = "books"
"""Name under which a checkpoint keeps the running sums."""


@dataclass(slots=True)
class TreeAccess:
    """The tree, for worker threads; whoever holds `lock` may touch it."""

    tree: Tree
    lock: Lock = field(default_factory=Lock)


def stored_batch(closed: ClosedBatch, root: bytes) -> StoredBatch:
    return StoredBatch(
        closed.number, closed.first_block, closed.last_block, closed.last_block_hash, root, closed.data
    )


def update_in_parts(tree: Tree, changes: Changes) -> None:
    """`tree.update`, with chances for other threads to run. Neighbours stay together, they share branches."""
    ordered = sorted(changes)
    for start in range(0, len(ordered), PART_LEAVES):
        tree.update({key: changes[key] for key in ordered[start : start + PART_LEAVES]})


class Committer:
    """See the module's text. `on_committed` is called in the trio thread.

    `keep_from(batch)` is the oldest batch whose state must stay provable once `batch` is committed.
    """

    def __init__(
        self,
        store: Store,
        trees: TreeAccess,
        machine: Machine,
        books: Books,
        receipts: Receipts,
        history: History,
        metrics: Metrics,
        *,
        keep_from: Callable[[int], int],
        on_committed: Callable[[StoredBatch], None],
    ) -> None:
        self._store = store
        self._trees = trees
        self._machine = machine
        self._books = books
        self._receipts = receipts
        self._history = history
        self._metrics = metrics
        self._keep_from = keep_from
        self._on_committed = on_committed
        self._blocks: list[StoredBlock] = []
        self._closed: tuple[Closed, list[StoredBlock]] | None = None
        self._changes: deque[Changes] = deque()
        self._idle = trio.Event()
        self._idle.set()
        self._arrived = trio.Event()

    def sealed(self, sealed: Sealed) -> None:
        """A durable block: kept until its batch is checkpointed."""
        self._blocks.append(sealed.stored)

    def begin(self) -> None:
        """A batch is being closed: its end is on the way through the sealer."""
        self._idle = trio.Event()

    def closed(self, closed: Closed) -> None:
        """The end of a batch is durable, and all its blocks were given to `sealed` before it."""
        self._closed = closed, self._blocks
        self._blocks = []
        self._arrived.set()

    @property
    def wants_changes(self) -> bool:
        """Whether the open batch's changes so far would be put into the tree at once."""
        return not self.is_busy and not self._changes

    def prepare(self, changes: Changes) -> None:
        """Changes of the open batch: put into the tree now, so that less is left when the batch is closed."""
        self._changes.append(changes)
        self._arrived.set()

    @property
    def is_busy(self) -> bool:
        """Whether a closed batch is still being written."""
        return not self._idle.is_set()

    async def wait_idle(self) -> None:
        """Waits until no closed batch is being written, or `run` has ended."""
        await self._idle.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Commits closed batches until cancelled. Raises ConservationError, StoreError."""
        task_status.started()
        try:
            while True:
                await self._arrived.wait()
                self._arrived = trio.Event()
                while self._changes:
                    await trio.to_thread.run_sync(self._update, self._changes[0])
                    self._changes.popleft()
                if self._closed is not None:
                    await self._commit_closed()
                    self._idle.set()
        finally:
            self._idle.set()

    async def _commit_closed(self) -> None:
        assert self._closed is not None
        (closed, blocks), self._closed = self._closed, None
        begun = trio.current_time()
        batch = await trio.to_thread.run_sync(self.commit, closed, blocks)
        self._metrics.checkpoint_s.observe(trio.current_time() - begun)
        self._metrics.batches.inc()
        for _ in closed.batch.changes:
            self._machine.view.release()
        self._receipts.archived(batch.last_block)
        self._history.archived(batch.last_block)
        self._on_committed(batch)

    def commit(self, closed: Closed, blocks: Sequence[StoredBlock]) -> StoredBatch:
        """Root, books and checkpoint of one batch; blocks. Raises ConservationError, StoreError."""
        with self._trees.lock:
            return self._commit(closed, blocks)

    def _update(self, changes: Changes) -> None:
        with self._trees.lock:
            update_in_parts(self._trees.tree, changes)
        self._history.prepare()

    def _commit(self, closed: Closed, blocks: Sequence[StoredBlock]) -> StoredBatch:
        batch = closed.batch
        tree = self._trees.tree
        update_in_parts(tree, batch.changes[-1])
        root = tree.root
        self._store.append_root(JournalRoot(batch.number, root))
        try:
            self._books.take(batch.dirty())
        except ConservationError:
            self._metrics.conservation_ok.set(0)
            raise
        writes = tree.commit(batch.number) + tree.prune(self._keep_from(batch.number))
        stored = stored_batch(batch, root)
        meta = {BOOKS: self._books.encode()}
        history = self._history.rows(batch.number, batch.last_block)
        self._store.checkpoint(stored, writes, blocks, closed.journal_next, meta, history)
        return stored
