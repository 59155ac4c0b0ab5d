"""Inserting and deleting leaves: which pages the changed tree has, and what of the old hashes still holds.

The tree is laid out as a row of *units*: leaves, for the pages that must be opened, and whole pages for all
others. Deleted leaves are taken out of the row and new ones put in; the bits between neighbours then give
the shape of the whole tree, and the maximal subtrees of at most PAGE_LEAVES leaves are its pages. If that
joins a page that was left whole with something else, it must be opened too and the row laid out again.

A branch keeps its hash if no leaf under it changed. A new leaf is dirty; where leaves were deleted, the
neighbours on both sides are: every branch that had a deleted leaf under it, and every branch between two
units that were not neighbours before, is above one of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sha3 import keccak_256

from state.tree_forest import (
    Bools,
    Hashes,
    Ints,
    Keys,
    gap_bits,
    hashes_array,
    keys_array,
    nearest_smaller,
    ranges,
)
from state.tree_pages import PAGE_LEAVES, PageCache, PageIndex

_NO_HASH = bytes(32)


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of leaves in ascending order of keys; `hashes` of the new leaves, zeros for a deletion."""

    leaves: list[tuple[bytes, bytes | None]]
    keys: Keys
    is_put: Bools
    hashes: Hashes

    @classmethod
    def of(cls, leaves: list[tuple[bytes, bytes | None]]) -> Changes:
        """Hashes the new leaves."""
        hashes = [_NO_HASH if v is None else keccak_256(b"\x00" + k + v).digest() for k, v in leaves]
        is_put = np.array([value is not None for _, value in leaves], dtype=np.bool_)
        return cls(leaves, keys_array([key for key, _ in leaves]), is_put, hashes_array(hashes))

    def halves(self) -> tuple[Changes, Changes]:
        """The changes of the lower and of the upper half of the keys."""
        cut = len(self.leaves) // 2
        lower = Changes(self.leaves[:cut], self.keys[:cut], self.is_put[:cut], self.hashes[:cut])
        return lower, Changes(self.leaves[cut:], self.keys[cut:], self.is_put[cut:], self.hashes[cut:])


@dataclass(frozen=True, slots=True)
class Located:
    """Changes with the page each belongs to, and for keys that exist (`found`) their place in the cache."""

    changes: Changes
    pages: Ints
    places: Ints
    found: Bools

    def structural(self) -> Bools:
        """Which changes insert or delete a leaf."""
        result: Bools = self.found != self.changes.is_put
        return result


@dataclass(frozen=True, slots=True)
class Units:
    """The row: `page` is the old page (-1: a new leaf), `hashes` of the unit and of the gap after it."""

    keys: Keys
    page: Ints
    whole: Bools
    weight: Ints
    hashes: Hashes
    dirty: Bools

    def chosen(self, which: Ints) -> Units:
        """The units with these numbers."""
        keys, page, whole, weight = self.keys[which], self.page[which], self.whole[which], self.weight[which]
        return Units(keys, page, whole, weight, self.hashes[which], self.dirty[which])


def lay_out(index: PageIndex, cache: PageCache, located: Located, opened: Bools) -> Units:
    """The row after the changes. Opened pages must be cached; all inserts and deletions lie in them."""
    sizes = np.where(opened, index.counts, 1)
    starts = np.cumsum(sizes) - sizes
    page = np.repeat(np.arange(len(sizes)), sizes)
    offset = np.arange(len(page)) - starts[page]
    whole = ~opened[page]
    place = cache.slot_of_page[page] * PAGE_LEAVES + offset
    leaf = np.flatnonzero(~whole)
    inner = np.flatnonzero(offset + 1 < sizes[page])
    keys = index.first_keys[page]
    keys[leaf] = cache.keys[place[leaf]]
    hashes = index.forest.hashes.reshape(-1, 64)[page]
    hashes[leaf, :32] = cache.forest.hashes[2 * place[leaf]]
    hashes[inner, 32:] = cache.forest.hashes[2 * place[inner] + 1]
    weight = np.where(whole, index.counts[page], 1)
    units = Units(keys, page, whole, weight, hashes, np.zeros(len(page), dtype=np.bool_))

    changes, found = located.changes, located.found
    if found.any():
        in_page = located.places - cache.slot_of_page[located.pages] * PAGE_LEAVES
        unit = starts[located.pages] + np.where(opened[located.pages], in_page, 0)
        written = found & changes.is_put
        units.dirty[unit[written]] = True
        inside = written & opened[located.pages]
        units.hashes[unit[inside], :32] = changes.hashes[inside]
        units = _without(units, unit[found & ~changes.is_put])
    return _with(units, changes, np.flatnonzero(changes.is_put & ~found))


