"""After a restart: the journal executed again on top of the checkpoint, and compared with what was promised.

The state at the last checkpoint plus the journal gives the state at the last acknowledged block. Execution
is deterministic, so every block must come out with the hash that was signed and the results that receipts
told, and every batch with the root that was recorded. If anything differs (damaged leaves, another
release, a bug), the node must not start: it would contradict its own receipts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from state.journal_format import StoreCode, StoreError
from state.store import Store
from state.store_records import JournalBatch, JournalBlock, JournalRoot


class Replayed(NamedTuple):
    """What executing a block again gave: its hash, and the keccak of its stored data."""

    block_hash: bytes
    results: bytes


class Machine(Protocol):
    """What executes; it starts at the store's last checkpoint."""

    def replay_block(self, block: JournalBlock) -> Replayed:
        """Executes the block; if `batch_number` is new, opens that batch before."""

    def replay_close(self, batch: JournalBatch) -> bytes:
        """Closes the batch and returns the state root after it."""

    def replay_checkpoint(self, batch: JournalBatch, journal_next: int) -> None:
        """The root is as recorded: makes the batch's checkpoint."""


@dataclass(slots=True)
class Recovered:
    """Where replay stands: what it did, and the last block and closed batch."""

    last_block: int
    last_block_hash: bytes
    last_batch: int
    blocks: int = 0
    batches: int = 0


def recover(store: Store, machine: Machine) -> Recovered:
    """Replays all that the checkpoint does not cover, in order.

    Raises StoreError (DIVERGED) where replay does not give what was recorded, naming the block or batch
    and both values; a checkpoint is made only of batches that agreed. ValueError if there is no checkpoint
    to start from.
    """
    checkpoint = store.last_checkpoint
    if checkpoint is None:
        raise ValueError("there is no checkpoint yet: the genesis state is written first, as batch 0")
    roots = {
        record.number: record.root for _, record in store.journal_records() if isinstance(record, JournalRoot)
    }
    at = Recovered(checkpoint.last_block, checkpoint.last_block_hash, checkpoint.batch_number)
    _compare(
        store, f"batch {at.last_batch}: root", roots.get(at.last_batch, checkpoint.root), checkpoint.root
    )
    for sequence, record in store.journal_records():
        if isinstance(record, JournalBlock):
            _replay_block(store, machine, record, at)
        elif isinstance(record, JournalBatch):
            _compare(store, "batch closed", at.last_batch + 1, record.number)
            _compare(store, f"batch {record.number}: last block", at.last_block, record.last_block)
            root = machine.replay_close(record)
            _compare(store, f"batch {record.number}: root", roots.get(record.number, root), root)
            machine.replay_checkpoint(record, sequence + 1)
            at.last_batch, at.batches = record.number, at.batches + 1
    return at


def _replay_block(store: Store, machine: Machine, block: JournalBlock, at: Recovered) -> None:
    _compare(store, "next block", at.last_block + 1, block.number)
    _compare(store, f"block {block.number}: parent hash", at.last_block_hash, block.parent_hash)
    _compare(store, f"block {block.number}: batch", at.last_batch + 1, block.batch_number)
    replayed = machine.replay_block(block)
    _compare(store, f"block {block.number}: hash", block.block_hash, replayed.block_hash)
    _compare(store, f"block {block.number}: results", block.results, replayed.results)
    at.last_block, at.last_block_hash, at.blocks = block.number, block.block_hash, at.blocks + 1


def _compare(store: Store, what: str, expected: bytes | int, got: bytes | int) -> None:
    if expected != got:
        values = [f"0x{v.hex()}" if isinstance(v, bytes) else str(v) for v in (expected, got)]
        message = (
            f"{what}: expected {values[0]}, got {values[1]}. The node does not start, because it would "
            f"contradict what it signed. If the software was changed, start the release that wrote this "
            f"directory; otherwise keep a copy of the directory and report this"
        )
        raise StoreError(StoreCode.DIVERGED, str(store.path), message)
