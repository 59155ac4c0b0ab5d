"""Instruments by number and by name, as the node needs them for every order: an index over their leaves.

Rebuilt from the state whenever an L1 message may have listed or changed an instrument; nothing else holds
names or ticks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from state import keys, leaves
from state.hashing import keccak
from state.view import StateView

PERPETUAL = 0
KIND_NAMES = ("perpetual", "future", "call", "put")
STATUS_NAMES = ("listed", "trading", "reduce-only", "halted")


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
    """All instruments that the state has."""

    def __init__(self, view: StateView) -> None:
        self._view = view
        self.by_number: dict[int, Listed] = {}
        self.by_name: dict[str, Listed] = {}
        self.refresh()

    def refresh(self) -> None:
        """Reads every instrument's leaf again."""
        system = self._view.get(keys.SYSTEM_KEY)
        assert isinstance(system, leaves.System)
        for market in range(1, system.next_market):
            leaf = self._view.get(keys.instrument_key(market))
            assert isinstance(leaf, leaves.Instrument)
            name = leaf.name.rstrip(b"\0").decode("ascii")
            underlying = leaf.underlying.rstrip(b"\0").decode("ascii")
            listed = Listed(market, name, keccak(name.encode()), underlying, leaf)
            self.by_number[market] = self.by_name[name] = listed

    def names_from(self, count: int) -> list[str]:
        """The names of the instruments after the first `count`, in the order of their numbers."""
        if count == len(self.by_number):
            return []
        return [listed.name for listed in islice(self.by_number.values(), count, None)]

    def number_of(self, name: str) -> int:
        """Raises KeyError."""
        return self.by_name[name].market

    def name_of(self, market: int) -> str:
        """Raises KeyError."""
        return self.by_number[market].name

    def name_hash_of(self, market: int) -> bytes:
        """What an order's digest holds. Raises KeyError."""
        return self.by_number[market].name_hash
