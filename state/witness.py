"""A partial tree: the part of the authenticated tree that some questions need, and nothing else.

Nodes are leaves, branches, and opaque hashes of what was left out. A partial tree made for certain keys and
prefixes answers and changes exactly these, and after any sequence of such changes has the same root as the
full tree. It raises MissingWitness where the answer would depend on something left out; it never guesses.

Soundness: a partial tree whose root equals a trusted root holds true leaves only, because each hash binds
what is below it (see `state.proofs`). Decoding also checks that the tree is well formed.

Deleting a leaf puts its sibling, which may be opaque, in the place of their branch. All keys under that
sibling agree with the deleted key before the branch's index and differ there. This much is remembered with
the opaque node (`hint`, `known_bits`), so that a key near the deleted one can still be looked up and
inserted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from state.proofs import (
    EMPTY_ROOT,
    KEY_BITS,
    KEY_BYTES,
    LeafData,
    branch_hash,
    first_difference,
    key_bit,
    leaf_hash,
    padded,
)

_OPAQUE, _LEAF, _BRANCH, _EMPTY = 0, 1, 2, 3


class MissingWitness(LookupError):
    """The answer lies in a part of the tree that the witness leaves out."""


class WitnessError(ValueError):
    """Bytes that are not the canonical encoding of a well-formed partial tree."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """A subtree known by its hash. Its keys agree with `hint` on the first `known_bits` bits."""

    hash: bytes
    hint: bytes = bytes(KEY_BYTES)
    known_bits: int = 0


class Leaf:
    """A leaf with its hash."""

    __slots__ = ("hash", "key", "value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key = key
        self.value = value
        self.hash = leaf_hash(key, value)


class Branch:
    """A branch; immutable but for its hash, which is computed when first asked for."""

    __slots__ = ("_hash", "bit", "left", "right")

    def __init__(self, bit: int, left: Node, right: Node) -> None:
        self.bit = bit
        self.left = left
        self.right = right
        self._hash: bytes | None = None

    @property
    def hash(self) -> bytes:
        """The branch's hash; deep trees are hashed without recursion."""
        stack = [self]
        while self._hash is None:
            top = stack[-1]
            below = [c for c in (top.left, top.right) if isinstance(c, Branch) and c._hash is None]
            if below:
                stack.extend(below)
            else:
                top._hash = branch_hash(top.bit, top.left.hash, top.right.hash)
                stack.pop()
        return self._hash

    def child(self, side: int) -> Node:
        """The right child for 1, the left for 0."""
        return self.right if side else self.left

    def with_child(self, side: int, child: Node) -> Branch:
        """This branch with another child on one side."""
        return Branch(self.bit, self.left, child) if side else Branch(self.bit, child, self.right)


Node = Leaf | Branch | Opaque


