"""Trading commands beyond single orders: trigger, quote (an offer of several legs), block (taking one)."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import trio
import typer

from sequencer.cli_keys import unlock
from sequencer.cli_options import (
    DEFAULT_NODE,
    AccountNumber,
    AsJson,
    InstrumentName,
    KeyPath,
    NodeUrl,
    PasswordFile,
    Rollup,
    Signing,
    Size,
    takes_signing,
)
from sequencer.cli_output import note, print_json
from sequencer.cli_session import Node, names_of, open_node, sign_and_send
from sequencer.cli_support import CliError, exits_cleanly
from sequencer.cli_trader import SideName, check_grid, finish
from sequencer.cli_units import (
    coins,
    duration,
    fee,
    or_default,
    plain,
    price,
    show_dollars,
    show_time,
    signed_dollars,
)
from sequencer.clock import wall_clock_ms
from state.actions import (
    ExecuteQuote,
    Leg,
    Order,
    OrderKind,
    PlaceTrigger,
    Quote,
    Side,
    TriggerCondition,
    TriggerSource,
)
from state.eip712 import quote_digest
from state.hashing import keccak
from state.typed_data import message
from state.units import MAX_LEGS
from state.wire import to_quote
from state.wire_types import QuoteJson

DEFAULT_QUOTE_S = 30
DEFAULT_VENUE_FEE_UUSD = 1_000_000_000
NO_TERMS = bytes(32)


class SignedQuote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `straddle quote` writes and `straddle block` reads."""

    quote: QuoteJson
    signature: str


@exits_cleanly
@takes_signing
def trigger(
    side: Annotated[SideName, typer.Argument(help="buy or sell")],
    size: Size,
    instrument: InstrumentName,
    above: Annotated[
        int | None,
        typer.Option("--above", parser=price, metavar="DOLLARS", help="Fires at or above this price."),
    ] = None,
    below: Annotated[
        int | None,
        typer.Option("--below", parser=price, metavar="DOLLARS", help="Fires at or below this price."),
    ] = None,
    index: Annotated[bool, typer.Option("--index", help="Of the index, instead of the mark.")] = False,
    limit: Annotated[
        int | None,
        typer.Option("--price", parser=price, metavar="DOLLARS", help="It then places a limit order."),
    ] = None,
    protect: Annotated[
        int | None,
        typer.Option(
            "--protect",
            parser=price,
            metavar="DOLLARS",
            help="It then trades at the market, no worse than this.",
        ),
    ] = None,
    reduce_only: Annotated[
        bool, typer.Option("--reduce-only", help="Only ever make the position smaller; goes with it.")
    ] = False,
    *,
    options: Signing,
    as_json: AsJson = False,
) -> None:
    """Place a trigger: an order that waits for a price, as a stop or a take-profit."""
    if (above is None) == (below is None):
        raise typer.BadParameter("name one of them", param_hint="--above and --below")
    if (limit is None) == (protect is None):
        raise typer.BadParameter("name one of them", param_hint="--price and --protect")
    which = Side.BUY if side is SideName.buy else Side.SELL
    kind = OrderKind.LIMIT if limit is not None else OrderKind.MARKET
    at = (limit if limit is not None else protect) or 0
    placed = partial(Order, side=which, kind=kind, price_uusd=at, size_ulots=size, reduce_only=reduce_only)
    terms = partial(
        PlaceTrigger,
        source=TriggerSource.INDEX if index else TriggerSource.MARK,
        condition=TriggerCondition.AT_OR_BELOW if above is None else TriggerCondition.AT_OR_ABOVE,
        trigger_uusd=(below if above is None else above) or 0,
    )
    finish(trio.run(_trigger, options, instrument, placed, terms), as_json)


async def _trigger(options: Signing, name: str, placed: Any, terms: Any) -> Any:
    async with open_node(options.node) as node:
        listed = await node.instrument(name)
        order: Order = placed(market=listed["instrument_id"])
        check_grid("SIZE", order.size_ulots, listed["lot_ulots"], "lot")
        check_grid("--price or --protect", order.price_uusd, listed["tick_uusd"], "tick")
        made = partial(terms, order=order)
        when = made.keywords
        words = (
            f"{'buy' if order.side is Side.BUY else 'sell'} {plain(order.size_ulots)} {name} at "
            f"{show_dollars(order.price_uusd)}{' or better' if order.kind is OrderKind.MARKET else ''}, "
            f"when the {when['source'].name.lower()} is {when['condition'].name.lower().replace('_', ' ')} "
            f"{show_dollars(when['trigger_uusd'])}{', reduce only' if order.reduce_only else ''}"
        )
        return await sign_and_send(node, options, made, words, listed)


