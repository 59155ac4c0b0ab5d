"""A conversation with a node: who it says it is, what it lists, and signing and sending an action through it.

What binds a signature to a rollup (chain id and contract) is learned from the node, and compared with the
contract that the user names, if he names one; either way it is shown before anything is signed.
"""

from __future__ import annotations

import difflib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from sequencer.cli_keys import unlock
from sequencer.cli_options import Signing
from sequencer.cli_output import note
from sequencer.cli_support import CliError
from sequencer.cli_units import show_dollars, show_time
from sequencer.client import NodeClient, NodeError, NodeUnreachable
from state.actions import Action, SignedAction
from state.eip712 import Domain, action_digest
from state.hashing import keccak
from state.typed_data import message
from state.wire import to_json

if TYPE_CHECKING:
    from sequencer.signing import SecretKey

NOT_A_METHOD = -32601
FAR_AHEAD_S = 30
"""Clocks that differ by less are said to agree."""


class Node:
    """Calls of one node, with errors that say what is there instead when it is not a node."""

    def __init__(self, client: NodeClient, url: str) -> None:
        self.url = url
        self._client = client

    async def call(self, method: str, **params: Any) -> Any:
        """The result. Raises NodeError, NodeUnreachable, and CliError when this is no Straddle node."""
        with _readable(self.url):
            return await self._client.call(method, params)

    async def call_many(self, calls: list[tuple[str, Any]]) -> list[Any]:
        """All results. Raises the first NodeError, NodeUnreachable."""
        with _readable(self.url):
            answers = await self._client.call_many(calls) if calls else []
        for answer in answers:
            if isinstance(answer, NodeError):
                raise answer
        return answers

    async def domain(self, rollup: bytes | None) -> Domain:
        """What signatures are bound to. Raises CliError when it is not the `rollup` that the user names."""
        status = await self.call("straddle_status")
        domain = Domain(status["chain_id"], bytes.fromhex(status["contract"][2:]))
        if rollup is not None and rollup != domain.contract:
            raise CliError(
                f"--rollup: you trust 0x{rollup.hex()}, but the node at {self.url} serves "
                f"0x{domain.contract.hex()}; nothing was signed"
            )
        return domain

    async def instrument(self, name: str) -> dict[str, Any]:
        """The instrument of that name. Raises BadParameter, with the nearest name."""
        listed = {each["instrument_name"]: each for each in await self.call("public/get_instruments")}
        if name not in listed:
            near = difflib.get_close_matches(name.upper(), list(listed), n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else "; straddle markets lists them"
            raise typer.BadParameter(f"there is no instrument {name!r}{hint}", param_hint="INSTRUMENT")
        found: dict[str, Any] = listed[name]
        return found

    async def sole_account(self, owner: bytes) -> int:
        """The only account of an owner. Raises CliError when there is none, or a choice."""
        numbers = await self.call("straddle_getAccounts", owner="0x" + owner.hex())
        if not numbers:
            raise CliError(f"0x{owner.hex()} owns no account: straddle deposit opens one")
        if len(numbers) > 1:
            shown = ", ".join(map(str, numbers))
            raise CliError(f"0x{owner.hex()} owns accounts {shown}: choose one with --account")
        return int(numbers[0])


class _readable:
    """Says what is wrong with the address when the answer is not JSON-RPC, or another service's."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, msgspec.DecodeError | KeyError | TypeError):
            raise NodeUnreachable(f"{self._url} answers something that is not JSON-RPC") from None
        if isinstance(error, NodeError) and error.code == NOT_A_METHOD:
            raise CliError(f"--node: {self._url} is not a Straddle node: {error.message}") from None


@asynccontextmanager
async def open_node(url: str) -> AsyncIterator[Node]:
    """A node's client, closed at the end."""
    async with NodeClient(url) as client:
        yield Node(client, url)


def names_of(instruments: Sequence[dict[str, Any]]) -> Callable[[int], str]:
    """Names by number of instruments as a node lists them."""
    return {each["instrument_id"]: str(each["instrument_name"]) for each in instruments}.__getitem__


async def deadline_of(node: Node, seconds: int) -> int:
    """That many seconds from now: by the node's clock where it is far ahead, which is said, else by ours."""
    now_s, node_s = int(time.time()), await node.call("public/get_time") // 1_000
    if node_s - now_s <= FAR_AHEAD_S:
        return now_s + seconds
    note(f"the node's clock is {node_s - now_s} s ahead of this machine's, as on a chain whose time travels")
    return int(node_s) + seconds


async def sign_and_send(
    node: Node,
    options: Signing,
    make: Callable[..., Action],
    summary: str,
    instrument: dict[str, Any] | None = None,
    key: SecretKey | None = None,
    more: Sequence[dict[str, Any]] = (),
) -> Any:
    """Makes the action with its envelope, shows it, signs it, sends it; the receipt.

    `make` takes the envelope's fields; `instrument`, with those in `more`, is what the action names; `key` is
    unlocked when not given. Raises CliError, NodeError, NodeUnreachable, and BadParameter when the bid is
    above the most that the action may cost.
    """
    if options.max_fee_uusd is not None and options.bid_uusd > options.max_fee_uusd:
        most = show_dollars(options.max_fee_uusd)
        raise typer.BadParameter(f"is above --max-fee, {most}, which covers fee and bid", param_hint="--bid")
    domain = await node.domain(options.rollup)
    if key is None:
        key = unlock(options.key, options.password_file)
    account = options.account or await node.sole_account(key.address)
    nonce = options.nonce
    if nonce is None:
        nonce = (await node.call("straddle_getAccount", account=account))["next_nonce"]
    name_of = names_of([instrument, *more] if instrument else more)
    action = make(
        account=account,
        nonce=nonce,
        deadline_s=await deadline_of(node, options.deadline_s),
        max_fee_uusd=options.max_fee_uusd or 0,
        priority_bid_uusd=options.bid_uusd,
    )
    price = f"fee at most {show_dollars(action.max_fee_uusd)}"
    if options.max_fee_uusd is None:
        unsigned = {"type": type(action).__name__, **message(action, name_of)}
        quote = await node.call("straddle_feeQuote", action=unsigned)
        action = msgspec.structs.replace(action, max_fee_uusd=quote["suggested_max_fee_uusd"])
        most = sum(quote["most"].values())
        price = f"fee now {show_dollars(quote['fee_uusd'])}, at most {show_dollars(most)}"
    if options.bid_uusd:
        place = f"up to {show_dollars(options.bid_uusd)} for its place"
        price += f", and {place}" if options.max_fee_uusd is None else f", of it {place}"
    note(
        f"signing {type(action).__name__}: {summary}\n"
        f"  account {action.account}, as 0x{key.address.hex()}, nonce {action.nonce}\n"
        f"  {price}; until {show_time(action.deadline_s)}\n"
        f"  rollup {domain.chain_id} at 0x{domain.contract.hex()}"
        + ("" if options.rollup else ", as the node says")
    )
    digest = action_digest(domain, action, lambda number: keccak(name_of(number).encode()))
    signed = SignedAction(action, key.sign(digest))
    return await node.call("straddle_sendTransactionSync", transaction=to_json(signed, name_of))
