"""`python -m tools.svi_fit FILE`: fits SVI to a recorded option chain and says how good the fit is.

Errors are |model volatility - volatility of the mid price| in vol points (1 is 0.01), over two-sided quotes
whose |delta| at the mid's volatility lies between 0.1 and 0.9. *Within* is the share of them whose model
volatility lies between the bid's and the ask's: a wide quote has a mid that means little, so a large error
there is none. The arbitrage checks are those of `sequencer.svi`.

Exit status: 0 every expiry fitted and the median error over all quotes below `--limit`, 1 not so, 2 the file
cannot be read.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sequencer.option_chain import ChainError, OptionChain, read_chain
from sequencer.svi_fit import BAND, FittedChain, FittedExpiry, QuoteErrors, fit_chain

VOL_POINT = 0.01
ERRORS = ("expiry", "two-sided", "judged", "median", "RMS", "half spread", "within")
PARAMETERS = ("expiry", "a", "b", "rho", "m", "sigma", "least g", "calendar")


def summary(chain: OptionChain, fitted: FittedChain) -> dict[str, Any]:
    """Everything that the tool reports, ready for JSON; errors in vol points, None where there are none."""
    whole = QuoteErrors(
        np.concatenate([one.errors.abs_error for one in fitted.expiries] or [np.zeros(0)]),
        np.concatenate([one.errors.half_spread for one in fitted.expiries] or [np.zeros(0)]),
        np.concatenate([one.errors.contained for one in fitted.expiries] or [np.zeros(0, dtype=np.bool_)]),
        sum(one.errors.without_vol for one in fitted.expiries),
    )
    return {
        "underlying": chain.underlying,
        "snapshot": _moment(chain.snapshot_ms),
        "options": sum(len(expiry.quotes) for expiry in chain.expiries),
        "two_sided": sum(one.quotes for one in fitted.expiries),
        "delta_band": list(BAND),
        "overall": _errors(whole),
        "expiries": [_expiry(one) for one in fitted.expiries],
        "refused": [{"expiry": _moment(at), "reason": reason} for at, reason in fitted.refused],
    }


def _expiry(one: FittedExpiry) -> dict[str, Any]:
    return {
        "expiry": _moment(one.expiry_ms),
        "two_sided": one.quotes,
        "errors": _errors(one.errors),
        "svi": asdict(one.svi),
        "arbitrage": asdict(one.arbitrage),
    }


def _errors(errors: QuoteErrors) -> dict[str, Any]:
    spread = errors.half_spread[np.isfinite(errors.half_spread)]
    return {
        "quotes": errors.count,
        "median_vol_points": _points(errors.median),
        "rms_vol_points": _points(errors.rms),
        "median_half_spread_vol_points": _points(float(np.median(spread)) if len(spread) else math.nan),
        "within_bid_ask": errors.containment if errors.count else None,
        "mids_without_volatility": errors.without_vol,
    }


def _points(volatility: float) -> float | None:
    return None if math.isnan(volatility) else volatility / VOL_POINT


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def show(console: Console, result: dict[str, Any]) -> None:
    errors = _table(f"{result['underlying']} options, {result['snapshot']}: errors in vol points", ERRORS)
    parameters = _table("Parameters, and the least margins of the butterfly and calendar checks", PARAMETERS)
    for one in result["expiries"]:
        checks = one["arbitrage"]
        errors.add_row(one["expiry"][:10], str(one["two_sided"]), *_cells(one["errors"]))
        parameters.add_row(
            one["expiry"][:10],
            *(f"{one['svi'][name]:.4f}" for name in ("a", "b", "rho", "m", "sigma")),
            f"{checks['least_butterfly']:.4f}",
            "" if checks["least_calendar"] is None else f"{checks['least_calendar']:.4f}",
        )
    errors.add_section()
    errors.add_row("all", str(result["two_sided"]), *_cells(result["overall"]))
    console.print(errors, parameters)
    for refused in result["refused"]:
        console.print(f"not fitted: {refused['expiry']}: {refused['reason']}", soft_wrap=True)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, box=SIMPLE, padding=(0, 0, 0, 1))
    for name in columns:
        table.add_column(name, justify="left" if name == "expiry" else "right", no_wrap=True)
    return table


def _cells(errors: dict[str, Any]) -> list[str]:
    names = ("median_vol_points", "rms_vol_points", "median_half_spread_vol_points")
    numbers = ["-" if errors[name] is None else f"{errors[name]:.3f}" for name in names]
    within = errors["within_bid_ask"]
    return [str(errors["quotes"]), *numbers, "-" if within is None else f"{within:.1%}"]


def main(
    file: Annotated[Path, typer.Argument(help="An option chain in Deribit's CSV columns, plain or gzip.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    limit: Annotated[float, typer.Option(min=0, help="Highest median error allowed, in vol points.")] = 1.0,
) -> None:
    """Fits SVI to every expiry of a recorded option chain and reports errors and arbitrage checks."""
    try:
        chain = read_chain(file)
    except (ChainError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    result = summary(chain, fit_chain(chain))
    if as_json:
        print(msgspec.json.encode(result).decode())
    else:
        show(Console(), result)
    median = result["overall"]["median_vol_points"]
    if median is None or median >= limit or result["refused"]:
        typer.echo(
            f"median error {median} vol points, limit {limit}; {len(result['refused'])} refused", err=True
        )
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
