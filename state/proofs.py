"""Proofs about the authenticated tree, and their verification without the tree.

The tree is an ordered binary radix tree over 32-byte keys with compressed paths. Bit 0 of a key is the most
significant bit of its first byte, so numeric order of keys is the order of leaves.

    leaf hash   = keccak(0x00 || key || value)              value is never empty
    branch hash = keccak(0x01 || bit || left || right)      bit: one byte, where the keys first differ
    empty tree  = 32 zero bytes

A tree is *well formed* when under a branch with index `bit` all keys agree on every bit before `bit`, keys on
the left have 0 there and keys on the right 1. Roots made by the transition are well formed. The first byte
separates leaf from branch preimages, and the keccak of either binds all its fields, so (unless keccak
collides) every hash on a path that ends in the root is a node of that tree, with exactly these children.

Why each proof holds in a well-formed tree:

membership  The leaf hash climbs to the root, so the leaf is in the tree; a key occurs at most once.
absence     A lookup of `key` turns by key's own bits and ends at the leaf shown. If key were in the tree it
            would lie on the shown side of every shown branch, hence at that leaf; the leaf has another key.
first       A lookup of `prefix || 000..` ends at leaf T. Let X be the first node on the way whose branch
            index is not inside the prefix (or T itself). Any key with the prefix turns as the lookup did
            until X, so it lies under X, and all keys under X agree beyond the prefix's length: either all
            of them have the prefix or none has, and T shows which. Below X the lookup turned left at every
            branch, so T is the leftmost leaf of X. Hence T is the first under the prefix, or there is none.
prefix      The given leaves have the prefix, are in strictly ascending order, and alone determine the shape
            and hash of their subtree X. Every branch of the path above X has an index inside the prefix and X
            lies on the prefix's side, so any key with the prefix lies under X, and all leaves of X are
            given: nothing is hidden. That there are no leaves at all is shown as for `first`.

Verification checks more than soundness needs (branch indexes strictly decrease from leaf to root, sides are
the leaf's own bits), so that a proof has one form. Encodings are canonical: decoding what another encoder
would have written differently raises ProofError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from state.hashing import keccak

KEY_BYTES = 32
KEY_BITS = 256
EMPTY_ROOT = bytes(32)

Node = TypeVar("Node")


class ProofError(ValueError):
    """The proof does not show what it claims, or its bytes are not canonical; the message says why."""


class LeafData(NamedTuple):
    """One leaf of the tree: a 32-byte key and its value of at least one byte."""

    key: bytes
    value: bytes


def leaf_hash(key: bytes, value: bytes) -> bytes:
    """The hash of the leaf (key, value)."""
    return keccak(b"\x00" + key + value)


def branch_hash(bit: int, left: bytes, right: bytes) -> bytes:
    """The hash of a branch at index `bit` over two node hashes."""
    return keccak(b"\x01" + bit.to_bytes(1, "big") + left + right)


def key_bit(key: bytes, bit: int) -> int:
    """Bit number `bit` of a key, 0 being the most significant bit of its first byte."""
    return (key[bit >> 3] >> (7 - (bit & 7))) & 1


def first_difference(a: bytes, b: bytes) -> int:
    """The first bit at which two keys differ; 256 when they are equal."""
    return KEY_BITS - (int.from_bytes(a, "big") ^ int.from_bytes(b, "big")).bit_length()


def padded(prefix: bytes) -> bytes:
    """The smallest key with this prefix."""
    return prefix.ljust(KEY_BYTES, b"\x00")


def fold_ordered(keys: Sequence[bytes], nodes: list[Node], join: Callable[[int, Node, Node], Node]) -> Node:
    """Joins leaves, given in ascending order of at least one key, in the one shape the keys allow.

    A branch at `bit` closes as soon as two neighbours differ at an earlier bit than it.
    """
    open_nodes = [nodes[0]]
    open_bits: list[int] = []

    def close_down_to(bit: int) -> None:
        while open_bits and open_bits[-1] > bit:
            right = open_nodes.pop()
            open_nodes.append(join(open_bits.pop(), open_nodes.pop(), right))

    for i in range(1, len(keys)):
        bit = first_difference(keys[i - 1], keys[i])
        close_down_to(bit)
        open_bits.append(bit)
        open_nodes.append(nodes[i])
    close_down_to(-1)
    return open_nodes[0]


def subtree_hash(leaves: Sequence[LeafData]) -> bytes:
    """The hash of the subtree that holds exactly these leaves, given in ascending order; zeros for none."""
    if not leaves:
        return EMPTY_ROOT
    hashes = [leaf_hash(key, value) for key, value in leaves]
    return fold_ordered([leaf.key for leaf in leaves], hashes, branch_hash)


@dataclass(frozen=True, slots=True)
class Path:
    """Branches from a node up to the root: their indexes (one byte each) and the hash of the other child."""

    bits: bytes
    siblings: tuple[bytes, ...]

    def encode(self) -> bytes:
        """count (2 bytes) | bits | siblings (32 bytes each)."""
        return len(self.bits).to_bytes(2, "big") + self.bits + b"".join(self.siblings)


NO_PATH = Path(b"", ())


@dataclass(frozen=True, slots=True)
class MembershipProof:
    """`key` has `value`. The contract takes key, value, `siblings` as bytes32[] and `bits` as bytes."""

    key: bytes
    value: bytes
    path: Path

    @property
    def siblings(self) -> list[bytes]:
        """Sibling hashes from leaf to root."""
        return list(self.path.siblings)

    @property
    def bits(self) -> bytes:
        """Branch indexes from leaf to root, one byte each."""
        return self.path.bits

    def encode(self) -> bytes:
        """key (32) | value length (4) | value | path."""
        return _encode_leaf(LeafData(self.key, self.value)) + self.path.encode()

    @classmethod
    def decode(cls, data: bytes) -> MembershipProof:
        """The inverse of `encode`. Raises ProofError when the bytes are not canonical."""
        reader = _Reader(data)
        leaf = reader.leaf()
        return reader.finish(cls(leaf.key, leaf.value, reader.path()))


@dataclass(frozen=True, slots=True)
class AbsenceProof:
    """`key` has no value: its lookup ends at `leaf`, which has another key; no leaf means an empty tree."""

    key: bytes
    leaf: LeafData | None
    path: Path

    def encode(self) -> bytes:
        """key (32) | 0, or 1 | leaf | path."""
        return self.key + _encode_end(self.leaf, self.path)

    @classmethod
    def decode(cls, data: bytes) -> AbsenceProof:
        """The inverse of `encode`. Raises ProofError when the bytes are not canonical."""
        reader = _Reader(data)
        key = reader.take(KEY_BYTES)
        return reader.finish(cls(key, *reader.end()))


@dataclass(frozen=True, slots=True)
class FirstProof:
    """`leaf` is where the lookup of `prefix || 000..` ends: the first under the prefix, or none is."""

    prefix: bytes
    leaf: LeafData | None
    path: Path

    def encode(self) -> bytes:
        """prefix length (1) | prefix | 0, or 1 | leaf | path."""
        return _encode_prefix(self.prefix) + _encode_end(self.leaf, self.path)

    @classmethod
    def decode(cls, data: bytes) -> FirstProof:
        """The inverse of `encode`. Raises ProofError when the bytes are not canonical."""
        reader = _Reader(data)
        prefix = reader.prefix()
        return reader.finish(cls(prefix, *reader.end()))


@dataclass(frozen=True, slots=True)
class PrefixProof:
    """`leaves` are all leaves under `prefix`. Without any, `end` is where the lookup of the prefix ends."""

    prefix: bytes
    leaves: tuple[LeafData, ...]
    end: LeafData | None
    path: Path

    def encode(self) -> bytes:
        """prefix length (1) | prefix | count (4) | leaves | path if count > 0, else 0 or 1 | end | path."""
        head = _encode_prefix(self.prefix) + len(self.leaves).to_bytes(4, "big")
        if not self.leaves:
            return head + _encode_end(self.end, self.path)
        return head + b"".join(map(_encode_leaf, self.leaves)) + self.path.encode()

    @classmethod
    def decode(cls, data: bytes) -> PrefixProof:
        """The inverse of `encode`. Raises ProofError when the bytes are not canonical."""
        reader = _Reader(data)
        prefix = reader.prefix()
        count = reader.number(4)
        if count == 0:
            return reader.finish(cls(prefix, (), *reader.end()))
        leaves = tuple([reader.leaf() for _ in range(count)])
        return reader.finish(cls(prefix, leaves, None, reader.path()))


def verify_membership(root: bytes, proof: MembershipProof, key: bytes) -> bytes:
    """The value of `key` under `root`. Raises ProofError if the proof does not show it."""
    if proof.key != key:
        raise ProofError(f"proof is about key {proof.key.hex()}, not {key.hex()}")
    _check_key(key)
    leaf = LeafData(key, proof.value)
    _check_root(root, _climb(_checked_leaf_hash(leaf), key, proof.path, key))
    return proof.value


def verify_absence(root: bytes, proof: AbsenceProof, key: bytes) -> None:
    """Returns if `key` is not in the tree of `root`. Raises ProofError if the proof does not show it."""
    if proof.key != key:
        raise ProofError(f"proof is about key {proof.key.hex()}, not {key.hex()}")
    _check_key(key)
    end = _verify_lookup(root, key, proof.leaf, proof.path)
    if end is not None and end.key == key:
        raise ProofError("the lookup ends at the very key that is said to be absent")


def verify_first(root: bytes, proof: FirstProof, prefix: bytes) -> LeafData | None:
    """The first leaf under `prefix` or None. Raises ProofError if the proof does not show it."""
    _check_prefix(proof.prefix, prefix)
    end = _verify_lookup(root, padded(prefix), proof.leaf, proof.path)
    return end if end is not None and end.key.startswith(prefix) else None


def verify_prefix(root: bytes, proof: PrefixProof, prefix: bytes) -> tuple[LeafData, ...]:
    """All leaves under `prefix`, ascending. Raises ProofError if the proof does not show them all."""
    _check_prefix(proof.prefix, prefix)
    if not proof.leaves:
        end = _verify_lookup(root, padded(prefix), proof.end, proof.path)
        if end is not None and end.key.startswith(prefix):
            raise ProofError("no leaves are given, but the lookup ends at one under the prefix")
        return ()
    if proof.end is not None:
        raise ProofError("a proof that gives leaves must not also show where a failed lookup ends")
    previous = b""
    for key, value in proof.leaves:
        _check_key(key)
        if not key.startswith(prefix):
            raise ProofError(f"leaf {key.hex()} is not under prefix {prefix.hex()}")
        if key <= previous:
            raise ProofError("leaves are not in strictly ascending order")
        if not value:
            raise ProofError("a leaf's value is empty")
        previous = key
    if any(bit >= 8 * len(prefix) for bit in proof.path.bits):
        raise ProofError("a branch of the path lies inside the prefix's subtree: leaves may be hidden")
    _check_root(root, _climb(subtree_hash(proof.leaves), padded(prefix), proof.path, previous))
    return proof.leaves


def _verify_lookup(root: bytes, query: bytes, leaf: LeafData | None, path: Path) -> LeafData | None:
    """Checks that the lookup of `query` under `root` ends at `leaf` (None: the tree is empty)."""
    if leaf is None:
        if path != NO_PATH:
            raise ProofError("a proof about the empty tree has a path")
        _check_root(root, EMPTY_ROOT)
        return None
    _check_key(leaf.key)
    _check_root(root, _climb(_checked_leaf_hash(leaf), query, path, leaf.key))
    return leaf


def _climb(node_hash: bytes, query: bytes, path: Path, key: bytes) -> bytes:
    """The root above a node, turning at each branch by `query`'s bit, which must be that of `key` too."""
    if len(path.bits) != len(path.siblings):
        raise ProofError(f"path has {len(path.bits)} branch indexes but {len(path.siblings)} siblings")
    below = KEY_BITS
    for bit, sibling in zip(path.bits, path.siblings, strict=True):
        if bit >= below:
            raise ProofError(f"branch indexes must strictly decrease towards the root: {bit} after {below}")
        if len(sibling) != 32:
            raise ProofError(f"sibling has {len(sibling)} bytes, not 32")
        side = key_bit(query, bit)
        if key_bit(key, bit) != side:
            raise ProofError(f"the leaf lies on the other side of branch {bit} than the lookup turned")
        node_hash = branch_hash(bit, sibling, node_hash) if side else branch_hash(bit, node_hash, sibling)
        below = bit
    return node_hash


