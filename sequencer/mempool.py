"""Transactions that wait for a block: bounded in total and per account, kept in execution order.

The mempool holds `Pending` transactions whose signature is checked. One list for each ordering class is
appended to by arrival; only the last class is ever sorted (by bid, stable), so that what `take` returns is
`ordering.arrange` of what it takes, without sorting everything (iMEMPOOL_001).

- iMEMPOOL_002 Never more than `max_transactions`, nor `max_per_account` of one account; `add` raises Full.
- iMEMPOOL_003 What was added is returned by exactly one `take` or `expire`.
"""

from __future__ import annotations

from typing import Any

from sequencer.jsonrpc import Deferred
from sequencer.ordering import OrderingClass
from state.actions import Payload, Transaction


class Full(Exception):
    """No room; `what` is `total` or `account`, `limit` the bound that was hit."""

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(f"mempool is full ({what}: {limit})")
        self.what = what
        self.limit = limit


class Pending:
    """One transaction from ingress to receipt, with everybody who waits for it.

    `transaction` is there once the signature is checked. `deadline_s` is None when it has none (oracle
    updates). Those in `accepted` are answered with its hash when it enters the mempool (then the list is
    None), those in `sealed` with its receipt when its block is durable.
    """

    __slots__ = (
        "accepted",
        "account",
        "arrival",
        "bid_uusd",
        "deadline_s",
        "digest",
        "hash",
        "ordering_class",
        "payload",
        "sealed",
        "transaction",
    )

    transaction: Transaction

    def __init__(
        self,
        payload: Payload,
        digest: bytes,
        transaction_hash: bytes,
        account: int,
        deadline_s: int | None,
        place: tuple[int, int],
        arrival: int,
    ) -> None:
        self.payload = payload
        self.digest = digest
        self.hash = transaction_hash
        self.account = account
        self.deadline_s = deadline_s
        self.ordering_class, self.bid_uusd = place
        self.arrival = arrival
        self.accepted: list[Deferred[Any]] | None = []
        self.sealed: list[Deferred[Any]] = []


class Mempool:
    """See the module's text. Not shared between threads."""

    def __init__(self, max_transactions: int, max_per_account: int) -> None:
        self._max_transactions = max_transactions
        self._max_per_account = max_per_account
        self._classes: list[list[Pending]] = [[] for _ in OrderingClass]
        self._per_account: dict[int, int] = {}
        self._bids_sorted = True
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def check_room(self, account: int | None) -> None:
        """Raises Full when `add` of a transaction of this account (None: of any account) would."""
        if self._count >= self._max_transactions:
            raise Full("total", self._max_transactions)
        if account is not None and self._per_account.get(account, 0) >= self._max_per_account:
            raise Full("account", self._max_per_account)

    def add(self, pending: Pending) -> None:
        """Raises Full, with nothing changed."""
        account = pending.account
        self.check_room(account)
        self._per_account[account] = self._per_account.get(account, 0) + 1
        self._count += 1
        waiting = self._classes[pending.ordering_class]
        if pending.ordering_class == OrderingClass.BID and waiting:
            self._bids_sorted = self._bids_sorted and pending.bid_uusd <= waiting[-1].bid_uusd
        waiting.append(pending)

    def take(self, limit: int) -> list[Pending]:
        """The first `limit` transactions in execution order; they leave the mempool."""
        if not self._bids_sorted:
            self._classes[OrderingClass.BID].sort(key=lambda it: (-it.bid_uusd, it.arrival))
            self._bids_sorted = True
        taken: list[Pending] = []
        for waiting in self._classes:
            part = waiting[: limit - len(taken)]
            del waiting[: len(part)]
            taken += part
        self._forget(taken)
        return taken

    def put_back(self, pendings: list[Pending]) -> None:
        """Returns what a `take` gave and the block had no room for; keeps its place, without a bound."""
        for pending in pendings:
            self._per_account[pending.account] = self._per_account.get(pending.account, 0) + 1
        self._count += len(pendings)
        for number, waiting in enumerate(self._classes):
            waiting[:0] = [it for it in pendings if it.ordering_class == number]

    def expire(self, now_s: int) -> list[Pending]:
        """Removes and returns those whose deadline has passed."""
        expired: list[Pending] = []
        for waiting in self._classes:
            gone = [it for it in waiting if it.deadline_s is not None and it.deadline_s < now_s]
            if gone:
                waiting[:] = [it for it in waiting if it.deadline_s is None or it.deadline_s >= now_s]
                expired += gone
        self._forget(expired)
        return expired

    def _forget(self, pendings: list[Pending]) -> None:
        self._count -= len(pendings)
        counts = self._per_account
        for pending in pendings:
            left = counts[pending.account] - 1
            if left:
                counts[pending.account] = left
            else:
                del counts[pending.account]
