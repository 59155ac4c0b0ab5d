"""Keys from configuration, and signature recovery in worker processes."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
import trio
from eth_account import Account

from sequencer.config import KeySection
from sequencer.config_file import ConfigError, Secret
from sequencer.recovery import InlineRecovery, ProcessRecovery, Signers
from sequencer.recovery_worker import COUNT, work
from sequencer.signing import load_key
from state.eip712 import address_of, recover, sign

SECRET = b"\x11" * 32
SEED = 3


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


def signatures(count: int) -> list[tuple[bytes, bytes | None]]:
    """(digest | signature, expected signer); some are nobody's."""
    chance = random.Random(SEED)
    made: list[tuple[bytes, bytes | None]] = []
    for _ in range(count):
        digest = chance.randbytes(32)
        if chance.random() < 0.2:
            made.append((digest + b"\xff" * 64, None))
        else:
            secret = chance.randbytes(32)
            made.append((digest + sign(digest, secret), address_of(secret)))
    return made


async def test_processes_answer_what_the_inline_check_answers() -> None:
    expected: dict[int, Signers] = {}
    inline = InlineRecovery(expected.__setitem__)
    found: dict[int, Signers] = {}
    complete = trio.Event()

    def on_recovered(item: int, signers: Signers) -> None:
        found[item] = signers
        if len(found) == 60:
            complete.set()

    made = signatures(180)
    processes = ProcessRecovery(2, on_recovered)
    async with trio.open_nursery() as nursery:
        await nursery.start(processes.run)
        for item in range(60):  # items of one, two and three signatures
            pairs = b"".join(pair for pair, _ in made[3 * item : 3 * item + 1 + item % 3])
            inline.submit(item, pairs)
            processes.submit(item, pairs)
        with trio.fail_after(30):
            await complete.wait()
        nursery.cancel_scope.cancel()
    assert found == expected
    assert expected[2] == tuple(signer for _, signer in made[6:9])
    assert None in {signer for signers in found.values() for signer in signers}


def test_a_worker_ends_when_its_input_ends_within_a_batch() -> None:
    pair, signer = signatures(1)[0]
    assert signer is not None
    sink = io.BytesIO()
    work(io.BytesIO(COUNT.pack(1) + pair + COUNT.pack(2) + pair), sink)
    assert sink.getvalue() == b"\x01" + signer
