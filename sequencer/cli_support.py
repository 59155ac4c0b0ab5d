"""What the commands share: how errors end a command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec, TypeVar

import typer

from l1_bridge.inbox import InboxDiverged
from l1_bridge.keys import KeyRefused
from l1_bridge.types import L1Error
from l1_bridge.verifier import RootMismatch
from sequencer.client import NodeError, NodeUnreachable
from sequencer.config_file import ConfigError
from sequencer.conservation import ConservationError
from sequencer.recovery import WorkerDied
from state.store import StoreError
from state.tree import TreeCorrupt

Given = ParamSpec("Given")
Result = TypeVar("Result")

KNOWN = (
    ConfigError,
    ConservationError,
    InboxDiverged,
    KeyRefused,
    L1Error,
    NodeError,
    NodeUnreachable,
    OSError,
    RootMismatch,
    StoreError,
    TreeCorrupt,
    WorkerDied,
)
"""Errors that a user can act on: their text is the answer."""


def exits_cleanly(command: Callable[Given, Result]) -> Callable[Given, Result]:
    """Turns errors that a user can act on into one message and exit status 1; others are bugs and show."""

    @wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except KNOWN as error:
            _fail(error)
        except BaseExceptionGroup as group:
            known, others = group.split(KNOWN)
            if others is not None or known is None:
                raise
            _fail(_first(known))

    return run


def _fail(error: BaseException) -> NoReturn:
    print(f"straddle: {error}", file=sys.stderr)
    raise typer.Exit(1)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
