"""Trading commands: order and cancel."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import trio
import typer

from sequencer.cli_options import (
    AsJson,
    InstrumentName,
    Signing,
    Size,
    takes_signing,
)
from sequencer.cli_output import print_fields, print_json, print_table
from sequencer.cli_session import open_node, sign_and_send
from sequencer.cli_support import CliError, exits_cleanly, explain_node_error
from sequencer.cli_units import moment, plain, price, show_dollars, show_time
from state.actions import Cancel, CancelAll, CancelOrder, CancelTrigger, Order, OrderKind, PlaceOrder, Side
from state.fees import PARTS

KIND_WORDS = {
    OrderKind.LIMIT: "limit",
    OrderKind.POST_ONLY: "post-only",
    OrderKind.IMMEDIATE_OR_CANCEL: "immediate or cancel",
    OrderKind.FILL_OR_KILL: "fill or kill",
    OrderKind.MARKET: "at the market",
}


class SideName(StrEnum):
    """As typed."""

    buy = "buy"
    sell = "sell"


@exits_cleanly
@takes_signing
def order(
    side: Annotated[SideName, typer.Argument(help="buy or sell")],
    size: Size,
    instrument: InstrumentName,
    limit: Annotated[
        int | None,
        typer.Option("--price", parser=price, metavar="DOLLARS", help="Limit price for one coin."),
    ] = None,
    post_only: Annotated[bool, typer.Option("--post-only", help="Rest in the book, or be refused.")] = False,
    ioc: Annotated[bool, typer.Option("--ioc", help="Fill what can be filled now, cancel the rest.")] = False,
    fok: Annotated[bool, typer.Option("--fok", help="Fill all of it now, or nothing.")] = False,
    market: Annotated[
        bool, typer.Option("--market", help="At the best prices there are; needs --protect.")
    ] = False,
    protect: Annotated[
        int | None,
        typer.Option(
            "--protect", parser=price, metavar="DOLLARS", help="Worst price that --market may accept."
        ),
    ] = None,
    reduce_only: Annotated[
        bool, typer.Option("--reduce-only", help="Only ever make the position smaller.")
    ] = False,
    expires: Annotated[
        int | None,
        typer.Option(
            "--expires", parser=moment, metavar="TIME", help="Cancel it then: 8h, or an ISO time with zone."
        ),
    ] = None,
    *,
    options: Signing,
    as_json: AsJson = False,
) -> None:
    """Sign an order and send it; prints its receipt.

    Without --post-only, --ioc, --fok or --market it is a limit order: it takes what it crosses and rests with
    what is left until it is cancelled or expires.
    """
    kind = _kind(post_only, ioc, fok, market)
    at = _price_of(kind, limit, protect)
    rests = kind in (OrderKind.LIMIT, OrderKind.POST_ONLY)
    if expires is not None and not rests:
        raise typer.BadParameter("this kind of order never rests", param_hint="--expires")
    which = Side.BUY if side is SideName.buy else Side.SELL
    placed = partial(Order, side=which, kind=kind, price_uusd=at, size_ulots=size, reduce_only=reduce_only)
    receipt = trio.run(_place, options, instrument, placed, expires or 0)
    finish(receipt, as_json)


@exits_cleanly
@takes_signing
def cancel(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="ORDER_ID INSTRUMENT", help="What to cancel.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All open orders and triggers; of one instrument if one is named.")
    ] = False,
    is_trigger: Annotated[
        bool, typer.Option("--trigger", help="It is a trigger that has not fired.")
    ] = False,
    *,
    options: Signing,
    as_json: AsJson = False,
) -> None:
    """Cancel one order, or all of them; prints the receipt."""
    given = targets or []
    if everything:
        if len(given) > 1:
            raise typer.BadParameter("takes one instrument, or none for all of them", param_hint="--all")
        receipt = trio.run(_cancel_all, options, given[0] if given else "")
    else:
        if len(given) != 2 or not given[0].isascii() or not given[0].isdigit() or int(given[0]) >= 2**64:
            raise typer.BadParameter(
                "name an order's number and its instrument, or say --all", param_hint="ORDER_ID INSTRUMENT"
            )
        receipt = trio.run(_cancel_one, options, int(given[0]), given[1], is_trigger)
    finish(receipt, as_json, everything)


def _kind(post_only: bool, ioc: bool, fok: bool, market: bool) -> OrderKind:
    chosen = {
        "--post-only": (post_only, OrderKind.POST_ONLY),
        "--ioc": (ioc, OrderKind.IMMEDIATE_OR_CANCEL),
        "--fok": (fok, OrderKind.FILL_OR_KILL),
        "--market": (market, OrderKind.MARKET),
    }
    given = {option: kind for option, (is_given, kind) in chosen.items() if is_given}
    if len(given) > 1:
        raise typer.BadParameter("contradict each other; choose one", param_hint=" and ".join(given))
    return next(iter(given.values()), OrderKind.LIMIT)


def _price_of(kind: OrderKind, limit: int | None, protect: int | None) -> int:
    if kind is OrderKind.MARKET:
        if limit is not None:
            raise typer.BadParameter("a market order has --protect instead", param_hint="--price")
        if protect is None:
            raise typer.BadParameter(
                "needs --protect PRICE, the worst price you accept", param_hint="--market"
            )
        return protect
    if protect is not None:
        raise typer.BadParameter("only a --market order has one", param_hint="--protect")
    if limit is None:
        raise typer.BadParameter("name one, or send a --market order", param_hint="--price")
    return limit


async def _place(options: Signing, name: str, placed: Any, expiry_s: int) -> Any:
    async with open_node(options.node) as node:
        listed = await node.instrument(name)
        made: Order = placed(market=listed["instrument_id"], expiry_s=expiry_s)
        check_grid("SIZE", made.size_ulots, listed["lot_ulots"], "lot")
        option = "--protect" if made.kind is OrderKind.MARKET else "--price"
        check_grid(option, made.price_uusd, listed["tick_uusd"], "tick")
        words = [
            f"{'buy' if made.side is Side.BUY else 'sell'} {plain(made.size_ulots)} {name}",
            f"at {show_dollars(made.price_uusd)}{' or better' if made.kind is OrderKind.MARKET else ''}",
            KIND_WORDS[made.kind],
        ]
        words += ["reduce only"] if made.reduce_only else []
        words += [f"until {show_time(expiry_s)}"] if expiry_s else []
        return await sign_and_send(node, options, partial(PlaceOrder, order=made), ", ".join(words), listed)


def check_grid(option: str, value: int, step: int, what: str) -> None:
    if value % step:
        raise typer.BadParameter(
            f"{plain(value)} is not a multiple of the instrument's {what}, {plain(step)}", param_hint=option
        )


async def _cancel_one(options: Signing, order_id: int, name: str, is_trigger: bool) -> Any:
    async with open_node(options.node) as node:
        listed = await node.instrument(name)
        target = Cancel(listed["instrument_id"], order_id)
        made = partial(CancelTrigger if is_trigger else CancelOrder, cancel=target)
        what = "trigger" if is_trigger else "order"
        return await sign_and_send(node, options, made, f"{what} {order_id} of {name}", listed)


async def _cancel_all(options: Signing, name: str) -> Any:
    async with open_node(options.node) as node:
        listed = await node.instrument(name) if name else None
        made = partial(CancelAll, market=listed["instrument_id"] if listed else 0)
        return await sign_and_send(node, options, made, f"all orders{f' of {name}' if name else ''}", listed)


def finish(receipt: Any, as_json: bool, sweep: bool = False) -> None:
    """Prints the receipt. Raises CliError when an operation in it was refused."""
    if as_json:
        print_json(receipt)
    else:
        print_receipt(receipt, sweep)
    for operation in receipt["operations"]:
        if operation["code"] != "OK":
            text = operation["code"].lower().replace("_", " ")
            raise CliError(explain_node_error(text, 0, {"code": operation["code"], **operation["data"]}))


def print_receipt(receipt: Any, sweep: bool = False) -> None:
    """A receipt for people; `sweep` when it is known to be a cancel-all's, whose results name no order."""
    fee = receipt["fee"]
    fields = [
        ("status", f"{receipt['status']}, {receipt['stage']}"),
        ("block", f"{receipt['block_number']} (transaction {receipt['index']}), batch {receipt['batch']}"),
        ("time", show_time(receipt["timestamp_ms"] // 1000)),
        ("fee", f"{show_dollars(fee['inclusion_uusd'])} and {show_dollars(fee['trading_uusd'])} on fills"),
    ]
    parts = [f"{part} {show_dollars(fee[name])}" for part in PARTS if fee.get(name := f"{part}_uusd")]
    if parts:
        fields.append(("of it", ", ".join(parts)))
    if fee.get("priority_uusd"):
        fields.append(("for its place", show_dollars(fee["priority_uusd"])))
    if receipt["withdrawal"]:
        fields.append(("withdrawal", f"number {receipt['withdrawal']}"))
    print_fields(f"transaction {receipt['hash']}", fields)
    if receipt["operations"]:
        rows = [
            [
                "all" if sweep else str(each["order_id"]),
                each["code"] if each["code"] != "OK" else each["end"],
                plain(each["filled_ulots"]),
                plain(each["resting_ulots"]),
                plain(each["cancelled_ulots"]),
            ]
            for each in receipt["operations"]
        ]
        print_table("orders", ["order", "state", "filled", "resting", "cancelled"], rows, 2)
    if receipt["fills"]:
        rows = [
            [
                each["instrument"],
                each["side"],
                plain(each["size_ulots"]),
                show_dollars(each["price_uusd"]),
                show_dollars(each["fee_uusd"]),
            ]
            for each in receipt["fills"]
        ]
        print_table("fills", ["instrument", "side", "size", "price", "fee"], rows, 2)
