"""The data directory: LevelDB at the last checkpoint, and the journal of what came after.

With `state/journal.py` the one place of `state/` that does I/O. A data directory holds `LOCK`, `db/` and
`journal/`. Rows of the database, by the first byte of their key (numbers big-endian u64):

    L | key          leaf                          T...           the tree's own (`state/tree.py`)
    B | number       StoredBlock                   X | tx hash    block number, index in it (u32)
    N | number       StoredBatch                   P | number     a batch's posting, the poster's own bytes
    M | name         values of other parts         S | name       the store's own
    H...             accounts' history, the node's own (`sequencer/history.py`)

Invariants:
- The database always stands exactly at one batch boundary: leaves, tree, blocks, transaction index, history,
  batch and checkpoint go into one synced write batch. Journal segments that it covers are deleted after it,
  not before.
- A sealed block is found in the database only from its batch's checkpoint on; until then its owner has it in
  memory, and after a crash replay (`state/recovery.py`) makes it again from the journal.
- One process at a time, one writer in it (checkpoint, pruning); reads and `put_..._sync` from any thread.
- After a failed write nothing more is written.

All calls block; the node makes the slow ones in worker threads.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from threading import Lock
from typing import Any

import msgspec
import plyvel

from state.journal import Journal, UnfinishedTail, os_error, sync_directory
from state.journal_format import Identity, JournalDamaged, StoreCode, StoreError
from state.store_records import (
    KIND_OF,
    STORE_FORMAT,
    TYPE_OF,
    Checkpoint,
    JournalBatch,
    JournalBlock,
    JournalRecord,
    JournalRoot,
    StoredBatch,
    StoredBlock,
    StoreHead,
)

__all__ = ["Identity", "JournalDamaged", "Store", "StoreCode", "StoreError"]

LEAF, TREE, BLOCK, TRANSACTION, BATCH, POSTING, META, OWN, HISTORY = (bytes([b]) for b in b"LTBXNPMSH")
_HEAD_KEY = OWN + b"head"
_CHECKPOINT_KEY = OWN + b"checkpoint"
OLDEST_BLOCK_KEY = OWN + b"oldest_block"
OLDEST_BATCH_KEY = OWN + b"oldest_batch"
POSITION = Struct(">QI")
_WRITE_BUFFER_BYTES = 32 * 2**20
_BLOCK_CACHE_BYTES = 64 * 2**20
_BLOOM_BITS = 10

Write = tuple[bytes, bytes | None]


def _u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _after(prefix: bytes) -> bytes | None:
    """The first key above all that start with `prefix`; None if there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None


def _database_error(error: Exception, path: Path, doing: str) -> StoreError:
    """The StoreError for one of LevelDB, which tells errors of the operating system by their text only."""
    if isinstance(error, plyvel.CorruptionError):
        message = f"{doing}: {error}; restore the data directory from a copy"
        return StoreError(StoreCode.DAMAGED, str(path), message)
    for number in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if os.strerror(number) in str(error):
            return os_error(OSError(number, os.strerror(number)), path, doing)
    return StoreError(StoreCode.IO_ERROR, str(path), f"{doing} failed: {error}")


