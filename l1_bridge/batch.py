"""Batches: what is posted to L1. Framing of blocks around `state.codec`, and the commitment to the bytes.

`batch = head | block*` (PROTOCOL section 6). The head holds what continues the last batch and the table of
markets in whose units prices stand. Decoding is total: any bytes give a head, or none, and the blocks before
the first byte that does not decode; a block that is broken anywhere is dropped as a whole. What decoding
allocates is at most 64 bytes for each byte of input, and a constant.

The commitment to calldata is a Merkle root over chunks of 1 KiB, computed as `ChunkCommitment.sol` does, so
that any byte range of a batch can be proved on L1 later. How data lies in blobs is said in `blobs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from state.actions import BulkOrders, OracleUpdate, Payload, PlaceOrder, PlaceTrigger, ReplaceOrder
from state.codec import (
    BLOCK_END,
    MAX_TIMESTAMP_MS,
    CodecError,
    MarketEntry,
    block_start,
    decode_transaction,
    encode_transaction,
    read_varint,
    varint,
)
from state.codec_format import MAX_MARKET, MAX_U64
from state.hashing import keccak

VERSION = 1
MAX_BATCH_BYTES = 2**20
MAX_BLOCKS = 65_535
MAX_BLOCK_TRANSACTIONS = 65_535
MAX_BLOCK_MESSAGES = 65_535
MAX_MARKETS = 4_096
"""In one batch's table."""
CHUNK_BYTES = 1_024


@dataclass(frozen=True, slots=True)
class BatchHead:
    """What a batch continues, and the units of its prices.

    `first_block`, `base_timestamp_ms` and `base_l1_block` are the number of the batch's first block, and the
    timestamp and L1 origin of the block before it; `inbox_start` is the next L1 message. `table` has exactly
    the markets of the batch's orders and replacements, ascending.
    """

    batch_number: int
    first_block: int
    base_timestamp_ms: int
    base_l1_block: int
    inbox_start: int
    table: Mapping[int, MarketEntry]


@dataclass(frozen=True, slots=True)
class BatchBlock:
    """A block as a batch tells it; `messages` counts the L1 messages it consumes."""

    timestamp_ms: int
    l1_block: int
    messages: int
    transactions: tuple[Payload, ...]
    offset: int = field(default=0, compare=False)
    """Where it was read in the batch."""
    encoded: tuple[bytes, ...] = field(default=(), compare=False)
    """Each transaction's bytes, as they were read."""
    end: int = field(default=0, compare=False)
    """Where the next block begins."""


@dataclass(frozen=True, slots=True)
class DecodedBatch:
    """What posted bytes mean. `head` is None, and there are no blocks, when the head does not decode."""

    head: BatchHead | None
    head_bytes: int
    blocks: tuple[BatchBlock, ...]
    undecodable_at: int | None
    """Offset from which on the bytes are ignored: the start of the first block that does not decode."""
    error: str | None
    """Why they do not decode."""


def encode_head(head: BatchHead) -> bytes:
    """Raises CodecError for numbers out of range."""
    if len(head.table) > MAX_MARKETS:
        raise CodecError("table", f"more than {MAX_MARKETS} markets")
    if not 0 <= head.base_timestamp_ms <= MAX_TIMESTAMP_MS:
        raise CodecError("base_timestamp_ms", "out of range")
    parts = [
        bytes((VERSION,)),
        varint(head.batch_number, "batch_number"),
        varint(head.first_block, "first_block"),
        varint(head.base_timestamp_ms),
        varint(head.base_l1_block, "base_l1_block"),
        varint(head.inbox_start, "inbox_start"),
        varint(len(head.table)),
    ]
    last = 0
    for market, entry in sorted(head.table.items()):
        if not 1 <= market <= MAX_MARKET or entry.tick_uusd < 1 or entry.lot_ulots < 1:
            raise CodecError("table", f"market {market}: out of range")
        parts.append(varint(market - last))
        parts += [varint(number, "table") for number in entry]
        last = market
    return b"".join(parts)


