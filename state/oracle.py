"""Oracle updates: a quorum of signed reports, the median of each feed, all of it or nothing.

The first step checks everything. Then every feed is applied in a step of its own: prices, then rates, then
surfaces, each by name. A price feed is an underlying's index, a perpetual's mark (`funding`), an expiry's
forward, or the collateral's price. Then, by name, the expiries that the feeds belong to are priced anew if
they have moved (`pricing`): of an index all its expiries, one in each step. Last, in the same order, the
triggers are fired that these prices set off (`triggers`).

Per feed, over the reports that name it: at least the quorum of them; each number is the lower median of
theirs, the confidence the smallest, the time the oldest. Each report's time is later than the feed's last and
not after the block's. A value may not differ from the last by more than the feed's deviation; the first is
free.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from math import isqrt
from typing import Final, NamedTuple

from state.actions import OracleReport, OracleUpdate, Price, Rate, SurfaceReport
from state.calendar import MAX_UNDERLYING_BYTES
from state.codec_format import is_name, report_names
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.expiries import on_index, start_trading
from state.funding import update_mark
from state.keys import (
    FEED,
    MARKET_NAME,
    PARAMETERS_KEY,
    PUBLISHERS_KEY,
    RATE,
    SURFACE,
    expiries_prefix,
    name_key,
)
from state.leaves import (
    ExpiryOf,
    Feed,
    MarketName,
    Parameters,
    Progress,
    Publishers,
    RateFeed,
    Surface,
    Task,
)
from state.pricing import PICO, heartbeat_ms, reprice, volatility_ppb
from state.risk_fees import note_mark, note_move
from state.triggers import fire_in_expiry, fire_on_feed, has_room
from state.units import (
    MAX_EXPIRIES,
    MAX_FEEDS_PER_REPORT,
    MAX_PRICE_UUSD,
    MAX_PUBLISHERS,
    PPB,
    PPM,
)
from state.view import StateView

MAX_RATE_PPB: Final = 10 * PPB
"""Either side of 0: 1000 % a year."""
MAX_VARIANCE_PICO: Final = 144 * PICO
"""Of |a|: where the engine's total variance ends."""
MAX_SHAPE_PICO: Final = 16 * PICO
"""Of |m| and sigma."""
MAX_TAU_S: Final = 100 * 365 * 86_400


class FeedKind(IntEnum):
    """What a feed reports; in this order feeds are applied."""

    PRICE = 0
    RATE = 1
    SURFACE = 2


_KEY_KINDS: Final = (FEED, RATE, SURFACE)
AnyFeed = Feed | RateFeed | Surface
AnyReported = Price | Rate | SurfaceReport


class Reported(NamedTuple):
    """What an update says of one feed: the items of the reports that name it, and those reports' times."""

    kind: int
    name: str
    items: list[AnyReported]
    times: list[int]


class Plan(NamedTuple):
    """An update by feed, in the order of its steps."""

    update: OracleUpdate
    feeds: list[Reported]
    names: list[str]


_last: list[Plan] = []


def _lists(report: OracleReport) -> tuple[Sequence[AnyReported], ...]:
    """By FeedKind."""
    return report.prices, report.rates, report.surfaces


def plan_of(update: OracleUpdate) -> Plan:
    """The update by feed. Remembers the last one: its steps all ask for it."""
    if _last and _last[0].update is update:
        return _last[0]
    found: dict[tuple[int, str], Reported] = {}
    for report in update.reports:
        for kind, items in enumerate(_lists(report)):
            for item in items:
                reported = found.setdefault((kind, item.feed), Reported(kind, item.feed, [], []))
                reported.items.append(item)
                reported.times.append(report.timestamp_ms)
    plan = Plan(update, [found[key] for key in sorted(found)], report_names(update))
    _last[:] = [plan]
    return plan


# Checks


