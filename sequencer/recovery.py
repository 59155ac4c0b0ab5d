"""Signature checks beside the event loop: batches of digests to worker processes, addresses back.

Why processes: coincurve frees the GIL during one recovery only, and a thread that comes back from one waits a
whole switch interval for a busy main thread. Measured with a main thread that is always busy: 200 recoveries
a second with the default interval of 5 ms, 4,500 at 50 us (and the main thread slowed by it), against 10,000
alone; a process keeps the 10,000 and costs the main thread a pipe write and read for each batch.

What arrived while the last batch was being checked forms the next one, so batches grow with load and an idle
node answers at once. What the workers read and write stands in `recovery_worker`.
"""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import trio

from sequencer.recovery_worker import COUNT, PAIR_BYTES, RESULT_BYTES
from state.eip712 import recover

MAX_BATCH: Final = 64
"""Signatures of one batch: a few milliseconds of work."""
BATCHES_AHEAD: Final = 3
"""Batches a worker may have, so that it never waits for the event loop."""

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)
Signers = tuple[bytes | None, ...]


class WorkerDied(Exception):
    """A signature worker ended while the node was running."""


class Recovery(Protocol[Item_contra]):
    """Finds out who signed. `submit` returns at once; the receiver given at construction gets the answer."""

    def submit(self, item: Item_contra, pairs: bytes) -> None:
        """`pairs` is `digest | signature` of each signature that `item` has, 96 bytes each."""


class InlineRecovery(Generic[Item]):
    """Recovers at once, in the caller: for tests and tools."""

    def __init__(self, on_recovered: Callable[[Item, Signers], None]) -> None:
        self._on_recovered = on_recovered

    def submit(self, item: Item, pairs: bytes) -> None:
        found = (
            recover(pairs[at : at + 32], pairs[at + 32 : at + 96]) for at in range(0, len(pairs), PAIR_BYTES)
        )
        self._on_recovered(item, tuple(found))


class ProcessRecovery(Generic[Item]):
    """Recovers in `workers` child processes, which `run` owns.

    `on_recovered(item, signers)` is called in the trio thread. Items submitted before `run` has started wait.
    """

    def __init__(self, workers: int, on_recovered: Callable[[Item, Signers], None]) -> None:
        self._workers = workers
        self._on_recovered = on_recovered
        self._waiting: deque[tuple[Item, bytes]] = deque()
        self._lot = trio.lowlevel.ParkingLot()

    def submit(self, item: Item, pairs: bytes) -> None:
        self._waiting.append((item, pairs))
        self._lot.unpark()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until cancelled; kills its children on the way out. Raises WorkerDied."""
        command = [sys.executable, "-m", "sequencer.recovery_worker"]
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
                ahead: deque[list[tuple[Item, bytes]]] = deque()
                room = trio.Semaphore(BATCHES_AHEAD)
                nursery.start_soon(self._feed, process, ahead, room)
                nursery.start_soon(self._collect, process, ahead, room)
            task_status.started()

    async def _feed(
        self, process: trio.Process, ahead: deque[list[tuple[Item, bytes]]], room: trio.Semaphore
    ) -> None:
        assert process.stdin is not None
        while True:
            await room.acquire()
            while not self._waiting:
                await self._lot.park()
            batch: list[tuple[Item, bytes]] = []
            total = 0
            while self._waiting and total < MAX_BATCH * PAIR_BYTES:
                batch.append(self._waiting.popleft())
                total += len(batch[-1][1])
            ahead.append(batch)
            body = b"".join([pairs for _, pairs in batch])
            try:
                await process.stdin.send_all(COUNT.pack(total // PAIR_BYTES) + body)
            except trio.BrokenResourceError:
                raise WorkerDied("a signature worker closed its input") from None

    async def _collect(
        self, process: trio.Process, ahead: deque[list[tuple[Item, bytes]]], room: trio.Semaphore
    ) -> None:
        assert process.stdout is not None
        data = b""
        while True:
            received = await process.stdout.receive_some(1 << 16)
            if not received:
                raise WorkerDied("a signature worker ended")
            data += received
            while ahead:
                batch = ahead[0]
                size = sum(len(pairs) for _, pairs in batch) // PAIR_BYTES * RESULT_BYTES
                if len(data) < size:
                    break
                ahead.popleft()
                room.release()
                self._deliver(batch, data)
                data = data[size:]

    def _deliver(self, batch: list[tuple[Item, bytes]], data: bytes) -> None:
        at = 0
        for item, pairs in batch:
            if len(pairs) == PAIR_BYTES:
                signers: Signers = (data[at + 1 : at + 21] if data[at] else None,)
                at += RESULT_BYTES
            else:
                end = at + len(pairs) // PAIR_BYTES * RESULT_BYTES
                signers = tuple(
                    data[i + 1 : i + 21] if data[i] else None for i in range(at, end, RESULT_BYTES)
                )
                at = end
            self._on_recovered(item, signers)


async def _kill(process: trio.Process) -> None:
    """A worker has nothing to lose, and takes no other hint."""
    process.kill()
