"""Series: what is listed when, what is not listed twice, and templates that are refused."""

from __future__ import annotations

from dataclasses import replace
from struct import pack
from typing import Any

import pytest

from state.block import L1Message, LifeChange, MessageKind
from state.calendar import DAY_S, Rule, next_expiry_s, parse_name
from state.errors import RejectCode
from state.keys import DUE, MARKET_NAME, instrument_key, name_key, series_key
from state.leaves import Instrument, Kind, Status
from state.series import CALLS, FUTURES, PUTS, RETRY_S
from state.units import MAX_AHEAD, MAX_DUE_STEPS, MAX_EXPIRIES, MAX_STRIKES, MS_PER_S, SETTLEMENT_WINDOW_MS
from tools.exchange import COIN, START_MS, USD, VAULT, Exchange, instrument, standard_exchange
from tools.option_exchange import (
    FUTURE_TERMS,
    NO_TERMS,
    OPTION_TERMS,
    expiries,
    full_update,
    is_due,
    make_due,
    markets_of,
    padded,
    send_message,
    series_message,
    strikes_message,
)

NOW_S = START_MS // MS_PER_S
WINDOW_S = SETTLEMENT_WINDOW_MS // MS_PER_S


def listed(exchange: Exchange) -> list[list[str]]:
    """Names by expiry, in the order of expiries and listing."""
    return [list(markets_of(exchange, number)) for number in expiries(exchange, "C1")]


def test_strikes_stand_around_the_index_on_the_grid() -> None:
    """iSERIES_001."""
    exchange = standard_exchange(1)
    exchange.now_ms += 1
    exchange.report({"C1": 1_049 * USD})
    assert send_message(exchange, series_message("C1", strikes=1)).series == 1
    make_due(exchange)
    ((name, *options),) = listed(exchange)
    strikes = ("900", "1000", "1100")
    assert options == [f"{name}-{strike}-{letter}" for strike in strikes for letter in "CP"]
    for found, market in markets_of(exchange, 1).items():
        terms: Instrument = exchange.view.get(instrument_key(market))
        parsed = parse_name(found)
        assert parsed == ("C1", terms.expiry_s, terms.kind, terms.strike_uusd)
        assert (terms.expiry, terms.status) == (1, Status.TRADING)
        template = FUTURE_TERMS if terms.kind == Kind.FUTURE else OPTION_TERMS
        assert terms.maker_fee_ppm == template.maker_fee_ppm
        assert exchange.view.get(name_key(MARKET_NAME, found)).market == market
    changes = [event.change for event in exchange.results[-1].life]
    assert changes == [LifeChange.LISTED] * 7


def test_the_lowest_strike_is_one_step() -> None:
    exchange = standard_exchange(1)
    send_message(exchange, series_message("C1", kinds=CALLS, step_uusd=600 * USD, strikes=3, future=None))
    make_due(exchange)
    ((*names,),) = listed(exchange)
    assert [name.split("-")[2] for name in names] == ["600", "1200", "1800", "2400", "3000", "3600", "4200"]


@pytest.mark.parametrize("rule", [Rule.DAILY, Rule.WEEKLY, Rule.MONTHLY, Rule.QUARTERLY])
def test_the_next_expiries_of_the_rule_are_kept_listed(rule: Rule) -> None:
    exchange = standard_exchange(1)
    send_message(exchange, series_message("C1", rule=rule, ahead=2, strikes=0))
    make_due(exchange)
    first = next_expiry_s(rule, NOW_S)
    second = next_expiry_s(rule, first)
    assert [expiry.expiry_s for expiry in expiries(exchange, "C1").values()] == [first, second]
    exchange.now_ms = (first - WINDOW_S) * MS_PER_S - 1
    exchange.report({"C1": 1_000 * USD})
    assert not is_due(exchange)
    exchange.now_ms += 1
    assert is_due(exchange)
    make_due(exchange)
    third = next_expiry_s(rule, second)
    assert [expiry.expiry_s for expiry in expiries(exchange, "C1").values()] == [first, second, third]


def test_an_expiry_is_not_listed_twice() -> None:
    exchange = standard_exchange(1)
    send_message(exchange, series_message("C1", rule=Rule.DAILY, ahead=12, strikes=0, kinds=FUTURES | CALLS))
    make_due(exchange)
    before = listed(exchange)
    assert len(before) == MAX_AHEAD
    assert send_message(exchange, series_message("C1", rule=Rule.WEEKLY, ahead=1, strikes=5)).code == 0
    make_due(exchange)
    assert listed(exchange) == before


def test_a_series_waits_for_a_fresh_index() -> None:
    exchange = standard_exchange(1)
    exchange.now_ms += exchange.parameters.oracle_max_age_ms + 1
    assert send_message(exchange, series_message("C1")).code == 0
    make_due(exchange)
    assert listed(exchange) == []
    exchange.now_ms += (RETRY_S - 1) * MS_PER_S
    exchange.report({"C1": 1_000 * USD})
    assert not is_due(exchange)
    exchange.now_ms += MS_PER_S
    make_due(exchange)
    assert len(listed(exchange)) == 1


