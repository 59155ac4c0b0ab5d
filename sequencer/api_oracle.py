"""The oracle's methods: publishers' single reports, what the feeds stand at, evidence against publishers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Method, NoParams
from sequencer.receipts import hex_of
from sequencer.report_pool import Evidence, Taken
from state import keys, wire, wire_types
from state.actions import OracleReport
from state.eip712 import report_digest
from state.errors import Rejected
from state.leaves import Feed, Parameters, RateFeed, Surface
from state.pricing import heartbeat_ms, is_fresh
from state.typed_data import message
from state.units import MAX_FEEDS_PER_REPORT

REPORT_ERRORS = (ErrorCode.BAD_SIGNATURE, ErrorCode.BUSY, ErrorCode.DRAINING, ErrorCode.PAUSED)


class FeedsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names of feeds, as reports have them."""

    names: Annotated[list[wire_types.FeedName], Meta(min_length=1, max_length=MAX_FEEDS_PER_REPORT)]


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    """What all feeds have in common. `version` counts updates; 0: no value yet."""

    confidence_ppm: int
    timestamp_ms: int
    version: int
    heartbeat_ms: int
    deviation_ppm: int
    fresh: bool
    """At the node's time."""


class PriceView(FeedState, frozen=True, kw_only=True):
    value_uusd: int


class RateView(FeedState, frozen=True, kw_only=True):
    value_ppb: int


class SurfaceView(FeedState, frozen=True, kw_only=True):
    """Raw SVI, in 10^-12."""

    a_pico: int
    b_pico: int
    rho_pico: int
    m_pico: int
    sigma_pico: int
    forward_uusd: int
    tau_s: int


class FeedView(msgspec.Struct, frozen=True):
    """The feeds of one name; null where there is none."""

    name: str
    price: PriceView | None
    rate: RateView | None
    surface: SurfaceView | None


class EvidenceView(msgspec.Struct, frozen=True):
    """One publisher signed two values for one feed and time; each report recovers from its digest."""

    publisher: str
    kind: str
    feed: str
    timestamp_ms: int
    reports: list[dict[str, Any]]
    """Both, in the form of straddle_sendReport."""
    digests: list[str]


class OracleApi:
    """Methods about oracle reports."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_sendReport",
                wire_types.OracleReportJson,
                Taken,
                self._send_report,
                "Take one publisher's signed report; with those of a quorum it becomes an oracle update.",
                errors=REPORT_ERRORS,
            ),
            Method(
                "straddle_getFeeds",
                FeedsParams,
                list[FeedView],
                self._feeds,
                "What oracle feeds stand at, and their terms.",
            ),
            Method(
                "straddle_getOracleEvidence",
                NoParams,
                list[EvidenceView],
                lambda _p, _c: [self._evidence_view(each) for each in self._context.reports.evidence],
                "Reports in which a publisher signed two values for one feed and time.",
            ),
        ]

    def _send_report(self, params: wire_types.OracleReportJson, _context: Context) -> Taken:
        closed = self._context.ingress.closed
        if closed is not None:
            raise RpcError(closed)
        try:
            report = wire.to_report(params)
        except wire.WireError as error:
            data = {"path": error.path, "expected": error.expected, "got": error.got}
            raise RpcError(ErrorCode.INVALID_PARAMS, str(error), data) from None
        except Rejected as rejected:
            raise RpcError(ErrorCode.BAD_SIGNATURE, data=rejected.data) from None
        return self._context.reports.take(report)

    def _feeds(self, params: FeedsParams, _context: Context) -> list[FeedView]:
        return [self._feed(name) for name in params.names]

    def _feed(self, name: str) -> FeedView:
        view = self._context.machine.view
        price: Feed | None = view.get(keys.name_key(keys.FEED, name))
        rate: RateFeed | None = view.get(keys.name_key(keys.RATE, name))
        surface: Surface | None = view.get(keys.name_key(keys.SURFACE, name))
        return FeedView(
            name,
            PriceView(value_uusd=price.value_uusd, **self._common(price)) if price else None,
            RateView(value_ppb=rate.value_ppb, **self._common(rate)) if rate else None,
            SurfaceView(
                a_pico=surface.a_pico,
                b_pico=surface.b_pico,
                rho_pico=surface.rho_pico,
                m_pico=surface.m_pico,
                sigma_pico=surface.sigma_pico,
                forward_uusd=surface.forward_uusd,
                tau_s=surface.tau_s,
                **self._common(surface),
            )
            if surface
            else None,
        )

    def _common(self, feed: Feed | RateFeed | Surface) -> dict[str, Any]:
        parameters: Parameters = self._context.machine.view.get(keys.PARAMETERS_KEY)
        return {
            "confidence_ppm": feed.confidence_ppm,
            "timestamp_ms": feed.timestamp_ms,
            "version": feed.version,
            "heartbeat_ms": heartbeat_ms(feed, parameters),
            "deviation_ppm": feed.deviation_ppm or parameters.oracle_deviation_ppm,
            "fresh": is_fresh(feed, parameters, self._context.now_ms()),
        }

    def _evidence_view(self, evidence: Evidence) -> EvidenceView:
        reports = (evidence.first, evidence.second)
        return EvidenceView(
            hex_of(evidence.publisher),
            evidence.kind,
            evidence.feed,
            evidence.timestamp_ms,
            [report_json(report) for report in reports],
            [hex_of(report_digest(self._context.domain, report)) for report in reports],
        )


def report_json(report: OracleReport) -> dict[str, Any]:
    """The form of straddle_sendReport."""
    return {**message(report, str), "signature": hex_of(report.signature)}
