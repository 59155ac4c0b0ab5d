"""A real server on a loopback port, and raw clients, for the transport's tests."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
import msgspec
import trio
import trio.testing

from sequencer.errors import ErrorCode, RpcError
from sequencer.feed import Feed, FeedLimits, Snapshot
from sequencer.http_server import App, Page, Server, serve
from sequencer.jsonrpc import Context, Deferred, Dispatcher, Method, NoParams, Registry
from sequencer.server_limits import ServerLimits


class Text(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class Size(msgspec.Struct, forbid_unknown_fields=True):
    chars: int


@dataclass
class Harness:
    """A running server with its app's insides at hand."""

    server: Server
    port: int
    feed: Feed
    waiting: list[Deferred[str]]
    faults: list[tuple[BaseException, str]]
    cancelled: list[str]

    async def connect(self) -> Client:
        return Client(await trio.open_tcp_stream("127.0.0.1", self.port))

    def tasks(self) -> int:
        """Tasks alive in the whole run: back to its base when nothing leaks."""
        return trio.lowlevel.current_statistics().tasks_living

    async def settle(self) -> None:
        """Let the server react to what has been sent over loopback."""
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked(0.005)

    async def until(self, condition: Any) -> None:
        """Wait in real time, not the tests' virtual one, for what the kernel has to deliver first."""
        for _ in range(2000):
            if condition():
                return
            await trio.testing.wait_all_tasks_blocked(0.002)
        raise AssertionError("the condition did not come true")


class Answer:
    """One HTTP answer."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """A raw HTTP client that can misbehave."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.answers: list[Answer] = []
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.answers.append(Answer(self._parser.get_status_code(), self._headers, self._body))
        self._headers, self._body = {}, b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> Answer:
        """The next answer. Raises EOFError when the server closed instead."""
        while not self.answers:
            data = await self.stream.receive_some(65536)
            if not data:
                raise EOFError
            self._parser.feed_data(data)
        return self.answers.pop(0)

    async def closed(self) -> bool:
        """Whether the server closes without sending anything more."""
        try:
            return not self.answers and await self.stream.receive_some(65536) == b""
        except trio.BrokenResourceError:
            return True

    async def ask(self, body: bytes, **headers: str) -> Answer:
        await self.send(post(body, **headers))
        return await self.answer()

    async def aclose(self) -> None:
        await self.stream.aclose()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()


def post(body: bytes, path: str = "/", **headers: str) -> bytes:
    fields = {"Host": "x", "Content-Type": "application/json", "Content-Length": str(len(body))}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST {path} HTTP/1.1"] + [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def call(method: str, params: Any = None, request_id: Any = 1) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()


def check_channel(name: str) -> Snapshot | None:
    """Channels `book.*` have a snapshot, `trades.*` have none, others do not exist."""
    if name.startswith("book."):
        return lambda: {"snapshot_of": name}
    if name.startswith("trades."):
        return None
    raise RpcError(ErrorCode.UNKNOWN_CHANNEL, data={"channel": name})


@asynccontextmanager
async def running(
    limits: ServerLimits | None = None,
    *,
    origins: frozenset[str] = frozenset({"*"}),
    feed_limits: FeedLimits | None = None,
) -> AsyncIterator[Harness]:
    """A server that is closed, and proved to leave no task behind, at the end."""
    limits = limits or ServerLimits()
    waiting: list[Deferred[str]] = []
    faults: list[tuple[BaseException, str]] = []
    cancelled: list[str] = []

    def wait(_params: NoParams, _context: Context) -> Deferred[str]:
        waiting.append(Deferred())
        return waiting[-1]

    async def sleep(params: Text, _context: Context) -> str:
        try:
            await trio.sleep(float(params.text))
        except trio.Cancelled:
            cancelled.append(params.text)
            raise
        return params.text

    def broken_page() -> Page:
        raise KeyError("secret")

    feed = Feed(check_channel, max_subscriptions=limits.max_ws_subscriptions, limits=feed_limits)
    registry = Registry(
        [
            Method("echo", Text, str, lambda params, _: params.text, "the text"),
            Method("large", Size, str, lambda params, _: "x" * params.chars, "many characters"),
            Method("wait", NoParams, str, wait, "answers later"),
            Method("sleep", Text, str, sleep, "a coroutine"),
            *feed.methods(),
        ]
    )
    app = App(
        dispatcher=Dispatcher(
            registry,
            lambda fault, where: faults.append((fault, where)),
            max_batch=limits.max_batch,
            max_in_flight=limits.max_in_flight,
            max_answer_bytes=limits.max_answer_bytes,
        ),
        on_fault=lambda fault, where: faults.append((fault, where)),
        pages={"/health": lambda: Page(HTTPStatus.OK, b'{"ok":true}'), "/broken": broken_page},
        allowed_origins=origins,
        on_websocket_closed=feed.forget,
    )
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, listeners, app, limits))
        yield Harness(server, port, feed, waiting, faults, cancelled)
        if not server.closing.is_set():
            nursery.cancel_scope.cancel()
    assert server.connections == {}
    assert not server.per_network
    assert feed.subscriber_count == 0


def unread_socket(port: int) -> socket.socket:
    """A client socket with a small receive buffer, for clients that never read."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    return sock
