"""JSON-RPC to an L1 node: web3's HTTP provider in worker threads, made patient.

`Transport` is one request and its answer; `RpcClient` on top turns answers into records, retries what passes
with time (with exponential backoff and jitter), and halves log ranges that a node finds too wide. An answer
that cannot be parsed counts as the node being unavailable: load balancers and proxies do that.

Secrets: a URL may hold an API key, so only its scheme, host and port are ever shown, and the texts of the
HTTP library's errors, which quote the URL, are never passed on; its debug log, which does too, is off.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import requests
import trio
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from l1_bridge.recursion import restore_recursion_limit
from l1_bridge.types import (
    Fees,
    L1Block,
    L1Error,
    L1Log,
    L1Receipt,
    L1Refused,
    L1Reverted,
    L1Transaction,
    L1Unavailable,
)

restore_recursion_limit()

Parsed = TypeVar("Parsed")

TRANSIENT_CODES = frozenset({429, -32001, -32005, -32603})
"""JSON-RPC codes of limits, internal errors and missing resources, that go away."""
TRANSIENT_WORDS = (
    "rate limit",
    "too many requests",
    "timeout",
    "timed out",
    "overloaded",
    "try again",
    "header not found",
    "unknown block",
    "temporarily",
)
KNOWN_WORDS = ("already known", "already imported", "known transaction", "already in pool", "already exists")
WIDE_WORDS = ("range", "too many results", "more than", "limit exceeded", "response size", "query returned")
DEFAULT_TIP_WEI = 1_000_000_000


def redact(url: str) -> str:
    """The URL without what may be secret: user, password, path and query."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


class Transport(Protocol):
    """Carries one JSON-RPC request; raises L1Unavailable or L1Refused."""

    async def request(self, method: str, params: list[Any]) -> Any:
        """The decoded response object, whatever its shape."""

    async def get(self, url: str) -> Any:
        """The decoded JSON answer of a plain GET (beacon API)."""


