"""Re-executing batches: from a batch's bytes and the messages it could read to the root it must have.

Total, as PROTOCOL section 6 demands: any bytes give exactly one next state. Blocking: for worker threads.

`Replay` owns a data directory (`state.store`), always at a batch boundary: a batch whose root is not the one
claimed is never written, so what is stored is verified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from l1_bridge.batch import BatchBlock, BatchHead, named_markets
from l1_bridge.derivation import Cursor, DerivedBatch
from l1_bridge.recovery import NO_NAME, Signed, decoded, recover_payload
from state.actions import Transaction
from state.block import BlockResult, InvalidBlock, L1Message, L1Origin, OrderedBlock
from state.cache import CachedState
from state.eip712 import Domain
from state.genesis import GENESIS_ROOT, genesis_leaves
from state.hashing import keccak
from state.keys import DUE, LISTINGS_KEY, SYSTEM_KEY, instrument_key, parse_due_key
from state.leaves import Listings, System
from state.overlay import Overlay
from state.proofs import AbsenceProof, MembershipProof
from state.store import Identity, Store
from state.store_records import StoredBatch, StoredBlock
from state.transition import BlockExecution, apply_block, close_batch, open_batch, same_origin, void_batch
from state.tree import Tree
from state.units import MS_PER_S

CACHED_LEAVES = 400_000
CACHED_PAGES = 4_096
_DUE_PREFIX = bytes([DUE])


@dataclass(frozen=True, slots=True)
class Replayed:
    """A batch after execution, not yet written."""

    root: bytes
    blocks: tuple[BlockResult, ...]
    transactions: int
    ignored_bytes: int
    """At the batch's end, that are not valid blocks: an honest sequencer posts none."""


def state_directory(data_dir: Path, domain: Domain) -> Path:
    """Where a verifier that was given `data_dir` keeps the state of this rollup."""
    return data_dir / f"{domain.chain_id}-{domain.contract.hex()}"


