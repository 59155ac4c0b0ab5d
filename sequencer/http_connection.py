"""One HTTP connection: requests in, answers out in their order, or the change to a WebSocket.

Requests are read and started in the server's `Reactor` and answers go out through a `Wire`, several per
system call when they were pipelined. The connection's own task sleeps meanwhile: it opens and closes, and
wakes to go on where the reactor had to stop because too much was waiting.

Invariants:
- iHTTP_010 Answers leave in the order of their requests, however their handlers finish.
- iHTTP_011 A connection that waits for `max_pipelined` answers, or whose client does not take them, is not
  read; what it holds is bounded by `ServerLimits`.
- iHTTP_012 Every task of a connection ends with it.
- iHTTP_013 Whoever sends half a request is told 408; whoever sends none is closed without a word.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import trio

from sequencer.http_protocol import CONTINUE, HttpFailure, HttpRequest, Phase, RequestReader, is_json_type
from sequencer.jsonrpc import Context
from sequencer.wire import Wire
from sequencer.ws_server import WebSocket, accept_upgrade

if TYPE_CHECKING:
    from sequencer.http_server import Server

RECEIVE_BYTES: Final = 1 << 16
HIGH_WATER_BYTES: Final = 1 << 18
LINGER_S: Final = 2.0


class _Slot:
    """The place of one answer in its connection's order."""

    __slots__ = ("_connection", "_extra", "_keep_alive", "data")

    def __init__(self, connection: Connection, keep_alive: bool, extra: bytes) -> None:
        self._connection = connection
        self._keep_alive = keep_alive
        self._extra = extra
        self.data: bytes | None = None

    def fill(self, answer: bytes) -> None:
        """The JSON-RPC answer is there."""
        connection = self._connection
        self.data = connection.server.answers.rpc(answer, self._keep_alive, self._extra)
        connection.answered()


