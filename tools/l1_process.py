"""The embedded L1 in a process of its own, so that its EVM does not share an interpreter with traders."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from l1_bridge.embedded import EmbeddedL1
from sequencer.cli_support import CliError

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 10


@contextmanager
def embedded_l1() -> Iterator[str]:
    """The URL of an embedded L1, which ends with the context, or with this process. Raises CliError."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs,), name="embedded-l1")
    process.start()
    theirs.close()
    try:
        try:
            if not ours.poll(START_TIMEOUT_S):
                raise CliError(f"the embedded L1 did not start within {START_TIMEOUT_S} s")
            url: str = ours.recv()
        except EOFError:
            raise CliError("the embedded L1 ended before it had started") from None
        yield url
    finally:
        ours.close()
        process.join(STOP_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()


def _serve(pipe: Connection) -> None:
    """Serves until the other end of the pipe is closed. Ctrl-C is for the parent, which closes it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with EmbeddedL1() as l1:
        pipe.send(l1.url)
        pipe.poll(None)
