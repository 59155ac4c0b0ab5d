"""What the poster does next, decided without I/O: one function from what is seen to one step.

Why a batch is never posted twice. The contract takes batch n only when n - 1 is its last, so at most one
posting of n can succeed; all else is about not paying for attempts. An `Intent` (one nonce, one or more
attempts that differ in fees only) is stored before its first attempt is sent, so after a crash the poster
finds it and continues it; attempts of one intent share the nonce, so at most one of them is mined. A new
intent is made only when the old one's nonce is spent without effect.

The state is not remembered but read: `posted` (the contract's last batch) and the account's nonce at one
head, and the stored intent. So a reorg needs no special case: `posted` goes back, the intent of the dropped
batch is found again, and its transaction is either back in the pool, or sent again as it was.

| seen                                             | step                                       |
|--------------------------------------------------|--------------------------------------------|
| the contract's root of a batch is not ours       | Halt                                       |
| the guardian took batches back                   | Halt                                       |
| intent, mined and reverted                       | Discard, then Halt at the second in a row  |
| intent, its nonce spent by something else        | Discard                                    |
| intent, attempt pending, young                   | Wait                                       |
| intent, attempt pending, old or below base fee   | Bump (under caps) or Wait                  |
| intent, no attempt known to the node             | Send the last one again                    |
| no intent, nothing to post                       | Idle                                       |
| no intent, a foreign transaction pending         | Wait, for a while                          |
| no intent, fees above caps or balance too low    | Wait                                       |
| no intent                                        | Prepare                                    |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import msgspec

from l1_bridge.blobs import GAS_PER_BLOB, blob_count
from l1_bridge.types import Fees, L1Receipt

GWEI = 10**9
ETHER = 10**18


class DataKind(Enum):
    CALLDATA = "calldata"
    BLOBS = "blobs"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the poster may do and spend. Fees and amounts in wei, times in seconds."""

    max_fee_wei: int = 300 * GWEI
    """Per unit of gas."""
    max_blob_fee_wei: int = 300 * GWEI
    """Per unit of blob gas."""
    max_batch_cost_wei: int = ETHER
    """Worst case of one batch."""
    balance_floor_wei: int = ETHER // 50
    """Must remain after the worst case of the batch."""
    bump_after_s: float = 48.0
    resend_after_s: float = 6.0
    max_reverts: int = 2
    """Mined attempts in a row that reverted; then an operator must look."""
    max_calldata_bytes: int = 120_000
    """Public nodes refuse transactions above 128 KiB that carry no blobs."""
    max_blobs: int = 6
    data: str = "auto"
    """`auto`, `calldata` or `blobs`."""
    confirmations: int = 2
    """Blocks on top of a posting before it counts as settled."""


class Offer(msgspec.Struct, frozen=True):
    """Fees of one attempt, in wei."""

    max_fee_wei: int
    tip_wei: int
    max_blob_fee_wei: int


class Attempt(msgspec.Struct, frozen=True):
    """One signed transaction; `raw` is without the blob sidecar, which all attempts share."""

    hash: bytes
    raw: bytes
    offer: Offer
    sent_at_s: float


class Intent(msgspec.Struct, frozen=True):
    """The decision to post one batch with one nonce."""

    batch: int
    kind: DataKind
    nonce: int
    gas_limit: int
    to: bytes
    call: bytes
    """The transaction's data."""
    sidecar: tuple[tuple[bytes, ...], tuple[bytes, ...], tuple[bytes, ...]] | None
    attempts: tuple[Attempt, ...]

    def worst_cost_wei(self, offer: Offer) -> int:
        """What the transaction costs at most under `offer`."""
        blobs = len(self.sidecar[0]) if self.sidecar else 0
        return self.gas_limit * offer.max_fee_wei + blobs * GAS_PER_BLOB * offer.max_blob_fee_wei


