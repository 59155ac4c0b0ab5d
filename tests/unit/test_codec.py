"""The batch encoding refuses what is not canonical and what it cannot say (PROTOCOL section 6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from l1_bridge.batch import (
    MAX_BATCH_BYTES,
    BatchBlock,
    BatchHead,
    assemble,
    blob_commitment,
    data_commitment,
    decode_batch,
    decode_head,
    encode_batch,
    encode_head,
)
from state.actions import (
    BulkOrders,
    Cancel,
    CancelAll,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Price,
    Rate,
    Side,
    SignedAction,
)
from state.codec import (
    MAX_ORDER_ID,
    MAX_TIMESTAMP_MS,
    CodecError,
    MarketEntry,
    decode_transaction,
    encode_transaction,
    read_varint,
    signed_varint,
    varint,
)
from state.hashing import keccak

NOW_MS = 1_723_161_255_342
NOW_S = NOW_MS // 1_000
TABLE = {1: MarketEntry(500_000, 1_000, 120_000)}
SIGNATURE = bytes(range(64))
HEAD = BatchHead(1, 1, NOW_MS, 100, 0, {})


def order(**changes: Any) -> Order:
    return msgspec.structs.replace(Order(1, Side.SELL, OrderKind.POST_ONLY, 60_000_000_000, 5_000), **changes)


def place(placed: Order | None = None, **changes: Any) -> SignedAction:
    envelope: dict[str, Any] = {"account": 7, "nonce": 9, "deadline_s": NOW_S + 30, "max_fee_uusd": 100}
    return SignedAction(PlaceOrder(**(envelope | changes), order=placed or order()), SIGNATURE)


def cancel_all(**changes: Any) -> SignedAction:
    envelope: dict[str, Any] = {"account": 7, "nonce": 9, "deadline_s": NOW_S + 30, "max_fee_uusd": 100}
    return SignedAction(CancelAll(**(envelope | changes)), SIGNATURE)


def encode(payload: SignedAction | OracleUpdate) -> bytes:
    return encode_transaction(payload, NOW_MS, TABLE)


def refused(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode_transaction(data, 0, NOW_MS, TABLE)


def test_an_order_byte_by_byte() -> None:
    assert (
        encode(place()).hex()
        == (
            "01"  # PlaceOrder, no bid
            "07"  # account
            "12"  # nonce 9
            "3c"  # deadline in 30 s
            "64"  # fee
            "01"  # market
            "03"  # sell, post-only
            "00"  # at the reference
            "05"  # lots
        )
        + SIGNATURE.hex()
    )


def test_optional_fields_byte_by_byte() -> None:
    payload = place(order(expiry_s=NOW_S - 1, price_uusd=59_999_500_000), priority_bid_uusd=200)
    assert encode(payload).hex() == "8107123c64c801" + "0183" + "01" + "05" + "01" + SIGNATURE.hex()


@pytest.mark.parametrize(
    ("nonce", "encoded"),
    [
        (2**40 - 1, varint(2**41 - 2)),
        (NOW_MS, varint(1)),
        (NOW_MS - 50, varint(2 * 100 + 1)),
        (NOW_MS + 50, varint(2 * 99 + 1)),
        (2**40, varint(4 * (NOW_MS - 2**40) + 1)),
        (2**56 - 1, varint(2 * (2 * (2**56 - 1 - NOW_MS) - 1) + 1)),
    ],
)
def test_nonces_are_counters_or_clocks(nonce: int, encoded: bytes) -> None:
    data = encode(place(nonce=nonce))
    assert data[2 : 2 + len(encoded)] == encoded
    decoded, _ = decode_transaction(data, 0, NOW_MS, TABLE)
    assert isinstance(decoded, SignedAction)
    assert decoded.action.nonce == nonce


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (place(order(price_uusd=60_000_000_001)), "price_uusd"),
        (place(order(size_ulots=5_001)), "size_ulots"),
        (place(order(market=2)), "market"),
        (place(nonce=2**56), "nonce"),
        (place(account=2**64), "account"),
        (place(deadline_s=2**64 - 1), "deadline_s"),
        (cancel_all(market=2**32), "market"),
        (SignedAction(place().action, bytes(65)), "signature"),
        (
            SignedAction(
                BulkOrders(
                    account=1,
                    nonce=1,
                    deadline_s=1,
                    max_fee_uusd=1,
                    orders=(order(), order(size_ulots=1)),
                ),
                SIGNATURE,
            ),
            r"orders\[1\].size_ulots",
        ),
        (
            SignedAction(
                BulkOrders(
                    account=1,
                    nonce=1,
                    deadline_s=1,
                    max_fee_uusd=1,
                    cancels=(Cancel(1, MAX_ORDER_ID + 1),),
                ),
                SIGNATURE,
            ),
            r"cancels\[0\].order_id",
        ),
        (
            SignedAction(
                BulkOrders(
                    account=1,
                    nonce=1,
                    deadline_s=1,
                    max_fee_uusd=1,
                    cancels=(Cancel(1, 1),) * 32,
                    orders=(order(),) * 33,
                ),
                SIGNATURE,
            ),
            "operations",
        ),
        (OracleUpdate((OracleReport(NOW_MS, (Price("B C", 1, 1),), SIGNATURE),)), r"feeds\[0\].feed"),
        (OracleUpdate((OracleReport(NOW_MS, (Price("", 1, 1),), SIGNATURE),)), "feed"),
        (OracleUpdate((OracleReport(NOW_MS, (Price("A", 1, 1),) * 65, SIGNATURE),)), "prices"),
        (OracleUpdate((OracleReport(NOW_MS, (), SIGNATURE, (Rate("A", 1, 1),) * 65),)), "rates"),
        (
            OracleUpdate((OracleReport(NOW_MS, tuple(Price(f"A{n}", 1, 1) for n in range(65)), SIGNATURE),)),
            "feeds",
        ),
        (OracleUpdate((OracleReport(NOW_MS, (), SIGNATURE, (Rate("A", 2**63, 1),)),)), "value_ppb"),
        (OracleUpdate((OracleReport(NOW_MS, (), SIGNATURE),) * 17), "reports"),
    ],
)
def test_what_cannot_be_encoded_names_its_field(payload: SignedAction | OracleUpdate, field: str) -> None:
    with pytest.raises(CodecError, match=f"^[^:]*{field}:") as caught:
        encode(payload)
    assert caught.value.field


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x00", "shortest"),
        (b"\x81\x80\x00", "shortest"),
        (b"\xff" * 9 + b"\x02", "above"),
        (b"\x80" * 10 + b"\x01", "more than 10"),
    ],
)
def test_varints_that_are_not_canonical(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        read_varint(data, 0)


def test_the_largest_varint() -> None:
    assert read_varint(b"\xff" * 9 + b"\x01", 0) == (2**64 - 1, 10)
    with pytest.raises(CodecError):
        varint(2**64)
    with pytest.raises(CodecError):
        varint(-1)


@pytest.mark.parametrize("tag", [0, 17, 19, 21, 0x7F, 0x80, 0x91, 0x94, 0xFF])
def test_unknown_kinds(tag: int) -> None:
    refused(bytes((tag,)) + encode(place())[1:], "kind")


@pytest.mark.parametrize("flags", [0x0A, 0x0C, 0x0E, 0x60, 0xEA])
def test_flags_that_mean_nothing(flags: int) -> None:
    data = bytearray(encode(place()))
    data[6] = flags
    refused(bytes(data), "flags")


def test_optional_fields_must_not_say_their_default() -> None:
    plain = encode(place())
    refused(b"\x81" + plain[1:5] + b"\x00" + plain[5:], "priority_bid_uusd")
    expiring = bytearray(encode(place(order(expiry_s=NOW_S + 1))))
    at = expiring.index(SIGNATURE) - 1
    refused(bytes(expiring[:at]) + signed_varint(-NOW_S) + SIGNATURE, "expiry_s")


def test_a_nonce_in_the_other_form() -> None:
    start, rest = b"\x01\x07", encode(place())[3:]
    refused(start + varint(2**41) + rest, "nonce: not relative")
    refused(start + varint(4 * (NOW_MS - 9) + 1) + rest, "nonce: out of range")
    refused(start + varint(2 * (2 * (2**56 - NOW_MS) - 1) + 1) + rest, "nonce: out of range")


def test_numbers_outside_64_bits() -> None:
    plain = encode(place())
    refused(plain[:3] + signed_varint(-NOW_S - 1) + plain[4:], "deadline_s")
    refused(plain[:7] + signed_varint(-120_001) + plain[8:], "price_uusd")
    refused(plain[:7] + signed_varint(2**62) + plain[8:], "price_uusd")
    refused(plain[:8] + varint(2**60) + SIGNATURE, "size_ulots")
    cancel = encode(cancel_all())
    refused(cancel[:5] + varint(2**32) + SIGNATURE, "market")


def test_lists_are_limited_before_they_are_read() -> None:
    envelope = b"\x05\x07\x12\x3c\x64"
    refused(envelope + b"\x41", "cancels: more than 64")
    refused(envelope + b"\x02" + b"\x01\x00" * 2 + b"\x3f", "replacements: more than 62")
    refused(envelope + b"\x00\x00" + varint(2**63), "orders: more than 64")
    refused(b"\x14\x41", "feeds: more than 64")
    refused(b"\x14\x00\x11", "reports")
    for lists, name in ((b"\x41", "prices"), (b"\x00\x41", "rates"), (b"\x00\x00\x41", "surfaces")):
        refused(b"\x14\x00\x01\x00" + lists, name)


@pytest.mark.parametrize("name", [b"", b"A B", b"A\x00", b"\xc3\xa9", b"A" * 32])
def test_feed_names(name: bytes) -> None:
    report = b"\x00\x01\x00\x01\x01\x00\x00" + SIGNATURE
    refused(b"\x14\x01" + bytes((len(name),)) + name + b"\x01" + report, "feed")


def test_feeds_are_those_of_the_reports_in_order() -> None:
    def update(names: bytes, prices: bytes) -> bytes:
        return b"\x14" + names + b"\x01\x00" + prices + b"\x00\x00" + SIGNATURE

    one, two = b"\x00\x05\x06", b"\x01\x05\x06"
    good = update(b"\x02\x01A\x01B", b"\x02" + one + two)
    assert encode(decode_transaction(good, 0, NOW_MS, {})[0]) == good
    refused(update(b"\x02\x01B\x01A", b"\x02" + one + two), "feeds: not just those")
    refused(update(b"\x02\x01A\x01A", b"\x02" + one + two), "feeds: not just those")
    refused(update(b"\x02\x01A\x01B", b"\x01" + one), "feeds: not just those")
    refused(update(b"\x01\x01A", b"\x02" + one + two), "feed: not in the list")


def test_markets_outside_the_table() -> None:
    with pytest.raises(CodecError, match="market"):
        decode_transaction(encode(place()), 0, NOW_MS, {})


def test_a_single_order_fits_80_bytes() -> None:
    """A five-digit account, prices 3 % off the reference, and a nonce of either sort."""
    far = order(price_uusd=61_800_000_000, size_ulots=1_000_000)
    for nonce in (99_999, NOW_MS - 1_000):
        assert len(encode(place(far, account=16_000, nonce=nonce, max_fee_uusd=5_000))) <= 80


# Batches


def head_bytes(**changes: Any) -> bytes:
    return encode_head(replace(HEAD, **changes))


def test_a_head_byte_by_byte() -> None:
    table = {3: MarketEntry(1, 2, 300), 1: MarketEntry(5, 6, 7)}
    data = encode_head(BatchHead(1, 2, 3, 4, 5, table))
    assert data.hex() == "01" + "0102030405" + "02" + "01050607" + "020102ac02"
    assert decode_head(data) == (BatchHead(1, 2, 3, 4, 5, table), len(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "ends early"),
        (b"\x00" + head_bytes()[1:], "version"),
        (b"\x02" + head_bytes()[1:], "version"),
        (head_bytes()[:-1], "ends early"),
        (b"\x01\x01\x02" + varint(MAX_TIMESTAMP_MS + 1) + b"\x04\x05\x00", "base_timestamp_ms"),
        (b"\x01\x01\x02\x03\x04\x05\x01\x00\x01\x01\x00", "ascend"),
        (b"\x01\x01\x02\x03\x04\x05\x02\x02\x01\x01\x00\x00\x01\x01\x00", "ascend"),
        (b"\x01\x01\x02\x03\x04\x05\x01" + varint(2**32) + b"\x01\x01\x00", "ascend"),
        (b"\x01\x01\x02\x03\x04\x05\x01\x01\x00\x01\x00", "zero tick"),
        (b"\x01\x01\x02\x03\x04\x05\x01\x01\x01\x00\x00", "zero tick"),
        (b"\x01\x01\x02\x03\x04\x05" + varint(4_097), "markets"),
        (b"\x01\x81\x00\x02\x03\x04\x05\x00", "shortest"),
    ],
)
def test_heads_that_do_not_decode_leave_no_block(data: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        decode_head(data)
    decoded = decode_batch(data)
    assert (decoded.head, decoded.blocks, decoded.undecodable_at) == (None, (), 0)
    assert decoded.error


def test_trailing_bytes_end_the_batch_where_they_begin() -> None:
    blocks = [BatchBlock(NOW_MS + 1, 100, 0, (cancel_all(),)), BatchBlock(NOW_MS + 2, 101, 3, ())]
    data = encode_batch(HEAD, blocks)
    assert decode_batch(data).undecodable_at is None
    for tail in (b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x0b", b"\xff" * 40):
        decoded = decode_batch(data + tail)
        assert decoded.blocks == tuple(blocks)
        assert decoded.undecodable_at == len(data)
        assert decoded.error


def test_a_broken_transaction_takes_its_whole_block_with_it() -> None:
    blocks = [
        BatchBlock(NOW_MS + 1, 100, 0, ()),
        BatchBlock(NOW_MS + 2, 100, 0, (cancel_all(), cancel_all())),
    ]
    data = bytearray(encode_batch(HEAD, blocks))
    second = decode_batch(bytes(data)).blocks[1]
    data[second.end - 1 - len(second.encoded[1])] = 0x7F
    decoded = decode_batch(bytes(data))
    assert decoded.blocks == tuple(blocks[:1])
    assert decoded.undecodable_at == second.offset


def test_limits_of_a_batch() -> None:
    block = b"\x00" * 4
    with pytest.raises(CodecError, match="blocks"):
        assemble(HEAD, [block] * 65_536)
    head = encode_head(HEAD)
    decoded = decode_batch(head + block * 65_536)
    assert len(decoded.blocks) == 65_535
    assert decoded.undecodable_at == len(head) + 4 * 65_535
    with pytest.raises(CodecError, match="messages"):
        encode_batch(HEAD, [BatchBlock(NOW_MS, 100, 65_536, ())])
    assert decode_batch(head + b"\x00" + varint(65_536) + b"\x00\x00").undecodable_at == len(head)
    with pytest.raises(CodecError, match="timestamp_ms"):
        encode_batch(HEAD, [BatchBlock(MAX_TIMESTAMP_MS + 1, 100, 0, ())])
    over = varint(MAX_TIMESTAMP_MS + 1 - NOW_MS)
    assert decode_batch(head + over + b"\x00\x00\x00").undecodable_at == len(head)
    assert decode_batch(head + b"\x00\x00" + varint(2**64 - 100) + b"\x00").undecodable_at == len(head)


def test_bytes_beyond_the_largest_batch_do_not_decode() -> None:
    block = BatchBlock(NOW_MS, 100, 0, (cancel_all(),) * 5_000)
    encoded = encode_batch(HEAD, [block])[len(encode_head(HEAD)) :]
    fitting = (MAX_BATCH_BYTES - len(encode_head(HEAD))) // len(encoded)
    assemble(HEAD, [encoded] * fitting)
    with pytest.raises(CodecError, match="bytes"):
        assemble(HEAD, [encoded] * (fitting + 1))
    data = encode_head(HEAD) + encoded * (fitting + 1)
    assert len(decode_batch(data).blocks) == fitting


def test_the_table_has_exactly_the_markets_that_are_priced() -> None:
    entry = MarketEntry(500_000, 1_000, 120_000)
    block = BatchBlock(NOW_MS, 100, 0, (place(), cancel_all(market=9)))
    encode_batch(replace(HEAD, table={1: entry}), [block])
    with pytest.raises(CodecError, match=r"\[2\]"):
        encode_batch(replace(HEAD, table={1: entry, 2: entry}), [block])
    with pytest.raises(CodecError, match=r"\[1\]"):
        encode_batch(HEAD, [block])


@pytest.mark.parametrize("entry", [MarketEntry(0, 1, 0), MarketEntry(1, 0, 0), MarketEntry(1, 1, 2**64)])
def test_entries_out_of_range(entry: MarketEntry) -> None:
    with pytest.raises(CodecError, match="table"):
        encode_head(replace(HEAD, table={1: entry}))


def test_blocks_do_not_go_back_in_time() -> None:
    with pytest.raises(CodecError, match="timestamp_ms"):
        encode_batch(HEAD, [BatchBlock(NOW_MS - 1, 100, 0, ())])
    with pytest.raises(CodecError, match="l1_block"):
        encode_batch(HEAD, [BatchBlock(NOW_MS, 99, 0, ())])


# Commitments, by the formula of PROTOCOL for each number of chunks


def _leaf(chunk: bytes) -> bytes:
    return keccak(b"\x00" + chunk)


def _branch(left: bytes, right: bytes) -> bytes:
    return keccak(b"\x01" + left + right)


def _sealed(top: bytes, length: int) -> bytes:
    return keccak(b"\x02" + length.to_bytes(8, "big") + top)


def test_data_commitments() -> None:
    chunks = [bytes((number,)) * 1_024 for number in range(5)]
    a, b, c, d, e = (_leaf(chunk) for chunk in chunks)
    assert data_commitment(b"x") == _sealed(_leaf(b"x"), 1)
    assert data_commitment(chunks[0]) == _sealed(a, 1_024)
    assert data_commitment(chunks[0] + b"y") == _sealed(_branch(a, _leaf(b"y")), 1_025)
    assert data_commitment(b"".join(chunks[:3])) == _sealed(_branch(_branch(a, b), c), 3_072)
    assert data_commitment(b"".join(chunks)) == _sealed(
        _branch(_branch(_branch(a, b), _branch(c, d)), e), 5_120
    )
    with pytest.raises(ValueError, match="no data"):
        data_commitment(b"")


def test_blob_commitment() -> None:
    hashes = [b"\x01" * 32, b"\x01" + bytes(31)]
    assert blob_commitment(hashes, 130_000) == keccak(
        b"\x03" + (130_000).to_bytes(8, "big") + b"".join(hashes)
    )
