"""The exchange as a pure state machine, in Python or compiled to C.

`python -m tools.compile_state` compiles the hot modules with mypyc into `state/_compiled`. They are taken
from there when the sources are still those that were compiled, byte for byte; otherwise, and where nobody
compiled anything, the same modules run as Python. `STRADDLE_PURE=1` asks for Python. The two give the same
results: the tests run on the compiled form, the golden vectors and random traffic on both.
"""

import os as _os
from hashlib import sha256 as _sha256
from pathlib import Path as _Path


def _is_current(compiled: _Path, sources: _Path) -> bool:
    """Whether `compiled` was made from what `sources` holds now."""
    try:
        lines = compiled.joinpath("SOURCES").read_text().splitlines()
        return all(
            _sha256(sources.joinpath(name).read_bytes()).hexdigest() == digest
            for digest, name in (line.split("  ") for line in lines)
        )
    except (OSError, ValueError):
        return False


_HERE = _Path(__file__).parent
COMPILED = _os.environ.get("STRADDLE_PURE", "") in ("", "0") and _is_current(
    _HERE.joinpath("_compiled"), _HERE
)
"""Whether the hot modules are the compiled ones."""
if COMPILED:
    __path__.insert(0, str(_HERE.joinpath("_compiled")))
