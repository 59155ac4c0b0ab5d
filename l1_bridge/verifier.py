"""The verifier: from an L1 URL and the Rollup's address alone to `every posted root is right`, or not.

Three things run at once, each a batch ahead of the next: reading L1, recovering signers (in a process of its
own), executing (in a worker thread). What is verified is on disk, so the verifier goes on where it was; when
L1's history changed below that (a deep reorg, or the guardian reverted batches), it starts from genesis.

L1 being away only delays. A wrong root ends everything: `RootMismatch` says which batch, and, when a node's
URL is given, which transaction it executed differently.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from l1_bridge.blobs import KzgWorker
from l1_bridge.client import RpcClient
from l1_bridge.derivation import BlobSource, Derivation, DerivedBatch, HistoryChanged
from l1_bridge.recovery import Recovering, RecoveryProcess, recover_batch
from l1_bridge.replay import Replay, Replayed, state_directory
from l1_bridge.rollup import RollupContract, RollupInfo
from l1_bridge.types import L1Error, L1Refused, L1Unavailable
from state.block import TransactionResult
from state.eip712 import Domain
from state.errors import RejectCode
from state.genesis import GENESIS_ROOT

log = structlog.get_logger("verifier")

BATCHES_AHEAD = 3
TRIES = 12
"""Attempts to reach L1 when not following; then L1Unavailable ends the run."""


@dataclass(frozen=True, slots=True)
class VerifiedBatch:
    """One batch whose root is right; for progress displays and metrics. Times in seconds."""

    batch: int
    last_batch: int
    """The contract's last batch when last looked at."""
    root: bytes
    blocks: int
    transactions: int
    data_bytes: int
    ignored_bytes: int
    l1_block: int
    execution_s: float


class RootMismatch(Exception):
    """The root that L1 has for a batch is not the one its data gives."""

    def __init__(self, batch: int, claimed: bytes, computed: bytes, difference: str = ""):
        super().__init__(
            f"batch {batch}: L1 has root 0x{claimed.hex()}, its data gives 0x{computed.hex()}"
            + (f"; {difference}" if difference else "")
        )
        self.batch = batch
        self.claimed = claimed
        self.computed = computed
        self.difference = difference


@dataclass(frozen=True, slots=True)
class _Job:
    derived: DerivedBatch
    signed: Recovering | None