def check_update(
    view: StateView, block: BlockContext, update: OracleUpdate, signers: tuple[bytes | None, ...]
) -> None:
    """Raises Rejected unless all reports and feeds are good."""
    publishers: Publishers | None = view.get(PUBLISHERS_KEY)
    quorum = publishers.quorum if publishers else 1
    if len(update.reports) < quorum or len(update.reports) > MAX_PUBLISHERS:
        raise Rejected(RejectCode.ORACLE_QUORUM, expected=quorum, got=len(update.reports))
    if len(signers) != len(update.reports):
        raise Rejected(RejectCode.BAD_SIGNATURE)
    _check_signers(publishers, signers)
    for report in update.reports:
        check_report(report, block.timestamp_ms)
    plan = plan_of(update)
    if len(plan.names) > MAX_FEEDS_PER_REPORT or not plan.names:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, maximum=MAX_FEEDS_PER_REPORT, got=len(plan.names))
    parameters: Parameters = view.get(PARAMETERS_KEY)
    for reported in plan.feeds:
        _check_feed(view, parameters, reported, quorum)


def _check_signers(publishers: Publishers | None, signers: tuple[bytes | None, ...]) -> None:
    seen: list[bytes] = []
    for signer in signers:
        if signer is None:
            raise Rejected(RejectCode.BAD_SIGNATURE)
        if publishers is None or signer not in publishers.addresses:
            raise Rejected(RejectCode.ORACLE_UNKNOWN_PUBLISHER, recovered="0x" + signer.hex())
        if signer in seen:
            raise Rejected(RejectCode.ORACLE_DUPLICATE_PUBLISHER, publisher="0x" + signer.hex())
        seen.append(signer)


def check_report(report: OracleReport, now_ms: int) -> None:
    """What can be said of a report alone. Raises Rejected."""
    if report.timestamp_ms > now_ms:
        raise Rejected(RejectCode.ORACLE_FUTURE, now_ms=now_ms, got=report.timestamp_ms)
    for items in _lists(report):
        if len({item.feed for item in items}) != len(items):
            raise Rejected(RejectCode.ORACLE_DUPLICATE_FEED)
        for item in items:
            if item.confidence_ppm > PPM:
                raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, feed=item.feed, maximum_ppm=PPM)
    for price in report.prices:
        if not 0 < price.value_uusd <= MAX_PRICE_UUSD:
            raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, feed=price.feed, maximum_uusd=MAX_PRICE_UUSD)
    for rate in report.rates:
        if abs(rate.value_ppb) > MAX_RATE_PPB:
            raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, feed=rate.feed, maximum_ppb=MAX_RATE_PPB)
    for surface in report.surfaces:
        check_surface(surface)


def check_known(view: StateView, report: OracleReport) -> None:
    """That a report's feeds exist and are behind it. Raises Rejected."""
    for kind, items in enumerate(_lists(report)):
        for item in items:
            _later_feed(view, kind, item.feed, report.timestamp_ms)


def _later_feed(view: StateView, kind: int, name: str, oldest_ms: int) -> AnyFeed:
    """The feed. Raises Rejected unless it exists and is behind the oldest report."""
    feed: AnyFeed | None = view.get(name_key(_KEY_KINDS[kind], name)) if is_name(name.encode()) else None
    if feed is None:
        raise Rejected(RejectCode.ORACLE_UNKNOWN_FEED, feed=name)
    if oldest_ms <= feed.timestamp_ms:
        raise Rejected(RejectCode.ORACLE_OLD, last_ms=feed.timestamp_ms, got=oldest_ms, feed=name)
    return feed


