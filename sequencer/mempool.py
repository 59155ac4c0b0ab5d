"""Transactions that wait for a block: bounded in total and per account; who gets room when not all fit.

The mempool holds `Pending` transactions whose signature is checked. A block takes all that waits. When that
is more than its room, room is given to

1. oracle updates,
2. the oldest, as far as a quarter of the room, whatever they bid (ageing),
3. cancels, then orders that reduce risk, then all others (`ordering.Lane`): in each lane by bid, ties by
   arrival, whatever their class. In a lane no account gets more than an eighth of the room, over all lanes,
   while others want it; what is left of the room then goes to those who were passed over.

A lane is a heap, from which only what a block takes, and what is passed over, is popped; what a block takes
is sorted for it. Heaps are filled when first something does not fit. What leaves otherwise stays in its heap
until it is met or the heaps are made anew.

- iMEMPOOL_001 What `take` returns stands in the order in which blocks execute (`ordering.arrange`).
- iMEMPOOL_002 Never more than `max_transactions`, nor `max_per_account` of one account; `add` raises Full.
- iMEMPOOL_003 What was added is returned by exactly one `take` or `expire`.
- iMEMPOOL_004 Nothing waits for more than `max_transactions / (limit // 4) + max_per_account / (limit // 8)`
  blocks, rounded up, of `limit` transactions each, however high others bid: a block's quarter takes the
  oldest, or an eighth of the room was given to the same account's older ones.
- iMEMPOOL_005 No bid takes the room of a cancel or of an order that reduces risk, but for that quarter.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import Any

from sequencer.jsonrpc import Deferred
from sequencer.ordering import Lane, arrange, lane_of
from state.actions import Payload, Transaction

OLDEST_PART = 4
"""This part of a block's room is for the oldest."""
ACCOUNT_PART = 8
"""One account gets at most this part of it while others want room."""
_NOBODY = 0
"""The account of oracle updates: they have no share to keep."""


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


class _Selection:
    """A block's room as it is given away."""

    __slots__ = ("_given", "limit", "share", "taken")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.share = max(1, limit // ACCOUNT_PART)
        self.taken: list[Pending] = []
        self._given: dict[int, int] = {}

    @property
    def is_full(self) -> bool:
        return len(self.taken) >= self.limit

    def has_share(self, account: int) -> bool:
        """Whether this account has not had its share yet."""
        return account == _NOBODY or self._given.get(account, 0) < self.share

    def take(self, pending: Pending) -> None:
        self.taken.append(pending)
        self._given[pending.account] = self._given.get(pending.account, 0) + 1


class Mempool:
    """See the module's text. Not shared between threads."""

    def __init__(self, max_transactions: int, max_per_account: int) -> None:
        self._max_transactions = max_transactions
        self._max_per_account = max_per_account
        self._waiting: dict[Pending, None] = {}
        """All of them, the oldest first."""
        self._lanes: list[list[tuple[int, int, Pending]]] = [[] for _ in Lane]
        """Heaps of (-bid, arrival, itself); they may have more than what is waiting."""
        self._new: list[Pending] = []
        """Waiting, or gone again, and in no heap yet."""
        self._per_account: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def check_room(self, account: int | None) -> None:
        """Raises Full when `add` of a transaction of this account (None: of any account) would."""
        if len(self._waiting) >= self._max_transactions:
            raise Full("total", self._max_transactions)
        if account is not None and self._per_account.get(account, 0) >= self._max_per_account:
            raise Full("account", self._max_per_account)

    def add(self, pending: Pending) -> None:
        """Raises Full, with nothing changed."""
        account = pending.account
        self.check_room(account)
        self._per_account[account] = self._per_account.get(account, 0) + 1
        self._waiting[pending] = None
        self._new.append(pending)

    def take(self, limit: int) -> list[Pending]:
        """What the next block has room for, at most `limit`, in execution order; it leaves the mempool."""
        if len(self._waiting) <= limit:
            taken = list(self._waiting)
            self._waiting.clear()
            self._new.clear()
            for lane in self._lanes:
                lane.clear()
        else:
            taken = self._select(limit)
        self._forget(taken)
        return arrange(taken)

    def put_back(self, pendings: list[Pending]) -> None:
        """Returns what a `take` gave and the block had no room for; keeps its age, without a bound."""
        for pending in pendings:
            self._per_account[pending.account] = self._per_account.get(pending.account, 0) + 1
        self._waiting = dict.fromkeys(sorted([*pendings, *self._waiting], key=attrgetter("arrival")))
        self._renew_lanes()

    def expire(self, now_s: int) -> list[Pending]:
        """Removes and returns those whose deadline has passed."""
        expired = [it for it in self._waiting if it.deadline_s is not None and it.deadline_s < now_s]
        for pending in expired:
            del self._waiting[pending]
        self._forget(expired)
        return expired

    def _select(self, limit: int) -> list[Pending]:
        self._sort_new()
        selection = _Selection(limit)
        self._take_best(selection, Lane.ORACLE)
        self._take_oldest(selection)
        for lane in (Lane.CANCEL, Lane.REDUCING, Lane.OTHER):
            self._take_best(selection, lane)
        if sum(map(len, self._lanes)) > 2 * len(self._waiting):  # what has left pays for this
            self._renew_lanes()
        return selection.taken

    def _sort_new(self) -> None:
        """Into the heaps."""
        if 2 * len(self._new) > len(self._waiting):
            self._renew_lanes()
        for pending in self._new:
            heappush(self._lane(pending), (-pending.bid_uusd, pending.arrival, pending))
        self._new.clear()

    def _take_oldest(self, selection: _Selection) -> None:
        """As many as their part of the room allows, within their accounts' shares."""
        room = min(selection.limit // OLDEST_PART, selection.limit - len(selection.taken))
        until = len(selection.taken) + room
        before = len(selection.taken)
        for pending in self._waiting:
            if len(selection.taken) == until:
                break
            if selection.has_share(pending.account):
                selection.take(pending)
        for pending in selection.taken[before:]:
            del self._waiting[pending]

    def _take_best(self, selection: _Selection, lane: Lane) -> None:
        """By bid, then arrival, as far as there is room: first within shares, then those passed over."""
        heap = self._lanes[lane]
        passed: list[tuple[int, int, Pending]] = []
        while heap and not selection.is_full:
            entry = heappop(heap)
            pending = entry[2]
            if pending not in self._waiting:
                continue
            if selection.has_share(pending.account):
                selection.take(pending)
                del self._waiting[pending]
            else:
                passed.append(entry)
        for entry in passed:
            if selection.is_full:
                heappush(heap, entry)
            else:
                selection.take(entry[2])
                del self._waiting[entry[2]]

    def _lane(self, pending: Pending) -> list[tuple[int, int, Pending]]:
        return self._lanes[lane_of(pending.ordering_class, pending.payload)]

    def _renew_lanes(self) -> None:
        """Makes the heaps anew, of what is waiting."""
        self._new.clear()
        for lane in self._lanes:
            lane.clear()
        for pending in self._waiting:
            self._lane(pending).append((-pending.bid_uusd, pending.arrival, pending))
        for lane in self._lanes:
            heapify(lane)

    def _forget(self, pendings: list[Pending]) -> None:
        counts = self._per_account
        for pending in pendings:
            left = counts[pending.account] - 1
            if left:
                counts[pending.account] = left
            else:
                del counts[pending.account]
