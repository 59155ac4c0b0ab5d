"""`python -m tools.bench [--json PATH] [NAMES...]`: every benchmark, each figure beside its limit, one run.

Machines differ and are noisy, so speeds are compared with yardsticks measured in the same run: one signature
recovery and one keccak. Exits 1 if a figure misses its limit.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tools.figure import Figure, keccak_seconds, recover_seconds

BENCHES = {
    "recover_limit": "tools.bench:bench_recover_limit",
    "rpc_single": "tools.bench_rpc:bench_rpc_single",
    "rpc_array": "tools.bench_rpc:bench_rpc_array",
    "rpc_bulk": "tools.bench_rpc:bench_rpc_bulk",
    "ack_latency": "tools.bench_rpc:bench_ack_latency",
    "transition": "tools.bench_transition:bench_transition",
    "transition_options": "tools.bench_options:bench_transition_options",
    "units": "tools.bench_units:bench_units",
    "pricing": "tools.bench_pricing:bench_pricing",
    "margin": "tools.bench_options:bench_account_margin",
    "portfolio": "tools.bench_margin:bench_margin",
    "chain": "tools.bench_margin:bench_chain",
    "root": "tools.bench_root:bench_root",
    "codec": "tools.bench_codec:bench_codec",
    "l1_cost": "tools.bench_l1:bench_l1_cost",
    "verify": "tools.bench_verify:bench_verify",
    "recovery": "tools.bench_store:bench_recovery",
}


def bench_recover_limit() -> list[Figure]:
    """The yardsticks themselves."""
    return [
        Figure("secp256k1 recoveries on one core", 1 / recover_seconds(), "1/s"),
        Figure("keccak of 64 bytes on one core", 1 / keccak_seconds(), "1/s"),
    ]


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Any of: {', '.join(BENCHES)}. All by default.")
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Also write the figures here.")] = None,
) -> None:
    """Runs benchmarks and prints each figure beside its limit."""
    console = Console()
    unknown = set(names or []) - set(BENCHES)
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(BENCHES)}")
    table = Table("benchmark", "figure", "value", "limit", "", "note")
    results: dict[str, list[Figure]] = {}
    for name in names or BENCHES:
        console.print(f"running {name} ...", style="dim")
        module, function = BENCHES[name].split(":")
        results[name] = getattr(importlib.import_module(module), function)()
        for figure in results[name]:
            limit = "" if figure.limit is None else f"{figure.relation} {figure.limit:,.6g}"
            verdict = {None: "", True: "[green]holds[/]", False: "[red]MISSED[/]"}[figure.holds]
            table.add_row(
                name, figure.name, f"{figure.value:,.6g} {figure.unit}", limit, verdict, figure.note
            )
    console.print(table)
    if json_path:
        rows = {name: [asdict(f) | {"holds": f.holds} for f in figures] for name, figures in results.items()}
        json_path.write_text(json.dumps(rows, indent=1))
    if any(figure.holds is False for figures in results.values() for figure in figures):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