def check_surface(surface: SurfaceReport) -> None:
    """Its domain, and the arbitrage that closed forms show. Raises Rejected ORACLE_SURFACE saying which.

    With rho = sin, the least variance is a + b sigma cos, and the steeper wing has the slope b (1 + |rho|).
    """
    b, rho, sigma = surface.b_pico, surface.rho_pico, surface.sigma_pico
    domain = {
        "a": abs(surface.a_pico) <= MAX_VARIANCE_PICO,
        "b": 0 <= b <= 2 * PICO,
        "rho": abs(rho) < PICO,
        "m": abs(surface.m_pico) <= MAX_SHAPE_PICO,
        "sigma": 0 < sigma <= MAX_SHAPE_PICO,
        "forward_uusd": 0 < surface.forward_uusd <= MAX_PRICE_UUSD,
        "tau_s": 0 < surface.tau_s <= MAX_TAU_S,
    }
    for field, is_good in domain.items():
        if not is_good:
            raise Rejected(RejectCode.ORACLE_SURFACE, feed=surface.feed, field=field)
    cosine = isqrt(PICO * PICO - rho * rho)
    if surface.a_pico * PICO * PICO + b * sigma * cosine < 0:
        raise Rejected(RejectCode.ORACLE_SURFACE, feed=surface.feed, field="least variance")
    if b * (PICO + abs(rho)) > 2 * PICO * PICO:
        raise Rejected(RejectCode.ORACLE_SURFACE, feed=surface.feed, field="wing slope")
    if _volatility(surface) == 0:
        raise Rejected(RejectCode.ORACLE_SURFACE, feed=surface.feed, field="volatility")


def _check_feed(view: StateView, parameters: Parameters, reported: Reported, quorum: int) -> None:
    name = reported.name
    if len(reported.items) < quorum:
        raise Rejected(RejectCode.ORACLE_QUORUM, expected=quorum, got=len(reported.items), feed=name)
    feed = _later_feed(view, reported.kind, name, min(reported.times))
    median = _median_surface(reported) if reported.kind == FeedKind.SURFACE else None
    if median is not None:
        check_surface(median)
    if feed.version == 0:
        return
    limit = feed.deviation_ppm or parameters.oracle_deviation_ppm
    if isinstance(feed, Feed):
        last, new = feed.value_uusd, _median_price(reported)
        too_far = abs(new - last) * PPM > last * limit
    elif isinstance(feed, RateFeed):
        last, new = feed.value_ppb, _median_rate(reported)
        too_far = abs(new - last) * PPM > PPB * limit
    else:
        assert median is not None
        last, new = _volatility(feed), _volatility(median)
        too_far = abs(new - last) * PPM > last * limit
    if too_far:
        raise Rejected(RejectCode.ORACLE_DEVIATION, last=last, got=new, limit_ppm=limit, feed=name)


def _key(reported: Reported) -> bytes:
    return name_key(_KEY_KINDS[reported.kind], reported.name)


def _volatility(surface: Surface | SurfaceReport) -> int:
    return volatility_ppb(
        surface.a_pico,
        surface.b_pico,
        surface.rho_pico,
        surface.m_pico,
        surface.sigma_pico,
        surface.tau_s,
    )


# Medians: the middle value; of two, the lower.