@exits_cleanly
def quote(
    legs: Annotated[
        list[str], typer.Argument(metavar="LEG...", help="What you do, each quoted: 'sell 1 BTC-PERPETUAL'")
    ],
    receive: Annotated[
        int,
        typer.Option(
            "--net",
            parser=signed_dollars,
            metavar="DOLLARS",
            help="What you receive; negative: what you pay.",
        ),
    ],
    taker: Annotated[
        int, typer.Option("--taker", min=0, metavar="N", help="The only account that may take it; 0: any.")
    ] = 0,
    terms: Annotated[
        Path | None, typer.Option("--terms", metavar="PATH", help="Agreed terms; their hash is kept.")
    ] = None,
    valid: Annotated[
        int,
        typer.Option(
            "--valid", parser=or_default(duration), metavar="DURATION", show_default="30s", help="How long."
        ),
    ] = DEFAULT_QUOTE_S,
    venue_fee: Annotated[
        int,
        typer.Option(
            "--max-venue-fee",
            parser=or_default(fee),
            metavar="DOLLARS",
            show_default="1000",
            help="The most that it may cost you.",
        ),
    ] = DEFAULT_VENUE_FEE_UUSD,
    rfq: Annotated[
        int | None,
        typer.Option(
            "--rfq", min=0, metavar="N", help="Send it as well: to this request; 0: for all to see."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="PATH", help="Default: print it.")] = None,
    node: NodeUrl = DEFAULT_NODE,
    rollup: Rollup = None,
    key: KeyPath = None,
    password_file: PasswordFile = None,
    account: AccountNumber = None,
) -> None:
    """Sign a quote of several legs for one price; whoever has it may take all of it, once, with `block`."""
    options = Signing(node, rollup, key, password_file, account)
    agreed = keccak(terms.read_bytes()) if terms else NO_TERMS
    expiry_s = int(time.time()) + valid
    made = partial(
        Quote,
        net_uusd=receive,
        taker_account=taker,
        terms_hash=agreed,
        nonce=wall_clock_ms(),
        expiry_s=expiry_s,
        max_fee_uusd=venue_fee,
    )
    signed = trio.run(_quote, options, legs, made, rfq)
    if out is None:
        print_json(signed)
    else:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n")
        note(f"wrote {out}, valid until {show_time(expiry_s)}")


async def _quote(options: Signing, texts: list[str], made: Any, rfq: int | None = None) -> dict[str, Any]:
    """Signed; and sent, if `rfq` says where to."""
    async with open_node(options.node) as node:
        domain = await node.domain(options.rollup)
        secret = unlock(options.key, options.password_file)
        account = options.account or await node.sole_account(secret.address)
        parsed = [await parse_leg(node, text) for text in texts]
        if len(parsed) > MAX_LEGS:
            raise CliError(f"a quote has at most {MAX_LEGS} legs")
        name_of = names_of([listed for _, listed in parsed])
        quoted: Quote = made(account=account, legs=tuple(leg for leg, _ in parsed))
        note(
            f"signing a quote: {_words(quoted, name_of)}\n"
            f"  account {account}, as 0x{secret.address.hex()}, until {show_time(quoted.expiry_s)}\n"
            f"  rollup {domain.chain_id} at 0x{domain.contract.hex()}"
        )
        digest = quote_digest(domain, quoted, lambda number: keccak(name_of(number).encode()))
        signed = {"quote": message(quoted, name_of), "signature": "0x" + secret.sign(digest).hex()}
        if rfq is not None:
            await node.call("straddle_sendQuote", **signed, **({"rfq": rfq} if rfq else {}))
        return signed


async def parse_leg(node: Node, text: str) -> tuple[Leg, dict[str, Any]]:
    """A leg as it is typed, and its instrument as the node lists it. Raises BadParameter."""
    words = text.split()
    if len(words) != 3 or words[0] not in list(SideName):
        raise typer.BadParameter(f"{text!r} is not a leg such as 'sell 1 BTC-PERPETUAL'", param_hint="LEG")
    listed = await node.instrument(words[2])
    size = coins(words[1])
    check_grid("LEG", size, listed["lot_ulots"], "lot")
    side = Side.BUY if words[0] == SideName.buy else Side.SELL
    return Leg(listed["instrument_id"], side, size), listed


def _words(quoted: Quote, name_of: Any) -> str:
    sides = ("buy", "sell")
    legs = [f"{sides[leg.side]} {plain(leg.size_ulots)} {name_of(leg.market)}" for leg in quoted.legs]
    flow = "receive" if quoted.net_uusd >= 0 else "pay"
    return f"{', '.join(legs)}, and {flow} {show_dollars(abs(quoted.net_uusd))} net"


@exits_cleanly
@takes_signing
def block(
    path: Annotated[Path, typer.Argument(metavar="QUOTE", help="A file that straddle quote wrote.")],
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            parser=signed_dollars,
            metavar="DOLLARS",
            help="The most you pay. Default: the quote's.",
        ),
    ] = None,
    *,
    options: Signing,
    as_json: AsJson = False,
) -> None:
    """Take the other side of a signed quote: all its legs, or none; prints the receipt."""
    try:
        signed = msgspec.json.decode(path.read_bytes(), type=SignedQuote)
        signature = bytes.fromhex(signed.signature.removeprefix("0x"))
    except (msgspec.DecodeError, ValueError) as error:
        raise CliError(f"{path} is not a signed quote: {error}") from None
    finish(trio.run(_block, options, signed.quote, signature, limit), as_json)


async def _block(options: Signing, json: QuoteJson, signature: bytes, limit: int | None) -> Any:
    async with open_node(options.node) as node:
        listed = [await node.instrument(name) for name in dict.fromkeys(leg.instrument for leg in json.legs)]
        numbers = {str(each["instrument_name"]): int(each["instrument_id"]) for each in listed}
        quoted = to_quote(json, numbers.__getitem__)
        made = partial(
            ExecuteQuote,
            quote=quoted,
            quote_signature=signature,
            limit_uusd=quoted.net_uusd if limit is None else limit,
        )
        words = f"the other side of account {quoted.account}'s quote: {_words(quoted, names_of(listed))}"
        return await sign_and_send(node, options, made, words, more=listed)
