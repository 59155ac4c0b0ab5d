"""A recorded option chain in Deribit's conventions: a CSV file, plain or gzip, one row per instrument.

Columns used (others are ignored): `snapshot_utc, instrument_name, option_type, strike_usd, expiry_utc,
bid_coin, ask_coin, fwd_bid_usd, fwd_ask_usd, perp_bid_usd, perp_ask_usd`. Prices of options are in coin, so
they are in units of the forward already; an empty bid or ask is no quote. One file is one snapshot of one
underlying. The source has no index price: the perpetual's mid stands for it.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from sequencer.implied_vol import Flags, Floats

MS_PER_YEAR = 365 * 86_400_000
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_ROWS = 50_000
COLUMNS = (
    "snapshot_utc",
    "instrument_name",
    "option_type",
    "strike_usd",
    "expiry_utc",
    "bid_coin",
    "ask_coin",
    "fwd_bid_usd",
    "fwd_ask_usd",
    "perp_bid_usd",
    "perp_ask_usd",
)


class ChainError(ValueError):
    """The file is not a chain that we read; the message says which line and what was expected."""


@dataclass(frozen=True, slots=True)
class OptionQuotes:
    """Quotes of one expiry as arrays of one length; prices in units of the forward, NaN for no quote."""

    strike: Floats
    is_call: Flags
    bid: Floats
    ask: Floats

    def two_sided(self) -> OptionQuotes:
        """Those with a bid and an ask above it: what a fit may use. Crossed and locked quotes are none."""
        return self.where((self.bid > 0) & (self.ask > self.bid))

    def where(self, chosen: Flags) -> OptionQuotes:
        return OptionQuotes(self.strike[chosen], self.is_call[chosen], self.bid[chosen], self.ask[chosen])

    def __len__(self) -> int:
        return len(self.strike)


@dataclass(frozen=True, slots=True)
class TwoSided:
    """A bid and an ask in dollars."""

    bid: float
    ask: float

    @property
    def mid(self) -> float:
        return (self.bid + self.ask) / 2

    @property
    def half_spread(self) -> float:
        """Half the spread as a fraction of the mid."""
        return (self.ask - self.bid) / 2 / self.mid


@dataclass(frozen=True, slots=True)
class ChainExpiry:
    expiry_ms: int
    tau: float
    """Years of 365 days from the snapshot to the expiry."""
    forward: TwoSided
    quotes: OptionQuotes


@dataclass(frozen=True, slots=True)
class OptionChain:
    underlying: str
    snapshot_ms: int
    index: TwoSided
    """The perpetual's quote."""
    expiries: tuple[ChainExpiry, ...]
    """Nearest first."""


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    underlying: str
    snapshot_ms: int
    expiry_ms: int
    index: TwoSided
    forward: TwoSided
    strike: float
    is_call: bool
    bid: float
    ask: float


