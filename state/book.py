"""One side of an order book as an index over leaves: keys by price level, best level last.

Only an index: it holds keys, and can be rebuilt from the leaves at any time. The best level stands at the end
of the list of prices, because books are busiest there and the end of a list is cheap to change.
"""

from bisect import bisect_left, insort
from typing import Final

_PRICE: Final = 6
_END: Final = 14
"""Where an order's key has its price key (state/keys.py)."""


class BookSide:
    """Keys of one market and side, in key order."""

    __slots__ = ("_best", "_levels", "_prices")

    def __init__(self) -> None:
        self._levels: dict[bytes, list[bytes]] = {}
        """By the price key's bytes."""
        self._prices: list[int] = []
        """Minus the price keys, ascending: the smallest price key, the best, is last."""
        self._best: list[list[bytes]] = []
        """The levels in the order of `_prices`."""

    def add(self, key: bytes) -> None:
        """Adds a key; one that is there already stays once."""
        level = self._levels.get(key[_PRICE:_END])
        if level is None:
            level = self._levels[key[_PRICE:_END]] = [key]
            price = -int.from_bytes(key[_PRICE:_END], "big")
            place = bisect_left(self._prices, price)
            self._prices.insert(place, price)
            self._best.insert(place, level)
        elif key > level[-1]:
            level.append(key)
        elif level[bisect_left(level, key)] != key:
            insort(level, key)

    def remove(self, key: bytes) -> None:
        """Removes a key that is there."""
        level = self._levels[key[_PRICE:_END]]
        if len(level) > 1:
            del level[bisect_left(level, key)]
        else:
            del self._levels[key[_PRICE:_END]]
            place = bisect_left(self._prices, -int.from_bytes(key[_PRICE:_END], "big"))
            del self._prices[place]
            del self._best[place]

    def first(self) -> bytes | None:
        """The key of the best order."""
        return self._best[-1][0] if self._best else None

    def iterate(self, bound: int) -> list[bytes]:
        """Up to `bound` keys, best first."""
        found: list[bytes] = []
        for level in reversed(self._best):
            found += level
            if len(found) >= bound:
                break
        return found[:bound]
