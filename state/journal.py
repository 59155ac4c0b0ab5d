"""The journal: what was promised to traders, on disk before the promise leaves.

With `state/store.py` the only code of `state/` that does I/O or knows threads: the one door to the disk
that the layer rule allows has these two files. The transition imports neither. The bytes:
`state/journal_format.py`.

A journal is a directory of segment files. Invariants:
- `sync` returns only when every record appended before the call is on disk; several appends share one
  fdatasync (group commit). Whoever promises anything waits for `sync`.
- A segment appears under its name complete with header and durable (written aside, fsynced, renamed, then the
  directory fsynced), so only records can be unfinished.
- Opening cuts an unfinished tail off the last segment and reports it; any other damage refuses.
- Opening writes the last segment anew: after a failed fsync the kernel may show bytes the disk does not have.
- After the first failed write or sync the journal is poisoned: nothing is ever reported durable again.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from state.journal_format import (
    HEADER_BYTES,
    MAX_RECORD_BYTES,
    Identity,
    JournalDamaged,
    Record,
    StoreCode,
    StoreError,
    encode_header,
    encode_record,
    read_header,
    read_records,
    segment_name,
)

_NAME = re.compile(r"(\d{10})\.journal")
_CODE_OF_ERRNO = {
    errno.ENOSPC: StoreCode.NO_SPACE,
    errno.EDQUOT: StoreCode.NO_SPACE,
    errno.EFBIG: StoreCode.NO_SPACE,
    errno.EROFS: StoreCode.READ_ONLY,
    errno.EACCES: StoreCode.READ_ONLY,
    errno.EPERM: StoreCode.READ_ONLY,
}


class UnfinishedTail(NamedTuple):
    """What opening cut off: never acknowledged."""

    path: Path
    offset: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A file as it was checked: the records below next_sequence stand in its first `good_bytes` bytes."""

    path: Path
    number: int
    first_sequence: int
    next_sequence: int
    good_bytes: int
    file_bytes: int


def os_error(error: OSError, path: Path, doing: str) -> StoreError:
    """The StoreError for what the operating system answered while `doing`."""
    code = _CODE_OF_ERRNO.get(error.errno or 0, StoreCode.IO_ERROR)
    return StoreError(code, str(path), f"{doing} failed: {error.strerror or error}")


def scan_journal(directory: Path, identity: Identity, needed_from: int) -> list[Segment]:
    """Reads and checks every segment, changing nothing; the records from `needed_from` on must be there.

    Raises JournalDamaged, StoreError.
    """
    segments: list[Segment] = []
    try:
        paths = _segment_paths(directory)
        for index, (number, path) in enumerate(paths):
            expected = segments[-1].next_sequence if segments else needed_from
            data = path.read_bytes()
            first = read_header(str(path), data, identity, number, expected, not segments)
            records, end = read_records(str(path), data, first, index == len(paths) - 1)
            segments.append(Segment(path, number, first, first + len(records), end, len(data)))
    except OSError as error:
        raise os_error(error, directory, "reading the journal") from error
    if not segments or segments[-1].next_sequence < needed_from:
        raise StoreError(
            StoreCode.DAMAGED,
            str(directory),
            f"the last checkpoint needs records from {needed_from} on, the journal ends before "
            f"{segments[-1].next_sequence if segments else 'any'}: files are missing or of different times; "
            f"restore the whole data directory from a copy",
        )
    return segments


