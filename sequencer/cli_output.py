"""How commands print: tables for people, plain aligned columns when piped, JSON when asked.

Results go to standard output; what is about to be signed, progress and notes go to standard error, so that
`--json` output can be piped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from sequencer.cli_support import printable

Cells = Sequence[str]


def print_json(value: Any) -> None:
    """One JSON value, as the node gave it or as the command made it."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=_plain), indent=2).decode())


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return "0x" + value.hex()
    raise NotImplementedError(type(value))


def print_table(title: str, columns: Cells, rows: Sequence[Cells], left: int = 1) -> None:
    """A table whose first `left` columns are text and the others numbers."""
    cells = [[printable(cell) for cell in row] for row in rows]
    console = Console()
    if console.is_terminal:
        console.print(Text(printable(title), "bold"))
        table = Table(box=box.SIMPLE_HEAD)
        for place, name in enumerate(columns):
            table.add_column(name, justify="left" if place < left else "right", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))
        console.print(table)
        return
    widths = [max(len(row[place]) for row in [list(columns), *cells]) for place in range(len(columns))]
    typer.echo(printable(title))
    for row in [list(columns), *cells]:
        aligned = [
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo("  ".join(aligned).rstrip())


def print_fields(title: str, fields: Sequence[tuple[str, str]]) -> None:
    """Names and values, one pair on a line."""
    width = max(len(name) for name, _ in fields)
    Console(soft_wrap=True).print(Text(printable(title), "bold"))
    for name, value in fields:
        typer.echo(f"  {name.ljust(width)}  {printable(value)}")


def note(text: str) -> None:
    """A line on standard error."""
    typer.echo(text, err=True)


class Steps:
    """Progress of something that takes minutes: finished steps stay, what is waited for is replaced.

    Not on a terminal, each thing that is waited for is said once.
    """

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._status: Status | None = None
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def done(self, text: str) -> None:
        """A step is finished."""
        self._stop()
        self._console.print(Text(f"done: {printable(text)}"), soft_wrap=True)

    def wait(self, what: str, detail: str = "") -> None:
        """`what` is waited for; `detail` may change as often as it likes."""
        if not self._console.is_terminal:
            if what != self._said:
                self._console.print(Text(f"waiting: {printable(what)}"), soft_wrap=True)
            self._said = what
            return
        text = Text(printable(f"{what}; {detail}" if detail else what))
        if self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
