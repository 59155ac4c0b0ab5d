"""Configuration of oracle sources: four tables of a publisher's TOML file.

    [source]
    kind = "http"

    [[http.feeds]]
    kind = "index"
    underlying = "BTC"
    url = "https://prices.example/btc"
    bid = "$.result.best_bid"
    ask = "$.result.best_ask"
    timestamp = "$.usOut"
    timestamp_unit = "us"

    [[http.feeds]]
    kind = "svi"
    underlying = "BTC"
    expiry = 2026-12-25T08:00:00Z
    url = "https://surface.example/btc/25DEC26"
    value = "$['svi']"

Definitions and checks only: `oracle_open` makes the source. A publisher's own configuration extends
`SourceConfig` with its other tables. Defaults load, so that a default file can be written; a source that has
nothing to read is refused when it is opened.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import msgspec

from sequencer.http_get import check_url
from sequencer.json_path import JsonPath

MAX_FEEDS = 256
MAX_UNDERLYINGS = 16
MAX_EXPIRIES = 64


def moment_ms(moment: datetime) -> int:
    """Milliseconds since the epoch, of a time with a zone."""
    return round(moment.timestamp() * 1000)


def _above_zero(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: must be above 0, got {value}")


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: must be between 0 and 1, got {value}")


def _zoned(name: str, moment: datetime) -> None:
    if moment.tzinfo is None:
        raise ValueError(f"{name}: needs a time zone, as in 2026-12-25T08:00:00Z")


class StaticExpiry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An expiry of a configured underlying."""

    at: datetime
    volatility: float
    """Per year, the same for all strikes: 0.6 is 60 %."""
    rate: float = 0.0
    """Continuously compounded per year; the forward is the index grown by it."""

    def __post_init__(self) -> None:
        _zoned("at", self.at)
        _above_zero("volatility", self.volatility)
        if not -1 <= self.rate <= 1:
            raise ValueError(f"rate: must be between -1 and 1 (100 %), got {self.rate}")


