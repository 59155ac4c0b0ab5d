"""Checks beside the event loop: batches of signed transactions to worker processes, answers back.

Why processes: coincurve frees the GIL during one recovery only, and a thread that comes back from one waits a
whole switch interval for a busy main thread. Measured with a main thread that is always busy: 200 recoveries
a second with the default interval of 5 ms, 4,500 at 50 us (and the main thread slowed by it), against 10,000
alone; a process keeps the 10,000 and costs the main thread a pipe write and read for each batch. And what a
process does besides (`checking`: decoding, hashing), the event loop is spared.

What arrived while the last batch was being checked forms the next one, so batches grow with load and an idle
node answers at once.

- iRECOVERY_001 Answers come in the order of submission, however many workers there are: what arrived first
  stands first in a block.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import msgspec
import trio

from sequencer.checking import Answer, Checker, Pairs, Task, Work
from sequencer.recovery_worker import LENGTH
from state.eip712 import Domain

MAX_BATCH: Final = 64
"""Tasks of one batch: a few milliseconds of work."""
MAX_BATCH_BYTES: Final = 1 << 17
BATCHES_AHEAD: Final = 3
"""Batches a worker may have, so that it never waits for the event loop."""

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
NamesFrom = Callable[[int], Sequence[str]]
"""Names of the instruments after the first so many, in the order of their numbers."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Answer]).decode


class WorkerDied(Exception):
    """A signature worker ended while the node was running."""


class Recovery(Protocol[Item_contra]):
    """Checks. `submit` returns at once; the receiver given at construction gets the answer."""

    def submit(self, item: Item_contra, task: Task) -> None:
        """`item` is what the answer will be given with."""


class _Batch(Generic[Item]):
    """Items on their way through a worker; `answers` when they are back."""

    __slots__ = ("answers", "items")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.answers: list[Answer] | None = None


class InlineRecovery(Generic[Item]):
    """Checks at once, in the caller: for tests and tools."""

    def __init__(
        self, domain: Domain, names_from: NamesFrom, on_checked: Callable[[Item, Answer], None]
    ) -> None:
        self._checker = Checker(domain)
        self._names_from = names_from
        self._known = 0
        self._on_checked = on_checked

    def submit(self, item: Item, task: Task) -> None:
        names = self._names_from(self._known)
        self._known += len(names)
        self._checker.learn(names)
        self._on_checked(item, self._checker.answer(task))


class ProcessRecovery(Generic[Item]):
    """Checks in `workers` child processes, which `run` owns.

    `on_checked(item, answer)` is called in the trio thread. Items submitted before `run` has started wait.
    """

    def __init__(
        self,
        workers: int,
        domain: Domain,
        names_from: NamesFrom,
        on_checked: Callable[[Item, Answer], None],
    ) -> None:
        self._workers = workers
        self._domain = domain
        self._names_from = names_from
        self._on_checked = on_checked
        self._waiting: deque[tuple[Item, Task]] = deque()
        self._batches: deque[_Batch[Item]] = deque()
        """At all workers, in the order of submission."""
        self._lot = trio.lowlevel.ParkingLot()

    def submit(self, item: Item, task: Task) -> None:
        self._waiting.append((item, task))
        if self._lot:
            self._lot.unpark()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled; kills its children on the way out. Raises WorkerDied."""
        domain = self._domain
        arguments = [str(domain.chain_id), domain.contract.hex()]
        command = [sys.executable, "-m", "sequencer.recovery_worker", *arguments]
        async with trio.open_nursery() as nursery:
            for _ in range(self._workers):
                run_process = partial(
                    trio.run_process,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    check=False,
                    deliver_cancel=_kill,
                )
                process: trio.Process = await nursery.start(run_process, command)
                ahead: deque[_Batch[Item]] = deque()
                room = trio.Semaphore(BATCHES_AHEAD)
                nursery.start_soon(self._feed, process, ahead, room)
                nursery.start_soon(self._collect, process, ahead, room)
            task_status.started()

    async def _feed(self, process: trio.Process, ahead: deque[_Batch[Item]], room: trio.Semaphore) -> None:
        assert process.stdin is not None
        known = 0
        while True:
            await room.acquire()
            while not self._waiting:
                await self._lot.park()
            items, tasks = self._next_batch()
            batch = _Batch(items)
            ahead.append(batch)
            self._batches.append(batch)
            names = self._names_from(known)
            known += len(names)
            message = _encode(Work(names, tasks))
            try:
                await process.stdin.send_all(LENGTH.pack(len(message)) + message)
            except trio.BrokenResourceError:
                raise WorkerDied("a signature worker closed its input") from None

    def _next_batch(self) -> tuple[list[Item], list[Task]]:
        items: list[Item] = []
        tasks: list[Task] = []
        total = 0
        while self._waiting and len(tasks) < MAX_BATCH and total < MAX_BATCH_BYTES:
            item, task = self._waiting.popleft()
            items.append(item)
            tasks.append(task)
            total += len(task.data) if isinstance(task, Pairs) else len(task.json)
        return items, tasks

    async def _collect(self, process: trio.Process, ahead: deque[_Batch[Item]], room: trio.Semaphore) -> None:
        assert process.stdout is not None
        data = b""
        while True:
            received = await process.stdout.receive_some(1 << 16)
            if not received:
                raise WorkerDied("a signature worker ended")
            data += received
            while len(data) >= LENGTH.size:
                end = LENGTH.size + LENGTH.unpack_from(data)[0]
                if len(data) < end:
                    break
                answers = _decode(memoryview(data)[LENGTH.size : end])
                data = data[end:]
                room.release()
                ahead.popleft().answers = answers
                self._deliver()

    def _deliver(self) -> None:
        """Passes on what is back, as far as nothing before it is missing."""
        batches = self._batches
        while batches and (answers := batches[0].answers) is not None:
            for item, answer in zip(batches.popleft().items, answers, strict=True):
                self._on_checked(item, answer)


async def _kill(process: trio.Process) -> None:
    """A worker has nothing to lose, and takes no other hint."""
    process.kill()
