"""`python -m tools.store_inspect PATH`: what a data directory holds, and whether all of it agrees.

Reads everything: every row of the database with its checksum, every leaf against the tree's pages and these
against the checkpoint's root, blocks and batches against their numbers and the transaction index, every
journal record. The node must be stopped. Changes nothing, beyond what LevelDB does when it opens.

`--truncate-journal-at N` is for a journal that was refused as damaged and that no copy can mend: it takes
record N and all after it out. Whatever those records promised is lost, and traders hold the receipts.

Exit status: 0 all agrees, 1 something does not, 2 it cannot be read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from state.journal import scan_journal, truncate_journal
from state.journal_format import Identity, StoreError, read_records
from state.store import (
    BATCH,
    BLOCK,
    HISTORY,
    LEAF,
    META,
    OLDEST_BATCH_KEY,
    OLDEST_BLOCK_KEY,
    OWN,
    POSITION,
    POSTING,
    TRANSACTION,
    TREE,
    Pages,
    decode_record,
    lock_directory,
    open_database,
    read_checkpoint,
    read_identity,
)
from state.store_records import Checkpoint, StoredBatch, StoredBlock
from state.tree import Tree, TreeCorrupt

KINDS = {
    LEAF: "leaves",
    TREE: "tree pages and undo records",
    BLOCK: "blocks",
    TRANSACTION: "transaction index",
    BATCH: "batches",
    POSTING: "postings",
    META: "values of other parts",
    HISTORY: "accounts' history",
    OWN: "the store's own",
}
MAX_SHOWN = 20


def count_rows(database: Any) -> Iterator[tuple[str, int, int]]:
    """(what, rows, bytes) for each kind of row; unknown kinds under their first byte."""
    rows: Counter[bytes] = Counter()
    sizes: Counter[bytes] = Counter()
    for key, value in database.iterator(verify_checksums=True, fill_cache=False):
        rows[key[:1]] += 1
        sizes[key[:1]] += len(key) + len(value)
    for kind in sorted(rows):
        yield KINDS.get(kind, f"UNKNOWN 0x{kind.hex()}"), rows[kind], sizes[kind]


def tree_problems(database: Any, path: Path, checkpoint: Checkpoint) -> Iterator[str]:
    """Where leaves, tree and checkpoint do not agree."""
    try:
        tree = Tree(Pages(database, path), cache_pages=128)
        yield from tree.check()
    except TreeCorrupt as error:
        yield f"tree: {error}"
        return
    if tree.root != checkpoint.root:
        yield f"tree: root 0x{tree.root.hex()}, checkpoint 0x{checkpoint.root.hex()}"
    if tree.version != checkpoint.batch_number:
        yield f"tree: version {tree.version}, checkpoint of batch {checkpoint.batch_number}"


def block_problems(database: Any, checkpoint: Checkpoint) -> Iterator[str]:
    """Blocks that are missing or misplaced, and transactions the index does not find."""
    expected = int.from_bytes(database.get(OLDEST_BLOCK_KEY, b""), "big")
    indexed = 0
    for key, row in database.iterator(prefix=BLOCK, fill_cache=False):
        number = int.from_bytes(key[1:], "big")
        block = msgspec.msgpack.decode(row, type=StoredBlock)
        if not number == block.number == expected:
            yield f"block {expected}: found block {block.number} under number {number}"
        expected = number + 1
        for index, transaction_hash in enumerate(block.transaction_hashes):
            position = database.get(TRANSACTION + transaction_hash)
            indexed += 1
            if position is None or POSITION.unpack(position) != (number, index):
                yield f"block {number}: transaction 0x{transaction_hash.hex()} is not indexed at {index}"
    if expected != checkpoint.last_block + 1:
        yield f"block {expected} is missing: the checkpoint is at block {checkpoint.last_block}"
    rows = sum(1 for _ in database.iterator(prefix=TRANSACTION, include_value=False, fill_cache=False))
    if rows != indexed:
        yield f"transaction index: {rows} rows for {indexed} transactions"


def batch_problems(database: Any, checkpoint: Checkpoint) -> Iterator[str]:
    """Batches that are missing or do not continue each other, or the last one not the checkpoint's."""
    expected = int.from_bytes(database.get(OLDEST_BATCH_KEY, b""), "big")
    last: StoredBatch | None = None
    for key, row in database.iterator(prefix=BATCH, fill_cache=False):
        number = int.from_bytes(key[1:], "big")
        batch = msgspec.msgpack.decode(row, type=StoredBatch)
        if not number == batch.number == expected:
            yield f"batch {expected}: found batch {batch.number} under number {number}"
        if last is not None and batch.first_block != last.last_block + 1:
            yield f"batch {number}: begins at block {batch.first_block}, not {last.last_block + 1}"
        expected, last = number + 1, batch
    if last is None:
        yield f"batch {expected} is missing"
        return
    ends = (last.number, last.root, last.last_block, last.last_block_hash)
    at = (checkpoint.batch_number, checkpoint.root, checkpoint.last_block, checkpoint.last_block_hash)
    if ends != at:
        yield f"checkpoint: batch {checkpoint.batch_number} is not what the last batch ({number}) says"


