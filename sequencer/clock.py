"""The machine's clock: the one place where the node, its services and the command line read it."""

import time


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
