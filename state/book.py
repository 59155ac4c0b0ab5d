"""One side of an order book as an index over leaves: keys by price level, best level last.

Only an index: it holds keys, and can be rebuilt from the leaves at any time. The best level stands at the end
of the list of prices, because books are busiest there and the end of a list is cheap to change.
"""

from bisect import bisect_left, insort

_PRICE = slice(6, 14)
"""Where an order's key has its price key (state/keys.py)."""


class BookSide:
    """Keys of one market and side, in key order."""

    __slots__ = ("_levels", "_prices")

    def __init__(self) -> None:
        self._prices: list[int] = []
        """Minus the price keys, ascending: the smallest price key, the best, is last."""
        self._levels: dict[int, list[bytes]] = {}

    def add(self, key: bytes) -> None:
        """Adds a key; one that is there already stays once."""
        price = -int.from_bytes(key[_PRICE], "big")
        level = self._levels.get(price)
        if level is None:
            self._levels[price] = [key]
            insort(self._prices, price)
        elif key > level[-1]:
            level.append(key)
        elif level[bisect_left(level, key)] != key:
            insort(level, key)

    def remove(self, key: bytes) -> None:
        """Removes a key that is there."""
        price = -int.from_bytes(key[_PRICE], "big")
        level = self._levels[price]
        if len(level) > 1:
            del level[bisect_left(level, key)]
        else:
            del self._levels[price]
            del self._prices[bisect_left(self._prices, price)]

    def first(self) -> bytes | None:
        """The key of the best order."""
        return self._levels[self._prices[-1]][0] if self._prices else None

    def iterate(self, bound: int) -> list[bytes]:
        """Up to `bound` keys, best first."""
        found: list[bytes] = []
        for price in reversed(self._prices):
            found += self._levels[price]
            if len(found) >= bound:
                break
        return found[:bound]
