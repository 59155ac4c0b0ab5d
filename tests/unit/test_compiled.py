"""The compiled modules are used only while they are made of the sources that are there."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tools.compile_state import ROOT

PROGRAM = "import state, state.book; print(state.COMPILED, state.book.__file__)"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package `state` of two files, with what stands for a compiled `book` made of them."""
    (tmp_path / "state" / "_compiled").mkdir(parents=True)
    (tmp_path / "state" / "__init__.py").write_bytes((ROOT / "state" / "__init__.py").read_bytes())
    source = (ROOT / "state" / "book.py").read_bytes()
    (tmp_path / "state" / "book.py").write_bytes(source)
    (tmp_path / "state" / "_compiled" / "book.py").write_bytes(source)
    digest = sha256(source).hexdigest()
    (tmp_path / "state" / "_compiled" / "SOURCES").write_text(f"{digest}  book.py\n")
    return tmp_path


def loaded(package: Path, pure: str = "") -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=package,
        env={"STRADDLE_PURE": pure},
        capture_output=True,
        text=True,
        check=True,
    )
    compiled, file = done.stdout.split()
    return compiled, Path(file).parent.name


def test_current_modules_are_used_unless_python_is_asked_for(package: Path) -> None:
    assert loaded(package) == ("True", "_compiled")
    assert loaded(package, pure="0") == ("True", "_compiled")
    assert loaded(package, pure="1") == ("False", "state")


def test_an_edited_source_is_never_shadowed(package: Path) -> None:
    with (package / "state" / "book.py").open("a") as source:
        source.write("# edited\n")
    assert loaded(package) == ("False", "state")


@pytest.mark.parametrize("damage", ["gone", "garbage", "missing source"])
def test_a_damaged_list_means_python(package: Path, damage: str) -> None:
    listed = package / "state" / "_compiled" / "SOURCES"
    if damage == "gone":
        listed.unlink()
    elif damage == "garbage":
        listed.write_text("no digest\n")
    else:
        listed.write_text(listed.read_text() + f"{'0' * 64}  elsewhere.py\n")
    assert loaded(package) == ("False", "state")
