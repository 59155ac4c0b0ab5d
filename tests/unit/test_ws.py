"""WebSockets over real loopback sockets, with the websockets library's own client (iWS_...)."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.trio.client import ClientConnection, connect

from sequencer.errors import ErrorCode
from sequencer.feed import FeedLimits
from sequencer.server_limits import ServerLimits
from tests.unit.server_fixture import Client, Harness, call, running

SEED = 99_2024
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)


@asynccontextmanager
async def opened(node: Harness, path: str = "/ws", **options: Any) -> AsyncIterator[ClientConnection]:
    uri = f"ws://127.0.0.1:{node.port}{path}"
    async with connect(uri, ping_interval=None, **options) as ws:
        yield ws


async def ask(ws: ClientConnection, method: str, params: Any = None, request_id: Any = 1) -> Any:
    await ws.send(call(method, params, request_id).decode())
    return json.loads(await ws.recv())


async def raw(node: Harness, rest: bytes = b"") -> Client:
    """A client that has shaken hands and writes frames by hand. `rest` is sent along with the handshake."""
    client = await node.connect()
    await client.send(HANDSHAKE % b"" + rest)
    received = b""
    while b"\r\n\r\n" not in received:
        received += await client.stream.receive_some(1)
    assert received.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in received
    return client


def masked(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


async def close_code(client: Client) -> int:
    """The code of the close frame the server sends, with nothing before it."""
    received = b""
    while data := await client.stream.receive_some():
        received += data
    assert received[0] == 0x88
    return int.from_bytes(received[2:4], "big")


async def test_calls_in_text_and_binary_on_every_rpc_path() -> None:
    async with running() as node:
        base = node.tasks()
        for path in ("/", "/rpc", "/ws", "/ws?key=1"):
            async with opened(node, path) as ws:
                assert ws.response is not None
                assert "Sec-WebSocket-Extensions" not in ws.response.headers
                assert (await ask(ws, "echo", ["é" * 100]))["result"] == "é" * 100
                await ws.send(call("echo", ["binary"]))
                assert json.loads(await ws.recv())["result"] == "binary"
                await ws.send("{nonsense")
                assert json.loads(await ws.recv())["error"]["code"] == -32700
        await node.until(lambda: node.tasks() == base)


async def test_answers_come_as_they_are_ready_and_batches_together() -> None:
    async with running() as node, opened(node) as ws:
        await ws.send(call("wait", None, 1).decode())
        assert (await ask(ws, "echo", ["first"], 2))["id"] == 2
        await ws.send("[" + ",".join(call("wait", None, n).decode() for n in range(3, 6)) + "]")
        await node.until(lambda: len(node.waiting) == 4)
        for deferred in node.waiting[1:]:
            deferred.resolve("x")
        assert [entry["id"] for entry in json.loads(await ws.recv())] == [3, 4, 5]
        node.waiting[0].resolve("x")
        assert json.loads(await ws.recv())["id"] == 1


async def test_fragments_pings_and_bytes_sent_with_the_handshake() -> None:
    text = call("echo", ["pieces"])
    async with running() as node:
        client = await raw(node, masked(Opcode.TEXT, text[:7], fin=False))
        async with client:
            await client.send(masked(Opcode.PING, b"there?"))
            assert await client.stream.receive_some() == b"\x8a\x06there?"
            for byte in text[7:]:
                await client.send(
                    masked(Opcode.CONT, bytes([byte]), fin=False) + masked(Opcode.CONT, b"", fin=False)
                )
            await client.send(masked(Opcode.CONT, b""))
            answer = await client.stream.receive_some()
            assert json.loads(answer[2:])["result"] == "pieces"


async def test_a_websocket_after_pipelined_http_waits_for_its_turn() -> None:
    async with running() as node, await node.connect() as client:
        body = call("wait")
        http = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        await client.send(http + HANDSHAKE % b"" + masked(Opcode.TEXT, call("echo", ["ws"])))
        await node.until(lambda: node.waiting)
        node.waiting[0].resolve("http")
        received = b""
        while b'"ws"' not in received:
            received += await client.stream.receive_some()
        assert received.index(b'"http"') < received.index(b"101 Switching") < received.index(b'"ws"')


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/nowhere", b"", 404),
        ("/ws", b"Origin: https://evil.example\r\n", 403),
        ("/ws", b"Sec-WebSocket-Key: second\r\n", 400),
    ],
)
async def test_handshakes_refused(path: str, headers: bytes, status: int) -> None:
    async with running(origins=frozenset({"https://good.example"})) as node, await node.connect() as client:
        await client.send((HANDSHAKE % headers).replace(b"/ws", path.encode()))
        answer = await client.answer()
        assert answer.status == status
        assert answer.json["error"]["status"] == status
        assert await client.closed()


async def test_origin_allowed() -> None:
    async with running(origins=frozenset({"https://good.example"})) as node:
        async with opened(node, origin="https://good.example") as ws:
            assert (await ask(ws, "echo", ["in"]))["result"] == "in"
        async with opened(node) as ws:
            assert (await ask(ws, "echo", ["no page"]))["result"] == "no page"
        with pytest.raises((InvalidStatus, ExceptionGroup)):
            async with opened(node, origin="https://evil.example"):
                pass


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x81\x05hello", 1002),
        (b"\xf1\x80\x00\x00\x00\x00", 1002),
        (masked(Opcode.CONT, b"x"), 1002),
        (masked(Opcode.TEXT, b"x" * 2001), 1009),
        (masked(Opcode.TEXT, b"x" * 1500, fin=False) + masked(Opcode.CONT, b"y" * 501), 1009),
        (b"\x81\xff" + b"\x7f" + b"\xff" * 7, 1009),
    ],
    ids=(
        "unmasked",
        "reserved bits",
        "nothing to continue",
        "too long",
        "too long in parts",
        "a length too far",
    ),
)
async def test_protocol_errors_close_with_a_code(sent: bytes, code: int) -> None:
    async with running(ServerLimits(max_body_bytes=2000)) as node:
        base = node.tasks()
        async with await raw(node) as client:
            await client.send(sent)
            assert await close_code(client) == code
        await node.until(lambda: node.tasks() == base)
        assert node.faults == []


async def test_garbage_and_resets_never_leak() -> None:
    rng = random.Random(SEED)
    async with running(ServerLimits(max_body_bytes=2000)) as node:
        base = node.tasks()
        good = masked(Opcode.TEXT, call("public/subscribe", {"channels": ["trades.X"]})) + masked(
            Opcode.TEXT, call("wait")
        )
        for _ in range(150):
            client = await raw(node)
            data = bytearray(good * 2)
            for _ in range(rng.randint(0, 3)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            await client.send(bytes(data[: rng.randint(1, len(data))]))
            if rng.random() < 0.5:
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await node.settle()
            node.feed.publish("trades.X", "x")
            await client.aclose()
        for deferred in node.waiting:
            deferred.resolve("nobody")
        await node.until(lambda: node.tasks() == base)
        assert node.feed.subscriber_count == 0
        assert node.server.app.dispatcher.in_flight == 0
        assert node.faults == []


async def test_subscriptions_end_to_end() -> None:
    """iWS_004: the answer first, then the snapshot, then what is published."""
    async with running() as node:
        async with opened(node) as ws:
            answer = await ask(ws, "public/subscribe", {"channels": ["book.X", "trades.X"]})
            tokens = answer["result"]["tokens"]
            assert answer["result"]["channels"] == ["book.X", "trades.X"]
            snapshot = json.loads(await ws.recv())
            assert snapshot["method"] == "subscription"
            assert snapshot["params"] == {
                "channel": "book.X",
                "seq": 0,
                "prev": None,
                "data": {"snapshot_of": "book.X"},
            }
            node.feed.publish("trades.X", {"price": 1})
            assert json.loads(await ws.recv())["params"]["data"] == {"price": 1}
            assert (await ask(ws, "public/unsubscribe", {"channels": ["book.X", "none"]}))["result"] == [
                "book.X"
            ]
            assert (await ask(ws, "public/subscribe", {"channels": ["nope"]}))["error"]["code"] == (
                ErrorCode.UNKNOWN_CHANNEL
            )
        await node.until(lambda: node.feed.subscriber_count == 0)
        node.feed.publish("trades.X", {"price": 2})
        node.feed.publish("trades.X", {"price": 3})
        async with opened(node) as ws:
            resume = {"trades.X": tokens["trades.X"]}
            await ask(ws, "public/subscribe", {"channels": ["trades.X"], "resume": resume})
            assert [json.loads(await ws.recv())["params"]["seq"] for _ in range(3)] == [1, 2, 3]


async def test_subscribing_over_http_is_refused() -> None:
    async with running() as node, await node.connect() as client:
        answer = await client.ask(call("public/subscribe", {"channels": ["trades.X"]}))
        assert answer.json["error"]["code"] == ErrorCode.NEED_WEBSOCKET


async def test_many_subscribers_get_everything() -> None:
    async with running() as node, contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(opened(node)) for _ in range(100)]
        for ws in sockets:
            await ask(ws, "public/subscribe", {"channels": ["trades.X"]})
        for n in range(200):
            node.feed.publish("trades.X", n)
        for ws in sockets:
            assert [json.loads(await ws.recv())["params"]["data"] for _ in range(200)] == list(range(200))


async def test_slow_subscriber_is_told_and_dropped() -> None:
    """iWS_002, and a quick one beside it is not disturbed"""
    limits = ServerLimits(ws_queue=50, close_timeout_s=0.5)
    async with running(limits, feed_limits=FeedLimits(ring_messages=10)) as node, opened(node) as quick:
        base = node.tasks()
        await ask(quick, "public/subscribe", {"channels": ["trades.X"]})
        client = await raw(node, masked(Opcode.TEXT, call("public/subscribe", {"channels": ["trades.X"]})))
        await node.until(lambda: node.feed.subscriber_count == 2)
        published = 0
        while node.feed.subscriber_count == 2:
            node.feed.publish("trades.X", "x" * 50_000)
            published += 1
            assert json.loads(await quick.recv())["params"]["seq"] == published
            assert published < 2000
        assert sum(connection.held_bytes() for connection in node.server.connections) < 200_000
        received = bytearray()
        while data := await client.stream.receive_some():
            received += data
        assert received.endswith(b"too slow: reconnect and resume")
        await client.aclose()
        await node.until(lambda: node.tasks() == base)


async def test_burst_larger_than_the_queue_reaches_a_quick_reader() -> None:
    async with running(ServerLimits(ws_queue=50)) as node, opened(node) as ws:
        await ask(ws, "public/subscribe", {"channels": ["trades.X"]})
        for n in range(500):
            node.feed.publish("trades.X", n)
        assert [json.loads(await ws.recv())["params"]["data"] for _ in range(500)] == list(range(500))


async def test_client_that_never_reads_its_answers(mock_clock: MockClock) -> None:
    async with running(ServerLimits(write_timeout_s=10)) as node:
        base = node.tasks()
        client = await raw(node)
        flood = masked(Opcode.TEXT, call("large", [200_000])) * 300
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, flood)
            await node.until(lambda: any(c.wire.queued_bytes for c in node.server.connections))
            await node.settle()
            assert sum(c.held_bytes() for c in node.server.connections) < 2_000_000
            nursery.cancel_scope.cancel()
        for _ in range(12):
            mock_clock.jump(1)
            await node.settle()
        await node.until(lambda: node.tasks() == base)
        await client.aclose()


async def test_too_many_waiting_calls_pause_reading() -> None:
    """iWS_001"""
    async with running(ServerLimits(max_pipelined=4)) as node, opened(node) as ws:
        for n in range(40):
            await ws.send(call("wait", None, n).decode())
        seen: set[int] = set()
        while len(seen) < 40:
            await node.until(lambda: node.waiting)
            await node.settle()
            assert len(node.waiting) <= 4
            ready, node.waiting[:] = node.waiting[:], []
            for deferred in ready:
                deferred.resolve("ok")
            for _ in ready:
                seen.add(json.loads(await ws.recv())["id"])
        assert seen == set(range(40))


async def test_pings_keep_the_living_and_drop_the_dead(mock_clock: MockClock) -> None:
    """iWS_003"""
    async with running(ServerLimits(idle_timeout_s=60)) as node, opened(node) as alive:
        await ask(alive, "echo", ["x"])
        dead = await raw(node)
        for _ in range(130):
            mock_clock.jump(1)
            await node.settle()
        await node.until(lambda: len(node.server.connections) == 1)
        received = bytearray()
        with contextlib.suppress(trio.BrokenResourceError):
            while data := await dead.stream.receive_some():
                received += data
        assert received.startswith(b"\x89\x00")
        assert (await ask(alive, "echo", ["still here"]))["result"] == "still here"
        await dead.aclose()


async def test_close_says_going_away_after_the_answers() -> None:
    async with running() as node, opened(node) as idle, opened(node) as waits:
        await waits.send(call("wait").decode())
        await node.until(lambda: node.waiting)
        node.server.close()
        with pytest.raises(ConnectionClosed) as caught:
            await idle.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
        node.waiting[0].resolve("sealed")
        assert json.loads(await waits.recv())["result"] == "sealed"
        with pytest.raises(ConnectionClosed):
            await waits.recv()


async def test_close_does_not_wait_for_a_dead_client(mock_clock: MockClock) -> None:
    async with running() as node:
        client = await raw(node)
        node.server.close()
        await node.settle()
        for _ in range(6):
            mock_clock.jump(1)
            await node.settle()
        await node.until(lambda: not node.server.connections)
        await client.aclose()
