"""A small deterministic chain over the real store and the real tree, to test them without the exchange.

Block n of a seed is a fixed string; executing it changes a few leaves and yields a hash. So any process
can tell, without the disk, what must stand there: `expected_leaves`, `block_record`.
"""

from collections.abc import Mapping
from random import Random

from state.hashing import keccak
from state.journal_format import Identity
from state.recovery import Replayed
from state.store import Store
from state.store_records import (
    JournalBatch,
    JournalBlock,
    JournalMarket,
    JournalMessage,
    JournalRoot,
    StoredBatch,
    StoredBlock,
)
from state.tree import Tree

IDENTITY = Identity(31337, b"\x11" * 20, b"\x22" * 32)
GENESIS = {b"\x00" * 32: b"genesis"}
NO_HASH = bytes(32)


def encoded_block(seed: int, number: int) -> bytes:
    """The bytes of block `number`: 20 to 2,000 of them."""
    random = Random(seed * 1_000_003 + number)
    return random.randbytes(random.randint(20, 2_000))


def changes_of(encoded: bytes) -> dict[bytes, bytes | None]:
    """What executing a block does: sets up to 8 leaves of 512, and deletes one."""
    changes: dict[bytes, bytes | None] = {
        keccak(encoded[i : i + 2] + bytes([encoded[i] & 1])): encoded[i : i + 12]
        for i in range(min(len(encoded), 8))
    }
    changes[keccak(encoded[9:11] + bytes([encoded[9] & 1]))] = None
    return changes


def stored_block(number: int, encoded: bytes) -> StoredBlock:
    """What the node would serve, with two transactions."""
    return StoredBlock(number, b"data of " + encoded, (keccak(encoded + b"0"), keccak(encoded + b"1")))


def block_hash(parent_hash: bytes, encoded: bytes) -> bytes:
    return keccak(parent_hash + encoded)


def apply_changes(leaves: dict[bytes, bytes], changes: Mapping[bytes, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            leaves.pop(key, None)
        else:
            leaves[key] = value


def expected_leaves(seed: int, last_block: int) -> dict[bytes, bytes]:
    """The state after `last_block`, by no way through a store."""
    leaves = dict(GENESIS)
    for number in range(1, last_block + 1):
        apply_changes(leaves, changes_of(encoded_block(seed, number)))
    return leaves


class ToyChain:
    """Seals blocks of a seed into a store, closes batches, and is the `Machine` of its recovery."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.seed = seed
        self.tree = Tree(store.pages, cache_pages=128)
        if store.last_checkpoint is None:
            root = self.tree.update(GENESIS)
            genesis = StoredBatch(0, 1, 0, NO_HASH, root, b"")
            store.checkpoint(genesis, self.tree.commit(0), (), 1)
        assert store.last_checkpoint is not None
        self.last_block = store.last_checkpoint.last_block
        self.last_hash = store.last_checkpoint.last_block_hash
        self.batch = store.last_checkpoint.batch_number + 1
        self.leaves: dict[bytes, bytes | None] = {}
        self.open: list[StoredBlock] = []

    def seal(self) -> JournalBlock:
        """Executes and returns the next block; the caller appends it."""
        encoded = encoded_block(self.seed, self.last_block + 1)
        block = JournalBlock(
            number=self.last_block + 1,
            batch_number=self.batch,
            parent_hash=self.last_hash,
            timestamp_ms=1_700_000_000_000 + self.last_block,
            transactions=keccak(encoded),
            l1_block=self.last_block,
            inbox_next=0,
            block_hash=block_hash(self.last_hash, encoded),
            signature=bytes(64),
            results=keccak(stored_block(self.last_block + 1, encoded).data),
            encoded=encoded,
            messages=(JournalMessage(1, b"\x01" * 20, 7, b"deposit"),),
            table=(JournalMarket(1, 10_000, 1_000, 9_000_000),),
            base_fee_wei=7,
            excess_blob_gas=None,
        )
        self.replay_block(block)
        return block

    def journal_batch(self) -> JournalBatch:
        """The end of the open batch."""
        first = self.last_block - len(self.open) + 1
        return JournalBatch(self.batch, first, self.last_block, b"head")

    def close(self) -> int:
        """Closes the open batch with everything after it; returns the journal position."""
        batch = self.journal_batch()
        journal_next = self.store.close_batch(batch)
        root = self.replay_close(batch)
        self.store.append_root(JournalRoot(batch.number, root))
        self.replay_checkpoint(batch, journal_next)
        return journal_next

    def replay_block(self, block: JournalBlock) -> Replayed:
        stored = stored_block(block.number, block.encoded)
        self.leaves.update(changes_of(block.encoded))
        self.open.append(stored)
        self.last_block, self.last_hash = block.number, block_hash(self.last_hash, block.encoded)
        return Replayed(self.last_hash, keccak(stored.data))

    def replay_close(self, batch: JournalBatch) -> bytes:
        return self.tree.update(self.leaves)

    def replay_checkpoint(self, batch: JournalBatch, journal_next: int) -> None:
        data = b"".join(block.data for block in self.open)
        stored = StoredBatch(
            batch.number, batch.first_block, batch.last_block, self.last_hash, self.tree.root, data
        )
        self.store.checkpoint(stored, self.tree.commit(batch.number), self.open, journal_next)
        self.leaves, self.open, self.batch = {}, [], batch.number + 1

    def current_leaves(self) -> dict[bytes, bytes]:
        """All leaves of the store under the changes of the open batch."""
        leaves = dict(self.store.leaves.scan(b""))
        apply_changes(leaves, self.leaves)
        return leaves
