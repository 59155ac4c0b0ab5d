"""Configuration: files, environment, secrets, and the default text made from the definitions."""

from __future__ import annotations

from pathlib import Path

import pytest

from sequencer.config import NodeConfig, VerifierConfig
from sequencer.config_file import ConfigError, Secret, default_text, load
from sequencer.oracle_publisher import OracleConfig


def write(directory: Path, text: str) -> Path:
    path = directory / "node.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("role", [NodeConfig, VerifierConfig, OracleConfig])
def test_the_default_text_is_the_default_configuration(
    role: type[NodeConfig | VerifierConfig | OracleConfig], tmp_path: Path
) -> None:
    text = default_text(role)
    assert load(role, write(tmp_path, text), {}) == role()
    keys = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
    assert len(keys) > 5


def test_every_secret_is_named_but_not_set_in_the_default_text() -> None:
    text = default_text(NodeConfig)
    assert "STRADDLE_POSTER_KEY_PRIVATE_KEY" in text
    assert "\nprivate_key" not in text


def test_file_then_environment(tmp_path: Path) -> None:
    path = write(tmp_path, "[blocks]\nblock_interval_ms = 20\n[server]\nport = 9000\n")
    environment = {
        "STRADDLE_SERVER_PORT": "9100",
        "STRADDLE_SERVER_CORS_ORIGINS": '["https://a.example"]',
        "HOME": "/nowhere",
    }
    config = load(NodeConfig, path, environment)
    assert (config.blocks.block_interval_ms, config.server.port) == (20, 9100)
    assert config.server.cors_origins == ("https://a.example",)


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("[blocks]\nblock_interval = 5\n", {}, "did you mean block_interval_ms?"),
        ("[block]\n", {}, "unknown table [block]; did you mean blocks?"),
        ("blocks = 3\n", {}, "expected a table [blocks]"),
        ("[server]\nport = '80'\n", {}, "server.port: Expected `int`"),
        ("[server]\nport = 70000\n", {}, "server.port: must be"),
        ("[blocks]\nblock_interval_ms = 0\n", {}, "block_interval_ms: must be at least 1"),
        ("", {"STRADDLE_SERVER_PROT": "1"}, "did you mean STRADDLE_SERVER_PORT?"),
        ("", {"STRADDLE_SERVER_PORT": "eighty"}, "server.port: Expected `int`"),
        ("[node\n", {}, "not TOML"),
        ("[node]\nlog_level = 'loud'\n", {}, "node.log_level"),
        ("[poster_key]\nprivate_key = '0x01'\n", {}, "set STRADDLE_POSTER_KEY_PRIVATE_KEY instead"),
        ("[batches]\nmax_bytes = 2000000\n", {}, "the protocol allows 1048576"),
        ("[batches]\nmax_age_ms = 10\n", {}, "batches.max_age_ms: must not be shorter"),
        ("[batches]\nmax_delay_ms = 59999\n", {}, "max_delay_ms: must not be shorter than max_age_ms"),
        ("[mempool]\nmax_transactions = 1000\n", {}, "blocks.max_transactions: must not exceed"),
        ("[mempool]\nmax_per_account = 100000\n", {}, "max_per_account: must not exceed"),
        ('[poster]\ndata = "calldata"\n', {}, "batches.max_bytes: as calldata"),
        ("[l1]\nurl = 'http://localhost:8545'\n", {}, "rollup: the contract's address is needed"),
        ("[limits]\nmax_batch = 0\n", {}, "limits.max_batch"),
        ("[admin]\nport = 8645\n", {}, "admin.port: must differ"),
    ],
)
def test_what_is_wrong_is_said(text: str, environment: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load(NodeConfig, write(tmp_path, text), environment)
    assert said in str(raised.value)


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "[servr]\n[blocks]\nspeed = 1\n")
    with pytest.raises(ConfigError) as raised:
        load(NodeConfig, path, {"STRADDLE_NODE_CHAIN_ID": "many"})
    assert len(str(raised.value).splitlines()) == 3


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        load(NodeConfig, tmp_path / "missing.toml", {})


def test_secrets_never_show() -> None:
    config = load(NodeConfig, None, {"STRADDLE_SEQUENCER_KEY_PRIVATE_KEY": "0x" + "5e" * 32})
    assert config.sequencer_key.private_key.reveal() == "0x" + "5e" * 32
    assert "5e5e" not in repr(config)
    assert "5e5e" not in f"{config.sequencer_key.private_key} {Secret('5e5e')}"


def test_keystore_and_key_together_are_refused() -> None:
    environment = {
        "STRADDLE_POSTER_KEY_PRIVATE_KEY": "0x" + "01" * 32,
        "STRADDLE_POSTER_KEY_KEYSTORE": "poster.json",
    }
    with pytest.raises(ConfigError, match="choose one"):
        load(NodeConfig, None, environment)
