"""Civil dates in integers: when series expire, and what dated instruments are called.

Every expiry is at 08:00 UTC from 2000 to 2099, so that two digits name its year. Days are counted from
1970-01-01, a Thursday; the conversion to dates and back is Howard Hinnant's ("chrono-Compatible Low-Level
Date Algorithms"), years beginning in March so that the leap day is the last.

Names are Deribit's: `BTC-27DEC26` is an expiry and its future, `BTC-27DEC26-100000-C` a call, `-P` a put. The
day has no leading zero; the strike is in dollars, without trailing zeros, of at most two decimals.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from state.leaves import Kind

DAY_S: Final = 86_400
EXPIRY_HOUR_S: Final = 8 * 3_600
MIN_EXPIRY_S: Final = 946_684_800
"""2000-01-01: expiries are later."""
MAX_EXPIRY_S: Final = 4_102_444_800
"""2100-01-01: expiries are before."""
MAX_UNDERLYING_BYTES: Final = 12
"""Of an underlying with dated instruments, so that their names fit."""
STRIKE_UNIT_UUSD: Final = 10_000
"""One cent: strikes are multiples of it."""
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_OPTION_LETTERS: Final = {int(Kind.CALL): "C", int(Kind.PUT): "P"}
_FRIDAY: Final = 1
"""Days since the epoch modulo 7."""
_MARCH_DAYS: Final = 719_468
"""From 0000-03-01 to 1970-01-01."""
_ERA_DAYS: Final = 146_097
"""Of 400 years."""
_CENTURY: Final = 2_000


class Rule(IntEnum):
    """Which days have an expiry."""

    ONCE = 0
    """Not a rule: one expiry that exists."""
    DAILY = 1
    WEEKLY = 2
    """Fridays."""
    MONTHLY = 3
    """The last Friday of a month."""
    QUARTERLY = 4
    """The last Friday of March, June, September and December."""


def days_of(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01."""
    if month <= 2:
        year -= 1
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return era * _ERA_DAYS + day_of_era - _MARCH_DAYS


def date_of(days: int) -> tuple[int, int, int]:
    """(year, month, day) of so many days since 1970-01-01."""
    era, day_of_era = divmod(days + _MARCH_DAYS, _ERA_DAYS)
    year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    return era * 400 + year_of_era + (month <= 2), month, day


def next_expiry_s(rule: int, after_s: int) -> int:
    """The first 08:00 UTC of the rule after that second; 0 if that is not before 2100."""
    days = (max(after_s, MIN_EXPIRY_S) - EXPIRY_HOUR_S) // DAY_S + 1
    if rule >= Rule.WEEKLY:
        days += (_FRIDAY - days) % 7
    while rule >= Rule.MONTHLY and not _is_last_friday(rule, days):
        days += 7
    expiry_s = days * DAY_S + EXPIRY_HOUR_S
    return expiry_s if expiry_s < MAX_EXPIRY_S else 0


def _is_last_friday(rule: int, friday: int) -> bool:
    """Of a month of the rule. At most 14 Fridays lie between two that are."""
    _, month, _ = date_of(friday)
    return date_of(friday + 7)[1] != month and (rule != Rule.QUARTERLY or month % 3 == 0)


def is_expiry_time(expiry_s: int) -> bool:
    """08:00 UTC of some day from 2000 to 2099."""
    return MIN_EXPIRY_S < expiry_s < MAX_EXPIRY_S and expiry_s % DAY_S == EXPIRY_HOUR_S


def expiry_name(underlying: str, expiry_s: int) -> str:
    """Such as BTC-27DEC26; `expiry_s` is an expiry time."""
    year, month, day = date_of(expiry_s // DAY_S)
    return f"{underlying}-{day}{_MONTHS[month - 1]}{year - _CENTURY:02}"


def strike_name(strike_uusd: int) -> str:
    """In dollars, without trailing zeros."""
    dollars, cents = divmod(strike_uusd // STRIKE_UNIT_UUSD, 100)
    return f"{dollars}.{cents:02}".rstrip("0") if cents else str(dollars)


def instrument_name(underlying: str, expiry_s: int, kind: int, strike_uusd: int) -> str:
    """Of a dated instrument; may be longer than a name may be."""
    name = expiry_name(underlying, expiry_s)
    letter = _OPTION_LETTERS.get(kind)
    return name if letter is None else f"{name}-{strike_name(strike_uusd)}-{letter}"


def parse_name(name: str) -> tuple[str, int, int, int] | None:
    """(underlying, expiry_s, kind, strike_uusd) of a dated instrument's name; None of any other text."""
    parts = name.rsplit("-", 3)
    kind, strike_uusd = int(Kind.FUTURE), 0
    if len(parts) == 4 and parts[3] in _OPTION_LETTERS.values():
        kind = int(Kind.CALL) if parts[3] == _OPTION_LETTERS[Kind.CALL] else int(Kind.PUT)
        strike_uusd = _parse_strike(parts[2])
        name = f"{parts[0]}-{parts[1]}"
    underlying, _, date = name.rpartition("-")
    expiry_s = _parse_date(date)
    if not underlying or not expiry_s or (kind != Kind.FUTURE and not strike_uusd):
        return None
    return underlying, expiry_s, kind, strike_uusd


def _parse_strike(text: str) -> int:
    """In uusd; 0 unless it is written as `strike_name` writes it."""
    dollars, _, cents = text.partition(".")
    if not (text.isascii() and dollars.isdigit() and len(text) <= 31 and (cents.isdigit() or not cents)):
        return 0
    strike_uusd = (int(dollars) * 100 + int(cents.ljust(2, "0") or 0)) * STRIKE_UNIT_UUSD
    return strike_uusd if strike_name(strike_uusd) == text else 0


def _parse_date(text: str) -> int:
    """The expiry's time; 0 unless it is written as `expiry_name` writes it."""
    day, month, year = text[:-5], text[-5:-2], text[-2:]
    if not (text.isascii() and day.isdigit() and year.isdigit() and len(day) <= 2 and month in _MONTHS):
        return 0
    days = days_of(_CENTURY + int(year), _MONTHS.index(month) + 1, int(day))
    expiry_s = days * DAY_S + EXPIRY_HOUR_S
    return expiry_s if expiry_name("", expiry_s) == "-" + text else 0