def journal_rows(path: Path, identity: Identity, needed_from: int) -> Iterator[tuple[str, str, str, str]]:
    """(file, records, bytes, contents) of each segment. Raises JournalDamaged, StoreError."""
    segments = scan_journal(path / "journal", identity, needed_from)
    for segment in segments:
        data = segment.path.read_bytes()
        is_last = segment is segments[-1]
        found, _ = read_records(str(segment.path), data, segment.first_sequence, is_last)
        kinds = Counter(type(decode_record(r.kind, r.payload, r.sequence, path)).__name__ for r in found)
        contents = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        if segment.good_bytes != segment.file_bytes:
            contents += f"; an unfinished tail of {segment.file_bytes - segment.good_bytes} bytes, to be cut"
        covered = min(max(needed_from - segment.first_sequence, 0), len(found))
        if covered:
            contents += f"; {covered} of them in the checkpoint"
        records = f"{segment.first_sequence}..{segment.next_sequence - 1}" if found else "none"
        yield segment.path.name, records, f"{segment.file_bytes:,}", contents


def inspect(path: Path, database: Any, console: Console) -> bool:
    """Prints what there is and what does not agree; True if all does. Raises StoreError."""
    identity, checkpoint = read_identity(database, path), read_checkpoint(database, path)
    if identity is None:
        console.print("an empty data directory: nothing was ever written")
        return True
    console.print(f"belongs to {identity}")
    table = Table("database", "rows", "bytes")
    for what, rows, size in count_rows(database):
        table.add_row(what, f"{rows:,}", f"{size:,}")
    console.print(table)
    problems: list[str] = []
    if checkpoint is None:
        console.print("no checkpoint yet")
    else:
        console.print(
            f"checkpoint: batch {checkpoint.batch_number}, block {checkpoint.last_block}, root "
            f"0x{checkpoint.root.hex()}, journal from record {checkpoint.journal_next}"
        )
        problems += tree_problems(database, path, checkpoint)
        problems += block_problems(database, checkpoint)
        problems += batch_problems(database, checkpoint)
    table = Table("journal", "records", "bytes", "contents")
    try:
        for row in journal_rows(path, identity, checkpoint.journal_next if checkpoint else 1):
            table.add_row(*row)
        console.print(table)
    except StoreError as error:
        problems.append(str(error))
    for problem in problems[:MAX_SHOWN]:
        console.print(f"DOES NOT AGREE: {problem}", style="red", markup=False, soft_wrap=True)
    if len(problems) > MAX_SHOWN:
        console.print(f"... and {len(problems) - MAX_SHOWN} more", style="red")
    console.print("something does not agree" if problems else "all agrees")
    return not problems


def truncate(path: Path, database: Any, at_sequence: int, console: Console) -> None:
    """Cuts the journal, saying what that means. Raises StoreError, ValueError."""
    identity, checkpoint = read_identity(database, path), read_checkpoint(database, path)
    if identity is None:
        raise ValueError("an empty data directory has no journal to cut")
    needed_from = checkpoint.journal_next if checkpoint else 1
    aside = truncate_journal(path / "journal", identity, needed_from, at_sequence)
    console.print(
        f"CUT: journal record {at_sequence} and all after it are gone from this node. Transactions in them, "
        f"for which traders hold signed receipts, will not be executed. If a batch with them was posted to "
        f"L1, do not start this directory: rebuild it from L1.",
        style="bold red",
    )
    for name in aside:
        console.print(f"kept: {name}", soft_wrap=True)


def main(
    path: Annotated[Path, typer.Argument(help="The node's data directory.", exists=True, file_okay=False)],
    truncate_journal_at: Annotated[
        int | None, typer.Option(help="Cut this journal record and all after it out. Loses what they say.")
    ] = None,
) -> None:
    """Prints what a data directory holds and whether all of it agrees."""
    console = Console()
    lock, database, agrees = -1, None, False
    try:
        if not (path / "db").is_dir():
            raise ValueError(f"{path} is not a node's data directory: it has no db/")
        lock = lock_directory(path)
        database = open_database(path, create=False)
        if truncate_journal_at is not None:
            truncate(path, database, truncate_journal_at, console)
        agrees = inspect(path, database, console)
    except (StoreError, ValueError) as error:
        console.print(f"cannot: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(2) from error
    finally:
        if database is not None:
            database.close()
        if lock >= 0:
            os.close(lock)
    raise typer.Exit(0 if agrees else 1)


if __name__ == "__main__":
    typer.run(main)
