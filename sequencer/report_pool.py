"""Where publishers' single reports meet until they are an update, and what is kept against those who lie.

Each publisher sends its own signed report. The pool keeps the newest one of each, and makes an update of all
that fit together: every feed that the update names is named by a quorum of its reports, as the transition
demands. When all publishers have reported that is at once; when a quorum has, the others have GRACE_S.

- iREPORTS_001 A report is taken only from a registered publisher, with values that could be executed now:
  well-formed, of known feeds, later than the feeds' last times, not from the future.
- iREPORTS_002 No report is in two updates.
- iREPORTS_003 Two different values that one publisher signed for one feed and time are evidence: both reports
  are kept on disk, also of updates that came ready-made, the first MAX_EVIDENCE of each publisher.

It is bounded by the publishers, of which the state has 16 at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec
import trio

from sequencer import logs
from sequencer.checking import rejection
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Deferred
from sequencer.receipts import hex_of
from state.actions import OracleReport, OracleUpdate, Price, Rate, SurfaceReport
from state.eip712 import Domain, report_digest
from state.errors import RejectCode, Rejected
from state.keys import PUBLISHERS_KEY
from state.leaves import Publishers
from state.oracle import check_known, check_report
from state.signatures import recover
from state.units import MAX_FEEDS_PER_REPORT
from state.view import StateView

GRACE_S: Final = 0.25
"""How long publishers that are behind are waited for once a quorum has reported."""
REMEMBERED: Final = 64
"""Report times of each publisher among which a second, different report is recognised."""
REPORTS_OF_A_TIME: Final = 4
MAX_EVIDENCE: Final = 8
EVIDENCE_NAME: Final = "oracle-evidence"
_KINDS: Final = ("price", "rate", "surface")


class Updates(Protocol):
    """Who takes an update: the ingress."""

    def submit_update(self, update: OracleUpdate, until_sealed: bool) -> Any:
        """A Deferred. Raises RpcError."""


class EvidenceStore(Protocol):
    """Where evidence outlives the process."""

    def meta(self, name: str) -> bytes | None: ...
    def put_meta_sync(self, name: str, value: bytes | None) -> None: ...


class Evidence(msgspec.Struct, frozen=True):
    """One publisher signed two values for one feed and time."""

    publisher: bytes
    kind: str
    """price, rate or surface."""
    feed: str
    timestamp_ms: int
    first: OracleReport
    second: OracleReport


class Taken(msgspec.Struct, frozen=True):
    """A report waits for others."""

    publisher: str
    waiting: int
    """Publishers whose reports wait, this one's among them."""
    quorum: int


