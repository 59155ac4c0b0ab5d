"""A small JSON-RPC client over one keep-alive HTTP connection: for the command line, tools and tests.

One request is in flight per client; callers that want more open more clients. The connection is opened at the
first call, reopened once if the server had closed it between two calls, and closed by `aclose` (or `async
with`). A request that may have reached the server is repeated only if the server closed the connection before
answering anything; signed transactions are idempotent by hash, so that repeating one is harmless.
"""

from __future__ import annotations

import itertools
from typing import Any, Self
from urllib.parse import urlsplit

import httptools
import msgspec
import trio

MAX_ANSWER_BYTES = 64 * 1024 * 1024


class NodeUnreachable(Exception):
    """No answer: refused, closed, timed out, or not HTTP."""


class NodeError(Exception):
    """The node answered with a JSON-RPC error; `code`, `message` and `data` are its own."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} (code {code})")
        self.code = code
        self.message = message
        self.data = data


class _Answer:
    """Collects one HTTP response; httptools calls the `on_` methods."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False
        self.closes = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"connection" and value.lower() == b"close":
            self.closes = True

    def on_body(self, data: bytes) -> None:
        self.body += data
        if len(self.body) > MAX_ANSWER_BYTES:
            raise NodeUnreachable(f"answer larger than {MAX_ANSWER_BYTES} bytes")

    def on_message_complete(self) -> None:
        self.complete = True


class NodeClient:
    """Calls methods of one node; `url` is `http://host:port`. Raises NodeError and NodeUnreachable."""

    def __init__(self, url: str, timeout_s: float = 30) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"node URL {url!r}: expected http://host:port")
        self.host = parts.hostname
        self.port = parts.port or 80
        self.timeout_s = timeout_s
        self._head = (
            f"POST / HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
        )
        self._stream: trio.SocketStream | None = None
        self._lock = trio.Lock()
        self._ids = itertools.count(1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
            self._stream = None

    async def call(self, method: str, params: Any = ()) -> Any:
        """The method's result."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        return _result(msgspec.json.decode(await self.post(msgspec.json.encode(request))))

    async def call_many(self, calls: list[tuple[str, Any]]) -> list[Any | NodeError]:
        """One array request; each place has the result, or the error it was answered with."""
        ids = [next(self._ids) for _ in calls]
        requests = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in zip(ids, calls, strict=True)
        ]
        answers = msgspec.json.decode(await self.post(msgspec.json.encode(requests)))
        if isinstance(answers, dict):
            _result(answers)
            raise NodeUnreachable("an array request was answered by a single object")
        by_id = {answer["id"]: answer for answer in answers}
        outcomes: list[Any | NodeError] = []
        for number in ids:
            try:
                outcomes.append(_result(by_id[number]))
            except NodeError as error:
                outcomes.append(error)
        return outcomes

    async def post(self, body: bytes) -> bytes:
        """Sends one HTTP request with `body` and returns the answer's body."""
        payload = f"{self._head}{len(body)}\r\n\r\n".encode() + body
        async with self._lock:
            with trio.move_on_after(self.timeout_s):
                fresh = self._stream is None
                answer = await self._exchange(payload)
                if answer is None and not fresh:
                    answer = await self._exchange(payload)
                if answer is None:
                    raise NodeUnreachable(f"{self.host}:{self.port} closed the connection without an answer")
                return answer
            await self.aclose()
            raise NodeUnreachable(f"{self.host}:{self.port} did not answer within {self.timeout_s} s")

    async def _exchange(self, payload: bytes) -> bytes | None:
        """None when the server closed the connection before answering anything."""
        answer = _Answer()
        parser = httptools.HttpResponseParser(answer)
        received = False
        try:
            if self._stream is None:
                self._stream = await trio.open_tcp_stream(self.host, self.port)
            await self._stream.send_all(payload)
            while not answer.complete:
                data = await self._stream.receive_some(262_144)
                if not data:
                    break
                received = True
                parser.feed_data(data)
        except (OSError, trio.BrokenResourceError) as error:
            await self.aclose()
            if received or not isinstance(error, trio.BrokenResourceError):
                raise NodeUnreachable(f"{self.host}:{self.port}: {error}") from error
            return None
        except httptools.HttpParserError as error:
            await self.aclose()
            raise NodeUnreachable(f"{self.host}:{self.port} does not speak HTTP: {error}") from error
        except BaseException:
            if self._stream is not None:
                stream, self._stream = self._stream, None
                await trio.aclose_forcefully(stream)
            raise
        if not answer.complete:
            await self.aclose()
            if received:
                raise NodeUnreachable(f"{self.host}:{self.port} closed the connection in its answer")
            return None
        if answer.closes:
            await self.aclose()
        return bytes(answer.body)


def _result(answer: Any) -> Any:
    if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0":
        raise NodeUnreachable("the answer is not JSON-RPC 2.0")
    if "error" in answer:
        error = answer["error"]
        raise NodeError(error["code"], error["message"], error.get("data"))
    return answer["result"]
