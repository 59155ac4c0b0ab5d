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

from tools.expiry_scene import Settled
from tools.job_fees import JobFees
from tools.job_quotes import FeeQuotes
from tools.option_desk import OptionDesk
from tools.option_takers import OptionTakers
from tools.order_sender import Tally

PLAIN_INTERVAL_S = 5


@dataclass(slots=True)
class Progress:
    """What the display shows and the summary says."""

    stage: str = "starting"
    status: dict[str, Any] = field(default_factory=dict)
    verified: dict[int, dict[str, Any]] = field(default_factory=dict)
    mismatched: int = 0
    withdrawals_paid: int = 0
    conservation_ok: bool = False
    tally: Tally | None = None
    """None before there is somebody who trades."""
    desk: OptionDesk | None = None
    takers: OptionTakers | None = None
    block_trades: int = 0
    liquidations: int = 0
    fees: JobFees | None = None
    """None before the node runs."""
    quotes: FeeQuotes | None = None
    """None before there is somebody who asks."""
    settled: Settled | None = None
    """None before the expiry, and where time cannot travel to it."""


class Display:
    """A context manager; `refresh` redraws from the progress it was given."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._panel)
        self._last_line = 0.0
        self._last_stage = ""
        self._told: dict[str, str] = {}

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
        """Redraws the panel, or prints what is new: when the stage changed, and every five seconds."""
        if self._console.is_terminal:
            self._live.refresh()
            return
        now, stage = time.monotonic(), self._progress.stage
        if stage != self._last_stage or now - self._last_line > PLAIN_INTERVAL_S:
            self._last_line, self._last_stage = now, stage
            told, self._told = self._told, dict(self._facts())
            news = [f"{name} {value}" for name, value in self._told.items() if told.get(name) != value]
            self._console.print(f"{stage}: {', '.join(news)}", soft_wrap=True)

    def report(self, summary: dict[str, Any]) -> None:
        """The summary as a table."""
        table = Table("summary", "")
        for name, value in summary.items():
            table.add_row(name, _shown(value))
        self._console.print(table)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, soft_wrap=True, highlight=False)

    def _facts(self) -> list[tuple[str, str]]:
        progress = self._progress
        status, tally = progress.status, progress.tally
        facts = []
        if tally is not None:
            facts += [
                ("orders", f"{tally.orders:,}"),
                ("fills", f"{tally.fills:,}"),
                ("refused", f"{tally.rejected:,}"),
                ("ack p50/p99", f"{tally.percentile_ms(50):.0f}/{tally.percentile_ms(99):.0f} ms"),
            ]
        facts += self._option_facts()
        if status:
            facts += [
                ("margin checks", f"{status['margin_checks']:,}"),
                ("blocks", f"{status['block_number']:,}"),
                ("batches closed/posted/final", _slashed(status, "committed", "posted", "finalized")),
            ]
        if progress.fees is not None:
            facts += progress.fees.facts(tally.orders if tally else 0)
        if progress.quotes is not None:
            facts.append(
                ("fee quotes asked, exceeded", f"{progress.quotes.asked:,}, {progress.quotes.exceeded}")
            )
        facts.append(("roots verified", f"{len(progress.verified):,}"))
        return facts

    def _option_facts(self) -> list[tuple[str, str]]:
        progress = self._progress
        facts = []
        if progress.desk is not None and progress.takers is not None:
            facts += [
                ("options and futures quoted", f"{progress.desk.quoted}"),
                ("fills in them", f"{progress.takers.fills:,}"),
                ("desk's delta", f"{progress.desk.net_delta:+.2f}"),
                ("block trades, liquidations", f"{progress.block_trades}, {progress.liquidations}"),
            ]
        if progress.settled is not None:
            settled = progress.settled
            facts.append(("settled", f"{settled.name} at {settled.price_usd:,.2f}"))
            facts.append(("settled positions", f"{settled.positions}"))
        return facts

    def _panel(self) -> Panel:
        grid = Table.grid(padding=(0, 2))
        for name, value in self._facts():
            grid.add_row(name, value)
        return Panel(grid, title="Straddle", subtitle=self._progress.stage, width=92)


def _shown(value: Any) -> str:
    if value is None:
        return "skipped"
    if isinstance(value, float):
        return f"{value:,.6f}".rstrip("0").rstrip(".")
    return str(value) if isinstance(value, bool) else f"{value:,}"


def _slashed(status: dict[str, Any], *names: str) -> str:
    return " / ".join(str(status[f"{name}_batch"]) for name in names)
