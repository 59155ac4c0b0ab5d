"""An HTTP proxy that misbehaves as public RPC endpoints do: drops, limits, babbles, delays, and goes away."""

from __future__ import annotations

import threading
import time
from collections import Counter
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

FAULTS = ("drop", "limited", "broken", "garbage", "not-an-answer", "truncated", "slow", "error")


class FaultyProxy:
    """Forwards to `target`; each request fails with probability `odds`, in a way drawn from the seed.

    `down` makes every request fail at once. A context manager.
    """

    def __init__(self, target: str, seed: int, odds: float):
        self.target = urlsplit(target)
        self.random = Random(seed)
        self.odds = odds
        self.down = False
        self.faults: Counter[str] = Counter()
        self._server = _Server(("127.0.0.1", 0), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fault(self) -> str | None:
        """What to do to this request."""
        if self.down:
            return "drop"
        if self.random.random() >= self.odds:
            return None
        chosen = self.random.choice(FAULTS)
        self.faults[chosen] += 1
        return chosen


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], proxy: FaultyProxy):
        self.proxy = proxy
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        self._serve(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        self._serve(None)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def _serve(self, body: bytes | None) -> None:
        fault = self.server.proxy.fault()
        if fault == "drop":
            self.close_connection = True
        elif fault == "limited":
            self._answer(429, b'{"error": "slow down"}', {"Retry-After": "0"})
        elif fault == "broken":
            self._answer(503, b"<html>bad gateway</html>")
        elif fault == "garbage":
            self._answer(200, b"<html>not json</html>")
        elif fault == "not-an-answer":
            self._answer(200, b'["who", "are", "you"]')
        elif fault == "error":
            error = b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "rate limit"}}'
            self._answer(200, error)
        else:
            if fault == "slow":
                time.sleep(0.05)
            answer = self._forward(body)
            # A truncated answer promises more than it holds.
            self._answer(200, answer[:-1] if fault == "truncated" else answer)

    def _forward(self, body: bytes | None) -> bytes:
        target = self.server.proxy.target
        assert target.hostname is not None
        connection = HTTPConnection(target.hostname, target.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("GET" if body is None else "POST", self.path, body, headers)
            return connection.getresponse().read()
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
