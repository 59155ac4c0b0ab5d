"""Oracle updates: a quorum of signed reports, the median of each feed, all of it or nothing.

The first step checks everything; then every feed is applied in a step of its own, in the order of the names.
A feed is an underlying (its index) or an instrument (its mark; `funding`).

Per feed, over the reports that name it: at least the quorum of them; the value is the lower median, the
confidence the smallest, the time the oldest. Each report's time is later than the feed's last and not after
the block's. A value may not differ from the last by more than `oracle_deviation_ppm`; the first is free.
"""

from __future__ import annotations

from state.actions import OracleReport, OracleUpdate
from state.codec_format import is_name
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.funding import update_mark
from state.keys import FEED, MARKET_NAME, PARAMETERS_KEY, PUBLISHERS_KEY, name_key
from state.leaves import Feed, MarketName, Parameters, Progress, Publishers, Task
from state.units import MAX_FEEDS_PER_REPORT, MAX_PRICE_UUSD, MAX_PUBLISHERS, PPM
from state.view import StateView


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
        _check_report(block, report)
    names = feed_names(update)
    if len(names) > MAX_FEEDS_PER_REPORT or not names:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, maximum=MAX_FEEDS_PER_REPORT, got=len(names))
    parameters: Parameters = view.get(PARAMETERS_KEY)
    for name in names:
        _check_feed(view, parameters, update, name, quorum)


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


def _check_report(block: BlockContext, report: OracleReport) -> None:
    if report.timestamp_ms > block.timestamp_ms:
        raise Rejected(RejectCode.ORACLE_FUTURE, now_ms=block.timestamp_ms, got=report.timestamp_ms)
    if len({price.feed for price in report.prices}) != len(report.prices):
        raise Rejected(RejectCode.ORACLE_DUPLICATE_FEED)
    for price in report.prices:
        if not (0 < price.value_uusd <= MAX_PRICE_UUSD and price.confidence_ppm <= PPM):
            raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, feed=price.feed, maximum_uusd=MAX_PRICE_UUSD)


def _check_feed(
    view: StateView, parameters: Parameters, update: OracleUpdate, name: str, quorum: int
) -> None:
    feed = _feed(view, name)
    if feed is None:
        raise Rejected(RejectCode.ORACLE_UNKNOWN_FEED, feed=name)
    reported = _reported(update, name)
    if len(reported) < quorum:
        raise Rejected(RejectCode.ORACLE_QUORUM, expected=quorum, got=len(reported), feed=name)
    oldest = min(time for _, _, time in reported)
    if oldest <= feed.timestamp_ms:
        raise Rejected(RejectCode.ORACLE_OLD, last_ms=feed.timestamp_ms, got=oldest, feed=name)
    value, last = _median(reported), feed.value_uusd
    if feed.version and abs(value - last) * PPM > last * parameters.oracle_deviation_ppm:
        raise Rejected(
            RejectCode.ORACLE_DEVIATION,
            last_uusd=last,
            got=value,
            limit_ppm=parameters.oracle_deviation_ppm,
            feed=name,
        )


def feed_names(update: OracleUpdate) -> list[str]:
    """All feeds that the reports name, in the order in which they are applied."""
    return sorted({price.feed for report in update.reports for price in report.prices})


def feed_step(view: StateView, block: BlockContext, progress: Progress, update: OracleUpdate) -> None:
    """Applies one feed of a checked update."""
    names = feed_names(update)
    name = names[progress.operation]
    reported = _reported(update, name)
    key = name_key(FEED, name)
    feed: Feed = view.get(key)
    feed.value_uusd = _median(reported)
    feed.confidence_ppm = min(confidence for _, confidence, _ in reported)
    feed.timestamp_ms = min(time for _, _, time in reported)
    feed.version += 1
    view.touch(key, feed)
    market: MarketName | None = view.get(name_key(MARKET_NAME, name))
    if market is not None:
        update_mark(view, block, market.market, feed.value_uusd, feed.timestamp_ms)
    progress.operation += 1
    if progress.operation == len(names):
        progress.operation = 0
        progress.task = Task.NONE


def _feed(view: StateView, name: str) -> Feed | None:
    if not is_name(name.encode()):
        return None
    feed: Feed | None = view.get(name_key(FEED, name))
    return feed


def _reported(update: OracleUpdate, name: str) -> list[tuple[int, int, int]]:
    """(value, confidence, time) of each report that names the feed."""
    return [
        (price.value_uusd, price.confidence_ppm, report.timestamp_ms)
        for report in update.reports
        for price in report.prices
        if price.feed == name
    ]


def _median(reported: list[tuple[int, int, int]]) -> int:
    """The middle value; of two, the lower."""
    return sorted(reported)[(len(reported) - 1) // 2][0]
