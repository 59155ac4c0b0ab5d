"""The store: one batch boundary in the database, the rest in the journal, and no start on a difference."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import plyvel
import pytest

from state.journal_format import Identity, JournalDamaged, StoreCode, StoreError
from state.recovery import Recovered, Replayed, recover
from state.store import Store
from state.store_records import STORE_FORMAT, JournalBatch, JournalBlock, JournalRoot, StoredBatch
from state.tree import Tree
from tests.toy_chain import IDENTITY, NO_HASH, ToyChain, encoded_block, expected_leaves, stored_block

SEED = 7


def run(store: Store, blocks: int, every: int) -> ToyChain:
    """Seals `blocks` blocks, each synced, and closes a batch after every `every`."""
    chain = ToyChain(store, SEED)
    for _ in range(blocks):
        sequence = store.append_blocks([chain.seal()])
        assert store.sync() == sequence
        if len(chain.open) == every:
            chain.close()
    return chain


def reopened(path: Path) -> tuple[Store, ToyChain, Recovered]:
    store = Store.open(path, IDENTITY)
    chain = ToyChain(store, SEED)
    return store, chain, recover(store, chain)


def test_a_new_directory_starts_empty_and_opens_again(tmp_path: Path) -> None:
    for _ in range(2):
        store = Store.open(tmp_path / "new" / "data", IDENTITY)
        assert store.last_checkpoint is None
        assert list(store.journal_records()) == []
        assert list(store.leaves.scan(b"")) == []
        with pytest.raises(ValueError, match="no checkpoint"):
            recover(store, ToyChain.__new__(ToyChain))
        store.close()
        store.close()


def test_everything_is_found_again_after_checkpoint_and_replay(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    chain = run(store, 23, 5)
    root = chain.tree.root
    store.close()
    store, chain, recovered = reopened(tmp_path)
    assert recovered == Recovered(23, chain.last_hash, 4, blocks=3, batches=0)
    assert chain.tree.root == root
    assert chain.current_leaves() == expected_leaves(SEED, 23)
    for number in range(1, 21):
        expected = stored_block(number, encoded_block(SEED, number))
        assert store.block(number) == expected
        assert [store.transaction(h) for h in expected.transaction_hashes] == [(number, 0), (number, 1)]
    assert [block.number for block in chain.open] == [21, 22, 23]
    assert store.block(21) is None
    assert store.transaction(bytes(32)) is None
    batch = store.batch(4)
    assert batch is not None
    assert (batch.first_block, batch.last_block, batch.root) == (16, 20, root)
    assert store.batch(5) is None
    assert store.journal_cut is None
    chain.close()  # and on it goes
    assert store.last_checkpoint is not None
    assert store.last_checkpoint.last_block == 23
    store.close()


def test_leaves_are_scanned_by_prefix_in_order(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    tree = Tree(store.pages, 128)
    prefixes = (b"\x01", b"\x0c\x01", b"\x0c\xff", b"\x0d", b"\xff")
    leaves = {(prefix + bytes([n])).ljust(32, b"\0"): prefix + b"v" for prefix in prefixes for n in (9, 2)}
    root = tree.update(leaves)
    store.checkpoint(StoredBatch(0, 1, 0, NO_HASH, root, b""), tree.commit(0), (), 1)
    for prefix in (*prefixes, b"\x0c", b"", b"\x0c\xff\x09", b"\x77", b"\xff\xff"):
        expected = sorted((key, value) for key, value in leaves.items() if key.startswith(prefix))
        assert list(store.leaves.scan(prefix)) == expected
    assert store.leaves.get(min(leaves)) == leaves[min(leaves)]
    assert store.leaves.get(bytes(32)) is None
    store.close()


def test_blocks_sealed_while_a_checkpoint_is_made_are_replayed(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    chain = run(store, 3, 9)
    batch, position = chain.journal_batch(), store.close_batch(chain.journal_batch())
    sealed_before = chain.open
    later = ToyChain.__new__(ToyChain)
    later.__dict__.update(chain.__dict__, open=[], leaves={}, batch=2)
    store.append_blocks([later.seal(), later.seal()])
    store.sync()
    chain.open = sealed_before
    chain.replay_close(batch)
    chain.replay_checkpoint(batch, position)
    assert store.journal_segments == 1
    store.close()
    store, chain, recovered = reopened(tmp_path)
    assert (recovered.last_block, recovered.blocks, recovered.last_batch) == (5, 2, 1)
    assert chain.current_leaves() == expected_leaves(SEED, 5)
    store.close()


def test_a_crash_between_close_and_checkpoint_replays_the_batch(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    chain = run(store, 4, 9)
    store.close_batch(chain.journal_batch())
    assert store.batch(1) is None, "iCOMMIT_002: this is where the poster looks"
    store.close()
    store, chain, recovered = reopened(tmp_path)
    assert (recovered.batches, recovered.blocks) == (1, 4)
    assert store.batch(1) is not None
    assert store.last_checkpoint is not None
    assert (store.last_checkpoint.batch_number, store.last_checkpoint.last_block) == (1, 4)
    assert store.block(4) == stored_block(4, encoded_block(SEED, 4))
    assert dict(store.leaves.scan(b"")) == expected_leaves(SEED, 4)
    store.close()


def test_a_crash_between_checkpoint_and_dropping_the_journal_replays_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path, IDENTITY)
    with monkeypatch.context() as crashing:
        crashing.setattr("state.journal.Journal.drop_before", lambda self, sequence: None)
        run(store, 6, 2)
    assert store.journal_segments == 4
    store.close()
    store, chain, recovered = reopened(tmp_path)
    assert (recovered.blocks, recovered.batches, recovered.last_block) == (0, 0, 6)
    store.append_blocks([chain.seal()])
    chain.close()
    assert store.journal_segments == 1
    store.close()


def test_a_failed_checkpoint_leaves_the_journal_and_writes_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path, IDENTITY)
    chain = run(store, 4, 9)

    class Full:
        """LevelDB and its write batch on a full disk."""

        def write_batch(self, sync: bool) -> "Full":
            return self

        def put(self, key: bytes, value: bytes) -> None:
            pass

        def write(self) -> None:
            raise plyvel.IOError(b"IO error: 000003.log: No space left on device")

    with monkeypatch.context() as full:
        full.setattr(store, "_database", Full())
        with pytest.raises(StoreError, match="writing the checkpoint of batch 1") as failed:
            chain.close()
    assert failed.value.code is StoreCode.NO_SPACE
    with pytest.raises(StoreError, match="No space left") as poisoned:
        store.put_meta_sync("a", b"b")
    assert poisoned.value.code is StoreCode.POISONED
    store.sync()  # the journal is a file of its own, and well
    store.close()
    store, chain, recovered = reopened(tmp_path)
    assert (recovered.blocks, recovered.batches) == (4, 1)
    assert dict(store.leaves.scan(b"")) == expected_leaves(SEED, 4)
    store.close()


def test_a_checkpoint_cut_short_anywhere_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves of LevelDB's log: the database one checkpoint back, the journal whole."""
    store = Store.open(tmp_path / "data", IDENTITY)
    chain = run(store, 4, 9)
    (log,) = (tmp_path / "data" / "db").glob("*.log")
    before = log.stat().st_size
    monkeypatch.setattr("state.journal.Journal.drop_before", lambda self, sequence: None)
    chain.close()
    store.close()
    after = log.stat().st_size
    assert after > before + 5_000
    for size in [before, before + 1, *range(before + 7, after, (after - before) // 10), after - 1, after]:
        shutil.copytree(tmp_path / "data", tmp_path / str(size))
        os.truncate(tmp_path / str(size) / "db" / log.name, size)
        store, chain, recovered = reopened(tmp_path / str(size))
        assert (recovered.last_block, recovered.batches) == (4, int(size < after))
        assert dict(store.leaves.scan(b"")) == expected_leaves(SEED, 4)
        assert store.block(4) == stored_block(4, encoded_block(SEED, 4))
        store.close()


def test_another_rollups_directory_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path, IDENTITY).close()
    others = (
        Identity(1, IDENTITY.contract, IDENTITY.genesis_root),
        Identity(IDENTITY.chain_id, b"\x99" * 20, IDENTITY.genesis_root),
        Identity(IDENTITY.chain_id, IDENTITY.contract, b"\x99" * 32),
    )
    for other in others:
        with pytest.raises(StoreError, match=r"belongs to chain 31337, contract 0x1111") as wrong:
            Store.open(tmp_path, other)
        assert wrong.value.code is StoreCode.WRONG_IDENTITY
        assert str(other) in str(wrong.value)
    Store.open(tmp_path, IDENTITY).close()


def test_a_second_opening_is_refused_in_this_process_and_in_another(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    with pytest.raises(StoreError, match="stop it first") as locked:
        Store.open(tmp_path, IDENTITY)
    assert locked.value.code is StoreCode.LOCKED
    script = (
        "import sys; from pathlib import Path; from state.store import Store, StoreError\n"
        "from tests.toy_chain import IDENTITY\n"
        "try: Store.open(Path(sys.argv[1]), IDENTITY)\n"
        "except StoreError as error: print(error.code, error)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout
    assert output.startswith("locked ")
    assert "process " in output
    run(store, 2, 1)  # the refused openings harmed nothing
    store.close()
    Store.open(tmp_path, IDENTITY).close()


def test_foreign_and_mixed_directories_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    database = plyvel.DB(str(foreign / "db"), create_if_missing=True)
    database.put(b"key", b"value")
    database.close()
    with pytest.raises(StoreError, match="not one of Straddle's") as wrong:
        Store.open(foreign, IDENTITY)
    assert wrong.value.code is StoreCode.WRONG_FORMAT

    store = Store.open(tmp_path / "data", IDENTITY)
    run(store, 3, 2)
    store.close()
    (tmp_path / "data" / "db").rename(tmp_path / "db")
    with pytest.raises(StoreError, match="without its database"):
        Store.open(tmp_path / "data", IDENTITY)
    plyvel.destroy_db(str(tmp_path / "data" / "db"))
    (tmp_path / "db").rename(tmp_path / "data" / "db")
    (tmp_path / "data" / "journal").rename(tmp_path / "journal")
    (tmp_path / "data" / "journal").mkdir()
    with pytest.raises(StoreError, match="restore the whole data directory"):
        Store.open(tmp_path / "data", IDENTITY)


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    for path in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(StoreError) as wrong:
            Store.open(path, IDENTITY)
        assert wrong.value.code is StoreCode.IO_ERROR


def test_a_newer_store_format_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("state.store.STORE_FORMAT", STORE_FORMAT + 1)
        Store.open(tmp_path, IDENTITY).close()
    with pytest.raises(StoreError, match=f"expected store format {STORE_FORMAT}, got {STORE_FORMAT + 1}"):
        Store.open(tmp_path, IDENTITY)


def test_an_unknown_journal_record_says_so(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    chain = run(store, 1, 9)
    store._journal.append([(77, b"from the future")])
    with pytest.raises(StoreError, match="record 2 of kind 77") as wrong:
        recover(store, chain)
    assert wrong.value.code is StoreCode.WRONG_FORMAT
    store.close()


def test_damaged_tables_of_the_database_are_noticed(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    run(store, 40, 4)
    store._database.compact_range()
    store.close()
    tables = sorted((tmp_path / "db").glob("*.ldb"))
    assert tables
    for table in tables:
        data = bytearray(table.read_bytes())
        for offset in range(100, len(data) - 100, 997):
            data[offset] ^= 0x40
        table.write_bytes(data)
    with pytest.raises(StoreError) as damaged:  # noqa: PT012 - either opening or reading notices
        store = Store.open(tmp_path, IDENTITY)
        try:
            list(store.leaves.scan(b""))
        finally:
            store.close()
    assert damaged.value.code in (StoreCode.DAMAGED, StoreCode.IO_ERROR)


def test_small_values_survive_and_stay_apart(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    store.put_meta_sync("poster.intent", b"nonce 7")
    store.put_meta_sync("poster.gone", b"x")
    store.put_meta_sync("poster.gone", None)
    store.put_meta_sync("checkpoint", b"not the store's own")
    store.put_posting_sync(3, b"in L1 block 9")
    store.close()
    store = Store.open(tmp_path, IDENTITY)
    assert store.last_checkpoint is None
    assert store.meta("poster.intent") == b"nonce 7"
    assert store.meta("poster.gone") is None
    assert store.meta("checkpoint") == b"not the store's own"
    assert (store.posting(3), store.posting(4)) == (b"in L1 block 9", None)
    store.close()


def test_meta_of_a_checkpoint_is_written_with_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    tree = Tree(store.pages, 128)
    genesis = StoredBatch(0, 1, 0, NO_HASH, tree.update({bytes(32): b"g"}), b"")
    store.put_meta_sync("old", b"1")
    store.checkpoint(genesis, tree.commit(0), (), 1, {"feed": b"12", "old": None})
    assert (store.meta("feed"), store.meta("old")) == (b"12", None)
    store.close()


def test_what_does_not_continue_the_checkpoint_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    chain = run(store, 5, 2)
    last = store.last_checkpoint
    block = chain.open[0]

    def batch(number: int, first: int, end: int) -> StoredBatch:
        return StoredBatch(number, first, end, NO_HASH, NO_HASH, b"")

    bad: list[tuple[StoredBatch, list[tuple[bytes, bytes | None]], int, int]] = [
        (batch(4, 5, 5), [], 1, 8),  # skips a batch
        (batch(2, 5, 5), [], 1, 8),  # again
        (batch(3, 4, 5), [], 1, 8),  # overlaps
        (batch(3, 5, 6), [], 1, 8),  # a block is missing
        (batch(3, 5, 5), [], 0, 8),  # all are missing
        (batch(3, 5, 5), [], 1, 3),  # journal position before the last
        (batch(3, 5, 5), [], 1, 99),  # and beyond the end
        (batch(3, 5, 5), [(b"Mfoo", b"")], 1, 8),
        (batch(3, 5, 5), [(b"", b"")], 1, 8),
    ]
    for record, writes, blocks, position in bad:
        with pytest.raises(ValueError, match=r"batch|journal_next|tree_writes"):
            store.checkpoint(record, writes, [block] * blocks, position)
    assert store.last_checkpoint == last
    chain.close()
    store.close()


def test_pruning_goes_in_steps_and_stops_at_the_checkpoint(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    run(store, 23, 5)
    store.put_posting_sync(2, b"posted")
    assert (store.oldest_block, store.oldest_batch) == (1, 0)
    assert [store.prune_blocks(13, 5) for _ in range(4)] == [5, 5, 2, 0]
    assert store.oldest_block == 13
    pruned, kept = stored_block(12, encoded_block(SEED, 12)), stored_block(13, encoded_block(SEED, 13))
    assert store.block(12) is None
    assert store.transaction(pruned.transaction_hashes[1]) is None
    assert store.block(13) == kept
    assert store.transaction(kept.transaction_hashes[1]) == (13, 1)
    assert [store.prune_batches(3, 2) for _ in range(3)] == [2, 1, 0]
    assert (store.batch(2), store.posting(2), store.oldest_batch) == (None, None, 3)
    assert store.batch(3) is not None
    with pytest.raises(ValueError, match="block 21 is not"):
        store.prune_blocks(22)
    with pytest.raises(ValueError, match="batch 4 is the last"):
        store.prune_batches(5)
    store.close()
    store, _, _ = reopened(tmp_path)
    assert (store.oldest_block, store.oldest_batch) == (13, 3)
    assert store.prune_blocks(21) == 8
    store.close()


Change = Callable[[JournalBlock | JournalBatch | JournalRoot], JournalBlock | JournalBatch | JournalRoot]


def changed(kind: type, **fields: object) -> Change:
    return lambda record: msgspec.structs.replace(record, **fields) if isinstance(record, kind) else record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(JournalBlock, block_hash=b"\xee" * 32), r"block 3: hash: expected 0xee+, got 0x"),
        (changed(JournalBlock, results=b"\xee" * 32), r"block 3: results: expected 0xee+, got 0x"),
        (changed(JournalBlock, encoded=b"other bytes, as if by damage"), r"block 3: hash"),
        (changed(JournalBlock, parent_hash=b"\xee" * 32), r"block 3: parent hash: .*got 0xee"),
        (changed(JournalBlock, number=9), r"next block: expected 3, got 9"),
        (changed(JournalBlock, batch_number=9), r"block 3: batch: expected 2, got 9"),
        (changed(JournalBatch, number=9), r"batch closed: expected 2, got 9"),
        (changed(JournalBatch, last_block=9), r"batch 2: last block: expected 4, got 9"),
        (changed(JournalRoot, root=b"\xee" * 32), r"batch 2: root: expected 0xee+, got 0x"),
    ],
)
def test_replay_that_differs_does_not_start_and_says_where(
    tmp_path: Path, change: Change, message: str
) -> None:
    store = Store.open(tmp_path, IDENTITY)
    chain = run(store, 2, 2)
    records: list[JournalBlock | JournalBatch | JournalRoot] = [chain.seal(), chain.seal()]
    records.append(chain.journal_batch())
    records.append(JournalRoot(2, chain.replay_close(chain.journal_batch())))
    store._append([change(record) for record in records])
    store.sync()
    before = store.last_checkpoint
    store.close()
    for _ in range(2):  # refusing must not make it startable
        store = Store.open(tmp_path, IDENTITY)
        with pytest.raises(StoreError, match=message) as diverged:
            recover(store, ToyChain(store, SEED))
        assert diverged.value.code is StoreCode.DIVERGED
        assert store.last_checkpoint == before
        store.close()


def test_the_checkpoints_own_root_is_compared(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    chain = run(store, 2, 2)
    store.append_root(JournalRoot(1, b"\xee" * 32))
    with pytest.raises(StoreError, match="batch 1: root: expected 0xee"):
        recover(store, chain)
    store.close()


def test_a_machine_that_executes_otherwise_is_noticed(tmp_path: Path) -> None:
    class Another(ToyChain):
        def replay_block(self, block: JournalBlock) -> Replayed:
            replayed = super().replay_block(block)
            return Replayed(replayed.block_hash, bytes(32)) if block.number == 8 else replayed

    store = Store.open(tmp_path, IDENTITY)
    run(store, 9, 6)
    store.close()
    store = Store.open(tmp_path, IDENTITY)
    with pytest.raises(StoreError, match=r"block 8: results: expected 0x.{64}, got 0x0{64}"):
        recover(store, Another(store, SEED))
    store.close()


def test_a_damaged_journal_keeps_the_store_from_opening(tmp_path: Path) -> None:
    store = Store.open(tmp_path, IDENTITY)
    run(store, 3, 9)
    store.close()
    segment = tmp_path / "journal" / "0000000001.journal"
    data = bytearray(segment.read_bytes())
    data[-10] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalDamaged, match="record 3"):
        Store.open(tmp_path, IDENTITY)
    segment.write_bytes(bytes(data[:-20]))  # but an unfinished last record is cut
    store, chain, recovered = reopened(tmp_path)
    assert recovered.last_block == 2
    assert store.journal_cut is not None
    assert store.journal_cut.path == segment
    assert chain.current_leaves() == expected_leaves(SEED, 2)
    store.close()