def test_a_series_of_an_underlying_without_an_index_waits() -> None:
    exchange = standard_exchange(1)
    assert send_message(exchange, series_message("NEW")).code == 0
    exchange.now_ms += RETRY_S * MS_PER_S
    exchange.report({"NEW": 5_000 * USD})
    exchange.now_ms += RETRY_S * MS_PER_S
    make_due(exchange)
    assert len(expiries(exchange, "NEW")) == 1


def test_listing_is_spread_over_blocks() -> None:
    exchange = standard_exchange(1)
    send_message(exchange, series_message("C1", ahead=3, strikes=80, step_uusd=5 * USD))
    count = make_due(exchange)
    assert count >= 3
    assert [len(names) for names in listed(exchange)] == [1 + 2 * 161] * 3
    assert max(len(result.life) for result in exchange.results) <= MAX_DUE_STEPS


def test_an_underlying_has_a_bounded_number_of_expiries() -> None:
    """iSERIES_002."""
    exchange = standard_exchange(1)
    futures: dict[str, Any] = {"kinds": FUTURES, "strikes": 0, "step_uusd": 0, "option": None}
    for rule in (Rule.DAILY, Rule.WEEKLY, Rule.MONTHLY, Rule.QUARTERLY):
        send_message(exchange, series_message("C1", rule=rule, ahead=MAX_AHEAD, **futures))
    make_due(exchange)
    assert len(listed(exchange)) == MAX_EXPIRIES


def test_strikes_are_added_to_an_expiry() -> None:
    exchange = standard_exchange(1)
    send_message(exchange, series_message("C1", strikes=0))
    make_due(exchange)
    ((number, expiry),) = expiries(exchange, "C1").items()
    message = strikes_message("C1", expiry.expiry_s, 950 * USD, 50 * USD, 3, PUTS)
    result = send_message(exchange, message)
    assert (result.code, result.series) == (0, 2)
    make_due(exchange)
    (names,) = listed(exchange)
    added = [f"{names[0]}-{strike}-P" for strike in (950, 1050)]
    assert names[3:] == added, "1000-P was there already"
    assert exchange.view.get(series_key(2)) is None
    assert expiries(exchange, "C1")[number].instruments == 5
    assert [key for key in exchange.leaves() if key[0] == DUE and key[9] == 2] != []


def test_a_name_that_would_be_too_long_is_not_listed() -> None:
    exchange = standard_exchange(1)
    exchange.messages(series_message("LONGESTNAME1", strikes=1, step_uusd=10_000_000 * USD))
    exchange.report({"LONGESTNAME1": 95_000_000 * USD})
    exchange.now_ms += RETRY_S * MS_PER_S
    exchange.report({"LONGESTNAME1": 95_000_001 * USD})
    make_due(exchange)
    (number,) = expiries(exchange, "LONGESTNAME1")
    names = list(markets_of(exchange, number))
    assert [len(name) for name in names] == [20, 31, 31]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"rule": 0}, RejectCode.BAD_PARAMETERS),
        ({"rule": 5}, RejectCode.BAD_PARAMETERS),
        ({"ahead": 0}, RejectCode.BAD_PARAMETERS),
        ({"ahead": MAX_AHEAD + 1}, RejectCode.BAD_PARAMETERS),
        ({"kinds": 0}, RejectCode.BAD_PARAMETERS),
        ({"kinds": 8}, RejectCode.BAD_PARAMETERS),
        ({"strikes": MAX_STRIKES + 1}, RejectCode.BAD_PARAMETERS),
        ({"step_uusd": 0}, RejectCode.BAD_PARAMETERS),
        ({"step_uusd": 15_000}, RejectCode.STRIKE_OFF_GRID),
        ({"kinds": FUTURES}, RejectCode.BAD_PARAMETERS),
        ({"kinds": CALLS | PUTS}, RejectCode.BAD_PARAMETERS),
        ({"future": None}, RejectCode.BAD_PARAMETERS),
        ({"option": None}, RejectCode.BAD_PARAMETERS),
        ({"future": replace(FUTURE_TERMS, lot_ulots=0)}, RejectCode.BAD_PARAMETERS),
        ({"option": replace(OPTION_TERMS, tick_uusd=3, lot_ulots=1)}, RejectCode.BAD_PARAMETERS),
        ({"option": replace(OPTION_TERMS, band_ppm=10**6)}, RejectCode.BAD_PARAMETERS),
        ({"underlying": ""}, RejectCode.BAD_PARAMETERS),
        ({"underlying": "THIRTEENCHARS"}, RejectCode.BAD_PARAMETERS),
        ({"underlying": "A-27DEC26"}, RejectCode.BAD_PARAMETERS),
        ({"underlying": "SPACE D"}, RejectCode.BAD_PARAMETERS),
    ],
)
def test_bad_series_change_nothing(changes: dict[str, Any], code: RejectCode) -> None:
    exchange = standard_exchange(1)
    before = exchange.leaves()
    assert send_message(exchange, series_message(**({"underlying": "C1"} | changes))).code == code
    after = exchange.leaves()
    assert {key for key in before | after if before.get(key) != after.get(key)} == {bytes(32)}


