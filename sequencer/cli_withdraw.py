"""What `straddle withdraw` does: begin, wait until a posted batch that has it is final, prove, claim.

After the beginning everything is found again from the withdrawal's number: L1 says which batch is final, and
the node, or a verifier's data when the node is gone, proves the withdrawal under that batch's root. The proof
is checked against L1's root before it is sent, so neither has to be trusted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from l1_bridge.deploy import Sender
from l1_bridge.replay import Replay, state_directory
from l1_bridge.types import L1Unavailable
from l1_bridge.withdrawals import Claim, claim, claim_of, is_paid
from sequencer.cli_keys import unlock
from sequencer.cli_l1 import L1, open_l1
from sequencer.cli_options import Signing
from sequencer.cli_output import Steps
from sequencer.cli_session import Node, open_node, sign_and_send
from sequencer.cli_support import CliError
from sequencer.cli_units import show_dollars
from sequencer.client import NodeError, NodeUnreachable
from sequencer.signing import SecretKey
from state.actions import Withdraw
from state.eip712 import Domain
from state.keys import withdrawal_key
from state.proofs import AbsenceProof, MembershipProof
from state.tree import VersionUnavailable

POLL_S = 1.0
NOT_AVAILABLE = "NOT_AVAILABLE"

Proof = MembershipProof | AbsenceProof
Prover = Callable[[bytes, int], Awaitable[tuple[int, Proof] | None]]
"""A proof of a key after a batch, or the last one at hand before it, with its number; None: not at hand."""


@dataclass(frozen=True, slots=True)
class Withdrawing:
    """What was asked for: a new withdrawal of `amount_uusd`, or that of `number`. `l1` "" only begins it."""

    amount_uusd: int
    to: bytes | None
    number: int | None
    data_dir: Path | None
    l1: str
    options: Signing


async def run_withdraw(asked: Withdrawing) -> dict[str, Any]:
    """What became of it. Raises CliError, L1Error, NodeError, NodeUnreachable, StoreError."""
    options = asked.options
    if asked.data_dir is not None:
        assert options.rollup is not None
        assert asked.number is not None
        async with open_l1(asked.l1, options.rollup) as l1:
            sender = await l1.sender(unlock(options.key, options.password_file))
            prover = partial(_prove_from_data, asked.data_dir, l1, asked.number)
            return await _follow(l1, sender, asked.number, prover)
    async with open_node(options.node) as node:
        domain = await node.domain(options.rollup)
        if not asked.l1:
            return await _begin(node, asked, unlock(options.key, options.password_file))
        async with open_l1(asked.l1, domain.contract) as l1:
            if l1.info.chain_id != domain.chain_id:
                raise CliError(
                    f"the node's rollup has chain id {domain.chain_id}, "
                    f"the contract's is {l1.info.chain_id}: node and L1 do not belong together; "
                    "nothing was signed"
                )
            key = unlock(options.key, options.password_file)
            sender = await l1.sender(key)
            number = asked.number or (await _begin(node, asked, key))["number"]
            return await _follow(l1, sender, number, partial(_prove_from_node, node))


async def _begin(node: Node, asked: Withdrawing, key: SecretKey) -> dict[str, Any]:
    """Sends the signed action."""
    recipient = asked.to or key.address
    make = partial(Withdraw, recipient=recipient, amount_uusd=asked.amount_uusd)
    summary = f"{show_dollars(asked.amount_uusd)} to 0x{recipient.hex()} on L1"
    receipt = await sign_and_send(node, asked.options, make, summary, key=key)
    number = receipt["withdrawal"]
    with Steps() as steps:
        steps.done(f"withdrawal {number} is sealed in block {receipt['block_number']}")
        steps.done(f"if this is interrupted: straddle withdraw --number {number}")
    return {"status": "begun", "number": number, "transaction": receipt["hash"]}


async def _follow(l1: L1, sender: Sender, number: int, prove: Prover) -> dict[str, Any]:
    """From a begun withdrawal to its payment."""
    with Steps() as steps:
        ready = await until_final(l1, number, prove, steps)
        leaf = ready.withdrawal
        steps.done(f"withdrawal {number} is proved under the root of batch {ready.batch}, which is final")
        found = {
            "status": "paid",
            "number": number,
            "amount_uusd": leaf.amount_uusd,
            "recipient": "0x" + leaf.recipient.hex(),
            "batch": ready.batch,
            "l1_transaction": None,
        }
        if await is_paid(l1.rollup, number):
            return found
        steps.wait("the payment's L1 transaction")
        receipt = await claim(sender, l1.info.vault, ready)
        found["l1_transaction"] = "0x" + receipt.transaction_hash.hex()
        steps.done(f"the vault has paid, in L1 block {receipt.block_number}")
    return found


async def until_final(l1: L1, number: int, prove: Prover, steps: Steps) -> Claim:
    """Waits until a final batch has the withdrawal. Neither L1 nor the node being away ends it."""
    posted_in = 0
    while True:
        try:
            final, last = await l1.rollup.finalized_batch(), await l1.rollup.last_batch()
            if (ready := await _proved(l1, number, prove, final)) is not None:
                return ready
            if not posted_in and (posted := await _proved(l1, number, prove, last)) is not None:
                posted_in = posted.batch
                steps.done(f"it is on L1, in batch {posted_in} or one before")
            if posted_in:
                left_s = await _window_left_s(l1, posted_in)
                steps.wait("the challenge window", f"batch {posted_in} is final in about {left_s} s")
            else:
                steps.wait("a batch on L1 that has it", f"batch {last} is posted, {final} is final")
        except L1Unavailable as error:
            steps.wait("L1, which does not answer", str(error))
        except NodeUnreachable as error:
            steps.wait("the node, which does not answer (a verifier's --data-dir would do)", str(error))
        await trio.sleep(POLL_S)


async def _proved(l1: L1, number: int, prove: Prover, batch: int) -> Claim | None:
    """The claim under the root that L1 has; None when the state after `batch` has no such withdrawal."""
    found = await prove(withdrawal_key(number), batch)
    if found is None or isinstance(found[1], AbsenceProof):
        return None
    return claim_of(number, found[0], await l1.rollup.root_of(found[0]), found[1])


async def _window_left_s(l1: L1, batch: int) -> int:
    _, _, posted_at_s, _, _, _ = await l1.rollup.read("batchAt", batch)
    head = await l1.client.head()
    return max(0, int(posted_at_s) + l1.info.challenge_window_s - head.timestamp_s)


async def _prove_from_node(node: Node, key: bytes, batch: int) -> tuple[int, Proof] | None:
    try:
        found = await node.call("straddle_getProof", key="0x" + key.hex(), at=batch)
    except NodeError as error:
        if isinstance(error.data, dict) and error.data.get("code") == NOT_AVAILABLE:
            return None
        raise
    encoded = bytes.fromhex(found["encoded"][2:])
    kind = MembershipProof if found["present"] else AbsenceProof
    return batch, kind.decode(encoded)


async def _prove_from_data(
    data_dir: Path, l1: L1, number: int, key: bytes, batch: int
) -> tuple[int, Proof] | None:
    """A proof from what a verifier has stored, opened for this one proof.

    Raises CliError when the data end before the withdrawal; StoreError when a verifier has them open.
    """
    domain = Domain(l1.info.chain_id, l1.info.address)
    found, proof = await trio.to_thread.run_sync(_read_proof, data_dir, domain, key, batch)
    if found < batch and isinstance(proof, AbsenceProof):
        raise CliError(
            f"--data-dir: verified up to batch {found}, which has no withdrawal {number}, but batch "
            f"{batch} is posted: run straddle verifier first"
        )
    return found, proof


def _read_proof(data_dir: Path, domain: Domain, key: bytes, batch: int) -> tuple[int, Proof]:
    """Under the root of `batch`, or of the last one verified before it."""
    path = state_directory(data_dir, domain)
    if not path.is_dir():
        raise CliError(
            f"--data-dir: {data_dir} has no state of rollup {domain.chain_id} at 0x{domain.contract.hex()}"
        )
    with Replay(path, domain) as replay:
        at = min(batch, replay.cursor.batch)
        try:
            return at, replay.prove(key, at)
        except VersionUnavailable:
            raise CliError(f"--data-dir: the state after batch {at} is not kept any more") from None