class StaticUnderlying(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A configured underlying."""

    name: str
    index: float
    """Dollars a coin."""
    expiries: tuple[StaticExpiry, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name: must not be empty")
        _above_zero("index", self.index)
        if len(self.expiries) > MAX_EXPIRIES or len({one.at for one in self.expiries}) < len(self.expiries):
            raise ValueError(f"expiries: at most {MAX_EXPIRIES}, all different")


class HttpFeed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One value, read from a JSON document by JSONPath."""

    kind: Literal["index", "forward", "svi", "rate", "stable"]
    url: str
    underlying: str = ""
    """Of all kinds but `stable`."""
    expiry: datetime | None = None
    """Of forward, svi and rate."""
    value: str = ""
    """Path of the number, or of an object with a, b, rho, m, sigma, forward and tau for `svi`."""
    bid: str = ""
    """Path, with `ask` instead of `value`: the value is the mid and the spread lowers the confidence."""
    ask: str = ""
    timestamp: str = ""
    """Path of the value's time; without it, the time of the reading."""
    timestamp_unit: Literal["s", "ms", "us", "ns"] = "ms"
    confidence: float = 1.0
    """Highest confidence of this feed, 0 to 1."""
    confidence_path: str = ""
    """Path of a confidence that the document gives, 0 to 1; `confidence` limits it."""

    def __post_init__(self) -> None:
        check_url(self.url)
        _share("confidence", self.confidence)
        if (self.kind == "stable") != (not self.underlying):
            raise ValueError("underlying: needed by all kinds but stable")
        if (self.kind in ("forward", "svi", "rate")) != (self.expiry is not None):
            raise ValueError("expiry: needed by forward, svi and rate, and by no other kind")
        if self.expiry is not None:
            _zoned("expiry", self.expiry)
        if bool(self.value) == bool(self.bid or self.ask) or bool(self.bid) != bool(self.ask):
            raise ValueError("value: give either value, or bid and ask")
        if self.bid and self.kind in ("svi", "rate"):
            raise ValueError(f"bid: {self.kind} has no bid and ask; give value")
        for path in (self.value, self.bid, self.ask, self.timestamp, self.confidence_path):
            if path:
                JsonPath.parse(path)


@dataclass(frozen=True, slots=True)
class SourceSection:
    """Where the publisher's values come from."""

    kind: Literal["static", "recorded", "http"] = "static"
    """static: [static]; recorded: [recorded]; http: [http]."""
    volatility: float = 0.0
    """Static and recorded prices wander around theirs with this volatility per year; 0 leaves them still."""
    seed: int = 0
    """Of the wandering; publishers with the same seed report the same prices."""

    def __post_init__(self) -> None:
        if not 0 <= self.volatility <= 10:
            raise ValueError(f"volatility: must be between 0 and 10 (1000 %), got {self.volatility}")


@dataclass(frozen=True, slots=True)
class StaticSection:
    """Configured prices, for tests and development networks."""

    underlyings: tuple[StaticUnderlying, ...] = ()
    """Tables [[static.underlyings]] with name, index and expiries (at, volatility, rate)."""
    stable: float = 1.0
    """Dollars for one unit of the collateral."""
    confidence: float = 1.0
    """Of every value, 0 to 1."""

    def __post_init__(self) -> None:
        _above_zero("stable", self.stable)
        _share("confidence", self.confidence)
        names = {one.name for one in self.underlyings}
        if len(self.underlyings) > MAX_UNDERLYINGS or len(names) < len(self.underlyings):
            raise ValueError(f"underlyings: at most {MAX_UNDERLYINGS}, all different")


@dataclass(frozen=True, slots=True)
class RecordedSection:
    """Recorded option chains as if they were live."""

    files: tuple[str, ...] = ()
    """Chains in Deribit's CSV columns, plain or gzip, each of another underlying."""
    dates: Literal["recorded", "days", "exact"] = "days"
    """recorded: expiries as in the file. days: later by the whole days between snapshot and start, so that
    they stay at their time of day. exact: later by all the time between them, at any time of day."""
    start: str = ""
    """The time at which the snapshot is taken to be made, as 2026-12-01T00:00:00Z; publishers that share it
    report the same expiries. Empty: when the source is opened."""
    stable: float = 1.0
    """Dollars for one unit of the collateral, which a chain does not tell."""

    def __post_init__(self) -> None:
        _above_zero("stable", self.stable)
        if len(self.files) > MAX_UNDERLYINGS:
            raise ValueError(f"files: at most {MAX_UNDERLYINGS}")
        if self.start:
            try:
                moment = datetime.fromisoformat(self.start)
            except ValueError:
                raise ValueError(f"start: {self.start!r} is no time like 2026-12-01T00:00:00Z") from None
            _zoned("start", moment)


@dataclass(frozen=True, slots=True)
class HttpSection:
    """JSON documents of HTTP servers."""

    feeds: tuple[HttpFeed, ...] = ()
    """Tables [[http.feeds]] with kind, url, underlying, expiry, value (or bid and ask), timestamp,
    timestamp_unit, confidence, confidence_path."""
    timeout_s: float = 5.0
    """Of a whole reading, however many documents it needs."""
    max_body_bytes: int = 1_048_576
    max_parallel: int = 8
    """Requests at the same time to one server; a slow one holds up nobody else's."""
    max_age_s: float = 600.0
    """Values older than this by their own timestamp are left out; most have another unit than configured."""

    def __post_init__(self) -> None:
        _above_zero("timeout_s", self.timeout_s)
        _above_zero("max_body_bytes", self.max_body_bytes)
        _above_zero("max_parallel", self.max_parallel)
        _above_zero("max_age_s", self.max_age_s)
        if len(self.feeds) > MAX_FEEDS:
            raise ValueError(f"feeds: at most {MAX_FEEDS}")
        named = {(one.kind, one.underlying, one.expiry) for one in self.feeds}
        if len(named) < len(self.feeds):
            raise ValueError("feeds: two feeds for the same value")


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """Configuration of an oracle source."""

    source: SourceSection = SourceSection()
    static: StaticSection = StaticSection()
    recorded: RecordedSection = RecordedSection()
    http: HttpSection = HttpSection()

    def __post_init__(self) -> None:
        if self.source.kind == "http" and self.source.volatility:
            raise ValueError("source.volatility: prices from http do not wander; leave it at 0")