def _median(values: list[int]) -> int:
    return sorted(values)[(len(values) - 1) // 2]


def _median_price(reported: Reported) -> int:
    return _median([item.value_uusd for item in reported.items if isinstance(item, Price)])


def _median_rate(reported: Reported) -> int:
    return _median([item.value_ppb for item in reported.items if isinstance(item, Rate)])


def _median_surface(reported: Reported) -> SurfaceReport:
    items = [item for item in reported.items if isinstance(item, SurfaceReport)]
    return SurfaceReport(
        reported.name,
        _median([item.a_pico for item in items]),
        _median([item.b_pico for item in items]),
        _median([item.rho_pico for item in items]),
        _median([item.m_pico for item in items]),
        _median([item.sigma_pico for item in items]),
        _median([item.forward_uusd for item in items]),
        _median([item.tau_s for item in items]),
        min([item.confidence_ppm for item in items]),
    )


# Steps


def feed_step(view: StateView, block: BlockContext, progress: Progress, update: OracleUpdate) -> None:
    """Applies one feed of a checked update."""
    feeds = plan_of(update).feeds
    reported = feeds[progress.operation]
    key = _key(reported)
    feed: AnyFeed = view.get(key)
    before_uusd = before_ms = 0
    if isinstance(feed, Feed):
        before_uusd, before_ms = feed.value_uusd, feed.timestamp_ms
        if feed.expiry == 0:
            parameters: Parameters = view.get(PARAMETERS_KEY)
            max_age_ms = heartbeat_ms(feed, parameters)
            on_index(view, block, reported.name, feed, min(reported.times), max_age_ms)
        feed.value_uusd = _median_price(reported)
    elif isinstance(feed, RateFeed):
        feed.value_ppb = _median_rate(reported)
    else:
        median = _median_surface(reported)
        feed.a_pico = median.a_pico
        feed.b_pico = median.b_pico
        feed.rho_pico = median.rho_pico
        feed.m_pico = median.m_pico
        feed.sigma_pico = median.sigma_pico
        feed.forward_uusd = median.forward_uusd
        feed.tau_s = median.tau_s
    feed.confidence_ppm = min([item.confidence_ppm for item in reported.items])
    feed.timestamp_ms = min(reported.times)
    feed.version += 1
    view.touch(key, feed)
    if isinstance(feed, Feed) and feed.expiry == 0:
        market: MarketName | None = view.get(name_key(MARKET_NAME, reported.name))
        if market is not None:
            update_mark(view, block, market.market, feed.value_uusd, feed.timestamp_ms)
            note_mark(view, market.market)
        elif before_uusd:
            note_move(view, reported.name, before_uusd, feed.value_uusd, feed.timestamp_ms - before_ms)
    progress.operation += 1
    if progress.operation == len(feeds):
        progress.operation = 0
        progress.cursor = 0
        progress.task = Task.PRICINGS


def pricing_step(view: StateView, block: BlockContext, progress: Progress, update: OracleUpdate) -> None:
    """Prices one expiry of those that the next name of an update belongs to; `cursor` counts an index's."""
    names = plan_of(update).names
    numbers = _expiries_of(view, names[progress.operation])
    if progress.cursor < len(numbers):
        if reprice(view, block, numbers[progress.cursor]):
            start_trading(view, block, numbers[progress.cursor])
        progress.cursor += 1
    if progress.cursor >= len(numbers):
        progress.cursor = 0
        progress.operation += 1
        if progress.operation == len(names):
            progress.operation = 0
            progress.task = Task.TRIGGERS


def _expiries_of(view: StateView, name: str) -> list[int]:
    """The expiries that a feed belongs to: its own, or all of an index."""
    feed: Feed | None = view.get(name_key(FEED, name))
    if feed is None:
        return []
    if feed.expiry:
        return [feed.expiry]
    if len(name) > MAX_UNDERLYING_BYTES:
        return []
    found: list[tuple[bytes, ExpiryOf]] = view.iterate_under(expiries_prefix(name.encode()), MAX_EXPIRIES)
    return [leaf.expiry for _, leaf in found]


def trigger_step(view: StateView, block: BlockContext, progress: Progress, update: OracleUpdate) -> None:
    """Fires one trigger, has looked at one market, or moves on. `operation` counts the names twice: first for
    what waits for their own feeds, then for the expiries that they belong to, which `cursor` counts."""
    names = plan_of(update).names
    index = progress.operation
    if index < len(names) and has_room(progress):
        if not _fire_on_own(view, block, progress, names[index]):
            progress.operation += 1
        return
    if index < 2 * len(names) and has_room(progress):
        numbers = _expiries_of(view, names[index - len(names)])
        if progress.cursor < len(numbers):
            if fire_in_expiry(view, block, progress, numbers[progress.cursor]):
                return
            progress.cursor += 1
            progress.looked = 0
        if progress.cursor >= len(numbers):
            progress.cursor = 0
            progress.operation += 1
        return
    progress.operation = progress.cursor = progress.fired = progress.looked = 0
    progress.task = progress.parent = Task.NONE


def _fire_on_own(view: StateView, block: BlockContext, progress: Progress, name: str) -> bool:
    feed: Feed | None = view.get(name_key(FEED, name))
    if feed is None or feed.expiry or feed.version == 0:
        return False
    market: MarketName | None = view.get(name_key(MARKET_NAME, name))
    return fire_on_feed(view, block, progress, name, market.market if market else 0, feed.value_uusd)
