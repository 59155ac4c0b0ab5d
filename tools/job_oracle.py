"""The main job's oracle: three publishers, each with a key of its own, that report what the tape says.

They are the publishers that `straddle oracle` runs, with a source of the devnet: the tape's last prices are
the indices, and a smile gives forward, rate and volatilities of the next daily expiries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import trio

from sequencer import logs
from sequencer.client import NodeClient
from sequencer.oracle_publisher import OraclePublisher, PublisherSection
from sequencer.oracle_sources import Expiry, Observed, Reading
from sequencer.signing import SecretKey
from sequencer.svi import Svi
from state.calendar import Rule, next_expiry_s
from tools.market import Trader
from tools.smiles import Smile

EXPIRIES = 3
"""Two are kept listed; half an hour before one ends, a third is."""
UUSD = 1_000_000
MS_PER_YEAR = 365 * 86_400_000
INTERVAL_MS = 1_000
SURFACE_INTERVAL_MS = 2_000
LOOK_S = 1.0


class MarketSource:
    """Reads `prices` (uusd by underlying, kept up to date by others); options are on `underlying`."""

    def __init__(self, prices: Mapping[str, int], underlying: str, smile: Smile) -> None:
        self._prices = prices
        self._underlying = underlying
        self._smile = smile

    async def read(self, now_ms: int) -> Reading:
        index = {name: Observed(price / UUSD, 1.0, now_ms) for name, price in self._prices.items()}
        spot = index[self._underlying].value
        forward: dict[Expiry, Observed[float]] = {}
        rate: dict[Expiry, Observed[float]] = {}
        svi: dict[Expiry, Observed[Svi]] = {}
        for expiry_ms in next_expiries(now_ms):
            quoted = self._smile.at(expiry_ms, spot, (expiry_ms - now_ms) / MS_PER_YEAR)
            key = Expiry(self._underlying, expiry_ms)
            forward[key] = Observed(quoted.forward, quoted.forward_confidence, now_ms)
            rate[key] = Observed(quoted.rate, 1.0, now_ms)
            svi[key] = Observed(quoted.svi, quoted.svi_confidence, now_ms)
        return Reading(index, forward, svi, rate)


def next_expiries(now_ms: int) -> list[int]:
    """The next daily ones, in milliseconds."""
    found: list[int] = []
    after_s = now_ms // 1_000
    for _ in range(EXPIRIES):
        after_s = next_expiry_s(Rule.DAILY, after_s)
        found.append(after_s * 1_000)
    return found


class Publishers:
    """All of them; `run` until cancelled."""

    def __init__(
        self, source: MarketSource, keys: Sequence[Trader], url: str, clock: Callable[[], int]
    ) -> None:
        self._source = source
        self._keys = [SecretKey(each.secret) for each in keys]
        self._clock = clock
        self._section = PublisherSection(
            node_url=url, interval_ms=INTERVAL_MS, surface_interval_ms=SURFACE_INTERVAL_MS, look_s=LOOK_S
        )

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for key in self._keys:
                nursery.start_soon(self._publish, key)

    async def _publish(self, key: SecretKey) -> None:
        async with NodeClient(self._section.node_url) as client:
            await OraclePublisher(self._source, key, client, self._section, self._clock).run()


def log_to(sink: Any) -> None:
    """What publishers have to say goes there, and not into the display."""
    logs.configure("info", "json", sink)


async def reported(client: NodeClient, names: Sequence[str], since_ms: int) -> None:
    """Waits until all feeds of these names have been reported at or after this time."""
    while True:
        feeds = await client.call("straddle_getFeeds", {"names": names})
        found = [each[kind] for each in feeds for kind in ("price", "rate", "surface") if each[kind]]
        if found and all(each["version"] and each["timestamp_ms"] >= since_ms for each in found):
            return
        await trio.sleep(0.1)
