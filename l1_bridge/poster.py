"""The poster: carries closed batches to L1, one at a time and in order, by the decisions of `posting`.

Each tick reads L1 at one head, decides, and takes one step. Nothing is kept in memory that a restart would
need: intents and the ledger of costs are stored before anything is sent, everything else is read again. L1
being away, limiting or babbling only makes ticks rarer.

- iPOST_001 Whatever happens, once L1 is calm every batch stands on it exactly once and in order.
- iPOST_002 No posting that reverted is ever mined because of crashes, reorgs or outages alone.

The store is written in worker threads. `run` ends only by cancellation; `status` may be read at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import structlog
import trio

from l1_bridge.blobs import KzgWorker, Sidecar, with_sidecar
from l1_bridge.keys import Signer
from l1_bridge.poster_types import BatchSource, IntentStore, Ledger, Listener, PosterStatus
from l1_bridge.posting import (
    Attempt,
    Bump,
    DataKind,
    Discard,
    Halt,
    Idle,
    Intent,
    Limits,
    Offer,
    Own,
    Prepare,
    Seen,
    Send,
    Step,
    Wait,
    choose_kind,
    decide,
)
from l1_bridge.rollup import BatchEvent, RollupContract
from l1_bridge.types import Fees, L1Error, L1Receipt, L1Refused, L1Reverted
from state.hashing import keccak

log = structlog.get_logger("poster")

UNDERPRICED_WORDS = ("underpriced", "fee too low", "fee cap", "less than block base fee", "max fee per gas")
LEDGER = 2**64 - 1
"""Number of the store's record that holds the ledger: beyond all batches."""


@dataclass
class _Memory:
    """Conveniences that a restart may lose."""

    announced: dict[int, tuple[BatchEvent, L1Receipt]] = field(default_factory=dict)
    highest: int = 0
    guardian_left: int | None = None
    """The batch at which the guardian left the contract."""
    foreign_since_s: float | None = None
    sent_at_s: float | None = None
    underpriced: bool = False


