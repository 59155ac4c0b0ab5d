"""The L1 client without a network: patience on a virtual clock, what errors mean, log ranges, slots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from l1_bridge.blobs import KzgWorker
from l1_bridge.client import RpcClient, classify, redact
from l1_bridge.derivation import BlobSource, DataMissing
from l1_bridge.types import L1Error, L1Refused, L1Reverted, L1Unavailable


class Script:
    """A transport that answers by a function, and notes when it was asked what."""

    def __init__(self, answer: Callable[[str, list[Any]], Any]):
        self.answer = answer
        self.asked: list[tuple[float, str, list[Any]]] = []

    async def request(self, method: str, params: list[Any]) -> Any:
        self.asked.append((trio.current_time(), method, params))
        return self.answer(method, params)

    async def get(self, url: str) -> Any:
        return await self.request("GET", [url])


async def test_it_backs_off_exponentially_with_jitter(autojump_clock: trio.testing.MockClock) -> None:
    def answer(method: str, params: list[Any]) -> Any:
        raise L1Unavailable("busy")

    script = Script(answer)
    client = RpcClient(script, attempts=5, first_delay_s=1, longest_delay_s=5)
    with pytest.raises(L1Unavailable, match="busy"):
        await client.chain_id()
    times = [at for at, _, _ in script.asked]
    gaps = [after - before for before, after in pairwise(times)]
    assert len(script.asked) == 5
    for gap, longest in zip(gaps, [1, 2, 4, 5], strict=True):
        assert longest / 2 <= gap <= longest


async def test_it_honours_retry_after(autojump_clock: trio.testing.MockClock) -> None:
    failures = [L1Unavailable("limited", retry_after_s=6.0)]

    def answer(method: str, params: list[Any]) -> Any:
        if failures:
            raise failures.pop()
        return {"result": "0x7a69"}

    script = Script(answer)
    assert await RpcClient(script).chain_id() == 31337
    assert 3 <= script.asked[1][0] - script.asked[0][0] <= 6


@pytest.mark.parametrize("garbage", [None, [], "hello", 5, {}, {"result": None}, {"result": "zz"}])
async def test_an_unreadable_answer_counts_as_unavailable(
    garbage: Any, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(L1Unavailable, match="unreadable answer"):
        await RpcClient(Script(lambda method, params: garbage)).chain_id()


@pytest.mark.parametrize(
    ("method", "error", "kind"),
    [
        ("eth_call", {"code": 3, "message": "execution reverted", "data": "0xdead"}, L1Reverted),
        ("eth_call", {"code": -32000, "message": "VM: revert", "data": {"data": "0xdead"}}, L1Reverted),
        ("eth_call", {"code": -32005, "message": "limit"}, L1Unavailable),
        ("eth_call", {"code": -32000, "message": "header not found"}, L1Unavailable),
        ("eth_call", {"code": 429, "message": "compute units"}, L1Unavailable),
        ("eth_call", {"code": -32601, "message": "no such method"}, L1Refused),
        ("eth_sendRawTransaction", {"code": -32000, "message": "nonce too low"}, L1Refused),
        ("eth_sendRawTransaction", {"code": -32603, "message": "transaction underpriced"}, L1Refused),
        ("eth_sendRawTransaction", {"code": 429, "message": "rate limit"}, L1Unavailable),
        ("eth_getLogs", {"code": -32005, "message": "query returned more than 10000 results"}, L1Refused),
    ],
)
def test_what_an_error_means(method: str, error: dict[str, Any], kind: type[L1Error]) -> None:
    found = classify(method, error)
    assert type(found) is kind
    if isinstance(found, L1Reverted):
        assert found.data == bytes.fromhex("dead")


async def test_a_known_transaction_is_no_error() -> None:
    error = {"error": {"code": -32000, "message": "already known"}}
    await RpcClient(Script(lambda method, params: error)).send_raw(b"\x02raw")


async def test_log_ranges_are_halved_until_the_node_takes_them() -> None:
    def answer(method: str, params: list[Any]) -> Any:
        first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
        if last - first >= 10:
            return {"error": {"code": -32000, "message": "block range is too large"}}
        return {"result": [log_at(number) for number in range(first, last + 1) if number % 7 == 0]}

    script = Script(answer)
    logs = await RpcClient(script, log_range=64).logs(b"\x01" * 20, [None], 0, 99)
    assert [log.block_number for log in logs] == list(range(0, 100, 7))


async def test_a_range_of_one_block_that_is_too_much_is_an_error() -> None:
    error = {"error": {"code": -32000, "message": "response size exceeded, narrow the range"}}
    with pytest.raises(L1Refused):
        await RpcClient(Script(lambda method, params: error)).logs(b"\x01" * 20, [], 0, 3)


def log_at(number: int) -> dict[str, Any]:
    return {
        "address": "0x" + "01" * 20,
        "topics": [],
        "data": "0x",
        "blockNumber": hex(number),
        "blockHash": "0x" + "00" * 32,
        "transactionHash": "0x" + "00" * 32,
        "logIndex": "0x0",
    }


def test_urls_are_shown_without_what_may_be_secret() -> None:
    assert redact("https://user:password@node.example:8443/v3/key?token=x") == "https://node.example:8443"


async def test_blobs_are_looked_for_in_the_slot_of_their_block() -> None:
    """On a real chain a block's slot comes from its timestamp; blobs that are not there are missing."""

    def answer(method: str, params: list[Any]) -> Any:
        if method == "eth_getBlockByNumber":
            block = {"number": params[0], "hash": "0x00", "parentHash": "0x00", "timestamp": hex(1_000_120)}
            return {"result": block}
        if params[0].endswith("genesis"):
            return {"data": {"genesis_time": "1000000"}}
        if params[0].endswith("spec"):
            return {"data": {"SECONDS_PER_SLOT": "12"}}
        return {"data": []}

    script = Script(answer)

    class NoBlobs(KzgWorker):
        async def blob_hashes(self, blobs: Sequence[bytes]) -> list[bytes]:
            assert not blobs
            return []

    source = BlobSource(RpcClient(script), "http://beacon/", 1, NoBlobs())
    with pytest.raises(DataMissing, match="1 of 1 blobs"):
        await source.fetch(5, [b"\x01" * 32])
    assert script.asked[-1][2] == [f"http://beacon/eth/v1/beacon/blobs/10?versioned_hashes=0x{'01' * 32}"]
