"""`straddle fees`: what inclusion costs now and cost lately, block by block; the table may stay live.

With `--tiers` the venue's own fees instead: which shares of the instruments' rates are paid by volume.
"""

from __future__ import annotations

from typing import Annotated, Any

import trio
import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sequencer.cli_options import DEFAULT_NODE, AsJson, NodeUrl
from sequencer.cli_output import print_fields, print_json, print_table
from sequencer.cli_session import Node, open_node
from sequencer.cli_support import CliError, exits_cleanly
from sequencer.cli_units import plain, show_dollars, show_time

LOOK_S = 1.0
MS_PER_S = 1_000
TITLE = "prices and sums in 10^-6 dollars"
COLUMNS = (
    "block", "time", "charged", "L1 byte", "byte", "unit", "leaf", "units used", "load",
    "data", "bandwidth", "execution", "growth", "finality", "risk", "for places",
)  # fmt: skip
TEXT_COLUMNS = 2
PARTS = ("data", "bandwidth", "execution", "growth", "finality", "risk", "priority")


@exits_cleanly
def fees(
    blocks: Annotated[int, typer.Option("--blocks", min=1, max=256, help="How many, the newest first.")] = 20,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table up to date until Ctrl-C.")] = False,
    tiers: Annotated[
        bool, typer.Option("--tiers", help="Show maker and taker fees by traded volume instead.")
    ] = False,
    number: Annotated[
        int | None,
        typer.Option("--account", min=1, metavar="N", help="Where this account stands in --tiers."),
    ] = None,
    node: NodeUrl = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Show prices of the last blocks, what they were charged by part, and what was paid for places."""
    if watch and as_json:
        raise typer.BadParameter("a live table is not JSON", param_hint="--watch")
    if watch and tiers:
        raise typer.BadParameter("tiers do not change with blocks", param_hint="--watch")
    if number is not None and not tiers:
        raise typer.BadParameter("only --tiers are an account's", param_hint="--account")
    if tiers:
        print_tiers(trio.run(_tiers, node, number), as_json)
        return
    console = Console()
    if watch and not console.is_terminal:
        raise CliError("--watch needs a terminal; --json is for programs")
    found = trio.run(_fees, node, blocks, console if watch else None)
    if as_json:
        print_json(found)
    elif not watch:
        print_table(f"{summary(found)}; {TITLE}", COLUMNS, rows(found), TEXT_COLUMNS)


async def _fees(url: str, blocks: int, live_on: Console | None) -> Any:
    async with open_node(url) as node:
        if live_on is not None:
            await watch_fees(node, blocks, live_on)
        return await node.call("straddle_feeHistory", blocks=blocks)


async def _tiers(url: str, number: int | None) -> Any:
    async with open_node(url) as node:
        return await node.call("straddle_getFeeTiers", **({} if number is None else {"account": number}))


def print_tiers(found: Any, as_json: bool) -> None:
    """The venue's tiers; what they mean for an account, if the answer has one."""
    if as_json:
        print_json(found)
        return
    tiers = [
        [str(place), show_dollars(each["volume_uusd"]), share(each["maker_ppm"]), share(each["taker_ppm"])]
        for place, each in enumerate(found["tiers"])
    ]
    title = "shares of the instruments' fees by volume of 30 days, the day itself not counted"
    columns = ("tier", "volume from", "maker pays", "taker pays")
    print_table(title if tiers else "no tiers: everybody pays the instruments' fees", columns, tiers)
    if found["account"] is not None:
        print_fields(f"account {found['account']['account']}", tier_fields(found))


def tier_fields(found: Any) -> list[tuple[str, str]]:
    """Of an answer of `straddle_getFeeTiers` with an account, for people; empty where there are no tiers."""
    if not found["tiers"]:
        return []
    own = found["account"]
    fields = [
        ("30-day volume", f"{show_dollars(own['volume_uusd'])}, and {show_dollars(own['today_uusd'])} today"),
        ("of fees, today", f"{share(own['maker_ppm'])} as maker, {share(own['taker_ppm'])} as taker"),
    ]
    if own["next"] is not None:
        tier, missing = own["next"]["tier"], show_dollars(own["next"]["missing_uusd"])
        fields.append(("next tier", f"{tier}, from tomorrow on, for {missing} more today"))
    return fields


def share(ppm: int) -> str:
    """Of a rate."""
    return f"{plain(ppm * 100)} %"


async def watch_fees(node: Node, blocks: int, console: Console) -> None:
    """Draws the table anew every second until cancelled. Raises NodeError, NodeUnreachable."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = await node.call("straddle_feeHistory", blocks=min(blocks, max(console.height - 6, 1)))
            live.update(table(found), refresh=True)
            await trio.sleep(LOOK_S)


def table(found: Any) -> Table:
    """An answer of `straddle_feeHistory` for a terminal."""
    made = Table(box=box.SIMPLE_HEAD, title=Text(f"{summary(found)}; {TITLE}", "bold"), title_justify="left")
    for place, name in enumerate(COLUMNS):
        made.add_column(name, justify="left" if place < TEXT_COLUMNS else "right")
    for row in rows(found):
        made.add_row(*row)
    return made


def summary(found: Any) -> str:
    """What was collected since the node started."""
    total = found["total"]
    inclusion = sum(total[f"{part}_uusd"] for part in PARTS) - total["priority_uusd"]
    return (
        f"since the node started: {total['transactions']:,} charged, {show_dollars(inclusion)} "
        f"for inclusion, {show_dollars(total['priority_uusd'])} for places"
    )


def rows(found: Any) -> list[list[str]]:
    """A row for each block. `load`: how long execution would take at its target for what is beyond it."""
    return [
        [
            str(block["block_number"]),
            show_time(block["timestamp_ms"] // MS_PER_S),
            f"{block['collected']['transactions']:,}",
            plain(block["byte_price_pusd"]),
            plain(block["bandwidth"]["price_pusd"]),
            plain(block["execution"]["price_pusd"]),
            plain(block["growth"]["price_pusd"]),
            f"{block['execution']['used']:,}",
            f"{plain(block['execution']['backlog_ms'] * 1_000)} s",
            *(f"{block['collected'][f'{part}_uusd']:,}" for part in PARTS),
        ]
        for block in found["blocks"]
    ]