def decode_head(data: bytes) -> tuple[BatchHead, int]:
    """The head and the offset of the first block. Raises CodecError."""
    try:
        return _read_head(data)
    except IndexError:
        raise CodecError("head", "ends early") from None


def _read_head(data: bytes) -> tuple[BatchHead, int]:
    if data[0] != VERSION:
        raise CodecError("version", f"{data[0]}, expected {VERSION}")
    offset = 1
    batch_number, offset = read_varint(data, offset)
    first_block, offset = read_varint(data, offset)
    base_timestamp_ms, offset = read_varint(data, offset)
    base_l1_block, offset = read_varint(data, offset)
    inbox_start, offset = read_varint(data, offset)
    markets, offset = read_varint(data, offset)
    if base_timestamp_ms > MAX_TIMESTAMP_MS:
        raise CodecError("base_timestamp_ms", "out of range")
    if markets > MAX_MARKETS:
        raise CodecError("table", f"more than {MAX_MARKETS} markets")
    table: dict[int, MarketEntry] = {}
    market = 0
    for _ in range(markets):
        difference, offset = read_varint(data, offset)
        market += difference
        if difference == 0 or market > MAX_MARKET:
            raise CodecError("table", "markets do not ascend, or are out of range")
        tick, offset = read_varint(data, offset)
        lot, offset = read_varint(data, offset)
        reference, offset = read_varint(data, offset)
        if tick == 0 or lot == 0:
            raise CodecError("table", f"market {market}: zero tick or lot")
        table[market] = MarketEntry(tick, lot, reference)
    head = BatchHead(batch_number, first_block, base_timestamp_ms, base_l1_block, inbox_start, table)
    return head, offset


def encode_block(block: BatchBlock, last_timestamp_ms: int, last_l1_block: int, head: BatchHead) -> bytes:
    """A block's bytes after a block of the given time and origin. Raises CodecError."""
    if len(block.transactions) > MAX_BLOCK_TRANSACTIONS or block.messages > MAX_BLOCK_MESSAGES:
        raise CodecError("block", "too many transactions or messages")
    if block.timestamp_ms > MAX_TIMESTAMP_MS:
        raise CodecError("timestamp_ms", "out of range")
    parts = [
        block_start(block.timestamp_ms - last_timestamp_ms, block.messages, block.l1_block - last_l1_block)
    ]
    parts += [encode_transaction(payload, block.timestamp_ms, head.table) for payload in block.transactions]
    return b"".join(parts) + BLOCK_END


def encode_batch(head: BatchHead, blocks: Sequence[BatchBlock]) -> bytes:
    """A whole batch. Raises CodecError, also for a table that lists other markets than the blocks price."""
    used = {
        market for block in blocks for payload in block.transactions for market in priced_markets(payload)
    }
    if used != head.table.keys():
        raise CodecError("table", f"markets {sorted(used ^ head.table.keys())} are not both listed and used")
    encoded = []
    timestamp_ms, l1_block = head.base_timestamp_ms, head.base_l1_block
    for block in blocks:
        encoded.append(encode_block(block, timestamp_ms, l1_block, head))
        timestamp_ms, l1_block = block.timestamp_ms, block.l1_block
    return assemble(head, encoded)


def assemble(head: BatchHead, encoded_blocks: Sequence[bytes]) -> bytes:
    """A batch of blocks that are encoded already. Raises CodecError beyond the limits of a batch."""
    if len(encoded_blocks) > MAX_BLOCKS:
        raise CodecError("blocks", f"more than {MAX_BLOCKS}")
    data = encode_head(head) + b"".join(encoded_blocks)
    if len(data) > MAX_BATCH_BYTES:
        raise CodecError("batch", f"{len(data)} bytes, at most {MAX_BATCH_BYTES}")
    return data


