"""JSONPath for one value: the *singular queries* of RFC 9535 (2.3.5.1), without I/O.

    $                       the document
    $.result.index_price    members by name: letters, digits, _ and anything beyond ASCII, no digit first
    $['index price']        members by any name, in single or double quotes; \\ before a quote or a \\
    $.bids[0][-1]           elements by number, from 0; negative numbers count from the end

Wildcards, slices, filters and recursive descent can give many values and are refused: a feed has one. The
libraries for the whole language bring its filters and functions, parsed anew at every start, for this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

MAX_PATH = 512
_SEGMENT = re.compile(
    r"""\.(?P<name>[A-Za-z_\u0080-\U0010ffff][0-9A-Za-z_\u0080-\U0010ffff]*)"""
    r"""|\[(?P<index>0|-?[1-9][0-9]{0,8})\]"""
    r"""|\['(?P<single>(?:[^'\\]|\\['\\])*)'\]"""
    r"""|\["(?P<double>(?:[^"\\]|\\["\\])*)"\]"""
)
_ESCAPE = re.compile(r"\\(.)")


class JsonPathError(ValueError):
    """Not a path that we read, or the document has nothing there."""


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A parsed path: names and numbers, from the document inwards."""

    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises JsonPathError with the place at which the path is none."""
        if not text.startswith("$") or len(text) > MAX_PATH:
            raise JsonPathError(
                f"path {text[:80]!r}: must begin with $ and have at most {MAX_PATH} characters"
            )
        steps: list[str | int] = []
        place = 1
        while place < len(text):
            found = _SEGMENT.match(text, place)
            if found is None:
                raise JsonPathError(
                    f"path {text!r}: at {text[place:]!r}: expected .name, ['name'] or [number]"
                )
            kind = found.lastgroup
            assert kind is not None
            part = found[kind]
            steps.append(int(part) if kind == "index" else _ESCAPE.sub(r"\1", part))
            place = found.end()
        return cls(tuple(steps))

    def find(self, document: Any) -> Any:
        """The value there. Raises JsonPathError naming the first step that leads nowhere."""
        value = document
        for number, step in enumerate(self.steps):
            fits = isinstance(value, list if isinstance(step, int) else dict)
            if not fits:
                wanted = "an array" if isinstance(step, int) else "an object"
                raise JsonPathError(f"{self._text(number)} is not {wanted}")
            try:
                value = value[step]
            except (KeyError, IndexError):
                raise JsonPathError(f"{self._text(number)} has no {step!r}") from None
        return value

    def __str__(self) -> str:
        return self._text(len(self.steps))

    def _text(self, steps: int) -> str:
        return "$" + "".join(f"[{step!r}]" for step in self.steps[:steps])
