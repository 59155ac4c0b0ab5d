"""How well the price of data does on recorded L1 fees, beside two public pricers.

    python -m tools.fee_replay FILE [--json] [--plot DIR] [--data auto|calldata|blobs] [--tps N] [--seed N]
        [--lag BLOCKS]

The pricers are those of `tools.fee_baselines`, the load and the batches those of `tools.fee_recording`, the
figures those of `tools.fee_measures`. All begin at what a byte costs at the recording's first block. A second
replay begins five times too high, a third five times too low.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from state.units import PPM
from tools.fee_baselines import OpenLoop, Pricer, Straddle, SurplusFeedback, break_even_pusd
from tools.fee_measures import Figures, Run, drive, measure, moves_away
from tools.fee_recording import LAG_BLOCKS, Replay, replay
from tools.l1_fees import FeesError, read_fees

OFF = 5
SEED = 1
MEAN_TPS = 20.0


@dataclass(frozen=True, slots=True)
class Convergence:
    """From a start that is off by a factor: see `fee_measures.moves_away`."""

    name: str
    factor: float
    batches: int
    moved_away_twice: int


def pricers(replayed: Replay, factor_ppm: int = PPM) -> list[Pricer]:
    """All of them, with their starting price off by a factor."""
    start = max(break_even_pusd(replayed) * factor_ppm // PPM, 1)
    return [
        Straddle(replayed, start),
        SurplusFeedback(replayed, start),
        OpenLoop(replayed, factor_ppm),
    ]


def convergence(replayed: Replay, runs: list[Run]) -> list[Convergence]:
    """Of each pricer, from both sides."""
    found = []
    for factor_ppm in (OFF * PPM, PPM // OFF):
        for right, pricer in zip(runs, pricers(replayed, factor_ppm), strict=True):
            batches, twice = moves_away(replayed, right, drive(replayed, pricer))
            found.append(Convergence(right.name, factor_ppm / PPM, batches, twice))
    return found


def floors(figures: list[Figures], off: list[Convergence]) -> dict[str, bool]:
    """What the price is held to, and whether it does it. The first figures are ours."""
    ours, baselines = figures[0], figures[1:]
    return {
        "worst deficit at most half of the better baseline's": ours.worst_deficit_hours
        <= min(each.worst_deficit_hours for each in baselines) / 2,
        "mean overcharge, over less under, below 3 %": ours.mean_error < 0.03,
        "recovery faster than both": all(_is_faster(ours, each) for each in baselines),
        "no quote exceeded": ours.quotes_exceeded == 0 and ours.quotes > 0,
        "converges without moving away for two batches": not any(
            each.moved_away_twice for each in off if each.name == ours.name
        ),
    }


def _is_faster(ours: Figures, other: Figures) -> bool:
    """A surplus that never leaves the band has nothing to recover from."""
    return ours.recovery_s < other.recovery_s or ours.recovery_s == 0


def table(figures: list[Figures]) -> Table:
    """For people; percent where a figure is a share."""
    shown = Table(box=SIMPLE)
    shown.add_column("")
    for each in figures:
        shown.add_column(each.name, justify="right")
    rows = {
        "worst deficit (hours of cost)": [f"{each.worst_deficit_hours:.4f}" for each in figures],
        "worst surplus (hours of cost)": [f"{each.worst_surplus_hours:.4f}" for each in figures],
        "longest time outside +-5 % (s)": [
            f"{each.recovery_s:.0f}{'' if each.recovered else ', not back'}" for each in figures
        ],
        "mean overcharge, over less under (%)": [f"{100 * each.mean_error:.2f}" for each in figures],
        "overcharge alone, mean, p99 (%)": [
            f"{100 * each.mean_overcharge:.2f}, {100 * each.p99_overcharge:.1f}" for each in figures
        ],
        "undercharge alone, mean, p99 (%)": [
            f"{100 * each.mean_undercharge:.2f}, {100 * each.p99_undercharge:.1f}" for each in figures
        ],
        "largest jump (%)": [f"{100 * each.largest_jump:.1f}" for each in figures],
        "quotes exceeded": [
            f"{each.quotes_exceeded} of {each.quotes}" if each.quotes else "no quotes" for each in figures
        ],
    }
    for name, cells in rows.items():
        shown.add_row(name, *cells)
    return shown


app = typer.Typer(add_completion=False)


@app.command()
def main(
    file: Path,
    as_json: Annotated[bool, typer.Option("--json", help="Figures as JSON.")] = False,
    plots: Annotated[Path | None, typer.Option("--plot", help="Folder for PNG files.")] = None,
    data: Annotated[str, typer.Option(help="How batches go out: auto, calldata or blobs.")] = "auto",
    tps: Annotated[float, typer.Option(min=0.1, help="Mean transactions per second.")] = MEAN_TPS,
    seed: Annotated[int, typer.Option(min=0, help="Of the load.")] = SEED,
    lag: Annotated[
        int, typer.Option(min=0, help="L1 blocks that origins and cost reports lie behind its head.")
    ] = LAG_BLOCKS,
) -> None:
    """Replays FILE's L1 fees through the price of data and two baselines."""
    if data not in ("auto", "calldata", "blobs"):
        raise typer.BadParameter("auto, calldata or blobs", param_hint="--data")
    try:
        replayed = replay(read_fees(file), seed, tps, data, lag)
    except FeesError as problem:
        raise typer.BadParameter(str(problem), param_hint="FILE") from problem
    except (OSError, ValueError) as problem:
        raise typer.BadParameter(f"{file.name}: {problem}", param_hint="FILE") from problem
    runs = [drive(replayed, pricer) for pricer in pricers(replayed)]
    figures = [measure(replayed, run) for run in runs]
    off = convergence(replayed, runs)
    held = floors(figures, off)
    if plots is not None:
        from tools.fee_plots import plot  # matplotlib takes a second to load

        plot(replayed, runs, file.name.split(".")[0], plots)
    if as_json:
        result: dict[str, Any] = {
            "file": file.name,
            "data": data,
            "seed": seed,
            "mean_tps": tps,
            "lag_blocks": lag,
            "batches": len(replayed.batches),
            "pricers": [asdict(each) for each in figures],
            "convergence": [asdict(each) for each in off],
            "floors": held,
        }
        print(msgspec.json.encode(result).decode())
        return
    _show(file.name, replayed, figures, off, held)


def _show(
    name: str, replayed: Replay, figures: list[Figures], off: list[Convergence], held: dict[str, bool]
) -> None:
    console = Console()
    size = sum(batch.size_bytes for batch in replayed.batches) // len(replayed.batches)
    hours = len(replayed.seconds) / 3_600
    console.print(f"{name}: {hours:.1f} h, {len(replayed.batches)} batches of {size:,} bytes on average")
    console.print(table(figures))
    for each in off:
        console.print(
            f"{each.name}, start times {each.factor:g}: within 5 % after {each.batches} batches, "
            f"moved away for two in a row {each.moved_away_twice} times"
        )
    for floor, is_held in held.items():
        console.print(f"{'held  ' if is_held else 'MISSED'} {floor}")


if __name__ == "__main__":
    app()
