"""The node's port: HTTP/1.1 and WebSocket, JSON-RPC in both, on one trio nursery tree.

`serve` owns the listeners, the connections (http_connection.py) and three service tasks: the reactor, which
receives, the flusher, which sends what answers have been queued, and the sweeper, which ends what lasts too
long. Timeouts cost nothing
per request: a connection writes down until when it may stay in its phase, and the sweeper looks at all.

Invariants:
- iHTTP_020 No more than `max_connections` connections, and `max_connections_per_ip` of one network; those
  beyond are answered 503 or 429 and closed.
- iHTTP_021 Every connection ends with `serve`, and `serve` ends within `close_timeout_s` after `close`.
- iHTTP_022 All clients together hold at most `max_buffered_bytes` for longer than one sweep.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import trio

from sequencer.http_connection import Connection
from sequencer.http_protocol import JSON_TYPE, Answers, KnownHeads
from sequencer.jsonrpc import Dispatcher, OnFault, Subscriber
from sequencer.reactor import Reactor
from sequencer.server_limits import ServerLimits
from sequencer.wire import Flusher

SWEEPS_PER_TIMEOUT: Final = 8

_ACCEPT_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to a GET: health, readiness, metrics."""

    status: HTTPStatus
    body: bytes
    content_type: bytes = JSON_TYPE


@dataclass(frozen=True, slots=True)
class App:
    """What a port serves.

    `pages` maps a path to a function without waiting; `rpc_paths` take JSON-RPC over POST and WebSocket;
    `allowed_origins` are the web origins whose pages may call (`*`: all). `on_fault(exception, where)` is
    called once per unknown exception, and the node decides whether to stop. `on_websocket_closed` is told
    of every WebSocket's subscriber when it has gone (`Feed.forget`).
    """

    dispatcher: Dispatcher
    on_fault: OnFault
    pages: Mapping[str, Callable[[], Page]] = field(default_factory=dict)
    rpc_paths: frozenset[str] = frozenset({"/", "/rpc", "/ws"})
    allowed_origins: frozenset[str] = frozenset({"*"})
    on_websocket_closed: Callable[[Subscriber], None] = lambda _: None


async def serve(
    listeners: Sequence[trio.SocketListener],
    app: App,
    limits: ServerLimits,
    *,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listeners` until `Server.close` is called on the object given to `task_status`.

    Then: listeners are closed first, waiting answers may finish within `close_timeout_s`, WebSockets are
    told "going away", and everything is closed. Cancelling closes at once. Either way `serve` closes the
    listeners and every connection it accepted before it returns.
    """
    server = Server(app, limits)
    async with trio.open_nursery() as services:
        services.start_soon(server.flusher.run)
        services.start_soon(server.reactor.run)
        services.start_soon(server.sweep_forever)
        async with trio.open_nursery() as clients:
            for listener in listeners:
                clients.start_soon(server.accept_forever, listener, clients)
            task_status.started(server)
            await server.closing.wait()
            server.accepting.cancel()
            for connection in server.connections:
                connection.stop()
            clients.cancel_scope.deadline = trio.current_time() + limits.close_timeout_s
        services.cancel_scope.cancel()


class Server:
    """What the connections of one `serve` share. Made by `serve`, which owns its tasks."""

    def __init__(self, app: App, limits: ServerLimits) -> None:
        self.app = app
        self.limits = limits
        self.flusher = Flusher()
        self.reactor = Reactor()
        self.known_heads = KnownHeads()
        self.answers = Answers(app.allowed_origins)
        self.answers.set_time(int(time.time()))
        self.rpc_paths = frozenset(path.encode() for path in app.rpc_paths)
        self.pages = {path.encode(): page for path, page in app.pages.items()}
        self.connections: dict[Connection, None] = {}
        self.per_network: Counter[str] = Counter()
        self.closing = trio.Event()
        self.accepting = trio.CancelScope()
        self.refused = 0
        self.shed = 0

    def close(self) -> None:
        """Begin the bounded close described at `serve`. May be called more than once."""
        self.closing.set()

    async def accept_forever(self, listener: trio.SocketListener, clients: trio.Nursery) -> None:
        """Accept on one listener, which this task closes when it ends."""
        async with listener:
            with self.accepting:
                while True:
                    try:
                        stream = await listener.accept()
                    except OSError as error:
                        if error.errno not in _ACCEPT_EXHAUSTED:
                            raise
                        await trio.sleep(0.1)
                        continue
                    self._admit(socket.socket(fileno=stream.socket.detach()), clients)

    def _admit(self, sock: socket.socket, clients: trio.Nursery) -> None:
        """Give the socket to a connection, which then owns it, or answer that there is no room."""
        sock.setblocking(False)
        try:
            peer = str(sock.getpeername()[0])
        except OSError:
            sock.close()
            return
        network = network_of(peer)
        if len(self.connections) >= self.limits.max_connections:
            self._refuse(sock, HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
        elif self.per_network[network] >= self.limits.max_connections_per_ip:
            self._refuse(sock, HTTPStatus.TOO_MANY_REQUESTS, "too many connections from this address")
        else:
            connection = Connection(self, sock, peer)
            self.connections[connection] = None
            self.per_network[network] += 1
            clients.start_soon(self._run, connection, network)

    def _refuse(self, sock: socket.socket, status: HTTPStatus, message: str) -> None:
        self.refused += 1
        with sock:
            try:
                sock.send(self.answers.error(status, message, extra=b"Retry-After: 1\r\n", keep_alive=False))
                sock.shutdown(socket.SHUT_WR)
                sock.recv(1 << 16)  # a request left unread would turn the close into a reset
            except OSError:
                return  # it went away or has sent nothing yet: there is nothing owed to it

    async def _run(self, connection: Connection, network: str) -> None:
        try:
            await connection.run()
        except Exception as fault:
            self.app.on_fault(fault, "connection")
        finally:
            del self.connections[connection]
            self.per_network[network] -= 1
            if not self.per_network[network]:
                del self.per_network[network]

    async def sweep_forever(self) -> None:
        """End phases that lasted too long, and free memory when clients hold too much of it together."""
        limits = self.limits
        timeouts = (limits.header_timeout_s, limits.body_timeout_s, limits.idle_timeout_s)
        interval_s = min(1.0, min(*timeouts, limits.write_timeout_s) / SWEEPS_PER_TIMEOUT)
        while True:
            await trio.sleep(interval_s)
            self.answers.set_time(int(time.time()))
            now = trio.current_time()
            for connection in tuple(self.connections):
                connection.sweep(now)
            held = {connection: connection.held_bytes() for connection in self.connections}
            excess = sum(held.values()) - limits.max_buffered_bytes
            for connection in sorted(held, key=held.__getitem__, reverse=True) if excess > 0 else ():
                if excess <= 0:
                    break
                excess -= held[connection]
                self.shed += 1
                connection.abort()


def network_of(peer: str) -> str:
    """What connections are counted by: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return peer