class Connection:
    """One accepted socket, from its first byte to its close. `run` closes the socket."""

    def __init__(self, server: Server, sock: socket.socket, peer: str) -> None:
        self.server = server
        self.sock = sock
        self.wire = Wire(sock, server.flusher, self.start_soon, self._notify, server.limits.write_timeout_s)
        self.context = Context(peer=peer, start_soon=self.start_soon)
        limits = server.limits
        self._reader = RequestReader(limits.max_header_bytes, limits.max_body_bytes, server.known_heads)
        self._slots: deque[_Slot] = deque()
        self._backlog: deque[HttpRequest | None] = deque()
        self._ending = False
        self._stopped = False
        self._failed = False
        self._paused = False
        self._nursery: trio.Nursery | None = None
        self._changed: trio.Event | None = None
        self._deadline = trio.current_time() + server.limits.header_timeout_s
        self._begun = 0
        self._phase = Phase.IDLE
        self._websocket: WebSocket | None = None

    def start_soon(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run a task that is cancelled when this connection closes."""
        if self._nursery is not None:
            self._nursery.start_soon(run)

    async def run(self) -> None:
        """Serve the client until one side ends. Closes the socket."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._read()
                await self._answers_out()
                if self._reader.upgrade is not None and not self._stopped:
                    await self._serve_websocket(*self._reader.upgrade)
                elif self._failed:
                    await self._linger()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self.wire.broken = True
            self.server.reactor.forget(self.sock)
            trio.lowlevel.notify_closing(self.sock)
            self.sock.close()

    async def _read(self) -> None:
        """Stay until the client, an error, an upgrade, or the server ends the reading of requests."""
        reactor = self.server.reactor
        reactor.watch(self.sock, self._on_readable)
        while not self._ending:
            if self._backlog and not self._is_full():
                await trio.lowlevel.checkpoint()
            else:
                await self._change()
            self._work()
        reactor.forget(self.sock)

    def _on_readable(self) -> None:
        """Called by the reactor: take what has arrived and start what is complete. Does not raise."""
        try:
            self._receive()
        except Exception as fault:
            self.server.app.on_fault(fault, "connection")
            self.abort()

    def _receive(self) -> None:
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if not data:
            self._stop_reading()
            return
        reader = self._reader
        reader.feed(data)
        if reader.ready:
            self._backlog.extend(reader.ready)
            reader.ready.clear()
        self._work()

    def _work(self) -> None:
        """Start requests in order: never more at a time than limits allow, then pause reading."""
        backlog = self._backlog
        quantum = self.server.limits.max_pipelined
        while backlog and quantum and not self._ending and not self._is_full():
            quantum -= 1
            self._start(backlog.popleft())
        self.wire.flush()
        if self._ending:
            return
        if backlog or self._is_full():
            self._pause(is_full=quantum > 0)
            return
        if self._reader.failure is not None:
            self._fail(self._reader.failure)
        elif self._reader.upgrade is not None:
            self._stop_reading(stopped=False)
        else:
            self._note_phase()
            if self._paused:
                self._paused = False
                self.server.reactor.watch(self.sock, self._on_readable)

    def _pause(self, *, is_full: bool) -> None:
        """Read no more until answers have left; or, when only the turn was used up, until the next one."""
        self._paused = True
        self.server.reactor.forget(self.sock)
        if not is_full:
            self._notify()

    def _is_full(self) -> bool:
        full_slots = len(self._slots) >= self.server.limits.max_pipelined
        return not self.wire.broken and (full_slots or self.wire.queued_bytes > HIGH_WATER_BYTES)

    def _start(self, request: HttpRequest | None) -> None:
        """Dispatch one request; its answer takes its place in the order."""
        if request is None:
            self._place(CONTINUE)
            return
        server = self.server
        keep_alive = request.keep_alive and not server.closing.is_set()
        if request.method == b"POST" and self._is_call(request):
            extra = server.answers.origin_field(request)
            slot = _Slot(self, keep_alive, extra)
            body = server.app.dispatcher.dispatch(request.body, self.context, slot.fill)
            if body is None:
                self._slots.append(slot)
            else:
                self._place(server.answers.rpc(body, keep_alive, extra))
        else:
            self._place(self._plain_answer(request, keep_alive))
        if not keep_alive:
            self._stop_reading()

    def _place(self, data: bytes) -> None:
        """Queue bytes behind every answer that is still waited for."""
        if not self._slots:
            self.wire.put(data)
            return
        slot = _Slot(self, True, b"")
        slot.data = data
        self._slots.append(slot)

    def answered(self) -> None:
        """A waiting answer is there: queue it, and those behind it that waited for it."""
        slots = self._slots
        while slots and (data := slots[0].data) is not None:
            slots.popleft()
            self.wire.put(data)
        self.wire.flush_soon()
        self._notify()

    def _is_call(self, request: HttpRequest) -> bool:
        """Whether a POST is a JSON-RPC call."""
        server = self.server
        known_path = request.target in server.rpc_paths or request.path in server.rpc_paths
        known_type = is_json_type(request.headers.get(b"content-type"))
        return known_path and known_type and server.answers.origin_allowed(request)

    def _plain_answer(self, request: HttpRequest, keep_alive: bool) -> bytes:
        """The answer to what is not a JSON-RPC call."""
        server, path, method = self.server, request.path, request.method
        answers = server.answers
        extra = answers.origin_field(request)
        is_page = path in server.pages
        if method == b"POST" and path in server.rpc_paths:
            if not answers.origin_allowed(request):
                return answers.error(HTTPStatus.FORBIDDEN, "origin not allowed", keep_alive=keep_alive)
            status, message = HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type must be application/json"
            return answers.error(status, message, extra=extra, keep_alive=keep_alive)
        if method == b"OPTIONS":
            return answers.preflight(request)
        if not is_page and path not in server.rpc_paths:
            return answers.error(HTTPStatus.NOT_FOUND, "no such path", extra=extra, keep_alive=keep_alive)
        if not is_page or method not in (b"GET", b"HEAD"):
            allow = b"Allow: GET, HEAD\r\n" if is_page else b"Allow: POST, OPTIONS\r\n"
            status, message = HTTPStatus.METHOD_NOT_ALLOWED, "POST JSON-RPC here, or open a WebSocket"
            return answers.error(status, message, extra=extra + allow, keep_alive=keep_alive)
        try:
            page = server.pages[path]()
        except Exception as fault:
            server.app.on_fault(fault, path.decode(errors="replace"))
            return answers.error(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", keep_alive=keep_alive)
        with_body = method == b"GET"
        return answers.page(
            page.status, page.body, page.content_type, extra=extra, keep_alive=keep_alive, with_body=with_body
        )

    def _note_phase(self) -> None:
        """Set the deadline of the phase the reader is in; a phase is not prolonged by trickling bytes."""
        reader, limits = self._reader, self.server.limits
        phase = reader.phase
        if phase is Phase.IDLE:
            self._deadline = trio.current_time() + limits.idle_timeout_s
        elif phase is not self._phase or reader.begun != self._begun:
            timeout_s = limits.header_timeout_s if phase is Phase.HEADER else limits.body_timeout_s
            self._deadline = trio.current_time() + timeout_s
        self._phase, self._begun = phase, reader.begun

    def sweep(self, now: float) -> None:
        """Called by the sweeper: end what has lasted too long."""
        if self.wire.deadline < now:
            self.abort()
        elif self._websocket is not None:
            if self._websocket.is_lost(now):
                self.abort()
        elif self._deadline >= now or self._ending:
            return
        elif self._slots or self.wire.queue:
            self._deadline = now + self.server.limits.idle_timeout_s
        elif self._phase is Phase.IDLE:
            self._stop_reading()
        else:
            self._fail(HttpFailure(HTTPStatus.REQUEST_TIMEOUT, "the request did not arrive in time"))

    def stop(self) -> None:
        """The server closes: answer what is in flight, take nothing new."""
        if self._websocket is not None:
            self._websocket.stop()
        else:
            self._stop_reading()

    def abort(self) -> None:
        """Drop the client now; the socket is closed without a farewell."""
        self._stop_reading()
        self.wire.break_off()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def held_bytes(self) -> int:
        """Bytes this client makes the server keep."""
        held = self.wire.queued_bytes + self._reader.held_bytes
        held += sum(len(slot.data) for slot in self._slots if slot.data is not None)
        return held + (self._websocket.held_bytes() if self._websocket is not None else 0)

    def _stop_reading(self, *, stopped: bool = True) -> None:
        """Start no more requests. `stopped=False`: the connection goes on as a WebSocket."""
        self._ending = True
        self._stopped = stopped
        self.server.reactor.forget(self.sock)
        self._notify()

    def _fail(self, failure: HttpFailure) -> None:
        """Answer with an error behind all other answers, and read no further."""
        self._failed = True
        self._place(self.server.answers.error(failure.status, failure.message, keep_alive=False))
        self.wire.flush()
        self._stop_reading()

    async def _answers_out(self) -> None:
        """Wait until every started request is answered and sent, or the client is gone."""
        self.wire.flush_soon()
        while (self._slots or self.wire.queue) and not self.wire.broken:
            await self._change()

    async def _linger(self) -> None:
        """Let the client read what was said last: closing over unread input would reset the connection."""
        with trio.move_on_after(LINGER_S):
            try:
                self.sock.shutdown(socket.SHUT_WR)
                while True:
                    await trio.lowlevel.wait_readable(self.sock)
                    if not self.sock.recv(RECEIVE_BYTES):
                        return
            except OSError:
                return

    async def _serve_websocket(self, request: HttpRequest, rest: bytes) -> None:
        server = self.server
        handshake: bytes | HttpFailure
        if request.path not in server.rpc_paths:
            handshake = HttpFailure(HTTPStatus.NOT_FOUND, "no such path")
        elif not server.answers.origin_allowed(request):
            handshake = HttpFailure(HTTPStatus.FORBIDDEN, "origin not allowed")
        else:
            handshake = accept_upgrade(request)
        if isinstance(handshake, HttpFailure):
            self._fail(handshake)
            await self._answers_out()
            await self._linger()
            return
        self.wire.put(handshake)
        self._websocket = WebSocket(self.sock, self.wire, self.context, server.app.dispatcher, server.limits)
        try:
            await self._websocket.run(rest)
        finally:
            server.app.on_websocket_closed(self._websocket)
        if not self.wire.broken:
            await self._linger()

    def _notify(self) -> None:
        """Wake the connection's task, if it has anything to do."""
        if self._websocket is not None:
            self._websocket.notify()
        if self._changed is not None and (self._paused or self._ending):
            self._changed.set()
            self._changed = None

    async def _change(self) -> None:
        if self._changed is None:
            self._changed = trio.Event()
        await self._changed.wait()