class HttpTransport:
    """Requests over HTTP in worker threads, at most `concurrency` at a time. Call `close` when done."""

    def __init__(self, url: str, timeout_s: float = 20.0, concurrency: int = 4):
        for chatty in ("web3", "urllib3"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        self.name = redact(url)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._provider = HTTPProvider(
            url,
            request_kwargs={"timeout": timeout_s},
            session=self._session,
            exception_retry_configuration=None,
        )
        self._limiter = trio.CapacityLimiter(concurrency)

    async def request(self, method: str, params: list[Any]) -> Any:
        return await self._in_thread(lambda: self._provider.make_request(RPCEndpoint(method), params))

    async def get(self, url: str) -> Any:
        return await self._in_thread(lambda: self._get(url))

    def close(self) -> None:
        """Closes all connections."""
        self._session.close()

    def _get(self, url: str) -> Any:
        response = self._session.get(url, timeout=self._timeout_s)
        response.raise_for_status()
        return response.json()

    async def _in_thread(self, job: Callable[[], Any]) -> Any:
        try:
            return await trio.to_thread.run_sync(job, limiter=self._limiter, abandon_on_cancel=True)
        except requests.HTTPError as error:
            raise self._http_failure(error) from None
        except requests.JSONDecodeError:
            raise L1Unavailable(f"{self.name} answered something that is not JSON") from None
        except requests.RequestException as error:
            raise L1Unavailable(f"{self.name} cannot be reached: {type(error).__name__}") from None
        except ValueError:
            raise L1Unavailable(f"{self.name} answered something that is not JSON") from None

    def _http_failure(self, error: requests.HTTPError) -> L1Error:
        assert error.response is not None
        status = error.response.status_code
        if status != 429 and status < 500 and status != 408:
            return L1Refused(f"{self.name} answered HTTP {status}", status)
        after = error.response.headers.get("Retry-After", "")
        return L1Unavailable(f"{self.name} answered HTTP {status}", float(after) if after.isdigit() else None)


class RpcClient:
    """`types.L1Client` over a `Transport`.

    Each request is tried up to `attempts` times before L1Unavailable leaves this class; callers that must
    go on for ever wait and call again.
    """

    def __init__(
        self,
        transport: Transport,
        attempts: int = 4,
        first_delay_s: float = 0.25,
        longest_delay_s: float = 8.0,
        log_range: int = 2_000,
        seed: int = 0,
    ):
        self._transport = transport
        self._attempts = attempts
        self._first_delay_s = first_delay_s
        self._longest_delay_s = longest_delay_s
        self._log_range = log_range
        self._jitter = random.Random(seed)

    async def chain_id(self) -> int:
        return await self._ask("eth_chainId", [], quantity)

    async def head(self) -> L1Block:
        block = await self.block("latest")
        if block is None:
            raise L1Unavailable("the node has no latest block")
        return block

    async def block(self, which: int | bytes | str) -> L1Block | None:
        if isinstance(which, bytes):
            return await self._ask("eth_getBlockByHash", [to_hex(which), False], optional(parse_block))
        tag = hex(which) if isinstance(which, int) else which
        return await self._ask("eth_getBlockByNumber", [tag, False], optional(parse_block))

    async def logs(
        self, address: bytes, topics: Sequence[bytes | None], first: int, last: int
    ) -> list[L1Log]:
        """Logs in blocks first..last, in order; a range the node finds too wide is split."""
        found: list[L1Log] = []
        width = self._log_range
        while first <= last:
            until = min(last, first + width - 1)
            query = {
                "address": to_hex(address),
                "topics": [None if topic is None else to_hex(topic) for topic in topics],
                "fromBlock": hex(first),
                "toBlock": hex(until),
            }
            try:
                found += await self._ask("eth_getLogs", [query], parse_logs)
            except L1Refused as error:
                if until == first or not any(word in str(error).lower() for word in WIDE_WORDS):
                    raise
                width = (until - first + 1) // 2
                continue
            first = until + 1
        return found

    async def transaction(self, transaction_hash: bytes) -> L1Transaction | None:
        return await self._ask(
            "eth_getTransactionByHash", [to_hex(transaction_hash)], optional(parse_transaction)
        )

    async def receipt(self, transaction_hash: bytes) -> L1Receipt | None:
        return await self._ask(
            "eth_getTransactionReceipt", [to_hex(transaction_hash)], optional(parse_receipt)
        )

    async def nonce(self, address: bytes, tag: str = "latest") -> int:
        return await self._ask("eth_getTransactionCount", [to_hex(address), tag], quantity)

    async def balance(self, address: bytes) -> int:
        return await self._ask("eth_getBalance", [to_hex(address), "latest"], quantity)

    async def fees(self) -> Fees:
        head = await self.head()
        try:
            tip_wei = await self._ask("eth_maxPriorityFeePerGas", [], quantity)
        except L1Refused:
            tip_wei = DEFAULT_TIP_WEI
        try:
            blob_base_wei = await self._ask("eth_blobBaseFee", [], quantity)
        except L1Refused:
            blob_base_wei = 0
        return Fees(head.base_fee_wei, tip_wei, blob_base_wei)

    async def call(
        self,
        to: bytes,
        data: bytes,
        sender: bytes | None = None,
        block: int | str = "latest",
        blob_hashes: Sequence[bytes] = (),
    ) -> bytes:
        request = call_object(sender, to, data, blob_hashes)
        tag = hex(block) if isinstance(block, int) else block
        return await self._ask("eth_call", [request, tag], from_hex)

    async def estimate_gas(
        self, sender: bytes, to: bytes | None, data: bytes, blob_hashes: Sequence[bytes] = ()
    ) -> int:
        return await self._ask("eth_estimateGas", [call_object(sender, to, data, blob_hashes)], quantity)

    async def send_raw(self, raw: bytes) -> None:
        try:
            await self._ask("eth_sendRawTransaction", [to_hex(raw)], from_hex)
        except L1Refused as error:
            if not any(word in str(error).lower() for word in KNOWN_WORDS):
                raise

    async def blobs(self, beacon_url: str, slot: int, blob_hashes: Sequence[bytes]) -> list[bytes]:
        """Blobs of one beacon slot by versioned hash, in no particular order."""
        wanted = ",".join(to_hex(blob_hash) for blob_hash in blob_hashes)
        url = f"{beacon_url.rstrip('/')}/eth/v1/beacon/blobs/{slot}?versioned_hashes={wanted}"
        return await self._patiently(
            lambda: self._transport.get(url), lambda answer: [from_hex(blob) for blob in answer["data"]]
        )

    async def raw_request(self, method: str, params: list[Any]) -> Any:
        """For methods outside L1Client: devnet controls (`evm_mine`, `anvil_reorg`), beacon data over RPC."""
        return await self._ask(method, params, lambda result: result)

    async def get_json(self, url: str, parse: Callable[[Any], Parsed]) -> Parsed:
        """A plain GET with the same patience; `parse` may raise KeyError, TypeError or ValueError."""
        return await self._patiently(lambda: self._transport.get(url), parse)

    async def _ask(self, method: str, params: list[Any], parse: Callable[[Any], Parsed]) -> Parsed:
        return await self._patiently(
            lambda: self._transport.request(method, params),
            lambda answer: parse(result_of(method, answer)),
        )

    async def _patiently(self, fetch: Callable[[], Any], parse: Callable[[Any], Parsed]) -> Parsed:
        delay_s = self._first_delay_s
        for attempt in range(1, self._attempts + 1):
            try:
                answer = await fetch()
                try:
                    return parse(answer)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise L1Unavailable(f"unreadable answer: {type(error).__name__}") from None
            except L1Unavailable as error:
                if attempt == self._attempts:
                    raise
                wait_s = error.retry_after_s if error.retry_after_s is not None else delay_s
                await trio.sleep(min(wait_s, self._longest_delay_s) * self._jitter.uniform(0.5, 1.0))
                delay_s *= 2
        raise AssertionError("at least one attempt is made")


def connect(url: str, **options: Any) -> tuple[RpcClient, HttpTransport]:
    """A client for `url`, and the transport that the caller must close."""
    transport = HttpTransport(url)
    return RpcClient(transport, **options), transport


def result_of(method: str, answer: Any) -> Any:
    """The `result` of a JSON-RPC answer. Raises what its `error` means."""
    if "error" in answer and answer["error"] is not None:
        raise classify(method, answer["error"])
    return answer["result"]


def classify(method: str, error: Any) -> L1Error:
    """The L1Error for a JSON-RPC error object."""
    code, message = int(error.get("code", 0)), str(error.get("message", ""))
    lowered = message.lower()
    data = error.get("data")
    if isinstance(data, dict):
        data = data.get("data", data.get("result"))
    if code == 3 or "revert" in lowered:
        return L1Reverted(message, from_hex(data) if isinstance(data, str) and data[:2] == "0x" else b"")
    if method == "eth_sendRawTransaction" and code != 429 and "rate limit" not in lowered:
        return L1Refused(message, code)
    if method == "eth_getLogs" and any(word in lowered for word in WIDE_WORDS):
        return L1Refused(message, code)
    if code in TRANSIENT_CODES or any(word in lowered for word in TRANSIENT_WORDS):
        return L1Unavailable(f"{method}: {message}")
    return L1Refused(f"{method}: {message}", code)


def call_object(
    sender: bytes | None, to: bytes | None, data: bytes, blob_hashes: Sequence[bytes]
) -> dict[str, Any]:
    """The transaction object of eth_call and eth_estimateGas."""
    request: dict[str, Any] = {"data": to_hex(data)}
    if to is not None:
        request["to"] = to_hex(to)
    if sender is not None:
        request["from"] = to_hex(sender)
    if blob_hashes:
        request["blobVersionedHashes"] = [to_hex(blob_hash) for blob_hash in blob_hashes]
    return request


def to_hex(data: bytes) -> str:
    return "0x" + data.hex()


def from_hex(text: str) -> bytes:
    """Raises ValueError for anything but 0x and whole bytes."""
    if text[:2] != "0x":
        raise ValueError("no 0x")
    return bytes.fromhex(text[2:])


def quantity(value: str) -> int:
    return int(value, 16)


def optional(parse: Callable[[Any], Parsed]) -> Callable[[Any], Parsed | None]:
    """`parse`, with null for None."""
    return lambda value: None if value is None else parse(value)


def parse_block(raw: dict[str, Any]) -> L1Block:
    return L1Block(
        quantity(raw["number"]),
        from_hex(raw["hash"]),
        from_hex(raw["parentHash"]),
        quantity(raw["timestamp"]),
        quantity(raw.get("baseFeePerGas") or "0x0"),
        optional(quantity)(raw.get("excessBlobGas")),
    )


def parse_logs(raw: list[dict[str, Any]]) -> list[L1Log]:
    """In chain order; logs that a reorg removed are left out."""
    logs = [
        L1Log(
            from_hex(log["address"]),
            tuple([from_hex(topic) for topic in log["topics"]]),
            from_hex(log["data"]),
            quantity(log["blockNumber"]),
            from_hex(log["blockHash"]),
            from_hex(log["transactionHash"]),
            quantity(log["logIndex"]),
        )
        for log in raw
        if not log.get("removed")
    ]
    return sorted(logs, key=lambda log: (log.block_number, log.index))


def parse_transaction(raw: dict[str, Any]) -> L1Transaction:
    number = raw.get("blockNumber")
    return L1Transaction(
        from_hex(raw["hash"]),
        from_hex(raw["from"]),
        from_hex(raw["to"]) if raw.get("to") else None,
        quantity(raw["nonce"]),
        from_hex(raw["input"]),
        tuple([from_hex(blob_hash) for blob_hash in raw.get("blobVersionedHashes") or ()]),
        None if number is None else quantity(number),
    )


def parse_receipt(raw: dict[str, Any]) -> L1Receipt:
    contract = raw.get("contractAddress")
    return L1Receipt(
        from_hex(raw["transactionHash"]),
        quantity(raw["blockNumber"]),
        from_hex(raw["blockHash"]),
        quantity(raw["status"]) == 1,
        quantity(raw["gasUsed"]),
        quantity(raw["effectiveGasPrice"]),
        quantity(raw.get("blobGasUsed") or "0x0"),
        quantity(raw.get("blobGasPrice") or "0x0"),
        from_hex(contract) if contract else None,
        tuple(parse_logs(raw["logs"])),
    )
