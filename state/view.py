"""The one door through which the transition touches state, and the step boundaries at which it may stop.

`StateView` is all that execution may read or write. Production gives it the cached state over LevelDB, the
recorder wraps it and turns any step into a witness, and a witness alone can stand behind it.

Contract: a leaf returned by `get`, `first_under` or `iterate_under` may be changed in place only if the same
step says so (`touch`); nothing read in one step may be kept for another, because between two steps the view
may be a different one.
"""

from __future__ import annotations

from typing import Any, Protocol

from state.leaves import Leaf


class StateView(Protocol):
    """Leaves by 32-byte key, ordered.

    The kind in a key's first byte says which leaf it holds (`leaves.LEAF_OF_KIND`), so readers name the type
    they get rather than check it.
    """

    def get(self, key: bytes, /) -> Any:
        """The leaf under `key`, or None."""

    def put(self, key: bytes, leaf: Leaf, /) -> None:
        """Stores `leaf` under `key`, whether or not there is one."""

    def touch(self, key: bytes, leaf: Leaf, /) -> None:
        """Says that the leaf that was read or put in this step under `key` has been changed in place."""

    def delete(self, key: bytes, /) -> None:
        """Removes the leaf under `key`; it is a bug if there is none."""

    def first_under(self, prefix: bytes, /) -> tuple[bytes, Any] | None:
        """The leaf with the smallest key that starts with `prefix`."""

    def iterate_under(self, prefix: bytes, bound: int, /) -> list[tuple[bytes, Any]]:
        """Up to `bound` leaves under `prefix`, in key order."""
