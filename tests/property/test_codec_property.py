"""Properties of the batch encoding: round trip, one encoding for each value, bounded decoding."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from l1_bridge.batch import (
    BatchBlock,
    BatchHead,
    decode_batch,
    encode_batch,
    encode_block,
    encode_head,
    priced_markets,
)
from state.actions import OracleUpdate, Payload
from state.codec import (
    CodecError,
    MarketEntry,
    decode_transaction,
    encode_transaction,
    read_signed,
    read_varint,
    signed_varint,
    varint,
)
from tests.property.action_strategies import (
    ACTION_TYPES,
    TABLE,
    batch_actions,
    oracle_updates,
    payloads,
    timestamps,
    u64,
)
from tests.vectors.codec_vectors import example_batch

SEED = encode_batch(*example_batch())
"""A batch with every kind of transaction, to be damaged."""


@given(u64)
def test_varints_round_trip_and_are_shortest(value: int) -> None:
    data = varint(value)
    assert read_varint(data + b"\xff", 0) == (value, len(data))
    assert len(data) == max(1, -(-value.bit_length() // 7))


@given(st.integers(-(2**63), 2**63 - 1))
def test_signed_varints_round_trip(value: int) -> None:
    data = signed_varint(value)
    assert read_signed(b"\x01" + data, 1) == (value, 1 + len(data))


@pytest.mark.parametrize("kind", ACTION_TYPES)
@given(data=st.data())
def test_actions_round_trip(kind: type[Any], data: st.DataObject) -> None:
    _round_trip(data.draw(batch_actions(kind)), data.draw(timestamps))


@given(oracle_updates, timestamps)
def test_oracle_updates_round_trip(update: OracleUpdate, timestamp_ms: int) -> None:
    _round_trip(update, timestamp_ms)


def _round_trip(payload: Payload, timestamp_ms: int) -> None:
    encoded = encode_transaction(payload, timestamp_ms, TABLE)
    decoded, end = decode_transaction(b"??" + encoded + b"!", 2, timestamp_ms, TABLE)
    assert decoded == payload
    assert type(decoded) is type(payload)
    assert end == 2 + len(encoded)


@given(payloads, timestamps, st.data())
def test_cut_transactions_do_not_decode(payload: Payload, timestamp_ms: int, data: st.DataObject) -> None:
    encoded = encode_transaction(payload, timestamp_ms, TABLE)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(CodecError):
        decode_transaction(encoded[:cut], 0, timestamp_ms, TABLE)


@given(payloads, timestamps, st.data())
def test_what_decodes_is_the_only_encoding(payload: Payload, timestamp_ms: int, data: st.DataObject) -> None:
    """Whatever a damaged transaction decodes to, encoding that gives the damaged bytes back."""
    encoded = bytearray(encode_transaction(payload, timestamp_ms, TABLE))
    unsigned = max(1, len(encoded) - 64)
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, unsigned - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded, end = decode_transaction(bytes(encoded), 0, timestamp_ms, TABLE)
    except CodecError:
        return
    assert encode_transaction(decoded, timestamp_ms, TABLE) == encoded[:end]


@st.composite
def _batches(draw: st.DrawFn) -> tuple[BatchHead, list[BatchBlock]]:
    base_ms, base_l1 = draw(st.integers(0, 2**47)), draw(st.integers(0, 2**63))
    timestamp_ms, l1_block = base_ms, base_l1
    blocks = []
    for _ in range(draw(st.integers(0, 4))):
        timestamp_ms += draw(st.integers(0, 100_000))
        l1_block += draw(st.integers(0, 3))
        transactions = tuple(draw(st.lists(payloads, max_size=3)))
        blocks.append(BatchBlock(timestamp_ms, l1_block, draw(st.integers(0, 65_535)), transactions))
    used = {m for block in blocks for payload in block.transactions for m in priced_markets(payload)}
    table = {market: TABLE[market] for market in sorted(used)}
    return BatchHead(draw(u64), draw(u64), base_ms, base_l1, draw(u64), table), blocks


@settings(max_examples=60)
@given(_batches(), st.data())
def test_batches_round_trip_and_end_where_they_break(
    batch: tuple[BatchHead, list[BatchBlock]], data: st.DataObject
) -> None:
    head, blocks = batch
    encoded = encode_batch(head, blocks)
    decoded = decode_batch(encoded)
    assert decoded.head == head
    assert decoded.undecodable_at is None
    assert list(decoded.blocks) == blocks
    borders = [decoded.head_bytes, *(block.end for block in decoded.blocks)]
    assert [block.offset for block in decoded.blocks] == borders[:-1]
    assert borders[-1] == len(encoded)
    for block in decoded.blocks:
        at = block.end - 1 - sum(map(len, block.encoded))
        for payload, raw in zip(block.transactions, block.encoded, strict=True):
            alone = decode_transaction(encoded, at, block.timestamp_ms, head.table)
            assert alone == (payload, at + len(raw))
            assert encoded[at : at + len(raw)] == raw
            at += len(raw)
    _check_cut(encoded, data.draw(st.integers(0, len(encoded))))


def _check_cut(encoded: bytes, cut: int) -> None:
    """A prefix keeps exactly the blocks that are whole."""
    whole, part = decode_batch(encoded), decode_batch(encoded[:cut])
    if cut < whole.head_bytes:
        assert part.head is None
        assert part.undecodable_at == 0
        return
    kept = [block for block in whole.blocks if block.end <= cut]
    end = kept[-1].end if kept else whole.head_bytes
    assert list(part.blocks) == kept
    assert part.undecodable_at == (None if end == cut else end)


@given(st.binary(max_size=300))
def test_any_bytes_decode_to_something(data: bytes) -> None:
    _check_total(data)
    _check_total(SEED[:20] + data)


def _check_total(data: bytes) -> bool:
    """Decodes without raising, and what decoded is what was there. True if all of it decoded."""
    decoded = decode_batch(data)
    end = len(data) if decoded.undecodable_at is None else decoded.undecodable_at
    if decoded.head is None:
        assert end == 0
        assert not decoded.blocks
        return False
    parts = [encode_head(decoded.head)]
    timestamp_ms, l1_block = decoded.head.base_timestamp_ms, decoded.head.base_l1_block
    for block in decoded.blocks:
        parts.append(encode_block(block, timestamp_ms, l1_block, decoded.head))
        timestamp_ms, l1_block = block.timestamp_ms, block.l1_block
    assert b"".join(parts) == data[:end]
    return end == len(data)


def test_damaged_batches_never_crash_the_decoder() -> None:
    random_ = random.Random(20_240_808)
    survived = 0
    for _ in range(4_000):
        data = bytearray(SEED)
        for _ in range(random_.randint(1, 6)):
            at = random_.randrange(len(data))
            match random_.randrange(5):
                case 0:
                    data[at] ^= 1 << random_.randrange(8)
                case 1:
                    data[at] = random_.choice((0, 1, 0x7F, 0x80, 0xFF))
                case 2:
                    del data[at : at + random_.randint(1, 8)]
                case 3:
                    data[at:at] = random_.randbytes(random_.randint(1, 12))
                case 4:
                    other = random_.randrange(len(data))
                    data[at:at] = data[other : other + random_.randint(1, 90)]
        survived += _check_total(bytes(data))
    assert 0 < survived < 4_000, "the damage must reach both outcomes"


GREEDY = {
    "empty blocks": b"\x00\x00\x00\x00" * 30_000,
    "far blocks": b"\x00\x00\x00\x00" * 3 + b"\x80\x80\x80\x80\x01\x00\x01\x00" * 8_000,
    "cancels": b"\x00\x00\x00"
    + (b"\x05\x00" + varint(2**41 - 2) + b"\x00\x00\x40" + b"\x00\x7f" * 64 + bytes(66)) * 500
    + b"\x00",
    "orders": b"\x00\x00\x00"
    + (b"\x05\x00\x00\x00\x00\x00\x00\x40" + b"\x01\x00\x7f\x7f" * 64 + bytes(64)) * 300
    + b"\x00",
    "prices": b"\x00\x00\x00"
    + (b"\x14\x01\x01A\x01\x00\x40" + b"\x00\x7f\x7f" * 64 + b"\x00\x00" + bytes(64)) * 300
    + b"\x00",
    "surfaces": b"\x00\x00\x00"
    + (b"\x14\x01\x01A\x01\x00\x00\x00\x40" + (b"\x00" + b"\x7f" * 8) * 64 + bytes(64)) * 100
    + b"\x00",
    "promises": b"\x00\x00\x00\x14\x01\x01A\x10\x00\x40\x00\x00",
}


@pytest.mark.parametrize("name", GREEDY)
def test_decoding_allocates_at_most_64_bytes_for_each_byte(name: str) -> None:
    head = BatchHead(2**60, 2**60, 0, 0, 2**60, {1: MarketEntry(10**6, 10**6, 10**6)})
    data = encode_head(head) + GREEDY[name]
    tracemalloc.start()
    try:
        decoded = decode_batch(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert decoded.undecodable_at == (None if name != "promises" else decoded.head_bytes)
    assert peak <= 64 * len(data) + 65_536


def test_a_table_as_large_as_allowed_stays_within_the_bound() -> None:
    table = {market: MarketEntry(1 + market, 1 + market, 300 + market) for market in range(1, 4_097)}
    data = encode_head(BatchHead(1, 1, 0, 0, 0, table))
    tracemalloc.start()
    try:
        assert decode_batch(data).head is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 64 * len(data) + 65_536
