"""Proofs that must be refused, and what they would have hidden; golden vectors from the naive model."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.proofs import (
    EMPTY_ROOT,
    NO_PATH,
    AbsenceProof,
    FirstProof,
    LeafData,
    MembershipProof,
    Path,
    PrefixProof,
    ProofError,
    branch_hash,
    key_bit,
    leaf_hash,
    verify_absence,
    verify_first,
    verify_membership,
    verify_prefix,
)
from state.tree import Tree
from tests.tree_model import VECTORS, Leaves, MemoryStore, naive_path, naive_root, vectors


def key(kind: int, *fields: int) -> bytes:
    return (bytes([kind]) + b"".join(field.to_bytes(8, "big") for field in fields)).ljust(32, b"\0")


MODEL: Leaves = {
    key(11, account, market): bytes([account, market]) for account in range(8) for market in range(3)
}
MODEL |= {key(0): b"system", key(12, 1): b"order", key(12, 2): b"order 2"}
TREE = Tree(MemoryStore(), 128)
ROOT = TREE.update(MODEL)
KEY, ABSENT, PREFIX, NO_PREFIX = key(11, 3, 1), key(11, 3, 9), key(11, 3)[:9], key(11, 9)[:9]


def membership() -> MembershipProof:
    proof = TREE.prove(KEY)
    assert isinstance(proof, MembershipProof)
    return proof


def absence() -> AbsenceProof:
    proof = TREE.prove(ABSENT)
    assert isinstance(proof, AbsenceProof)
    return proof


def swapped(path: Path, i: int, j: int) -> Path:
    siblings = list(path.siblings)
    siblings[i], siblings[j] = siblings[j], siblings[i]
    return Path(path.bits, tuple(siblings))


def bent_paths(path: Path) -> list[Path]:
    """Every small change of a path."""
    n = len(path.bits)
    flipped = bytes([path.siblings[0][0] ^ 1]) + path.siblings[0][1:]
    return [
        Path(path.bits[1:], path.siblings[1:]),
        Path(path.bits[:-1], path.siblings[:-1]),
        Path(path.bits[:-1], path.siblings),
        Path(path.bits, path.siblings[:-1]),
        Path(path.bits[::-1], path.siblings[::-1]),
        Path(path.bits[:1] + path.bits, path.siblings[:1] + path.siblings),
        Path(path.bits, (flipped, *path.siblings[1:])),
        Path(path.bits, (path.siblings[0][:31], *path.siblings[1:])),
        *[swapped(path, i, i + 1) for i in range(n - 1)],
        *[
            Path(path.bits[:i] + bytes([path.bits[i] ^ 1]) + path.bits[i + 1 :], path.siblings)
            for i in range(n)
        ],
        NO_PATH,
    ]


@pytest.mark.parametrize("path", bent_paths(membership().path))
def test_membership_with_a_bent_path_is_refused(path: Path) -> None:
    with pytest.raises(ProofError):
        verify_membership(ROOT, replace(membership(), path=path), KEY)


@pytest.mark.parametrize("path", bent_paths(absence().path))
def test_absence_with_a_bent_path_is_refused(path: Path) -> None:
    with pytest.raises(ProofError):
        verify_absence(ROOT, replace(absence(), path=path), ABSENT)


@pytest.mark.parametrize("path", bent_paths(TREE.prove_first(PREFIX).path))
def test_first_with_a_bent_path_is_refused(path: Path) -> None:
    with pytest.raises(ProofError):
        verify_first(ROOT, replace(TREE.prove_first(PREFIX), path=path), PREFIX)


@pytest.mark.parametrize("path", bent_paths(TREE.prove_prefix(PREFIX).path))
def test_prefix_with_a_bent_path_is_refused(path: Path) -> None:
    with pytest.raises(ProofError):
        verify_prefix(ROOT, replace(TREE.prove_prefix(PREFIX), path=path), PREFIX)


def test_membership_of_another_key_value_or_root_is_refused() -> None:
    proof = membership()
    assert verify_membership(ROOT, proof, KEY) == bytes([3, 1])
    assert proof.siblings == list(proof.path.siblings)
    assert proof.bits == proof.path.bits
    for forged, asked in [
        (replace(proof, value=b"\x03\x02"), KEY),
        (replace(proof, value=b""), KEY),
        (proof, key(11, 3, 2)),
        (replace(proof, key=key(11, 3, 2)), key(11, 3, 2)),
        (replace(proof, key=KEY[:31]), KEY[:31]),
    ]:
        with pytest.raises(ProofError):
            verify_membership(ROOT, forged, asked)
    with pytest.raises(ProofError, match="leads to root"):
        verify_membership(EMPTY_ROOT, proof, KEY)


@pytest.mark.parametrize("bits", [bytes([5, 5]), bytes([5, 9]), bytes([255, 7, 7]), bytes([9, 3, 4])])
def test_branch_indexes_that_do_not_decrease_are_refused_even_if_the_hashes_agree(bits: bytes) -> None:
    """A root over an ill-formed tree: every hash is right, only the order of the indexes is not."""
    sibling = bytes([7]) * 32
    root = leaf_hash(bytes(32), b"v")
    for bit in bits:
        root = branch_hash(bit, root, sibling)
    path, leaf, other = Path(bits, (sibling,) * len(bits)), LeafData(bytes(32), b"v"), bytes(31) + b"\x02"
    with pytest.raises(ProofError, match="strictly decrease"):
        verify_membership(root, MembershipProof(*leaf, path), leaf.key)
    with pytest.raises(ProofError, match="strictly decrease"):
        verify_absence(root, AbsenceProof(other, leaf, path), other)
    with pytest.raises(ProofError, match="strictly decrease"):
        verify_first(root, FirstProof(b"\0", leaf, path), b"\0")
    with pytest.raises(ProofError, match="strictly decrease"):
        verify_prefix(root, PrefixProof(bytes(32), (leaf,), None, path), bytes(32))


def test_a_branch_cannot_be_passed_off_as_a_leaf() -> None:
    left, right = leaf_hash(key(1), b"a"), leaf_hash(key(255), b"b")
    root = branch_hash(0, left, right)
    assert root == naive_root({key(1): b"a", key(255): b"b"})
    preimage = b"\x00" + left + right
    with pytest.raises(ProofError):
        verify_membership(root, MembershipProof(preimage[:32], preimage[32:], NO_PATH), preimage[:32])


def test_a_present_key_cannot_be_proved_absent() -> None:
    present = membership()
    with pytest.raises(ProofError, match="very key"):
        verify_absence(ROOT, AbsenceProof(KEY, LeafData(KEY, present.value), present.path), KEY)
    for other in MODEL:
        proof = TREE.prove(other)
        assert isinstance(proof, MembershipProof)
        if other != KEY:
            with pytest.raises(ProofError, match="other side"):
                verify_absence(ROOT, AbsenceProof(KEY, LeafData(other, proof.value), proof.path), KEY)
    with pytest.raises(ProofError, match="leads to root"):
        verify_absence(ROOT, AbsenceProof(KEY, None, NO_PATH), KEY)
    with pytest.raises(ProofError, match="empty tree has a path"):
        verify_absence(EMPTY_ROOT, AbsenceProof(KEY, None, present.path), KEY)
    with pytest.raises(ProofError, match="about key"):
        verify_absence(ROOT, absence(), KEY)


def test_another_leaf_under_the_prefix_cannot_be_proved_first() -> None:
    first = verify_first(ROOT, TREE.prove_first(PREFIX), PREFIX)
    assert first == (key(11, 3, 0), bytes([3, 0]))
    for other, value in MODEL.items():
        proof = TREE.prove(other)
        assert isinstance(proof, MembershipProof)
        if other != first.key:
            with pytest.raises(ProofError, match="other side"):
                verify_first(ROOT, FirstProof(PREFIX, LeafData(other, value), proof.path), PREFIX)
    with pytest.raises(ProofError, match="about prefix"):
        verify_first(ROOT, TREE.prove_first(PREFIX), NO_PREFIX)
    assert verify_first(ROOT, TREE.prove_first(NO_PREFIX), NO_PREFIX) is None


def test_leaves_cannot_be_hidden_added_or_reordered_under_a_prefix() -> None:
    proof = TREE.prove_prefix(PREFIX)
    leaves = proof.leaves
    assert leaves == tuple(LeafData(key(11, 3, market), bytes([3, market])) for market in range(3))
    assert verify_prefix(ROOT, proof, PREFIX) == leaves
    outside = LeafData(key(11, 4, 0), bytes([4, 0]))
    for forged in [
        leaves[:2],
        leaves[1:],
        (leaves[0], leaves[2]),
        (leaves[1], leaves[0], leaves[2]),
        (leaves[0], *leaves),
        (*leaves, outside),
        (*leaves, LeafData(key(11, 3, 7), b"x")),
        (*leaves[:2], LeafData(leaves[2].key, b"y")),
        (*leaves[:2], LeafData(leaves[2].key, b"")),
        (),
    ]:
        with pytest.raises(ProofError):
            verify_prefix(ROOT, replace(proof, leaves=forged), PREFIX)
    with pytest.raises(ProofError, match="must not also show"):
        verify_prefix(ROOT, replace(proof, end=outside), PREFIX)


def test_a_path_that_starts_inside_the_prefix_cannot_hide_the_rest() -> None:
    """A subtree below the prefix's own, with a good path: only the bound on branch indexes catches it."""
    whole = TREE.prove_prefix(PREFIX)
    part = TREE.prove(key(11, 3, 2))
    assert isinstance(part, MembershipProof)
    assert verify_membership(ROOT, part, key(11, 3, 2))
    with pytest.raises(ProofError):
        verify_prefix(ROOT, PrefixProof(PREFIX, whole.leaves[2:], None, part.path), PREFIX)
    first = TREE.prove(key(11, 3, 0))
    assert isinstance(first, MembershipProof)
    with pytest.raises(ProofError, match="hidden"):
        verify_prefix(ROOT, PrefixProof(PREFIX, whole.leaves[:1], None, first.path), PREFIX)