class Poster:
    """Posts the batches of `source` to `rollup`, signed by `signer`."""

    def __init__(
        self,
        rollup: RollupContract,
        signer: Signer,
        source: BatchSource,
        store: IntentStore,
        limits: Limits,
        listener: Listener | None = None,
        kzg: KzgWorker | None = None,
        poll_s: float = 2.0,
        clock: Callable[[], float] = time.time,
    ):
        self._rollup = rollup
        self._client = rollup.client
        self._signer = signer
        self._source = source
        self._store = store
        self._limits = limits
        self._listener = listener
        self._kzg = kzg or KzgWorker()
        self._close_kzg = kzg is None
        self._poll_s = poll_s
        self._clock = clock
        self._wake = trio.Event()
        self._chain_id = 0
        self._deploy_block = 0
        self._ledger = Ledger()
        self._memory = _Memory()
        self.status = PosterStatus()

    def notify(self) -> None:
        """A batch was closed, or an operator wants posting tried now."""
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Works until cancelled. Raises KeyRefused at start for a development key on a real network."""
        task_status.started()
        try:
            await self._work()
        finally:
            if self._close_kzg:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(self._kzg.close)

    async def _work(self) -> None:
        failures = 0
        while True:
            try:
                step = await self.tick()
                failures = 0
            except L1Error as error:
                failures += 1
                step = Wait(str(error))
                self._show("l1-unavailable", str(error))
                self.status.last_error = str(error)
            if isinstance(step, Idle | Wait | Halt):
                await self._pause(self._poll_s * min(2**failures, 32))

    async def tick(self) -> Step:
        """One look at L1 and one step. Raises L1Error when L1 cannot be read."""
        if not self._chain_id:
            await self._start()
        head = await self._client.head()
        posted = await self._rollup.last_batch(head.number)
        self.status.l1_block, self.status.posted = head.number, posted
        guardian = await self._follow(posted, head.number)
        await self._confirm(head.number)
        await self._finalize()
        seen, own = await self._look(posted, guardian)
        step = decide(self._limits, seen, own, self._clock())
        return await self._act(step, own, posted, seen)

    async def _start(self) -> None:
        chain_id = await self._client.chain_id()
        self._signer.check_chain(chain_id)
        self._deploy_block = (await self._rollup.info()).deploy_block
        record = await trio.to_thread.run_sync(self._store.get, LEDGER)
        if record is None:
            self._ledger = Ledger(confirmed_l1_block=self._deploy_block)
        else:
            self._ledger = msgspec.msgpack.decode(record, type=Ledger)
            # A crash may have come between counting a batch and forgetting its intent.
            await trio.to_thread.run_sync(self._store.put, self._ledger.confirmed, None)
            if self._listener and self._ledger.confirmed:
                self._listener.confirmed(self._ledger.confirmed)
        self._memory.highest = self._ledger.confirmed
        self._chain_id = chain_id

    async def _follow(self, posted: int, head: int) -> bool:
        """Announces what appeared or vanished; whether what vanished was the guardian's doing."""
        memory = self._memory
        guardian = False
        if posted < memory.highest:
            guardian = await self._guardian_reverted(posted, head)
            if not guardian:
                await self._unconfirm(posted)
            dropped = [number for number in memory.announced if number > posted]
            for number in dropped:
                del memory.announced[number]
            if dropped and self._listener:
                self._listener.dropped(posted + 1)
            if not guardian:
                log.warning("an L1 reorg dropped batches", first=posted + 1, last=memory.highest)
                memory.highest = posted
        if posted > memory.highest or any(n not in memory.announced for n in self._unconfirmed(posted)):
            await self._announce(posted, head)
            memory.highest = max(posted, memory.highest)
        return guardian

    async def _guardian_reverted(self, posted: int, head: int) -> bool:
        if self._memory.guardian_left != posted:
            reverted = await self._rollup.reverted_from(self._deploy_block, head)
            if not any(first == posted + 1 for first, _, _ in reverted):
                return False
            self._memory.guardian_left = posted
        return True

    async def _unconfirm(self, posted: int) -> None:
        """A reorg went deeper than what counted as settled: follow the contract from its beginning again."""
        if posted < self._ledger.confirmed:
            self._ledger.confirmed, self._ledger.confirmed_l1_block = posted, self._deploy_block
            await self._save_ledger()

    def _unconfirmed(self, posted: int) -> range:
        return range(self._ledger.confirmed + 1, posted + 1)

    async def _announce(self, posted: int, head: int) -> None:
        for event in await self._rollup.posted(self._ledger.confirmed_l1_block, head):
            if event.number not in self._unconfirmed(posted) or event.number in self._memory.announced:
                continue
            receipt = await self._client.receipt(event.transaction_hash)
            if receipt is None:
                continue
            self._memory.announced[event.number] = (event, receipt)
            log.info("batch posted", batch=event.number, l1_block=event.l1_block, gas=receipt.gas_used)
            if self._listener:
                self._listener.posted(event, receipt)

    async def _confirm(self, head: int) -> None:
        """Counts batches that are deep enough and forgets their intents."""
        deep = head - self._limits.confirmations
        if deep < 0 or not any(place.l1_block <= deep for place, _ in self._memory.announced.values()):
            self._show_ledger()
            return
        safe = await self._rollup.last_batch(deep)
        # Read again: a reorg may have moved a posting to another block since it was announced.
        events = await self._rollup.posted(self._ledger.confirmed_l1_block, deep)
        settled = {event.number: event for event in events}
        for number in self._unconfirmed(safe):
            if number not in self._memory.announced or number not in settled:
                break
            event = settled[number]
            paid = await self._paid_for(event)
            del self._memory.announced[number]
            self._ledger.confirmed = number
            self._ledger.confirmed_l1_block = event.l1_block
            if event.poster == self._signer.address:
                self._ledger.bytes_posted += event.data_bytes
            self._ledger.reverts = 0
            for receipt in paid:
                self._count(receipt)
            await self._save_ledger()
            await trio.to_thread.run_sync(self._store.put, number, None)
            if self._listener:
                self._listener.confirmed(number)
        self._show_ledger()

    async def _paid_for(self, event: BatchEvent) -> list[L1Receipt]:
        """What a batch cost us: the posting, if it was ours, or attempts that lost against another poster."""
        record = await trio.to_thread.run_sync(self._store.get, event.number)
        attempts = () if record is None else msgspec.msgpack.decode(record, type=Intent).attempts
        hashes = {attempt.hash for attempt in attempts}
        if event.poster == self._signer.address:
            hashes.add(event.transaction_hash)
        receipts = [await self._client.receipt(each) for each in sorted(hashes)]
        return [receipt for receipt in receipts if receipt is not None]

    async def _finalize(self) -> None:
        if self.status.finalized == self._ledger.confirmed:
            return
        finalized = min(await self._rollup.finalized_batch(), self._ledger.confirmed)
        if finalized > self.status.finalized:
            self.status.finalized = finalized
            if self._listener:
                self._listener.finalized(finalized)

    def _count(self, receipt: L1Receipt) -> None:
        self._ledger.spent_wei += receipt.cost_wei
        self._ledger.gas_used += receipt.gas_used
        self._ledger.blob_gas_used += receipt.blob_gas_used

    async def _save_ledger(self) -> None:
        record = msgspec.msgpack.encode(self._ledger)
        await trio.to_thread.run_sync(self._store.put, LEDGER, record)

    async def _look(self, posted: int, guardian: bool) -> tuple[Seen, Own]:
        root = await self._rollup.root_of(posted)
        own_root = await trio.to_thread.run_sync(self._source.root, posted)
        following = await trio.to_thread.run_sync(self._source.batch, posted + 1)
        record = await trio.to_thread.run_sync(self._store.get, posted + 1)
        intent = None if record is None else msgspec.msgpack.decode(record, type=Intent)
        memory = self._memory
        if following is None and intent is None:
            nothing = Seen(posted, root, guardian, 0, 0, 0, Fees(0, 0, 0), {}, frozenset())
            return nothing, Own(own_root, False, None, self._ledger.reverts, None)
        address = self._signer.address
        nonce = await self._client.nonce(address)
        pending_nonce = await self._client.nonce(address, "pending")
        self.status.balance_wei = await self._client.balance(address)
        receipts, pending = {}, set()
        for attempt in intent.attempts if intent else ():
            receipt = await self._client.receipt(attempt.hash)
            if receipt is not None:
                receipts[attempt.hash] = receipt
            elif await self._client.transaction(attempt.hash) is not None:
                pending.add(attempt.hash)
        if intent is None and pending_nonce > nonce:
            memory.foreign_since_s = memory.foreign_since_s or self._clock()
        else:
            memory.foreign_since_s = None
        fees = await self._client.fees()
        balance = self.status.balance_wei
        seen = Seen(posted, root, guardian, nonce, pending_nonce, balance, fees, receipts, frozenset(pending))
        own = Own(
            own_root,
            following is not None,
            intent,
            self._ledger.reverts,
            memory.foreign_since_s,
            memory.sent_at_s,
            memory.underpriced,
        )
        return seen, own

    async def _act(self, step: Step, own: Own, posted: int, seen: Seen) -> Step:
        match step:
            case Idle():
                self._show("idle", "")
            case Wait(reason):
                self._show("waiting", reason)
            case Halt(reason):
                if self.status.state != "halted":
                    log.error("posting halted", reason=reason)
                self._show("halted", reason)
                self.status.last_error = reason
            case Prepare(nonce, offer):
                return await self._prepare(posted, nonce, offer, seen)
            case Send(attempt) if own.intent is not None:
                await self._send(own.intent, attempt)
            case Bump(offer) if own.intent is not None:
                await self._sign_and_send(own.intent, offer)
            case Discard(reason, receipt):
                await self._discard(posted + 1, reason, receipt)
        return step

    async def _prepare(self, posted: int, nonce: int, offer: Offer, seen: Seen) -> Step:
        """Builds, simulates, checks, stores and sends the next batch; Wait or Halt when that must not be."""
        batch = await trio.to_thread.run_sync(self._source.batch, posted + 1)
        if batch is None:
            return Idle()
        if batch.prev_root != seen.posted_root:
            reason = f"batch {batch.number} continues root 0x{batch.prev_root.hex()}, which L1 does not have"
            return await self._act(Halt(reason), Own(None, True, None, 0, None), posted, seen)
        kind = choose_kind(self._limits, batch.data, seen.fees)
        if kind is None:
            return self._refuse(
                f"batch {batch.number} of {len(batch.data)} bytes fits no allowed transaction"
            )
        self._show("working", f"preparing batch {batch.number} as {kind.value}")
        sidecar = await self._kzg.sidecar(batch.data) if kind is DataKind.BLOBS else None
        anchor = await self._rollup.anchor(posted, batch.inbox_next)
        call = self._rollup.post_call(batch, anchor, in_blobs=sidecar is not None)
        hashes = sidecar.hashes if sidecar else ()
        try:
            gas = await self._client.estimate_gas(self._signer.address, self._rollup.address, call, hashes)
        except L1Reverted as error:
            reason = self._rollup.abi.explain(error.data) if error.data else str(error)
            return self._refuse(f"batch {batch.number} would revert: {reason}")
        intent = Intent(
            batch.number, kind, nonce, gas + gas // 7 + 10_000, self._rollup.address, call, sidecar, ()
        )
        worst = intent.worst_cost_wei(offer)
        if worst > self._limits.max_batch_cost_wei:
            return self._refuse(f"batch {batch.number} may cost {worst} wei, above the cap")
        if seen.balance_wei - worst < self._limits.balance_floor_wei:
            return self._refuse(f"balance {seen.balance_wei} wei less {worst} wei is below the floor")
        await self._sign_and_send(intent, offer)
        return Send(intent.attempts[-1]) if intent.attempts else Prepare(nonce, offer)

    async def _sign_and_send(self, intent: Intent, offer: Offer) -> None:
        """Adds an attempt to the intent; it is stored before it is sent."""
        transaction = {
            "chainId": self._chain_id,
            "nonce": intent.nonce,
            "gas": intent.gas_limit,
            "maxFeePerGas": offer.max_fee_wei,
            "maxPriorityFeePerGas": offer.tip_wei,
            "to": intent.to,
            "value": 0,
            "data": intent.call,
            "accessList": [],
            "type": 2,
        }
        if intent.sidecar is not None:
            transaction["type"] = 3
            transaction["maxFeePerBlobGas"] = offer.max_blob_fee_wei
            transaction["blobVersionedHashes"] = Sidecar(*intent.sidecar).hashes
        raw = await trio.to_thread.run_sync(self._signer.sign, transaction)
        attempt = Attempt(keccak(raw), raw, offer, self._clock())
        intent = msgspec.structs.replace(intent, attempts=(*intent.attempts, attempt))
        record = msgspec.msgpack.encode(intent)
        await trio.to_thread.run_sync(self._store.put, intent.batch, record)
        await self._send(intent, attempt)

    async def _send(self, intent: Intent, attempt: Attempt) -> None:
        self._show("working", f"sending batch {intent.batch} as {intent.kind.value}")
        memory = self._memory
        memory.underpriced = False
        raw = attempt.raw
        if intent.sidecar is not None:
            raw = await trio.to_thread.run_sync(with_sidecar, raw, Sidecar(*intent.sidecar))
        memory.sent_at_s = self._clock()
        try:
            await self._client.send_raw(raw)
        except (L1Refused, L1Reverted) as error:
            memory.underpriced = any(word in str(error).lower() for word in UNDERPRICED_WORDS)
            self.status.last_error = f"L1 refused batch {intent.batch}: {error}"
            log.warning("L1 refused a transaction", batch=intent.batch, error=str(error))

    async def _discard(self, number: int, reason: str, reverted: L1Receipt | None) -> None:
        log.warning("posting given up", batch=number, reason=reason)
        self.status.last_error = reason
        if reverted is not None and reverted.transaction_hash != self._ledger.last_reverted:
            self._ledger.reverts += 1
            self._ledger.last_reverted = reverted.transaction_hash
            self._count(reverted)
            await self._save_ledger()
        await trio.to_thread.run_sync(self._store.put, number, None)
        self._memory.sent_at_s = None
        self._memory.underpriced = False

    def _refuse(self, reason: str) -> Wait:
        if self.status.last_error != reason:
            log.error("batch not posted", reason=reason)
        self.status.last_error = reason
        self._show("refused", reason)
        return Wait(reason)

    def _show(self, state: str, doing: str) -> None:
        if state in ("waiting", "l1-unavailable") and state != self.status.state:
            log.warning("posting waits", state=state, reason=doing)
        self.status.state, self.status.doing = state, doing

    def _show_ledger(self) -> None:
        status, ledger = self.status, self._ledger
        mine = [pair for pair in self._memory.announced.values() if pair[0].poster == self._signer.address]
        status.confirmed = ledger.confirmed
        status.spent_wei = ledger.spent_wei + sum(receipt.cost_wei for _, receipt in mine)
        status.gas_used = ledger.gas_used + sum(receipt.gas_used for _, receipt in mine)
        status.blob_gas_used = ledger.blob_gas_used + sum(receipt.blob_gas_used for _, receipt in mine)
        status.bytes_posted = ledger.bytes_posted + sum(event.data_bytes for event, _ in mine)
        status.gas_per_batch = status.gas_used // max(ledger.confirmed + len(mine), 1)

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._wake.wait()
        self._wake = trio.Event()
