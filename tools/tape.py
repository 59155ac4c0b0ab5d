"""Trade tapes: recorded trades of a real exchange, or a seeded market, as one stream of integer trades.

Three layouts are read, told apart by their header or, without one, by their shape:

- `trade_time_ms,venue,symbol,trade_id,price,qty,taker_side,exec_type`, several venues and symbols in a file
- Binance's public `trades`: `id,price,qty,quote_qty,time,is_buyer_maker[,is_best_match]`
- Binance's public `aggTrades`: `id,price,qty,first_id,last_id,time,is_buyer_maker[,is_best_match]`

plain, gzip or zip. The public layouts carry no symbol; it is taken from the name: `BTCUSDT-trades-....csv`.
"""

from __future__ import annotations

import csv
import gzip
import io
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

PRICE_SCALE = 1_000_000
SIZE_SCALE = 1_000_000
MICROSECONDS_FROM = 10**14
"""Times above it are microseconds (Binance's spot files since 2025); in milliseconds it is the year 5138."""


class TapeError(ValueError):
    """The file is not a tape that we read; the message says which line and what was expected."""


@dataclass(frozen=True, slots=True)
class TapeTrade:
    time_ms: int
    underlying: str
    price_uusd: int
    size_ulots: int
    taker_buys: bool


def read_tape(path: Path, venue: str = "usdm") -> Iterator[TapeTrade]:
    """Trades in the file's order. Of a file with several venues only `venue` is read.

    Raises TapeError for a layout or a value that does not fit, OSError when the file cannot be read.
    """
    with _open(path) as text:
        rows = csv.reader(text)
        first = next(rows, None)
        if not first:
            raise TapeError(f"{path.name}: empty file")
        if first[0] == "trade_time_ms":
            yield from _venue_rows(path, rows, venue)
            return
        header = not first[0].lstrip("-").isdigit()
        width = len(first)
        if header:
            aggregated = any("first" in name.lower() for name in first)
        else:
            aggregated = len(first) >= 7 and first[4].isdigit() and first[5].isdigit()
        if width not in (6, 7, 8):
            raise TapeError(
                f"{path.name}: {width} columns; expected Binance trades, aggTrades, or a venue tape"
            )
        underlying = _underlying(path.name.split("-")[0].split(".")[0])
        if not header:
            yield _public_row(path, 1, first, underlying, aggregated)
        for number, row in enumerate(rows, start=2):
            yield _public_row(path, number, row, underlying, aggregated)


def synthetic_tape(seed: int, trades: int, start_ms: int = 1_700_000_000_000) -> Iterator[TapeTrade]:
    """A seeded two-market random walk with clustered arrivals; the same seed gives the same tape."""
    rng = random.Random(seed)
    ticks = {"BTC": 600_000, "ETH": 250_000}
    tick_uusd = {"BTC": 100_000, "ETH": 10_000}
    time_ms = start_ms
    for _ in range(trades):
        time_ms += min(int(rng.expovariate(1 / 12)), 500)
        underlying = "BTC" if rng.random() < 0.6 else "ETH"
        buys = rng.random() < 0.5
        ticks[underlying] += rng.choice((0, 0, 0, 1, 1, 2)) * (1 if buys else -1)
        size = (
            1_000 * (1 + int(rng.paretovariate(1.3)))
            if underlying == "BTC"
            else 10_000 * (1 + rng.randrange(40))
        )
        yield TapeTrade(
            time_ms, underlying, ticks[underlying] * tick_uusd[underlying], min(size, 5_000_000), buys
        )


def _open(path: Path) -> io.TextIOBase:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="")
    if path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        names = [name for name in archive.namelist() if name.endswith(".csv")]
        if len(names) != 1:
            raise TapeError(f"{path.name}: {len(names)} CSV files inside, expected one")
        return io.TextIOWrapper(archive.open(names[0]), newline="")
    return path.open(newline="")


def _venue_rows(path: Path, rows: Iterator[list[str]], venue: str) -> Iterator[TapeTrade]:
    for number, row in enumerate(rows, start=2):
        if len(row) != 8:
            raise TapeError(f"{path.name} line {number}: {len(row)} columns, expected 8")
        time, row_venue, symbol, _, price, size, side, kind = row
        if row_venue != venue or kind == "INSURANCE_FUND":
            continue
        if side not in ("B", "S"):
            raise TapeError(f"{path.name} line {number}: taker_side {side!r}, expected B or S")
        yield _trade(path, number, time, _underlying(symbol), price, size, side == "B")


def _public_row(path: Path, number: int, row: list[str], underlying: str, aggregated: bool) -> TapeTrade:
    if len(row) < 6 + aggregated:
        raise TapeError(f"{path.name} line {number}: {len(row)} columns, expected at least {6 + aggregated}")
    time, maker = (row[5], row[6]) if aggregated else (row[4], row[5])
    if maker.lower() not in ("true", "false"):
        raise TapeError(f"{path.name} line {number}: is_buyer_maker {maker!r}, expected true or false")
    return _trade(path, number, time, underlying, row[1], row[2], maker.lower() == "false")


def _trade(
    path: Path, number: int, time: str, underlying: str, price: str, size: str, buys: bool
) -> TapeTrade:
    try:
        stamp = int(time)
        price_uusd = int(Decimal(price) * PRICE_SCALE)
        size_ulots = int(Decimal(size) * SIZE_SCALE)
    except (ValueError, InvalidOperation) as error:
        raise TapeError(f"{path.name} line {number}: time, price or size is not a number") from error
    if price_uusd <= 0 or size_ulots < 0:
        raise TapeError(f"{path.name} line {number}: price and size must be positive")
    return TapeTrade(
        stamp // 1000 if stamp > MICROSECONDS_FROM else stamp, underlying, price_uusd, size_ulots, buys
    )


def _underlying(symbol: str) -> str:
    """BTC of BTCUSDT, BTCUSD_PERP, BTCUSDC."""
    base = symbol.upper().split("_")[0]
    for quote in ("USDT", "USDC", "FDUSD", "BUSD", "USD"):
        if base.endswith(quote) and len(base) > len(quote):
            return base.removesuffix(quote)
    raise TapeError(
        f"symbol {symbol!r}: no dollar quote; name the file SYMBOL-trades-....csv as the exchange does"
    )