@dataclass(frozen=True, slots=True)
class Seen:
    """L1 at one head."""

    posted: int
    """The contract's last batch."""
    posted_root: bytes
    guardian_reverted: bool
    """Whether the guardian took back batches that were posted before."""
    nonce: int
    """Next nonce by mined transactions."""
    pending_nonce: int
    balance_wei: int
    fees: Fees
    receipts: Mapping[bytes, L1Receipt]
    """Of the intent's attempts that are mined."""
    pending: frozenset[bytes]
    """The intent's attempts that the node knows as pending."""


@dataclass(frozen=True, slots=True)
class Own:
    """What we have."""

    root: bytes | None
    """Of the contract's last batch, by our reckoning; None if we no longer know."""
    next_closed: bool
    intent: Intent | None
    """Of batch `posted + 1`."""
    reverts: int
    foreign_since_s: float | None
    """Since when a pending transaction of our key, but not of our making, has been in the way."""
    sent_at_s: float | None = None
    """When this process last sent the intent's last attempt."""
    underpriced: bool = False
    """The node refused the last attempt for its fees."""


@dataclass(frozen=True, slots=True)
class Idle:
    pass


@dataclass(frozen=True, slots=True)
class Wait:
    reason: str


@dataclass(frozen=True, slots=True)
class Halt:
    """Go on only when an operator has looked."""

    reason: str


@dataclass(frozen=True, slots=True)
class Prepare:
    nonce: int
    offer: Offer


@dataclass(frozen=True, slots=True)
class Send:
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Bump:
    offer: Offer


@dataclass(frozen=True, slots=True)
class Discard:
    """The intent can have no effect any more."""

    reason: str
    reverted: L1Receipt | None


Step = Idle | Wait | Halt | Prepare | Send | Bump | Discard


def decide(limits: Limits, seen: Seen, own: Own, now_s: float) -> Step:
    """The next step; see the table above."""
    if own.root is not None and own.root != seen.posted_root:
        theirs, ours = seen.posted_root.hex(), own.root.hex()
        return Halt(f"batch {seen.posted} on L1 has root 0x{theirs}, ours is 0x{ours}")
    if seen.guardian_reverted:
        return Halt(f"the guardian took L1 back to batch {seen.posted}")
    if own.reverts >= limits.max_reverts:
        return Halt(f"{own.reverts} postings in a row reverted")
    if own.intent is not None:
        return _continue(limits, seen, own, own.intent, now_s)
    if not own.next_closed:
        return Idle()
    if seen.pending_nonce > seen.nonce and not _foreign_is_old(limits, own, now_s):
        return Wait(f"another transaction of this key is pending (nonce {seen.nonce})")
    offer = opening_offer(seen.fees)
    if problem := over_caps(limits, offer, seen.fees):
        return Wait(problem)
    if seen.balance_wei < limits.balance_floor_wei:
        return Wait(f"balance {seen.balance_wei} wei is below the floor of {limits.balance_floor_wei} wei")
    return Prepare(seen.nonce, cap(limits, offer))


def _foreign_is_old(limits: Limits, own: Own, now_s: float) -> bool:
    return own.foreign_since_s is not None and now_s - own.foreign_since_s >= limits.bump_after_s


def _continue(limits: Limits, seen: Seen, own: Own, intent: Intent, now_s: float) -> Step:
    for attempt in intent.attempts:
        receipt = seen.receipts.get(attempt.hash)
        if receipt is not None and receipt.succeeded:
            return Wait(f"batch {intent.batch} is mined; the contract does not show it yet")
        if receipt is not None:
            return Discard(
                f"posting batch {intent.batch} reverted in L1 block {receipt.block_number}", receipt
            )
    if seen.nonce > intent.nonce:
        return Discard(f"nonce {intent.nonce} was spent by another transaction", None)
    last = intent.attempts[-1]
    age_s = now_s - last.sent_at_s
    if last.hash in seen.pending:
        if age_s < limits.bump_after_s:
            return Wait(f"batch {intent.batch} is pending")
        return _bump(limits, seen, intent)
    if own.sent_at_s is not None and now_s - own.sent_at_s < limits.resend_after_s:
        return Wait(f"batch {intent.batch} was sent")
    if own.underpriced or last.offer.max_fee_wei < seen.fees.base_wei:
        return _bump(limits, seen, intent)
    return Send(last)


