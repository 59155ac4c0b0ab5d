"""Requests for quotes from the command line: ask, see who asks, see what makers answered.

A maker answers with `straddle quote ... --rfq N`; the taker takes an answer with `straddle block FILE`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio
import typer

from sequencer.cli_depth import SignedQuote, parse_leg
from sequencer.cli_options import DEFAULT_NODE, AsJson, NodeUrl
from sequencer.cli_output import note, print_fields, print_json, print_table
from sequencer.cli_session import names_of, open_node
from sequencer.cli_support import CliError, exits_cleanly
from sequencer.cli_units import duration, or_default, plain, show_dollars, show_time
from state.typed_data import message
from state.wire_types import QuoteJson

DEFAULT_TTL_S = 60

rfq_app = typer.Typer(no_args_is_help=True, help="Ask makers for quotes of several legs at one price.")


@rfq_app.command(epilog="Example: straddle rfq request 'buy 1 BTC-27DEC26-100000-C' 'sell 0.5 BTC-PERPETUAL'")
@exits_cleanly
def request(
    legs: Annotated[
        list[str],
        typer.Argument(metavar="LEG...", help="What you would do, each quoted: 'buy 1 BTC-27DEC26'"),
    ],
    account: Annotated[
        int | None,
        typer.Option("--account", min=1, metavar="N", help="Yours: its owner's own quotes are kept away."),
    ] = None,
    disclose: Annotated[bool, typer.Option("--disclose", help="Makers see your account.")] = False,
    ttl: Annotated[
        int,
        typer.Option(
            "--for", parser=or_default(duration), metavar="DURATION", show_default="60s", help="How long."
        ),
    ] = DEFAULT_TTL_S,
    node: NodeUrl = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Ask; prints the request's number, and the key that reads its quotes: keep it to yourself."""
    params = {"disclose": disclose, "ttl_s": ttl} | ({} if account is None else {"account": account})
    opened = trio.run(_request, node, legs, params)
    if as_json:
        print_json(opened)
        return
    until = show_time(opened["expires_ms"] // 1_000)
    print_fields(f"request {opened['rfq']}", [("key", opened["key"]), ("open until", until)])


async def _request(url: str, texts: list[str], params: dict[str, Any]) -> Any:
    async with open_node(url) as node:
        parsed = [await parse_leg(node, text) for text in texts]
        name_of = names_of([listed for _, listed in parsed])
        legs = [message(leg, name_of) for leg, _ in parsed]
        return await node.call("straddle_requestQuote", legs=legs, **params)


@rfq_app.command("list", epilog="Example: straddle rfq list")
@exits_cleanly
def list_open(node: NodeUrl = DEFAULT_NODE, as_json: AsJson = False) -> None:
    """Show the open requests: what their takers would do."""
    found = trio.run(_call, node, "straddle_getRfqs", {})
    if as_json:
        print_json(found)
        return
    rows = [
        [str(each["rfq"]), _legs(each["legs"]), str(each["account"] or "-"), _until(each["expires_ms"])]
        for each in found
    ]
    print_table("open requests", ["request", "legs", "account", "until"], rows, 3)


@rfq_app.command(epilog="Example: straddle rfq quotes 1767225600000 5f0c...91ab --best best.json")
@exits_cleanly
def quotes(
    number: Annotated[int, typer.Argument(min=1, metavar="REQUEST", help="Its number.")],
    key: Annotated[str, typer.Argument(metavar="KEY", help="As `straddle rfq request` printed it.")],
    best: Annotated[
        Path | None,
        typer.Option("--best", metavar="PATH", help="Write the best quote there, for straddle block."),
    ] = None,
    node: NodeUrl = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Show what makers answered to your request, the best first."""
    found = trio.run(_call, node, "straddle_getQuotes", {"rfq": number, "key": key})
    if best is not None:
        if not found["quotes"]:
            raise CliError(f"nobody has quoted request {number} yet")
        first = found["quotes"][0]
        signed = SignedQuote(msgspec.convert(first["quote"], QuoteJson), first["signature"])
        best.write_bytes(msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n")
        note(f"wrote {best}: you pay {show_dollars(int(first['quote']['net_uusd']))}")
    if as_json:
        print_json(found)
        return
    rows = [
        [
            what,
            str(each["quote"]["account"]),
            show_dollars(int(each["quote"]["net_uusd"])),
            show_time(int(each["quote"]["expiry_s"])),
        ]
        for what, name in (("as asked", "quotes"), ("the reverse", "mirrored"))
        for each in found[name]
    ]
    print_table(f"quotes to request {number}", ["you do", "maker", "you pay", "until"], rows, 1)


async def _call(url: str, method: str, params: dict[str, Any]) -> Any:
    async with open_node(url) as node:
        return await node.call(method, **params)


def _legs(legs: list[Any]) -> str:
    return ", ".join(f"{leg['side']} {plain(int(leg['size_ulots']))} {leg['instrument']}" for leg in legs)


def _until(time_ms: int) -> str:
    return show_time(time_ms // 1_000)
