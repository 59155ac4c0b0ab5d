"""A load generator as a process of its own: sends prepared HTTP requests and times the answers.

`python -m tools.load PLAN` reads a msgpack map `{host, port, connections, rate, requests}` and prints a JSON
summary. Requests are complete HTTP messages made beforehand, so that building and signing them costs the
measurement nothing. Each keep-alive connection has one request in flight; with `rate` (requests per second)
requests start on a fixed schedule and latency counts from the scheduled start: a stalled server cannot
hide its stall (coordinated omission); without it each connection sends as soon as it is answered.

The loop is epoll on bare sockets: it must cost far less than what it measures.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgpack

IDLE_LIMIT_S = 30


def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Sends every request of the plan; latencies in ms. Raises TimeoutError when answers stop coming."""
    requests: list[bytes] = plan["requests"]
    connections = min(plan["connections"], len(requests))
    rate: float | None = plan.get("rate")
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(connections):
        sock = socket.create_connection((plan["host"], plan["port"]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
    idle = deque(sockets)
    started: dict[int, float] = {}
    buffers: dict[int, bytes] = {}
    latencies: list[float] = []
    errors: dict[str, int] = {}
    next_request = 0
    begin = last_answer = time.perf_counter()
    while len(latencies) < len(requests):
        now = time.perf_counter()
        if now - last_answer > IDLE_LIMIT_S:
            raise TimeoutError(f"no answer for {IDLE_LIMIT_S} s after {len(latencies)} of {len(requests)}")
        while idle and next_request < len(requests):
            due = begin + next_request / rate if rate else now
            if due > now:
                break
            fd = idle.popleft()
            sockets[fd].sendall(requests[next_request])
            started[fd] = due
            next_request += 1
        wait = 1.0
        if rate and idle and next_request < len(requests):
            wait = max(begin + next_request / rate - time.perf_counter(), 0)
        for fd, _ in poll.poll(wait):
            data = buffers.pop(fd, b"") + sockets[fd].recv(1 << 16)
            if not data:
                raise ConnectionError("the server closed a connection")
            body = _body(data)
            if body is None:
                buffers[fd] = data
                continue
            last_answer = time.perf_counter()
            latencies.append((last_answer - started[fd]) * 1000)
            _count_errors(body, errors)
            idle.append(fd)
    elapsed = time.perf_counter() - begin
    latencies.sort()
    return {
        "requests": len(requests),
        "seconds": elapsed,
        "requests_per_s": len(requests) / elapsed,
        "p50_ms": latencies[len(latencies) // 2],
        "p99_ms": latencies[min(len(latencies) * 99 // 100, len(latencies) - 1)],
        "max_ms": latencies[-1],
        "cpu_s": time.process_time(),
        "errors": errors,
    }


def _body(data: bytes) -> bytes | None:
    """The answer's body once it is complete; the node always sends Content-Length."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        raise ValueError(f"no Content-Length in {head!r}")
    length = int(head[at + 15 :].split(b"\r\n", 1)[0])
    return data[end + 4 : end + 4 + length] if len(data) >= end + 4 + length else None


def _count_errors(body: bytes, errors: dict[str, int]) -> None:
    """Counts the answers that carry a JSON-RPC error, by message; parsing is paid only by bodies that do."""
    if b'"error"' not in body:
        return
    answers = json.loads(body)
    for answer in answers if isinstance(answers, list) else [answers]:
        if "error" in answer:
            message = str(answer["error"].get("message"))
            errors[message] = errors.get(message, 0) + 1


if __name__ == "__main__":
    print(json.dumps(run(msgpack.unpackb(Path(sys.argv[1]).read_bytes()))))
