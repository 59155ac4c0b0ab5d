"""What encoder and decoder of the batch share: limits, the market table's entries, numbers, the one error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from state.actions import OracleUpdate
from state.units import MAX_NAME_BYTES, MAX_NONCE, OPERATION_BITS

MAX_U64: Final = 2**64 - 1
MAX_MARKET: Final = 2**32 - 1
MAX_TIMESTAMP_MS: Final = 2**48 - 1
"""Of a block: far future, and small enough that every distance from it fits a varint."""
MAX_ORDER_ID: Final = (MAX_NONCE << OPERATION_BITS) | (2**OPERATION_BITS - 1)
CLOCK_NONCE: Final = 2**40
"""Nonces from here on are taken for clock readings (in ms: since 2004) and encoded relative to the block."""
BID_FLAG: Final = 0x80
"""In a transaction's first byte, beside its kind: a priority bid follows."""
BLOCK_END: Final = b"\x00"
"""Stands where a transaction's first byte would."""
EXPIRY_FLAG: Final = 0x80
SIGNATURE_BYTES: Final = 64
ADDRESS_BYTES: Final = 20
HASH_BYTES: Final = 32
NO_HASH: Final = bytes(HASH_BYTES)


class CodecError(Exception):
    """Not encodable, or not the canonical encoding of anything; `field` says where."""

    def __init__(self, field: str, reason: str):
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class MarketEntry(NamedTuple):
    """A market in the batch head: in which units its prices and sizes stand in this batch."""

    tick_uusd: int
    lot_ulots: int
    reference_ticks: int


Table = Mapping[int, MarketEntry]

# Numbers

BYTES: Final = tuple(bytes((value,)) for value in range(256))
_SHORT: Final = BYTES[:128] + tuple(bytes((value & 127 | 128, value >> 7)) for value in range(128, 1 << 14))
_SHORT_END: Final = len(_SHORT)
_GROUPS: Final = tuple(bytes((value & 127 | 128, value >> 7 | 128)) for value in range(_SHORT_END))
"""Two bytes of a varint that goes on."""


def varint(value: int, field: str = "number") -> bytes:
    """Unsigned LEB128, shortest form. Raises CodecError outside 0..2^64-1."""
    if 0 <= value < _SHORT_END:
        return _SHORT[value]
    if not 0 <= value <= MAX_U64:
        raise CodecError(field, f"{value} does not fit")
    parts = b""
    while value >= _SHORT_END:
        parts += _GROUPS[value & 0x3FFF]
        value >>= 14
    return parts + _SHORT[value]


def signed_varint(value: int, field: str = "number") -> bytes:
    """The varint of 2 * value, or of -2 * value - 1 for negative ones ("zigzag")."""
    return varint(value << 1 if value >= 0 else ~(value << 1), field)


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """The value and the offset after it. Raises CodecError, or IndexError at the end of the data."""
    byte = data[offset]
    if byte < 128:
        return byte, offset + 1
    value = byte & 127
    shift = 7
    while True:
        offset += 1
        byte = data[offset]
        value |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise CodecError("varint", "more than 10 bytes")
    if byte == 0:
        raise CodecError("varint", "not in its shortest form")
    if value > MAX_U64:
        raise CodecError("varint", "above 2^64-1")
    return value, offset + 1


def read_signed(data: bytes, offset: int) -> tuple[int, int]:
    """Inverse of `signed_varint`. Raises as `read_varint`."""
    value, offset = read_varint(data, offset)
    return (~(value >> 1) if value & 1 else value >> 1), offset


def read_bytes(data: bytes, offset: int, length: int) -> tuple[bytes, int]:
    end = offset + length
    if end > len(data):
        raise IndexError
    return data[offset:end], end


def in_u64(value: int, field: str) -> int:
    if not 0 <= value <= MAX_U64:
        raise CodecError(field, "out of range")
    return value


def is_name(name: bytes) -> bool:
    """Whether `name` may name a feed or an instrument: 1 to 31 visible ASCII characters."""
    return 0 < len(name) <= MAX_NAME_BYTES and all(0x20 < byte < 0x7F for byte in name)


def report_names(update: OracleUpdate) -> list[str]:
    """All feeds that the reports name, each once, in the order of their characters."""
    names = set()
    for report in update.reports:
        names.update([price.feed for price in report.prices])
        names.update([rate.feed for rate in report.rates])
        names.update([surface.feed for surface in report.surfaces])
    return sorted(names)


def write_name(name: str) -> bytes:
    """Raises CodecError for what is no name."""
    raw = name.encode()
    if not is_name(raw):
        raise CodecError("feed", "not 1 to 31 visible ASCII characters")
    return BYTES[len(raw)] + raw


def read_name(data: bytes, offset: int) -> tuple[str, int]:
    """Inverse of `write_name`. Raises as `read_varint`."""
    name, offset = read_bytes(data, offset + 1, data[offset])
    if not is_name(name):
        raise CodecError("feed", "not 1 to 31 visible ASCII characters")
    return name.decode("ascii"), offset


def entry_of(table: Table, market: int) -> MarketEntry:
    entry = table.get(market)
    if entry is None:
        raise CodecError("market", f"{market} is not in the batch's table")
    return entry
