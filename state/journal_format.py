"""The journal's bytes: how records are framed, and which damage an unfinished write can explain. No I/O.

A segment file is

    header  magic 8 | format u16 | chain id u64 | contract 20 | genesis root 32 | number u64
            | first sequence u64 | check u32
    record  length u32 | kind u8 | sequence u64 | head check u32 | payload | check u32      (repeated)

big-endian. A check is the CRC-32 of the bytes of the header or record before it, with 1 in place of 0, so it
is never four zero bytes. The head of a record has a check of its own, because a damaged length must not look
like an unfinished write.

Invariants:
- Records are numbered without gaps, across segments.
- Only the end of the last segment may be *unfinished*: bytes that end before their record does, or that are
  zero from the failing check to the end of the file. Such a record was never synced, so never acknowledged.
- All other damage, a flipped bit in the very last record included, is `JournalDamaged`: it may be a promise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from struct import Struct
from typing import Final, NamedTuple
from zlib import crc32

FORMAT_VERSION: Final = 1
MAX_RECORD_BYTES: Final = 16 * 2**20
"""Of a payload. Above any block: a batch has at most 2^20 bytes, and L1 messages are small."""

_MAGIC: Final = b"STRADJNL"
_HEADER: Final = Struct(">8sHQ20s32sQQ")
_HEAD: Final = Struct(">IBQ")
_CHECK: Final = Struct(">I")
HEADER_BYTES: Final = _HEADER.size + _CHECK.size
RECORD_HEAD_BYTES: Final = _HEAD.size + _CHECK.size


class StoreCode(StrEnum):
    """Why the data directory cannot be used; stable."""

    LOCKED = "locked"
    WRONG_IDENTITY = "wrong identity"
    WRONG_FORMAT = "wrong format"
    DAMAGED = "damaged"
    DIVERGED = "replay diverged"
    NO_SPACE = "no space"
    READ_ONLY = "read-only"
    IO_ERROR = "input/output error"
    POISONED = "poisoned by an earlier error"
    CLOSED = "closed"


class StoreError(Exception):
    """The data directory cannot be used; `code` says why, `path` where, the message also what to do."""

    def __init__(self, code: StoreCode, path: str, message: str) -> None:
        super().__init__(f"{path}: {code}: {message}")
        self.code = code
        self.path = path


class JournalDamaged(StoreError):
    """Bytes no unfinished write explains, in `path` at `offset`; `sequence` is the first record lost."""

    def __init__(self, path: str, offset: int, sequence: int, expected: str, got: str) -> None:
        super().__init__(
            StoreCode.DAMAGED,
            path,
            f"at offset {offset} (record {sequence}): expected {expected}, got {got}. Nothing was changed. "
            f"Restore the data directory from a copy; or, accepting that record {sequence} and all after it "
            f"are lost, acknowledged transactions among them, run: "
            f"python -m tools.store_inspect DATA_DIRECTORY --truncate-journal-at {sequence}",
        )
        self.offset = offset
        self.sequence = sequence
        self.expected = expected
        self.got = got


@dataclass(frozen=True, slots=True)
class Identity:
    """Which rollup a data directory belongs to."""

    chain_id: int
    contract: bytes
    genesis_root: bytes

    def __post_init__(self) -> None:
        if len(self.contract) != 20 or len(self.genesis_root) != 32 or not 0 <= self.chain_id < 2**64:
            raise ValueError("an identity is a chain id below 2^64, a contract (20 bytes) and a root (32)")

    def __str__(self) -> str:
        return (
            f"chain {self.chain_id}, contract 0x{self.contract.hex()}, "
            f"genesis root 0x{self.genesis_root.hex()}"
        )


class Record(NamedTuple):
    """One journal record as it is stored."""

    sequence: int
    kind: int
    payload: bytes


def _check(data: bytes | memoryview, head: bytes = b"") -> int:
    """CRC-32 of `head` and `data`, never 0."""
    return crc32(data, crc32(head)) or 1


def segment_name(number: int) -> str:
    """The file name of a segment."""
    return f"{number:010d}.journal"


def encode_header(identity: Identity, number: int, first_sequence: int) -> bytes:
    """The header of segment `number`, whose first record will be `first_sequence`."""
    who = (identity.chain_id, identity.contract, identity.genesis_root)
    fields = _HEADER.pack(_MAGIC, FORMAT_VERSION, *who, number, first_sequence)
    return fields + _CHECK.pack(_check(fields))


def encode_record(record: Record) -> bytes:
    """The bytes of one record."""
    head = _HEAD.pack(len(record.payload), record.kind, record.sequence)
    head += _CHECK.pack(_check(head))
    return head + record.payload + _CHECK.pack(_check(record.payload, head))


def read_header(
    path: str, data: bytes, identity: Identity, number: int, expected: int, is_first: bool
) -> int:
    """Checks a segment's header and returns its first sequence.

    That is `expected`, or at most that if no segment stands before it. Raises JournalDamaged; StoreError
    (WRONG_FORMAT, WRONG_IDENTITY).
    """
    if len(data) < HEADER_BYTES:
        raise JournalDamaged(path, 0, expected, f"a header of {HEADER_BYTES} bytes", f"{len(data)} bytes")
    magic, version, chain_id, contract, genesis_root, found_number, first = _HEADER.unpack_from(data)
    (check,) = _CHECK.unpack_from(data, _HEADER.size)
    right = _check(data[: _HEADER.size])
    if magic != _MAGIC or check != right:
        wanted = f"magic {_MAGIC!r} and header check {right:08x}"
        raise JournalDamaged(path, 0, expected, wanted, f"{magic!r} and {check:08x}")
    if version != FORMAT_VERSION:
        message = f"expected journal format {FORMAT_VERSION}, got {version}: use the release that wrote it"
        raise StoreError(StoreCode.WRONG_FORMAT, path, message)
    found = Identity(chain_id, contract, genesis_root)
    if found != identity:
        message = f"this journal belongs to {found}; expected {identity}; name that rollup's data directory"
        raise StoreError(StoreCode.WRONG_IDENTITY, path, message)
    if found_number != number:
        raise JournalDamaged(path, 0, expected, f"segment {number}", f"segment {found_number}")
    if first > expected or (first < expected and not is_first):
        raise JournalDamaged(path, 0, expected, f"first record {expected}", f"first record {first}")
    return int(first)


def read_records(
    path: str, data: bytes, first_sequence: int, is_last: bool, stop_sequence: int | None = None
) -> tuple[list[Record], int]:
    """The records of a segment, those before `stop_sequence` if given, and the offset where they end.

    Without `stop_sequence` that is the end of `data`, or in the last segment the start of an unfinished tail.
    Raises JournalDamaged.
    """
    view = memoryview(data)
    zero_from = len(data.rstrip(b"\0")) if is_last else len(data)
    records: list[Record] = []
    offset, sequence = HEADER_BYTES, first_sequence

    def is_intact(check_at: int, what: str) -> bool:
        """Whether the check at `check_at` stands and agrees; False means unfinished."""
        if check_at + _CHECK.size > len(data):
            if is_last:
                return False
            got = f"{len(data) - offset} bytes"
            raise JournalDamaged(path, offset, sequence, f"{check_at + _CHECK.size - offset} bytes", got)
        (check,) = _CHECK.unpack_from(data, check_at)
        right = _check(view[offset:check_at])
        if check == right:
            return True
        if check_at >= zero_from:
            return False
        raise JournalDamaged(path, offset, sequence, f"{what} check {right:08x}", f"{check:08x}")

    while offset < len(data) and sequence != stop_sequence:
        if not is_intact(offset + _HEAD.size, "record head"):
            break
        length, kind, found = _HEAD.unpack_from(data, offset)
        if found != sequence:
            raise JournalDamaged(path, offset, sequence, f"sequence {sequence}", f"sequence {found}")
        body_at = offset + RECORD_HEAD_BYTES
        if not is_intact(body_at + length, "record"):
            break
        records.append(Record(sequence, kind, data[body_at : body_at + length]))
        offset, sequence = body_at + length + _CHECK.size, sequence + 1
    return records, offset
