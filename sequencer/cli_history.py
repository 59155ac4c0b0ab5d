"""`straddle history`: an account's orders, trades or log, on the screen or as CSV.

A CSV file is complete or is not there: it is written beside its place, page by page, and moved there at the
end. Every number in it is an integer in the protocol's units (10^-6 dollars, 10^-6 coins; times in ms).
"""

from __future__ import annotations

import csv
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from sequencer.cli_options import DEFAULT_NODE, AsJson, NodeUrl
from sequencer.cli_output import note, print_json, print_table
from sequencer.cli_session import Node, open_node
from sequencer.cli_support import exits_cleanly
from sequencer.cli_units import plain, show_dollars, show_time

PAGE = 1_000


class Kind(StrEnum):
    ORDERS = "orders"
    TRADES = "trades"
    LOG = "log"


METHODS = {
    Kind.ORDERS: "straddle_getOrderHistory",
    Kind.TRADES: "straddle_getTradeHistory",
    Kind.LOG: "straddle_getTransactionLog",
}
COLUMNS = {
    Kind.ORDERS: (
        "id", "timestamp", "block_number", "instrument_name", "order_id", "event", "order_state", "reason",
        "direction", "order_type", "time_in_force", "post_only", "reduce_only", "price_uusd", "size_ulots",
        "filled_ulots", "open_ulots", "cancelled_ulots", "trade_seq", "transaction",
    ),
    Kind.TRADES: (
        "id", "timestamp", "block_number", "instrument_name", "trade_seq", "order_id", "direction",
        "liquidity", "price_uusd", "size_ulots", "fee_uusd",
    ),
    Kind.LOG: (
        "id", "timestamp", "block_number", "type", "change_uusd", "commission_uusd", "instrument_name",
        "price_uusd", "size_ulots", "trade_seq", "order_id", "other_account", "withdrawal", "transaction",
    ),
}  # fmt: skip
"""Of the CSV files, by the API's names; what does not apply is empty."""
SHOWN = {
    Kind.ORDERS: (
        "timestamp", "instrument_name", "event", "order_state", "reason", "order_id", "direction",
        "price_uusd", "size_ulots", "filled_ulots", "open_ulots",
    ),
    Kind.TRADES: (
        "timestamp", "instrument_name", "direction", "liquidity", "trade_seq", "order_id", "price_uusd",
        "size_ulots", "fee_uusd",
    ),
    Kind.LOG: (
        "timestamp", "type", "instrument_name", "change_uusd", "commission_uusd", "trade_seq",
        "other_account", "withdrawal",
    ),
}  # fmt: skip


def _moment_ms(text: str) -> int:
    """An ISO 8601 date or time, UTC unless it names its zone, or milliseconds since the epoch."""
    if text.isascii() and text.isdigit() and len(text) < 16 and len(text) != 8:
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a time: write 2026-11-23, 2026-11-23T08:00 (UTC) or milliseconds"
        ) from None
    zoned = found if found.tzinfo else found.replace(tzinfo=UTC)
    return (zoned - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


@exits_cleanly
def history(
    account: Annotated[int, typer.Argument(min=1, metavar="ACCOUNT", help="Its number.")],
    kind: Annotated[Kind, typer.Option("--kind", help="What to show.")] = Kind.ORDERS,
    instrument: Annotated[
        str | None, typer.Option("--instrument", metavar="NAME", help="Only this one.")
    ] = None,
    from_ms: Annotated[
        int | None, typer.Option("--from", parser=_moment_ms, metavar="TIME", help="ISO, UTC; included.")
    ] = None,
    to_ms: Annotated[
        int | None, typer.Option("--to", parser=_moment_ms, metavar="TIME", help="ISO, UTC; not included.")
    ] = None,
    last: Annotated[
        int, typer.Option("--last", min=1, metavar="N", help="Show the last so many; a CSV file has all.")
    ] = 100,
    path: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write everything there, oldest first.")
    ] = None,
    node: NodeUrl = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Show or export what became of an account's orders, its trades, or what changed its cash."""
    if path is not None and as_json:
        raise typer.BadParameter("either --csv or --json", param_hint="--csv")
    wanted = {"account": account, "instrument": instrument, "from": from_ms, "to": to_ms}
    params = {name: value for name, value in wanted.items() if value is not None}
    if path is not None:
        trio.run(_export, node, kind, params, path)
        return
    entries = trio.run(_last, node, kind, params, last)
    if as_json:
        print_json(entries)
        return
    columns = SHOWN[kind]
    rows = [[_shown(name, entry.get(name)) for name in columns] for entry in entries]
    heads = [name.removesuffix("_uusd").removesuffix("_ulots").replace("_", " ") for name in columns]
    print_table(f"{kind} of account {account}", heads, rows, 3)


async def _export(url: str, kind: Kind, params: dict[str, Any], path: Path) -> None:
    """Every entry into a CSV file (RFC 4180), oldest first."""
    part = path.with_name(path.name + ".part")
    count = 0
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS[kind])
            async with open_node(url) as node, aclosing(_pages(node, kind, params, "asc", PAGE)) as pages:
                async for entries in pages:
                    rows.writerows([_cell(entry.get(name)) for name in COLUMNS[kind]] for entry in entries)
                    count += len(entries)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    note(f"wrote {count} entries to {path}")


async def _last(url: str, kind: Kind, params: dict[str, Any], last: int) -> list[Any]:
    """The newest entries, oldest first."""
    found: list[Any] = []
    async with open_node(url) as node:
        limit = min(last, PAGE)
        async with aclosing(_pages(node, kind, params, "desc", limit)) as pages:
            async for entries in pages:
                found += entries
                if len(found) >= last:
                    break
    return found[:last][::-1]


async def _pages(
    node: Node, kind: Kind, params: dict[str, Any], sorting: str, limit: int
) -> AsyncGenerator[list[Any], None]:
    """Page after page until nothing is left; says so when the node has deleted what was asked for."""
    cursor: dict[str, Any] = {}
    told = False
    while True:
        page = await node.call(METHODS[kind], **params, **cursor, sorting=sorting, limit=limit)
        if page["kept_from"] > params.get("from", 0) and not told:
            note(f"this node's history is complete from {show_time(page['kept_from'] // 1000)} on")
            told = True
        yield page["entries"]
        if page["cursor"] is None:
            return
        cursor = {"cursor": page["cursor"]}


def _cell(value: Any) -> str:
    """A value in a CSV file: integers as they are, nothing for null."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(name: str, value: Any) -> str:
    """A value on the screen."""
    if value is None:
        return "-"
    if name == "timestamp":
        return show_time(value // 1000)
    if name.endswith("_uusd"):
        return show_dollars(value)
    return plain(value) if name.endswith("_ulots") else str(value)
