"""The report pool: when reports become an update, what it refuses, what it keeps as evidence."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from msgspec.structs import replace
from trio.testing import MockClock

from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Deferred
from sequencer.report_pool import EVIDENCE_NAME, GRACE_S, MAX_EVIDENCE, Evidence, ReportPool
from state.actions import OracleReport, OracleUpdate, Price, Rate
from state.eip712 import Domain, report_digest
from state.keys import FEED, PUBLISHERS_KEY, name_key
from state.leaves import Feed, Publishers
from state.signatures import address_of, sign
from tests.dated import NAME, add_expiry
from tools.exchange import Exchange, standard_exchange

DOMAIN = Domain(7, bytes(20))
SECRETS = tuple(bytes([n]) * 32 for n in (1, 2, 3))
STRANGER = b"\x09" * 32


class Store:
    """The store's small values."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def meta(self, name: str) -> bytes | None:
        return self.values.get(name)

    def put_meta_sync(self, name: str, value: bytes | None) -> None:
        assert value is not None
        self.values[name] = value


class Updates:
    """Takes updates as the ingress does; `refusal` refuses them."""

    def __init__(self) -> None:
        self.taken: list[OracleUpdate] = []
        self.refusal: RpcError | None = None

    def submit_update(self, update: OracleUpdate, until_sealed: bool) -> Deferred[Any]:
        assert until_sealed
        if self.refusal is not None:
            raise self.refusal
        self.taken.append(update)
        return Deferred()

    def signers(self) -> list[list[int]]:
        """By update: the places of the publishers."""
        found = []
        for update in self.taken:
            found.append([SECRETS.index(secret_of(report)) for report in update.reports])
        return found


def secret_of(report: OracleReport) -> bytes:
    return next(
        secret for secret in SECRETS if sign(report_digest(DOMAIN, report), secret) == report.signature
    )


class Bench:
    """A pool over an exchange of three publishers and a quorum of two."""

    def __init__(self) -> None:
        self.exchange: Exchange = standard_exchange()
        self.exchange.view.put(PUBLISHERS_KEY, Publishers(2, tuple(map(address_of, SECRETS))))
        self.exchange.now_ms += 10_000
        self.store, self.updates = Store(), Updates()
        self.pool = self.open()

    def open(self) -> ReportPool:
        view, now_ms = self.exchange.view, lambda: self.exchange.now_ms
        return ReportPool(DOMAIN, view, self.store, self.updates, now_ms)

    def report(
        self, who: int, feeds: Sequence[str] = ("C1",), ago_ms: int = 0, value: int = 10**9
    ) -> OracleReport:
        prices = tuple(Price(feed, value, 10**6) for feed in feeds)
        return signed(OracleReport(self.exchange.now_ms - ago_ms, prices, bytes(64)), SECRETS[who])

    def refused(self, report: OracleReport) -> str:
        with pytest.raises(RpcError) as error:
            self.pool.take(report)
        return str(error.value.data["code"])


def signed(report: OracleReport, secret: bytes) -> OracleReport:
    return replace(report, signature=sign(report_digest(DOMAIN, report), secret))


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    made = Bench()
    await nursery.start(made.pool.run)
    return made


# Updates


async def test_all_reports_are_an_update_at_once(bench: Bench, autojump_clock: MockClock) -> None:
    begin = trio.current_time()
    for who in (2, 0, 1):
        assert not bench.updates.taken
        taken = bench.pool.take(bench.report(who))
    assert (taken.waiting, taken.quorum) == (3, 2)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.updates.signers() == [[0, 1, 2]], "in the publishers' order"
    assert trio.current_time() == begin


async def test_a_quorum_waits_a_moment_for_the_others(bench: Bench, autojump_clock: MockClock) -> None:
    """iREPORTS_002"""
    bench.pool.take(bench.report(0))
    await trio.sleep(10)
    assert not bench.updates.taken, "one is no quorum"
    bench.pool.take(bench.report(1))
    await trio.sleep(GRACE_S * 0.9)
    assert not bench.updates.taken
    await trio.sleep(GRACE_S * 0.2)
    assert bench.updates.signers() == [[0, 1]]
    await trio.sleep(10)
    assert len(bench.updates.taken) == 1, "a report is used once"


async def test_the_newest_report_of_each_counts(bench: Bench, autojump_clock: MockClock) -> None:
    old, new = bench.report(0, ago_ms=5), bench.report(0, value=10**9 + 1)
    for report in (new, old, new):
        bench.pool.take(report)
    bench.pool.take(bench.report(1))
    await trio.sleep(1)
    assert bench.updates.taken[0].reports[0] == new


async def test_every_feed_of_an_update_has_a_quorum(bench: Bench, autojump_clock: MockClock) -> None:
    bench.pool.take(bench.report(0, ("C1", "C1-PERPETUAL")))
    bench.pool.take(bench.report(1, ("C1",)))
    await trio.sleep(1)
    assert not bench.updates.taken, "C1-PERPETUAL has one report only, and so has C1 without it"
    bench.pool.take(bench.report(2, ("C1",)))
    await trio.sleep(1)
    assert bench.updates.signers() == [[1, 2]]
    bench.pool.take(replace_time(bench, 1, ("C1", "C1-PERPETUAL")))
    await trio.sleep(1)
    assert bench.updates.signers() == [[1, 2], [0, 1]], "what did not fit has waited"