class Verifier:
    """Verifies the rollup at `rollup`, keeping its state in `data_dir`.

    `beacon_url` serves blobs; on a development chain the L1's own URL does. `node` is a client for the
    sequencer's JSON-RPC, used only to explain a mismatch.
    """

    def __init__(
        self,
        client: RpcClient,
        rollup: bytes,
        data_dir: Path,
        beacon_url: str,
        confirmations: int = 2,
        node: RpcClient | None = None,
        in_process: bool = False,
        poll_s: float = 2.0,
    ):
        """`in_process` recovers signers without a second process: for small jobs."""
        self._client = client
        self._rollup = rollup
        self._data_dir = data_dir
        self._beacon_url = beacon_url
        self._confirmations = confirmations
        self._node = node
        self._in_process = in_process
        self._poll_s = poll_s
        self._names: dict[int, bytes] = {}
        self.verified = 0
        """The last batch whose root is right."""
        self.last_error = ""

    async def run(self, on_verified: Callable[[VerifiedBatch], None], follow: bool = False) -> int:
        """Verifies all batches deep enough in L1, and with `follow` those to come, until cancelled.

        Returns the last verified batch. Raises RootMismatch, StoreError, L1Refused when there is no such
        contract, and when not following L1Unavailable.
        """
        while True:
            info = await self._patiently(RollupContract(self._client, self._rollup).info, follow)
            if info.genesis_root != GENESIS_ROOT:
                raise L1Refused("the contract starts from another genesis state than this software's")
            domain = Domain(info.chain_id, self._rollup)
            try:
                with Replay(state_directory(self._data_dir, domain), domain) as replay:
                    await self._verify(replay, info, on_verified, follow)
                    return self.verified
            except ExceptionGroup as group:
                error = first_error(group)
                if not isinstance(error, HistoryChanged):
                    raise error from None
                log.warning("starting again from genesis", reason=str(error))
                shutil.rmtree(state_directory(self._data_dir, domain))

    async def _verify(
        self, replay: Replay, info: RollupInfo, on_verified: Callable[[VerifiedBatch], None], follow: bool
    ) -> None:
        self.verified = replay.cursor.batch
        self._names = dict(replay.names())
        recovery = None if self._in_process else RecoveryProcess()
        kzg = KzgWorker()
        try:
            async with trio.open_nursery() as nursery:
                send, receive = trio.open_memory_channel[_Job](BATCHES_AHEAD)
                derivation = await self._derivation(replay, info, kzg, follow)
                nursery.start_soon(self._derive, derivation, replay.domain, recovery, send, follow)
                async with receive:
                    async for job in receive:
                        await self._verify_batch(replay, derivation, job, on_verified)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(kzg.close)
                if recovery is not None:
                    await trio.to_thread.run_sync(recovery.close)

    async def _derivation(self, replay: Replay, info: RollupInfo, kzg: KzgWorker, follow: bool) -> Derivation:
        chain_id = await self._patiently(self._client.chain_id, follow)
        blobs = BlobSource(self._client, self._beacon_url, chain_id, kzg)
        derivation = Derivation(self._client, info, blobs, replay.cursor, self._confirmations)
        await self._patiently(derivation.start, follow)
        return derivation

    async def _derive(
        self,
        derivation: Derivation,
        domain: Domain,
        recovery: RecoveryProcess | None,
        send: trio.MemorySendChannel[_Job],
        follow: bool,
    ) -> None:
        async with send:
            while True:
                passing = L1Error if follow else L1Unavailable
                derived = await self._patiently(derivation.next, follow, passing)
                if derived is None:
                    if not follow:
                        return
                    await trio.sleep(self._poll_s)
                    continue
                signed = recovery.submit(domain, derived.data, self._names) if recovery else None
                await send.send(_Job(derived, signed))

    async def _verify_batch(
        self,
        replay: Replay,
        derivation: Derivation,
        job: _Job,
        on_verified: Callable[[VerifiedBatch], None],
    ) -> None:
        event = job.derived.event
        names = self._names

        def work() -> tuple[Replayed, float]:
            if job.signed is not None:
                signed = job.signed.result()
            else:
                signed = recover_batch(replay.domain, job.derived.data, names)
            started = time.perf_counter()
            return replay.execute(job.derived, signed), time.perf_counter() - started

        replayed, execution_s = await trio.to_thread.run_sync(work)
        if replayed.root != event.root:
            difference = await self._explain(replayed)
            raise RootMismatch(event.number, event.root, replayed.root, difference)
        final = await self._finalized()
        await trio.to_thread.run_sync(replay.keep, final)
        self._names = dict(replay.names())
        self.verified = event.number
        on_verified(
            VerifiedBatch(
                event.number,
                derivation.last_batch,
                replayed.root,
                len(replayed.blocks),
                replayed.transactions,
                event.data_bytes,
                replayed.ignored_bytes,
                event.l1_block,
                execution_s,
            )
        )

    async def _finalized(self) -> int:
        """Roots before the last final one need no proofs any more; 0 when L1 does not say."""
        try:
            return await RollupContract(self._client, self._rollup).finalized_batch()
        except L1Error:
            return 0

    async def _patiently(
        self, ask: Callable[[], Any], follow: bool, passing: type[L1Error] = L1Unavailable
    ) -> Any:
        """Asks until there is an answer; `passing` errors are waited out, for ever when following."""
        failures = 0
        while True:
            try:
                answer = await ask()
                self.last_error = ""
                return answer
            except passing as error:
                failures += 1
                self.last_error = str(error)
                log.warning("L1 is unavailable", error=str(error), failures=failures)
                if not follow and failures >= TRIES:
                    raise
            await trio.sleep(self._poll_s * min(2**failures, 16))

    async def _explain(self, replayed: Replayed) -> str:
        """Where the node's results differ from ours first, in words; empty without a node."""
        if self._node is None:
            return ""
        try:
            return await first_difference(self._node, replayed)
        except L1Error as error:
            return f"the node could not be asked: {error}"


def first_error(group: ExceptionGroup[Exception]) -> Exception:
    """The first error in a group of them, however nested."""
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


async def first_difference(node: RpcClient, replayed: Replayed) -> str:
    """Compares the node's receipts with re-execution, in order. Raises L1Error when it cannot be asked."""
    for block in replayed.blocks:
        for index, result in enumerate(block.results):
            where = f"transaction {index} of block {block.header.number} (0x{result.hash.hex()})"
            try:
                receipt = await node.raw_request("straddle_getReceipt", ["0x" + result.hash.hex()])
            except L1Refused as error:
                return f"the node has no receipt of {where}: {error}"
            if receipt is None:
                return f"the node has no receipt of {where}"
            if differing := differing_fields(receipt, result):
                return f"{where} differs first, in {', '.join(differing)}"
    return "the node's receipts agree with re-execution: only its root is wrong"


def differing_fields(receipt: dict[str, Any], result: TransactionResult) -> list[str]:
    """Names of what a node's receipt says otherwise than re-execution."""
    operations = [
        (each.order_id, each.filled_ulots, each.resting_ulots, each.cancelled_ulots)
        for each in result.operations
    ]
    theirs = [
        tuple(each.get(name) for name in ("order_id", "filled_ulots", "resting_ulots", "cancelled_ulots"))
        for each in receipt.get("operations", ())
    ]
    trades = [each.get("trade") for each in receipt.get("fills", ())]
    pairs = {
        "status": (receipt.get("status"), RejectCode(result.code).name if result.code else "executed"),
        "fee": (receipt.get("fee", {}).get("inclusion_uusd"), result.fee_uusd),
        "operations": (theirs, operations),
        "fills": (trades, list(range(*result.trades))),
        "withdrawal": (receipt.get("withdrawal"), result.withdrawal or None),
    }
    return [name for name, (node_says, we_say) in pairs.items() if node_says != we_say]
