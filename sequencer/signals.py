"""How the services that have nothing to drain end: at SIGTERM or SIGINT."""

import signal

import trio


async def cancel_on_signal(scope: trio.CancelScope) -> None:
    """Waits for a signal, and cancels `scope` when it comes."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
