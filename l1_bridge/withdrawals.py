"""Taking money out on L1: the proof of a withdrawal, and its claim once its batch is final.

A withdrawal begun in the rollup is a leaf that stays in the state for good, so any final root after it proves
it. Proofs come from a running node, or from a verifier's own data directory when the node is gone: `prove`
takes whatever can prove a key under a batch's root.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from l1_bridge.abi import contract
from l1_bridge.deploy import Sender
from l1_bridge.rollup import RollupContract
from l1_bridge.types import L1Receipt, L1Refused, L1Unavailable
from state.keys import withdrawal_key
from state.leaves import Withdrawal
from state.proofs import AbsenceProof, MembershipProof, verify_membership

Prover = Callable[[bytes, int], MembershipProof | AbsenceProof]
"""A proof of a key under the root of a batch."""


@dataclass(frozen=True, slots=True)
class Claim:
    """All that Vault.claim needs. Anybody may send it; the recipient is in the leaf."""

    batch: int
    number: int
    leaf: bytes
    siblings: tuple[bytes, ...]
    bits: bytes

    @property
    def withdrawal(self) -> Withdrawal:
        return Withdrawal.decode(self.leaf)


def claim_of(number: int, batch: int, root: bytes, proof: MembershipProof | AbsenceProof) -> Claim:
    """The claim, its proof checked against the batch's root.

    Raises L1Refused when the state after that batch has no such withdrawal, ProofError for a wrong proof.
    """
    if isinstance(proof, AbsenceProof):
        raise L1Refused(f"the state after batch {batch} has no withdrawal {number}")
    leaf = verify_membership(root, proof, withdrawal_key(number))
    return Claim(batch, number, leaf, tuple(proof.siblings), proof.bits)


async def is_paid(rollup: RollupContract, number: int) -> bool:
    """Whether the vault has paid the withdrawal already."""
    vault = (await rollup.info()).vault
    answer = await rollup.client.call(vault, contract("Vault").call("isClaimed", number))
    return bool(contract("Vault").result("isClaimed", answer))


async def wait_final(
    rollup: RollupContract,
    batch: int,
    on_progress: Callable[[int, int], None] | None = None,
    poll_s: float = 2.0,
) -> int:
    """Waits until `batch` is final and returns the last final batch; L1 being away only delays.

    `on_progress` gets the last batch posted and the last one final.
    """
    while True:
        try:
            last, final = await rollup.last_batch(), await rollup.finalized_batch()
        except L1Unavailable:
            await trio.sleep(poll_s)
            continue
        if on_progress is not None:
            on_progress(last, final)
        if final >= batch:
            return final
        await trio.sleep(poll_s)


async def prove(rollup: RollupContract, number: int, batch: int, prover: Prover) -> Claim:
    """The claim of a withdrawal under a final batch's root. Raises L1Refused, ProofError, L1Unavailable."""
    root = await rollup.root_of(batch)
    proof = await trio.to_thread.run_sync(prover, withdrawal_key(number), batch)
    return claim_of(number, batch, root, proof)


async def claim(sender: Sender, vault: bytes, ready: Claim) -> L1Receipt:
    """Has the vault pay. Raises L1Reverted in the contract's words: AlreadyClaimed, BatchNotFinal..."""
    call = contract("Vault").call(
        "claim", ready.batch, ready.number, ready.leaf, list(ready.siblings), ready.bits
    )
    return await sender.send(vault, call)
