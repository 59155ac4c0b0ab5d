"""Commands that only read the node: account, markets, book, status, receipt."""

from __future__ import annotations

from typing import Annotated, Any

import trio
import typer

from sequencer.cli_fees import tier_fields
from sequencer.cli_keys import own_address
from sequencer.cli_options import DEFAULT_NODE, AsJson, InstrumentName, KeyPath, NodeUrl
from sequencer.cli_output import print_fields, print_json, print_table
from sequencer.cli_session import open_node
from sequencer.cli_support import CliError, exits_cleanly
from sequencer.cli_trader import print_receipt
from sequencer.cli_units import address, hash32, plain, show_dollars, show_market, show_time


@exits_cleanly
def account(
    number: Annotated[
        int | None, typer.Argument(min=1, metavar="NUMBER", help="Default: all accounts of the owner.")
    ] = None,
    owner: Annotated[
        bytes | None,
        typer.Option("--owner", parser=address, metavar="ADDRESS", help="Default: the key's address."),
    ] = None,
    key: KeyPath = None,
    node: NodeUrl = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Show accounts: cash, margin, positions, open orders, session keys."""
    if number is not None and owner is not None:
        raise typer.BadParameter("an account's number is enough", param_hint="--owner")
    whose = b"" if number is not None else owner or own_address(key)
    found, standings = trio.run(_accounts, node, number, whose)
    if as_json:
        print_json(found[0] if number is not None else found)
        return
    if not found:
        raise CliError(f"0x{whose.hex()} owns no account: straddle deposit opens one")
    for each, tiers in zip(found, standings, strict=True):
        print_account(each, tiers)


async def _accounts(url: str, number: int | None, owner: bytes) -> tuple[list[Any], list[Any]]:
    """The accounts; and of each where it stands among the venue's fee tiers."""
    async with open_node(url) as node:
        numbers = [number]
        if number is None:
            numbers = await node.call("straddle_getAccounts", owner="0x" + owner.hex())
        found = [await node.call("straddle_getAccount", account=each) for each in numbers]
        return found, [await node.call("straddle_getFeeTiers", account=each) for each in numbers]


def print_account(found: Any, tiers: Any) -> None:
    """An account for people; `tiers` as `straddle_getFeeTiers` answers for it."""
    margin = found["margin"]
    fields = [
        ("owner", found["owner"]),
        ("cash", show_dollars(found["cash_uusd"])),
        ("withdrawable", show_dollars(found["withdrawable_uusd"])),
    ]
    if margin:
        fields += [
            ("equity", show_dollars(margin["equity_uusd"])),
            ("initial margin", show_dollars(margin["initial_uusd"])),
            ("maintenance margin", show_dollars(margin["maintenance_uusd"])),
            ("available", show_dollars(margin["available_uusd"])),
        ]
    fields += tier_fields(tiers)
    fields.append(("next nonce", str(found["next_nonce"])))
    if found["dead_man_ms"]:
        fields.append(("cancels all at", show_time(found["dead_man_ms"] // 1000)))
    print_fields(f"account {found['account']}", fields)
    positions = [each for each in found["positions"] if each["size_ulots"]]
    if positions:
        rows = [
            [
                each["instrument_name"],
                plain(each["size_ulots"]),
                show_dollars(each["average_price_uusd"]),
                show_dollars(each["mark_uusd"]),
                show_dollars(each["value_uusd"]),
            ]
            for each in positions
        ]
        print_table("positions", ["instrument", "size", "average price", "mark", "profit"], rows)
    if found["orders"]:
        rows = [
            [
                str(each["order_id"]),
                each["instrument_name"],
                each["side"] + (" reduce-only" if each["reduce_only"] else ""),
                show_dollars(each["price_uusd"]),
                plain(each["open_ulots"]),
                plain(each["filled_ulots"]),
                show_time(each["expiry_s"]) if each["expiry_s"] else "-",
            ]
            for each in found["orders"]
        ]
        columns = ["order", "instrument", "side", "price", "open", "filled", "expires"]
        print_table("orders", columns, rows, 3)
    if found["session_keys"]:
        rows = [[each["key"], each["scope"], show_time(each["expiry_s"])] for each in found["session_keys"]]
        print_table("session keys", ["key", "scope", "expires"], rows, 3)


@exits_cleanly
def markets(node: NodeUrl = DEFAULT_NODE, as_json: AsJson = False) -> None:
    """List the instruments with their prices and terms."""
    pairs = trio.run(_markets, node)
    if as_json:
        print_json([{**listed, "ticker": ticker} for listed, ticker in pairs])
        return
    rows = [
        [
            listed["instrument_name"],
            listed["state"],
            show_market(ticker["mark_price"]),
            show_market(ticker["best_bid_price"]),
            show_market(ticker["best_ask_price"]),
            show_market(ticker["open_interest"]),
            plain(listed["tick_uusd"]),
            plain(listed["lot_ulots"]),
            "scenarios" if ppm is None else f"{plain(ppm * 100)} %",
            f"{plain(listed['taker_fee_ppm'] * 100)} %",
        ]
        for listed, ticker in pairs
        for ppm in [listed["initial_margin_ppm"]]
    ]
    columns = [
        "instrument",
        "state",
        "mark",
        "bid",
        "ask",
        "open interest",
        "tick",
        "lot",
        "margin",
        "taker fee",
    ]
    print_table("markets", columns, rows, 2)


async def _markets(url: str) -> list[tuple[Any, Any]]:
    async with open_node(url) as node:
        listed = await node.call("public/get_instruments")
        calls = [("public/ticker", {"instrument_name": each["instrument_name"]}) for each in listed]
        return list(zip(listed, await node.call_many(calls), strict=True))


@exits_cleanly
def book(
    instrument: InstrumentName,
    depth: Annotated[int, typer.Option("--depth", min=1, max=1000, help="Levels of each side.")] = 10,
    node: NodeUrl = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Show the best levels of an order book, asks above bids."""
    found = trio.run(_book, node, instrument, depth)
    if as_json:
        print_json(found)
        return
    rows = [["ask", show_market(at), show_market(size)] for at, size in reversed(found["asks"])]
    rows += [["bid", show_market(at), show_market(size)] for at, size in found["bids"]]
    mark, last = show_market(found["mark_price"]), show_market(found["last_price"])
    print_table(f"{instrument}: mark {mark}, last {last}", ["side", "price", "size"], rows)


async def _book(url: str, name: str, depth: int) -> Any:
    async with open_node(url) as node:
        await node.instrument(name)
        return await node.call("public/get_order_book", instrument_name=name, depth=depth)


@exits_cleanly
def status(node: NodeUrl = DEFAULT_NODE, as_json: AsJson = False) -> None:
    """Show who the node is, how it is, and how far its blocks and batches have come."""
    found = trio.run(_call, node, "straddle_status", {})
    if as_json:
        print_json(found)
        return
    ready = "ready" if found["ready"] else f"not ready: {', '.join(found['reasons'])}"
    print_fields(
        f"node at {node}: {ready}",
        [
            ("version", found["version"]),
            ("rollup", f"{found['chain_id']} at {found['contract']}"),
            ("sequencer", found["sequencer"]),
            ("last block", f"{found['block_number']}, {show_time(found['timestamp_ms'] // 1000)}"),
            ("blocks posted", f"up to {found['posted_block']}"),
            ("blocks final", f"up to {found['finalized_block']}"),
            (
                "batches",
                f"closed {found['committed_batch']}, posted {found['posted_batch']}, "
                f"final {found['finalized_batch']}",
            ),
            ("next batch", found["posting"]["reason"]),
            ("L1", f"read up to block {found['l1_block']}, {found['inbox_next']} messages"),
        ],
    )


@exits_cleanly
def receipt(
    transaction: Annotated[str, typer.Argument(parser=hash32, metavar="HASH", help="A transaction's hash.")],
    node: NodeUrl = DEFAULT_NODE,
    as_json: AsJson = False,
) -> None:
    """Show the receipt of a transaction, and how far it has come: sealed, posted or finalized."""
    found = trio.run(_call, node, "straddle_getReceipt", {"hash": transaction})
    if as_json:
        print_json(found)
    else:
        print_receipt(found)


async def _call(url: str, method: str, params: dict[str, Any]) -> Any:
    async with open_node(url) as node:
        return await node.call(method, **params)