class PartialTree:
    """A mutable tree over immutable nodes; `node` is None for the empty tree."""

    def __init__(self, node: Node | None) -> None:
        self._node = node

    def root(self) -> bytes:
        """The root hash."""
        return EMPTY_ROOT if self._node is None else self._node.hash

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, None when it has none. Raises MissingWitness."""
        _, node, difference = self._find(key)
        return node.value if isinstance(node, Leaf) and difference == KEY_BITS else None

    def put(self, key: bytes, value: bytes) -> None:
        """Sets the value (at least one byte) of a key. Raises MissingWitness, ValueError on wrong lengths."""
        if not value:
            raise ValueError("a leaf's value must not be empty")
        path, node, difference = self._find(key)
        leaf = Leaf(key, value)
        if node is None or difference == KEY_BITS:
            self._replace(key, path, leaf)
            return
        above = [branch for branch in path if branch.bit < difference]
        moved = path[len(above)] if len(above) < len(path) else node
        left, right = (moved, leaf) if key_bit(key, difference) else (leaf, moved)
        self._replace(key, above, Branch(difference, left, right))

    def delete(self, key: bytes) -> None:
        """Removes a key if it is there. Raises MissingWitness."""
        path, node, difference = self._find(key)
        if node is None or difference != KEY_BITS:
            return
        if not path:
            self._node = None
            return
        branch = path.pop()
        sibling = branch.child(1 - key_bit(key, branch.bit))
        if isinstance(sibling, Opaque):
            sibling = _informed(sibling, branch.bit, key)
        self._replace(key, path, sibling)

    def first_under(self, prefix: bytes) -> LeafData | None:
        """The first leaf whose key starts with `prefix`, None if there is none. Raises MissingWitness."""
        return next(self._under(prefix), None)

    def iterate_under(self, prefix: bytes, bound: int) -> list[LeafData]:
        """The first `bound` leaves under `prefix`, ascending, or all if fewer. Raises MissingWitness."""
        return list(islice(self._under(prefix), bound))

    def encode(self) -> bytes:
        """Preorder: 0 hash | 1 key, length (4), value | 2 bit, left, right | or 3 alone: the empty tree."""
        if self._node is None:
            return bytes([_EMPTY])
        out: list[bytes] = []
        stack = [self._node]
        while stack:
            node = stack.pop()
            if isinstance(node, Opaque):
                out.append(bytes([_OPAQUE]) + node.hash)
            elif isinstance(node, Leaf):
                out.append(bytes([_LEAF]) + node.key + len(node.value).to_bytes(4, "big") + node.value)
            else:
                out.append(bytes([_BRANCH, node.bit]))
                stack += [node.right, node.left]
        return b"".join(out)

    @classmethod
    def decode(cls, data: bytes) -> PartialTree:
        """The inverse of `encode`. Raises WitnessError on other bytes and on ill-formed trees."""
        if data == bytes([_EMPTY]):
            return cls(None)
        node, _, end = _decode_node(data, 0, -1)
        if end != len(data):
            raise WitnessError(f"{len(data) - end} bytes follow the tree")
        return cls(node)

    def _find(self, key: bytes) -> tuple[list[Branch], Node | None, int]:
        """Where a lookup of `key` ends: the branches passed, the last node, the first bit at which they
        differ.

        The first difference is 256 only for the leaf of the key itself.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"key has {len(key)} bytes, not {KEY_BYTES}")
        path, node = self._descend(key, KEY_BITS)
        if node is None:
            return path, None, 0
        difference = _difference(key, path, node)
        if difference is None:
            raise MissingWitness(f"key {key.hex()} may lie in a subtree known by its hash only")
        return path, node, difference

    def _descend(self, query: bytes, stop_bit: int) -> tuple[list[Branch], Node | None]:
        """Turns by `query`'s bits as long as branches have an index below `stop_bit`."""
        path: list[Branch] = []
        node = self._node
        while isinstance(node, Branch) and node.bit < stop_bit:
            path.append(node)
            node = node.child(key_bit(query, node.bit))
        return path, node

    def _replace(self, key: bytes, path: list[Branch], node: Node) -> None:
        """Puts `node` below the branches of `path`, which lead towards `key`."""
        for branch in reversed(path):
            node = branch.with_child(key_bit(key, branch.bit), node)
        self._node = node

    def _under(self, prefix: bytes) -> Iterator[LeafData]:
        """All leaves under `prefix`, ascending."""
        if len(prefix) > KEY_BYTES:
            raise ValueError(f"prefix has {len(prefix)} bytes, more than a key")
        query, width = padded(prefix), 8 * len(prefix)
        path, node = self._descend(query, width)
        if node is None:
            return
        known = _known(node) if not isinstance(node, Opaque) else _known_at(path, node, query)
        if known is None or (first_difference(query, known[0]) >= known[1] and known[1] < width):
            raise MissingWitness(f"prefix {prefix.hex()} may lie in a subtree known by its hash only")
        if first_difference(query, known[0]) < width:
            return
        stack: list[Node] = [node]
        while stack:
            top = stack.pop()
            if isinstance(top, Opaque):
                raise MissingWitness(f"the next leaf under prefix {prefix.hex()} is known by its hash only")
            if isinstance(top, Leaf):
                yield LeafData(top.key, top.value)
            else:
                stack += [top.right, top.left]