def _without(units: Units, gone: Ints) -> Units:
    """The row without some units, their neighbours dirty."""
    keep = np.ones(len(units.keys), dtype=np.bool_)
    keep[gone] = False
    rest = units.chosen(np.flatnonzero(keep))
    after = np.cumsum(keep)[gone]
    near = np.concatenate((after - 1, after))
    rest.dirty[near[(near >= 0) & (near < len(rest.dirty))]] = True
    return rest


def _with(units: Units, changes: Changes, new: Ints) -> Units:
    """The row with new leaves, dirty."""
    at = np.searchsorted(units.keys, changes.keys[new])
    hashes = np.zeros((len(new), 64), dtype=np.uint8)
    hashes[:, :32] = changes.hashes[new]
    return Units(
        np.insert(units.keys, at, changes.keys[new]),
        np.insert(units.page, at, -1),
        np.insert(units.whole, at, False),
        np.insert(units.weight, at, 1),
        np.insert(units.hashes, at, hashes, axis=0),
        np.insert(units.dirty, at, True),
    )


def plan(
    index: PageIndex, cache: PageCache, located: Located, load: Callable[[Ints], None]
) -> tuple[Units, Bools, Bools]:
    """The row after the changes, which gaps of it lie within pages, and which old pages are opened.

    Changes nothing but the cache's choice of pages, by `load`.
    """
    opened = np.zeros(len(index.counts), dtype=np.bool_)
    if len(opened):
        opened[located.pages[located.structural()]] = True
    while True:
        units = lay_out(index, cache, located, opened)
        bits = gap_bits(units.keys)
        before, after = nearest_smaller(bits)
        weights = np.concatenate((np.zeros(1, np.int64), np.cumsum(units.weight)))
        inner = (bits >= 0) & (weights[after + 1] - weights[before + 1] <= PAGE_LEAVES)
        joined = inner.copy()
        joined[1:] |= inner[:-1]
        merging = units.page[units.whole & joined]
        if not merging.size:
            return units, inner, opened
        load(merging)
        opened[merging] = True


def rebuild(units: Units, inner: Bools, old: PageIndex, cache: PageCache, slots: int) -> PageIndex:
    """Makes the pages of the row: the new index with right hashes; new pages replace opened ones."""
    if not len(units.keys):
        cache.renumber(np.zeros(0, dtype=np.int64))
        return PageIndex(units.keys, units.weight)
    ends = np.flatnonzero(~inner)
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))
    sizes = ends - starts + 1
    index = PageIndex(units.keys[starts], np.add.reduceat(units.weight, starts))
    index.forest.hashes[1::2] = units.hashes[ends, 32:]
    kept = np.flatnonzero(units.whole[starts])
    old_pages = units.page[starts[kept]]
    index.page_hashes()[kept] = old.page_hashes()[old_pages]
    slot_of_page = np.full(len(starts), -1, dtype=np.int64)
    slot_of_page[kept] = cache.slot_of_page[old_pages]
    cache.renumber(slot_of_page)
    made = np.flatnonzero(~units.whole[starts])
    for first in range(0, len(made), slots):
        pages = made[first : first + slots]
        rows = ranges(starts[pages], sizes[pages])
        hashes = units.hashes[rows].reshape(-1, 32)
        cache.begin()
        roots = cache.place(pages, sizes[pages], units.keys[rows], hashes, units.dirty[rows])
        index.page_hashes()[pages] = cache.forest.hashes[roots]
    index.forest.rehash(np.flatnonzero(np.logical_or.reduceat(units.dirty, starts)))
    return index
