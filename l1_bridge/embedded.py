"""The embedded L1 behind a loopback JSON-RPC port, so that everything speaks to it as to any other L1.

Blocks come with every transaction and every `block_time_s`, so that confirmations and challenge windows
pass. Besides the usual methods it understands the devnet controls `evm_mine`, `evm_increaseTime`,
`evm_snapshot` and `evm_revert` (a reorg), and serves blob sidecars on the beacon API's path
`/eth/v1/beacon/blobs/{block}`, where a block stands for its slot, as anvil does.

One lock guards the chain: request threads and the miner thread take turns.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from l1_bridge.blobs import BLOB_TYPE, BlobError, KzgWorker, split_sidecar
from l1_bridge.client import from_hex, quantity, to_hex
from l1_bridge.embedded_chain import CHAIN_ID, TIP_WEI, Chain, RpcFailure

MAX_BODY_BYTES = 8 * 1024 * 1024
BLOBS_PATH = "/eth/v1/beacon/blobs/"


class EmbeddedL1(AbstractContextManager["EmbeddedL1"]):
    """A running embedded L1 at `url`. A context manager; `close` stops its threads and frees the port."""

    def __init__(self, port: int = 0, block_time_s: float = 1.0):
        self.chain = Chain()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._methods = methods(self.chain)
        self._kzg = KzgWorker()
        self._server = _Server(("127.0.0.1", port), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.05,), name="embedded-l1")
        ]
        if block_time_s > 0:
            self._threads.append(
                threading.Thread(target=self._mine_for_ever, args=(block_time_s,), name="embedded-l1-miner")
            )
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops serving and mining; returns when both have ended."""
        self._stop.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        self._kzg.close()

    def answer(self, body: bytes) -> Any:
        """The answer to one JSON-RPC request, or a list of them."""
        try:
            request = json.loads(body)
        except ValueError:
            return failure(None, RpcFailure(-32700, "not JSON"))
        if isinstance(request, list):
            return [self._answer_one(item) for item in request]
        return self._answer_one(request)

    def blobs(self, path: str) -> Any:
        """The beacon API's answer: all known blobs with the hashes asked for."""
        wanted = parse_qs(urlsplit(path).query).get("versioned_hashes", [""])[0].split(",")
        with self._lock:
            known = self.chain.blobs
            found = [known[item] for item in map(from_hex, filter(None, wanted)) if item in known]
        return {"data": [to_hex(blob) for blob in found]}

    def _answer_one(self, request: Any) -> Any:
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return failure(None, RpcFailure(-32600, "not a request"))
        identity = request.get("id")
        if request["method"] == "eth_sendRawTransaction":
            return self._send_raw(identity, request.get("params"))
        method = self._methods.get(request["method"])
        if method is None:
            return failure(identity, RpcFailure(-32601, f"no method {request['method']}"))
        try:
            with self._lock:
                return {"jsonrpc": "2.0", "id": identity, "result": method(*request.get("params", []))}
        except RpcFailure as error:
            return failure(identity, error)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            return failure(identity, RpcFailure(-32602, f"bad parameters: {error}"))

    def _send_raw(self, identity: Any, params: Any) -> dict[str, Any]:
        """Checks a blob transaction's sidecar before it takes the lock, in another process: it takes long."""
        try:
            raw = from_hex(params[0])
            sidecar: dict[bytes, bytes] = {}
            if raw[:1] == bytes([BLOB_TYPE]):
                raw, sidecar = self._kzg.call(split_sidecar, raw)
            with self._lock:
                return {"jsonrpc": "2.0", "id": identity, "result": to_hex(self.chain.send(raw, sidecar))}
        except BlobError as error:
            return failure(identity, RpcFailure(-32000, str(error)))
        except RpcFailure as error:
            return failure(identity, error)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            return failure(identity, RpcFailure(-32602, f"bad parameters: {error}"))

    def _mine_for_ever(self, block_time_s: float) -> None:
        while not self._stop.wait(block_time_s):
            with self._lock:
                self.chain.mine_if_due()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], l1: EmbeddedL1):
        self.l1 = l1
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle of something is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60
    server: _Server

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= MAX_BODY_BYTES:
            self.send_error(413)
            return
        self._send(self.server.l1.answer(self.rfile.read(length)))

    def do_GET(self) -> None:
        if self.path.startswith(BLOBS_PATH):
            self._send(self.server.l1.blobs(self.path))
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests are not logged."""

    def _send(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def failure(identity: Any, error: RpcFailure) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identity, "error": error.error}


def methods(chain: Chain) -> dict[str, Callable[..., Any]]:
    """All JSON-RPC methods but `eth_sendRawTransaction`, by name."""

    def by_number(tag: str, full: bool = False) -> Any:
        return chain.block(chain.height_of(tag), full)

    def account(part: int) -> Callable[..., Any]:
        def read(address: str, tag: str = "latest") -> str:
            value = chain.account(from_hex(address), chain.height_of(tag))[part]
            return to_hex(value) if isinstance(value, bytes) else hex(value)

        return read

    def mine(blocks: str = "0x1") -> str:
        for _ in range(quantity(blocks)):
            chain.mine()
        return "0x0"

    def increase_time(seconds: int | str) -> int:
        chain.travel(seconds if isinstance(seconds, int) else quantity(seconds))
        return chain.now()

    return {
        "eth_chainId": lambda: hex(CHAIN_ID),
        "net_version": lambda: str(CHAIN_ID),
        "web3_clientVersion": lambda: "straddle-embedded/py-evm",
        "eth_syncing": lambda: False,
        "eth_blockNumber": lambda: hex(chain.height),
        "eth_getBlockByNumber": by_number,
        "eth_getBlockByHash": lambda block_hash, full=False: chain.block_by_hash(from_hex(block_hash), full),
        "eth_getTransactionByHash": lambda item: chain.transaction(from_hex(item)),
        "eth_getTransactionReceipt": lambda item: chain.receipt(from_hex(item)),
        "eth_getTransactionCount": account(0),
        "eth_getBalance": account(1),
        "eth_getCode": account(2),
        "eth_getLogs": chain.logs,
        "eth_call": lambda request, tag="latest": to_hex(
            bytes(chain.execute(request, chain.height_of(tag))[0].output)
        ),
        "eth_estimateGas": lambda request, tag="latest": hex(chain.estimate(request)),
        "eth_gasPrice": lambda: hex(quantity(chain.block(chain.height, False)["baseFeePerGas"]) + TIP_WEI),  # type: ignore[index]
        "eth_maxPriorityFeePerGas": lambda: hex(TIP_WEI),
        "eth_blobBaseFee": lambda: hex(chain.blob_base_fee()),
        "evm_mine": mine,
        "evm_increaseTime": increase_time,
        "evm_snapshot": lambda: hex(chain.snapshot()),
        "evm_revert": lambda name: chain.revert(quantity(name)),
    }
