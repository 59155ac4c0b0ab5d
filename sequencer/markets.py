"""Instruments by number and by name, as the node needs them for every order: an index over their leaves.

Rebuilt from the state whenever an L1 message may have listed or changed an instrument, and kept up with what
blocks say was listed and delisted; nothing else holds names or ticks. The name of an instrument that is gone
is remembered as long as the process lives, and by the node's history after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from state import keys, leaves
from state.hashing import keccak
from state.view import StateView

PERPETUAL = int(leaves.Kind.PERPETUAL)
FUTURE = int(leaves.Kind.FUTURE)
KIND_NAMES = ("perpetual", "future", "call", "put")
STATUS_NAMES = ("listed", "trading", "reduce-only", "halted", "settling", "settled")
MAX_INSTRUMENTS = 100_000
"""Far above what expiries and their bounds allow."""
_INSTRUMENTS = bytes([keys.INSTRUMENT])


@dataclass(frozen=True, slots=True)
class Listed:
    """One instrument: its number, its names, and its leaf's fields as they are now."""

    market: int
    name: str
    name_hash: bytes
    underlying: str
    leaf: leaves.Instrument

    @property
    def currency(self) -> str:
        """Deribit's `currency`: the underlying's coin (`BTC` of the feed `BTC-USD`)."""
        return self.underlying.partition("-")[0].partition("_")[0].upper()


class Markets:
    """All instruments that the state has, by number in ascending order, and by name."""

    def __init__(self, view: StateView) -> None:
        self._view = view
        self.by_number: dict[int, Listed] = {}
        self.by_name: dict[str, Listed] = {}
        self._gone: dict[int, str] = {}
        self.recall: Callable[[int], str | None] = lambda market: None
        """Names of instruments that went before the process began: the node asks its history."""
        self.refresh()

    def refresh(self) -> None:
        """Reads every instrument's leaf again."""
        found = self._view.iterate_under(_INSTRUMENTS, MAX_INSTRUMENTS)
        self.update({*self.by_number, *(int.from_bytes(key[1:5], "big") for key, _ in found)})

    def update(self, markets: Iterable[int]) -> None:
        """Reads these instruments' leaves again; numbers of none are forgotten."""
        for market in sorted(markets):
            leaf: leaves.Instrument | None = self._view.get(keys.instrument_key(market))
            if leaf is None:
                self._forget(market)
                continue
            name = leaf.name.rstrip(b"\0").decode("ascii")
            underlying = leaf.underlying.rstrip(b"\0").decode("ascii")
            listed = Listed(market, name, keccak(name.encode()), underlying, leaf)
            self.by_number[market] = self.by_name[name] = listed

    def _forget(self, market: int) -> None:
        listed = self.by_number.pop(market, None)
        if listed is not None:
            self._gone[market] = listed.name
            if self.by_name[listed.name] is listed:
                del self.by_name[listed.name]

    def names_from(self, count: int) -> list[str]:
        """The names of the instruments after the first `count` ever listed, in the order of their numbers;
        empty for those that are gone."""
        system: leaves.System = self._view.get(keys.SYSTEM_KEY)
        by_number = self.by_number
        numbers = range(count + 1, system.next_market)
        return [by_number[number].name if number in by_number else "" for number in numbers]

    def number_of(self, name: str) -> int:
        """Raises KeyError."""
        return self.by_name[name].market

    def name_of(self, market: int) -> str:
        """Raises KeyError."""
        return self.by_number[market].name

    def past_name_of(self, market: int) -> str:
        """Also of an instrument that is gone; its number as text if nobody remembers the name."""
        listed = self.by_number.get(market)
        if listed is not None:
            return listed.name
        return self._gone.get(market) or self.recall(market) or f"#{market}"

    def name_hash_of(self, market: int) -> bytes:
        """What an order's digest holds. Raises KeyError."""
        return self.by_number[market].name_hash
