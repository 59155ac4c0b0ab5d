"""Human units on the command line: dollars, coins, durations and addresses, to exact integers and back.

Everything goes through `decimal`, never through a float: what cannot be said exactly in the protocol's
units (10^-6 dollars, 10^-6 coins) is refused, not rounded. Parsers raise BadParameter; typer adds the
option's name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import typer

from state.units import MAX_AMOUNT_UUSD, MAX_PRICE_UUSD, MAX_SIZE_ULOTS

MILLION = 1_000_000
MAX_U64 = 2**64 - 1
_DECIMAL = re.compile(r"[0-9]{1,16}(\.[0-9]+)?")
_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d)?")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, None: 1}


def _millionths(text: str, what: str, example: str, maximum: int, least: int = 1) -> int:
    """`text` times a million, exactly."""
    if not _DECIMAL.fullmatch(text.strip()):
        raise typer.BadParameter(f"{text!r} is not {what}: write a decimal number such as {example}")
    scaled = Decimal(text.strip()) * MILLION
    if scaled != int(scaled):
        raise typer.BadParameter(f"{text} has more than 6 decimal places")
    if not least <= scaled <= maximum:
        low, high = plain(least), plain(maximum)
        raise typer.BadParameter(f"{text} is outside {low} to {high}")
    return int(scaled)


def dollars(text: str) -> int:
    """An amount in dollars, as uusd."""
    return _millionths(text, "an amount of dollars", "1250.50", MAX_AMOUNT_UUSD)


def signed_dollars(text: str) -> int:
    """An amount in dollars, possibly zero or below, as uusd."""
    bare = text.strip().removeprefix("-")
    amount = _millionths(bare, "an amount of dollars", "-1250.50", MAX_AMOUNT_UUSD, 0)
    return -amount if text.strip().startswith("-") else amount


def fee(text: str) -> int:
    """A fee in dollars, possibly zero, as uusd."""
    return _millionths(text, "an amount of dollars", "0.01", MAX_AMOUNT_UUSD, 0)


def price(text: str) -> int:
    """A price in dollars for one coin, as uusd."""
    return _millionths(text, "a price in dollars", "60000.5", MAX_PRICE_UUSD)


def coins(text: str) -> int:
    """A size in coins, as ulots."""
    return _millionths(text, "a size in coins", "0.25", MAX_SIZE_ULOTS)


def duration(text: str) -> int:
    """`90s`, `15m`, `8h`, `7d` or plain seconds, as seconds."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is not a duration: write 90s, 15m, 8h or 7d")
    return int(found[1]) * _SECONDS[found[2]]


def moment(text: str) -> int:
    """A duration from now, or an ISO 8601 time with its zone, as seconds since the epoch."""
    if _DURATION.fullmatch(text.strip()):
        return int(time.time()) + duration(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} is not a time: write 8h from now, or 2027-01-31T16:00:00+00:00")
    seconds = int(found.timestamp())
    if seconds <= time.time():
        raise typer.BadParameter(f"{text} has passed")
    return seconds


def address(text: str) -> bytes:
    """20 bytes of a 0x-address."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{40}", text):
        raise typer.BadParameter(f"{text!r} is not an address: write 0x and 40 hexadecimal digits")
    return bytes.fromhex(text[2:])


def hash32(text: str) -> str:
    """0x and 64 hexadecimal digits, as given."""
    if not re.fullmatch(r"0x[0-9a-fA-F]{64}", text):
        raise typer.BadParameter(f"{text!r} is not 0x and 64 hexadecimal digits")
    return text


def or_default(parser: Callable[[str], int]) -> Callable[[Any], int]:
    """`parser` for what was typed; an option's default is an integer already."""
    return lambda value: value if isinstance(value, int) else parser(value)


def plain(millionths: int) -> str:
    """Millionths as a decimal without trailing zeros, digits grouped."""
    whole, part = divmod(abs(millionths), MILLION)
    text = f"{'-' if millionths < 0 else ''}{whole:,}"
    digits = f"{part:06}".rstrip("0")
    return f"{text}.{digits}" if digits else text


def show_dollars(uusd: int) -> str:
    """At least cents, at most millionths: $1,234.50."""
    text = plain(abs(uusd))
    whole, _, part = text.partition(".")
    return f"{'-' if uusd < 0 else ''}${whole}.{part.ljust(2, '0')}"


def show_market(value: float | None) -> str:
    """A float of the market data methods, which are made from millionths."""
    return "-" if value is None else plain(int((Decimal(repr(value)) * MILLION).to_integral_value()))


def show_time(seconds: int) -> str:
    """UTC, to the second."""
    if seconds > 253_402_300_799:
        return f"{seconds} s"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def show_field(name: str, value: object) -> str:
    """A value in the unit that its field's name ends with."""
    if isinstance(value, bool) or not isinstance(value, int):
        return str(value)
    if name.endswith("_uusd"):
        return show_dollars(value)
    if name.endswith("_ulots"):
        return plain(value)
    if name.endswith("_ppm"):
        return f"{plain(value * 100)} %"
    return str(value)