class ReportPool:
    """See the module's text. Used from the trio thread only; `run` makes the updates."""

    def __init__(
        self,
        domain: Domain,
        view: StateView,
        store: EvidenceStore,
        updates: Updates,
        now_ms: Callable[[], int],
    ) -> None:
        """Reads what evidence there is. Raises StoreError."""
        self._domain = domain
        self._view = view
        self._store = store
        self._updates = updates
        self._now_ms = now_ms
        self._log = logs.logger()
        self._newest: dict[bytes, OracleReport] = {}
        self._remembered: dict[bytes, dict[int, list[OracleReport]]] = {}
        stored = store.meta(EVIDENCE_NAME)
        self._evidence: list[Evidence] = (
            msgspec.msgpack.decode(stored, type=list[Evidence]) if stored is not None else []
        )
        self._unsaved = False
        self._due = math.inf
        self._wake = trio.Event()

    @property
    def evidence(self) -> Sequence[Evidence]:
        return self._evidence

    def take(self, report: OracleReport) -> Taken:
        """Takes one publisher's report. Raises RpcError, also for what the transition would refuse."""
        publishers = self._publishers()
        signer = recover(report_digest(self._domain, report), report.signature)
        if signer is None:
            raise RpcError(ErrorCode.BAD_SIGNATURE)
        try:
            if signer not in publishers.addresses:
                raise Rejected(RejectCode.ORACLE_UNKNOWN_PUBLISHER, recovered=hex_of(signer))
            self._remember(signer, report)
            _check_names(report)
            check_report(report, self._now_ms())
            check_known(self._view, report)
        except Rejected as refusal:
            raise rejection(refusal) from None
        known = self._newest.get(signer)
        if known is None or known.timestamp_ms < report.timestamp_ms:
            self._newest[signer] = report
        self._schedule(publishers)
        return Taken(hex_of(signer), len(self._newest), publishers.quorum)

    def witness(self, update: OracleUpdate) -> None:
        """Looks for evidence in an update that came ready-made."""
        publishers = self._publishers()
        for report in update.reports:
            signer = recover(report_digest(self._domain, report), report.signature)
            if signer is not None and signer in publishers.addresses:
                self._remember(signer, report)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Makes updates when they are due and writes evidence down, until cancelled. Raises StoreError."""
        task_status.started()
        while True:
            with trio.move_on_at(self._due):
                await self._wake.wait()
            self._wake = trio.Event()
            if self._unsaved:
                self._unsaved = False
                value = msgspec.msgpack.encode(self._evidence)
                await trio.to_thread.run_sync(self._store.put_meta_sync, EVIDENCE_NAME, value)
            if trio.current_time() >= self._due:
                self._due = math.inf
                self._make_update()

    def _publishers(self) -> Publishers:
        leaf: Publishers | None = self._view.get(PUBLISHERS_KEY)
        return leaf or Publishers(1, ())

    def _schedule(self, publishers: Publishers) -> None:
        """Sets when the next update is due, if there is one."""
        found = self._fitting(publishers)
        if not found:
            return
        wait_s = 0 if len(found) == len(publishers.addresses) else GRACE_S
        self._due = min(self._due, trio.current_time() + wait_s)
        self._wake.set()

    def _fitting(self, publishers: Publishers) -> list[OracleReport]:
        """Reports of which every feed has a quorum, in the publishers' order; those that do not fit are left.

        Forgets reports that have been overtaken meanwhile.
        """
        fitting: dict[bytes, OracleReport] = {}
        for publisher in publishers.addresses:
            report = self._newest.get(publisher)
            if report is None:
                continue
            try:
                check_known(self._view, report)
            except Rejected:
                del self._newest[publisher]
            else:
                fitting[publisher] = report
        while fitting:
            counts: dict[tuple[int, str], int] = {}
            for report in fitting.values():
                for feed in _values(report):
                    counts[feed] = counts.get(feed, 0) + 1
            lonely = {feed for feed, count in counts.items() if count < publishers.quorum}
            kept = {who: report for who, report in fitting.items() if not lonely & _values(report).keys()}
            if len(kept) == len(fitting):
                break
            fitting = kept
        return list(fitting.values())

    def _make_update(self) -> None:
        publishers = self._publishers()
        reports = self._fitting(publishers)
        if not reports:
            return
        self._newest = {
            who: report
            for who, report in self._newest.items()
            if who in publishers.addresses and not any(report is used for used in reports)
        }
        try:
            outcome = self._updates.submit_update(OracleUpdate(tuple(reports)), True)
        except RpcError as error:
            self._settled(error)
            return
        if isinstance(outcome, Deferred):
            outcome.on_settled(self._settled)

    def _settled(self, outcome: object) -> None:
        if isinstance(outcome, RpcError):
            self._log.warning("oracle update refused", **outcome.data)

    def _remember(self, signer: bytes, report: OracleReport) -> None:
        """Compares with the publisher's earlier reports of that time."""
        times = self._remembered.setdefault(signer, {})
        same_time = times.setdefault(report.timestamp_ms, [])
        if report in same_time:
            return
        for other in same_time:
            self._compare(signer, other, report)
        if len(same_time) < REPORTS_OF_A_TIME:
            same_time.append(report)
        if len(times) > REMEMBERED:
            del times[min(times)]

    def _compare(self, signer: bytes, first: OracleReport, second: OracleReport) -> None:
        before = _values(first)
        for (kind, feed), value in _values(second).items():
            if before.get((kind, feed), value) == value:
                continue
            if sum(each.publisher == signer for each in self._evidence) >= MAX_EVIDENCE:
                return
            found = Evidence(signer, _KINDS[kind], feed, second.timestamp_ms, first, second)
            self._evidence.append(found)
            self._unsaved = True
            self._wake.set()
            self._log.error("a publisher signed two values", publisher=hex_of(signer), feed=feed)
            return


def _check_names(report: OracleReport) -> None:
    names = {feed for _, feed in _values(report)}
    if not 0 < len(names) <= MAX_FEEDS_PER_REPORT:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, maximum=MAX_FEEDS_PER_REPORT, got=len(names))


def _values(report: OracleReport) -> dict[tuple[int, str], Price | Rate | SurfaceReport]:
    """What a report says of each feed."""
    lists: tuple[Iterable[Price | Rate | SurfaceReport], ...] = (
        report.prices,
        report.rates,
        report.surfaces,
    )
    return {(kind, item.feed): item for kind, items in enumerate(lists) for item in items}
