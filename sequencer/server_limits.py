"""What one client, and all clients together, may take from the node's public port.

Every queue and buffer of the transport is bounded by a field here. A connection holds at most one
unfinished request, `max_pipelined` waiting calls and the answers its client has not taken (it is not read
while those are many); all connections together hold at most `max_buffered_bytes`, looked at by the sweeper
several times a second. Relations between limits are checked once, when the object is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of one listening port. Units are in the names; counts have none.

    Raises ValueError, naming the field, when a limit is not positive and finite, or when two limits
    contradict each other.
    """

    max_body_bytes: int = 1 << 20
    """Body of an HTTP request and size of a WebSocket message."""
    max_header_bytes: int = 16 << 10
    """Request line and header fields of one request together."""
    max_answer_bytes: int = 4 << 20
    """One JSON-RPC answer; entries of a batch beyond it answer ANSWER_TOO_LARGE."""
    max_batch: int = 100
    """Entries of one JSON-RPC array."""
    max_connections: int = 4096
    max_connections_per_ip: int = 1024
    """Per IPv4 address or IPv6 /64 network."""
    max_pipelined: int = 64
    """Requests of one connection that may wait for their answers; beyond it the connection is not read."""
    max_in_flight: int = 32768
    """Calls of all connections that may wait for their answers; beyond it calls answer BUSY."""
    header_timeout_s: float = 10.0
    """From the first byte of a request to the end of its header."""
    body_timeout_s: float = 20.0
    """From the end of the header to the end of the body."""
    idle_timeout_s: float = 75.0
    """Without a request (HTTP); a WebSocket is pinged after a third of it and dropped after all of it."""
    write_timeout_s: float = 10.0
    """A client that has not taken its waiting answers after this long is dropped."""
    close_timeout_s: float = 5.0
    """How long in-flight answers may take when the server closes."""
    max_buffered_bytes: int = 256 << 20
    """Unfinished bodies and untaken answers of all clients; beyond it those who hold most are cut."""
    max_ws_subscriptions: int = 256
    """Channels per WebSocket."""
    ws_queue: int = 1024
    """Messages that may wait for one WebSocket before it is dropped as too slow."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{field.name}: expected a number, got {value!r}")
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{field.name}: must be positive and finite, got {value!r}")
            if not field.name.endswith("_s") and not isinstance(value, int):
                raise ValueError(f"{field.name}: expected an integer, got {value!r}")
        if self.max_connections_per_ip > self.max_connections:
            raise ValueError("max_connections_per_ip: must not exceed max_connections")
        if self.max_batch > self.max_in_flight:
            raise ValueError("max_batch: must not exceed max_in_flight")
        if self.max_buffered_bytes < max(self.max_body_bytes, self.max_answer_bytes):
            raise ValueError("max_buffered_bytes: must hold the largest body and the largest answer")
        if self.max_header_bytes < 1024:
            raise ValueError("max_header_bytes: must be at least 1024, or no browser gets through")
