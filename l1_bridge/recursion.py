"""Python's recursion limit, put back where it protects the stack.

py_ecc, which eth_account and web3 import, raises the limit to 100,000. With it, JSON that is nested deep
enough ends the process inside a C parser, where RecursionError would have been raised. Whoever imports one of
those libraries calls `restore_recursion_limit` after its imports.
"""

import sys

RECURSION_LIMIT = 3_000
"""Above what any library here needs, and far below what a thread's stack of 8 MiB holds."""


def restore_recursion_limit() -> None:
    """Lowers the limit if a library has raised it."""
    if sys.getrecursionlimit() > RECURSION_LIMIT:
        sys.setrecursionlimit(RECURSION_LIMIT)
