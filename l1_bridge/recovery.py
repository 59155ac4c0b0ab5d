"""Who signed what in a batch, worked out beside execution: in a process of its own, one batch ahead.

Recovering signers costs about as much as executing, and needs of the state only the instruments' names, which
never change. A worker thread would not do: it competes with execution for the interpreter at every step.

A transaction that names a market unknown so far is left open (None) and recovered when its block is reached:
the block itself may list the market. A market that does not exist even then has the empty name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

from l1_bridge.batch import decode_batch
from l1_bridge.workers import worker_process
from state.actions import OracleUpdate, Payload, Transaction
from state.eip712 import Domain, action_digest, recover, report_digest, transaction_hash, update_hash
from state.hashing import keccak

NO_NAME = keccak(b"")


class Signed(NamedTuple):
    """What a `Transaction` has beside its payload."""

    signers: tuple[bytes | None, ...]
    hash: bytes

    def transaction(self, payload: Payload) -> Transaction:
        return Transaction(payload, self.signers, self.hash)


def recover_payload(domain: Domain, payload: Payload, names: Callable[[int], bytes]) -> Signed:
    """Raises KeyError when `names` does not know a market."""
    if isinstance(payload, OracleUpdate):
        digests = [report_digest(domain, report) for report in payload.reports]
        signatures = [report.signature for report in payload.reports]
        hashes = [transaction_hash(*pair) for pair in zip(digests, signatures, strict=True)]
        signers = tuple([recover(*pair) for pair in zip(digests, signatures, strict=True)])
        return Signed(signers, update_hash(hashes))
    digest = action_digest(domain, payload.action, names)
    return Signed((recover(digest, payload.signature),), transaction_hash(digest, payload.signature))


def recover_batch(domain: Domain, data: bytes, names: Mapping[int, bytes]) -> list[list[Signed | None]]:
    """For each block of the batch, its transactions' signers; None where a market has no name yet."""
    found: list[list[Signed | None]] = []
    for block in decode_batch(data).blocks:
        signed: list[Signed | None] = []
        for payload in block.transactions:
            try:
                signed.append(recover_payload(domain, payload, names.__getitem__))
            except KeyError:
                signed.append(None)
        found.append(signed)
    return found


class RecoveryProcess:
    """One process that recovers batches in the order they are given. Call `close` when done."""

    def __init__(self) -> None:
        self._pool = worker_process()

    def submit(
        self, domain: Domain, data: bytes, names: Mapping[int, bytes]
    ) -> Future[list[list[Signed | None]]]:
        """`recover_batch` over there."""
        return self._pool.submit(recover_batch, domain, data, dict(names))

    def close(self) -> None:
        """Ends the process; waits for the batch under way."""
        self._pool.shutdown(cancel_futures=True)