def _informed(node: Opaque, bit: int, key: bytes) -> Opaque:
    """The opaque sibling of a node that holds `key`, below a branch at `bit`, with all that implies."""
    if node.known_bits > bit:
        return node
    other = int.from_bytes(key, "big") ^ (1 << (KEY_BITS - 1 - bit))
    return Opaque(node.hash, other.to_bytes(KEY_BYTES, "big"), bit + 1)


def _known(node: Node) -> tuple[bytes, int] | None:
    """A key and how many of its first bits all keys below `node` have; None if nothing is known."""
    stack = [node]
    while stack:
        top = stack.pop()
        if isinstance(top, Branch):
            stack += [top.right, top.left]
            continue
        key, bits = (top.key, KEY_BITS) if isinstance(top, Leaf) else (top.hint, top.known_bits)
        if bits:
            return key, min(bits, node.bit) if isinstance(node, Branch) else bits
    return None


def _known_at(path: list[Branch], node: Opaque, query: bytes) -> tuple[bytes, int] | None:
    """What is known of the keys below an opaque node at the end of `path`, reached by `query`'s bits."""
    if path:
        branch = path[-1]
        sibling = _known(branch.child(1 - key_bit(query, branch.bit)))
        if sibling is not None:
            node = _informed(node, branch.bit, sibling[0])
    return _known(node)


def _difference(key: bytes, path: list[Branch], node: Node) -> int | None:
    """The first bit at which `key` differs from all keys below `node`; None if that is not known."""
    if isinstance(node, Leaf):
        return first_difference(key, node.key)
    if isinstance(node, Branch):
        raise AssertionError("a lookup ends at no branch")
    known = _known_at(path, node, key)
    if known is None:
        return None
    difference = first_difference(key, known[0])
    return difference if difference < known[1] else None


def _decode_node(data: bytes, at: int, above: int) -> tuple[Node, bytes | None, int]:
    """Reads a node below a branch at index `above`: the node, some key below it, the end of its bytes.

    Depth is bounded because branch indexes increase downwards.
    """
    tag = _piece(data, at, 1)[0]
    at += 1
    if tag == _OPAQUE:
        return Opaque(_piece(data, at, 32)), None, at + 32
    if tag == _LEAF:
        key = _piece(data, at, KEY_BYTES)
        size = int.from_bytes(_piece(data, at + KEY_BYTES, 4), "big")
        if not size:
            raise WitnessError("a leaf's value is empty")
        start = at + KEY_BYTES + 4
        return Leaf(key, _piece(data, start, size)), key, start + size
    if tag != _BRANCH:
        raise WitnessError(f"unknown node tag {tag}")
    bit = _piece(data, at, 1)[0]
    if bit <= above:
        raise WitnessError(f"branch {bit} lies below branch {above}")
    left, left_key, at = _decode_node(data, at + 1, bit)
    right, right_key, at = _decode_node(data, at, bit)
    if left_key is not None and right_key is not None and first_difference(left_key, right_key) != bit:
        raise WitnessError(f"keys below branch {bit} do not part there")
    if (left_key is not None and key_bit(left_key, bit)) or (
        right_key is not None and not key_bit(right_key, bit)
    ):
        raise WitnessError(f"a key lies on the wrong side of branch {bit}")
    return Branch(bit, left, right), left_key if left_key is not None else right_key, at


def _piece(data: bytes, at: int, count: int) -> bytes:
    piece = data[at : at + count]
    if len(piece) != count:
        raise WitnessError(f"witness ends within a field: {count} bytes wanted, {len(piece)} left")
    return piece
