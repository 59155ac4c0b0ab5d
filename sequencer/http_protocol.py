"""HTTP/1.1 without I/O: bytes to requests (httptools), and answers to bytes.

Everything that can be wrong with a request ends in one `HttpFailure` with a status; after it nothing more
is read from the connection, because where the next request begins can no longer be known.

Invariants:
- iHTTP_001 A header larger than `max_header_bytes` fails with 431, a body larger than `max_body_bytes` with
  413, both before more than one receive buffer beyond the limit was held.
- iHTTP_002 Bytes that are not HTTP fail with 400 and raise nothing.
- iHTTP_003 An `Upgrade` to anything but WebSocket is ignored, as RFC 9110 section 7.8 allows.
- iHTTP_004 A head that was parsed before, byte for byte, is not parsed again (`KnownHeads`): clients repeat
  themselves, and the callbacks of one head cost as much as executing a small order does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum, auto
from http import HTTPStatus
from typing import Final

import httptools
import msgspec

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
JSON_TYPE: Final = b"application/json"


class Phase(Enum):
    """What the reader is in the middle of."""

    IDLE = auto()
    HEADER = auto()
    BODY = auto()


@dataclass(frozen=True, slots=True)
class HttpFailure:
    """A request that cannot be served; the connection closes after the answer."""

    status: HTTPStatus
    message: str


class _Stop(Exception):
    """Leaves the parser from inside a callback; `RequestReader.failure` says why."""


class HttpRequest:
    """One complete request. Header names are lower case; repeated fields are joined by commas."""

    __slots__ = ("body", "headers", "keep_alive", "method", "target")

    def __init__(
        self, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes, keep_alive: bool
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive

    @property
    def path(self) -> bytes:
        """The target without its query."""
        return self.target.partition(b"?")[0]


class KnownHeads:
    """Heads of complete requests with a body of stated length, and what the parser made of them.

    Shared by the connections of a server, so bounded: when full it starts anew.
    """

    MAX_HEADS: Final = 256
    MAX_HEAD_BYTES: Final = 1024

    def __init__(self) -> None:
        self._requests: dict[bytes, tuple[HttpRequest, int]] = {}

    def request(self, data: bytes) -> HttpRequest | None:
        """The request, when `data` is exactly one and its head is known."""
        end = data.find(b"\r\n\r\n", 0, self.MAX_HEAD_BYTES) + 4
        known = self._requests.get(data[:end])
        if known is None or known[1] != len(data):
            return None
        like = known[0]
        return HttpRequest(like.method, like.target, like.headers, data[end:], True)

    def learn(self, data: bytes, request: HttpRequest) -> None:
        """`data` was exactly this request; nothing is learnt from one that is special in any way."""
        headers = request.headers
        end = data.find(b"\r\n\r\n", 0, self.MAX_HEAD_BYTES) + 4
        plain = request.keep_alive and not headers.keys() & _SPECIAL_HEADERS
        if plain and end > 4 and headers.get(b"content-length") == b"%d" % (len(data) - end):
            if len(self._requests) >= self.MAX_HEADS:
                self._requests.clear()
            bodiless = HttpRequest(request.method, request.target, headers, b"", True)
            self._requests[data[:end]] = (bodiless, len(data))


_SPECIAL_HEADERS: Final = frozenset((b"connection", b"expect", b"transfer-encoding", b"upgrade"))


class RequestReader:
    """Feeds on received bytes; `ready` fills with requests in order (None stands for: send 100 Continue).

    `failure` is set when the stream cannot be read further; `upgrade` when the last request asks for a
    WebSocket, with the bytes that came behind it.
    """

    def __init__(
        self, max_header_bytes: int, max_body_bytes: int, known_heads: KnownHeads | None = None
    ) -> None:
        self.ready: list[HttpRequest | None] = []
        self.failure: HttpFailure | None = None
        self.upgrade: tuple[HttpRequest, bytes] | None = None
        self.phase = Phase.IDLE
        self.begun = 0
        self.held_bytes = 0
        self._max_header_bytes = max_header_bytes
        self._max_body_bytes = max_body_bytes
        self._known_heads = known_heads or KnownHeads()
        self._is_between = True
        """Whether the parser waits for a request's first byte."""
        self._loose_bytes = 0
        self._reset()
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Take received bytes. Does not raise; look at `ready`, `failure` and `upgrade` afterwards."""
        begun, held_bytes, is_between = self.begun, self.held_bytes, self._is_between
        if is_between and (known := self._known_heads.request(data)) is not None:
            self.begun += 1
            self.ready.append(known)
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            if self.failure is None:
                self.failure = HttpFailure(HTTPStatus.BAD_REQUEST, f"not HTTP/1.1: {error}")
        else:
            self._check_loose(begun, len(data) + held_bytes - self.held_bytes)
            if is_between and self._is_between and self.begun == begun + 1:
                request = self.ready[-1]
                if request is not None:
                    self._known_heads.learn(data, request)

    def _check_loose(self, begun: int, loose_bytes: int) -> None:
        """Bound what is no body and reaches no callback: a header or trailer line that never ends."""
        if self.phase is Phase.IDLE or begun != self.begun:
            self._loose_bytes = 0
            return
        self._loose_bytes += loose_bytes
        if self.phase is Phase.HEADER and self._loose_bytes > self._max_header_bytes:
            self.failure = self._header_too_large()
        elif self._loose_bytes > self._max_header_bytes + self._max_body_bytes:
            self.failure = self._body_too_large()

    def _header_too_large(self) -> HttpFailure:
        status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        return HttpFailure(status, f"the limit is {self._max_header_bytes} bytes")

    def _body_too_large(self) -> HttpFailure:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        return HttpFailure(status, f"the limit is {self._max_body_bytes} bytes")

    def _upgraded(self, rest: bytes) -> None:
        request = self._finished(b"")
        if request.headers.get(b"upgrade", b"").lower() == b"websocket" and request.method == b"GET":
            self.upgrade = (request, rest)
            return
        if request.method == b"CONNECT":
            self.failure = HttpFailure(HTTPStatus.METHOD_NOT_ALLOWED, "this is not a proxy")
            return
        self._parser = httptools.HttpRequestParser(self)
        lines = [b"%b %b HTTP/1.1" % (request.method, request.target)]
        hop_by_hop = (b"upgrade", b"connection", b"http2-settings")
        lines += [b"%b: %b" % item for item in request.headers.items() if item[0] not in hop_by_hop]
        self.feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._body: bytes | bytearray = b""

    def _fail(self, failure: HttpFailure) -> None:
        self.failure = failure
        raise _Stop

    # Called by httptools.

    def on_message_begin(self) -> None:
        self._reset()
        self._is_between = False
        self.phase = Phase.HEADER
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._header_bytes += len(url)
        if self._header_bytes > self._max_header_bytes:
            self._fail(self._header_too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self._max_header_bytes:
            self._fail(self._header_too_large())
        headers, name = self._headers, name.lower()
        headers[name] = headers[name] + b", " + value if name in headers else value

    def on_headers_complete(self) -> None:
        self.phase = Phase.BODY
        headers = self._headers
        if b"content-length" in headers and int(headers[b"content-length"]) > self._max_body_bytes:
            self._fail(self._body_too_large())
        if b"expect" in headers:
            if headers[b"expect"].lower() != b"100-continue":
                self._fail(HttpFailure(HTTPStatus.EXPECTATION_FAILED, "only 100-continue is supported"))
            self.ready.append(None)

    def on_body(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._max_body_bytes:
            self._fail(self._body_too_large())
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        self.held_bytes = len(self._body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        self.ready.append(self._finished(bytes(self._body)))

    def _finished(self, body: bytes) -> HttpRequest:
        self.phase = Phase.IDLE
        self.held_bytes = 0
        headers = self._headers
        keep_alive = self._parser.should_keep_alive()
        if keep_alive and b"connection" in headers and self._parser.get_http_version() == "1.0":
            keep_alive = False
        self._is_between = keep_alive
        return HttpRequest(self._parser.get_method(), self._target, headers, body, keep_alive)


class Answers:
    """Builds HTTP answers; the head of the common one is kept ready.

    `allowed_origins` holds the web origins that pages may call from; `*` allows every page.
    """

    def __init__(self, allowed_origins: frozenset[str]) -> None:
        self._any_origin = "*" in allowed_origins
        self._origins = frozenset(origin.encode() for origin in allowed_origins)
        self.set_time(0)

    def set_time(self, unix_s: int) -> None:
        """Renew the Date field."""
        date = formatdate(unix_s, usegmt=True).encode()
        common = b"\r\nDate: %b\r\n" % date
        if self._any_origin:
            common += b"Access-Control-Allow-Origin: *\r\n"
        self._common = common
        self._rpc_head = b"HTTP/1.1 200 OK%bContent-Type: %b\r\n" % (common, JSON_TYPE)

    def origin_allowed(self, request: HttpRequest) -> bool:
        """Whether a page of the request's origin may call; always, when it names none."""
        origin = request.headers.get(b"origin")
        return origin is None or self._any_origin or origin in self._origins

    def origin_field(self, request: HttpRequest) -> bytes:
        """The CORS field this request's answer needs beside the common ones."""
        origin = request.headers.get(b"origin")
        if origin is None or self._any_origin or origin not in self._origins:
            return b""
        return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n" % origin

    def rpc(self, body: bytes, keep_alive: bool, extra: bytes) -> bytes:
        """The answer to a JSON-RPC message; 204 when the body is empty. `extra`: whole header fields."""
        if not keep_alive:
            extra += b"Connection: close\r\n"
        if not body:
            return b"HTTP/1.1 204 No Content%b%b\r\n" % (self._common, extra)
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._rpc_head, extra, len(body), body)

    def page(
        self,
        status: HTTPStatus,
        body: bytes,
        content_type: bytes = JSON_TYPE,
        *,
        extra: bytes = b"",
        keep_alive: bool = True,
        with_body: bool = True,
    ) -> bytes:
        """Any other answer. `with_body=False` answers HEAD."""
        if not keep_alive:
            extra += b"Connection: close\r\n"
        head = b"HTTP/1.1 %d %b%bContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n" % (
            status,
            status.phrase.encode(),
            self._common,
            content_type,
            extra,
            len(body),
        )
        return head + body if with_body else head

    def error(
        self, status: HTTPStatus, message: str, *, extra: bytes = b"", keep_alive: bool = True
    ) -> bytes:
        """An error with a JSON body."""
        return self.page(status, error_body(status, message), extra=extra, keep_alive=keep_alive)

    def preflight(self, request: HttpRequest) -> bytes:
        """The answer to OPTIONS."""
        extra = self.origin_field(request) + (
            b"Allow: GET, HEAD, POST, OPTIONS\r\n"
            b"Access-Control-Allow-Methods: GET, POST, OPTIONS\r\n"
            b"Access-Control-Allow-Headers: content-type\r\n"
            b"Access-Control-Max-Age: 86400\r\n"
        )
        return self.rpc(b"", request.keep_alive, extra)


def error_body(status: HTTPStatus, message: str, more: Mapping[str, object] | None = None) -> bytes:
    """The JSON body of an HTTP error."""
    error = {"status": int(status), "title": status.phrase, "message": message, **(more or {})}
    return msgspec.json.encode({"error": error})


def is_json_type(content_type: bytes | None) -> bool:
    """Whether a JSON-RPC body may be sent under this Content-Type; none at all is let pass."""
    if content_type is None or content_type == JSON_TYPE:
        return True
    media = content_type.partition(b";")[0].strip().lower()
    return media in (JSON_TYPE, b"application/json-rpc", b"application/jsonrequest")