def test_all_leaves_of_a_shorter_prefix_are_not_those_of_a_longer_one() -> None:
    wider = TREE.prove_prefix(b"\x0b")
    assert len(verify_prefix(ROOT, wider, b"\x0b")) == 24
    for prefix in (PREFIX, key(11, 7)[:9]):
        with pytest.raises(ProofError, match="not under prefix"):
            verify_prefix(ROOT, replace(wider, prefix=prefix), prefix)


def test_a_prefix_with_leaves_cannot_be_proved_empty() -> None:
    first = TREE.prove_first(PREFIX)
    with pytest.raises(ProofError, match="ends at one under the prefix"):
        verify_prefix(ROOT, PrefixProof(PREFIX, (), first.leaf, first.path), PREFIX)
    with pytest.raises(ProofError, match="leads to root"):
        verify_prefix(ROOT, PrefixProof(PREFIX, (), None, NO_PATH), PREFIX)
    assert verify_prefix(ROOT, TREE.prove_prefix(NO_PREFIX), NO_PREFIX) == ()
    with pytest.raises(ProofError, match="about prefix"):
        verify_prefix(ROOT, TREE.prove_prefix(NO_PREFIX), PREFIX)


PROOFS: list[tuple[Any, Callable[[bytes], Any], Callable[[bytes, Any], Any]]] = [
    (membership(), MembershipProof.decode, lambda root, proof: verify_membership(root, proof, KEY)),
    (absence(), AbsenceProof.decode, lambda root, proof: verify_absence(root, proof, ABSENT)),
    (TREE.prove_first(PREFIX), FirstProof.decode, lambda root, proof: verify_first(root, proof, PREFIX)),
    (
        TREE.prove_first(NO_PREFIX),
        FirstProof.decode,
        lambda root, proof: verify_first(root, proof, NO_PREFIX),
    ),
    (TREE.prove_prefix(PREFIX), PrefixProof.decode, lambda root, proof: verify_prefix(root, proof, PREFIX)),
    (
        TREE.prove_prefix(NO_PREFIX),
        PrefixProof.decode,
        lambda root, proof: verify_prefix(root, proof, NO_PREFIX),
    ),
    (
        AbsenceProof(KEY, None, NO_PATH),
        AbsenceProof.decode,
        lambda root, proof: verify_absence(root, proof, KEY),
    ),
]


