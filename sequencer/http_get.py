"""One HTTP GET on trio, for sources that may be slow, wrong or hostile: bounded in time and size.

A connection of its own for each request, closed afterwards. http and https (certificates checked); no
redirects, no compression: a feed's address is configured exactly, and an answer that differs from what was
agreed is an error with a text, never a guess. Errors name the host and the path but not the query, since
queries may hold keys.
"""

from __future__ import annotations

import functools
import ssl
from urllib.parse import SplitResult, urlsplit

import httptools
import trio

MAX_HEAD_BYTES = 65_536
RECEIVE_BYTES = 65_536


class FetchError(Exception):
    """No usable answer; the message says what happened."""


class _Answer:
    """Collects one HTTP response; httptools calls the `on_` methods."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.body = bytearray()
        self.body_bytes = 0
        self.has_head = False
        self.complete = False
        self.delimited = False
        """By a length or by chunks; otherwise the end of the connection ends the body."""
        self.encoding = b""
        self.location = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        lowered = name.lower()
        if lowered in (b"content-length", b"transfer-encoding"):
            self.delimited = True
        elif lowered == b"content-encoding":
            self.encoding = value.strip().lower()
        elif lowered == b"location":
            self.location = value

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, data: bytes) -> None:
        self.body_bytes += len(data)
        if self.body_bytes <= self.max_bytes:
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def check_url(url: str) -> SplitResult:
    """Raises ValueError unless it is an http or https URL with a host and without user or fragment."""
    parts = urlsplit(url)
    plain = parts.username is None and parts.password is None and not parts.fragment
    printable = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or not printable:
        raise ValueError(f"URL {place(parts)!r}: expected http://host[:port]/path[?query] or https://...")
    _ = parts.port, parts.hostname.encode("idna")  # each raises ValueError for what cannot be one
    return parts


def place(parts: SplitResult) -> str:
    """The URL for messages: without query and user."""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def get(url: str, timeout_s: float, max_bytes: int) -> bytes:
    """The body of a 200 answer. Raises FetchError for all else; ValueError for a URL that is none."""
    parts = check_url(url)
    try:
        with trio.fail_after(timeout_s):
            return await _get(parts, max_bytes)
    except trio.TooSlowError:
        what = f"no whole answer within {timeout_s:g} s"
    except httptools.HttpParserError as error:
        what = f"not HTTP: {error}"
    except (OSError, trio.BrokenResourceError) as error:
        what = str(_cause(error))
    except FetchError as error:
        what = str(error)
    raise FetchError(f"{place(parts)}: {what}")


def _cause(error: Exception) -> BaseException:
    """What the system or TLS said, below trio's own error."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else error


@functools.cache
def _tls() -> ssl.SSLContext:
    """Made once: it reads all the system's certificates."""
    return ssl.create_default_context()


async def _get(parts: SplitResult, max_bytes: int) -> bytes:
    assert parts.hostname is not None
    secure = parts.scheme == "https"
    stream: trio.abc.Stream = await trio.open_tcp_stream(
        parts.hostname, parts.port or (443 if secure else 80)
    )
    if secure:
        stream = trio.SSLStream(stream, _tls(), server_hostname=parts.hostname, https_compatible=True)
    try:
        await stream.send_all(_request(parts))
        return await _receive(stream, max_bytes)
    finally:
        await trio.aclose_forcefully(stream)


def _request(parts: SplitResult) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Accept: application/json",
        "Accept-Encoding: identity",
        "User-Agent: straddle",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _receive(stream: trio.abc.Stream, max_bytes: int) -> bytes:
    answer = _Answer(max_bytes)
    parser = httptools.HttpResponseParser(answer)
    received = 0
    while not answer.complete:
        data = await stream.receive_some(RECEIVE_BYTES)
        if not data:
            break
        received += len(data)
        parser.feed_data(data)
        if max(answer.body_bytes, received - MAX_HEAD_BYTES) > max_bytes:
            raise FetchError(f"answer of more than {max_bytes} bytes")
    if not received:
        raise FetchError("the connection was closed without an answer")
    if not answer.has_head or (answer.delimited and not answer.complete):
        raise FetchError("the connection was closed in the middle of the answer")
    _check_status(parser.get_status_code(), answer)
    return bytes(answer.body)


def _check_status(status: int, answer: _Answer) -> None:
    if 300 <= status < 400 and answer.location:
        raise FetchError(f"status {status}: moved to {answer.location[:200].decode('latin-1')!r}")
    if status != 200:
        start = bytes(answer.body[:100]).decode("utf-8", "replace")
        raise FetchError(f"status {status}" + (f": {start!r}" if start else ""))
    if answer.encoding not in (b"", b"identity"):
        raise FetchError(f"content encoding {answer.encoding.decode('latin-1')!r} was not asked for")
