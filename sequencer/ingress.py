"""From a client's bytes to the mempool: what is it, who signed it, may they, admit.

What needs no state is found out beside the event loop (`recovery`, `checking`): the content, the hashes, the
signer. Before it come the bounds, after it the deadline, idempotency, and whether the signer may act for the
account. What passes is almost certainly going to be executed; the transition checks everything again, in
order, and has the last word.

- iINGRESS_001 Resending a transaction is idempotent by its hash: while it is on its way the new caller joins
  those who wait, afterwards the receipt answers, also after a restart.
- iINGRESS_002 Everybody who waits is answered exactly once: with a hash, a receipt, or why there is none.
- iINGRESS_003 At most `max_unchecked` transactions, and MAX_UNREAD_BYTES, wait for their check; further ones
  answer BUSY.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from sequencer.checking import (
    Answer,
    Checked,
    Pairs,
    Params,
    Refused,
    Sent,
    Signed,
    decode_sent,
    pairs_of,
    rejection,
)
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Deferred
from sequencer.markets import Markets
from sequencer.mempool import Full, Mempool, Pending
from sequencer.ordering import OrderingClass, place_in_order
from sequencer.receipts import Receipt, Receipts, hex_of
from sequencer.recovery import Recovery
from state import keys
from state.actions import OracleUpdate, SignedAction, Transaction
from state.eip712 import Domain, report_digest, transaction_hash, update_hash
from state.errors import RejectCode, Rejected
from state.view import StateView

MAX_UNREAD_BYTES: Final = 64 << 20
"""Of parameters that wait for a worker to read them."""


class Unread:
    """Parameters of a call on their way through a worker, and who waits for what they are."""

    __slots__ = ("deferred", "length", "until_sealed")

    def __init__(self, until_sealed: bool, length: int) -> None:
        self.deferred: Deferred[Any] = Deferred()
        self.until_sealed = until_sealed
        self.length = length


class Ingress:
    """Everything between the public port and the mempool. Used from the trio thread only.

    `now_ms` is the wall clock; `on_admitted` is called when the mempool got work. The owner must call
    `use_recovery` before the first submission.
    """

    def __init__(
        self,
        domain: Domain,
        view: StateView,
        markets: Markets,
        mempool: Mempool,
        receipts: Receipts,
        *,
        max_unchecked: int,
        now_ms: Callable[[], int],
        on_admitted: Callable[[], None],
        on_rejected: Callable[[str], None],
    ) -> None:
        self.domain = domain
        self.closed: ErrorCode | None = None
        """Why nothing new is taken, or None."""
        self.in_flight: dict[bytes, Pending] = {}
        self._view = view
        self._markets = markets
        self._mempool = mempool
        self._receipts = receipts
        self._max_unchecked = max_unchecked
        self._now_ms = now_ms
        self._on_admitted = on_admitted
        self._on_rejected = on_rejected
        self._recovery: Recovery[Pending | Unread]
        self._unchecked = 0
        self._unread: set[Unread] = set()
        self._unread_bytes = 0
        self._arrivals = 0

    def use_recovery(self, recovery: Recovery[Pending | Unread]) -> None:
        """Checks are made by `recovery`, which must answer to `checked`."""
        self._recovery = recovery

    @property
    def unchecked(self) -> int:
        """Transactions that wait for their check."""
        return self._unchecked

    def decode(self, sent: Sent) -> SignedAction:
        """The signed action that a client sent. Raises as `checking.decode_sent`."""
        return decode_sent(sent, self._markets.number_of)

    def pairs(self, signed: SignedAction) -> list[tuple[bytes, bytes]]:
        """What was signed, and the signatures (`eip712.signature_pairs`). Raises RpcError."""
        return pairs_of(self.domain, signed, self._markets.name_hash_of)

    def submit_params(self, params: msgspec.Raw, until_sealed: bool) -> Deferred[Any]:
        """As `submit`, for the undecoded `SendParams` of a call. Raises RpcError DRAINING, PAUSED, BUSY."""
        if self.closed is not None:
            raise RpcError(self.closed)
        json = bytes(params)
        length = len(json)
        if self._unread_bytes + length > MAX_UNREAD_BYTES:
            raise RpcError(ErrorCode.BUSY, data={"queue": "unread bytes", "limit": MAX_UNREAD_BYTES})
        self._check_room(None)
        unread = Unread(until_sealed, length)
        self._unread.add(unread)
        self._unread_bytes += length
        self._unchecked += 1
        self._recovery.submit(unread, Params(json))
        return unread.deferred

    def submit(self, sent: Sent, until_sealed: bool) -> Any:
        """Takes a signed action; returns a Deferred of its receipt (or its hash, unless `until_sealed`).

        Returns the receipt or hash itself when it is known already. Raises RpcError: DRAINING, PAUSED,
        BUSY, and what `decode` raises; later failures go to the Deferred.
        """
        if self.closed is not None:
            raise RpcError(self.closed)
        signed = self.decode(sent)
        action = signed.action
        pairs = self.pairs(signed)
        digest = pairs[0][0]
        found = transaction_hash(*pairs[0])
        pending = self.in_flight.get(found)
        if pending is None:
            if self._receipts.is_recent(found):
                return self._known(found, until_sealed)
            now_s = self._now_ms() // 1000
            if action.deadline_s < now_s:
                return self._late(found, action.deadline_s, now_s, until_sealed)
            pending = self._pending(signed, digest, found, place_in_order(signed))
            self._begin(pending, b"".join([part for pair in pairs for part in pair]))
        return self._wait(pending, until_sealed)

    def _pending(self, signed: SignedAction, digest: bytes, found: bytes, place: tuple[int, int]) -> Pending:
        self._arrivals += 1
        action = signed.action
        return Pending(signed, digest, found, action.account, action.deadline_s, place, self._arrivals)

    def submit_update(self, update: OracleUpdate, until_sealed: bool) -> Any:
        """As `submit`, for publishers' reports."""
        if self.closed is not None:
            raise RpcError(self.closed)
        digests = [report_digest(self.domain, report) for report in update.reports]
        hashes = [
            transaction_hash(digest, report.signature)
            for digest, report in zip(digests, update.reports, strict=True)
        ]
        found = update_hash(hashes)
        pending = self.in_flight.get(found)
        if pending is None:
            if self._receipts.is_recent(found):
                return self._known(found, until_sealed)
            self._arrivals += 1
            place = (int(OrderingClass.ORACLE), 0)
            pending = Pending(update, b"", found, 0, None, place, self._arrivals)
            pairs = [
                digest + report.signature for digest, report in zip(digests, update.reports, strict=True)
            ]
            self._begin(pending, b"".join(pairs))
        return self._wait(pending, until_sealed)

    def checked(self, item: Pending | Unread, answer: Answer) -> None:
        """A check's answer: admit the transaction, or say why not."""
        self._unchecked -= 1
        if type(item) is Pending:
            assert type(answer) is Signed
            item.transaction = Transaction(item.payload, answer.signers, item.hash)
            self._admit(item)
            return
        assert type(item) is Unread
        self._unread.discard(item)
        self._unread_bytes -= item.length
        deferred = item.deferred
        if deferred.settled:  # the node has stopped meanwhile
            return
        if type(answer) is Refused:
            deferred.fail(answer.error())
            return
        assert type(answer) is Checked
        try:
            self._take(answer, item)
        except RpcError as error:
            deferred.fail(error)

    def _take(self, answer: Checked, unread: Unread) -> None:
        """A transaction that a worker has read. Raises RpcError when it is too late."""
        found, until_sealed = answer.hash, unread.until_sealed
        pending = self.in_flight.get(found)
        if pending is None:
            if self._receipts.is_recent(found):
                unread.deferred.resolve(self._known(found, until_sealed))
                return
            deadline_s = answer.payload.action.deadline_s
            now_s = self._now_ms() // 1000
            if deadline_s < now_s:
                unread.deferred.resolve(self._late(found, deadline_s, now_s, until_sealed))
                return
            pending = self._pending(answer.payload, answer.digest, found, answer.place)
            pending.transaction = Transaction(answer.payload, answer.signers, found)
            self.in_flight[found] = pending
            self._join(pending, unread)
            self._admit(pending)
        else:
            self._join(pending, unread)

    def _join(self, pending: Pending, unread: Unread) -> None:
        """Whoever sent it waits for what becomes of the transaction."""
        if unread.until_sealed:
            pending.sealed.append(unread.deferred)
        elif pending.accepted is None:
            unread.deferred.resolve(hex_of(pending.hash))
        else:
            pending.accepted.append(unread.deferred)

    def _admit(self, pending: Pending) -> None:
        """To the mempool, if the signer may and there is room; else its senders are told."""
        try:
            if pending.account:
                self._check_signer(pending, pending.transaction.signers[0])
            self._mempool.add(pending)
        except Full as full:
            self.fail(pending, busy(full))
            return
        except RpcError as error:
            if not self._answered_before(pending):
                self.fail(pending, error)
            return
        waiting, pending.accepted = pending.accepted, None
        for deferred in waiting or ():
            deferred.resolve(hex_of(pending.hash))
        self._on_admitted()

    def sealed(self, pending: Pending, receipt: Receipt | None) -> None:
        """The transaction's block is durable: answer everybody; None will do when nobody waits for it."""
        self.in_flight.pop(pending.hash, None)
        for deferred in pending.sealed:
            deferred.resolve(receipt)

    def refused(self, pending: Pending, rejected: Rejected) -> None:
        """The transition refused it. If it was executed before, its receipt is the answer nevertheless."""
        if self._answered_before(pending):
            return
        if rejected.code is RejectCode.WRONG_SIGNER and pending.account:
            self.fail(pending, self._wrong_signer(pending, pending.transaction.signers[0]))
        else:
            self.fail(pending, rejection(rejected))

    def _answered_before(self, pending: Pending) -> bool:
        """Whether a block has the transaction already; then everybody who waits is answered from it."""
        receipt = self._receipts.find(pending.hash)
        if receipt is None:
            return False
        waiting, pending.accepted = pending.accepted, None
        for deferred in waiting or ():
            deferred.resolve(receipt.hash)
        self.sealed(pending, receipt)
        return True

    def fail(self, pending: Pending, error: RpcError) -> None:
        """Answer everybody who waits with an error."""
        self.in_flight.pop(pending.hash, None)
        self._on_rejected(str(error.data["code"]))
        for deferred in (*(pending.accepted or ()), *pending.sealed):
            deferred.fail(error)

    def fail_all(self, error: RpcError) -> None:
        """The node stops without sealing these."""
        for pending in list(self.in_flight.values()):
            self.fail(pending, error)
        for unread in self._unread:
            unread.deferred.fail(error)
        self._unread.clear()

    def _begin(self, pending: Pending, pairs: bytes) -> None:
        self._check_room(pending.account)
        self._unchecked += 1
        self.in_flight[pending.hash] = pending
        self._recovery.submit(pending, Pairs(pairs))

    def _check_room(self, account: int | None) -> None:
        """Raises RpcError BUSY."""
        if self._unchecked >= self._max_unchecked:
            raise RpcError(ErrorCode.BUSY, data={"queue": "signatures", "limit": self._max_unchecked})
        try:
            self._mempool.check_room(account)
        except Full as full:
            raise busy(full) from None

    def _wait(self, pending: Pending, until_sealed: bool) -> Any:
        deferred: Deferred[Any] = Deferred()
        if until_sealed:
            pending.sealed.append(deferred)
        elif pending.accepted is None:
            return hex_of(pending.hash)
        else:
            pending.accepted.append(deferred)
        return deferred

    def _known(self, found: bytes, until_sealed: bool) -> Any:
        return self._receipts.find(found) if until_sealed else hex_of(found)

    def _late(self, found: bytes, deadline_s: int, now_s: int, until_sealed: bool) -> Any:
        """A transaction past its deadline: known, or too late."""
        receipt = self._receipts.find(found)
        if receipt is None:
            raise rejection(Rejected(RejectCode.DEADLINE_EXPIRED, deadline_s=deadline_s, now_s=now_s))
        return receipt if until_sealed else receipt.hash

    def _check_signer(self, pending: Pending, signer: bytes | None) -> None:
        if signer is None:
            raise RpcError(ErrorCode.BAD_SIGNATURE, data={"digest": hex_of(pending.digest)})
        account = self._view.get(keys.account_key(pending.account))
        if account is None:
            raise rejection(Rejected(RejectCode.UNKNOWN_ACCOUNT, account=pending.account))
        if account.owner != signer:
            key = keys.session_key_key(pending.account, signer) if account.session_keys else None
            if key is None or self._view.get(key) is None:
                raise self._wrong_signer(pending, signer)

    def _wrong_signer(self, pending: Pending, signer: bytes | None) -> RpcError:
        account = self._view.get(keys.account_key(pending.account))
        data: dict[str, object] = {
            "recovered": hex_of(signer) if signer else None,
            "digest": hex_of(pending.digest),
            "account": pending.account,
            "owner": hex_of(account.owner) if account else None,
        }
        return RpcError(ErrorCode.WRONG_SIGNER, data=data)


def busy(full: Full) -> RpcError:
    return RpcError(ErrorCode.BUSY, data={"queue": f"mempool ({full.what})", "limit": full.limit})