def read_chain(path: Path) -> OptionChain:
    """The whole file, checked.

    Raises ChainError for a layout or a value that does not fit (with the line), OSError when the file cannot
    be read.
    """
    rows: list[_Row] = []
    reader = csv.DictReader(_text(path).splitlines())
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ChainError(f"{path.name}: not an option chain: no column {', '.join(missing)}")
    try:
        for raw in reader:
            try:
                rows.append(_row(reader.line_num, raw))
            except ValueError as error:
                raise ChainError(f"{path.name}:{reader.line_num}: {error}") from None
            if len(rows) > MAX_ROWS:
                raise ChainError(f"{path.name}: more than {MAX_ROWS} rows")
    except csv.Error as error:
        raise ChainError(f"{path.name}:{reader.line_num}: {error}") from None
    if not rows:
        raise ChainError(f"{path.name}: no rows")
    return _chain(path, rows)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            source = gzip.GzipFile(fileobj=file) if packed else file
            data = source.read(MAX_FILE_BYTES + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ChainError(f"{path.name}: damaged gzip file: {error}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ChainError(f"{path.name}: more than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ChainError(f"{path.name}: not text: {error}") from None


def _row(line: int, raw: dict[str, str]) -> _Row:
    if None in raw or None in raw.values():
        raise ValueError("not as many fields as columns")
    kind = raw["option_type"]
    if kind not in ("C", "P"):
        raise ValueError(f"option_type {kind!r}: expected C or P")
    row = _Row(
        line=line,
        underlying=raw["instrument_name"].split("-")[0],
        snapshot_ms=_time_ms(raw, "snapshot_utc"),
        expiry_ms=_time_ms(raw, "expiry_utc"),
        index=_two_sided(raw, "perp"),
        forward=_two_sided(raw, "fwd"),
        strike=_positive(raw, "strike_usd"),
        is_call=kind == "C",
        bid=_quote(raw, "bid_coin"),
        ask=_quote(raw, "ask_coin"),
    )
    if not row.underlying.isalnum():
        raise ValueError(
            f"instrument_name {raw['instrument_name']!r}: expected UNDERLYING-EXPIRY-STRIKE-TYPE"
        )
    if row.expiry_ms <= row.snapshot_ms:
        raise ValueError(f"expiry_utc {raw['expiry_utc']} is not after the snapshot")
    return row


def _chain(path: Path, rows: list[_Row]) -> OptionChain:
    first = rows[0]
    by_expiry: dict[int, list[_Row]] = {}
    seen: set[tuple[int, float, bool]] = set()
    for row in rows:
        same = (row.underlying, row.snapshot_ms, row.index)
        if same != (first.underlying, first.snapshot_ms, first.index):
            raise ChainError(f"{path.name}:{row.line}: another underlying or snapshot than the first row's")
        instrument = (row.expiry_ms, row.strike, row.is_call)
        if instrument in seen:
            raise ChainError(f"{path.name}:{row.line}: this instrument stands in the file twice")
        seen.add(instrument)
        of_expiry = by_expiry.setdefault(row.expiry_ms, [])
        if of_expiry and of_expiry[0].forward != row.forward:
            raise ChainError(f"{path.name}:{row.line}: another forward than the expiry's first row has")
        of_expiry.append(row)
    return OptionChain(
        first.underlying,
        first.snapshot_ms,
        first.index,
        tuple(_expiry(of_expiry) for _, of_expiry in sorted(by_expiry.items())),
    )


def _expiry(rows: list[_Row]) -> ChainExpiry:
    first = rows[0]
    quotes = OptionQuotes(
        np.array([row.strike for row in rows]),
        np.array([row.is_call for row in rows]),
        np.array([row.bid for row in rows]),
        np.array([row.ask for row in rows]),
    )
    tau = (first.expiry_ms - first.snapshot_ms) / MS_PER_YEAR
    return ChainExpiry(first.expiry_ms, tau, first.forward, quotes)


def _time_ms(raw: dict[str, str], name: str) -> int:
    try:
        moment = datetime.fromisoformat(raw[name])
    except ValueError:
        raise ValueError(f"{name} {raw[name]!r}: expected a time like 2026-08-02T08:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _positive(raw: dict[str, str], name: str) -> float:
    try:
        value = float(raw[name])
    except ValueError:
        raise ValueError(f"{name} {raw[name]!r}: expected a number") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} {raw[name]!r}: must be above 0")
    return value


def _quote(raw: dict[str, str], name: str) -> float:
    """NaN for no quote; exchanges write that as nothing or as 0."""
    text = raw[name].strip()
    if not text or text.strip("0.") == "":
        return math.nan
    return _positive(raw, name)


def _two_sided(raw: dict[str, str], prefix: str) -> TwoSided:
    quote = TwoSided(_positive(raw, f"{prefix}_bid_usd"), _positive(raw, f"{prefix}_ask_usd"))
    if quote.bid > quote.ask:
        raise ValueError(f"{prefix}_bid_usd {quote.bid:g} above {prefix}_ask_usd {quote.ask:g}")
    return quote
