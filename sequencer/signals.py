"""How services end: at SIGTERM or SIGINT."""

import signal
from collections.abc import Callable

import trio


async def cancel_on_signal(scope: trio.CancelScope) -> None:
    """Waits for a signal, and cancels `scope` when it comes."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()


async def drain_on_signal(drain: Callable[[], None], scope: trio.CancelScope) -> None:
    """The first signal asks to drain, every further one cancels `scope`."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(signals)
        drain()
        async for _ in signals:
            scope.cancel()
