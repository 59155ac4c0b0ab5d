"""What the commands share: how errors end a command, and which environment variables belong to whom.

Modules of the command line import L1 and keystore libraries inside functions: these take seconds to import,
and `straddle order` or `--help` need none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NoReturn, ParamSpec, TypeVar

import typer

from l1_bridge.types import L1Error, L1Unavailable
from sequencer.cli_units import show_field
from sequencer.client import NodeError, NodeUnreachable
from sequencer.config_file import ConfigError

Given = ParamSpec("Given")
Result = TypeVar("Result")

TRADER_VARIABLES = frozenset(
    {
        "STRADDLE_NODE",
        "STRADDLE_KEY",
        "STRADDLE_PASSWORD",
        "STRADDLE_PRIVATE_KEY",
    }
)
"""Variables of the trader's commands; the services' configuration has no keys of these names."""


class CliError(Exception):
    """Something that the user can put right; the text says what."""


INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""
LIGHT = (CliError, ConfigError, L1Error, NodeError, NodeUnreachable, OSError)


def service_environment() -> Mapping[str, str]:
    """The environment as a service's configuration may see it."""
    return {name: value for name, value in os.environ.items() if name not in TRADER_VARIABLES}


def exits_cleanly(command: Callable[Given, Result]) -> Callable[Given, Result]:
    """Turns errors that a user can act on into one message and exit status 1; others are bugs and show."""

    @wraps(command)
    def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.TyperException):
            raise
        except BaseException as error:
            if _is_interrupt(error):
                raise typer.Exit(INTERRUPTED) from None
            found = _actionable(error)
            if found is None:
                raise
            _fail(found)

    return run


def _actionable(error: BaseException) -> BaseException | None:
    """The first error that a user can act on; None when there is also, or only, one that is a bug."""
    if isinstance(error, BaseExceptionGroup):
        known, others = error.split(_is_known)
        return _first(known) if known is not None and others is None else None
    return error if _is_known(error) else None


def _is_interrupt(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt)


def _is_known(error: BaseException) -> bool:
    if isinstance(error, LIGHT):
        return True
    from l1_bridge.inbox import InboxDiverged
    from l1_bridge.keys import KeyRefused
    from l1_bridge.verifier import RootMismatch
    from sequencer.conservation import ConservationError
    from sequencer.recovery import WorkerDied
    from state.proofs import ProofError
    from state.store import StoreError
    from state.tree import TreeCorrupt

    heavy = (
        ConservationError,
        InboxDiverged,
        KeyRefused,
        ProofError,
        RootMismatch,
        StoreError,
        TreeCorrupt,
        WorkerDied,
    )
    return isinstance(error, heavy)


def _fail(error: BaseException) -> NoReturn:
    print(f"straddle: {explain(error)}", file=sys.stderr)
    raise typer.Exit(1)


def explain(error: BaseException) -> str:
    """An error in one or two lines, for people."""
    if isinstance(error, NodeError):
        return explain_node_error(error.message, error.code, error.data)
    if isinstance(error, NodeUnreachable):
        return f"the node does not answer: {error}\n  --node or STRADDLE_NODE says where it is"
    if isinstance(error, L1Unavailable):
        return f"L1 does not answer: {error}\n  STRADDLE_L1_URL (--l1; a service's l1.url) says where it is"
    return str(error)


def explain_node_error(message: str, code: int, data: Any) -> str:
    """The node's message and code name, and the data fields in human units below."""
    fields = dict(data) if isinstance(data, dict) else {}
    name = fields.pop("code", code)
    shown = ", ".join(
        f"{field.removesuffix('_uusd').removesuffix('_ulots').replace('_', ' ')} {show_field(field, value)}"
        for field, value in fields.items()
        if value is not None
    )
    first = f"{printable(str(message))} ({name})"
    return f"{first}\n  {printable(shown)}" if shown else first


def printable(text: str) -> str:
    """Without characters that could steer a terminal: texts come from nodes that need not be honest."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