@pytest.mark.parametrize(("proof", "decode", "verify"), PROOFS)
def test_every_changed_byte_is_refused(
    proof: Any, decode: Callable[[bytes], Any], verify: Callable[[bytes, Any], Any]
) -> None:
    encoded = proof.encode()
    root = EMPTY_ROOT if getattr(proof, "leaf", 0) is None else ROOT
    assert decode(encoded) == proof
    verify(root, decode(encoded))
    for at in range(len(encoded)):
        for change in (1, 0x80, 0xFF):
            forged = encoded[:at] + bytes([encoded[at] ^ change]) + encoded[at + 1 :]
            with pytest.raises(ProofError):
                verify(root, decode(forged))


@pytest.mark.parametrize(("proof", "decode", "verify"), PROOFS)
def test_truncated_and_trailing_bytes_are_refused(
    proof: Any, decode: Callable[[bytes], Any], verify: Callable[[bytes, Any], Any]
) -> None:
    encoded = proof.encode()
    for end in range(len(encoded)):
        with pytest.raises(ProofError):
            decode(encoded[:end])
    with pytest.raises(ProofError, match="follow the proof"):
        decode(encoded + b"\0")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.sampled_from([MembershipProof, AbsenceProof, FirstProof, PrefixProof]))
def test_decoding_any_bytes_gives_a_proof_of_these_bytes_or_is_refused(data: bytes, kind: Any) -> None:
    with suppress(ProofError):
        assert kind.decode(data).encode() == data


