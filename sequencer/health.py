"""Is the node alive, and should traffic be sent to it: pages for load balancers, supervisors and Prometheus.

Alive (`/health`) means that the process works: it stays 200 while draining. Ready (`/ready`) means recovered
from disk, L1 seen, not paused, not draining; otherwise 503 with the reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

import msgspec

from sequencer.http_server import Page

PROMETHEUS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Health:
    """What the node knows of itself; the node's parts set it."""

    recovered: bool = False
    """The state on disk was loaded, replayed and compared."""
    l1_seen: bool = False
    """The L1 has answered since the start, or there is none to see."""
    paused: bool = False
    """The operator has paused intake."""
    draining: bool = False
    """The node is stopping and takes nothing new."""
    fault: str = ""
    """Why the node stops by itself."""

    def reasons_not_ready(self) -> list[str]:
        checks = (
            (not self.recovered, "recovering"),
            (not self.l1_seen, "waiting for L1"),
            (self.paused, "paused"),
            (self.draining, "draining"),
            (bool(self.fault), self.fault),
        )
        return [reason for holds, reason in checks if holds]

    def pages(self, metrics: Callable[[], bytes]) -> Mapping[str, Callable[[], Page]]:
        """The pages by path; `metrics` gives the text that Prometheus scrapes."""
        return {
            "/health": self._alive,
            "/ready": self._ready,
            "/metrics": lambda: Page(HTTPStatus.OK, metrics(), PROMETHEUS_TYPE),
        }

    def _alive(self) -> Page:
        status = HTTPStatus.INTERNAL_SERVER_ERROR if self.fault else HTTPStatus.OK
        return Page(status, msgspec.json.encode({"alive": not self.fault, "fault": self.fault or None}))

    def _ready(self) -> Page:
        reasons = self.reasons_not_ready()
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return Page(status, msgspec.json.encode({"ready": not reasons, "reasons": reasons}))
