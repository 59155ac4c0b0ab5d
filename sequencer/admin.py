"""The operator's calls: JSON-RPC on a loopback port of its own, each carrying the token of a private file.

The token file is made at the first start with mode 0600; a file that others may read is refused. Nothing here
can reorder or drop what was accepted: pausing stops intake, draining stops the node after sealing all it has.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from sequencer import logs
from sequencer.config_file import ConfigError
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Method
from state.journal import sync_directory

TOKEN_BYTES = 32


class Operations(Protocol):
    """What an operator can make the node do; none of these waits."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def seal_now(self) -> None:
        """Seal what waits, without waiting for the block interval."""

    def post_now(self) -> None:
        """Close the open batch after the next block, so that it is posted."""

    def drain(self) -> None:
        """Stop intake, seal what was accepted, and end the node."""

    def admin_status(self) -> dict[str, Any]: ...


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str


class LogLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    token: str
    level: Literal["debug", "info", "warning", "error"]


def load_token(path: Path) -> str:
    """The token in `path`, which is made if it does not exist. Raises ConfigError when others may read it."""
    try:
        if not path.exists():
            _make_token(path)
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"admin.token_file: {path}: others may read it; chmod 600 it")
        token = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"admin.token_file: {path}: {error}") from None
    if len(token) < TOKEN_BYTES:
        raise ConfigError(f"admin.token_file: {path}: a token has at least {TOKEN_BYTES} characters")
    return token


def _make_token(path: Path) -> None:
    """The whole token, durably, or no file: an empty one would refuse every later start. Raises OSError."""
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(TOKEN_BYTES) + "\n")
        file.flush()
        os.fsync(descriptor)
    os.rename(aside, path)
    sync_directory(path.parent)


def admin_methods(operations: Operations, token: str) -> list[Method[Any]]:
    """The methods of the admin port."""

    def check(given: str) -> None:
        if not hmac.compare_digest(given.encode(), token.encode()):
            raise RpcError(ErrorCode.INVALID_PARAMS, "wrong token", {"param": "token"})

    def call(name: str, action: Any, summary: str) -> Method[Any]:
        def handler(params: Token, _context: Context) -> dict[str, Any]:
            check(params.token)
            action()
            logs.logger().info("admin call", method=name)
            return operations.admin_status()

        return Method(name, Token, dict[str, Any], handler, summary)

    def set_log_level(params: LogLevel, _context: Context) -> dict[str, Any]:
        check(params.token)
        logs.set_level(params.level)
        logs.logger().info("admin call", method="admin_setLogLevel", level=params.level)
        return operations.admin_status()

    return [
        call("admin_status", lambda: None, "What the node is doing."),
        call("admin_pause", operations.pause, "Take no new transactions; those accepted are still sealed."),
        call("admin_resume", operations.resume, "Take new transactions again."),
        call("admin_sealNow", operations.seal_now, "Seal a block of what waits, at once."),
        call("admin_postNow", operations.post_now, "Close the open batch and post it."),
        call("admin_drain", operations.drain, "Stop intake, seal everything accepted, and end the node."),
        Method("admin_setLogLevel", LogLevel, dict[str, Any], set_log_level, "Set the level of the log."),
    ]
