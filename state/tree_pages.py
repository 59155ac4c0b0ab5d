"""Pages of the authenticated tree: the index over them and the cache of their nodes.

A *page* is a maximal subtree of at most PAGE_LEAVES leaves: the branch above it, if any, has more. So the
partition into pages depends on the set of keys alone. The index is a tree whose leaves are the pages, each
with its first key, its number of leaves and its hash; it stays in memory (about 250 bytes a page, 20,000
pages per million leaves: 5 MB).

Pages themselves are never stored: a page is rebuilt from its leaves and must then have the hash the index
has for it, so damaged leaves are noticed whenever they are read. The cache keeps the nodes of recently used
pages in one forest, so that changes in thousands of pages are hashed together. All it holds is derived;
eviction is forgetting.
"""

from __future__ import annotations

import numpy as np

from state.proofs import EMPTY_ROOT
from state.tree_forest import KEY, Bools, Forest, Hashes, Ints, Keys, first_differences, gap_bits, ranges

PAGE_LEAVES = 64


class TreeCorrupt(RuntimeError):
    """The database does not hold the tree it says it holds; the message says what differs."""


class CacheTooSmall(RuntimeError):
    """One operation needs more pages at once than the cache has slots."""


class PageIndex:
    """The pages in order of keys. `forest` has one place per page; node 2p is page p."""

    def __init__(self, first_keys: Keys, counts: Ints) -> None:
        self.first_keys = first_keys
        self.counts = counts
        self.forest = Forest(len(first_keys))
        self.root_node = -1
        if len(first_keys):
            self.root_node = int(self.forest.link(np.arange(len(first_keys)), gap_bits(first_keys))[0])

    @classmethod
    def of_rows(cls, first_keys: Keys, counts: Ints, hashes: Hashes) -> PageIndex:
        """An index over these pages with all its branches hashed."""
        index = cls(first_keys, counts)
        index.page_hashes()[:] = hashes
        index.forest.rehash(np.arange(len(first_keys)))
        return index

    def is_empty(self) -> bool:
        """Whether the tree has no leaf."""
        return self.root_node < 0

    def root(self) -> bytes:
        """The root hash of the whole tree."""
        return EMPTY_ROOT if self.is_empty() else self.forest.hashes[self.root_node].tobytes()

    def pages_of(self, keys: Keys) -> Ints:
        """The page each key is in or nearest to, by the longer common prefix; the tree is not empty.

        A key that would lie within the subtree of a page is nearest to that page.
        """
        at = np.maximum(np.searchsorted(self.first_keys, keys, side="right") - 1, 0)
        after = np.minimum(at + 1, len(self.first_keys) - 1)
        further = first_differences(keys, self.first_keys[after]) > first_differences(
            keys, self.first_keys[at]
        )
        result: Ints = np.where(further, after, at)
        return result

    def size_bytes(self) -> int:
        """Memory in use."""
        return self.first_keys.nbytes + self.counts.nbytes + self.forest.size_bytes()

    def page_hashes(self) -> Hashes:
        """The pages' hashes, a view that may be written."""
        return self.forest.hashes[0::2]


class PageCache:
    """Nodes of at most `slots` pages. Slot s has the PAGE_LEAVES places from s * PAGE_LEAVES on."""

    def __init__(self, slots: int) -> None:
        places = slots * PAGE_LEAVES
        self.forest = Forest(places)
        self.keys: Keys = np.zeros(places, dtype=KEY)
        self.roots = np.zeros(slots, dtype=np.int64)
        self.page_of_slot = np.full(slots, -1, dtype=np.int64)
        self.slot_of_page: Ints = np.zeros(0, dtype=np.int64)
        self._last_use = np.zeros(slots, dtype=np.int64)
        self._uses = 0

    def begin(self) -> None:
        """Starts an operation: pages used from now on stay until the next `begin`."""
        self._uses += 1

    def renumber(self, slot_of_page: Ints) -> None:
        """Takes a new numbering of the pages; slots not named are free."""
        self.slot_of_page = slot_of_page
        self.page_of_slot[:] = -1
        cached = np.flatnonzero(slot_of_page >= 0)
        self.page_of_slot[slot_of_page[cached]] = cached

    def use(self, pages: Ints) -> Ints:
        """Marks cached pages as used; returns those of `pages` that are not cached."""
        slots = self.slot_of_page[pages]
        self._last_use[slots[slots >= 0]] = self._uses
        return pages[slots < 0]

    def place(self, pages: Ints, counts: Ints, keys: Keys, hashes: Hashes, dirty: Bools) -> Ints:
        """Puts pages into slots: their leaves' keys and the hashes of leaf and gap (2 rows each), all in
        order.

        Rehashes what lies above `dirty` leaves; the other gap hashes must be right. Returns the pages' root
        nodes. Raises CacheTooSmall.
        """
        slots = self._allocate(len(pages))
        places = ranges(slots * PAGE_LEAVES, counts)
        bits = gap_bits(keys)
        bits[np.cumsum(counts) - 1] = -1
        self.keys[places] = keys
        self.forest.hashes[2 * places] = hashes[0::2]
        self.forest.hashes[2 * places + 1] = hashes[1::2]
        roots = self.forest.link(places, bits)
        self.roots[slots] = roots
        self.page_of_slot[slots] = pages
        self.slot_of_page[pages] = slots
        self.forest.rehash(places[dirty])
        return roots

    def locate(self, pages: Ints, counts: Ints, keys: Keys) -> tuple[Ints, Bools]:
        """For keys in cached pages the places where they stand, and whether they are there at all."""
        start = self.slot_of_page[pages] * PAGE_LEAVES
        low, high = start.copy(), start + counts[pages]
        while True:
            searching = np.flatnonzero(high - low > 1)
            if not searching.size:
                break
            middle = (low[searching] + high[searching]) // 2
            reached = self.keys[middle] <= keys[searching]
            low[searching[reached]] = middle[reached]
            high[searching[~reached]] = middle[~reached]
        return low, self.keys[low] == keys

    def root_hashes(self, pages: Ints) -> Hashes:
        """The hashes of cached pages."""
        return self.forest.hashes.take(self.roots[self.slot_of_page[pages]], axis=0)

    def _allocate(self, count: int) -> Ints:
        """Slots that are free or can be made so, the longest unused first; they count as used."""
        idle = np.where(self.page_of_slot < 0, -1, self._last_use)
        if count > len(idle):
            raise CacheTooSmall
        slots: Ints = np.argpartition(idle, count - 1)[:count] if count else np.zeros(0, np.int64)
        if (idle[slots] >= self._uses).any():
            raise CacheTooSmall
        evicted = self.page_of_slot[slots]
        self.slot_of_page[evicted[evicted >= 0]] = -1
        self.page_of_slot[slots] = -1
        self._last_use[slots] = self._uses
        return slots
