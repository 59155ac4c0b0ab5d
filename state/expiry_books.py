"""What has been computed of expiries: factors, risk arrays and sums of holdings, remembered in memory.

A `Book` belongs to the values of a pricing snapshot under one grid, never to a version or an exchange: so it
decides nothing, and can always be made again. Books, and sums in a book, are bounded; the oldest go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from state.expiry_sums import (
    NO_OPTIONS,
    ExpiryHolding,
    ExpirySums,
    OrderMoves,
    expiry_sums,
    is_small,
    lane_sums,
    order_moves,
)
from state.fixed import BITS
from state.leaves import Pricing
from state.margin_terms import Grids
from state.pricing import expiry_market
from state.risk_array import RiskArray
from state.risk_grid import Expiry, Grid, make_expiry
from state.units import PPM
from state.vector_risk import make_risk_arrays

MAX_BOOKS: Final = 64
MAX_SUMS: Final = 512
_VERSION_BYTES: Final = 8

Held = tuple[int, int, int, int, int]
"""(strike, 1 of a call, size, open buys, open sells) of an option."""


class Book:
    """One expiry at one moment."""

    def __init__(self, key: bytes, pricing: Pricing, expiry: Expiry, grid: Grid) -> None:
        self.key: bytes = key
        """Of its grid, and of when it expires."""
        self.pricing: Pricing = pricing
        self.expiry: Expiry = expiry
        self.grid: Grid = grid
        self.arrays: dict[tuple[int, int], RiskArray] = {}
        self.moves: dict[tuple[int, int], OrderMoves] = {}
        self.sums: dict[tuple[Held, ...], ExpirySums] = {}
        self.worst: dict[tuple[int, int], tuple[int, int]] = {}

    def missing(self, held: Sequence[Held]) -> list[tuple[int, bool]]:
        """Options without an array."""
        arrays = self.arrays
        return [(each[0], each[1] == 1) for each in held if (each[0], each[1]) not in arrays]

    def sums_of(self, held: tuple[Held, ...]) -> ExpirySums:
        """Of options whose arrays are there."""
        found = self.sums.get(held)
        if found is None:
            if len(self.sums) >= MAX_SUMS:
                del self.sums[next(iter(self.sums))]
            found = self.sums[held] = self._sum(held) if held else NO_OPTIONS
        return found

    def worst_ppm(self, strike: int, is_call: int) -> tuple[int, int]:
        """What an option bought, and one sold, loses in its worst scenario alone: parts of the forward,
        rounded up, before discount."""
        found = self.worst.get((strike, is_call))
        if found is None:
            if (strike, is_call) not in self.arrays:
                fill_arrays(self.grid, [(self, [(strike, is_call, 0, 0, 0)])])
            found = self.worst[strike, is_call] = worst_ppm(self.grid, self.arrays[strike, is_call])
        return found

    def _sum(self, held: tuple[Held, ...]) -> ExpirySums:
        options = [self.arrays[each[0], each[1]] for each in held]
        holding = ExpiryHolding(self.expiry, options, [each[2] for each in held])
        with_orders = any(each[3] or each[4] for each in held)
        if with_orders:
            buys, sells = [each[3] for each in held], [each[4] for each in held]
            holding = holding._replace(buys=buys, sells=sells)
        if not with_orders or not is_small(holding):
            return expiry_sums(self.grid, holding)
        return lane_sums(self.grid, holding, [self._moves(each[0], each[1]) for each in held])

    def _moves(self, strike: int, is_call: int) -> OrderMoves:
        found = self.moves.get((strike, is_call))
        if found is None:
            array = self.arrays[strike, is_call]
            found = self.moves[strike, is_call] = order_moves(self.grid, self.expiry, array)
        return found


_books: OrderedDict[bytes, Book] = OrderedDict()
_latest: dict[int, Book] = {}
"""The book last asked for of each expiry's number: most questions are for it."""


def book_of(pricing: Pricing, number: int, expiry_s: int, grids: Grids) -> Book:
    """The book of a snapshot; `number` is only a hint where to look first."""
    key = expiry_s.to_bytes(8, "big") + grids.key
    latest = _latest.get(number)
    if latest is not None and latest.key == key and is_same(latest.pricing, pricing):
        return latest
    place = pricing.encode()[:-_VERSION_BYTES] + key
    book = _books.get(place)
    if book is None:
        if len(_books) >= MAX_BOOKS:
            _books.popitem(last=False)
        expiry = make_expiry(expiry_market(pricing, expiry_s), grids.grid)
        book = _books[place] = Book(key, Pricing.decode(pricing.encode()), expiry, grids.grid)
    else:
        _books.move_to_end(place)
    if len(_latest) >= MAX_BOOKS:
        _latest.clear()
    _latest[number] = book
    return book


def is_same(a: Pricing, b: Pricing) -> bool:
    """Whether all values are equal; versions do not count."""
    return (
        a.priced_ms == b.priced_ms
        and a.forward_uusd == b.forward_uusd
        and a.index_uusd == b.index_uusd
        and a.index_confidence_ppm == b.index_confidence_ppm
        and a.forward_confidence_ppm == b.forward_confidence_ppm
        and a.rate_ppb == b.rate_ppb
        and a.rate_confidence_ppm == b.rate_confidence_ppm
        and a.a_pico == b.a_pico
        and a.b_pico == b.b_pico
        and a.rho_pico == b.rho_pico
        and a.m_pico == b.m_pico
        and a.sigma_pico == b.sigma_pico
        and a.reference_uusd == b.reference_uusd
        and a.tau_s == b.tau_s
        and a.vol_confidence_ppm == b.vol_confidence_ppm
        and a.fixed_uusd == b.fixed_uusd
        and a.live_ppb == b.live_ppb
        and a.stable_uusd == b.stable_uusd
    )


def worst_ppm(grid: Grid, array: RiskArray) -> tuple[int, int]:
    """Of one option bought, and of one sold; a skew counts either way."""
    mark = array.values[grid.mark]
    down = up = 0
    for place, damp in zip(grid.places, grid.damps, strict=True):
        move = (array.values[place] - mark) * damp
        if place in grid.skews:
            down, up = max(down, abs(move)), max(up, abs(move))
        else:
            down, up = max(down, -move), max(up, move)
    return -(-down * PPM >> 2 * BITS), -(-up * PPM >> 2 * BITS)


def forget_sums() -> None:
    """Forgets all sums and keeps the arrays: for benchmarks."""
    for book in _books.values():
        book.sums.clear()


def fill_arrays(grid: Grid, wanted: Sequence[tuple[Book, Sequence[Held]]]) -> None:
    """Makes all arrays that are missing, together. All books are of this grid."""
    chain: list[tuple[Expiry, list[tuple[int, bool]]]] = []
    books: list[Book] = []
    for book, held in wanted:
        missing = book.missing(held)
        if missing:
            books.append(book)
            chain.append((book.expiry, missing))
    if not chain:
        return
    for book, (_, options), arrays in zip(books, chain, make_risk_arrays(grid, chain), strict=True):
        for (strike, is_call), array in zip(options, arrays, strict=True):
            book.arrays[strike, int(is_call)] = array
