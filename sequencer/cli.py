"""The `straddle` command: one program for the operator, the verifier and the trader.

Every command says what is wrong in one line on standard error and exits with 1 (2 for wrong usage, by typer);
tracebacks are for bugs. Secrets come from keystores and the environment, never from arguments.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
import typer

from sequencer.cli_services import run_node, run_verifier
from sequencer.cli_support import exits_cleanly
from sequencer.config import NodeConfig, VerifierConfig
from sequencer.config_file import ConfigError, default_text, load

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Straddle, a derivatives rollup: run a node or a verifier, deploy, trade, withdraw.",
)

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file; `straddle init` writes one with all defaults."),
]


@app.command()
@exits_cleanly
def init(
    role: Annotated[str, typer.Argument(help="node or verifier")],
    path: Annotated[Path | None, typer.Argument(help="Default: node.toml or verifier.toml here.")] = None,
) -> None:
    """Write a configuration file with every key, its default and what it means."""
    roles: dict[str, type[NodeConfig] | type[VerifierConfig]] = {
        "node": NodeConfig,
        "verifier": VerifierConfig,
    }
    if role not in roles:
        raise typer.BadParameter(f"{role!r} is not a role; roles are node and verifier")
    target = path or Path(f"{role}.toml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(default_text(roles[role]))
    except FileExistsError:
        raise ConfigError(f"{target} exists already; it was left as it is") from None
    typer.echo(f"wrote {target}")


@app.command()
@exits_cleanly
def node(config: ConfigPath = None) -> None:
    """Run a node (the sequencer) until SIGTERM or Ctrl-C; it then drains and stops."""
    trio.run(run_node, load(NodeConfig, config, os.environ))


@app.command()
@exits_cleanly
def verifier(
    config: ConfigPath = None,
    follow: Annotated[bool, typer.Option(help="Keep going as new batches are posted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per verified batch.")] = False,
) -> None:
    """Rebuild the state from L1 alone and compare every posted root; exits with 1 if one is wrong."""
    trio.run(partial(run_verifier, load(VerifierConfig, config, os.environ), follow, as_json))


def main() -> None:
    """Entry point of the `straddle` script."""
    app()


if __name__ == "__main__":
    main()