def test_committed_vectors_are_those_of_the_naive_model() -> None:
    assert json.loads(VECTORS.read_text()) == vectors()


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text()), ids=lambda vector: vector["name"])
def test_the_tree_makes_the_golden_roots_and_proofs(vector: dict[str, Any]) -> None:
    tree = Tree(MemoryStore(), 128)
    leaves = {bytes.fromhex(k): bytes.fromhex(v) for k, v in vector["leaves"].items()}
    assert tree.update(leaves).hex() == vector["root"]
    for lookup in vector["lookups"]:
        path = Path(bytes.fromhex(lookup["bits"]), tuple(map(bytes.fromhex, lookup["siblings"])))
        query, end = (
            bytes.fromhex(lookup["query"]),
            LeafData(*map(bytes.fromhex, (lookup["key"], lookup["value"]))),
        )
        if end.key == query:
            assert tree.prove(query) == MembershipProof(query, end.value, path)
        else:
            assert tree.prove(query) == AbsenceProof(query, end if leaves else None, path)
    for given_proof in vector["prefixes"]:
        prefix = bytes.fromhex(given_proof["prefix"])
        proof = tree.prove_prefix(prefix)
        assert {k.hex(): v.hex() for k, v in proof.leaves} == given_proof["leaves"]
        if proof.leaves:
            path = Path(
                bytes.fromhex(given_proof["bits"]), tuple(map(bytes.fromhex, given_proof["siblings"]))
            )
            assert proof.path == path


def test_siblings_and_sides_against_the_naive_model_for_every_leaf() -> None:
    rng = random.Random(5)
    leaves = {rng.randbytes(32): rng.randbytes(3) for _ in range(150)}
    tree = Tree(MemoryStore(), 128)
    tree.update(leaves)
    for leaf in sorted(leaves)[::5]:
        proof = tree.prove(leaf)
        assert list(zip(proof.path.bits, proof.path.siblings, strict=True)) == naive_path(leaves, leaf)[1]
        for bit in proof.path.bits:
            assert key_bit(leaf, bit) == int(f"{int.from_bytes(leaf, 'big'):0256b}"[bit])
