"""One measured figure beside the limit it is held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from coincurve import PrivateKey, PublicKey

from state.hashing import keccak


@dataclass(frozen=True, slots=True)
class Figure:
    """`limit` is the floor (`>=`) or ceiling (`<=`) to beat; None for a figure that is only stated."""

    name: str
    value: float
    unit: str
    limit: float | None = None
    relation: Literal["<=", ">="] = "<="
    note: str = ""

    @property
    def holds(self) -> bool | None:
        if self.limit is None:
            return None
        return self.value <= self.limit if self.relation == "<=" else self.value >= self.limit


def seconds_per_call(call: Callable[[], object], seconds: float = 0.5) -> float:
    """Median over five rounds of the time of one call."""
    count, elapsed = 1, 0.0
    while elapsed < seconds / 20:
        count *= 2
        begin = time.perf_counter()
        for _ in range(count):
            call()
        elapsed = time.perf_counter() - begin
    rounds = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(count):
            call()
        rounds.append((time.perf_counter() - begin) / count)
    return sorted(rounds)[2]


@cache
def recover_seconds() -> float:
    """One secp256k1 recovery on one core: the yardstick of everything that handles signed orders."""
    return seconds_per_call(_recovery())


def recover_cpu_seconds(count: int = 100) -> float:
    """Processor time of one recovery, measured now: for a machine whose load changes."""
    recover = _recovery()
    begin = time.process_time()
    for _ in range(count):
        recover()
    return (time.process_time() - begin) / count


def _recovery() -> Callable[[], object]:
    digest = keccak(b"yardstick")
    signature = PrivateKey(digest).sign_recoverable(digest, hasher=None)
    return lambda: PublicKey.from_signature_and_message(signature, digest, hasher=None).format(False)


@cache
def keccak_seconds() -> float:
    """One keccak-256 of 64 bytes: the yardstick of everything that hashes."""
    data = bytes(64)
    return seconds_per_call(lambda: keccak(data))
