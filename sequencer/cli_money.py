"""The deposit and withdraw commands: their options. What they do stands in `cli_deposit`, `cli_withdraw`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from sequencer.cli_options import (
    DEFAULT_NODE,
    AsJson,
    KeyPath,
    L1Url,
    NodeUrl,
    PasswordFile,
    Rollup,
    Signing,
    takes_signing,
)
from sequencer.cli_output import print_fields, print_json
from sequencer.cli_support import exits_cleanly
from sequencer.cli_units import address, dollars, show_dollars


@exits_cleanly
def deposit(
    amount: Annotated[int, typer.Argument(parser=dollars, metavar="DOLLARS", help="How much: 1000.50")],
    account: Annotated[
        int, typer.Option("--account", min=0, metavar="N", help="Into this account; 0 opens a new one.")
    ] = 0,
    owner: Annotated[
        bytes | None,
        typer.Option("--owner", parser=address, metavar="ADDRESS", help="Of a new account. Default: you."),
    ] = None,
    mint: Annotated[
        bool, typer.Option("--mint", help="On a devnet: first make that many dollars, and get ether.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the node has credited it.")
    ] = True,
    l1: L1Url = None,
    rollup: Rollup = None,
    node: NodeUrl = DEFAULT_NODE,
    key: KeyPath = None,
    password_file: PasswordFile = None,
    as_json: AsJson = False,
) -> None:
    """Pay collateral from L1 into an account; approves what the vault may take, and no more.

    Two L1 transactions, or one if the vault may take that much already. With --no-wait and --rollup no node
    is needed.
    """
    from sequencer.cli_deposit import Deposit, run_deposit

    asked = Deposit(amount, account, owner, mint, wait, needed_l1(l1), rollup, node, key, password_file)
    found = trio.run(run_deposit, asked)
    if as_json:
        print_json(found)
        return
    fields = [("message", str(found["message"])), ("L1 transaction", found["l1_transaction"])]
    if wait:
        fields.append(("account", str(found["account"]) if found["account"] else "not credited"))
    if found["cash_uusd"] is not None:
        fields.append(("cash now", show_dollars(found["cash_uusd"])))
    print_fields(f"deposited {show_dollars(amount)}", fields)


@exits_cleanly
@takes_signing
def withdraw(
    amount: Annotated[
        int | None, typer.Argument(parser=dollars, metavar="DOLLARS", help="How much: 1000.50")
    ] = None,
    to: Annotated[
        bytes | None,
        typer.Option("--to", parser=address, metavar="ADDRESS", help="Who is paid on L1. Default: you."),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--number", min=1, metavar="N", help="Go on with this withdrawal, begun before."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="PATH", help="A verifier's data makes the proof; no node needed."),
    ] = None,
    begin_only: Annotated[
        bool, typer.Option("--begin-only", help="Do not wait; --number goes on later.")
    ] = False,
    l1: L1Url = None,
    *,
    options: Signing,
    as_json: AsJson = False,
) -> None:
    """Take money out, followed to the end: signed action, batch on L1, challenge window, proof, payment.

    It may be interrupted at any time and continued with --number. Anybody may continue it: the recipient is
    fixed by the signed action, the key then only pays for the L1 transaction.
    """
    from sequencer.cli_withdraw import Withdrawing, run_withdraw

    if (amount is None) == (number is None):
        raise typer.BadParameter("name an amount to begin, or --number to go on", param_hint="DOLLARS")
    if number is not None and (to is not None or begin_only):
        option = "--to" if to is not None else "--begin-only"
        raise typer.BadParameter("belongs to a withdrawal that is not begun yet", param_hint=option)
    if data_dir is not None and (number is None or options.rollup is None):
        raise typer.BadParameter("needs --number and --rollup", param_hint="--data-dir")
    found = trio.run(
        run_withdraw,
        Withdrawing(amount or 0, to, number, data_dir, "" if begin_only else needed_l1(l1), options),
    )
    if as_json:
        print_json(found)
    else:
        _show_withdrawal(found)


def needed_l1(url: str | None) -> str:
    """Raises BadParameter when no L1 was named."""
    if url is None:
        raise typer.BadParameter("this needs an L1: name it, or set STRADDLE_L1_URL", param_hint="--l1")
    return url


def _show_withdrawal(found: dict[str, Any]) -> None:
    if found["status"] == "begun":
        fields = [("transaction", found["transaction"])]
        fields.append(("go on with", f"straddle withdraw --number {found['number']}"))
        print_fields(f"withdrawal {found['number']} is begun", fields)
        return
    fields = [("amount", show_dollars(found["amount_uusd"])), ("recipient", found["recipient"])]
    if found["l1_transaction"]:
        fields.append(("L1 transaction", found["l1_transaction"]))
    was = "is paid" if found["l1_transaction"] else "was paid before"
    print_fields(f"withdrawal {found['number']} {was}", fields)