def priced_markets(payload: Payload) -> set[int]:
    """The markets that the table must list for this transaction: those in which it says a price."""
    if isinstance(payload, OracleUpdate):
        return set()
    action = payload.action
    if isinstance(action, PlaceOrder | PlaceTrigger):
        return {action.order.market}
    if isinstance(action, ReplaceOrder):
        return {action.replacement.market}
    if isinstance(action, BulkOrders):
        return {each.market for each in action.replacements} | {each.market for each in action.orders}
    return set()


def named_markets(payload: Payload) -> set[int]:
    """The markets that the payload names anywhere, so that its digest holds their instruments' names."""
    if isinstance(payload, OracleUpdate):
        return set()
    found: set[int] = set()
    left: list[object] = [payload.action]
    while left:
        item = left.pop()
        if isinstance(item, tuple):
            left += item
        elif isinstance(item, msgspec.Struct):
            found.add(getattr(item, "market", 0))
            left += [getattr(item, field) for field in item.__struct_fields__]
    return found - {0}


def decode_batch(data: bytes) -> DecodedBatch:
    """What the posted bytes mean; never raises. Only the first MAX_BATCH_BYTES are looked at."""
    readable = data[:MAX_BATCH_BYTES]
    try:
        head, offset = decode_head(readable)
    except CodecError as error:
        return DecodedBatch(None, 0, (), 0, str(error))
    head_bytes = offset
    blocks: list[BatchBlock] = []
    timestamp_ms, l1_block = head.base_timestamp_ms, head.base_l1_block
    failure: str | None = None
    while offset < len(data):
        try:
            if len(blocks) == MAX_BLOCKS:
                raise CodecError("blocks", f"more than {MAX_BLOCKS}")
            block = _read_block(readable, offset, timestamp_ms, l1_block, head)
        except CodecError as error:
            failure = str(error)
            break
        except IndexError:
            failure = "block: ends early"
            break
        blocks.append(block)
        timestamp_ms, l1_block, offset = block.timestamp_ms, block.l1_block, block.end
    return DecodedBatch(head, head_bytes, tuple(blocks), offset if failure else None, failure)


def _read_block(data: bytes, start: int, timestamp_ms: int, l1_block: int, head: BatchHead) -> BatchBlock:
    elapsed, offset = read_varint(data, start)
    messages, offset = read_varint(data, offset)
    l1_blocks, offset = read_varint(data, offset)
    timestamp_ms += elapsed
    l1_block += l1_blocks
    if timestamp_ms > MAX_TIMESTAMP_MS or l1_block > MAX_U64 or messages > MAX_BLOCK_MESSAGES:
        raise CodecError("block", "time, L1 origin or number of messages out of range")
    transactions: list[Payload] = []
    encoded: list[bytes] = []
    table = head.table
    while data[offset]:
        if len(transactions) == MAX_BLOCK_TRANSACTIONS:
            raise CodecError("transactions", f"more than {MAX_BLOCK_TRANSACTIONS}")
        transaction, end = decode_transaction(data, offset, timestamp_ms, table)
        transactions.append(transaction)
        encoded.append(data[offset:end])
        offset = end
    return BatchBlock(
        timestamp_ms, l1_block, messages, tuple(transactions), start, tuple(encoded), offset + 1
    )


# Commitments


def data_commitment(data: bytes) -> bytes:
    """The commitment to a batch posted as calldata. Raises ValueError for no data."""
    if not data:
        raise ValueError("no data to commit to")
    level = [keccak(b"\x00" + data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
    while len(level) > 1:
        paired = len(level) // 2 * 2
        level = [
            *(keccak(b"\x01" + level[at] + level[at + 1]) for at in range(0, paired, 2)),
            *level[paired:],
        ]
    return keccak(b"\x02" + len(data).to_bytes(8, "big") + level[0])


def blob_commitment(versioned_hashes: Sequence[bytes], length: int) -> bytes:
    """The commitment to a batch of `length` bytes posted in these blobs."""
    return keccak(b"\x03" + length.to_bytes(8, "big") + b"".join(versioned_hashes))
