"""What the JSON-RPC transport alone costs: `echo` of a signed order's size, over loopback.

The server is a process of its own, and so is the load (this one): prepared request bytes, answers counted by
their known length, so that the load costs little. Two figures per case: requests per second, which on two
shared cores includes the load's own work, and the server's processor time per request, which does not. Beside
the rate stands `recover_limit` (one recovery's elapsed time), beside the server's time one recovery's
processor time, measured right after each case: on a busy machine only the latter comparison says much.
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import socket
import sys
import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Final

import msgspec
import trio

from sequencer.http_server import App, Server, serve
from sequencer.jsonrpc import Context, Deferred, Dispatcher, Method, Registry
from sequencer.server_limits import ServerLimits
from tools.figure import Figure, recover_cpu_seconds, recover_seconds

TEXT: Final = "0x" + "ab" * 150
SEAL_INTERVAL_S: Final = 0.01
RUN_S: Final = 3.0
RECOVERIES: Final = 5000


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """The parameter of `echo`."""

    text: str


def _serve_process(pipe: Connection) -> None:
    """The server's process: tells its port, then its processor time when asked, until told to end."""
    trio.run(_serve, pipe)


async def _serve(pipe: Connection) -> None:
    waiting: list[tuple[Deferred[str], str]] = []

    def sealed(params: Text, _context: Context) -> Deferred[str]:
        deferred: Deferred[str] = Deferred()
        waiting.append((deferred, params.text))
        return deferred

    async def seal_forever() -> None:
        while True:
            await trio.sleep(SEAL_INTERVAL_S)
            ready, waiting[:] = waiting[:], []
            for deferred, text in ready:
                deferred.resolve(text)

    def fault(error: BaseException, where: str) -> None:
        print(f"{where}: {error!r}", file=sys.stderr)

    limits = ServerLimits()
    registry = Registry(
        [
            Method("echo", Text, str, lambda params, _: params.text, "The text."),
            Method("sealed", Text, str, sealed, "The text, when the next block is sealed."),
        ]
    )
    dispatcher = Dispatcher(
        registry,
        fault,
        max_batch=limits.max_batch,
        max_in_flight=limits.max_in_flight,
        max_answer_bytes=limits.max_answer_bytes,
    )
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, listeners, App(dispatcher, fault), limits))
        nursery.start_soon(seal_forever)
        pipe.send(listeners[0].socket.getsockname()[1])
        while await trio.to_thread.run_sync(pipe.recv):
            pipe.send(time.process_time())
        server.close()
        nursery.cancel_scope.cancel()


def _body(method: str, entries: int) -> bytes:
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": [TEXT]}
    return msgspec.json.encode([call] * entries if entries > 1 else call)


def _request(method: str, entries: int) -> bytes:
    body = _body(method, entries)
    head = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nUser-Agent: bench\r\n"
    return head + b"Accept: */*\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _load(port: int, request: bytes, connections: int, depth: int) -> float:
    """Requests answered per second with `depth` requests at a time on each of `connections`."""
    selector = selectors.DefaultSelector()
    burst = request * depth
    answer_bytes = 0
    missing: dict[socket.socket, int] = {}
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not answer_bytes:
            sock.sendall(request)
            time.sleep(0.2)
            answer_bytes = len(sock.recv(1 << 20))
        selector.register(sock, selectors.EVENT_READ)
        missing[sock] = depth * answer_bytes
    for sock in missing:
        sock.sendall(burst)
    answered, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < RUN_S:
        for key, _ in selector.select(1.0):
            sock = key.fileobj  # type: ignore[assignment]
            missing[sock] -= len(sock.recv(1 << 20))
            if missing[sock] == 0:
                answered += depth
                missing[sock] = depth * answer_bytes
                sock.sendall(burst)
    elapsed = time.perf_counter() - begin
    for sock in missing:
        sock.close()
    return answered / elapsed


CASES: Final = (
    ("single, 1 connection", "echo", 1, 1, 1),
    ("single, 16 connections", "echo", 1, 16, 1),
    ("single, 256 connections", "echo", 1, 256, 1),
    ("pipelined 16, 16 connections", "echo", 1, 16, 16),
    ("waits for a block, 256 connections", "sealed", 1, 256, 1),
    ("array of 50, 16 connections", "echo", 50, 16, 1),
    ("array of 50 waits for a block, 16 connections", "sealed", 50, 16, 1),
)


def bench_transport() -> list[Figure]:
    """Every case: calls per second, and the server's processor time per call in recoveries."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_process, args=(theirs,), daemon=True)
    process.start()
    port = ours.recv()
    figures = []
    try:
        for name, method, entries, connections, depth in CASES:
            ours.send(True)
            cpu_begin_s = ours.recv()
            begin = time.perf_counter()
            per_second = _load(port, _request(method, entries), connections, depth) * entries
            run_s = min(RUN_S, time.perf_counter() - begin)
            ours.send(True)
            cpu_s = ours.recv() - cpu_begin_s
            rate = f"{per_second * recover_seconds():.2f} x recover_limit"
            cpu_per_call_s = cpu_s / (per_second * run_s)
            cost = f"{cpu_per_call_s / recover_cpu_seconds(RECOVERIES):.3f} recoveries"
            figures += [
                Figure(f"{name}: rate", per_second, "1/s", note=rate),
                Figure(f"{name}: server", cpu_per_call_s * 1e6, "us", note=cost),
            ]
    finally:
        ours.send(False)
        process.join(5)
    return figures


if __name__ == "__main__":
    print(f"load {os.getloadavg()[0]:.1f}; one recovery {recover_seconds() * 1e6:.1f} us")
    for figure in bench_transport():
        print(f"{figure.name:55} {figure.value:10,.1f} {figure.unit:4} {figure.note}")