class Journal:
    """An open journal; its owner holds the directory's lock and closes it.

    All calls block; any thread may make them. Appends go on while a sync waits for the disk.
    """

    def __init__(
        self, identity: Identity, segments: list[Segment], descriptor: int, cut: UnfinishedTail | None
    ) -> None:
        self._identity = identity
        self._segments = segments
        self._descriptor = descriptor
        self._next = segments[-1].next_sequence
        self._durable_next = self._next
        self._failure: StoreError | None = None
        self._append_lock = Lock()
        self._sync_lock = Lock()
        self.cut = cut

    @classmethod
    def create(cls, directory: Path, identity: Identity) -> Journal:
        """A new journal whose first record will be number 1; one that has records is left alone.

        Raises StoreError.
        """
        path = directory.joinpath(segment_name(1))
        try:
            directory.mkdir(exist_ok=True)
            if any(p != path or p.stat().st_size > HEADER_BYTES for _, p in _segment_paths(directory)):
                message = "a journal with records stands here without its database; restore the database"
                raise StoreError(StoreCode.DAMAGED, str(directory), message)
            descriptor = _install(path, encode_header(identity, 1, 1))
            sync_directory(directory.parent)
        except OSError as error:
            raise os_error(error, directory, "creating the journal") from error
        return cls(identity, [Segment(path, 1, 1, 1, HEADER_BYTES, HEADER_BYTES)], descriptor, None)

    @classmethod
    def open(cls, directory: Path, identity: Identity, needed_from: int) -> Journal:
        """The journal as it was left; `cut` tells of an unfinished tail. Raises JournalDamaged, StoreError.

        Memory: twice the largest segment, which holds the blocks of one batch.
        """
        segments = scan_journal(directory, identity, needed_from)
        last = segments[-1]
        excess = last.file_bytes - last.good_bytes
        try:
            for leftover in directory.glob("*.new"):
                leftover.unlink()
            descriptor = _install(last.path, last.path.read_bytes()[: last.good_bytes])
        except OSError as error:
            raise os_error(error, last.path, "opening the journal") from error
        cut = UnfinishedTail(last.path, last.good_bytes, excess) if excess else None
        return cls(identity, segments, descriptor, cut)

    @property
    def next_sequence(self) -> int:
        """The number the next record will get."""
        return self._next

    @property
    def segment_count(self) -> int:
        """How many files the journal has."""
        return len(self._segments)

    def append(self, records: Sequence[tuple[int, bytes]]) -> int:
        """Writes (kind, payload) records in order; returns the last one's sequence, durable after `sync`.

        Raises ValueError on a payload above MAX_RECORD_BYTES (nothing is written), StoreError.
        """
        if any(len(payload) > MAX_RECORD_BYTES for _, payload in records):
            raise ValueError(f"a journal record has at most {MAX_RECORD_BYTES} bytes")
        with self._append_lock:
            self._refuse_if_poisoned()
            numbered = [Record(self._next + i, kind, payload) for i, (kind, payload) in enumerate(records)]
            try:
                _write_all(self._descriptor, b"".join(map(encode_record, numbered)))
            except OSError as error:
                raise self._poison(error, "appending") from error
            self._next += len(numbered)
            return self._next - 1

    def sync(self) -> int:
        """Waits until every record appended before the call is on disk; returns the last durable sequence.

        Raises StoreError; after that no call succeeds.
        """
        with self._sync_lock:
            with self._append_lock:
                self._refuse_if_poisoned()
                descriptor, target = self._descriptor, self._next
            self._make_durable(descriptor, target)
            return target - 1

    def rotate(self) -> int:
        """Syncs, and begins a new segment; returns the sequence of its first record. Raises StoreError."""
        with self._sync_lock, self._append_lock:
            self._refuse_if_poisoned()
            self._make_durable(self._descriptor, self._next)
            number = self._segments[-1].number + 1
            path = self._segments[-1].path.with_name(segment_name(number))
            try:
                descriptor = _install(path, encode_header(self._identity, number, self._next))
                os.close(self._descriptor)
            except OSError as error:
                raise self._poison(error, "beginning a segment") from error
            self._descriptor = descriptor
            self._segments.append(Segment(path, number, self._next, self._next, HEADER_BYTES, HEADER_BYTES))
            return self._next

    def drop_before(self, sequence: int) -> None:
        """Deletes the segments that hold only records below `sequence`; never the last. Raises StoreError."""
        with self._append_lock:
            self._refuse_if_poisoned()
            kept = len(self._segments) - 1
            while kept and self._segments[kept].first_sequence > sequence:
                kept -= 1
            dropped = self._segments[:kept]
            if not dropped:
                return
            try:
                for segment in dropped:
                    segment.path.unlink()
                sync_directory(dropped[0].path.parent)
            except OSError as error:
                raise self._poison(error, "deleting a segment") from error
            self._segments = self._segments[kept:]

    def records(self, from_sequence: int) -> Iterator[Record]:
        """The records from `from_sequence` on, one segment at a time in memory; for use before appending.

        Segments before that of the last record taken may be dropped meanwhile.
        Raises JournalDamaged, StoreError.
        """
        for segment in tuple(self._segments):
            path = str(segment.path)
            try:
                data = segment.path.read_bytes()
            except OSError as error:
                raise os_error(error, segment.path, "reading") from error
            first = read_header(path, data, self._identity, segment.number, segment.first_sequence, False)
            records, _ = read_records(path, data, first, is_last=False)
            yield from (record for record in records if record.sequence >= from_sequence)

    def close(self) -> None:
        """Closes the file without syncing; safe to repeat."""
        with self._sync_lock, self._append_lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1
            if self._failure is None:
                path = str(self._segments[-1].path)
                self._failure = StoreError(StoreCode.CLOSED, path, "the journal was closed")

    def _make_durable(self, descriptor: int, next_sequence: int) -> None:
        if next_sequence == self._durable_next:
            return
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            raise self._poison(error, "syncing") from error
        self._durable_next = next_sequence

    def _refuse_if_poisoned(self) -> None:
        if self._failure is not None:
            cause = f"nothing is written any more after: {self._failure}"
            raise StoreError(StoreCode.POISONED, self._failure.path, cause)

    def _poison(self, error: OSError, doing: str) -> StoreError:
        self._failure = os_error(error, self._segments[-1].path, doing)
        return self._failure