def replace_time(bench: Bench, who: int, feeds: Sequence[str]) -> OracleReport:
    bench.exchange.now_ms += 1
    return bench.report(who, feeds)


async def test_reports_that_were_overtaken_are_forgotten(bench: Bench, autojump_clock: MockClock) -> None:
    bench.pool.take(bench.report(0))
    feed: Feed = bench.exchange.view.get(name_key(FEED, "C1"))
    feed.timestamp_ms = bench.exchange.now_ms
    bench.exchange.now_ms += 1
    bench.pool.take(bench.report(1))
    await trio.sleep(1)
    assert not bench.updates.taken, "the first is not later than the feed any more"


async def test_a_node_that_takes_nothing_loses_the_update_and_goes_on(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.updates.refusal = RpcError(ErrorCode.BUSY)
    for who in range(3):
        bench.pool.take(bench.report(who))
    await trio.sleep(1)
    bench.updates.refusal = None
    bench.exchange.now_ms += 1
    for who in range(3):
        bench.pool.take(bench.report(who))
    await trio.sleep(1)
    assert len(bench.updates.taken) == 1


# What it refuses


async def test_refused_reports(bench: Bench, autojump_clock: MockClock) -> None:
    """iREPORTS_001"""
    add_expiry(bench.exchange)
    good = bench.report(0)
    assert bench.refused(signed(good, STRANGER)) == "ORACLE_UNKNOWN_PUBLISHER"
    assert bench.refused(replace(good, signature=b"\xff" * 64)) == "BAD_SIGNATURE"
    assert bench.refused(bench.report(0, ago_ms=-1)) == "ORACLE_FUTURE"
    assert bench.refused(bench.report(0, ago_ms=10_000)) == "ORACLE_OLD"
    assert bench.refused(bench.report(0, ("C9",))) == "ORACLE_UNKNOWN_FEED"
    assert bench.refused(bench.report(0, ("C 1",))) == "ORACLE_UNKNOWN_FEED"
    assert bench.refused(bench.report(0, ("C1", "C1"))) == "ORACLE_DUPLICATE_FEED"
    assert bench.refused(bench.report(0, value=0)) == "NUMBER_OUT_OF_RANGE"
    assert bench.refused(bench.report(0, ())) == "NUMBER_OUT_OF_RANGE"
    assert bench.refused(bench.report(0, [f"C{n}" for n in range(65)])) == "NUMBER_OUT_OF_RANGE"
    rate = signed(OracleReport(bench.exchange.now_ms, (), bytes(64), (Rate(NAME, 10**11, 1),)), SECRETS[0])
    assert bench.refused(rate) == "NUMBER_OUT_OF_RANGE"
    await trio.sleep(1)
    assert not bench.updates.taken


# Evidence


async def test_two_values_for_one_feed_and_time_are_kept_for_ever(
    bench: Bench, autojump_clock: MockClock
) -> None:
    """iREPORTS_003"""
    first = bench.report(0)
    second = bench.report(0, ("C1-PERPETUAL", "C1"), value=10**9 + 1)
    bench.pool.take(first)
    bench.pool.take(first)
    assert not bench.pool.evidence, "the same again says nothing"
    bench.pool.take(second)
    with trio.fail_after(1_000):
        while EVIDENCE_NAME not in bench.store.values:  # a thread writes it, for which no clock jumps
            await trio.to_thread.run_sync(time.sleep, 0.01)
    expected = Evidence(address_of(SECRETS[0]), "price", "C1", first.timestamp_ms, first, second)
    assert list(bench.pool.evidence) == [expected]
    assert list(bench.open().evidence) == [expected], "from the disk"
    stored = msgspec.msgpack.decode(bench.store.values[EVIDENCE_NAME], type=list[Evidence])
    assert stored[0].second.signature == second.signature


async def test_what_is_no_evidence(bench: Bench, autojump_clock: MockClock) -> None:
    bench.pool.take(bench.report(0))
    bench.pool.take(bench.report(1, value=10**9 + 1))
    bench.pool.take(bench.report(0, ("C1-PERPETUAL",), value=10**9 + 1))
    bench.exchange.now_ms += 1
    bench.pool.take(bench.report(0, value=10**9 + 1))
    assert not bench.pool.evidence


async def test_values_that_would_be_refused_are_evidence_too(bench: Bench, autojump_clock: MockClock) -> None:
    bench.pool.take(bench.report(0))
    assert bench.refused(bench.report(0, value=0)) == "NUMBER_OUT_OF_RANGE"
    assert len(bench.pool.evidence) == 1


async def test_updates_that_come_ready_made_are_looked_at(bench: Bench, autojump_clock: MockClock) -> None:
    strange = signed(bench.report(0, value=1), STRANGER)
    bench.pool.witness(OracleUpdate((bench.report(0), strange, replace(strange, signature=bytes(64)))))
    bench.pool.witness(OracleUpdate((bench.report(0, value=10**9 + 7), bench.report(1))))
    assert [each.publisher for each in bench.pool.evidence] == [address_of(SECRETS[0])]


async def test_evidence_is_bounded_for_each_publisher(bench: Bench, autojump_clock: MockClock) -> None:
    for value in range(1, 20):
        bench.pool.take(bench.report(0, value=value))
    assert len(bench.pool.evidence) == MAX_EVIDENCE
    bench.pool.take(bench.report(1, value=1))
    bench.pool.take(bench.report(1, value=2))
    assert len(bench.pool.evidence) == MAX_EVIDENCE + 1
