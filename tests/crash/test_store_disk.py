"""A disk that is full, or read-only: the store stops once and clearly, and keeps every promise made before.

A small tmpfs is a real full and a real read-only file system (permission bits do not bind root), where tests
may mount one. A limit on file sizes makes writes fail anywhere, for the journal and for LevelDB's files.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from state.recovery import recover
from state.store import Store, StoreCode, StoreError
from tests.toy_chain import IDENTITY, ToyChain, expected_leaves

SEED = 3


def run_child(path: Path, mode: str, file_limit: int | None = None) -> tuple[list[tuple[str, str]], str]:
    """The child's lines once it has stopped, and its messages."""

    def limit_files() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    command = [sys.executable, "-m", "tests.crash.store_child", str(path), str(SEED), mode]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, preexec_fn=limit_files
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(word, value) for word, value in lines], done.stderr


def promised(lines: list[tuple[str, str]]) -> int:
    return max(int(value) for word, value in lines if word in ("recovered", "sealed"))


def check_recovery(path: Path, at_least: int) -> None:
    store = Store.open(path, IDENTITY)
    chain = ToyChain(store, SEED)
    assert recover(store, chain).last_block >= at_least
    assert chain.current_leaves() == expected_leaves(SEED, chain.last_block)
    store.append_blocks([chain.seal()])
    chain.close()
    store.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 256 KiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a tmpfs here ({mounted.stderr.strip()}); file limits test the same")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def remount(path: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(path)], check=True)


@pytest.mark.parametrize("mode", ["journal", "batches", "run"])
def test_a_full_disk_stops_the_store_and_room_starts_it_again(tiny_disk: Path, mode: str) -> None:
    lines, message = run_child(tiny_disk / "data", mode)
    assert ("stopped", "NO_SPACE") in lines
    assert "No space left on device" in message
    assert ("again", "POISONED") in lines
    remount(tiny_disk, "size=16m")
    check_recovery(tiny_disk / "data", promised(lines))


def test_a_disk_that_is_still_full_says_so_at_the_next_start(tiny_disk: Path) -> None:
    lines, _ = run_child(tiny_disk / "data", "journal")
    for _ in range(2):
        with pytest.raises(StoreError) as full:
            Store.open(tiny_disk / "data", IDENTITY)
        assert full.value.code is StoreCode.NO_SPACE
    remount(tiny_disk, "size=16m")
    check_recovery(tiny_disk / "data", promised(lines))


def test_a_read_only_disk_refuses_to_open_and_loses_nothing(tiny_disk: Path) -> None:
    remount(tiny_disk, "size=16m")
    store = Store.open(tiny_disk / "data", IDENTITY)
    chain = ToyChain(store, SEED)
    store.append_blocks([chain.seal(), chain.seal()])
    store.sync()
    store.close()
    remount(tiny_disk, "ro")
    for path in (tiny_disk / "data", tiny_disk / "new"):
        with pytest.raises(StoreError, match="Read-only file system") as refused:
            Store.open(path, IDENTITY)
        assert refused.value.code is StoreCode.READ_ONLY
    remount(tiny_disk, "rw")
    check_recovery(tiny_disk / "data", 2)


@pytest.mark.parametrize(
    ("mode", "file_limit"), [("journal", 20_000), ("journal", 20_001), ("batches", 30_000), ("run", 40_000)]
)
def test_a_limit_on_files_stops_the_store_and_keeps_its_promises(
    tmp_path: Path, mode: str, file_limit: int
) -> None:
    lines, message = run_child(tmp_path, mode, file_limit)
    assert ("stopped", "NO_SPACE") in lines
    assert "File too large" in message
    assert ("again", "POISONED") in lines
    assert promised(lines) > 3
    check_recovery(tmp_path, promised(lines))


def test_a_disk_that_takes_nothing_at_all(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from state.store import Store, StoreError\n"
        "from tests.toy_chain import IDENTITY\n"
        "try: Store.open(Path(sys.argv[1]), IDENTITY)\n"
        "except StoreError as error: sys.stdout.write(error.code.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        check=True,
    )
    assert done.stdout == "NO_SPACE"
    store = Store.open(tmp_path, IDENTITY)
    assert store.last_checkpoint is None
    store.close()
