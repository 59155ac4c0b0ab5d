"""The tree against the naive model under random batches: roots, pages, old versions, proofs."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.proofs import (
    AbsenceProof,
    FirstProof,
    LeafData,
    MembershipProof,
    PrefixProof,
    verify_absence,
    verify_first,
    verify_membership,
    verify_prefix,
)
from state.tree import Tree, TreeView
from tests.tree_model import (
    Leaves,
    MemoryStore,
    apply,
    naive_pages,
    naive_root,
    pages_of,
    random_changes,
    random_key,
)

CACHE_PAGES = 128


def check_proofs(view: TreeView, model: Leaves, rng: random.Random) -> None:
    """Random proofs of all kinds verify, survive encoding, and say what the model says."""
    root = naive_root(model)
    assert view.root == root
    for key in [random_key(rng), *rng.sample(sorted(model), min(3, len(model)))]:
        proof = view.prove(key)
        if key in model:
            assert isinstance(proof, MembershipProof)
            assert verify_membership(root, MembershipProof.decode(proof.encode()), key) == model[key]
        else:
            assert isinstance(proof, AbsenceProof)
            verify_absence(root, AbsenceProof.decode(proof.encode()), key)
        prefix = key[: rng.choice([0, 1, 2, 8, 9, 10, 32])]
        under = [LeafData(k, model[k]) for k in sorted(model) if k.startswith(prefix)]
        first = FirstProof.decode(view.prove_first(prefix).encode())
        assert verify_first(root, first, prefix) == (under[0] if under else None)
        assert (
            list(verify_prefix(root, PrefixProof.decode(view.prove_prefix(prefix).encode()), prefix)) == under
        )
        assert view.iterate_under(prefix, 3) == under[:3]


@pytest.mark.parametrize("page_leaves", [1, 4, 64])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32), sizes=st.lists(st.sampled_from([0, 1, 3, 30, 250]), min_size=1, max_size=8)
)
def test_root_pages_versions_and_proofs_equal_the_naive_model(
    page_leaves: int, seed: int, sizes: list[int]
) -> None:
    rng = random.Random(seed)
    store, model = MemoryStore(), Leaves()
    history: dict[int, Leaves] = {}
    version = 0
    with pages_of(page_leaves):
        tree = Tree(store, CACHE_PAGES)
        for size in sizes:
            changes = random_changes(rng, model, size)
            if rng.random() < 0.05:
                changes = dict.fromkeys(model)
            apply(model, changes)
            assert tree.update(changes) == naive_root(model)
            assert tree.leaf_count == len(model)
            check_proofs(tree.view(), model, rng)
            if rng.random() < 0.5:
                version += rng.randrange(1, 4)
                store.write(tree.commit(version))
                history[version] = dict(model)
                rows = {key[2:]: row for key, row in store.iterate(b"TP", b"TQ")}
                assert rows == naive_pages(model, page_leaves)
                assert {key[1:]: value for key, value in store.iterate(b"L", b"M")} == model
            if history and rng.random() < 0.3:
                kept_from = version - rng.randrange(8)
                store.write(tree.prune(kept_from))
                history = {v: m for v, m in history.items() if v >= kept_from or v == version}
            if history and rng.random() < 0.4:
                tree, model = Tree(store, CACHE_PAGES), dict(history[version])
                assert tree.root == naive_root(model)
            assert tree.versions == tuple(history)
            for old, old_model in history.items():
                check_proofs(tree.at(old), old_model, rng)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32))
def test_order_and_grouping_of_changes_do_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    leaves = {random_key(rng): rng.randbytes(8) for _ in range(120)}
    other = {random_key(rng): rng.randbytes(8) for _ in range(60)}
    keys = [*leaves]
    rng.shuffle(keys)
    with pages_of(rng.choice([1, 3, 64])):
        tree = Tree(MemoryStore(), CACHE_PAGES)
        tree.update(other)
        for i in range(0, len(keys), 17):
            tree.update({key: leaves[key] for key in keys[i : i + 17]})
        tree.update({key: None for key in other if key not in leaves})
        assert tree.root == naive_root(leaves)
