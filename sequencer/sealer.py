"""From executed to durable: sign, write, fsync, and only then tell anybody.

A single task takes whatever has been executed since the last fsync, hands it to a worker thread in one go
(group commit), and releases the blocks in order when the thread has come back. The end of a batch goes
through the same queue, so the journal has it between the right blocks.

- iSEAL_001 A block is released only after an fsync that covers it.
- iSEAL_002 Blocks are released in order; after a failure none is released any more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from sequencer.machine import ClosedBatch, ExecutedBlock
from sequencer.metrics import Metrics
from sequencer.receipts import SealedBlock, encode_block
from sequencer.signing import SecretKey
from state.eip712 import Domain, header_digest
from state.hashing import keccak
from state.store import Store
from state.store_records import JournalBatch, JournalBlock, JournalMarket, JournalMessage, StoredBlock


@dataclass(frozen=True, slots=True)
class Sealed:
    """A durable block: what is served, what is stored, and what it was executed from."""

    block: SealedBlock
    stored: StoredBlock
    executed: ExecutedBlock


@dataclass(frozen=True, slots=True)
class Closed:
    """A batch whose end is in the journal; its checkpoint will cover all records before `journal_next`."""

    batch: ClosedBatch
    journal_next: int


def sealed_block(executed: ExecutedBlock, signature: bytes) -> Sealed:
    """The block as it is served and stored, given the sequencer's signature."""
    result = executed.result
    block = SealedBlock(
        result.header,
        result.hash,
        signature,
        executed.batch,
        result.results,
        result.trades,
        result.messages,
        result.life,
    )
    hashes = tuple([each.hash for each in result.results])
    return Sealed(block, StoredBlock(result.header.number, encode_block(block), hashes), executed)


def results_hash(sealed: Sealed) -> bytes:
    """What the journal remembers of all that the block's receipts say."""
    return keccak(sealed.stored.data)


def journal_block(sealed: Sealed) -> JournalBlock:
    """What the journal keeps of a block."""
    header = sealed.block.header
    executed = sealed.executed
    return JournalBlock(
        header.number,
        sealed.block.batch,
        header.parent_hash,
        header.timestamp_ms,
        header.transactions,
        header.l1_block,
        header.inbox_next,
        sealed.block.hash,
        sealed.block.signature,
        results_hash(sealed),
        executed.result.encoded,
        tuple([JournalMessage(it.kind, it.sender, it.l1_block, it.payload) for it in executed.messages]),
        tuple([JournalMarket(market, *entry) for market, entry in executed.table_added]),
        executed.origin.base_fee_wei,
        executed.origin.excess_blob_gas,
    )


class Sealer:
    """See the module's text. `on_sealed` and `on_closed` are called in the trio thread, in order."""

    def __init__(
        self,
        store: Store,
        key: SecretKey,
        domain: Domain,
        metrics: Metrics,
        *,
        max_waiting: int,
        on_sealed: Callable[[Sealed], None],
        on_closed: Callable[[Closed], None],
    ) -> None:
        self._store = store
        self._key = key
        self._domain = domain
        self._metrics = metrics
        self._max_waiting = max_waiting
        self._on_sealed = on_sealed
        self._on_closed = on_closed
        self._waiting: deque[tuple[float, ExecutedBlock | ClosedBatch]] = deque()
        self._in_hand = 0
        self._changed = trio.Condition()

    async def put(self, item: ExecutedBlock | ClosedBatch) -> None:
        """Queues a block, or the end of the batch of the blocks before it; waits while too many wait."""
        async with self._changed:
            while len(self._waiting) + self._in_hand >= self._max_waiting:
                await self._changed.wait()
            self._waiting.append((trio.current_time(), item))
            self._changed.notify_all()

    async def flush(self) -> None:
        """Waits until everything put so far is durable and released."""
        async with self._changed:
            while self._waiting or self._in_hand:
                await self._changed.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Seals until cancelled. Raises StoreError when the disk refuses; then nothing more is released."""
        task_status.started()
        while True:
            async with self._changed:
                while not self._waiting:
                    await self._changed.wait()
                items = list(self._waiting)
                self._waiting.clear()
                self._in_hand = len(items)
            done = await trio.to_thread.run_sync(self._write, [item for _, item in items])
            now = trio.current_time()
            for (since, _), item in zip(items, done, strict=True):
                if isinstance(item, Sealed):
                    self._metrics.seal_s.observe(now - since)
                    self._on_sealed(item)
                else:
                    self._on_closed(item)
            async with self._changed:
                self._in_hand = 0
                self._changed.notify_all()

    def _write(self, items: Sequence[ExecutedBlock | ClosedBatch]) -> list[Sealed | Closed]:
        """In a worker thread: everything is on disk when this returns. Raises StoreError."""
        done: list[Sealed | Closed] = []
        unwritten: list[JournalBlock] = []
        for item in items:
            if isinstance(item, ExecutedBlock):
                sealed = sealed_block(item, self._key.sign(header_digest(self._domain, item.result.header)))
                unwritten.append(journal_block(sealed))
                done.append(sealed)
                continue
            if unwritten:
                self._store.append_blocks(unwritten)
                unwritten = []
            record = JournalBatch(item.number, item.first_block, item.last_block, item.head)
            done.append(Closed(item, self._store.close_batch(record)))
        if unwritten:
            self._store.append_blocks(unwritten)
        begun = time.perf_counter()
        self._store.sync()
        self._metrics.fsync_s.observe(time.perf_counter() - begun)
        return done
