"""Civil dates and the names of dated instruments, against the standard library."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from state.calendar import (
    DAY_S,
    MAX_EXPIRY_S,
    STRIKE_UNIT_UUSD,
    Rule,
    date_of,
    days_of,
    expiry_name,
    instrument_name,
    is_expiry_time,
    next_expiry_s,
    parse_name,
    strike_name,
)
from state.leaves import Kind

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RULES = (Rule.DAILY, Rule.WEEKLY, Rule.MONTHLY, Rule.QUARTERLY)


def time_of(moment: datetime) -> int:
    return int(moment.timestamp())


def is_of_rule(day: datetime, rule: Rule) -> bool:
    """The rule, in the standard library's terms."""
    if rule == Rule.DAILY:
        return True
    if day.weekday() != 4:
        return False
    if rule == Rule.WEEKLY:
        return True
    last = (day + timedelta(days=7)).month != day.month
    return last and (rule == Rule.MONTHLY or day.month in (3, 6, 9, 12))


@given(st.integers(-800_000, 2_000_000))
def test_dates_are_the_standard_librarys(days: int) -> None:
    year, month, day = date_of(days)
    assert days_of(year, month, day) == days
    if 1 <= year <= 9999:
        moment = EPOCH + timedelta(days=days)
        assert (year, month, day) == (moment.year, moment.month, moment.day)


@given(st.integers(time_of(datetime(2000, 1, 1, tzinfo=UTC)), MAX_EXPIRY_S), st.sampled_from(RULES))
def test_the_next_expiry_is_the_first_day_of_the_rule(after_s: int, rule: Rule) -> None:
    found = next_expiry_s(rule, after_s)
    day = datetime.fromtimestamp(after_s, UTC).replace(hour=8, minute=0, second=0)
    while time_of(day) <= after_s or not is_of_rule(day, rule):
        day += timedelta(days=1)
    assert found == (time_of(day) if day.year < 2100 else 0)
    if found:
        assert is_expiry_time(found)
        assert next_expiry_s(rule, found) != found


def test_names_are_deribits() -> None:
    expiry_s = time_of(datetime(2026, 12, 27, 8, tzinfo=UTC))
    assert expiry_name("BTC", expiry_s) == "BTC-27DEC26"
    assert instrument_name("BTC", expiry_s, Kind.FUTURE, 0) == "BTC-27DEC26"
    assert instrument_name("BTC", expiry_s, Kind.CALL, 100_000_000_000) == "BTC-27DEC26-100000-C"
    assert instrument_name("SOL", expiry_s, Kind.PUT, 2_500_000) == "SOL-27DEC26-2.5-P"
    assert strike_name(10_250_000) == "10.25"
    early = time_of(datetime(2026, 3, 6, 8, tzinfo=UTC))
    assert expiry_name("ETH-USD", early) == "ETH-USD-6MAR26"


@given(
    st.text("ABC-", min_size=1, max_size=8).filter(lambda text: not text.startswith("-")),
    st.integers(10_957, MAX_EXPIRY_S // DAY_S - 1),
    st.sampled_from((Kind.FUTURE, Kind.CALL, Kind.PUT)),
    st.integers(1, 10**11),
)
def test_a_name_says_all_that_it_was_made_of(underlying: str, days: int, kind: Kind, cents: int) -> None:
    expiry_s = days * DAY_S + 8 * 3_600
    strike_uusd = 0 if kind == Kind.FUTURE else cents * STRIKE_UNIT_UUSD
    name = instrument_name(underlying, expiry_s, kind, strike_uusd)
    assert parse_name(name) == (underlying, expiry_s, kind, strike_uusd)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "BTC",
        "BTC-PERPETUAL",
        "-27DEC26",
        "BTC-27DEC",
        "BTC-027DEC26",
        "BTC-07DEC26",
        "BTC-31FEB26",
        "BTC-0DEC26",
        "BTC-27dec26",
        "BTC-27DEC26-C",
        "BTC-27DEC26-0-C",
        "BTC-27DEC26-1.50-C",
        "BTC-27DEC26-1.-C",
        "BTC-27DEC26-.5-C",
        "BTC-27DEC26-1.005-C",
        "BTC-27DEC26-01-C",
        "BTC-27DEC26-1e5-C",
        "BTC-27DEC26-1-X",
        "BTC-27DEC26-\u0661-C",
        "BTC-\u0662\u0667DEC26",
    ],
)
def test_other_text_is_no_dated_name(name: str) -> None:
    assert parse_name(name) is None


@given(st.text("BTC-0123456789DECJAN.P", max_size=24))
def test_what_parses_is_written_so(name: str) -> None:
    found = parse_name(name)
    if found is not None:
        underlying, expiry_s, kind, strike_uusd = found
        assert instrument_name(underlying, expiry_s, kind, strike_uusd) == name
