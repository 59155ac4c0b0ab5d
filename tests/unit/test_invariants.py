"""Numbered invariants (`iBOOK_001`): stated once, and each of them known to a test.

An invariant is stated by a row of a table in `state/PROTOCOL.md`, or by a line of a module's text that begins
with its number; a module may say again what PROTOCOL says. A test knows it that names it, in its text or, in
small letters, in its function's name.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUMBER = r"i[A-Z][A-Z0-9]*(?:_[A-Z]+)*_[0-9]{3}"
NAMED = re.compile(rf"(?<![A-Za-z0-9]){NUMBER}(?![0-9])")
IN_A_NAME = re.compile(r"def test_(i[a-z][a-z0-9]*(?:_[a-z]+)*_[0-9]{3})(?![0-9])")
ROW = re.compile(rf"^\| ({NUMBER}) \|", re.MULTILINE)
LINE = re.compile(rf"^(?:- )?({NUMBER}) ", re.MULTILINE)


def of_protocol() -> list[str]:
    return ROW.findall((ROOT / "state" / "PROTOCOL.md").read_text())


def of_modules() -> list[str]:
    found: list[str] = []
    for folder in ("state", "l1_bridge", "sequencer", "tools"):
        for path in sorted((ROOT / folder).glob("*.py")):
            found += LINE.findall(ast.get_docstring(ast.parse(path.read_text())) or "")
    return found


def named_in_tests() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text()
        if path != Path(__file__):
            yield from ((number, path) for number in NAMED.findall(text))
            yield from (("i" + name[1:].upper(), path) for name in IN_A_NAME.findall(text))


def test_numbers_are_given_once() -> None:
    for stated in (of_protocol(), of_modules()):
        assert len(stated) > 20
        assert [number for number, times in Counter(stated).items() if times > 1] == []


def test_tests_name_invariants_that_exist() -> None:
    stated = {*of_protocol(), *of_modules()}
    assert [f"{path.name}: {number}" for number, path in named_in_tests() if number not in stated] == []


def test_every_invariant_is_known_to_a_test() -> None:
    named = {number for number, _ in named_in_tests()}
    assert sorted({*of_protocol(), *of_modules()} - named) == []
