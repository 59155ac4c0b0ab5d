"""Compiles the hot modules of `state/` to C with mypyc: `python -m tools.compile_state`.

The sources stay what they are, and remain the reference; mypyc turns the same typed Python into an extension
module whose leaves are C structures and whose calls are C calls. The result stands in `state/_compiled`
beside a list of the sources' digests, by which `state/__init__.py` tells whether it still fits. It takes a
minute and a C compiler with Python's headers; without them everything runs as Python, only slower.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from hashlib import sha256
from pathlib import Path

import state

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "state" / "_compiled"
MODULES = """
accounts book cache codec codec_decode codec_format context eip712 expiry_books expiry_sums extras
fee_market fee_tiers fees holdings keys l1_market l1_price leaves leaves_account leaves_base leaves_fees
leaves_liquidation leaves_market leaves_orders leaves_pricing leaves_priority leaves_system margin
margin_parts margin_terms matching operations orders overlay portfolio positions pricing priority protection
recorder risk_fees rules signatures steps transition tree tree_forest tree_regroup trigger_book units view
""".split()  # noqa: SIM905 - shorter to read
"""What runs for each order, and the tree. Not what runs seldom, since each costs a second of compiling; not
what does I/O; and not actions and results of blocks: those are C already by msgspec, which decodes them by
annotations that mypyc does not keep."""

_BUILD = """
from setuptools import setup
from mypyc.build import mypycify
options = ["--config-file=mypy.toml", *{sources!r}]
made = mypycify(options, opt_level="1", debug_level="0", group_name="state.hot")
setup(name="state", packages=[], ext_modules=made)
"""


def missing_compiler() -> str:
    """What this machine lacks for compiling; empty when nothing."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None and shutil.which("gcc") is None:
        return "a C compiler"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "Python's C headers"
    return ""


def compile_state() -> None:
    """Replaces `state/_compiled`; raises CalledProcessError with the compiler's output on stderr."""
    sources = [f"state/{module}.py" for module in MODULES]
    digests = {name: sha256((ROOT / name).read_bytes()).hexdigest() for name in sources}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        shutil.copytree(
            ROOT / "state", work / "state", ignore=shutil.ignore_patterns("_compiled", "__pycache__")
        )
        shutil.copy(ROOT / "pyproject.toml", work / "mypy.toml")
        (work / "build_state.py").write_text(_BUILD.format(sources=sources))
        command = [sys.executable, "build_state.py", "--quiet", "build_ext", "--inplace", "--parallel", "2"]
        done = subprocess.run(command, cwd=work, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
            done.check_returncode()
        made = work / "state" / "_compiled"
        made.mkdir()
        for library in (work / "state").glob("*.so"):
            shutil.move(library, made / library.name)
        lines = [f"{digest}  {Path(name).name}\n" for name, digest in digests.items()]
        (made / "SOURCES").write_text("".join(lines))
        shutil.rmtree(TARGET, ignore_errors=True)
        shutil.copytree(made, TARGET)


def main() -> None:
    if state.COMPILED:
        return
    lacking = missing_compiler()
    if lacking:
        print(f"SKIPPED without {lacking}: compiling state/; it runs as Python, slower")
        return
    compile_state()
    print(f"compiled {len(MODULES)} modules of state/")


if __name__ == "__main__":
    main()
