"""HTTP over real loopback sockets: what clients may rely on, and what they may not do (iHTTP, iWIRE)."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import socket
import struct

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from sequencer.errors import ErrorCode
from sequencer.http_protocol import KnownHeads, RequestReader
from sequencer.http_server import network_of
from sequencer.server_limits import ServerLimits
from tests.unit.server_fixture import Client, call, post, running, unread_socket

SEED = 20240607


def echo(text: str, request_id: object = 1) -> bytes:
    return call("echo", [text], request_id)


async def test_keep_alive_calls_and_errors() -> None:
    async with running() as node, await node.connect() as client:
        for n in range(3):
            answer = await client.ask(echo(f"hé{n}", n))
            assert answer.status == 200
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["access-control-allow-origin"] == "*"
            assert answer.headers["date"].endswith("GMT")
            assert "connection" not in answer.headers
            assert answer.json == {"jsonrpc": "2.0", "id": n, "result": f"hé{n}"}
        assert (await client.ask(b"{nonsense")).json["error"]["code"] == -32700
        assert (await client.ask(b'{"jsonrpc":"2.0","method":"echo","params":["x"]}')).status == 204
        assert (await client.ask(echo("still here"))).json["result"] == "still here"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /health?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (post(b"{}", "/nowhere"), 404),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"DELETE /rpc HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (post(b"{}", "/health"), 405),
        (post(b"{}", Content_Type="text/plain"), 415),
        (post(b"{}", Content_Type="application/x-www-form-urlencoded"), 415),
        (b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n", 500),
        (post(echo("x"), "/rpc", Content_Type="application/json; charset=utf-8"), 200),
    ],
)
async def test_routes_answer_and_keep_the_connection(request_bytes: bytes, status: int) -> None:
    async with running() as node, await node.connect() as client:
        await client.send(request_bytes)
        answer = await client.answer()
        assert answer.status == status
        assert isinstance(answer.json, dict)
        assert b"secret" not in answer.body
        assert (await client.ask(echo("next"))).json["result"] == "next"
        assert [where for _, where in node.faults] == (["/broken"] if status == 500 else [])


async def test_head_and_http_1_0() -> None:
    async with running() as node:
        async with await node.connect() as client:
            await client.send(b"HEAD /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            raw = b""
            while data := await client.stream.receive_some():
                raw += data
            assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"Content-Length: 11\r\n" in raw
            assert raw.endswith(b"\r\n\r\n")
        async with await node.connect() as client:
            await client.send(b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.closed()


async def test_cors() -> None:
    preflight = (
        b"OPTIONS /rpc HTTP/1.1\r\nHost: x\r\nOrigin: %b\r\nAccess-Control-Request-Method: POST\r\n\r\n"
    )
    async with running() as node, await node.connect() as client:
        await client.send(preflight % b"https://any.example")
        answer = await client.answer()
        assert answer.status == 204
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "content-type" in answer.headers["access-control-allow-headers"]
    async with running(origins=frozenset({"https://good.example"})) as node, await node.connect() as client:
        await client.send(preflight % b"https://good.example")
        assert (await client.answer()).headers["access-control-allow-origin"] == "https://good.example"
        await client.send(preflight % b"https://evil.example")
        assert "access-control-allow-origin" not in (await client.answer()).headers
        good = await client.ask(echo("a"), Origin="https://good.example")
        assert (good.status, good.headers["vary"]) == (200, "Origin")
        assert (await client.ask(echo("a"), Origin="https://evil.example")).status == 403
        assert (await client.ask(echo("a"))).status == 200


async def test_pipelined_answers_keep_order_while_handlers_do_not() -> None:
    """iHTTP_010"""
    async with running() as node, await node.connect() as client:
        await client.send(
            post(call("wait", [], 1))
            + post(echo("b", 2))
            + post(call("wait", [], 3))
            + b"GET /health HTTP/1.1\r\n\r\n"
        )
        await node.until(lambda: len(node.waiting) == 2)
        node.waiting[1].resolve("c")
        await node.settle()
        assert not client.answers
        node.waiting[0].resolve("a")
        ids = [(await client.answer()).json.get("id") for _ in range(4)]
        assert ids == [1, 2, 3, None]


async def test_a_waiting_call_stops_nobody_else() -> None:
    async with running() as node, await node.connect() as slow, await node.connect() as quick:
        await slow.send(post(call("wait")))
        await node.until(lambda: node.waiting)
        assert (await quick.ask(echo("quick"))).json["result"] == "quick"
        node.waiting[0].resolve("slow")
        assert (await slow.answer()).json["result"] == "slow"


async def test_batch_entries_wait_together() -> None:
    async with running() as node, await node.connect() as client:
        body = b"[" + b",".join(call("wait", None, n) for n in range(50)) + b"]"
        await client.send(post(body))
        await node.until(lambda: len(node.waiting) == 50)
        for deferred in reversed(node.waiting):
            deferred.resolve("sealed")
        assert [entry["id"] for entry in (await client.answer()).json] == list(range(50))


async def test_coroutine_handlers_run_and_end_with_their_client(mock_clock: MockClock) -> None:
    """iHTTP_012"""
    async with running() as node:
        base = node.tasks()
        async with await node.connect() as client:
            await client.send(post(call("sleep", ["3"], 1)) + post(call("sleep", ["2"], 2)))
            await node.settle()
            mock_clock.jump(4)
            assert [(await client.answer()).json["id"] for _ in range(2)] == [1, 2]
            await client.send(post(call("sleep", ["60"], 1)))
            await node.settle()
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await node.until(lambda: node.tasks() == base)
        assert node.cancelled == ["60"]
        assert node.server.app.dispatcher.in_flight == 0


async def test_half_closed_client_still_gets_its_answer() -> None:
    async with running() as node, await node.connect() as client:
        await client.send(post(call("wait")))
        await client.stream.send_eof()
        await node.until(lambda: node.waiting)
        await node.settle()
        node.waiting[0].resolve("late")
        assert (await client.answer()).json["result"] == "late"
        assert await client.closed()


async def test_body_in_every_kind_of_pieces() -> None:
    rng = random.Random(SEED)
    async with running() as node, await node.connect() as client:
        await client.send(b"".join(post(echo("x" * n, n)) for n in (0, 1, 500, 70_000)))
        for n in (0, 1, 500, 70_000):
            assert len((await client.answer()).json["result"]) == n
        stream = b"".join(post(echo(f"{n}", n)) for n in range(20))
        while stream:
            size = rng.randint(1, 40)
            await client.send(stream[:size])
            stream = stream[size:]
            await trio.lowlevel.checkpoint()
        assert [(await client.answer()).json["id"] for _ in range(20)] == list(range(20))
        body = echo("chunked", 9)
        chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (1, body[i : i + 1]) for i in range(len(body)))
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head + chunks + b"0\r\nTrailer: t\r\n\r\n")
        assert (await client.answer()).json["id"] == 9


async def test_expect_continue() -> None:
    async with running() as node, await node.connect() as client:
        body = echo("big")
        request = post(body, Expect="100-continue")
        head = request[: -len(body)]
        await client.send(head)
        received = b""
        while b"\r\n\r\n" not in received:
            received += await client.stream.receive_some()
        assert received == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.answer()).json["result"] == "big"
        await client.send(post(body, Expect="a-miracle"))
        assert (await client.answer()).status == 417


async def test_upgrade_to_something_else_is_ignored() -> None:
    """iHTTP_003: what some HTTP clients send first by default."""
    async with running() as node, await node.connect() as client:
        fields = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2_Settings": "AAMAAABk"}
        answer = await client.ask(echo("one point one"), **fields)
        assert answer.json["result"] == "one point one"
        assert (await client.ask(echo("again"))).json["result"] == "again"


LIMITS = ServerLimits(
    max_body_bytes=2000,
    max_header_bytes=2048,
    max_answer_bytes=100_000,
    max_pipelined=4,
    header_timeout_s=10,
    body_timeout_s=20,
    idle_timeout_s=60,
    write_timeout_s=10,
)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 300, 400),
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n", 405),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 200_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"Y" * 200_000, 431),
        (post(b"x" * 2001), 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 100000000000\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n%b\r\n" % (b"z" * 1024) * 50,
            413,
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"T" * 200_000, 413),
    ],
)
async def test_bad_streams_are_answered_and_closed(sent: bytes, status: int) -> None:
    """iHTTP_001, iHTTP_002, in one piece and trickling; requests before the bad one are answered."""
    async with running(LIMITS) as node:
        base = node.tasks()
        for piece in (len(sent), 1500):
            async with await node.connect() as client:
                await client.send(post(echo("before")))
                assert (await client.answer()).json["result"] == "before"
                try:
                    for start in range(0, len(sent), piece):
                        await client.send(sent[start : start + piece])
                except trio.BrokenResourceError:
                    pass
                answer = await client.answer()
                assert answer.status == status
                assert answer.headers["connection"] == "close"
                assert answer.json["error"]["status"] == status
                assert await client.closed()
        await node.until(lambda: node.tasks() == base)
        assert node.faults == []


async def test_garbage_never_kills_the_server() -> None:
    """iHTTP_002"""
    rng = random.Random(SEED)
    good = post(echo("x"))
    async with running(LIMITS) as node:
        base = node.tasks()
        for _ in range(150):
            async with await node.connect() as client:
                data = bytearray(good * 3)
                for _ in range(rng.randint(1, 8)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                await client.send(bytes(data))
                await client.stream.send_eof()
                while True:
                    try:
                        await client.answer()
                    except (EOFError, trio.BrokenResourceError):
                        break
        async with await node.connect() as client:
            assert (await client.ask(echo("alive"))).json["result"] == "alive"
        await node.until(lambda: node.tasks() == base)
        assert node.faults == []


async def test_silent_and_slow_clients_by_the_hundred(mock_clock: MockClock) -> None:
    """iHTTP_013, iHTTP_012"""
    partial_header, partial_body = b"POST / HTTP/1.1\r\nX: ", post(echo("x"))[:-5]
    async with running(LIMITS) as node:
        base = node.tasks()
        clients = [await node.connect() for _ in range(300)]
        for n, client in enumerate(clients):
            await client.send((b"", partial_header, partial_body)[n % 3])
        await node.until(lambda: len(node.server.connections) == 300)
        await node.settle()
        async with await node.connect() as other:
            assert (await other.ask(echo("served"))).json["result"] == "served"
        for step in range(16):
            mock_clock.jump(1)
            await node.settle()
            if step < 8:
                for client in clients[1::3]:
                    await client.send(b"T"[: step % 2])
        await node.until(lambda: len(node.server.connections) == 100)
        for _ in range(8):
            mock_clock.jump(1)
            await node.settle()
        for client in clients[0::3]:
            assert await client.closed()
        for client in clients[1::3] + clients[2::3]:
            assert (await client.answer()).status == 408
        for client in clients:
            await client.aclose()
        await node.until(lambda: node.tasks() == base)


async def test_idle_keep_alive_ends_silently_but_not_while_waiting(mock_clock: MockClock) -> None:
    async with running(LIMITS) as node, await node.connect() as idle, await node.connect() as waits:
        await idle.ask(echo("x"))
        await waits.send(post(call("wait")))
        await node.until(lambda: node.waiting)
        for _ in range(3):
            mock_clock.jump(61)
            await node.settle()
        assert await idle.closed()
        node.waiting[0].resolve("patience")
        assert (await waits.answer()).json["result"] == "patience"
        assert (await waits.ask(echo("and on"))).json["result"] == "and on"


async def test_disconnecting_clients_by_the_hundred() -> None:
    """iHTTP_012: resets in every phase, also with answers outstanding."""
    rng = random.Random(SEED)
    request = post(call("wait")) + post(echo("x")) + post(call("large", [100_000 - 100]))
    async with running(LIMITS) as node:
        base = node.tasks()
        for _ in range(200):
            client = await node.connect()
            await client.send(request[: rng.randint(0, len(request))])
            if rng.random() < 0.5:
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await client.aclose()
        await node.settle()
        for deferred in node.waiting:
            deferred.resolve("nobody is there")
        await node.until(lambda: node.tasks() == base)
        assert node.server.app.dispatcher.in_flight == 0
        assert node.faults == []


async def test_client_that_never_reads_is_bounded_and_dropped(mock_clock: MockClock) -> None:
    """iHTTP_011, iWIRE_002"""
    async with running(LIMITS) as node:
        base = node.tasks()
        sock = unread_socket(node.port)
        sock.setblocking(False)
        flood = post(call("large", [90_000])) * 200_000
        sent = 0
        for _ in range(300):
            with contextlib.suppress(BlockingIOError):
                sent += sock.send(flood[sent:])
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert sent < len(flood)
        (connection,) = node.server.connections
        assert connection.held_bytes() < 1_000_000
        async with await node.connect() as other:
            assert (await other.ask(echo("served"))).json["result"] == "served"
        for _ in range(3):
            mock_clock.jump(6)
            await node.settle()
        await node.until(lambda: node.tasks() == base)
        sock.close()


async def test_slow_reader_gets_everything_in_order() -> None:
    """iWIRE_001"""
    async with running(LIMITS) as node:
        sock = trio.socket.from_stdlib_socket(unread_socket(node.port))
        async with Client(trio.SocketStream(sock)) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, b"".join(post(call("large", [50_000], n)) for n in range(60)))
                ids = [(await client.answer()).json["id"] for _ in range(60)]
            assert ids == list(range(60))


async def test_pipelined_flood_waits_instead_of_growing() -> None:
    """iHTTP_011"""
    async with running(LIMITS) as node, await node.connect() as client, trio.open_nursery() as nursery:
        nursery.start_soon(client.send, b"".join(post(call("wait", None, n)) for n in range(300)))
        answered = 0
        while answered < 300:
            await node.until(lambda: node.waiting)
            await node.settle()
            assert len(node.waiting) <= LIMITS.max_pipelined
            ready, node.waiting[:] = node.waiting[:], []
            for deferred in ready:
                deferred.resolve("ok")
            for _ in ready:
                assert (await client.answer()).json["id"] == answered
                answered += 1


async def test_long_pipelines_are_served_in_turns_to_the_end() -> None:
    """iHTTP_010, also when the client says that it will send no more; others get their turn between."""
    async with running(LIMITS) as node, await node.connect() as client, await node.connect() as other:
        await client.send(b"".join(post(echo("x", n)) for n in range(1000)))
        await client.stream.send_eof()
        assert (await other.ask(echo("between"))).json["result"] == "between"
        assert [(await client.answer()).json["id"] for _ in range(1000)] == list(range(1000))
        assert await client.closed()


async def test_too_many_connections_are_refused() -> None:
    """iHTTP_020"""
    async with running(ServerLimits(max_connections=5, max_connections_per_ip=3)) as node:
        kept = [await node.connect() for _ in range(3)]
        await node.until(lambda: len(node.server.connections) == 3)
        async with await node.connect() as fourth:
            answer = await fourth.answer()
            assert (answer.status, answer.headers["retry-after"]) == (429, "1")
            assert await fourth.closed()
        await kept.pop().aclose()
        await node.until(lambda: len(node.server.connections) == 2)
        async with await node.connect() as again:
            assert (await again.ask(echo("in"))).status == 200
        for client in kept:
            await client.aclose()
    async with running(ServerLimits(max_connections=2, max_connections_per_ip=2)) as node:
        kept = [await node.connect() for _ in range(2)]
        await node.until(lambda: len(node.server.connections) == 2)
        async with await node.connect() as third:
            assert (await third.answer()).status == 503
        assert node.server.refused == 1
        for client in kept:
            await client.aclose()


async def test_memory_held_by_all_clients_is_shed(mock_clock: MockClock) -> None:
    """iHTTP_022"""
    limits = ServerLimits(max_body_bytes=100_000, max_answer_bytes=100_000, max_buffered_bytes=300_000)
    async with running(limits) as node:
        clients = [await node.connect() for _ in range(10)]
        for client in clients:
            await client.send(post(b"x" * 100_000)[:-10])
        await node.until(lambda: sum(c.held_bytes() for c in node.server.connections) > 900_000)
        mock_clock.jump(1.1)
        await node.until(lambda: len(node.server.connections) <= 3)
        assert node.server.shed >= 7
        for client in clients:
            await client.aclose()


async def test_busy_beyond_max_in_flight() -> None:
    async with running(ServerLimits(max_in_flight=3, max_batch=3)) as node, await node.connect() as client:
        for n in range(4):
            await client.send(post(call("wait", None, n)))
        await node.until(lambda: len(node.waiting) == 3)
        await node.settle()
        for deferred in node.waiting:
            deferred.resolve("ok")
        answers = [(await client.answer()).json for _ in range(4)]
        assert [entry.get("result") for entry in answers] == ["ok"] * 3 + [None]
        assert answers[3]["error"]["code"] == ErrorCode.BUSY


async def test_oversized_batch_and_deep_nesting_over_http() -> None:
    async with running() as node, await node.connect() as client:
        big = await client.ask(b"[" + b",".join([echo("x")] * 1000) + b"]")
        assert big.json["error"]["data"] == {"code": "INVALID_REQUEST", "limit": 100, "got": 1000}
        for bad in (
            b"[" * 500_000,
            b'{"a":' * 100_000,
            b"\xff" * 1000,
            b'{"jsonrpc":"2.0","id":1,"method":"\xc3\x28"}',
        ):
            assert (await client.ask(bad)).json["error"]["code"] == -32700
        assert (await client.ask(echo("fine"))).json["result"] == "fine"


async def test_close_lets_answers_out_then_ends(mock_clock: MockClock) -> None:
    """iHTTP_021: in-flight answers leave, idle clients are closed, nobody new gets in."""
    async with running() as node, await node.connect() as idle, await node.connect() as waits:
        await idle.ask(echo("x"))
        await waits.send(post(call("wait")))
        await node.until(lambda: node.waiting)
        node.server.close()
        assert await idle.closed()
        await node.settle()
        with pytest.raises(OSError, match="connect"):
            await node.connect()
        node.waiting[0].resolve("sealed")
        answer = await waits.answer()
        assert answer.json["result"] == "sealed"
        assert await waits.closed()


async def test_close_is_bounded(mock_clock: MockClock) -> None:
    """iHTTP_021"""
    async with running() as node, await node.connect() as waits:
        await waits.send(post(call("wait")))
        await node.until(lambda: node.waiting)
        node.server.close()
        await node.settle()
        mock_clock.jump(5.1)
        assert await waits.closed()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_body_bytes": 0}, "max_body_bytes"),
        ({"max_batch": 1.5}, "max_batch"),
        ({"max_batch": True}, "max_batch"),
        ({"idle_timeout_s": float("inf")}, "idle_timeout_s"),
        ({"idle_timeout_s": float("nan")}, "idle_timeout_s"),
        ({"header_timeout_s": -1}, "header_timeout_s"),
        ({"max_connections_per_ip": 5000}, "max_connections_per_ip"),
        ({"max_header_bytes": 100}, "max_header_bytes"),
        ({"max_buffered_bytes": 1000}, "max_buffered_bytes"),
        ({"max_in_flight": 10}, "max_batch"),
    ],
)
def test_limits_are_validated(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServerLimits(**change)  # type: ignore[arg-type]


def test_networks() -> None:
    assert network_of("192.0.2.7") == "192.0.2.7"
    assert network_of("::ffff:192.0.2.7") == "192.0.2.7"
    assert network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::1") == "2001:db8:1:2::/64"
    assert network_of("fe80::1%eth0") == "fe80::/64"


def test_json_helper_is_what_clients_send() -> None:
    assert json.loads(echo("x")) == {"jsonrpc": "2.0", "id": 1, "method": "echo", "params": ["x"]}


def test_known_heads_change_nothing_but_the_work() -> None:
    """iHTTP_004: whatever heads are known, the same requests are read, however the bytes are cut."""
    known = KnownHeads()
    plain, pair = post(b'{"a":1}'), post(b'{"b":2}') + post(b"{}")
    special = [
        post(b"{}", Connection="close"),
        post(b"{}", Expect="100-continue"),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
    ]
    rng = random.Random(SEED)
    for _ in range(300):
        data = b"".join(rng.choice([plain, plain, pair, *special[1:]]) for _ in range(rng.randint(1, 4)))
        data += rng.choice([b"", special[0], b"\r\n" + plain, b"garbage\r\n\r\n"])
        cuts = sorted(rng.randrange(len(data)) for _ in range(rng.choice([0, 0, 1, 3])))
        pieces = [data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)])] + [plain]
        found = []
        for heads in (known, KnownHeads()):
            reader = RequestReader(4096, 4096, heads)
            for piece in pieces:
                if reader.failure is None:
                    reader.feed(piece)
            requests = [
                each and (each.method, each.target, each.headers, each.body, each.keep_alive)
                for each in reader.ready
            ]
            found.append((requests, reader.failure, reader.phase, reader.begun, reader.held_bytes))
        assert found[0] == found[1]
    assert known.request(plain) is not None
    for each in (plain + b" ", plain[:-1], post(b'{"a":1}', Host="y"), *special):
        assert known.request(each) is None


def test_known_heads_are_bounded() -> None:
    known = KnownHeads()
    reader = RequestReader(4096, 4096, known)
    for number in range(3 * KnownHeads.MAX_HEADS):
        reader.feed(post(b"{}", f"/{number}"))
    assert known.request(post(b"{}", f"/{number}")) is not None
    assert known.request(post(b"{}", "/0")) is None
    reader.feed(post(b"{}", "/long", X_Long="x" * KnownHeads.MAX_HEAD_BYTES))
    assert known.request(post(b"{}", "/long", X_Long="x" * KnownHeads.MAX_HEAD_BYTES)) is None
    assert len(reader.ready) == 3 * KnownHeads.MAX_HEADS + 1
