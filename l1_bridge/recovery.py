"""Who signed what in a batch, worked out beside execution: in a process of its own, one batch ahead.

Recovering signers costs about as much as executing, and needs of the state only the instruments' names, which
never change. A worker thread would not do: it competes with execution for the interpreter at every step.

A transaction that names a market unknown so far is left open (None) and recovered when its block is reached:
the block itself may list the market. A market that does not exist even then has the empty name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from l1_bridge.batch import DecodedBatch, decode_batch
from l1_bridge.workers import worker_process
from state.actions import OracleUpdate, Payload, Transaction
from state.eip712 import Domain, report_digest, signature_pairs, transaction_hash, update_hash
from state.hashing import keccak
from state.signatures import recover

NO_NAME = keccak(b"")
PARTS = 16
"""Of a batch. Recovering takes about as long as executing, but not always the same of the two takes longer:
who executes and would have to wait for signers finds some of them itself."""


class Signed(NamedTuple):
    """What a `Transaction` has beside its payload."""

    signers: tuple[bytes | None, ...]
    hash: bytes

    def transaction(self, payload: Payload) -> Transaction:
        return Transaction(payload, self.signers, self.hash)


Recovered: TypeAlias = list[list[Signed | None]]
"""Of each block, its transactions' signers."""


def recover_payload(domain: Domain, payload: Payload, names: Callable[[int], bytes]) -> Signed:
    """Raises KeyError when `names` does not know a market."""
    if isinstance(payload, OracleUpdate):
        digests = [report_digest(domain, report) for report in payload.reports]
        signatures = [report.signature for report in payload.reports]
        hashes = [transaction_hash(*pair) for pair in zip(digests, signatures, strict=True)]
        signers = tuple([recover(*pair) for pair in zip(digests, signatures, strict=True)])
        return Signed(signers, update_hash(hashes))
    pairs = signature_pairs(domain, payload, names)
    return Signed(tuple([recover(*pair) for pair in pairs]), transaction_hash(*pairs[0]))


@lru_cache(maxsize=2)
def decoded(data: bytes) -> DecodedBatch:
    """`decode_batch`, once for all who look at the batch at about the same time in this process."""
    return decode_batch(data)


def recover_batch(domain: Domain, data: bytes, names: Mapping[int, bytes]) -> Recovered:
    """For each block of the batch, its transactions' signers; None where a market has no name yet."""
    return recover_part(domain, data, names, 0, 1)


def recover_part(domain: Domain, data: bytes, names: Mapping[int, bytes], part: int, parts: int) -> Recovered:
    """`recover_batch` of one of so many about equal runs of blocks."""
    blocks = decoded(data).blocks
    found: Recovered = []
    for block in blocks[part * len(blocks) // parts : (part + 1) * len(blocks) // parts]:
        signed: list[Signed | None] = []
        for payload in block.transactions:
            try:
                signed.append(recover_payload(domain, payload, names.__getitem__))
            except KeyError:
                signed.append(None)
        found.append(signed)
    return found


class Recovering:
    """The signers of one batch, on their way from a `RecoveryProcess`."""

    def __init__(self, domain: Domain, data: bytes, names: Mapping[int, bytes], pool: Executor) -> None:
        self._arguments = domain, data, dict(names)
        self._parts = [pool.submit(recover_part, *self._arguments, part, PARTS) for part in range(PARTS)]

    def result(self) -> Recovered:
        """Waits for them; does not wait idly, but takes over, from the last on, what is not begun there."""
        own: dict[int, Recovered] = {}
        for part in reversed(range(PARTS)):
            if self._parts[part].cancel():
                own[part] = recover_part(*self._arguments, part, PARTS)
        found = (own[part] if part in own else self._parts[part].result() for part in range(PARTS))
        return [block for blocks in found for block in blocks]


class RecoveryProcess:
    """One process that recovers batches in the order they are given. Call `close` when done."""

    def __init__(self) -> None:
        self._pool = worker_process()

    def submit(self, domain: Domain, data: bytes, names: Mapping[int, bytes]) -> Recovering:
        """`recover_batch` over there, and where its result will be."""
        return Recovering(domain, data, names, self._pool)

    def close(self) -> None:
        """Ends the process; waits for the work under way."""
        self._pool.shutdown(cancel_futures=True)
