"""Why a node stops by itself: what its operator is told of the error that ended it."""

from __future__ import annotations

import trio

from l1_bridge.inbox import InboxDiverged
from l1_bridge.keys import KeyRefused
from sequencer.config_file import ConfigError
from sequencer.conservation import ConservationError
from sequencer.recovery import WorkerDied
from state.store import StoreError

ACTIONABLE = (ConfigError, ConservationError, InboxDiverged, KeyRefused, OSError, StoreError, WorkerDied)
"""What an operator can act on is told in one line; anything else is a bug, and shows where it stands."""


def root_cause(error: BaseException) -> BaseException | None:
    """The first error in a group that is not a cancellation; None when all are."""
    if isinstance(error, BaseExceptionGroup):
        causes = (root_cause(each) for each in error.exceptions)
        return next((cause for cause in causes if cause is not None), None)
    return None if isinstance(error, trio.Cancelled) else error


def describe(error: BaseException) -> str:
    """One line for logs and the health page."""
    return str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
