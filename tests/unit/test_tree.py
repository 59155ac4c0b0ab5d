"""The tree over a store: opening, damage, versions, pruning, bounds."""

import random
from collections.abc import Iterable
from pathlib import Path

import plyvel
import pytest

from state.proofs import MembershipProof, verify_membership
from state.tree import Tree, TreeCorrupt, VersionUnavailable
from tests.tree_model import (
    Leaves,
    MemoryStore,
    apply,
    naive_root,
    pages_of,
    random_changes,
    random_key,
)


def key(account: int) -> bytes:
    return (b"\x08" + account.to_bytes(8, "big")).ljust(32, b"\0")


def filled(count: int) -> tuple[MemoryStore, Tree, Leaves]:
    store, model = MemoryStore(), {key(i): b"balance %d" % i for i in range(count)}
    tree = Tree(store, 128)
    tree.update(model)
    store.write(tree.commit(1))
    return store, tree, model


class CountingStore(MemoryStore):
    """Counts how often pages are read."""

    reads = 0

    def iterate(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        self.reads += 1
        return super().iterate(start, stop)


def test_an_empty_tree_opens_updates_and_reopens() -> None:
    store = MemoryStore()
    tree = Tree(store, 128)
    assert (tree.root, tree.version, tree.leaf_count, tree.versions) == (bytes(32), None, 0, ())
    assert tree.update({}) == bytes(32)
    assert tree.update({key(1): None}) == bytes(32)
    store.write(tree.commit(0))
    assert Tree(store, 128).version == 0
    assert Tree(store, 128).at(0).root == bytes(32)


@pytest.mark.parametrize(
    "changes",
    [{b"short": b"value"}, {key(0): b""}, {key(0): b"fine", key(1) + b"\0": b"value"}],
)
def test_wrong_lengths_change_nothing(changes: dict[bytes, bytes | None]) -> None:
    _, tree, model = filled(3)
    with pytest.raises(ValueError, match=r"key|value"):
        tree.update(changes)
    assert tree.root == naive_root(model)
    with pytest.raises(ValueError, match="31 bytes"):
        tree.prove(bytes(31))
    for asked in (tree.prove_first, tree.prove_prefix):
        with pytest.raises(ValueError, match="33 bytes"):
            asked(bytes(33))


def test_only_changed_pages_are_read_and_written() -> None:
    store = CountingStore()
    tree = Tree(store, 4096)
    tree.update({key(i): b"x" for i in range(5000)})
    assert store.reads == 1
    store.write(tree.commit(1))
    tree = Tree(store, 4096)
    store.reads = 0
    tree.update({key(i): b"y" for i in (0, 1, 4000)})
    assert store.reads == 2
    writes = tree.commit(2)
    assert len([k for k, _ in writes if k.startswith(b"TP")]) == 2
    assert len([k for k, _ in writes if k.startswith(b"L")]) == 3
    assert len(writes) == 7


def test_writing_what_is_there_already_writes_no_leaf() -> None:
    _, tree, model = filled(200)
    tree.update({key(7): model[key(7)], key(999): None})
    assert [k[:2] for k, _ in tree.commit(2)] == [b"TU", b"TM"]


def test_a_tree_far_larger_than_its_cache() -> None:
    rng = random.Random(3)
    store, model = CountingStore(), Leaves()
    tree = Tree(store, 128)
    changes: dict[bytes, bytes | None] = {key(i): b"first" for i in range(40_000)}
    for version in range(3):
        tree.update(changes)
        apply(model, changes)
        store.write(tree.commit(version))
        changes = {key(rng.randrange(45_000)): rng.choice([None, b"other"]) for _ in range(3000)}
    assert store.reads > 1000
    fresh = Tree(MemoryStore(), 4096)
    assert tree.root == fresh.update(model)


def test_deleting_almost_everything_merges_many_pages_at_once() -> None:
    store, tree, model = filled(20_000)
    survivors = {k: v for i, (k, v) in enumerate(model.items()) if i % 997 == 0}
    assert tree.update({k: None for k in model if k not in survivors}) == naive_root(survivors)
    store.write(tree.commit(2))
    assert len(list(store.iterate(b"TP", b"TQ"))) == 1
    assert tree.at(1).root == naive_root(model)


def test_merging_more_pages_than_the_cache_holds_is_done_in_parts() -> None:
    """Pages of three leaves beside pages of two, under a branch of five, when a page has at most four."""
    model = {key(8 * group + i): b"v" for group in range(200) for i in (0, 1, 2, 4, 5)}
    with pages_of(4):
        tree = Tree(MemoryStore(), 128)
        tree.update(model)
        assert tree.page_count == 400
        gone = [key(8 * group) for group in range(128)]
        for k in gone:
            del model[k]
        assert tree.update(dict.fromkeys(gone)) == naive_root(model)
        assert tree.page_count == 400 - 128


def test_versions_must_ascend() -> None:
    _, tree, _ = filled(3)
    for version in (0, 1, -1):
        with pytest.raises(ValueError, match="does not come after"):
            tree.commit(version)


def test_old_versions_stay_readable_until_pruned() -> None:
    store, tree, model = filled(300)
    rng = random.Random(4)
    history = {1: dict(model)}
    for version in (2, 5, 6, 9):
        changes = random_changes(rng, model, 40)
        apply(model, changes)
        tree.update(changes)
        store.write(tree.commit(version))
        history[version] = dict(model)
    tree.update({key(0): b"not committed"})
    reopened = Tree(store, 128)
    for version, old in history.items():
        for opened in (tree, reopened):
            assert opened.at(version).root == naive_root(old)
        some = rng.choice(sorted(old))
        proof = tree.at(version).prove(some)
        assert isinstance(proof, MembershipProof)
        assert verify_membership(naive_root(old), proof, some) == old[some]
        assert tree.at(version).get(some) == old[some]
    for absent in (3, 10):
        with pytest.raises(VersionUnavailable):
            tree.at(absent)
    store.write(tree.prune(5))
    assert list(tree.versions) == [5, 6, 9]
    assert tree.versions == Tree(store, 128).versions
    with pytest.raises(VersionUnavailable):
        tree.at(2)
    assert Tree(store, 128).at(5).root == naive_root(history[5])
    assert len(list(store.iterate(b"TU", b"TV"))) == 2
    store.write(tree.prune(100))
    assert list(tree.versions) == [9]
    assert not list(store.iterate(b"TU", b"TV"))
    assert tree.prune(100) == []
    assert Tree(store, 128).at(9).root == naive_root(history[9])


def test_opening_says_which_page_is_damaged() -> None:
    store, _, _ = filled(1000)
    row = next(k for k, _ in store.iterate(b"TP" + key(500), b"TQ"))
    store.write([(row, store.data[row][:-1] + bytes([store.data[row][-1] ^ 1]))])
    with pytest.raises(TreeCorrupt, match=f"page {row[2:].hex()}: leaves hash to"):
        Tree(store, 128)


def test_opening_notices_a_missing_page_row_and_a_missing_record() -> None:
    store, _, _ = filled(1000)
    row = next(k for k, _ in store.iterate(b"TP" + key(500), b"TQ"))
    lost = store.data[row]
    store.write([(row, None)])
    with pytest.raises(TreeCorrupt, match="1000 leaves"):
        Tree(store, 128)
    store.write([(row, lost), (b"TM", None)])
    with pytest.raises(TreeCorrupt, match="no version is recorded"):
        Tree(store, 128)


def test_another_format_is_refused() -> None:
    store, _, _ = filled(3)
    store.write([(b"TM", b"\x63" + store.data[b"TM"][1:])])
    with pytest.raises(TreeCorrupt, match="format 99"):
        Tree(store, 128)


@pytest.mark.parametrize("damage", ["value", "missing", "added"])
def test_damaged_leaves_are_noticed_when_read(damage: str) -> None:
    store, _, _ = filled(1000)
    changes: dict[str, tuple[bytes, bytes | None]] = {
        "value": (b"L" + key(500), b"stolen"),
        "missing": (b"L" + key(500), None),
        "added": (b"L" + key(500)[:31] + b"\x01", b"minted"),
    }
    store.write([changes[damage]])
    tree = Tree(store, 128)
    assert len(tree.check()) == 1
    page = tree.check()[0].split()[1].rstrip(":")
    with pytest.raises(TreeCorrupt, match=page):
        tree.prove(key(501))
    with pytest.raises(TreeCorrupt, match=page):
        tree.update({key(501): b"x"})
    assert Tree(store, 128).prove(key(1))


def test_a_damaged_or_missing_undo_record_is_noticed() -> None:
    store, tree, _ = filled(100)
    tree.update({key(3): b"later"})
    store.write(tree.commit(2))
    record = b"TU" + (2).to_bytes(8, "big")
    kept = store.data[record]
    store.write([(record, kept[:-1] + bytes([kept[-1] ^ 1]))])
    with pytest.raises(TreeCorrupt, match="version 1 comes out"):
        Tree(store, 128).at(1)
    store.write([(record, None)])
    with pytest.raises(TreeCorrupt, match="missing"):
        Tree(store, 128).at(1)


def test_prefix_proofs_are_bounded() -> None:
    _, tree, _ = filled(100)
    assert len(tree.view().prove_prefix(b"\x08", 100).leaves) == 100
    with pytest.raises(ValueError, match="more than 99"):
        tree.view().prove_prefix(b"\x08", 99)


def test_a_tiny_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="below 128"):
        Tree(MemoryStore(), 127)


class PlyvelStore:
    """LevelDB as the store has it."""

    def __init__(self, path: Path) -> None:
        self.db = plyvel.DB(str(path), create_if_missing=True)

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = self.db.get(key)
        return value

    def iterate(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        found: Iterable[tuple[bytes, bytes]] = self.db.iterator(start=start, stop=stop)
        return found


def test_on_leveldb_over_reopenings(tmp_path: Path) -> None:
    rng = random.Random(8)
    model: Leaves = {}
    for version in range(6):
        store = PlyvelStore(tmp_path)
        tree = Tree(store, 128)
        assert tree.root == naive_root(model)
        changes = random_changes(rng, model, 200) | {random_key(rng): b"certain"}
        apply(model, changes)
        tree.update(changes)
        with store.db.write_batch(transaction=True) as batch:
            for k, value in tree.commit(version):
                batch.delete(k) if value is None else batch.put(k, value)
        assert tree.at(version).root == naive_root(model)
        store.db.close()