def _checked_leaf_hash(leaf: LeafData) -> bytes:
    if not leaf.value:
        raise ProofError("a leaf's value is empty")
    return leaf_hash(leaf.key, leaf.value)


def _check_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise ProofError(f"key has {len(key)} bytes, not {KEY_BYTES}")


def _check_prefix(proved: bytes, asked: bytes) -> None:
    if proved != asked:
        raise ProofError(f"proof is about prefix {proved.hex()}, not {asked.hex()}")
    if len(asked) > KEY_BYTES:
        raise ProofError(f"prefix has {len(asked)} bytes, more than a key")


def _check_root(root: bytes, found: bytes) -> None:
    if found != root:
        raise ProofError(f"proof leads to root {found.hex()}, not {root.hex()}")


def _encode_leaf(leaf: LeafData) -> bytes:
    return leaf.key + len(leaf.value).to_bytes(4, "big") + leaf.value


def _encode_prefix(prefix: bytes) -> bytes:
    return len(prefix).to_bytes(1, "big") + prefix


def _encode_end(leaf: LeafData | None, path: Path) -> bytes:
    if leaf is None:
        return b"\x00"
    return b"\x01" + _encode_leaf(leaf) + path.encode()


class _Reader:
    """A cursor over encoded bytes; every read beyond the end raises ProofError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise ProofError(f"proof ends within a field: {count} bytes wanted, {len(piece)} left")
        self._at += count
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def leaf(self) -> LeafData:
        key = self.take(KEY_BYTES)
        leaf = LeafData(key, self.take(self.number(4)))
        if not leaf.value:
            raise ProofError("a leaf's value is empty")
        return leaf

    def path(self) -> Path:
        count = self.number(2)
        bits = self.take(count)
        return Path(bits, tuple([self.take(32) for _ in range(count)]))

    def prefix(self) -> bytes:
        count = self.number(1)
        if count > KEY_BYTES:
            raise ProofError(f"prefix has {count} bytes, more than a key")
        return self.take(count)

    def end(self) -> tuple[LeafData | None, Path]:
        tag = self.number(1)
        if tag > 1:
            raise ProofError(f"unknown tag {tag}")
        return (self.leaf(), self.path()) if tag else (None, NO_PATH)

    def finish(self, proof: Node) -> Node:
        if self._at != len(self._data):
            raise ProofError(f"{len(self._data) - self._at} bytes follow the proof")
        return proof
