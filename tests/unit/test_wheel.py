"""The distribution is the application alone: three packages, their data, and the `straddle` command."""

import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[str]:
    """The files that git knows and that are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [name for name in listed.decode().split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("wheel")
    for name in tracked():
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_only_the_applications_packages_are_in_it(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sequencer", "state", "l1_bridge"}


def test_every_module_and_the_data_that_they_read_are_in_it(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    modules = {name for name in tracked() if name.endswith(".py")}
    ours = {name for name in modules if name.split("/")[0] in ("sequencer", "state", "l1_bridge")}
    assert {name for name in names if name.endswith(".py")} == ours
    for contract in ("Rollup", "Vault", "Inbox", "TestToken"):
        assert f"l1_bridge/artifacts/{contract}.json" in names
    assert "state/PROTOCOL.md" in names


def test_the_straddle_command_is_installed(wheel: zipfile.ZipFile) -> None:
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "straddle = sequencer.cli:main" in wheel.read(entry_points).decode()
    (metadata,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    assert message_from_bytes(wheel.read(metadata))["Requires-Python"] == ">=3.11"
