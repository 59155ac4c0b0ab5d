"""A WebSocket on a connection that began as HTTP: JSON-RPC messages both ways, and subscriptions.

The protocol is `websockets`' sans-I/O `ServerProtocol`; reading and writing stay with the connection's own
socket and `Wire`, because the bytes after the upgrade request have already been read, because one task per
client is enough, and because a frame of a feed is made once and queued for many clients as it is (server
frames are neither masked nor, here, compressed).

Invariants:
- iWS_001 At most `max_pipelined` calls of a client wait at a time; beyond that its socket is not read.
- iWS_002 At most `ws_queue` messages wait to be taken; a push beyond that closes the WebSocket with code
  1013 and drops what was queued (resume tokens make up for it).
- iWS_003 A client that is silent for `idle_timeout_s` although pinged is dropped.
- iWS_004 Frames pushed by a call (snapshots, replays) leave after the answer to that call.
"""

from __future__ import annotations

import logging
import math
import socket
from http import HTTPStatus
from typing import Final

import trio
from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from sequencer.http_protocol import HttpFailure, HttpRequest
from sequencer.jsonrpc import Context, Dispatcher
from sequencer.server_limits import ServerLimits
from sequencer.wire import Wire

RECEIVE_BYTES: Final = 1 << 16
HIGH_WATER_BYTES: Final = 1 << 18
PINGS_PER_IDLE_TIMEOUT: Final = 3
SLOW_REASON: Final = "too slow: reconnect and resume"

_DATA_OPCODES: Final = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

_logger = logging.getLogger("straddle.websocket")


def accept_upgrade(request: HttpRequest) -> bytes | HttpFailure:
    """The answer that turns the connection into a WebSocket, or why it cannot."""
    headers = Headers(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.items()
    )
    handshake = ServerProtocol(logger=_logger)
    response = handshake.accept(Request(request.target.decode("latin-1"), headers))
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        reason = bytes(response.body or b"").decode(errors="replace").strip()
        return HttpFailure(HTTPStatus(response.status_code), reason)
    return response.serialize()


class WebSocket:
    """One WebSocket. The socket, the wire and all tasks belong to the connection that made this."""

    def __init__(
        self, sock: socket.socket, wire: Wire, context: Context, dispatcher: Dispatcher, limits: ServerLimits
    ) -> None:
        self._sock = sock
        self._wire = wire
        self._context = Context(peer=context.peer, start_soon=context.start_soon, subscriber=self)
        self._dispatcher = dispatcher
        self._limits = limits
        self._protocol = ServerProtocol(state=OPEN, max_size=limits.max_body_bytes, logger=_logger)
        self._message = bytearray()
        self._waiting = 0
        self._held: list[bytes] | None = None
        self._stopping = False
        self._changed: trio.Event | None = None
        self._heard_at = trio.current_time()
        self._ping_at = self._heard_at + self._ping_interval_s
        self._close_deadline = math.inf

    @property
    def _ping_interval_s(self) -> float:
        return self._limits.idle_timeout_s / PINGS_PER_IDLE_TIMEOUT

    async def run(self, rest: bytes) -> None:
        """Serve messages until one side closes or the wire breaks. `rest` came right after the handshake."""
        protocol = self._protocol
        if rest:
            protocol.receive_data(rest)
        ended = await self._pump()
        while not ended and not self._wire.broken:
            await trio.lowlevel.wait_readable(self._sock)
            try:
                data = self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return
            self._heard_at = trio.current_time()
            if data:
                protocol.receive_data(data)
            else:
                protocol.receive_eof()
            ended = await self._pump() or not data
        while self._wire.queue and not self._wire.broken:
            await self._change()

    async def _pump(self) -> bool:
        """Handle what the protocol has understood and send what it wants sent; True when it ends."""
        count = 0
        for frame in self._protocol.events_received():
            if not isinstance(frame, Frame) or frame.opcode not in _DATA_OPCODES:
                continue
            self._message += frame.data
            if not frame.fin:
                continue
            body = bytes(self._message)
            self._message.clear()
            self._receive(body)
            count += 1
            if count % self._limits.max_pipelined == 0 or self._is_full():
                self._wire.flush()
                await trio.lowlevel.checkpoint()
                while self._is_full():
                    await self._change()
        ended = self._queue_protocol()
        self._wire.flush()
        return ended

    def _receive(self, body: bytes) -> None:
        """Run one JSON-RPC message; frames it pushes are held back until its answer is queued."""
        if self._stopping:
            return
        self._held = []
        self._waiting += 1
        answer = self._dispatcher.dispatch(body, self._context, self._answered)
        if answer is not None:
            self._waiting -= 1
            self._send_text(answer)
        held, self._held = self._held, None
        if self._protocol.state is OPEN:
            for frame in held:
                self._wire.put(frame)

    def _answered(self, answer: bytes) -> None:
        self._waiting -= 1
        self._send_text(answer)
        self._wire.flush_soon()
        if self._stopping and self._waiting == 0:
            self.close(CloseCode.GOING_AWAY, "server is closing")
        self.notify()

    def _send_text(self, answer: bytes) -> None:
        if answer and self._protocol.state is OPEN:
            self._protocol.send_text(answer)
            self._queue_protocol()

    def _queue_protocol(self) -> bool:
        """Queue the protocol's bytes; True when it says that the stream ends."""
        ended = False
        for data in self._protocol.data_to_send():
            if data:
                self._wire.put(data)
            else:
                ended = True
        return ended

    def push(self, frame: bytes) -> bool:
        """Queue a ready text frame; False when the client was too slow and is being closed."""
        if self._protocol.state is not OPEN:
            return False
        if self.room() <= 0:
            self._wire.flush()
        if self.room() <= 0:
            self._wire.drop_queued()
            self.close(CloseCode.TRY_AGAIN_LATER, SLOW_REASON)
            return False
        if self._held is not None:
            self._held.append(frame)
        else:
            self._wire.put(frame)
            self._wire.flush_soon()
        return True

    def room(self) -> int:
        """How many more frames `push` takes."""
        return self._limits.ws_queue - len(self._wire.queue) - len(self._held or ())

    def close(self, code: CloseCode, reason: str) -> None:
        """Send a close frame behind what is queued; the client has `close_timeout_s` to answer it."""
        if self._protocol.state is not OPEN:
            return
        self._protocol.send_close(code, reason)
        self._close_deadline = trio.current_time() + self._limits.close_timeout_s
        self._queue_protocol()
        self._wire.flush_soon()

    def stop(self) -> None:
        """The server closes: take no new message, and say goodbye when all answers are out."""
        self._stopping = True
        if self._waiting == 0:
            self.close(CloseCode.GOING_AWAY, "server is closing")

    def is_lost(self, now: float) -> bool:
        """Called by the sweeper: ping when it is time; True when the client should be dropped."""
        if now > self._close_deadline:
            return True
        if now < self._ping_at or self._is_full() or self._protocol.state is not OPEN:
            return False
        self._ping_at = now + self._ping_interval_s
        if now - self._heard_at >= self._limits.idle_timeout_s:
            return True
        self._protocol.send_ping(b"")
        self._queue_protocol()
        self._wire.flush_soon()
        return False

    def held_bytes(self) -> int:
        """Bytes of an unfinished message."""
        return len(self._message) + len(self._protocol.reader.buffer)

    def notify(self) -> None:
        """Something this task may wait for has changed."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def _is_full(self) -> bool:
        too_many = self._waiting >= self._limits.max_pipelined
        return not self._wire.broken and (too_many or self._wire.queued_bytes > HIGH_WATER_BYTES)

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()
