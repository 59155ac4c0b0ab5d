"""An HTTP server on the loopback that answers each request as the test says, byte by byte if need be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

Behaviour = Callable[[trio.SocketStream], Awaitable[None]]


def answer(body: bytes, status: str = "200 OK", head: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return f"HTTP/1.1 {status}\r\n".encode() + length + head + b"\r\n" + body


def sends(data: bytes) -> Behaviour:
    async def behave(stream: trio.SocketStream) -> None:
        await stream.send_all(data)

    return behave


def stalls_after(data: bytes) -> Behaviour:
    async def behave(stream: trio.SocketStream) -> None:
        await stream.send_all(data)
        await trio.sleep_forever()

    return behave


async def floods(stream: trio.SocketStream) -> None:
    """Chunks without end."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await stream.send_all(b"10000\r\n" + b"[" * 65_536 + b"\r\n")


async def floods_the_head(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\n")
    while True:
        await stream.send_all(b"X-Header: " + b"x" * 1_000 + b"\r\n")


class ScriptedServer:
    """Paths and how they behave; others get status 404."""

    def __init__(self) -> None:
        self.paths: dict[str, Behaviour] = {}
        self.requests: list[bytes] = []
        self.base = ""

    async def handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            request = b""
            while b"\r\n\r\n" not in request:
                data = await stream.receive_some(65_536)
                if not data:
                    return
                request += data
                if not request.startswith(b"GET "):
                    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    return
            self.requests.append(request)
            path = request.split(b" ")[1].decode()
            behave = self.paths.get(path, sends(answer(b"", "404 Not Found")))
            with suppress(trio.BrokenResourceError):  # the client had enough
                await behave(stream)


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.base = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.start_soon(trio.serve_listeners, server.handle, listeners)
        yield server
        nursery.cancel_scope.cancel()