class Replay:
    """The state as derived from L1. A context manager; `close` frees the directory."""

    def __init__(self, path: Path, domain: Domain):
        """Opens the directory, or makes it with the genesis state. Raises StoreError, TreeCorrupt."""
        self.domain = domain
        self._store = Store.open(path, Identity(domain.chain_id, domain.contract, GENESIS_ROOT))
        try:
            self._tree = Tree(self._store.pages, CACHED_PAGES)
            if self._store.last_checkpoint is None:
                self._write_genesis()
            self._view = CachedState(self._store.leaves, CACHED_LEAVES)
        except BaseException:
            self._store.close()
            raise
        self._names: dict[int, bytes] = {}
        self._pending: tuple[DerivedBatch, Replayed] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the store; nothing is lost."""
        self._store.close()

    @property
    def system(self) -> System:
        """The registers."""
        system: System = self._view.get(SYSTEM_KEY)
        return system

    @property
    def cursor(self) -> Cursor:
        """Where the stored state stands."""
        checkpoint = self._store.last_checkpoint
        assert checkpoint is not None
        system = self.system
        l1_block = int.from_bytes(self._store.meta("l1_block") or b"", "big")
        return Cursor(
            checkpoint.batch_number, checkpoint.root, system.inbox_next, system.inbox_hash, l1_block
        )

    def names(self) -> dict[int, bytes]:
        """Name hashes of the instruments listed so far."""
        for market in range(len(self._names) + 1, self.system.next_market):
            self._names[market] = self._name(self._view, market)
        return self._names

    def prove(self, key: bytes, batch: int | None = None) -> MembershipProof | AbsenceProof:
        """A proof under the root of a batch (the last one unless named). Raises VersionUnavailable."""
        return self._tree.at(self.cursor.batch if batch is None else batch).prove(key)

    def execute(self, derived: DerivedBatch, signed: Sequence[Sequence[Signed | None]]) -> Replayed:
        """Executes a batch in memory. `keep` writes it; if that is not wanted, close and open again."""
        data = derived.data
        batch = decoded(data)
        head = batch.head
        results: list[BlockResult] = []
        end = batch.head_bytes
        if head is None or not self._opened(head):
            void_batch(self._view, len(data))
            end = 0
        else:
            available = list(derived.messages)
            for block, recovered in zip(batch.blocks, signed, strict=True):
                origin = self._origin(block.l1_block, derived.origins)
                if origin is None or block.messages > len(available):
                    break
                messages = tuple(available[: block.messages])
                transactions = self._transactions(block, origin, messages, recovered, head.table)
                ordered = OrderedBlock(block.timestamp_ms, origin, messages, transactions, block.encoded)
                try:
                    results.append(apply_block(self._view, ordered, head.table))
                except InvalidBlock:
                    break
                del available[: block.messages]
                end = block.end
            close_batch(self._view, batch.head_bytes, len(data) - end)
        root = self._tree.update(self._view.take_dirty())
        count = sum(len(result.results) for result in results)
        replayed = Replayed(root, tuple(results), count, len(data) - end)
        self._pending = (derived, replayed)
        return replayed

    def keep(self, final: int) -> Cursor:
        """Writes the batch that was executed last, and gives up roots before batch `final`.

        Raises StoreError.
        """
        assert self._pending is not None
        derived, replayed = self._pending
        self._pending = None
        last = self._store.last_checkpoint
        assert last is not None
        system = self.system
        number = system.batch_number
        hashes = [result.hash for result in replayed.blocks]
        blocks = [
            StoredBlock(result.header.number, b"", tuple([each.hash for each in result.results]))
            for result in replayed.blocks
        ]
        batch = StoredBatch(
            number,
            last.last_block + 1,
            system.block_number,
            hashes[-1] if hashes else last.last_block_hash,
            replayed.root,
            b"",
        )
        writes = self._tree.commit(number) + self._tree.prune(final)
        l1_block = derived.event.l1_block.to_bytes(8, "big")
        self._store.checkpoint(batch, writes, blocks, last.journal_next, {"l1_block": l1_block})
        self._view.release()
        return self.cursor

    def _opened(self, head: BatchHead) -> bool:
        try:
            open_batch(self._view, head)
        except InvalidBlock:
            return False
        return True

    def _origin(self, number: int, found: Mapping[int, L1Origin]) -> L1Origin | None:
        """The L1 origin of the next block; None when there was no such block before the batch was posted."""
        if number == self.system.l1_block:
            return same_origin(self._view)
        return found.get(number)

    def _transactions(
        self,
        block: BatchBlock,
        origin: L1Origin,
        messages: tuple[L1Message, ...],
        recovered: Sequence[Signed | None],
        table: Any,
    ) -> tuple[Transaction, ...]:
        """With names as they are when the block has read its messages and done what was due.

        What was recovered ahead holds names from some time before: good unless an instrument has gone since.
        """
        if None not in recovered and self._names_stand(block):
            pairs = zip(recovered, block.transactions, strict=True)
            return tuple([signed.transaction(payload) for signed, payload in pairs if signed])
        view: Any = Overlay(self._view)
        BlockExecution(view, block.timestamp_ms, origin, messages, table)
        return tuple(
            [
                recover_payload(self.domain, payload, lambda market: self._name(view, market)).transaction(
                    payload
                )
                for payload in block.transactions
            ]
        )

    def _names_stand(self, block: BatchBlock) -> bool:
        """Whether all instruments that the block names are there, also when it has done what is due."""
        view = self._view
        due = view.first_under(_DUE_PREFIX)
        if due is not None and parse_due_key(due[0])[0] <= block.timestamp_ms // MS_PER_S:
            return False
        listings: Listings | None = view.get(LISTINGS_KEY)
        if listings is None or listings.delisted == 0:
            return True
        named = {market for payload in block.transactions for market in named_markets(payload)}
        return all(view.get(instrument_key(market)) is not None for market in named)

    def _name(self, view: Any, market: int) -> bytes:
        if not 0 < market < 2**32:
            return NO_NAME
        instrument = view.get(instrument_key(market))
        return NO_NAME if instrument is None else keccak(instrument.name.rstrip(b"\0"))

    def _write_genesis(self) -> None:
        leaves = {key: leaf.encode() for key, leaf in genesis_leaves().items()}
        root = self._tree.update(dict(leaves))
        genesis = StoredBatch(0, 1, 0, bytes(32), root, b"")
        self._store.checkpoint(genesis, self._tree.commit(0), [], 1)
