"""The GET of oracle sources against servers that misbehave: bounded in time and size, errors in words."""

import pytest
import trio
from trio.testing import MockClock

from sequencer.http_get import FetchError, check_url, get
from tests.http_script import (
    Behaviour,
    answer,
    floods,
    floods_the_head,
    scripted_server,
    sends,
    stalls_after,
)


async def fetch(behave: Behaviour, max_bytes: int = 1_000_000) -> bytes:
    async with scripted_server() as server:
        server.paths["/x?key=secret"] = behave
        try:
            return await get(server.base + "/x?key=secret", 5, max_bytes)
        except FetchError as error:
            failure = error
    raise failure


@pytest.mark.parametrize(
    "raw",
    [
        answer(b"body"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nbody",
        answer(b"body", head=b"Content-Encoding: identity\r\n"),
    ],
)
async def test_bodies_of_every_framing_are_read(raw: bytes) -> None:
    assert await fetch(sends(raw), max_bytes=4) == b"body"


async def test_the_request_says_what_is_wanted() -> None:
    async with scripted_server() as server:
        server.paths["/a/b?c=d"] = sends(answer(b"{}"))
        await get(server.base + "/a/b?c=d", 5, 100)
        assert server.requests[0].startswith(b"GET /a/b?c=d HTTP/1.1\r\nHost: 127.0.0.1:")
        assert b"Accept-Encoding: identity\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (answer(b"no such market", "404 Not Found"), "status 404: 'no such market'"),
        (answer(b"", "500 Internal Server Error"), "status 500"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (answer(b"", "302 Found", b"Location: http://elsewhere/\r\n"), "moved to 'http://elsewhere/'"),
        (answer(b"body", head=b"Content-Encoding: gzip\r\n"), "content encoding 'gzip'"),
        (answer(b"body")[:-1], "closed in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closed in the middle"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n", "closed in the middle"),
        (b"", "closed without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"\0" * 100, "not HTTP"),
        (answer(b"x" * 1_000_001), "more than 1000000 bytes"),
    ],
)
async def test_other_answers_are_errors_in_words(raw: bytes, said: str) -> None:
    with pytest.raises(FetchError) as caught:
        await fetch(sends(raw))
    assert said in str(caught.value)
    assert "/x: " in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("behave", [floods, floods_the_head])
async def test_a_flood_is_cut_off(behave: Behaviour) -> None:
    with pytest.raises(FetchError, match=r"more than 1000000 bytes|not HTTP"):
        await fetch(behave)


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", answer(b"body")[:-1]])
async def test_a_slow_server_is_left(start: bytes, mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0.02
    before = trio.current_time()
    with pytest.raises(FetchError, match="no whole answer within 5 s"):
        await fetch(stalls_after(start))
    assert trio.current_time() - before == pytest.approx(5, abs=0.5)


async def test_nobody_there() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(FetchError, match="refused"):
        await get(f"http://127.0.0.1:{port}/", 5, 100)


async def test_tls_to_a_server_without_it() -> None:
    async with scripted_server() as server:
        with pytest.raises(FetchError, match=r"^https://127.0.0.1:\d+/: "):
            await get(server.base.replace("http", "https") + "/", 5, 100)


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://host/", "http://", "http:///path", "host/path", "http://user:word@host/", "http://h/#x"),
        *("http://h:99999/", "http://h:x/", "http://h/a b", "http://h/\n", "http://" + "a" * 70 + "/"),
    ],
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|[Pp]ort|label") as caught:
        check_url(url)
    assert "word" not in str(caught.value)