def truncate_journal(directory: Path, identity: Identity, needed_from: int, at_sequence: int) -> list[Path]:
    """Takes record `at_sequence` and all after it out of the journal, when nothing better can mend it.

    The files concerned are kept beside it under names with `.cut-<sequence>`; these are returned. The caller
    holds the directory's lock. Raises ValueError if the checkpoint covers that record (`needed_from` is the
    first it does not) or there is nothing to cut; JournalDamaged if records before it are damaged;
    StoreError.
    """
    if at_sequence < needed_from:
        raise ValueError(
            f"record {at_sequence} is in the last checkpoint; the first that may go is {needed_from}"
        )
    sequence = needed_from
    try:
        paths = _segment_paths(directory)
        for index, (number, path) in enumerate(paths):
            data = path.read_bytes()
            later = [p for _, p in paths[index + 1 :]]
            records: list[Record] = []
            try:
                first = read_header(str(path), data, identity, number, sequence, index == 0)
                records, end = read_records(str(path), data, first, not later, at_sequence)
            except JournalDamaged as damage:
                if damage.sequence != at_sequence:
                    raise
                first, end = at_sequence, -1  # the header is lost, and with it the whole segment
            sequence = first + len(records)
            if sequence == at_sequence and (later or end != len(data)):
                kept = encode_header(identity, number, first) + b"".join(map(encode_record, records))
                return _cut(path, None if end == len(data) else kept, later, at_sequence)
    except OSError as error:
        raise os_error(error, directory, "cutting the journal") from error
    raise ValueError(f"the journal ends before record {sequence}; there is no record {at_sequence} to cut at")


def _cut(path: Path, kept: bytes | None, later: list[Path], at_sequence: int) -> list[Path]:
    """Renames `later` away, last first, and makes `path` hold only `kept`; its old content keeps a name."""
    aside = []
    for segment in [*reversed(later), *([path] if kept is not None else [])]:
        names = (segment.with_name(f"{segment.name}.cut-{at_sequence}{'+' * i}") for i in count())
        name = next(name for name in names if not name.exists())
        os.link(segment, name)
        aside.append(name)
        if segment is not path:
            segment.unlink()
    if kept is not None:
        os.close(_install(path, kept))
    sync_directory(path.parent)
    return aside


def _segment_paths(directory: Path) -> list[tuple[int, Path]]:
    found = [(match, path) for path in directory.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted((int(match[1]), path) for match, path in found)


def sync_directory(directory: Path) -> None:
    """Makes the directory's entries durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _install(path: Path, data: bytes) -> int:
    """Makes `data` the whole content of `path`, durably and at once; returns a descriptor to append with."""
    aside = path.with_suffix(".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
        os.rename(aside, path)
        sync_directory(path.parent)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
