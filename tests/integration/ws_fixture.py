"""A WebSocket of a node: calls, and what its channels tell, checked to be numbered without gaps."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from websockets.trio.client import ClientConnection, connect

from sequencer.client import NodeError
from tests.integration.node_fixture import Running

PATIENCE_S = 20


class Socket:
    """One connection; used by one task."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._told: defaultdict[str, deque[Any]] = defaultdict(deque)
        self._seqs: dict[str, int] = {}

    async def call(self, method: str, **params: Any) -> Any:
        """The result. Raises NodeError."""
        number = next(self._ids)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        await self._connection.send(json.dumps(request))
        while True:
            answer = await self._receive()
            if answer is not None:
                assert answer["id"] == number
                if "error" in answer:
                    error = answer["error"]
                    raise NodeError(error["code"], error["message"], error["data"])
                return answer["result"]

    async def subscribe(self, *channels: str, resume: dict[str, str] | None = None) -> dict[str, str]:
        """The tokens. After one in `resume` the numbers must go on where it ends."""
        for channel, token in (resume or {}).items():
            self._seqs[channel] = int(token.rpartition(":")[2])
        found = await self.call("public/subscribe", channels=channels, resume=resume or {})
        tokens: dict[str, str] = found["tokens"]
        return tokens

    async def next(self, channel: str, wanted: Callable[[Any], Any] = lambda _: True) -> Any:
        """The next message of a channel of which `wanted` is true; those before it are passed over."""
        with trio.fail_after(PATIENCE_S):
            while True:
                while not self._told[channel]:
                    await self._receive()
                data = self._told[channel].popleft()
                if wanted(data):
                    return data

    async def _receive(self) -> Any:
        """Takes one message; the answer to a call, or None."""
        message = json.loads(await self._connection.recv())
        if "method" not in message:
            return message
        params = message["params"]
        channel, seq, prev = params["channel"], params["seq"], params["prev"]
        if prev is not None and channel in self._seqs:
            assert prev == self._seqs[channel], f"{channel} goes from {self._seqs[channel]} to {seq}"
        self._seqs[channel] = seq
        self._told[channel].append(params["data"])
        return None


@asynccontextmanager
async def open_socket(node: Running) -> AsyncIterator[Socket]:
    """Connects to the node's public port."""
    async with connect(f"ws://127.0.0.1:{node.node.port}/", ping_interval=None) as connection:
        yield Socket(connection)
