"""The house's one-way flow: who may import whom, and what the pure core may not touch."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"state", "l1_bridge", "sequencer", "tools", "tests"}
MAY_IMPORT = {
    "state": {"state"},
    "l1_bridge": {"l1_bridge", "state"},
    "sequencer": {"sequencer", "l1_bridge", "state"},
}
STATE_IO_FILES = {"store.py", "journal.py", "__init__.py"}
"""The package itself looks whether its modules are compiled; nothing that executes reads that."""
IMPURE_MODULES = {
    "os",
    "io",
    "time",
    "datetime",
    "random",
    "secrets",
    "socket",
    "threading",
    "trio",
    "plyvel",
    "pathlib",
}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; write the full name"
            assert node.module is not None
            yield node.module


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"{folder}/ has no Python files: the layer test would test nothing"
    return found


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_folders_import_only_what_the_design_allows(folder: str) -> None:
    for path in sources(folder):
        for name in imports(ast.parse(path.read_text(), str(path))):
            top = name.split(".")[0]
            assert top not in OURS or top in MAY_IMPORT[folder], f"{path.relative_to(ROOT)} imports {name}"


def test_the_pure_core_has_no_clock_no_io_no_randomness() -> None:
    for path in sources("state"):
        if path.name in STATE_IO_FILES:
            continue
        for name in imports(ast.parse(path.read_text(), str(path))):
            assert name.split(".")[0] not in IMPURE_MODULES, f"{path.relative_to(ROOT)} imports {name}"


def test_the_pure_core_has_no_float_and_no_true_division() -> None:
    for path in sources("state"):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.BinOp | ast.AugAssign):
                assert not isinstance(node.op, ast.Div), f"{where}: true division"
            if isinstance(node, ast.Constant):
                assert not isinstance(node.value, float), f"{where}: float literal"
            if isinstance(node, ast.Name):
                assert node.id != "float", f"{where}: float"


def test_leaves_are_imported_through_their_door() -> None:
    """`state.leaves` makes all leaves ready to encode: one imported past it would not be."""
    for path in [path for folder in sorted(OURS) for path in sources(folder)]:
        if path.parent.name == "state" and path.name.startswith("leaves"):
            continue
        past = [
            name
            for name in imports(ast.parse(path.read_text(), str(path)))
            if name.startswith("state.leaves_")
        ]
        assert not past, f"{path.relative_to(ROOT)} imports {past}"


def test_only_the_agreed_folders_stand_at_the_top() -> None:
    allowed = {"sequencer", "state", "l1_bridge", "tests", "contracts", "tools"}
    local = {"build", "dist", "data"}
    found = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    found = {name for name in found if not name.endswith(".egg-info")}
    assert found - local == allowed
