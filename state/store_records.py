"""What the store and its journal hold, as typed records; msgpack arrays on disk. No I/O.

The records say what execution needs and what it promised, in bytes: this module knows no leaf and no action.
A field is only ever added at the end, with a default; any other change takes a new format number.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

STORE_FORMAT = 2


class JournalMessage(msgspec.Struct, frozen=True, array_like=True):
    """An L1 message that a block consumed (PROTOCOL section 4)."""

    kind: int
    sender: bytes
    l1_block: int
    payload: bytes


class JournalMarket(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the batch head's table, written with the first block that uses it."""

    market: int
    tick_uusd: int
    lot_ulots: int
    reference_ticks: int


class JournalBlock(msgspec.Struct, frozen=True, array_like=True):
    """A sealed block: enough to execute it again and to see that the result is the same.

    `encoded` are the block's bytes in the batch; `table` the entries it adds to those of the batch's
    earlier blocks; `signature` is the sequencer's over the header. `results` is the keccak of the block's
    stored data, so of what its receipts said.
    """

    number: int
    batch_number: int
    parent_hash: bytes
    timestamp_ms: int
    transactions: bytes
    l1_block: int
    inbox_next: int
    block_hash: bytes
    signature: bytes
    results: bytes
    encoded: bytes
    messages: tuple[JournalMessage, ...]
    table: tuple[JournalMarket, ...]
    base_fee_wei: int
    """This and the next: what the header of the L1 origin says."""
    excess_blob_gas: int | None


class JournalBatch(msgspec.Struct, frozen=True, array_like=True):
    """A batch was closed after `last_block`; `head` is its encoded head."""

    number: int
    first_block: int
    last_block: int
    head: bytes


class JournalRoot(msgspec.Struct, frozen=True, array_like=True):
    """The state root after a closed batch, written when it is known."""

    number: int
    root: bytes


JournalRecord: TypeAlias = JournalBlock | JournalBatch | JournalRoot

KIND_OF: dict[type[JournalRecord], int] = {JournalBlock: 1, JournalBatch: 2, JournalRoot: 3}
TYPE_OF: dict[int, type[JournalRecord]] = {kind: record for record, kind in KIND_OF.items()}


class StoredBlock(msgspec.Struct, frozen=True, array_like=True):
    """A block as it is served: `data` is what the node encodes (header, signature, results), opaque here."""

    number: int
    data: bytes
    transaction_hashes: tuple[bytes, ...]


class StoredBatch(msgspec.Struct, frozen=True, array_like=True):
    """A closed batch: blocks first_block..last_block (none if last_block is first_block - 1).

    `data` is what is posted, head and blocks. The genesis state is batch 0, without blocks or data.
    """

    number: int
    first_block: int
    last_block: int
    last_block_hash: bytes
    root: bytes
    data: bytes


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """Where the database stands: after batch `batch_number`, whose root is `root`.

    Replay goes on at journal record `journal_next`.
    """

    batch_number: int
    root: bytes
    last_block: int
    last_block_hash: bytes
    journal_next: int


class StoreHead(msgspec.Struct, frozen=True, array_like=True):
    """The first thing read from a data directory: whose it is."""

    format: int
    chain_id: int
    contract: bytes
    genesis_root: bytes