def _bump(limits: Limits, seen: Seen, intent: Intent) -> Step:
    last = intent.attempts[-1].offer
    offer = raised(last, seen.fees, intent.kind)
    if problem := over_caps(limits, offer, seen.fees):
        return Wait(f"batch {intent.batch} is pending; not bumped: {problem}")
    if offer.max_fee_wei > limits.max_fee_wei or offer.max_blob_fee_wei > limits.max_blob_fee_wei:
        return Wait(f"batch {intent.batch} is pending; a higher fee would exceed the cap")
    if intent.worst_cost_wei(offer) > limits.max_batch_cost_wei:
        return Wait(f"batch {intent.batch} is pending; a higher fee would exceed the cost cap")
    if seen.balance_wei - intent.worst_cost_wei(offer) < limits.balance_floor_wei:
        return Wait(f"batch {intent.batch} is pending; the balance does not allow a higher fee")
    return Bump(offer)


def opening_offer(fees: Fees) -> Offer:
    """Fees that survive two full blocks: twice the base fees."""
    return Offer(2 * fees.base_wei + fees.tip_wei, fees.tip_wei, 2 * max(fees.blob_base_wei, 1))


def raised(last: Offer, fees: Fees, kind: DataKind) -> Offer:
    """What nodes accept as a replacement: 12.5 % more, for blob transactions twice as much; and current."""
    opening = opening_offer(fees)

    def more(value: int) -> int:
        return 2 * value if kind is DataKind.BLOBS else value + -(-value // 8) + 1

    return Offer(
        max(more(last.max_fee_wei), opening.max_fee_wei),
        max(more(last.tip_wei), opening.tip_wei),
        max(more(last.max_blob_fee_wei), opening.max_blob_fee_wei),
    )


def over_caps(limits: Limits, offer: Offer, fees: Fees) -> str | None:
    """Why L1 is too dear at the moment, or None."""
    if fees.base_wei + offer.tip_wei > limits.max_fee_wei:
        return f"L1 gas costs {fees.base_wei} wei, the cap is {limits.max_fee_wei}"
    if fees.blob_base_wei > limits.max_blob_fee_wei:
        return f"L1 blob gas costs {fees.blob_base_wei} wei, the cap is {limits.max_blob_fee_wei}"
    return None


def cap(limits: Limits, offer: Offer) -> Offer:
    """The offer, cut to the caps."""
    return Offer(
        min(offer.max_fee_wei, limits.max_fee_wei),
        min(offer.tip_wei, limits.max_fee_wei),
        min(offer.max_blob_fee_wei, limits.max_blob_fee_wei),
    )


POST_GAS = 162_000
"""What posting costs beside its data (contracts/README.md)."""
CHUNK_GAS = 800
"""Hashing 1 KiB of calldata into the commitment."""


def calldata_gas(zeros: int, others: int) -> int:
    """Execution gas of posting data as calldata, with EIP-7623's floor."""
    executed = POST_GAS + 4 * zeros + 16 * others + CHUNK_GAS * (1 + (zeros + others) // 1024)
    floor = 21_000 + 10 * zeros + 40 * others
    return max(executed, floor)


def choose_kind(limits: Limits, data: bytes, fees: Fees) -> DataKind | None:
    """The cheaper way to post `data` now, among those allowed; None if it fits neither."""
    zeros = data.count(0)
    fits_blobs = blob_count(len(data)) <= limits.max_blobs and limits.data != "calldata"
    fits_calldata = len(data) <= limits.max_calldata_bytes and limits.data != "blobs"
    if not fits_blobs:
        return DataKind.CALLDATA if fits_calldata else None
    if not fits_calldata:
        return DataKind.BLOBS
    gas_price = fees.base_wei + fees.tip_wei
    as_calldata = calldata_gas(zeros, len(data) - zeros) * gas_price
    as_blobs = POST_GAS * gas_price + blob_count(len(data)) * GAS_PER_BLOB * max(fees.blob_base_wei, 1)
    return DataKind.BLOBS if as_blobs < as_calldata else DataKind.CALLDATA
