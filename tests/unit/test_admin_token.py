"""The admin token's file is made whole or not at all, whatever stops the node while it makes it."""

import errno
import os
import stat
from pathlib import Path

import pytest

from sequencer.admin import TOKEN_BYTES, load_token
from sequencer.config_file import ConfigError


def test_a_disk_that_refuses_leaves_no_token_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "admin.token"

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(ConfigError, match="No space left"):
            load_token(path)
    assert not path.exists()
    assert len(load_token(path)) == 2 * TOKEN_BYTES


def test_what_a_killed_start_left_is_replaced(tmp_path: Path) -> None:
    path, left = tmp_path / "admin.token", tmp_path / "admin.token.new"
    left.touch(mode=0o644)
    token = load_token(path)
    assert path.read_text() == token + "\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not left.exists()
