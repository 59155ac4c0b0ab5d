"""Options that several commands have: one name, one meaning, one help text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints
from urllib.parse import urlsplit

import typer

from sequencer.cli_units import address, coins, duration, fee, or_default

DEFAULT_NODE = "http://127.0.0.1:8645"
DEFAULT_DEADLINE_S = 60


def _node_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname:
        raise typer.BadParameter("a node's URL is http://host:port")
    return text


def _l1_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter("an L1's URL is http://... or https://...")
    return text


NodeUrl = Annotated[
    str,
    typer.Option("--node", envvar="STRADDLE_NODE", parser=_node_url, metavar="URL", help="The node."),
]
L1Url = Annotated[
    str | None,
    typer.Option("--l1", envvar="STRADDLE_L1_URL", parser=_l1_url, metavar="URL", help="JSON-RPC of the L1."),
]
Rollup = Annotated[
    bytes | None,
    typer.Option(
        "--rollup",
        envvar="STRADDLE_L1_ROLLUP",
        parser=address,
        metavar="ADDRESS",
        help="The Rollup contract you trust; a node that serves another is refused.",
    ),
]
KeyPath = Annotated[
    Path | None,
    typer.Option(
        "--key",
        envvar="STRADDLE_KEY",
        metavar="PATH",
        help="Keystore (straddle keys new). Without it, STRADDLE_PRIVATE_KEY is used.",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="PATH",
        help="Holds the keystore's password. Without it, STRADDLE_PASSWORD, or a prompt.",
    ),
]
AccountNumber = Annotated[
    int | None,
    typer.Option("--account", min=1, metavar="N", help="Needed only if the key owns several accounts."),
]
Nonce = Annotated[
    int | None, typer.Option("--nonce", min=0, metavar="N", help="Default: the account's next one.")
]
Deadline = Annotated[
    int,
    typer.Option(
        "--deadline",
        parser=or_default(duration),
        metavar="DURATION",
        show_default="60s",
        help="How long the signature may be used: 90s, 5m.",
    ),
]
MaxFee = Annotated[
    int | None,
    typer.Option(
        "--max-fee",
        parser=fee,
        metavar="DOLLARS",
        help="For fee and bid together. Default: the most that the node quotes, for half a minute.",
    ),
]
Bid = Annotated[
    int,
    typer.Option(
        "--bid",
        parser=or_default(fee),
        metavar="DOLLARS",
        show_default="0",
        help="For its place in the block: it pays the next lower bid, alone nothing.",
    ),
]
Size = Annotated[int, typer.Argument(parser=coins, metavar="SIZE", help="In coins: 0.25")]
InstrumentName = Annotated[str, typer.Argument(metavar="INSTRUMENT", help="Such as BTC-PERPETUAL")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with the protocol's integer units.")]


@dataclass(frozen=True, slots=True)
class Signing:
    """With what, for whom and how an action is signed and sent: options of every command that does so.

    Times in seconds, amounts in uusd.
    """

    node: NodeUrl = DEFAULT_NODE
    rollup: Rollup = None
    key: KeyPath = None
    password_file: PasswordFile = None
    account: AccountNumber = None
    nonce: Nonce = None
    deadline_s: Deadline = DEFAULT_DEADLINE_S
    max_fee_uusd: MaxFee = None
    bid_uusd: Bid = 0


def takes_signing(command: Callable[..., None]) -> Callable[..., None]:
    """For a command with a parameter `options: Signing`: shows the fields of `Signing` as options there."""
    hints = get_type_hints(Signing, include_extras=True)
    options = [
        Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name])
        for field in fields(Signing)
    ]
    shown: list[Parameter] = []
    for parameter in signature(command, eval_str=True).parameters.values():
        own = [parameter.replace(kind=Parameter.KEYWORD_ONLY)]
        shown += options if parameter.name == "options" else own

    @wraps(command)
    def run(**given: Any) -> None:
        command(options=Signing(**{name: given.pop(name) for name in hints}), **given)

    # typer reads both.
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    vars(run)["__signature__"] = Signature(shown)
    return run