def test_an_instruments_name_is_no_underlying() -> None:
    exchange = standard_exchange(1)
    assert send_message(exchange, series_message("C1-PERPETUAL")).code == RejectCode.NAME_TAKEN


@pytest.mark.parametrize(
    ("lowest", "step", "count", "kinds", "code"),
    [
        (950 * USD, 100 * USD, 1, CALLS, RejectCode.STRIKE_OFF_GRID),
        (0, 100 * USD, 1, CALLS, RejectCode.STRIKE_OFF_GRID),
        (1_000 * USD, 5_000, 1, CALLS, RejectCode.STRIKE_OFF_GRID),
        (1_000 * USD, 0, 1, CALLS, RejectCode.BAD_PARAMETERS),
        (1_000 * USD, 100 * USD, 0, CALLS, RejectCode.BAD_PARAMETERS),
        (1_000 * USD, 100 * USD, MAX_STRIKES + 1, CALLS, RejectCode.BAD_PARAMETERS),
        (1_000 * USD, 100 * USD, 1, FUTURES, RejectCode.BAD_PARAMETERS),
        (1_000 * USD, 100 * USD, 1, 0, RejectCode.BAD_PARAMETERS),
    ],
)
def test_strikes_off_the_grid_are_refused(
    lowest: int, step: int, count: int, kinds: int, code: RejectCode
) -> None:
    exchange = standard_exchange(1)
    send_message(exchange, series_message("C1", strikes=0))
    make_due(exchange)
    (expiry,) = expiries(exchange, "C1").values()
    message = strikes_message("C1", expiry.expiry_s, lowest, step, count, kinds)
    assert send_message(exchange, message).code == code


def test_strikes_of_no_expiry_are_refused() -> None:
    exchange = standard_exchange(1)
    send_message(exchange, series_message("C1", strikes=0))
    make_due(exchange)
    (expiry,) = expiries(exchange, "C1").values()
    for underlying, expiry_s in (("C1", expiry.expiry_s + DAY_S), ("C2", expiry.expiry_s), ("C1", 2**64 - 1)):
        message = strikes_message(underlying, expiry_s, 1_000 * USD, 100 * USD, 1)
        assert send_message(exchange, message).code == RejectCode.UNKNOWN_EXPIRY
    exchange.now_ms = expiry.expiry_s * MS_PER_S
    message = strikes_message("C1", expiry.expiry_s, 1_000 * USD, 100 * USD, 1)
    assert send_message(exchange, message).code == RejectCode.UNKNOWN_EXPIRY


@pytest.mark.parametrize("kind", [MessageKind.LIST_SERIES, MessageKind.LIST_STRIKES])
def test_payloads_have_one_length(kind: MessageKind) -> None:
    exchange = standard_exchange(1)
    for payload in (b"", bytes(100), padded("C1") + NO_TERMS * 2 + pack(">BBBQI", 1, 1, 1, 1, 1) + b"\0"):
        assert send_message(exchange, L1Message(kind, VAULT, 0, payload)).code == RejectCode.MALFORMED_MESSAGE


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("C9-27DEC26", {"kind": 1}),
        ("C9-PERPETUAL", {"kind": 2}),
        ("C9-PERPETUAL", {"strike_uusd": COIN}),
        ("C9-PERPETUAL", {"expiry_s": 1}),
        ("C9-PERPETUAL", {"expiry": 1}),
        ("C9-27DEC26", {}),
        ("C9-27DEC26-5-C", {}),
    ],
)
def test_instruments_of_series_are_not_listed_one_by_one(name: str, changes: dict[str, int]) -> None:
    exchange = standard_exchange(1)
    message = L1Message(MessageKind.LIST_INSTRUMENT, VAULT, 0, instrument(name, "C9", **changes).encode())
    assert send_message(exchange, message).code == RejectCode.BAD_PARAMETERS


def test_an_expiry_that_passes_while_it_is_being_listed_is_left() -> None:
    exchange = standard_exchange(1)
    send_message(exchange, series_message("C1", ahead=1, strikes=128, step_uusd=USD))
    exchange.now_ms += DAY_S * MS_PER_S
    exchange.send(full_update(exchange, {"C1": 1_000 * USD}))
    make_due(exchange)
    assert len(listed(exchange)[0]) < 514
    assert not is_due(exchange)
