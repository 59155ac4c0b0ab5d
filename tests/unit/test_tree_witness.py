"""Witnesses: what they hold, what they refuse, and holes left by deletions."""

import pytest

from state.proofs import leaf_hash
from state.tree import Tree
from state.witness import MissingWitness, PartialTree, WitnessError
from tests.tree_model import Leaves, MemoryStore, naive_root


def order(sequence: int) -> bytes:
    return (b"\x0c" + sequence.to_bytes(8, "big")).ljust(32, b"\0")


MODEL: Leaves = {order(i): b"order %d" % i for i in range(2, 66)}


def tree() -> Tree:
    result = Tree(MemoryStore(), 128)
    result.update(MODEL)
    return result


def test_a_witness_holds_little_and_refuses_the_rest() -> None:
    partial = tree().witness([order(20)])
    assert partial.get(order(20)) == MODEL[order(20)]
    assert partial.root() == naive_root(MODEL)
    assert len(partial.encode()) < 400
    for refused in (order(40), order(21)):
        with pytest.raises(MissingWitness):
            partial.get(refused)
        with pytest.raises(MissingWitness):
            partial.put(refused, b"x")
        with pytest.raises(MissingWitness):
            partial.delete(refused)
    with pytest.raises(MissingWitness):
        partial.first_under(b"\x0c")
    with pytest.raises(MissingWitness):
        partial.iterate_under(order(20)[:8], 2)
    assert partial.get(b"\xff" * 32) is None
    assert partial.first_under(b"\x0d") is None
    assert partial.root() == naive_root(MODEL)


def test_nothing_is_known_of_a_tree_known_by_its_root_alone() -> None:
    partial = tree().witness([])
    assert partial.root() == naive_root(MODEL)
    for question in (partial.get, partial.delete, partial.first_under):
        with pytest.raises(MissingWitness):
            question(order(20))


def test_the_best_order_is_taken_and_a_new_one_comes_in_its_place() -> None:
    model = dict(MODEL)
    partial = tree().witness([order(2), order(3), order(0)], [b"\x0c"])
    assert partial.first_under(b"\x0c") == (order(2), b"order 2")
    partial.delete(order(2))
    assert partial.first_under(b"\x0c") == (order(3), b"order 3")
    partial.put(order(0), b"better")
    assert partial.first_under(b"\x0c") == (order(0), b"better")
    del model[order(2)]
    model[order(0)] = b"better"
    assert partial.root() == naive_root(model)


def test_a_key_can_come_back_beside_a_sibling_known_by_its_hash_only() -> None:
    partial = tree().witness([order(20)])
    partial.delete(order(20))
    assert partial.get(order(20)) is None
    partial.put(order(20), b"again")
    assert partial.root() == naive_root(MODEL | {order(20): b"again"})
    partial.delete(order(20))
    with pytest.raises(MissingWitness):
        partial.get(order(21))


def test_iterations_of_the_full_tree_are_in_the_witness() -> None:
    partial = tree().witness([], [], [(b"\x0c", 3), (b"\x0d", 5)])
    assert [key for key, _ in partial.iterate_under(b"\x0c", 3)] == [order(i) for i in (2, 3, 4)]
    assert partial.iterate_under(b"\x0d", 5) == []
    with pytest.raises(MissingWitness):
        partial.iterate_under(b"\x0c", 65)


def test_the_empty_tree_has_a_witness() -> None:
    partial = Tree(MemoryStore(), 128).witness([order(1)], [b"\x0c"])
    assert PartialTree.decode(partial.encode()).root() == partial.root() == bytes(32)
    assert partial.get(order(1)) is None
    assert partial.first_under(b"") is None
    partial.delete(order(1))
    partial.put(order(1), b"one")
    assert partial.root() == leaf_hash(order(1), b"one")
    partial.delete(order(1))
    assert partial.root() == bytes(32)


def test_wrong_lengths_are_refused() -> None:
    partial = tree().witness([order(20)])
    with pytest.raises(ValueError, match="31 bytes"):
        partial.get(bytes(31))
    with pytest.raises(ValueError, match="empty"):
        partial.put(order(20), b"")
    with pytest.raises(ValueError, match="33 bytes"):
        partial.first_under(bytes(33))


def leaf(key: bytes, value: bytes = b"v") -> bytes:
    return b"\x01" + key + len(value).to_bytes(4, "big") + value


LOW, HIGH, HIDDEN = b"\x01".ljust(32, b"\0"), b"\x81".ljust(32, b"\0"), b"\x00" + bytes(32)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends within"),
        (b"\x03\x00", "unknown node tag"),
        (b"\x04", "unknown node tag"),
        (leaf(LOW, b""), "empty"),
        (leaf(LOW)[:-1], "ends within"),
        (leaf(LOW) + b"\0", "follow the tree"),
        (b"\x02\x00" + leaf(LOW), "ends within"),
        (b"\x02\x00" + leaf(HIGH) + leaf(LOW), "wrong side"),
        (b"\x02\x01" + leaf(LOW) + leaf(HIGH), "do not part there"),
        (b"\x02\x00" + leaf(HIGH) + HIDDEN, "wrong side"),
        (b"\x02\x00" + HIDDEN + leaf(LOW), "wrong side"),
        (b"\x02\x05\x02\x05" + HIDDEN * 3, "lies below branch"),
        (b"\x02\x05\x02\x04" + HIDDEN * 3, "lies below branch"),
        (b"\x02\x00" * 3000, "lies below branch"),
        (b"\x02\x00\x03" + leaf(HIGH), "unknown node tag"),
    ],
)
def test_ill_formed_witnesses_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(WitnessError, match=reason):
        PartialTree.decode(data)


def test_the_deepest_tree_is_hashed_and_decoded() -> None:
    model = {(1 << bit).to_bytes(32, "big"): b"v" for bit in range(256)} | {bytes(32): b"v"}
    full = Tree(MemoryStore(), 128)
    root = full.update(model)
    partial = full.witness(model)
    again = PartialTree.decode(partial.encode())
    again.put(bytes(32), b"w")
    assert partial.root() == root
    assert again.root() == full.update({bytes(32): b"w"})
