"""The JSON-RPC client against a scripted server: results, errors, reconnects, and servers that misbehave."""

from collections.abc import AsyncIterator, Callable

import pytest
import trio

from sequencer.client import NodeClient, NodeError, NodeUnreachable

OK = b'{"jsonrpc":"2.0","id":1,"result":7}'


def http(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(body), extra, body)


class Script:
    """Answers each request with the next scripted bytes; None closes the connection instead."""

    def __init__(self, answers: list[bytes | None]) -> None:
        self.answers = answers
        self.connections = 0
        self.requests: list[bytes] = []

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        async with stream:
            while self.answers:
                data = await stream.receive_some()
                if not data:
                    return
                self.requests.append(bytes(data))
                answer = self.answers.pop(0)
                if answer is None:
                    return
                await stream.send_all(answer)


@pytest.fixture
async def serve(nursery: trio.Nursery) -> AsyncIterator[Callable[[Script], str]]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    def start(script: Script) -> str:
        nursery.start_soon(trio.serve_listeners, script.handle, listeners)
        return f"http://127.0.0.1:{port}"

    yield start
    nursery.cancel_scope.cancel()


async def test_calls_share_one_connection(serve: Callable[[Script], str]) -> None:
    script = Script([http(OK), http(OK)])
    async with NodeClient(serve(script)) as client:
        assert await client.call("a") == 7
        assert await client.call("b", {"x": 1}) == 7
    assert script.connections == 1
    assert b'"method":"b","params":{"x":1}' in script.requests[1]


async def test_an_error_keeps_its_code_and_data(serve: Callable[[Script], str]) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no such method","data":{"got":"a"}}}'
    async with NodeClient(serve(Script([http(body)]))) as client:
        with pytest.raises(NodeError) as caught:
            await client.call("a")
    assert (caught.value.code, caught.value.data) == (-32601, {"got": "a"})


async def test_arrays_are_matched_by_id(serve: Callable[[Script], str]) -> None:
    body = (
        b'[{"jsonrpc":"2.0","id":2,"error":{"code":1,"message":"m"}},{"jsonrpc":"2.0","id":1,"result":"one"}]'
    )
    async with NodeClient(serve(Script([http(body)]))) as client:
        first, second = await client.call_many([("a", []), ("b", [])])
    assert first == "one"
    assert isinstance(second, NodeError)


async def test_a_connection_closed_between_calls_is_reopened(serve: Callable[[Script], str]) -> None:
    script = Script([http(OK), None, http(OK)])
    async with NodeClient(serve(script)) as client:
        assert await client.call("a") == 7
        assert await client.call("a") == 7
    assert script.connections == 2


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "without an answer"),
        (b"not http at all\r\n\r\n", "does not speak HTTP"),
        (http(OK, b"Connection: close\r\n")[:-4], None),
        (http(b'{"x":1}'), "not JSON-RPC"),
    ],
)
async def test_a_server_that_misbehaves(
    serve: Callable[[Script], str], answer: bytes | None, says: str | None
) -> None:
    script = Script([answer])
    async with NodeClient(serve(script), timeout_s=0.3) as client:
        with pytest.raises(NodeUnreachable, match=says or "in its answer|did not answer"):
            await client.call("a")


async def test_nobody_listens() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    with pytest.raises(NodeUnreachable):
        await NodeClient(f"http://127.0.0.1:{port}").call("a")


@pytest.mark.parametrize("url", ["https://x:1", "127.0.0.1:1", "http://"])
def test_what_is_not_a_node_url(url: str) -> None:
    with pytest.raises(ValueError, match="expected http"):
        NodeClient(url)
