"""Rates and surfaces in oracle updates: medians, domain and arbitrage, deviation, the feeds' own terms."""

from __future__ import annotations

from struct import pack

import pytest
from msgspec.structs import replace

from l1_bridge.deploy import set_feed as set_feed_message
from state.actions import OracleReport, Rate, SurfaceReport
from state.block import L1Message, MessageKind
from state.calendar import Rule, expiry_name, next_expiry_s
from state.errors import RejectCode, Rejected
from state.keys import FEED, RATE, SURFACE, name_key
from state.leaves import Feed, RateFeed, Surface
from state.oracle import check_report
from state.pricing import PICO
from tests.dated import (
    FORWARD,
    INDEX,
    NAME,
    TAU_S,
    add_expiry,
    flat,
    priced_exchange,
    report_of,
    update_of,
)
from tests.exchange_checks import must_reject
from tools.exchange import VAULT, Exchange, standard_exchange
from tools.option_exchange import make_due, send_message, series_message

SMILE = SurfaceReport(NAME, 2 * 10**10, 10**11, -3 * 10**11, 2 * 10**10, 2 * 10**11, FORWARD, TAU_S, 900_000)


@pytest.fixture
def exchange() -> Exchange:
    return priced_exchange()


def set_feed(kind: int, name: str, heartbeat_ms: int, deviation_ppm: int) -> L1Message:
    payload = pack(">B31sII", kind, name.encode(), heartbeat_ms, deviation_ppm)
    return L1Message(MessageKind.SET_FEED, VAULT, 0, payload)


# Medians


def test_each_number_of_a_surface_has_its_median() -> None:
    exchange = standard_exchange()
    add_expiry(exchange)
    exchange.now_ms += 1_000
    surfaces = [
        replace(SMILE, a_pico=SMILE.a_pico + n, rho_pico=SMILE.rho_pico - n, confidence_ppm=900_000 - n)
        for n in (3, 1, 2)
    ]
    reports = [report_of(exchange, surfaces=[each], ago_ms=n) for n, each in enumerate(surfaces)]
    exchange.send(update_of(*reports))
    feed: Surface = exchange.view.get(name_key(SURFACE, NAME))
    assert feed == Surface(
        SMILE.a_pico + 2,
        SMILE.b_pico,
        SMILE.rho_pico - 2,
        SMILE.m_pico,
        SMILE.sigma_pico,
        FORWARD,
        TAU_S,
        900_000 - 3,
        exchange.now_ms - 2,
        1,
        expiry=1,
    )


def test_rates_may_be_negative_and_have_their_median() -> None:
    exchange = standard_exchange()
    add_expiry(exchange)
    exchange.now_ms += 1_000
    values = [(-70, 10), (20, 30), (-30, 20)]
    reports = [report_of(exchange, rates=[Rate(NAME, *value)]) for value in values]
    exchange.send(update_of(*reports))
    feed: RateFeed = exchange.view.get(name_key(RATE, NAME))
    assert (feed.value_ppb, feed.confidence_ppm, feed.version) == (-30, 10, 1)
    exchange.now_ms += 1
    exchange.send(update_of(*[report_of(exchange, rates=[Rate(NAME, *value)]) for value in values[:2]]))
    assert feed.value_ppb == -70, "of two the lower"


# What is refused


def changed(**changes: int) -> SurfaceReport:
    return replace(SMILE, **changes)


