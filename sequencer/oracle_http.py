"""Oracle values from JSON documents of HTTP servers, by JSONPath.

A document is fetched once a reading however many feeds are in it; all fetches share one deadline, and a slow
server takes no other's place. Nothing that a server sends can make a reading fail: what cannot be fetched,
found or believed is left out of the reading and named in its `problems`.

A value is believed when it is a finite number (as a JSON number or a decimal string), above 0 where it is a
price, its time is neither beyond `CLOCK_SKEW_MS` ahead nor older than `max_age_s`, and, for SVI, when
`svi.check_arbitrage` finds nothing in it. Confidence: the feed's configured one, lowered by the spread when
the value is the mid of a bid and an ask, and by the document's own confidence when it has a path for that.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from sequencer.http_get import FetchError, get
from sequencer.json_path import JsonPath, JsonPathError
from sequencer.oracle_config import HttpFeed, HttpSection, moment_ms
from sequencer.oracle_sources import PRICE_ZERO, Expiry, Observed, Reading, confidence
from sequencer.svi import Svi, check_arbitrage

CLOCK_SKEW_MS = 5_000
SVI_NAMES = ("a", "b", "rho", "m", "sigma", "forward", "tau")
MAX_RATE = 10.0
"""Either side of 0; a rate beyond 1000 % is one in percent."""
_DECIMAL = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?")
_PER_MS = {"s": 0.001, "ms": 1.0, "us": 1e3, "ns": 1e6}


class _Unusable(ValueError):
    """The document has no such value, or one that is not to be believed."""


class HttpSource:
    """Reads configured feeds; keeps no connection between two readings."""

    def __init__(self, section: HttpSection) -> None:
        self._section = section
        self._urls = {feed.url: urlsplit(feed.url).netloc for feed in section.feeds}
        """Of each document: its server."""

    async def read(self, now_ms: int) -> Reading:
        documents = await self._documents()
        problems: list[str] = []
        index: dict[str, Observed[float]] = {}
        of_expiry: dict[str, dict[Expiry, Observed[float]]] = {"forward": {}, "rate": {}}
        svi: dict[Expiry, Observed[Svi]] = {}
        stable: Observed[float] | None = None
        for feed in self._section.feeds:
            try:
                document = documents[feed.url]
                if isinstance(document, FetchError):
                    raise _Unusable(str(document))
                if feed.kind == "svi":
                    svi[_expiry(feed)] = self._observed_svi(feed, document, now_ms)
                    continue
                observed = self._observed(feed, document, now_ms)
            except (JsonPathError, _Unusable) as error:
                problems.append(f"{_name(feed)}: {error}")
                continue
            if feed.kind == "index":
                index[feed.underlying] = observed
            elif feed.kind == "stable":
                stable = observed
            else:
                of_expiry[feed.kind][_expiry(feed)] = observed
        return Reading(index, of_expiry["forward"], svi, of_expiry["rate"], stable, tuple(problems))

    async def _documents(self) -> dict[str, Any]:
        """By URL: the document, or the FetchError that says why there is none."""
        documents: dict[str, Any] = {}
        places = {server: trio.CapacityLimiter(self._section.max_parallel) for server in self._urls.values()}
        timeout_s = self._section.timeout_s

        async def fetch(url: str) -> None:
            async with places[self._urls[url]]:
                try:
                    body = await get(url, timeout_s, self._section.max_body_bytes)
                    documents[url] = msgspec.json.decode(body)
                except FetchError as error:
                    documents[url] = error
                except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                    documents[url] = FetchError(f"not JSON: {error}")

        with trio.move_on_after(timeout_s):
            async with trio.open_nursery() as nursery:
                for url in self._urls:
                    nursery.start_soon(fetch, url)
        late = FetchError(f"no whole answer within {timeout_s:g} s")
        return {url: documents.get(url, late) for url in self._urls}

    def _observed(self, feed: HttpFeed, document: Any, now_ms: int) -> Observed[float]:
        at_ms = self._timestamp(feed, document, now_ms)
        trust = _confidence(feed, document)
        if feed.bid:
            bid, ask = (_price(JsonPath.parse(path).find(document)) for path in (feed.bid, feed.ask))
            if bid > ask:
                raise _Unusable(f"bid {bid:g} above ask {ask:g}")
            mid = (bid + ask) / 2
            return Observed(mid, min(trust, confidence((ask - bid) / 2 / mid, PRICE_ZERO)), at_ms)
        found = JsonPath.parse(feed.value).find(document)
        if feed.kind != "rate":
            return Observed(_price(found), trust, at_ms)
        rate = _number(found)
        if abs(rate) > MAX_RATE:
            raise _Unusable(f"rate {rate:g} beyond {MAX_RATE:g} a year")
        return Observed(rate, trust, at_ms)

    def _observed_svi(self, feed: HttpFeed, document: Any, now_ms: int) -> Observed[Svi]:
        at_ms = self._timestamp(feed, document, now_ms)
        found = JsonPath.parse(feed.value).find(document)
        if not isinstance(found, dict) or any(name not in found for name in SVI_NAMES):
            raise _Unusable(f"expected an object with {', '.join(SVI_NAMES)}")
        svi = Svi(*(_number(found[name]) for name in SVI_NAMES))
        problems = check_arbitrage(svi).problems
        if problems:
            raise _Unusable("; ".join(problems))
        return Observed(svi, _confidence(feed, document), at_ms)

    def _timestamp(self, feed: HttpFeed, document: Any, now_ms: int) -> int:
        if not feed.timestamp:
            return now_ms
        value = _number(JsonPath.parse(feed.timestamp).find(document))
        at_ms = value / _PER_MS[feed.timestamp_unit]
        ahead_ms = at_ms - now_ms
        if ahead_ms > CLOCK_SKEW_MS:
            raise _Unusable(f"timestamp {value:.0f} {feed.timestamp_unit} is {ahead_ms / 1000:.0f} s ahead")
        if -ahead_ms > self._section.max_age_s * 1000:
            raise _Unusable(f"timestamp {value:.0f} {feed.timestamp_unit} is {-ahead_ms / 1000:.0f} s old")
        return min(int(at_ms), now_ms)


def _confidence(feed: HttpFeed, document: Any) -> float:
    if not feed.confidence_path:
        return feed.confidence
    value = _number(JsonPath.parse(feed.confidence_path).find(document))
    if not 0 <= value <= 1:
        raise _Unusable(f"confidence {value:g} not between 0 and 1")
    return min(value, feed.confidence)


def _number(value: Any) -> float:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e30:
        raise _Unusable(f"{str(value)[:40]!r} is no number that we read")
    return float(value)


def _price(value: Any) -> float:
    price = _number(value)
    if price <= 0:
        raise _Unusable(f"price {price:g} is not above 0")
    return price


def _expiry(feed: HttpFeed) -> Expiry:
    assert feed.expiry is not None
    return Expiry(feed.underlying, moment_ms(feed.expiry))


def _name(feed: HttpFeed) -> str:
    parts = [feed.kind, feed.underlying, feed.expiry.strftime("%Y-%m-%dT%H:%M:%SZ") if feed.expiry else ""]
    return " ".join(part for part in parts if part)
