"""Prices for a node under test, as one update that all publishers have signed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from sequencer.client import NodeClient
from state.actions import OracleReport, OracleUpdate, Price
from state.eip712 import Domain, report_digest
from state.signatures import sign
from state.wire import to_json
from tools.market import Trader


async def publish_prices(
    url: str, domain: Domain, publishers: Sequence[Trader], prices: Mapping[str, int]
) -> None:
    """Prices in uusd by feed, reported now by everybody. Raises NodeError, NodeUnreachable."""
    now_ms = time.time_ns() // 1_000_000
    reported = tuple(Price(feed, value_uusd, 1_000_000) for feed, value_uusd in sorted(prices.items()))
    digest = report_digest(domain, OracleReport(now_ms, reported, bytes(64)))
    reports = tuple(OracleReport(now_ms, reported, sign(digest, each.secret)) for each in publishers)
    async with NodeClient(url) as client:
        await client.call("straddle_sendOracleUpdate", to_json(OracleUpdate(reports), str))
