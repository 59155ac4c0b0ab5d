"""Many integers in one: sums of products of whole rows with one multiplication for each row.

A row of signed integers v_0, v_1, ... is packed as the sum of v_j 2^(240 j). Adding packed rows and
multiplying them by an integer does the same to every v_j, as long as each stays within 2^239: Python's long
multiplication then runs over all lanes in C. A negative lane borrows from its neighbour; adding 2^239 to
every lane makes all of them positive, so that they can be cut out. No lane knows of another: this is
arithmetic on rows, faster.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

LANE_BITS = 240
LANE_BYTES = LANE_BITS // 8
HALF = 1 << (LANE_BITS - 1)
FULL = (1 << LANE_BITS) - 1
LARGEST_COUNT = 128


@dataclass(frozen=True, slots=True)
class Lanes:
    """Rows of one length; `ones` has a 1 in every lane, `halves` 2^239."""

    count: int
    ones: int
    halves: int

    def positive_part(self, lifted: int) -> int:
        """The row with its negative lanes 0; `lifted` is the row plus `halves`."""
        signs = (lifted >> (LANE_BITS - 1)) & self.ones
        return (lifted & ((signs << LANE_BITS) - signs)) - (signs << (LANE_BITS - 1))

    def least(self, a: int, b: int) -> int:
        """The smaller of two rows, lane by lane; their differences too must fit."""
        return a - self.positive_part(a - b + self.halves)

    def unpack(self, row: int) -> list[int]:
        """All integers of a row."""
        cut = (row + self.halves).to_bytes(self.count * LANE_BYTES, "little")
        read = int.from_bytes
        starts = range(0, self.count * LANE_BYTES, LANE_BYTES)
        return [read(cut[start : start + LANE_BYTES], "little") - HALF for start in starts]


def lane(lifted: int, number: int) -> int:
    """One integer of a row to which `halves` was added."""
    return ((lifted >> (LANE_BITS * number)) & FULL) - HALF


def pack(values: Iterable[int]) -> int:
    """Integers within 2^239 as one row."""
    cut = b"".join([(value + HALF).to_bytes(LANE_BYTES, "little") for value in values])
    return int.from_bytes(cut, "little") - make_lanes(len(cut) // LANE_BYTES).halves


@lru_cache(maxsize=LARGEST_COUNT)
def make_lanes(count: int) -> Lanes:
    """Lanes for rows of `count` integers."""
    ones = ((1 << (LANE_BITS * count)) - 1) // FULL
    return Lanes(count, ones, ones << (LANE_BITS - 1))
