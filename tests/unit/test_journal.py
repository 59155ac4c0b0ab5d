"""The journal: what was synced is there after any end, and damage is never taken for data."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from state.journal import Journal, scan_journal, truncate_journal
from state.journal_format import (
    HEADER_BYTES,
    MAX_RECORD_BYTES,
    RECORD_HEAD_BYTES,
    Identity,
    JournalDamaged,
    Record,
    StoreCode,
    StoreError,
    encode_header,
    encode_record,
    read_records,
)

IDENTITY = Identity(31337, b"\x11" * 20, b"\x22" * 32)
OTHER = Identity(1, b"\x11" * 20, b"\x22" * 32)
FIRST = [(1, b"alpha"), (2, b""), (3, b"\0" * 40)]
LAST = [(1, b"beta"), (1, b"\0\0\0\0"), (2, bytes(range(30)) + b"\0" * 10)]


def numbered(payloads: list[tuple[int, bytes]], first: int = 1) -> list[Record]:
    return [Record(first + i, kind, payload) for i, (kind, payload) in enumerate(payloads)]


def write_two_segments(directory: Path) -> list[Record]:
    """Segment 1 with FIRST, segment 2 with LAST; returns all records."""
    journal = Journal.create(directory, IDENTITY)
    journal.append(FIRST)
    journal.rotate()
    journal.append(LAST)
    journal.sync()
    journal.close()
    return numbered(FIRST + LAST)


def records_in(directory: Path, from_sequence: int = 1) -> list[Record]:
    journal = Journal.open(directory, IDENTITY, 1)
    try:
        return list(journal.records(from_sequence))
    finally:
        journal.close()


def scanned(directory: Path) -> list[Record]:
    """What a reader gets, changing nothing (and without fsync: for the exhaustive tests)."""
    segments = scan_journal(directory, IDENTITY, 1)
    found: list[Record] = []
    for segment in segments:
        data = segment.path.read_bytes()
        records, _ = read_records(str(segment.path), data, segment.first_sequence, segment is segments[-1])
        found += records
    return found


def ends(payloads: list[tuple[int, bytes]]) -> list[int]:
    """The offset at which each record of a segment ends."""
    offset, result = HEADER_BYTES, []
    for _, payload in payloads:
        offset += RECORD_HEAD_BYTES + len(payload) + 4
        result.append(offset)
    return result


operations = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(st.binary(max_size=200), max_size=5)),
        st.tuples(st.sampled_from(["sync", "rotate", "reopen", "crash"]), st.none()),
        st.tuples(st.just("drop"), st.integers(0, 40)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(operations, st.randoms(use_true_random=False))
def test_behaves_like_a_list_through_rotation_dropping_and_truncation(
    steps: list[tuple[str, object]], random: Random
) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name) / "journal"
        journal = Journal.create(directory, IDENTITY)
        model: list[Record] = []
        synced = dropped = 0
        for step, argument in steps:
            if step == "append":
                assert isinstance(argument, list)
                new = [(random.randint(0, 255), payload) for payload in argument]
                model += numbered(new, len(model) + 1)
                assert journal.append(new) == len(model)
            elif step == "sync":
                synced = journal.sync()
                assert synced == len(model)
            elif step == "rotate":
                assert journal.rotate() == len(model) + 1
                synced = len(model)
            elif step == "drop":
                assert isinstance(argument, int)
                journal.drop_before(min(argument, synced + 1))
                dropped = max(dropped, min(argument, synced + 1) - 1)
            else:
                journal.close()
                if step == "crash":  # what was not synced may be on disk in part
                    last = scan_journal(directory, IDENTITY, dropped + 1)[-1]
                    in_last = [(r.kind, r.payload) for r in model[last.first_sequence - 1 :]]
                    keep = [HEADER_BYTES, *ends(in_last)][max(0, synced - last.first_sequence + 1)]
                    os.truncate(last.path, random.randint(keep, last.good_bytes))
                journal = Journal.open(directory, IDENTITY, dropped + 1)
                survived = journal.next_sequence - 1
                assert synced <= survived <= len(model)
                model = model[:survived]
                synced = survived
                assert list(journal.records(dropped + 1)) == model[dropped:]
        journal.close()


def test_a_cut_at_any_byte_of_the_last_segment_leaves_exactly_the_whole_records(tmp_path: Path) -> None:
    everything = write_two_segments(tmp_path / "journal")
    last = tmp_path / "journal" / "0000000002.journal"
    data = last.read_bytes()
    assert ends(LAST)[-1] == len(data)
    for size in range(HEADER_BYTES, len(data) + 1):
        last.write_bytes(data[:size])
        whole = sum(end <= size for end in ends(LAST))
        journal = Journal.open(tmp_path / "journal", IDENTITY, 1)
        assert list(journal.records(1)) == everything[: len(FIRST) + whole]
        good = [HEADER_BYTES, *ends(LAST)][whole]
        if size == good:
            assert journal.cut is None
        else:
            assert journal.cut == (last, good, size - good)
        assert journal.append([(9, b"after")]) == len(FIRST) + whole + 1
        journal.sync()
        journal.close()
        assert records_in(tmp_path / "journal")[-1] == Record(len(FIRST) + whole + 1, 9, b"after")


def test_zeros_after_any_byte_give_a_prefix_or_refuse(tmp_path: Path) -> None:
    everything = write_two_segments(tmp_path / "journal")
    last = tmp_path / "journal" / "0000000002.journal"
    data = last.read_bytes()
    cut = 0
    for size in range(HEADER_BYTES, len(data) + 1):
        for zeros in (len(data) - size, 4096):
            last.write_bytes(data[:size] + b"\0" * zeros)
            whole = sum(end <= size for end in ends(LAST))
            in_a_check = any(end - 4 < size < end for end in ends(LAST))
            in_a_check |= any(
                start + RECORD_HEAD_BYTES - 4 < size < start + RECORD_HEAD_BYTES
                for start in [HEADER_BYTES, *ends(LAST)]
            )
            try:
                found = scanned(tmp_path / "journal")
            except JournalDamaged:
                assert in_a_check, size
            else:
                # A payload that ends in zeros may be whole although the file was cut inside it.
                assert found == everything[: len(found)]
                assert len(found) >= len(FIRST) + whole
                cut += 1
    assert cut > len(data) - HEADER_BYTES


def test_a_cut_in_the_last_header_refuses(tmp_path: Path) -> None:
    write_two_segments(tmp_path / "journal")
    last = tmp_path / "journal" / "0000000002.journal"
    data = last.read_bytes()
    for size in range(HEADER_BYTES):
        last.write_bytes(data[:size])
        with pytest.raises(JournalDamaged) as damage:
            scanned(tmp_path / "journal")
        assert (damage.value.path, damage.value.offset, damage.value.sequence) == (
            str(last),
            0,
            len(FIRST) + 1,
        )


@pytest.mark.parametrize("name", ["0000000001.journal", "0000000002.journal"])
def test_every_flipped_bit_refuses(tmp_path: Path, name: str) -> None:
    write_two_segments(tmp_path / "journal")
    path = tmp_path / "journal" / name
    data = path.read_bytes()
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(JournalDamaged) as damage:
            scanned(tmp_path / "journal")
        assert damage.value.path == str(path)
        assert damage.value.offset <= bit // 8
        assert f"--truncate-journal-at {damage.value.sequence}" in str(damage.value)
        assert str(damage.value.offset) in str(damage.value)
    with pytest.raises(JournalDamaged):
        Journal.open(tmp_path / "journal", IDENTITY, 1)
    assert path.read_bytes() == bytes(flipped), "a refused opening changes nothing"


def test_flipped_bits_in_an_unfinished_tail_never_alter_what_is_returned(tmp_path: Path) -> None:
    everything = write_two_segments(tmp_path / "journal")
    last = tmp_path / "journal" / "0000000002.journal"
    data = last.read_bytes()
    refused = cut = 0
    for size in range(ends(LAST)[-2] + 1, len(data)):
        for offset in range(ends(LAST)[-2], size):
            flipped = bytearray(data[:size])
            flipped[offset] ^= 0x10
            last.write_bytes(flipped)
            try:
                found = scanned(tmp_path / "journal")
            except JournalDamaged:
                refused += 1
            else:
                assert found == everything[:-1]
                cut += 1
    assert refused
    assert cut


def test_a_journal_cut_short_before_its_last_segment_refuses(tmp_path: Path) -> None:
    write_two_segments(tmp_path / "journal")
    first = tmp_path / "journal" / "0000000001.journal"
    data = first.read_bytes()
    for size in range(len(data)):
        first.write_bytes(data[:size])
        with pytest.raises(JournalDamaged) as damage:
            scanned(tmp_path / "journal")
        # A segment cut between two records is whole in itself: then the next one does not continue it.
        assert damage.value.path == str(first) or size in [HEADER_BYTES, *ends(FIRST)]
        assert damage.value.sequence == 1 + sum(end <= size for end in ends(FIRST))


def test_a_missing_segment_and_a_gap_refuse(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    write_two_segments(directory)
    (directory / "0000000001.journal").unlink()
    with pytest.raises(JournalDamaged, match="expected first record 1, got first record 4"):
        Journal.open(directory, IDENTITY, 1)
    Journal.open(directory, IDENTITY, 4).close()
    with pytest.raises(StoreError, match="ends before 7") as short:
        Journal.open(directory, IDENTITY, 8)
    assert short.value.code is StoreCode.DAMAGED
    path = directory / "0000000002.journal"
    path.write_bytes(encode_header(IDENTITY, 2, 4) + encode_record(Record(5, 1, b"not 4")))
    with pytest.raises(JournalDamaged, match="expected sequence 4, got sequence 5"):
        Journal.open(directory, IDENTITY, 4)
    path.rename(directory / "0000000003.journal")
    with pytest.raises(JournalDamaged, match="expected segment 3, got segment 2"):
        Journal.open(directory, IDENTITY, 4)
    (directory / "0000000003.journal").unlink()
    with pytest.raises(StoreError, match="ends before any"):
        Journal.open(directory, IDENTITY, 1)


def test_another_rollups_journal_and_another_format_refuse(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    write_two_segments(directory)
    with pytest.raises(StoreError) as wrong:
        Journal.open(directory, OTHER, 1)
    assert wrong.value.code is StoreCode.WRONG_IDENTITY
    assert "belongs to chain 31337" in str(wrong.value)
    assert "expected chain 1," in str(wrong.value)


def test_a_newer_format_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("state.journal_format.FORMAT_VERSION", 2)
        write_two_segments(tmp_path / "journal")
    with pytest.raises(StoreError, match="expected journal format 1, got 2") as wrong:
        Journal.open(tmp_path / "journal", IDENTITY, 1)
    assert wrong.value.code is StoreCode.WRONG_FORMAT


def test_a_check_is_never_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("state.journal_format.crc32", lambda data, value=0: 0)
    assert encode_header(IDENTITY, 1, 1)[-4:] == b"\0\0\0\1"
    assert encode_record(Record(1, 1, b"unlucky"))[-4:] == b"\0\0\0\1"


def test_creating_leaves_a_journal_with_records_alone(tmp_path: Path) -> None:
    Journal.create(tmp_path / "journal", IDENTITY).close()
    Journal.create(tmp_path / "journal", IDENTITY).close()  # an empty one is what a crash in creation leaves
    everything = write_two_segments(tmp_path / "journal")
    with pytest.raises(StoreError, match="without its database"):
        Journal.create(tmp_path / "journal", IDENTITY)
    assert records_in(tmp_path / "journal") == everything


def test_an_oversized_record_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", IDENTITY)
    with pytest.raises(ValueError, match="at most"):
        journal.append([(1, b"small"), (1, bytes(MAX_RECORD_BYTES + 1))])
    assert journal.append([(1, b"small")]) == 1
    journal.sync()
    journal.close()
    assert records_in(tmp_path / "journal") == [Record(1, 1, b"small")]


def failing_write(code: int, after: int) -> Callable[[int, memoryview], int]:
    """An os.write that takes `after` bytes more, then fails: a disk that fills up within a record."""
    left = after
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal left
        if left == 0:
            raise OSError(code, os.strerror(code))
        taken = real(descriptor, data[:left])
        left -= taken
        return taken

    return write


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, StoreCode.NO_SPACE),
        (errno.EROFS, StoreCode.READ_ONLY),
        (errno.EIO, StoreCode.IO_ERROR),
    ],
)
@pytest.mark.parametrize("after", [0, 1, 20, 30])
def test_a_failed_write_poisons_and_is_cut_at_the_next_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: StoreCode, after: int
) -> None:
    journal = Journal.create(tmp_path / "journal", IDENTITY)
    journal.append([(1, b"promised")])
    journal.sync()
    with monkeypatch.context() as full:
        full.setattr(os, "write", failing_write(code, after))
        with pytest.raises(StoreError) as failed:
            journal.append([(1, b"never promised, longer than it")])
    assert failed.value.code is expected
    assert os.strerror(code) in str(failed.value)
    for call in (journal.sync, journal.rotate, lambda: journal.append([]), lambda: journal.drop_before(1)):
        with pytest.raises(StoreError, match=os.strerror(code)) as poisoned:
            call()
        assert poisoned.value.code is StoreCode.POISONED
    journal.close()
    assert records_in(tmp_path / "journal") == [Record(1, 1, b"promised")]


@pytest.mark.parametrize("operation", ["sync", "rotate"])
def test_a_failed_fsync_is_never_followed_by_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    journal = Journal.create(tmp_path / "journal", IDENTITY)
    journal.append([(1, b"lost with the page")])

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as dying:
        dying.setattr(os, "fdatasync", broken)
        with pytest.raises(StoreError) as failed:
            getattr(journal, operation)()
    assert failed.value.code is StoreCode.IO_ERROR
    with pytest.raises(StoreError) as poisoned:
        journal.sync()  # the disk is well again, and may have forgotten: no second chance
    assert poisoned.value.code is StoreCode.POISONED
    journal.close()
    with pytest.raises(StoreError) as closed:
        journal.sync()
    assert closed.value.code is StoreCode.POISONED


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal", IDENTITY)
    journal.close()
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.append([(1, b"late")])


def test_appends_made_during_an_fsync_share_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal.create(tmp_path / "journal", IDENTITY)
    entered, release = threading.Event(), threading.Event()
    calls = 0
    real = os.fdatasync

    def slow(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            entered.set()
            assert release.wait(10)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", slow)
    synced: list[tuple[int, int]] = []

    def commit(index: int) -> None:
        sequence = journal.append([(1, bytes([index]))])
        synced.append((sequence, journal.sync()))

    threads = [threading.Thread(target=commit, args=(i,)) for i in range(6)]
    threads[0].start()
    assert entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while journal.next_sequence < 7:  # appends do not wait for the disk
        threading.Event().wait(0.001)
    release.set()
    for thread in threads:
        thread.join(10)
    assert calls == 2
    assert all(sequence <= durable for sequence, durable in synced)
    assert sorted(sequence for sequence, _ in synced) == [1, 2, 3, 4, 5, 6]
    journal.close()


@pytest.mark.parametrize("at", range(1, 8))
def test_cutting_on_purpose_keeps_what_stands_before_and_the_old_files(tmp_path: Path, at: int) -> None:
    everything = write_two_segments(tmp_path / "journal")
    before = {path.read_bytes() for path in (tmp_path / "journal").iterdir()}
    if at == 7:
        with pytest.raises(ValueError, match="no record 7"):
            truncate_journal(tmp_path / "journal", IDENTITY, 1, at)
        return
    aside = truncate_journal(tmp_path / "journal", IDENTITY, 1, at)
    assert {path.read_bytes() for path in (tmp_path / "journal").iterdir()} >= before
    assert all(f".cut-{at}" in path.name for path in aside)
    assert records_in(tmp_path / "journal") == everything[: at - 1]
    journal = Journal.open(tmp_path / "journal", IDENTITY, 1)
    assert journal.append([(5, b"anew")]) == at
    journal.sync()
    journal.close()
    again = truncate_journal(tmp_path / "journal", IDENTITY, 1, at)
    assert not set(again) & set(aside)


def test_cutting_at_the_place_the_error_names_mends_any_flipped_byte(tmp_path: Path) -> None:
    everything = write_two_segments(tmp_path / "model")
    good = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    places = [(name, offset) for name, data in good.items() for offset in range(len(data))]
    for name, offset in Random(5).sample(places, 40):
        directory = tmp_path / f"{name}-{offset}"
        directory.mkdir()
        for other, data in good.items():
            (directory / other).write_bytes(data)
        flipped = bytearray(good[name])
        flipped[offset] ^= 0x04
        (directory / name).write_bytes(flipped)
        with pytest.raises(JournalDamaged) as damage:
            Journal.open(directory, IDENTITY, 1)
        at = damage.value.sequence
        if at < len(everything):
            with pytest.raises(JournalDamaged):
                truncate_journal(directory, IDENTITY, 1, at + 1)
        truncate_journal(directory, IDENTITY, 1, at)
        assert records_in(directory) == everything[: at - 1]


def test_what_a_checkpoint_covers_cannot_be_cut(tmp_path: Path) -> None:
    write_two_segments(tmp_path / "journal")
    with pytest.raises(ValueError, match="the first that may go is 3"):
        truncate_journal(tmp_path / "journal", IDENTITY, 3, 2)


def test_leftovers_of_an_interrupted_creation_are_swept(tmp_path: Path) -> None:
    everything = write_two_segments(tmp_path / "journal")
    (tmp_path / "journal" / "0000000003.new").write_bytes(b"half a hea")
    assert records_in(tmp_path / "journal") == everything
    assert not list((tmp_path / "journal").glob("*.new"))