@contextmanager
def _database_errors(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except plyvel.Error as error:
        raise _database_error(error, path, doing) from error


def lock_directory(path: Path) -> int:
    """Makes the data directory if need be and locks it against other processes and openings.

    Returns the descriptor whose closing unlocks. Raises StoreError (LOCKED, READ_ONLY, ...).
    """
    try:
        if not path.exists():
            path.mkdir(parents=True)
            sync_directory(path.parent)
        descriptor = os.open(path.joinpath("LOCK"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise os_error(error, path, "opening the data directory") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        message = f"another node or tool (process {holder}) has this data directory open; stop it first"
        raise StoreError(StoreCode.LOCKED, str(path), message) from error
    except OSError as error:
        os.close(descriptor)
        raise os_error(error, path, "locking the data directory") from error
    return descriptor


def open_database(path: Path, create: bool) -> Any:
    """The directory's LevelDB, checksums verified. The caller holds the lock. Raises StoreError."""
    with _database_errors(path, "opening the database"):
        return plyvel.DB(
            str(path.joinpath("db")),
            create_if_missing=create,
            paranoid_checks=True,
            write_buffer_size=_WRITE_BUFFER_BYTES,
            lru_cache_size=_BLOCK_CACHE_BYTES,
            bloom_filter_bits=_BLOOM_BITS,
        )


def read_identity(database: Any, path: Path) -> Identity | None:
    """Whose database it is; None if it is new and empty. Raises StoreError."""
    with _database_errors(path, "reading"):
        row = database.get(_HEAD_KEY)
        if row is None and any(True for _ in database.iterator(include_value=False)):
            raise StoreError(StoreCode.WRONG_FORMAT, str(path), "the database is not one of Straddle's")
    if row is None:
        return None
    head = msgspec.msgpack.decode(row, type=StoreHead)
    if head.format != STORE_FORMAT:
        message = f"expected store format {STORE_FORMAT}, got {head.format}: use the release that wrote it"
        raise StoreError(StoreCode.WRONG_FORMAT, str(path), message)
    return Identity(head.chain_id, head.contract, head.genesis_root)


def read_checkpoint(database: Any, path: Path) -> Checkpoint | None:
    """Where the database stands; None before the first checkpoint. Raises StoreError."""
    with _database_errors(path, "reading"):
        row = database.get(_CHECKPOINT_KEY)
    return None if row is None else msgspec.msgpack.decode(row, type=Checkpoint)


def decode_record(kind: int, payload: bytes, sequence: int, path: Path) -> JournalRecord:
    """The typed record of a journal record. Raises StoreError (WRONG_FORMAT)."""
    try:
        record: JournalRecord = msgspec.msgpack.decode(payload, type=TYPE_OF[kind])
    except (KeyError, msgspec.DecodeError) as error:
        message = f"journal record {sequence} of kind {kind} is intact but unknown to this release: {error}"
        raise StoreError(StoreCode.WRONG_FORMAT, str(path), message) from error
    return record


class Pages:
    """Rows under whole keys: what `state/tree.py` reads (its PageStore), and readers of history."""

    def __init__(self, database: Any, path: Path) -> None:
        self._database = database
        self._path = path

    def get(self, key: bytes) -> bytes | None:
        """The value of a row. Raises StoreError."""
        try:
            value: bytes | None = self._database.get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise _database_error(error, self._path, "reading") from error
        return value

    def iterate(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Rows with start <= key < stop, ascending or not, of the moment it begins. Raises StoreError."""
        with (
            _database_errors(self._path, "reading"),
            self._database.iterator(start=start, stop=stop, reverse=reverse, verify_checksums=True) as rows,
        ):
            yield from rows


class Leaves:
    """The leaves at the last checkpoint: what `state/cache.py` reads (its LeafSource)."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def get(self, key: bytes) -> bytes | None:
        """A leaf's bytes. Raises StoreError."""
        return self._pages.get(LEAF + key)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All (key, leaf) whose key starts with `prefix`, ascending. Raises StoreError."""
        stop = _after(LEAF + prefix)
        assert stop is not None
        for key, value in self._pages.iterate(LEAF + prefix, stop):
            yield key[1:], value


class Store:
    """An open data directory; whoever opened it closes it. See the module for its invariants."""

    def __init__(self, path: Path, lock: int, database: Any, journal: Journal) -> None:
        self.path = path
        self.pages = Pages(database, path)
        self.leaves = Leaves(self.pages)
        self._lock_descriptor = lock
        self._database = database
        self._journal = journal
        self._checkpoint = read_checkpoint(database, path)
        self._failure: StoreError | None = None
        self._writer = Lock()

    @classmethod
    def open(cls, path: Path, identity: Identity) -> Store:
        """Opens the data directory of this rollup, or makes it.

        Raises StoreError: LOCKED, WRONG_IDENTITY, WRONG_FORMAT, DAMAGED (JournalDamaged for the journal's
        records), or what the operating system said. Nothing acknowledged is changed by a failed opening.
        """
        lock = lock_directory(path)
        database = None
        try:
            database = open_database(path, create=True)
            found = read_identity(database, path)
            if found is None:
                journal = Journal.create(path.joinpath("journal"), identity)
                who = (identity.chain_id, identity.contract, identity.genesis_root)
                with _database_errors(path, "creating"):
                    database.put(_HEAD_KEY, msgspec.msgpack.encode(StoreHead(STORE_FORMAT, *who)), sync=True)
            elif found != identity:
                message = (
                    f"this directory belongs to {found}; expected {identity}; name that rollup's directory"
                )
                raise StoreError(StoreCode.WRONG_IDENTITY, str(path), message)
            else:
                checkpoint = read_checkpoint(database, path)
                needed_from = checkpoint.journal_next if checkpoint else 1
                journal = Journal.open(path.joinpath("journal"), identity, needed_from)
            return cls(path, lock, database, journal)
        except BaseException:
            if database is not None:
                database.close()
            os.close(lock)
            raise

    def close(self) -> None:
        """Closes everything; does not sync; safe to repeat. Call when no other thread is inside."""
        self._journal.close()
        self._database.close()
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
        self._lock_descriptor = -1

    @property
    def last_checkpoint(self) -> Checkpoint | None:
        """Where the database stands; None until the genesis state was written as batch 0."""
        return self._checkpoint

    @property
    def journal_cut(self) -> UnfinishedTail | None:
        """What opening cut off the journal's end, never acknowledged; None if nothing."""
        return self._journal.cut

    @property
    def journal_segments(self) -> int:
        """How many journal files there are; many mean that checkpoints fall behind."""
        return self._journal.segment_count

    # the journal

    def append_blocks(self, blocks: Sequence[JournalBlock]) -> int:
        """Appends sealed blocks; returns the last record's sequence, durable once `sync` returned as much.

        Raises StoreError, and from then on always.
        """
        return self._append(blocks)

    def append_root(self, root: JournalRoot) -> int:
        """Appends a closed batch's root; the next `sync` makes it durable. Raises StoreError."""
        return self._append([root])

    def close_batch(self, batch: JournalBatch) -> int:
        """Appends the batch's end durably and begins a new segment for the blocks after it.

        Returns the `journal_next` of the batch's checkpoint. Raises StoreError.
        """
        sequence = self._append([batch])
        self._journal.rotate()
        return sequence + 1

    def sync(self) -> int:
        """Waits until all records appended before are on disk; returns the last durable sequence.

        Raises StoreError; then nothing appended since the last success may be acknowledged.
        """
        return self._journal.sync()

    def journal_records(self) -> Iterator[tuple[int, JournalRecord]]:
        """(sequence, record) of all that the checkpoint does not cover; for use before appending.

        Raises StoreError, JournalDamaged.
        """
        for record in self._journal.records(self._checkpoint.journal_next if self._checkpoint else 1):
            yield record.sequence, decode_record(record.kind, record.payload, record.sequence, self.path)

    # the database

    def checkpoint(
        self,
        batch: StoredBatch,
        tree_writes: Iterable[Write],
        blocks: Sequence[StoredBlock],
        journal_next: int,
        meta: Mapping[str, bytes | None] | None = None,
        history: Iterable[Write] = (),
    ) -> Checkpoint:
        """Moves the database to the end of `batch`, at once and durably, then drops the journal it covers.

        `tree_writes` are those of `Tree.commit` (leaves among them), `blocks` all blocks of the batch,
        `journal_next` what `close_batch` returned (1 for the genesis state, which is batch 0); `history` are
        rows of that kind.
        Raises ValueError if it does not continue the last checkpoint, StoreError.
        """
        with self._writer:
            self._check_continues(batch, blocks, journal_next)
            after = Checkpoint(
                batch.number, batch.root, batch.last_block, batch.last_block_hash, journal_next
            )
            rows: list[Write] = list(tree_writes)
            if any(key[:1] not in (LEAF, TREE) for key, _ in rows):
                raise ValueError("tree_writes reach beyond the rows of leaves and tree")
            leaves_and_tree = len(rows)
            rows += history
            if any(key[:1] != HISTORY for key, _ in rows[leaves_and_tree:]):
                raise ValueError("history reaches beyond its rows")
            for block in blocks:
                number = _u64(block.number)
                rows.append((BLOCK + number, msgspec.msgpack.encode(block)))
                for index, transaction_hash in enumerate(block.transaction_hashes):
                    rows.append((TRANSACTION + transaction_hash, POSITION.pack(block.number, index)))
            rows.append((BATCH + _u64(batch.number), msgspec.msgpack.encode(batch)))
            rows += [(META + name.encode(), value) for name, value in (meta or {}).items()]
            rows.append((_CHECKPOINT_KEY, msgspec.msgpack.encode(after)))
            if self._checkpoint is None:
                rows.append((OLDEST_BLOCK_KEY, _u64(batch.first_block)))
                rows.append((OLDEST_BATCH_KEY, _u64(batch.number)))
            self._write(rows, sync=True, doing=f"writing the checkpoint of batch {batch.number}")
            self._checkpoint = after
            self._journal.drop_before(journal_next)
            return after

    def block(self, number: int) -> StoredBlock | None:
        """A block of a checkpointed batch, unless pruned. Raises StoreError."""
        row = self.pages.get(BLOCK + _u64(number))
        return None if row is None else msgspec.msgpack.decode(row, type=StoredBlock)

    def transaction(self, transaction_hash: bytes) -> tuple[int, int] | None:
        """(block number, index in it) of a transaction in a checkpointed batch, unless pruned.

        Raises StoreError.
        """
        row = self.pages.get(TRANSACTION + transaction_hash)
        return None if row is None else POSITION.unpack(row)

    def batch(self, number: int) -> StoredBatch | None:
        """A checkpointed batch, unless pruned. Raises StoreError."""
        row = self.pages.get(BATCH + _u64(number))
        return None if row is None else msgspec.msgpack.decode(row, type=StoredBatch)

    def meta(self, name: str) -> bytes | None:
        """A value of `put_meta_sync` or of a checkpoint's `meta`. Raises StoreError."""
        return self.pages.get(META + name.encode())

    def put_meta_sync(self, name: str, value: bytes | None) -> None:
        """Sets or deletes (None) one value, durably. Raises StoreError."""
        self._write([(META + name.encode(), value)], sync=True, doing=f"writing {name}")

    def posting(self, batch_number: int) -> bytes | None:
        """What the poster last wrote about a batch. Raises StoreError."""
        return self.pages.get(POSTING + _u64(batch_number))

    def put_posting_sync(self, batch_number: int, value: bytes) -> None:
        """Sets what the poster keeps about a batch, durably; pruned with the batch. Raises StoreError."""
        self._write([(POSTING + _u64(batch_number), value)], sync=True, doing="writing a posting")

    # retention

    @property
    def oldest_block(self) -> int:
        """The lowest block number not pruned. Raises StoreError."""
        return int.from_bytes(self.pages.get(OLDEST_BLOCK_KEY) or b"", "big")

    @property
    def oldest_batch(self) -> int:
        """The lowest batch number not pruned. Raises StoreError."""
        return int.from_bytes(self.pages.get(OLDEST_BATCH_KEY) or b"", "big")

    def prune_blocks(self, before: int, limit: int = 1_000) -> int:
        """Deletes blocks below `before` with their transactions' index, at most `limit`; returns how many.

        Raises ValueError beyond the last checkpoint, StoreError.
        """
        with self._writer:
            first = self.oldest_block
            if self._checkpoint is None or before > self._checkpoint.last_block + 1:
                raise ValueError(f"block {before - 1} is not in the database yet")
            stop = min(before, first + limit)
            rows: list[Write] = []
            for number in range(first, stop):
                block = self.block(number)
                for transaction_hash in block.transaction_hashes if block else ():
                    position = self.transaction(transaction_hash)
                    if position is not None and position[0] == number:
                        rows.append((TRANSACTION + transaction_hash, None))
                rows.append((BLOCK + _u64(number), None))
            return self._prune(rows, OLDEST_BLOCK_KEY, first, stop)

    def prune_batches(self, before: int, limit: int = 100) -> int:
        """Deletes batches below `before` with their postings, at most `limit`; returns how many.

        Raises ValueError if that takes the last checkpoint's batch, StoreError.
        """
        with self._writer:
            first = self.oldest_batch
            if self._checkpoint is None or before > self._checkpoint.batch_number:
                raise ValueError(f"batch {before - 1} is the last one or not in the database yet")
            stop = min(before, first + limit)
            numbers = [_u64(number) for number in range(first, stop)]
            rows: list[Write] = [(prefix + number, None) for number in numbers for prefix in (BATCH, POSTING)]
            return self._prune(rows, OLDEST_BATCH_KEY, first, stop)

    def _prune(self, rows: list[Write], oldest_key: bytes, first: int, stop: int) -> int:
        if stop <= first:
            return 0
        self._write([*rows, (oldest_key, _u64(stop))], sync=False, doing="pruning")
        return stop - first

    def _append(self, records: Sequence[JournalRecord]) -> int:
        return self._journal.append([(KIND_OF[type(r)], msgspec.msgpack.encode(r)) for r in records])

    def _check_continues(self, batch: StoredBatch, blocks: Sequence[StoredBlock], journal_next: int) -> None:
        last = self._checkpoint
        expected = list(range(batch.first_block, batch.last_block + 1))
        if [block.number for block in blocks] != expected:
            raise ValueError(f"batch {batch.number} has blocks {batch.first_block} to {batch.last_block}")
        if last and (batch.number, batch.first_block) != (last.batch_number + 1, last.last_block + 1):
            raise ValueError(f"batch {batch.number} from block {batch.first_block} does not continue {last}")
        if not (last.journal_next if last else 1) <= journal_next <= self._journal.next_sequence:
            raise ValueError(f"journal_next {journal_next} is not between the last one and the journal's end")

    def _write(self, rows: Iterable[Write], sync: bool, doing: str) -> None:
        if self._failure is not None:
            cause = f"nothing is written any more after: {self._failure}"
            raise StoreError(StoreCode.POISONED, str(self.path), cause)
        try:
            with _database_errors(self.path, doing):
                batch = self._database.write_batch(sync=sync)
                for key, value in rows:
                    if value is None:
                        batch.delete(key)
                    else:
                        batch.put(key, value)
                batch.write()
        except StoreError as error:
            self._failure = error
            raise
