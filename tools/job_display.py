"""What `make run` shows: one live panel on a terminal, a line now and then elsewhere, a table at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from tools.flow import Flow

PLAIN_INTERVAL_S = 5


@dataclass(slots=True)
class Progress:
    """What the display shows and the summary says."""

    stage: str = "starting"
    status: dict[str, Any] = field(default_factory=dict)
    verified: dict[int, dict[str, Any]] = field(default_factory=dict)
    mismatched: int = 0
    l1_spent_wei: int = 0
    withdrawals_paid: int = 0
    conservation_ok: bool = False


class Display:
    """A context manager; `refresh` redraws from the progress it was given."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self.flow: Flow | None = None
        self._progress = progress
        self._console = console
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._panel)
        self._last_line = 0.0
        self._last_stage = ""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def refresh(self) -> None:
        """Redraws the panel, or prints a line when the stage changed or five seconds have passed."""
        if self._console.is_terminal:
            self._live.refresh()
            return
        now, stage = time.monotonic(), self._progress.stage
        if stage != self._last_stage or now - self._last_line > PLAIN_INTERVAL_S:
            self._last_line, self._last_stage = now, stage
            self._console.print(f"{stage}: " + ", ".join(f"{name} {value}" for name, value in self._facts()))

    def report(self, summary: dict[str, Any]) -> None:
        """The summary as a table."""
        table = Table("summary", "")
        for name, value in summary.items():
            table.add_row(name, str(value) if isinstance(value, bool) else f"{value:,}")
        self._console.print(table)

    def _facts(self) -> list[tuple[str, str]]:
        status, flow = self._progress.status, self.flow
        facts = []
        if flow is not None:
            tally = flow.tally
            facts += [
                ("orders", f"{tally.orders:,}"),
                ("fills", f"{tally.fills:,}"),
                ("refused", f"{tally.rejected:,}"),
                ("ack p50/p99", f"{tally.percentile_ms(50):.0f}/{tally.percentile_ms(99):.0f} ms"),
            ]
        if status:
            facts += [
                ("blocks", f"{status['block_number']:,}"),
                ("batches closed/posted/final", _slashed(status, "committed", "posted", "finalized")),
            ]
        facts.append(("L1 spend", f"{self._progress.l1_spent_wei / 10**18:.6f} ETH"))
        facts.append(("roots verified", f"{len(self._progress.verified):,}"))
        return facts

    def _panel(self) -> Panel:
        grid = Table.grid(padding=(0, 2))
        for name, value in self._facts():
            grid.add_row(name, value)
        return Panel(grid, title="Straddle", subtitle=self._progress.stage, width=72)


def _slashed(status: dict[str, Any], *names: str) -> str:
    return " / ".join(str(status[f"{name}_batch"]) for name in names)
