"""A view that writes into memory only: for simulation, and for looking ahead at what an order would do."""

from __future__ import annotations

from bisect import insort
from typing import Any

from state.leaves import Leaf, decode_leaf
from state.view import StateView


class Overlay:
    """StateView over another; leaves are copied when read, and the other is never changed."""

    def __init__(self, base: StateView) -> None:
        self._base = base
        self._leaves: dict[bytes, Leaf | None] = {}

    def get(self, key: bytes, /) -> Any:
        if key not in self._leaves:
            leaf = self._base.get(key)
            self._leaves[key] = None if leaf is None else decode_leaf(key, leaf.encode())
        return self._leaves[key]

    def put(self, key: bytes, leaf: Leaf, /) -> None:
        self._leaves[key] = leaf

    def touch(self, key: bytes, leaf: Leaf, /) -> None:
        assert self._leaves[key] is leaf, key.hex()

    def delete(self, key: bytes, /) -> None:
        self._leaves[key] = None

    def first_under(self, prefix: bytes, /) -> tuple[bytes, Any] | None:
        found = self.iterate_under(prefix, 1)
        return found[0] if found else None

    def iterate_under(self, prefix: bytes, bound: int, /) -> list[tuple[bytes, Any]]:
        own = [key for key in self._leaves if key.startswith(prefix)]
        gone = sum(self._leaves[key] is None for key in own)
        keys = [key for key, _ in self._base.iterate_under(prefix, bound + gone)]
        for key in own:
            if key not in keys:
                insort(keys, key)
        return [(key, leaf) for key in keys if (leaf := self.get(key)) is not None][:bound]
