"""The outgoing side of one client's socket: queue, send without waiting, and drain when the client is slow.

trio's `SocketStream.send_all` gives up the processor on every call. Answers are produced in bursts (a
sealed block resolves hundreds at once), so here they are queued and a single `Flusher` task sends them
with one non-blocking system call per connection. Only when the kernel's buffer is full does a connection
get a task of its own to wait in.

Invariants:
- iWIRE_001 Bytes leave in the order of `put`, and messages stay whole, also when `drop_queued` shortens
  the queue (a message whose first bytes have left is always finished).
- iWIRE_002 While something is queued and the kernel takes nothing, `deadline` is finite: a message that is
  not taken within `write_timeout_s` breaks the wire.
- iWIRE_003 `on_change` is called when the queue becomes empty and when the wire breaks.
"""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final

import trio

_CHUNKS_PER_CALL: Final = 256
_FLUSHES_PER_TURN: Final = 64


class Wire:
    """Owns what waits to be sent on `sock`; the socket itself belongs to the connection that made this.

    `start_soon` starts the drain task in the connection's nursery.
    """

    __slots__ = (
        "_draining",
        "_flusher",
        "_messages_sent",
        "_on_change",
        "_start_soon",
        "_write_timeout_s",
        "broken",
        "deadline",
        "dirty",
        "queue",
        "queued_bytes",
        "sock",
    )

    def __init__(
        self,
        sock: socket.socket,
        flusher: Flusher,
        start_soon: Callable[[Callable[[], Awaitable[None]]], None],
        on_change: Callable[[], None],
        write_timeout_s: float,
    ) -> None:
        self.sock = sock
        self.queue: deque[bytes | memoryview] = deque()
        self.queued_bytes = 0
        self.deadline = math.inf
        self.dirty = False
        self.broken = False
        self._draining = False
        self._messages_sent = 0
        self._flusher = flusher
        self._start_soon = start_soon
        self._on_change = on_change
        self._write_timeout_s = write_timeout_s

    def put(self, data: bytes) -> None:
        """Queue one message; `flush` or the Flusher sends it. Dropped when the wire is broken."""
        if not self.broken:
            self.queue.append(data)
            self.queued_bytes += len(data)

    def flush_soon(self) -> None:
        """Have the Flusher send what is queued, in its next turn."""
        self._flusher.mark(self)

    def drop_queued(self) -> None:
        """Forget queued messages, except one that is partly sent."""
        started = self.queue[0] if self.queue and isinstance(self.queue[0], memoryview) else None
        self.queue.clear()
        self.queued_bytes = 0
        if started is not None:
            self.queue.append(started)
            self.queued_bytes = len(started)

    def flush(self) -> None:
        """Send what the kernel takes now; the rest is left to a drain task. Does not raise."""
        if self._draining or not self.queue:
            return
        try:
            if self._send():
                self._on_change()
                return
        except OSError:
            self.break_off()
            return
        self._draining = True
        self.deadline = trio.current_time() + self._write_timeout_s
        self._start_soon(self._drain)

    def break_off(self) -> None:
        """The client is gone: forget everything queued and tell the connection."""
        self.broken = True
        self.queue.clear()
        self.queued_bytes = 0
        self.deadline = math.inf
        self._on_change()

    def _send(self) -> bool:
        """Whether all was sent; False when the kernel's buffer is full. Raises OSError."""
        queue = self.queue
        while queue:
            try:
                if len(queue) == 1:
                    sent = self.sock.send(queue[0])
                else:
                    sent = self.sock.sendmsg(islice(queue, _CHUNKS_PER_CALL))
            except BlockingIOError:
                return False
            self.queued_bytes -= sent
            while sent:
                head = queue[0]
                if len(head) > sent:
                    queue[0] = memoryview(head)[sent:]
                    break
                sent -= len(head)
                queue.popleft()
                self._messages_sent += 1
        return True

    async def _drain(self) -> None:
        """Send the rest as the client takes it. Ends when the queue is empty or the wire breaks."""
        try:
            while self.queue:
                await trio.lowlevel.wait_writable(self.sock)
                taken = self._messages_sent
                self._send()
                if self._messages_sent != taken:
                    self.deadline = trio.current_time() + self._write_timeout_s
        except OSError:
            self.break_off()
        finally:
            self._draining = False
            self.deadline = math.inf
        self._on_change()


class Flusher:
    """Flushes, once per turn of the event loop, every wire that something was put on."""

    def __init__(self) -> None:
        self._dirty: list[Wire] = []
        self._lot = trio.lowlevel.ParkingLot()

    def mark(self, wire: Wire) -> None:
        """Flush `wire` in the next turn."""
        if not wire.dirty:
            wire.dirty = True
            self._dirty.append(wire)
            if self._lot:
                self._lot.unpark()

    async def run(self) -> None:
        """The flusher's task; runs until cancelled, and lets others run between groups of wires."""
        while True:
            if not self._dirty:
                await self._lot.park()
            wires, self._dirty = self._dirty, []
            for count, wire in enumerate(wires, 1):
                wire.dirty = False
                wire.flush()
                if count % _FLUSHES_PER_TURN == 0:
                    await trio.lowlevel.checkpoint()
