"""When the open batch is closed: what the node knows, put before `l1_bridge.posting_policy`.

Closing is the decision to post: what is closed is fixed, and the poster sends it as soon as its caps allow.
So a batch that waits for a cheaper moment stays open, and fills. L1's side comes as a value that the bridge
has left behind; without one, age and fill decide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from l1_bridge.posting_policy import L1Prices, PolicyTerms, Rule, Verdict, Waiting, decide
from sequencer.config import BatchesSection
from sequencer.machine import Machine, OpenBatch
from sequencer.metrics import Metrics

PPM = 1_000_000
CLOSED_KEPT = 256
"""Closed batches whose sizes are remembered until they are on L1."""


@dataclass(frozen=True, slots=True)
class L1Side:
    """What the bridge knows: prices (None: not known lately) and the last batch on L1."""

    prices: L1Prices | None
    posted_batch: int


@dataclass(frozen=True, slots=True)
class Judged:
    """The open batch as it was put before the policy, and the verdict."""

    waiting: Waiting
    verdict: Verdict


class PostingView(msgspec.Struct, frozen=True):
    """Why the open batch waits, for `straddle_status`; zeros when none is open, null without a price."""

    reason: str
    rule: str
    bytes: int
    full_bytes: int
    bytes_per_s: int
    """Expected to be added."""
    age_ms: int
    max_age_ms: int
    max_delay_ms: int
    backlog_bytes: int
    """Of closed batches that are not on L1 yet."""
    poster: str
    """What the poster of closed batches does; empty when there is none."""
    l1_gas_wei: int | None
    """Base fee and tip; `recent` is the average of the last quarter of an hour."""
    recent_l1_gas_wei: int | None
    l1_blob_gas_wei: int | None
    recent_l1_blob_gas_wei: int | None
    level_ppm: int | None
    """What a usual batch costs now, over what it costs at recent prices."""
    saving_ppm: int
    """Part of an order's cost that waiting `wait_ms` is expected to save."""
    wait_ms: int


class Closing:
    """See the module's text. `l1` answers at once, None when nobody posts; `data` is the poster's setting."""

    def __init__(
        self,
        machine: Machine,
        batches: BatchesSection,
        data: str,
        l1: Callable[[], L1Side | None],
        *,
        now_ms: Callable[[], int],
    ) -> None:
        self.full_bytes = batches.max_bytes - batches.max_bytes // 16
        """From this size on a batch is full: transactions that are larger than what is left are rare."""
        self.terms = PolicyTerms(
            max_age_s=batches.max_age_ms / 1000,
            max_delay_s=batches.max_delay_ms / 1000,
            full_bytes=self.full_bytes,
            data=data,
        )
        self._machine = machine
        self._l1 = l1
        self._now_ms = now_ms
        self._closed: deque[tuple[int, int]] = deque(maxlen=CLOSED_KEPT)
        self._last_opened_ms: int | None = None
        self._last_bytes = 0

    def look(self) -> Judged | None:
        """The open batch and whether it goes out now; None when none is open."""
        if self._machine.batch is None:
            return None
        waiting = self._waiting()
        return Judged(waiting, decide(waiting, self.terms))

    def closed(self, number: int, size: int, opened_ms: int) -> None:
        """A batch of `size` bytes, opened at `opened_ms`, was closed."""
        self._closed.append((number, size))
        self._last_opened_ms, self._last_bytes = opened_ms, size

    def view(self, poster: str) -> PostingView:
        """For people; `poster` is the poster's state."""
        judged = self.look()
        waiting = judged.waiting if judged else self._waiting()
        verdict = judged.verdict if judged else Verdict(False, Rule.YOUNG, "no batch is open")
        prices, level = waiting.prices, verdict.level
        return PostingView(
            reason=verdict.reason,
            rule=verdict.rule.value if judged else "",
            bytes=waiting.bytes,
            full_bytes=self.full_bytes,
            bytes_per_s=round(waiting.bytes_per_s),
            age_ms=round(waiting.age_s * 1000),
            max_age_ms=round(self.terms.max_age_s * 1000),
            max_delay_ms=round(self.terms.max_delay_s * 1000),
            backlog_bytes=waiting.backlog_bytes,
            poster=poster,
            l1_gas_wei=round(prices.gas_wei) if prices else None,
            recent_l1_gas_wei=round(prices.recent_gas_wei) if prices else None,
            l1_blob_gas_wei=round(prices.blob_wei) if prices else None,
            recent_l1_blob_gas_wei=round(prices.recent_blob_wei) if prices else None,
            level_ppm=None if level is None else round(level * PPM),
            saving_ppm=round(verdict.saving * PPM),
            wait_ms=round(verdict.wait_s * 1000),
        )

    def watch(self, metrics: Metrics) -> None:
        """Shows the same figures as gauges."""
        metrics.watch("open_batch_bytes", "Size of the open batch", lambda: self.view("").bytes)
        metrics.watch("open_batch_age_seconds", "Its age", lambda: self.view("").age_ms / 1000)
        metrics.watch(
            "open_batch_saving_ratio",
            "Part of an order's L1 cost that waiting is expected to save; 0 when it does not wait for that",
            lambda: self.view("").saving_ppm / PPM,
        )
        metrics.watch(
            "l1_gas_price_wei", "L1's base fee and tip; 0: not known", lambda: self.view("").l1_gas_wei or 0
        )
        metrics.watch(
            "l1_price_level_ratio",
            "What a batch costs now over what it costs at recent prices; 0: not known or not asked yet",
            lambda: (self.view("").level_ppm or 0) / PPM,
        )

    def _waiting(self) -> Waiting:
        """The open batch; an empty one when none is."""
        l1, batch = self._l1(), self._machine.batch
        backlog, prices = 0, None
        if l1 is not None:
            while self._closed and self._closed[0][0] <= l1.posted_batch:
                self._closed.popleft()
            backlog = sum(size for _, size in self._closed)
            prices = l1.prices
        if batch is None:
            return Waiting(0, 0.0, 0.0, backlog, prices)
        age_s = max(0.0, (self._now_ms() - batch.opened_ms) / 1000)
        return Waiting(batch.bytes, age_s, self._flow(batch, age_s), backlog, prices)

    def _flow(self, batch: OpenBatch, age_s: float) -> float:
        """Bytes a second since the last closed batch was opened; since this one's first block without it."""
        if self._last_opened_ms is None:
            return (batch.bytes - len(batch.encoded[0])) / max(age_s, 1.0)
        seconds = (self._now_ms() - self._last_opened_ms) / 1000
        return (batch.bytes + self._last_bytes) / max(seconds, 1.0)
