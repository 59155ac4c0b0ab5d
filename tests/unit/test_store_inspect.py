"""The operator's view of a data directory: agrees with a good one, names what is wrong in a bad one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import plyvel
import pytest
import typer
from typer.testing import CliRunner, Result

from state.recovery import recover
from state.store import LEAF, OWN, TRANSACTION, JournalDamaged, Store
from tests.toy_chain import IDENTITY, ToyChain
from tools.store_inspect import main


def inspected(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two batches of 15 blocks in the database; two blocks in the journal."""
    store = Store.open(tmp_path / "data", IDENTITY)
    chain = ToyChain(store, 1)
    for number in range(1, 33):
        store.append_blocks([chain.seal()])
        if number in (15, 30):
            chain.close()
    store.sync()
    store.close()
    return tmp_path / "data"


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "journal").iterdir()}


def test_a_good_directory_agrees_and_is_left_as_it_is(data: Path) -> None:
    journal = contents(data)
    result = inspected(str(data))
    assert result.exit_code == 0, result.output
    assert "belongs to chain 31337" in result.output
    assert "checkpoint: batch 2, block 30" in result.output
    assert "2 JournalBlock" in result.output
    assert "all agrees" in result.output
    assert contents(data) == journal


def test_an_unfinished_tail_is_told_and_left_to_the_node(data: Path) -> None:
    last = max((data / "journal").iterdir())
    last.write_bytes(last.read_bytes()[:-5])
    journal = contents(data)
    result = inspected(str(data))
    assert result.exit_code == 0
    assert "1 JournalBlock" in result.output
    assert "an unfinished tail of" in result.output
    assert contents(data) == journal


def spoil(row: Callable[[bytes], bool], value: bytes | None) -> Callable[[Path], None]:
    """Changes or deletes the first row whose key satisfies `row`."""

    def change(data: Path) -> None:
        database = plyvel.DB(str(data / "db"))
        key = next(key for key, _ in database if row(key))
        if value is None:
            database.delete(key)
        else:
            database.put(key, value)
        database.close()

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil(lambda key: key[:1] == LEAF, b"other"), "leaves hash to"),
        (spoil(lambda key: key[:1] == LEAF, None), "leaves hash to"),
        (spoil(lambda key: key[:2] == b"TP", None), "tree: index has root"),
        (spoil(lambda key: key == b"B" + (4).to_bytes(8, "big"), None), "block 4: found block 5"),
        (spoil(lambda key: key == b"B" + (30).to_bytes(8, "big"), None), "block 30 is missing"),
        (spoil(lambda key: key[:1] == TRANSACTION, None), "is not indexed at"),
        (spoil(lambda key: key[:1] == TRANSACTION, bytes(12)), "is not indexed at"),
        (spoil(lambda key: key == b"N" + (1).to_bytes(8, "big"), None), "batch 1: found batch 2"),
        (spoil(lambda key: key == b"N" + (2).to_bytes(8, "big"), None), "batch 2 is not what the last batch"),
        (spoil(lambda key: key == OWN + b"oldest_block", bytes(8)), "block 0: found block 1"),
    ],
)
def test_what_does_not_agree_is_named(data: Path, change: Callable[[Path], None], message: str) -> None:
    change(data)
    result = inspected(str(data))
    assert result.exit_code == 1, result.output
    assert message in result.output
    assert "something does not agree" in result.output


def test_a_damaged_journal_is_named_and_cut_only_when_told(data: Path) -> None:
    last = max((data / "journal").iterdir())
    spoiled = bytearray(last.read_bytes())
    spoiled[-10] ^= 1
    last.write_bytes(spoiled)
    with pytest.raises(JournalDamaged) as damage:
        Store.open(data, IDENTITY)
    at = damage.value.sequence
    result = inspected(str(data))
    assert result.exit_code == 1
    assert f"--truncate-journal-at {at}" in result.output

    assert inspected(str(data), "--truncate-journal-at", str(at + 5)).exit_code == 2
    assert inspected(str(data), "--truncate-journal-at", "1").exit_code == 2
    assert last.read_bytes() == spoiled
    result = inspected(str(data), "--truncate-journal-at", str(at))
    assert result.exit_code == 0, result.output
    assert "CUT: journal record" in result.output
    assert f"{last.name}.cut-{at}" in result.output
    store = Store.open(data, IDENTITY)
    assert recover(store, ToyChain(store, 1)).last_block == 31
    store.close()


def test_what_cannot_be_read(data: Path, tmp_path: Path) -> None:
    store = Store.open(data, IDENTITY)
    result = inspected(str(data))
    assert result.exit_code == 2
    assert "stop it first" in result.output
    store.close()
    (tmp_path / "empty").mkdir()
    result = inspected(str(tmp_path / "empty"))
    assert result.exit_code == 2
    assert "no db/" in result.output
    assert not list((tmp_path / "empty").iterdir())
    shutil.rmtree(data / "journal")
    assert inspected(str(data)).exit_code == 1
