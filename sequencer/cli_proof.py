"""The proof command: any leaf of the state, or its absence, checked here and not believed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Annotated, Any

import trio
import typer

from sequencer.cli_options import DEFAULT_NODE, AsJson, L1Url, NodeUrl, Rollup
from sequencer.cli_output import print_fields, print_json
from sequencer.cli_session import open_node
from sequencer.cli_support import CliError, exits_cleanly
from sequencer.cli_units import hash32, show_field
from state import keys
from state.leaves import decode_leaf
from state.proofs import AbsenceProof, MembershipProof, verify_absence, verify_membership

TAGS = ("latest", "safe", "finalized")


def _at(text: str) -> int | str:
    if text in TAGS:
        return text
    if text.isascii() and text.isdigit() and int(text) < 2**63:
        return int(text)
    raise typer.BadParameter(f"{text!r} is neither a batch's number nor one of {', '.join(TAGS)}")


@exits_cleanly
def proof(
    key: Annotated[
        str | None, typer.Argument(parser=hash32, metavar="KEY", help="A leaf's key, 32 bytes as 0x-hex.")
    ] = None,
    account: Annotated[int | None, typer.Option("--account", min=0, metavar="N", help="An account.")] = None,
    withdrawal: Annotated[
        int | None, typer.Option("--withdrawal", min=0, metavar="N", help="A withdrawal.")
    ] = None,
    system: Annotated[bool, typer.Option("--system", help="The machine's registers.")] = False,
    at: Annotated[
        Any,
        typer.Option(
            "--at", parser=_at, metavar="BATCH", help="After this batch: a number, latest, safe or finalized."
        ),
    ] = "latest",
    node: NodeUrl = DEFAULT_NODE,
    l1: L1Url = None,
    rollup: Rollup = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a leaf of the state with its Merkle proof, check the proof here, and say what it proves.

    With --l1 the root is compared with the one on L1, so that nothing the node says has to be believed.
    """
    given = [account is not None, withdrawal is not None, system, key is not None]
    if sum(given) != 1:
        raise typer.BadParameter(
            "name one leaf: KEY, --account N, --withdrawal N or --system", param_hint="KEY"
        )
    if account is not None:
        wanted = keys.account_key(_u64("--account", account))
    elif withdrawal is not None:
        wanted = keys.withdrawal_key(_u64("--withdrawal", withdrawal))
    else:
        wanted = keys.SYSTEM_KEY if system else bytes.fromhex(str(key)[2:])
    found, value, on_l1 = trio.run(_prove, node, wanted, at, l1, rollup)
    if as_json:
        print_json({**found, "verified": True, "root_on_l1": on_l1})
        return
    _show(found, wanted, value, on_l1)


def _u64(option: str, number: int) -> int:
    if number > keys.MAX_U64:
        raise typer.BadParameter("larger than 2^64 - 1", param_hint=option)
    return number


async def _prove(
    url: str, key: bytes, at: int | str, l1: str | None, rollup: bytes | None
) -> tuple[Any, bytes | None, bool | None]:
    """The node's answer, the value it proves (None: absence), and whether L1 has its root (None: unknown)."""
    async with open_node(url) as node:
        domain = await node.domain(rollup)
        found = await node.call("straddle_getProof", key="0x" + key.hex(), at=at)
    value = check_proof(found, key)
    if l1 is None:
        return found, value, None
    return (
        found,
        value,
        await _is_on_l1(l1, domain.contract, found["batch"], bytes.fromhex(found["root"][2:])),
    )


def check_proof(found: Any, key: bytes) -> bytes | None:
    """The proved value, None for proved absence. Raises ProofError when the node's proof proves neither."""
    root, encoded = bytes.fromhex(found["root"][2:]), bytes.fromhex(found["encoded"][2:])
    if found["present"]:
        return verify_membership(root, MembershipProof.decode(encoded), key)
    verify_absence(root, AbsenceProof.decode(encoded), key)
    return None


async def _is_on_l1(url: str, rollup: bytes, batch: int, root: bytes) -> bool | None:
    """None when the batch is not posted yet. Raises CliError when L1 has another root."""
    from sequencer.cli_l1 import open_l1

    async with open_l1(url, rollup) as l1:
        if await l1.rollup.last_batch() < batch:
            return None
        theirs = await l1.rollup.root_of(batch)
    if theirs != root:
        raise CliError(
            f"the node proves under root 0x{root.hex()}, but L1 has 0x{theirs.hex()} for batch {batch}"
        )
    return True


def _show(found: Any, key: bytes, value: bytes | None, on_l1: bool | None) -> None:
    where = f"the state after batch {found['batch']}"
    lines = [("key", "0x" + key.hex()), ("root", found["root"])]
    if value is None:
        title = f"proved: {where} has no leaf of this key"
    else:
        title = f"proved: {where} has this leaf"
        lines += _leaf_lines(key, value)
    lines.append(("proof", f"{len(found['siblings'])} hashes, checked here"))
    lines.append(
        ("root on L1", "the same" if on_l1 else "not compared: --l1 was not given, or not posted yet")
    )
    print_fields(title, lines)


def _leaf_lines(key: bytes, value: bytes) -> list[tuple[str, str]]:
    try:
        leaf: Any = decode_leaf(key, value)
    except ValueError:
        return [("value", "0x" + value.hex())]
    if not is_dataclass(leaf):
        return [("value", "0x" + value.hex())]
    lines = [("leaf", type(leaf).__name__)]
    for field in fields(leaf):
        content = getattr(leaf, field.name)
        shown = "0x" + content.hex() if isinstance(content, bytes) else show_field(field.name, content)
        lines.append((f"  {field.name}", shown))
    return lines
