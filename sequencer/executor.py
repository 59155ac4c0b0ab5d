"""Makes blocks: every interval with work in it, takes what waits, in order, executes it and has it sealed.

The only writer of the state. A block is executed in one go in the event loop, and a batch closed between
blocks, so whoever reads the state sees whole blocks and no batch half closed. While a block's fsync is under
way the next one may be executing; when too many wait for the disk, execution pauses.

- iEXEC_001 Timestamps never go back, whatever the clock does.
- iEXEC_002 A transaction is answered exactly once: with a receipt after its block is durable, or with why
  it was refused. A refused one is in no block.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

import trio

from l1_bridge.posting_policy import Rule
from sequencer.closing import Closing
from sequencer.config import BatchesSection, BlocksSection
from sequencer.ingress import Ingress
from sequencer.machine import Changes, ExecutedBlock, Machine
from sequencer.mempool import Mempool, Pending
from sequencer.metrics import Metrics
from sequencer.sealer import Sealer
from state import keys
from state.block import L1Message, L1Origin, MessageKind
from state.errors import RejectCode, Rejected
from state.transition import same_origin

DRAIN_LOOK_S = 0.005
IDLE_LOOK_S = 1.0
"""At the latest after this long the executor looks whether something fell due."""
SLICE_S = 0.2
"""Between two slices of an open batch's changes to the tree: what changes twice is hashed once."""
WEIGHING_S = 0.25
"""Between two questions whether waiting for a cheaper moment still pays: each takes 0.1 ms."""
COST_REPORTS_WAIT_S = 43_200
"""Half of the usual forced delay, so that an idle rollup still reads its queue and posts in time."""
_DEAD_MAN_PREFIX = bytes([keys.DEAD_MAN])
_DUE_PREFIX = bytes([keys.DUE])


