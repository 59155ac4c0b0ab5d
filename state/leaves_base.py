"""What a leaf of the tree is: a mutable record with one fixed big-endian layout.

A leaf is mutable so that the hot path need not copy it; the rule is that whoever changes a leaf says so
to the view (`touch`) in the same step (the recorder checks that). `encode` packs the fields in the order of
their declaration by one struct call; `decode` refuses any other length. Money and sizes are signed 64-bit:
`units` bounds them. Leaves are plain dataclasses, because those become C structures when compiled.

The leaves stand by subject in `leaves_*.py`, and are imported from `state.leaves`, which makes them ready.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Any, ClassVar, Protocol, Self


class Leaf(Protocol):
    """What the state stores under a key."""

    def encode(self) -> bytes: ...


class FixedLeaf:
    """A leaf of fixed layout: `LAYOUT` packs its fields in the order of their declaration."""

    LAYOUT: ClassVar[Struct]
    values: ClassVar[Any]
    """Gets the fields as a tuple."""

    def encode(self) -> bytes:
        """Raises struct.error if a field is out of its range: a bug, since `units` bounds all inputs."""
        return self.LAYOUT.pack(*self.values(self))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises ValueError when the length is not the layout's."""
        if len(data) != cls.LAYOUT.size:
            raise ValueError(f"{cls.__name__}: {len(data)} bytes, expected {cls.LAYOUT.size}")
        return cls(*cls.LAYOUT.unpack(data))


@dataclass
class Marker(FixedLeaf):
    """An index entry that carries no value of its own."""

    LAYOUT: ClassVar[Struct] = Struct(">B")

    one: int
    """Always 1."""