BAD_SURFACES = {
    "a": changed(a_pico=145 * PICO),
    "b": changed(b_pico=-1),
    "rho": changed(rho_pico=PICO),
    "m": changed(m_pico=-16 * PICO - 1),
    "sigma": changed(sigma_pico=0),
    "forward_uusd": changed(forward_uusd=0),
    "tau_s": changed(tau_s=0),
    "least variance": changed(a_pico=-(10**11) * 2 // 10),
    "wing slope": changed(b_pico=2 * PICO * 10 // 13 + 1),
    "volatility": changed(a_pico=0, b_pico=0),
}


@pytest.mark.parametrize("field", BAD_SURFACES)
def test_surfaces_out_of_domain_or_with_arbitrage(exchange: Exchange, field: str) -> None:
    exchange.now_ms += 1_000
    report = report_of(exchange, surfaces=[BAD_SURFACES[field]])
    with pytest.raises(Rejected) as refusal:
        check_report(report, exchange.now_ms)
    assert refusal.value.code == RejectCode.ORACLE_SURFACE
    assert refusal.value.data == {"feed": NAME, "field": field}
    must_reject(exchange, RejectCode.ORACLE_SURFACE, update_of(*[report] * 3))


def test_a_median_of_sound_surfaces_must_be_sound(exchange: Exchange) -> None:
    """One is low because of b, one because of a: the medians of both together are below zero."""
    exchange.now_ms += 1_000
    surfaces = [
        changed(a_pico=-(10**10), b_pico=10**11, rho_pico=0, m_pico=0, sigma_pico=2 * 10**11),
        changed(a_pico=-(10**10), b_pico=10**11, rho_pico=0, m_pico=0, sigma_pico=2 * 10**11),
        changed(a_pico=10**10, b_pico=10**9, rho_pico=0, m_pico=0, sigma_pico=10**9),
    ]
    for surface in surfaces:
        check_report(report_of(exchange, surfaces=[surface]), exchange.now_ms)
    two = [report_of(exchange, surfaces=[surfaces[0]]), report_of(exchange, surfaces=[surfaces[2]])]
    must_reject(exchange, RejectCode.ORACLE_SURFACE, update_of(*two))


def test_the_edges_of_the_domain_are_in_it() -> None:
    exchange = priced_exchange()
    edge = changed(a_pico=0, b_pico=PICO, rho_pico=PICO - 1, sigma_pico=16 * PICO, m_pico=16 * PICO)
    check_report(report_of(exchange, surfaces=[edge]), exchange.now_ms)
    # Variance just at zero: a + b sigma sqrt(1 - 0.6^2) = 0.
    least = changed(a_pico=-16 * 10**9, rho_pico=6 * 10**11, m_pico=-(10**12))
    check_report(report_of(exchange, surfaces=[least]), exchange.now_ms)
    below = replace(least, a_pico=least.a_pico - 1)
    with pytest.raises(Rejected, match="least variance"):
        check_report(report_of(exchange, surfaces=[below]), exchange.now_ms)


def bad_updates(exchange: Exchange) -> list[tuple[RejectCode, list[OracleReport]]]:
    def all_of(**reported: object) -> list[OracleReport]:
        return [report_of(exchange, **reported)] * 3  # type: ignore[arg-type]

    rate, surface = Rate(NAME, 41_000_000, 1), flat(601_000)
    late = report_of(exchange, surfaces=[surface], ago_ms=1_000)
    return [
        (RejectCode.ORACLE_DUPLICATE_FEED, all_of(rates=[rate, rate])),
        (RejectCode.ORACLE_DUPLICATE_FEED, all_of(surfaces=[surface, surface])),
        (RejectCode.ORACLE_UNKNOWN_FEED, all_of(rates=[Rate("C1", 1, 1)])),
        (RejectCode.ORACLE_UNKNOWN_FEED, all_of(surfaces=[replace(surface, feed="C1")])),
        (RejectCode.NUMBER_OUT_OF_RANGE, all_of(rates=[Rate(NAME, 10**10 + 1, 1)])),
        (RejectCode.NUMBER_OUT_OF_RANGE, all_of(rates=[Rate(NAME, 1, 10**6 + 1)])),
        (RejectCode.NUMBER_OUT_OF_RANGE, all_of(surfaces=[replace(surface, confidence_ppm=10**6 + 1)])),
        (RejectCode.ORACLE_QUORUM, [*all_of()[:1], report_of(exchange, rates=[rate])]),
        (RejectCode.ORACLE_OLD, [late, *all_of(surfaces=[surface])[:1]]),
        (RejectCode.ORACLE_DEVIATION, all_of(rates=[Rate(NAME, 141_000_000, 1)])),
        (RejectCode.ORACLE_DEVIATION, all_of(rates=[Rate(NAME, -61_000_000, 1)])),
        (RejectCode.ORACLE_DEVIATION, all_of(surfaces=[flat(661_000)])),
        (RejectCode.ORACLE_DEVIATION, all_of(surfaces=[flat(539_000)])),
        (RejectCode.ORACLE_DEVIATION, all_of(prices={NAME: FORWARD * 111 // 100})),
    ]


@pytest.mark.parametrize("case", range(14))
def test_bad_rates_and_surfaces(exchange: Exchange, case: int) -> None:
    exchange.messages(*(set_feed(kind, NAME, 0, 100_000) for kind in range(3)))
    exchange.now_ms += 1_000
    code, reports = bad_updates(exchange)[case]
    must_reject(exchange, code, update_of(*reports))


def test_what_is_just_inside_the_deviation_is_taken(exchange: Exchange) -> None:
    exchange.messages(*(set_feed(kind, NAME, 0, 100_000) for kind in range(3)))
    exchange.now_ms += 1_000
    rates, surfaces = [Rate(NAME, -60_000_000, 1)], [flat(659_999)]
    exchange.send(update_of(*[report_of(exchange, {NAME: FORWARD * 11 // 10}, rates, surfaces)] * 3))
    assert exchange.view.get(name_key(RATE, NAME)).value_ppb == -60_000_000


# SET_FEED


def test_the_governors_message_is_what_the_exchange_reads(exchange: Exchange) -> None:
    kind, payload = set_feed_message(1, NAME, 7_000, 9)
    assert exchange.messages(L1Message(kind, VAULT, 0, payload)).messages[0].code == 0
    rate: RateFeed = exchange.view.get(name_key(RATE, NAME))
    assert (rate.heartbeat_ms, rate.deviation_ppm, rate.version, rate.expiry) == (7_000, 9, 1, 1)


def test_set_feed_makes_a_feed_and_sets_its_terms(exchange: Exchange) -> None:
    key = name_key(FEED, "STABLE")
    assert exchange.view.get(key) is None
    assert exchange.messages(set_feed(0, "STABLE", 5_000, 7)).messages[0].code == 0
    assert exchange.view.get(key) == Feed(heartbeat_ms=5_000, deviation_ppm=7)
    exchange.report({"STABLE": 1_000_000})
    assert exchange.messages(set_feed(0, "STABLE", 6_000, 0)).messages[0].code == 0
    feed: Feed = exchange.view.get(key)
    assert (feed.value_uusd, feed.version, feed.heartbeat_ms, feed.deviation_ppm) == (1_000_000, 1, 6_000, 0)
    for kind, leaf in ((1, RateFeed), (2, Surface)):
        exchange.messages(set_feed(kind, "X", 1, 2))
        assert exchange.view.get(name_key((RATE, SURFACE)[kind - 1], "X")) == leaf(
            heartbeat_ms=1, deviation_ppm=2
        )


def test_an_expirys_feeds_may_have_their_terms_before_it_is_listed() -> None:
    exchange = standard_exchange()
    exchange.now_ms += 1
    name = expiry_name("C1", next_expiry_s(Rule.WEEKLY, exchange.now_ms // 1_000))
    exchange.messages(*(set_feed(kind, name, 5_000 + kind, 9) for kind in range(3)))
    send_message(exchange, series_message("C1", rule=Rule.WEEKLY, ahead=1, strikes=1))
    make_due(exchange)
    for kind, (key_kind, leaf) in enumerate(((FEED, Feed), (RATE, RateFeed), (SURFACE, Surface))):
        found = exchange.view.get(name_key(key_kind, name))
        assert found == leaf(heartbeat_ms=5_000 + kind, deviation_ppm=9, expiry=1)


def test_a_feeds_own_deviation_counts(exchange: Exchange) -> None:
    exchange.messages(set_feed(0, "C1", 0, 1_000))
    exchange.now_ms += 1
    must_reject(exchange, RejectCode.ORACLE_DEVIATION, exchange.update({"C1": INDEX * 1_002 // 1_000}))
    exchange.report({"C1": INDEX * 1_001 // 1_000})


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (set_feed(3, "A", 1, 1), RejectCode.BAD_PARAMETERS),
        (set_feed(0, "", 1, 1), RejectCode.BAD_PARAMETERS),
        (set_feed(0, "A B", 1, 1), RejectCode.BAD_PARAMETERS),
        (set_feed(0, "A", 86_400_001, 1), RejectCode.BAD_PARAMETERS),
        (set_feed(0, "A", 1, 1_000_001), RejectCode.BAD_PARAMETERS),
    ],
)
def test_bad_feed_terms(exchange: Exchange, message: L1Message, code: RejectCode) -> None:
    before = exchange.leaves()
    assert exchange.messages(message).messages[0].code == code
    changes = {key for key, leaf in exchange.leaves().items() if before.get(key) != leaf}
    assert changes == {bytes(32)}
