"""Many crit-bit trees in arrays: shape and hashes computed for thousands of nodes at a time.

A forest is a row of *places*. Place p stands for a leaf and for the gap between it and the leaf at place p
+ 1 of the same tree. Each gap is one branch: the one that separates the two neighbours, whose index is the
first bit at which they differ (`bits`, -1 after the last leaf of a tree). In hash rows and child links, the
leaf of place p is node 2p and the branch of gap p is node 2p + 1.

The shape follows from `bits` alone: going up from a gap, the parent is the nearer-valued of the next
smaller bits to its left and right (the Cartesian tree of the bits). Indexes increase downwards, so
rehashing all dirty branches in groups of descending bit hashes every child before its parent.

Keys are numpy strings of 32 bytes: they compare as bytes, but an item taken out singly loses trailing zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sha3 import keccak_256

KEY = np.dtype("S32")
Keys = npt.NDArray[np.bytes_]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Hashes = npt.NDArray[np.uint8]

_BITS_OF_BYTE = np.array([8 - n.bit_length() for n in range(256)], dtype=np.int64)


def keys_array(keys: list[bytes]) -> Keys:
    """32-byte keys as an array."""
    return np.frombuffer(b"".join(keys), dtype=KEY)


def keys_list(keys: Keys) -> list[bytes]:
    """The inverse of `keys_array`."""
    data = keys.tobytes()
    return [data[i : i + 32] for i in range(0, len(data), 32)]


def hashes_array(hashes: list[bytes]) -> Hashes:
    """32-byte hashes as rows."""
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 32)


def first_differences(a: Keys, b: Keys) -> Ints:
    """For each pair of keys the first bit at which they differ, 256 where they are equal."""
    shape = (len(a), 32)
    unlike = np.ascontiguousarray(a).view(np.uint8).reshape(shape) ^ np.ascontiguousarray(b).view(
        np.uint8
    ).reshape(shape)
    byte = (unlike != 0).argmax(axis=1)
    last = unlike[np.arange(len(a)), byte]
    result: Ints = np.where(last == 0, 256, 8 * byte + _BITS_OF_BYTE[last])
    return result


def gap_bits(keys: Keys) -> Ints:
    """The bits of all gaps of one tree with these ascending keys."""
    if not len(keys):
        return np.zeros(0, np.int64)
    return np.append(first_differences(keys[:-1], keys[1:]), -1)


def ranges(starts: Ints, sizes: Ints) -> Ints:
    """The concatenation of range(start, start + size) for each pair."""
    ends = np.cumsum(sizes)
    result: Ints = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)
    return result


def nearest_smaller(bits: Ints) -> tuple[Ints, Ints]:
    """For each gap with a bit the nearest gaps before and after it with a smaller one.

    Pointers jump over what is known to be larger until they rest. The index -1, before the first gap, stands
    for the last, which is an end of tree as well.
    """
    before, after = np.arange(len(bits)) - 1, np.arange(len(bits)) + 1
    after[-1:] -= 1
    for pointer in (before, after):
        active = np.flatnonzero(bits >= 0)
        while active.size:
            target = pointer[active]
            larger = bits[target] > bits[active]
            active = active[larger]
            pointer[active] = pointer[target[larger]]
    return before, after


def hash_branches(bits: npt.NDArray[np.int16], left: Hashes, right: Hashes) -> Hashes:
    """Hashes of branches with these indexes and child hashes."""
    preimages = np.empty((len(bits), 66), dtype=np.uint8)
    preimages[:, 0] = 1
    preimages[:, 1] = bits
    preimages[:, 2:34] = left
    preimages[:, 34:] = right
    data = preimages.tobytes()
    return hashes_array([keccak_256(data[i : i + 66]).digest() for i in range(0, len(data), 66)])


class Forest:
    """Trees in arrays of a fixed number of places.

    `parent` maps a node to the gap of its parent branch, -1 for a root. Roots are nodes without parent.
    """

    def __init__(self, places: int) -> None:
        self.hashes: Hashes = np.zeros((2 * places, 32), dtype=np.uint8)
        self.bits = np.zeros(places, dtype=np.int16)
        self.left = np.zeros(places, dtype=np.int32)
        self.right = np.zeros(places, dtype=np.int32)
        self.parent = np.zeros(2 * places, dtype=np.int32)
        self._seen = np.zeros(places, dtype=np.int32)

    def size_bytes(self) -> int:
        """Memory in use."""
        return sum(a.nbytes for a in (self.hashes, self.bits, self.left, self.right, self.parent, self._seen))

    def link(self, places: Ints, bits: Ints) -> Ints:
        """Shapes the trees whose leaves stand, in order, at `places` with these gap bits; hashes stay as
        they are.

        The leaves of one tree stand at consecutive places. Returns the root node of each tree.
        """
        before, after = nearest_smaller(bits)
        local = np.arange(len(bits))
        gaps = bits >= 0
        on_right = gaps & (bits[before] > bits[after])
        on_left = gaps & (bits[before] < bits[after])
        left, right = 2 * local, 2 * local + 2
        right[before[on_right]] = 2 * local[on_right] + 1
        left[after[on_left]] = 2 * local[on_left] + 1
        gap_parent = np.where(on_right, before, np.where(on_left, after, -1))
        leaf_parent = np.where(bits[local - 1] > bits, local - 1, np.where(gaps, local, -1))
        shift = places - local
        self.bits[places] = bits
        self.left[places] = left + 2 * shift
        self.right[places] = right + 2 * shift
        self.parent[2 * places] = np.where(leaf_parent < 0, -1, leaf_parent + shift)
        self.parent[2 * places + 1] = np.where(gap_parent < 0, -1, gap_parent + shift)
        roots = np.concatenate((2 * places[leaf_parent < 0], 2 * places[gaps & (gap_parent < 0)] + 1))
        order = np.concatenate((local[leaf_parent < 0], local[gaps & (gap_parent < 0)]))
        result: Ints = roots[np.argsort(order)]
        return result

    def rehash(self, places: Ints) -> int:
        """Recomputes every branch above the leaves at `places`; returns how many there were."""
        gaps = self._ancestors(places)
        if not gaps.size:
            return 0
        order = np.argsort(-self.bits[gaps], kind="stable")
        gaps = gaps[order]
        bits = self.bits[gaps]
        ends = np.append(np.flatnonzero(bits[1:] != bits[:-1]) + 1, len(gaps)).tolist()
        start = 0
        for end in ends:
            group = gaps[start:end]
            left = self.hashes.take(self.left[group], axis=0)
            right = self.hashes.take(self.right[group], axis=0)
            self.hashes[2 * group + 1] = hash_branches(bits[start:end], left, right)
            start = end
        return len(gaps)

    def _ancestors(self, places: Ints) -> Ints:
        """The gaps of all branches above the leaves at `places`, each once."""
        found: list[Any] = []
        above = self.parent[2 * places]
        while True:
            above = above[above >= 0]
            above = above[self._seen[above] == 0]
            if not above.size:
                break
            # Each writes its number, the last writer of a gap stays: so each gap is kept once.
            number = np.arange(1, len(above) + 1, dtype=np.int32)
            self._seen[above] = number
            above = above[self._seen[above] == number]
            found.append(above)
            above = self.parent[2 * above + 1]
        gaps: Ints = np.concatenate(found) if found else np.zeros(0, np.int64)
        self._seen[gaps] = 0
        return gaps
