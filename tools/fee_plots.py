"""Plots of a fee replay: prices, surplus, and what transactions paid over what they cost. PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from state.units import PUSD_PER_UUSD
from tools.fee_measures import BAND, Run, charge_ratios, costs_uusd, hour_uusd, mined_s, surplus_uusd
from tools.fee_recording import Replay

_HOUR_S = 3_600


def plot(replayed: Replay, runs: Sequence[Run], title: str, folder: Path) -> list[Path]:
    """Writes three files named after `title` into `folder`, which is made if need be; returns them."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "price": _prices(replayed, runs, title),
        "surplus": _surplus(replayed, runs, title),
        "charge": _charges(replayed, runs, title),
    }
    paths = []
    for name, figure in made.items():
        path = folder / f"{title}_{name}.png"
        figure.savefig(path)
        paths.append(path)
    return paths


def _prices(replayed: Replay, runs: Sequence[Run], title: str) -> Figure:
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    start_s = replayed.seconds[0].time_s
    hours = np.arange(len(replayed.seconds)) / _HOUR_S
    charged = np.array([batch.charged_bytes for batch in replayed.batches])
    cost = costs_uusd(replayed) / charged
    axes.step(
        (mined_s(replayed) - start_s) / _HOUR_S,
        cost,
        color="black",
        lw=1,
        label="what batches cost",
        where="pre",
    )
    for run in runs:
        axes.plot(hours, run.price_pusd / PUSD_PER_UUSD, lw=0.8, label=run.name)
    axes.set_yscale("log")
    axes.set(title=title, xlabel="time (hours)", ylabel="price of data (uusd per byte)")
    axes.legend()
    return figure


def _surplus(replayed: Replay, runs: Sequence[Run], title: str) -> Figure:
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    hours = (mined_s(replayed) - replayed.seconds[0].time_s) / _HOUR_S
    axes.axhspan(-BAND, BAND, color="lightgrey", label=f"+-{BAND:.0%}")
    for run in runs:
        axes.step(hours, surplus_uusd(replayed, run) / hour_uusd(replayed), label=run.name, where="post")
    axes.set(title=title, xlabel="time (hours)", ylabel="surplus (hours of mean cost)")
    axes.legend()
    return figure


def _charges(replayed: Replay, runs: Sequence[Run], title: str) -> Figure:
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        ratio, weight = charge_ratios(replayed, run)
        order = np.argsort(ratio)
        share = np.cumsum(weight[order]) / weight.sum()
        axes.plot(100 * (ratio[order] - 1), 100 * share, label=run.name)
    axes.axvline(0, color="black", lw=0.5)
    axes.set_xlim(-60, 100)
    axes.set(
        title=title,
        xlabel="paid above share of the batch's cost (%)",
        ylabel="transactions that paid less (%)",
    )
    axes.legend()
    return figure
