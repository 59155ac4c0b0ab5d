"""Keys from configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eth_account import Account

from sequencer.config import KeySection
from sequencer.config_file import ConfigError, Secret
from sequencer.signing import load_key
from state.signatures import address_of, recover

SECRET = b"\x11" * 32


def test_a_key_from_the_environment_signs_and_hides() -> None:
    key = load_key(KeySection(private_key=Secret("0x" + SECRET.hex())), "sequencer_key")
    assert recover(b"d" * 32, key.sign(b"d" * 32)) == key.address == address_of(SECRET)
    assert SECRET.hex() not in repr(key)


def test_a_keystore_with_a_password_file(tmp_path: Path) -> None:
    keystore, password = tmp_path / "key.json", tmp_path / "password"
    keystore.write_text(json.dumps(Account.encrypt(SECRET, "open sesame", kdf="pbkdf2", iterations=10)))
    password.write_text("open sesame\n")
    section = KeySection(keystore=str(keystore), password_file=str(password))
    assert load_key(section, "poster_key").address == address_of(SECRET)
    wrong = KeySection(keystore=str(keystore), password=Secret("sesame"))
    with pytest.raises(ConfigError, match="wrong password") as raised:
        load_key(wrong, "poster_key")
    assert "sesame" not in str(raised.value).replace(str(keystore), "")


@pytest.mark.parametrize(
    ("section", "said"),
    [
        (KeySection(), "no key; set poster_key.keystore"),
        (KeySection(private_key=Secret("0x12")), "not 32 bytes of hex"),
        (KeySection(private_key=Secret("00" * 32)), "not 32 bytes of hex that make a key"),
        (KeySection(keystore="/nonexistent/key.json", password=Secret("x")), "nonexistent"),
    ],
)
def test_what_is_wrong_with_a_key_is_said(section: KeySection, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_key(section, "poster_key")
    assert said in str(raised.value)
