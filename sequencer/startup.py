"""From a data directory to a running state: the last checkpoint, the journal executed again, or a refusal.

The first start writes the genesis state as batch 0. Every later start replays what the checkpoint does not
cover (`state/recovery.py` compares every block hash, result and root with what was promised) and refuses to
go on, saying where it differs, rather than contradict a receipt. All of this blocks: the node runs it in a
thread before it opens its port.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sequencer.committer import BOOKS, TreeAccess, stored_batch
from sequencer.config import HistorySection
from sequencer.conservation import Books, ConservationError
from sequencer.history import History
from sequencer.machine import ClosedBatch, Machine
from sequencer.sealer import Sealed, results_hash, sealed_block
from state.actions import OracleUpdate, Payload, Transaction
from state.block import L1Message, L1Origin, OrderedBlock
from state.cache import CachedState
from state.codec import MarketEntry, decode_transaction, read_varint
from state.eip712 import Domain, report_digest, signature_pairs, transaction_hash, update_hash
from state.genesis import GENESIS_ROOT, genesis_leaves
from state.recovery import Recovered, Replayed, recover
from state.signatures import recover_many
from state.store import Identity, Store, StoreCode, StoreError
from state.store_records import JournalBatch, JournalBlock, StoredBatch
from state.tree import Tree

DEFAULT_HISTORY = HistorySection()


@dataclass(slots=True)
class Opened:
    """A recovered state and its store; whoever called `open_state` closes the store."""

    store: Store
    trees: TreeAccess
    machine: Machine
    books: Books
    history: History
    recovered: Recovered
    unsaved: list[Sealed]
    """Durable blocks of the open batch, in order: they are in the journal only."""


def open_state(
    path: Path,
    domain: Domain,
    clean_leaves: int,
    tree_pages: int,
    history_limits: HistorySection = DEFAULT_HISTORY,
) -> Opened:
    """Opens or makes the data directory, and replays its journal. Blocks.

    Raises StoreError, which says what is wrong and what to do.
    """
    store = Store.open(path, Identity(domain.chain_id, domain.contract, GENESIS_ROOT))
    try:
        if store.last_checkpoint is None:
            _write_genesis(store, tree_pages)
        tree = Tree(store.pages, tree_pages)
        checkpoint = store.last_checkpoint
        assert checkpoint is not None
        if tree.root != checkpoint.root:
            raise StoreError(
                StoreCode.DAMAGED,
                str(path),
                f"the tree has root 0x{tree.root.hex()}, the checkpoint of batch {checkpoint.batch_number} "
                f"recorded 0x{checkpoint.root.hex()}; restore the data directory from a copy",
            )
        machine = Machine(CachedState(store.leaves, clean_leaves))
        books = Books(store.leaves.get, store.meta(BOOKS))
        since_ms = machine.system.timestamp_ms + 1 if checkpoint.batch_number else 0
        history = History(store.pages, machine.markets, history_limits, checkpoint.batch_number, since_ms)
        replayer = _Replayer(store, tree, machine, books, history, domain)
        recovered = recover(store, replayer)
        return Opened(store, TreeAccess(tree), machine, books, history, recovered, replayer.unsaved)
    except BaseException:
        store.close()
        raise


def _write_genesis(store: Store, tree_pages: int) -> None:
    """Batch 0: the genesis leaves, no blocks."""
    tree = Tree(store.pages, tree_pages)
    root = tree.update({key: leaf.encode() for key, leaf in genesis_leaves().items()})
    assert root == GENESIS_ROOT, "genesis_leaves do not give GENESIS_ROOT"
    books = Books(store.leaves.get)
    batch = StoredBatch(0, 1, 0, bytes(32), root, b"")
    store.checkpoint(batch, tree.commit(0), [], 1, {BOOKS: books.encode()})


@dataclass(slots=True)
class _Replayer:
    """The machine that recovery drives (`state.recovery.Machine`)."""

    store: Store
    tree: Tree
    machine: Machine
    books: Books
    history: History
    domain: Domain
    unsaved: list[Sealed] = field(default_factory=list)
    table: dict[int, MarketEntry] = field(default_factory=dict)
    closed: ClosedBatch | None = None
    root: bytes = b""

    def replay_block(self, block: JournalBlock) -> Replayed:
        for entry in block.table:
            self.table[entry.market] = MarketEntry(entry.tick_uusd, entry.lot_ulots, entry.reference_ticks)
        executed = self.machine.replay(self._ordered(block), self.table)
        sealed = sealed_block(executed, block.signature)
        self.unsaved.append(sealed)
        self.history.sealed(executed)
        return Replayed(sealed.block.hash, results_hash(sealed))

    def replay_close(self, batch: JournalBatch) -> bytes:
        self.closed = self.machine.close()
        self.table = {}
        self.root = self.tree.update(self.closed.dirty())
        return self.root

    def replay_checkpoint(self, batch: JournalBatch, journal_next: int) -> None:
        closed, self.closed = self.closed, None
        assert closed is not None
        try:
            self.books.take(closed.dirty())
        except ConservationError as error:
            raise StoreError(StoreCode.DIVERGED, str(self.store.path), str(error)) from error
        blocks = [sealed.stored for sealed in self.unsaved]
        writes = self.tree.commit(closed.number)
        meta = {BOOKS: self.books.encode()}
        history = self.history.rows(closed.number, closed.last_block)
        self.store.checkpoint(stored_batch(closed, self.root), writes, blocks, journal_next, meta, history)
        self.history.archived(closed.last_block)
        self.machine.view.release()
        self.unsaved = []

    def _ordered(self, block: JournalBlock) -> OrderedBlock:
        """The block as it was executed: signers and hashes are found anew."""
        data = block.encoded
        offset = 0
        for _ in range(3):
            _, offset = read_varint(data, offset)
        payloads: list[Payload] = []
        encoded: list[bytes] = []
        while data[offset]:
            payload, end = decode_transaction(data, offset, block.timestamp_ms, self.table)
            payloads.append(payload)
            encoded.append(data[offset:end])
            offset = end
        messages = tuple(L1Message(it.kind, it.sender, it.l1_block, it.payload) for it in block.messages)
        transactions = tuple(self._transaction(payload) for payload in payloads)
        origin = L1Origin(block.l1_block, block.base_fee_wei, block.excess_blob_gas)
        return OrderedBlock(block.timestamp_ms, origin, messages, transactions, tuple(encoded))

    def _transaction(self, payload: Payload) -> Transaction:
        if isinstance(payload, OracleUpdate):
            pairs = [(report_digest(self.domain, report), report.signature) for report in payload.reports]
            found = update_hash([transaction_hash(*pair) for pair in pairs])
        else:
            pairs = signature_pairs(self.domain, payload, self.machine.markets.name_hash_of)
            found = transaction_hash(*pairs[0])
        return Transaction(payload, tuple(recover_many(pairs)), found)
