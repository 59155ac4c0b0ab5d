"""The `straddle` command: one program for the operator, the verifier and the trader.

Every command says what is wrong in a line or two on standard error and exits with 1 (2 for wrong usage, by
typer); tracebacks are for bugs. Secrets come from keystores and the environment, never from arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
import typer

from sequencer.cli_deploy import deploy
from sequencer.cli_depth import block, quote, trigger
from sequencer.cli_fees import fees
from sequencer.cli_history import history
from sequencer.cli_keys import keys_app
from sequencer.cli_market import account, book, markets, receipt, status
from sequencer.cli_money import deposit, withdraw
from sequencer.cli_proof import proof
from sequencer.cli_rfq import rfq_app
from sequencer.cli_support import exits_cleanly, service_environment
from sequencer.cli_trader import cancel, order
from sequencer.config import NodeConfig, VerifierConfig
from sequencer.config_file import ConfigError, default_text, load

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Straddle, a derivatives rollup: run a node or a verifier, deploy, trade, withdraw.",
)
OPERATE = "Operate"
MONEY = "Money"
TRADE = "Trade"
LOOK = "Look"

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file; `straddle init` writes one with all defaults."),
]


@app.command(rich_help_panel=OPERATE, epilog="Example: straddle init node")
@exits_cleanly
def init(
    role: Annotated[str, typer.Argument(help="node, verifier, oracle or keeper")],
    path: Annotated[Path | None, typer.Argument(help="Default: ROLE.toml here.")] = None,
) -> None:
    """Write a configuration file with every key, its default and what it means."""
    from sequencer.keeper import KeeperConfig
    from sequencer.oracle_publisher import OracleConfig

    roles = {"node": NodeConfig, "verifier": VerifierConfig, "oracle": OracleConfig, "keeper": KeeperConfig}
    if role not in roles:
        message = f"{role!r} is not a role; roles are node, verifier, oracle and keeper"
        raise typer.BadParameter(message, param_hint="ROLE")
    target = path or Path(f"{role}.toml")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(default_text(roles[role]))
    except FileExistsError:
        raise ConfigError(f"{target} exists already; it was left as it is") from None
    typer.echo(f"wrote {target}")


@app.command(rich_help_panel=OPERATE, epilog="Example: straddle node --config node.toml")
@exits_cleanly
def node(config: ConfigPath = None) -> None:
    """Run a node (the sequencer) until SIGTERM or Ctrl-C; it then drains and stops."""
    from sequencer.cli_services import run_node

    trio.run(run_node, load(NodeConfig, config, service_environment()))


@app.command(rich_help_panel=OPERATE, epilog="Example: straddle verifier --config verifier.toml --follow")
@exits_cleanly
def verifier(
    config: ConfigPath = None,
    follow: Annotated[bool, typer.Option(help="Keep going as new batches are posted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per verified batch.")] = False,
) -> None:
    """Rebuild the state from L1 alone and compare every posted root; exits with 1 if one is wrong."""
    from sequencer.cli_services import run_verifier

    trio.run(partial(run_verifier, load(VerifierConfig, config, service_environment()), follow, as_json))


@app.command(rich_help_panel=OPERATE, epilog="Example: straddle oracle --config oracle.toml")
@exits_cleanly
def oracle(config: ConfigPath = None) -> None:
    """Run an oracle publisher: sign what its source says and send it to the node, until SIGTERM or Ctrl-C."""
    from sequencer.cli_oracle import run_oracle
    from sequencer.oracle_publisher import OracleConfig

    trio.run(run_oracle, load(OracleConfig, config, service_environment()))


@app.command(rich_help_panel=OPERATE, epilog="Example: straddle keeper --config keeper.toml")
@exits_cleanly
def keeper(config: ConfigPath = None) -> None:
    """Run a keeper: start and end auctions of accounts that must be liquidated, until SIGTERM or Ctrl-C."""
    from sequencer.cli_keeper import run_keeper
    from sequencer.keeper import KeeperConfig

    trio.run(run_keeper, load(KeeperConfig, config, service_environment()))


def _add(command: Callable[..., None], panel: str, example: str) -> None:
    app.command(rich_help_panel=panel, epilog=f"Example: straddle {example}")(command)


_add(deploy, OPERATE, "deploy --l1 http://127.0.0.1:8545 --out deployment.json")
app.add_typer(keys_app, name="keys", rich_help_panel=OPERATE)
_add(deposit, MONEY, "deposit 1000 --l1 http://127.0.0.1:8545 --key trader.json")
_add(withdraw, MONEY, "withdraw 250.50 --l1 http://127.0.0.1:8545 --key trader.json")
_add(order, TRADE, "order buy 0.25 BTC-PERPETUAL --price 60000 --post-only --key trader.json")
_add(cancel, TRADE, "cancel --all BTC-PERPETUAL --key trader.json")
_add(
    trigger,
    TRADE,
    "trigger sell 0.25 BTC-PERPETUAL --below 58000 --protect 57000 --key trader.json",
)
_add(quote, TRADE, "quote 'sell 1 BTC-27DEC26-100000-C' 'buy 0.5 BTC-PERPETUAL' --net -27500")
app.add_typer(rfq_app, name="rfq", rich_help_panel=TRADE)
_add(block, TRADE, "block quote.json --key trader.json")
_add(account, TRADE, "account --key trader.json")
_add(history, TRADE, "history 7 --kind trades --from 2026-11-01 --csv trades.csv")
_add(markets, LOOK, "markets --json")
_add(book, LOOK, "book BTC-PERPETUAL --depth 5")
_add(fees, LOOK, "fees --watch")
_add(status, LOOK, "status --node http://127.0.0.1:8645")
_add(receipt, LOOK, "receipt 0x5f0c...91ab (as order and cancel print it)")
_add(proof, LOOK, "proof --account 1 --at finalized --l1 http://127.0.0.1:8545")


def main() -> None:
    """Entry point of the `straddle` script."""
    app()


if __name__ == "__main__":
    main()
