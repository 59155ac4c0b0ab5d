"""An oracle publisher: reads a source at every tick, signs what it says, and sends it to the node.

Ticks are whole multiples of the interval, and a report has its tick's time: so publishers with the same
values sign the same, and their reports belong together. Which feeds exist is asked of the node now and then,
and at once when it says that one is unknown. Whatever goes wrong, the next tick is another chance: a node
that is away and a source that knows nothing are told once, when they begin and when they end.

Configuration: `OracleConfig`, the publisher's own tables beside those of its source (`oracle_config`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import trio
from msgspec.structs import replace

from sequencer import logs
from sequencer.api_oracle import report_json
from sequencer.client import NodeClient, NodeError, NodeUnreachable
from sequencer.config import KeySection
from sequencer.config_file import ConfigError
from sequencer.oracle_config import SourceConfig
from sequencer.oracle_sources import Reading, Source
from sequencer.oracle_values import Known, names_of, report_of
from sequencer.signing import SecretKey
from state.actions import OracleReport
from state.eip712 import Domain, report_digest
from state.units import MAX_FEEDS_PER_REPORT

NO_KEY = KeySection()
NO_FEEDS = Known(frozenset(), frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class PublisherSection:
    """What the publisher reports, how often, and to whom."""

    node_url: str = "http://127.0.0.1:8645"
    """The node's JSON-RPC URL."""
    interval_ms: int = 1_000
    """Between two reports. Publishers of one network should agree."""
    surface_interval_ms: int = 5_000
    """Between two reports with rates and surfaces, which have the most bytes; a multiple of the above."""
    max_age_s: float = 10.0
    """Values older than this are left out of a report."""
    look_s: float = 10.0
    """Between two questions to the node which feeds exist."""
    perpetuals: bool = True
    """Report an underlying's index also as the mark of its perpetual."""
    chain_id: int = 0
    """The rollup's chain id, part of what is signed; 0: as the node says."""
    rollup: str = ""
    """Address of the Rollup contract, part of what is signed; empty: as the node says."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    def __post_init__(self) -> None:
        if self.interval_ms < 10:
            raise ValueError(f"interval_ms: must be at least 10, got {self.interval_ms}")
        if self.surface_interval_ms <= 0 or self.surface_interval_ms % self.interval_ms:
            raise ValueError(
                f"surface_interval_ms: not a multiple of interval_ms: {self.surface_interval_ms}"
            )
        if not self.max_age_s > 0:
            raise ValueError(f"max_age_s: must be above 0, got {self.max_age_s}")
        if not self.look_s > 0:
            raise ValueError(f"look_s: must be above 0, got {self.look_s}")


@dataclass(frozen=True, slots=True)
class OracleConfig(SourceConfig):
    """Configuration of a Straddle oracle publisher."""

    publisher: PublisherSection = PublisherSection()
    publisher_key: KeySection = NO_KEY


class OraclePublisher:
    """See the module's text. `now_ms` is the wall clock. Whoever runs it closes the client."""

    def __init__(
        self,
        source: Source,
        key: SecretKey,
        client: NodeClient,
        section: PublisherSection,
        now_ms: Callable[[], int],
    ) -> None:
        self.sent = 0
        """Reports that the node has taken."""
        self._source = source
        self._key = key
        self._client = client
        self._section = section
        self._now_ms = now_ms
        self._log = logs.logger(publisher="0x" + key.address.hex())
        self._domain: Domain | None = None
        self._known = NO_FEEDS
        self._looked_ms = 0
        self._told: str | None = None
        """What was last wrong; empty when nothing is."""

    async def run(self) -> None:
        """Publishes until cancelled. Raises ConfigError when the node is of another rollup."""
        while True:
            tick_ms = await self._next_tick()
            reading = await self._source.read(tick_ms)
            try:
                await self._publish(reading, tick_ms)
            except (NodeError, NodeUnreachable) as error:
                self._tell(_described(error))
                if isinstance(error, NodeError) and _code(error) == "ORACLE_UNKNOWN_FEED":
                    self._known = NO_FEEDS
            else:
                self._tell("")

    async def _next_tick(self) -> int:
        interval = self._section.interval_ms
        now_ms = self._now_ms()
        tick_ms = (now_ms // interval + 1) * interval
        await trio.sleep((tick_ms - now_ms) / 1_000)
        return tick_ms

    async def _publish(self, reading: Reading, tick_ms: int) -> None:
        """Raises NodeError, NodeUnreachable, ConfigError."""
        if self._domain is None:
            self._domain = await self._ask_domain()
        if self._known == NO_FEEDS or tick_ms - self._looked_ms > 1_000 * self._section.look_s:
            self._known = await self._ask_feeds(reading)
            self._looked_ms = tick_ms
        known, max_age_ms = self._known, self._section.max_age_s * 1_000
        if tick_ms % self._section.surface_interval_ms:
            known = known._replace(rates=frozenset(), surfaces=frozenset())
        report, problems = report_of(reading, known, tick_ms, max_age_ms, self._section.perpetuals)
        for problem in problems:
            self._log.debug("left out", reason=problem)
        if not (report.prices or report.rates or report.surfaces):
            self._tell("nothing to report: " + ("; ".join(problems[:3]) or "the node has none of the feeds"))
            return
        await self._client.call("straddle_sendReport", report_json(self._signed(report, self._domain)))
        self.sent += 1

    def _signed(self, report: OracleReport, domain: Domain) -> OracleReport:
        return replace(report, signature=self._key.sign(report_digest(domain, report)))

    async def _ask_domain(self) -> Domain:
        status = await self._client.call("straddle_status")
        section = self._section
        if section.chain_id not in (0, status["chain_id"]):
            raise ConfigError(
                f"publisher.chain_id: {section.chain_id}, but the node's is {status['chain_id']}"
            )
        if section.rollup and section.rollup.lower() != status["contract"].lower():
            raise ConfigError(f"publisher.rollup: {section.rollup}, but the node's is {status['contract']}")
        return Domain(status["chain_id"], bytes.fromhex(status["contract"][2:]))

    async def _ask_feeds(self, reading: Reading) -> Known:
        """Which of the reading's feeds exist; of too many the first."""
        names = names_of(reading)[:MAX_FEEDS_PER_REPORT]
        found = await self._client.call("straddle_getFeeds", {"names": names}) if names else []
        return Known(
            *(
                frozenset(each["name"] for each in found if each[kind] is not None)
                for kind in ("price", "rate", "surface")
            )
        )

    def _tell(self, trouble: str) -> None:
        """Logs trouble when it begins and when it ends."""
        if trouble == self._told:
            return
        self._told = trouble
        if trouble:
            self._log.warning("not published", reason=trouble)
        else:
            self._log.info("publishing", reports=self.sent)


def _described(error: NodeError | NodeUnreachable) -> str:
    return f"{_code(error)}: {error.message}" if isinstance(error, NodeError) else str(error)


def _code(error: NodeError) -> Any:
    return error.data.get("code") if isinstance(error.data, dict) else error.code