class Inbox:
    """L1 messages on their way into a block, in the order of the L1 queue; bounded.

    Batch cost reports alone make no block until the first has waited half a day: every batch causes one, and
    a batch for each report would never end.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[L1Message] = deque()
        self._pressing = 0
        self._waiting_since = 0.0
        self._room = trio.Condition()
        self._on_message: Callable[[], None] = lambda: None
        self.origin: L1Origin | None = None
        """L1 block up to which the queue has been read, what waits for room included."""

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def has_work(self) -> bool:
        """Whether what waits is reason enough for a block."""
        if self._pressing:
            return True
        return bool(self._messages) and trio.current_time() - self._waiting_since >= COST_REPORTS_WAIT_S

    def on_message(self, call: Callable[[], None]) -> None:
        """`call` is called whenever messages have arrived."""
        self._on_message = call

    async def put(self, messages: list[L1Message], origin: L1Origin) -> None:
        """Adds messages; they are all up to `origin`. Waits while there is no room."""
        self.origin = origin
        for message in messages:
            async with self._room:
                while len(self._messages) >= self._limit:
                    await self._room.wait()
                if not self._messages:
                    self._waiting_since = trio.current_time()
                self._messages.append(message)
                self._pressing += message.kind != MessageKind.BATCH_COST
            self._on_message()

    async def take(self, limit: int) -> tuple[L1Message, ...]:
        """The next messages, at most `limit`."""
        async with self._room:
            taken = tuple(self._messages.popleft() for _ in range(min(limit, len(self._messages))))
            self._pressing -= sum(message.kind != MessageKind.BATCH_COST for message in taken)
            self._room.notify_all()
        return taken

    def take_back(self, count: int, l1_block: int) -> bool:
        """Removes the last `count` messages, which L1 took back with its blocks after `l1_block`.

        False when blocks have read some of them.
        """
        if count > len(self._messages):
            return False
        if self.origin is not None and self.origin.number > l1_block:
            self.origin = None
        for _ in range(count):
            self._pressing -= self._messages.pop().kind != MessageKind.BATCH_COST
        return True


class Closer(Protocol):
    """Who takes closed batches, one at a time."""

    @property
    def is_busy(self) -> bool:
        """Whether a closed batch is still being written."""

    async def wait_idle(self) -> None:
        """Waits until it is not."""

    def begin(self) -> None:
        """A batch is closed and on its way."""

    @property
    def wants_changes(self) -> bool:
        """Whether it has the time for changes of the open batch."""

    def prepare(self, changes: Changes) -> None:
        """Changes of the open batch, in order."""


class Executor:
    """See the module's text. `now_ms` is the wall clock; `on_executed` sees the state as a block left it."""

    def __init__(
        self,
        machine: Machine,
        mempool: Mempool,
        ingress: Ingress,
        inbox: Inbox,
        sealer: Sealer,
        closer: Closer,
        metrics: Metrics,
        blocks: BlocksSection,
        batches: BatchesSection,
        closing: Closing,
        *,
        now_ms: Callable[[], int],
        on_executed: Callable[[ExecutedBlock], None],
    ) -> None:
        self._machine = machine
        self._mempool = mempool
        self._ingress = ingress
        self._inbox = inbox
        self._sealer = sealer
        self._metrics = metrics
        self._blocks = blocks
        self._batches = batches
        self._closing = closing
        self._now_ms = now_ms
        self._on_executed = on_executed
        self._closer = closer
        self._awaiting: dict[int, list[Pending]] = {}
        self._wake = trio.Event()
        self._hurry = trio.Event()
        self._draining = False
        self._close_wanted = False
        self._no_room = False
        self._next_sweep = -math.inf
        self._next_slice = -math.inf
        self._next_weighing = -math.inf

    def wake(self) -> None:
        """There may be work."""
        self._wake.set()

    def seal_now(self) -> None:
        """Make a block of what waits without waiting for the interval."""
        self._hurry.set()
        self._wake.set()

    def close_now(self) -> None:
        """Close the open batch as soon as possible."""
        self._close_wanted = True
        self._wake.set()

    def drain(self) -> None:
        """Make blocks of all that was accepted, then end `run`."""
        self._draining = True
        self.seal_now()

    def take_awaiting(self, block_number: int) -> list[Pending]:
        """Those who wait for their receipts from a block, in the order of its transactions; once."""
        return self._awaiting.pop(block_number)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Makes blocks until `drain`; returns when all that was accepted is durable.

        Must not be cancelled but to give up: a block may have been executed and not been sealed.
        """
        task_status.started()
        while not self._draining:
            await self._until_work()
            await self._until_slot()
            await self._step()
        while self._has_work() or self._ingress.unchecked:
            if self._has_work():
                await self._step()
            else:
                await trio.sleep(DRAIN_LOOK_S)  # the signature workers have the rest
        await self._sealer.flush()

    async def _step(self) -> None:
        """Makes the next block, if there is anything to put in, and closes the batch if that is due."""
        if self._has_work():
            if self._is_full():
                await self._closer.wait_idle()
                await self._close_batch("full")
            block = await self._make_block()
            if block is not None:
                await self._sealer.put(block)
        if (why := self._why_close()) is not None:
            await self._close_batch(why)
        elif self._machine.batch is not None and trio.current_time() >= self._next_slice:
            self._pass_on_changes()

    def _pass_on_changes(self) -> None:
        """A slice of the batch's root is computed while the batch is open, not all of it at its end."""
        if self._closer.wants_changes:
            self._next_slice = trio.current_time() + SLICE_S
            self._closer.prepare(self._machine.take_changes())

    async def _close_batch(self, why: str) -> None:
        self._close_wanted = self._no_room = False
        self._next_weighing = -math.inf
        batch = self._machine.batch
        if batch is not None:
            self._closer.begin()
            closed = self._machine.close()
            self._closing.closed(closed.number, len(closed.data), batch.opened_ms)
            self._metrics.batches_closed.labels(why).inc()
            await self._sealer.put(closed)

    async def _until_work(self) -> None:
        while not (self._draining or self._has_work() or self._why_close()):
            self._wake = trio.Event()
            with trio.move_on_after(IDLE_LOOK_S):
                await self._wake.wait()

    async def _until_slot(self) -> None:
        """Waits for the next multiple of the interval, unless somebody is in a hurry."""
        with trio.move_on_at(self._next_slot()):
            await self._hurry.wait()
        self._hurry = trio.Event()

    def _next_slot(self) -> float:
        interval_s = self._blocks.block_interval_ms / 1000
        return math.floor(trio.current_time() / interval_s + 1) * interval_s

    def _has_work(self) -> bool:
        return bool(
            len(self._mempool) or self._inbox.has_work or self._dead_man_is_due() or self._life_is_due()
        )

    def _dead_man_is_due(self) -> bool:
        first = self._machine.view.first_under(_DEAD_MAN_PREFIX)
        return first is not None and int.from_bytes(first[0][1:9], "big") <= self._now_ms()

    def _life_is_due(self) -> bool:
        """Whether something is to be listed, settled or delisted."""
        first = self._machine.view.first_under(_DUE_PREFIX)
        return first is not None and keys.parse_due_key(first[0])[0] <= self._now_ms() // 1000

    def _is_full(self) -> bool:
        batch = self._machine.batch
        return batch is not None and (
            self._no_room
            or batch.bytes >= self._closing.full_bytes
            or len(batch.encoded) >= self._batches.max_blocks
        )

    def _why_close(self) -> str | None:
        """The rule by which the open batch is to be closed now, or None."""
        if self._machine.batch is None or self._closer.is_busy:
            return None
        if self._close_wanted:
            return "asked"
        if self._is_full():
            return "full"
        if trio.current_time() < self._next_weighing:
            return None
        judged = self._closing.look()
        if judged is not None and judged.verdict.rule is Rule.CHEAPER_LATER:
            self._next_weighing = trio.current_time() + WEIGHING_S
        return judged.verdict.rule.value if judged is not None and judged.verdict.post else None

    async def _make_block(self) -> ExecutedBlock | None:
        """Executes one block, or finds nothing to put in; refused transactions are answered at once."""
        self._sweep()
        messages = await self._inbox.take(self._blocks.max_messages)
        machine = self._machine
        system = machine.system
        timestamp_ms = max(self._now_ms(), system.timestamp_ms)
        origin = self._inbox.origin
        if origin is None or origin.number <= system.l1_block:
            origin = same_origin(machine.view)
        candidates = self._mempool.take(self._blocks.max_transactions)
        begun = time.perf_counter()
        outcomes, executed = machine.execute(
            timestamp_ms,
            origin,
            messages,
            [pending.transaction for pending in candidates],
            self._batches.max_bytes,
        )
        seconds = time.perf_counter() - begun
        if len(outcomes) < len(candidates):
            self._mempool.put_back(candidates[len(outcomes) :])
            self._no_room = True
        included: list[Pending] = []
        for pending, outcome in zip(candidates, outcomes, strict=False):
            if isinstance(outcome, Rejected):
                self._ingress.refused(pending, outcome)
            else:
                included.append(pending)
        if executed is None:
            return None
        self._on_executed(executed)
        result = executed.result
        self._awaiting[result.header.number] = included
        operations = sum(len(each.operations) for each in result.results)
        self._metrics.block_executed(
            len(included), operations, len(result.trades), len(messages), Counter(), seconds
        )
        return executed

    def _sweep(self) -> None:
        """Once a second, what waits past its deadline is refused."""
        if trio.current_time() < self._next_sweep:
            return
        self._next_sweep = trio.current_time() + 1
        now_s = self._now_ms() // 1000
        for pending in self._mempool.expire(now_s):
            rejected = Rejected(RejectCode.DEADLINE_EXPIRED, deadline_s=pending.deadline_s or 0, now_s=now_s)
            self._ingress.refused(pending, rejected)
