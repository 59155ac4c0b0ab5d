"""Structured logs: one JSON object per line on standard error, with a level that can change at run time.

Log once, at the boundary, with fields (`log.info("batch closed", batch=7, bytes=120_000)`); never a secret,
never once per order. Loggers of libraries (web3, websockets) go through the same lines, from warning upward.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, Literal, TextIO

import structlog

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
Level = Literal["debug", "info", "warning", "error"]

_level = logging.INFO


def configure(level: Level, log_format: Literal["json", "console"], stream: TextIO | None = None) -> None:
    """Sets up logging of the whole process; call once, before the first line is logged."""
    stream = stream or sys.stderr
    set_level(level)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: Any = structlog.processors.JSONRenderer()
    if log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    structlog.configure(
        processors=[_drop_below_level, *shared, renderer],
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)


def set_level(level: Level) -> None:
    """Lines below this level are dropped from now on. Raises KeyError for an unknown level."""
    global _level
    _level = LEVELS[level]


def logger(**fields: Any) -> Any:
    """A logger that adds `fields` to each line."""
    return structlog.get_logger(**fields)


def _drop_below_level(_logger: Any, method: str, event: Any) -> Any:
    if LEVELS.get(method, logging.CRITICAL) < _level:
        raise structlog.DropEvent
    return event
