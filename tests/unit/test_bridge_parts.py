"""Blob layout, keys, interfaces and deployments: the bridge's parts that need no L1."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import msgspec
import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from l1_bridge.abi import AbiError, BadAnswer, contract, selector
from l1_bridge.blobs import (
    BLOB_BYTES,
    DATA_BYTES_PER_BLOB,
    BlobError,
    blob_count,
    pack,
    split_sidecar,
    unpack,
)
from l1_bridge.deploy import Deployment
from l1_bridge.keys import (
    DEVNET_KEYS,
    KeyRefused,
    Signer,
    devnet_signer,
    write_keystore,
)
from l1_bridge.types import L1Log
from state.signatures import address_of


@given(st.integers(1, 3 * DATA_BYTES_PER_BLOB), st.integers(0, 2**32))
def test_what_is_packed_is_unpacked(size: int, seed: int) -> None:
    data = Random(seed).randbytes(size)
    blobs = pack(data)
    assert len(blobs) == blob_count(size)
    assert all(len(blob) == BLOB_BYTES for blob in blobs)
    assert not any(any(blob[::32]) for blob in blobs)
    assert unpack(blobs, size) == data


def test_a_byte_lies_where_the_protocol_says() -> None:
    data = Random(1).randbytes(2 * DATA_BYTES_PER_BLOB)
    blobs = pack(data)
    for i in (0, 30, 31, 126_975, 126_976, 200_000):
        blob, element = blobs[i // 126_976], i // 31 % 4096
        assert blob[element * 32 + 1 + i % 31] == data[i]


@pytest.mark.parametrize(
    ("blobs", "size"), [([], 1), ([bytes(BLOB_BYTES)], DATA_BYTES_PER_BLOB + 1), ([b""], 1)]
)
def test_blobs_that_cannot_hold_the_data_are_refused(blobs: list[bytes], size: int) -> None:
    with pytest.raises(BlobError):
        unpack(blobs, size)


def test_nothing_is_not_packed() -> None:
    with pytest.raises(BlobError):
        pack(b"")


@pytest.mark.parametrize("raw", [b"\x03", b"\x03\xc0", b"\x03" + bytes(40), b"\x03\xc3\x01\x02\x03"])
def test_a_blob_transaction_without_a_sidecar_is_refused(raw: bytes) -> None:
    with pytest.raises(BlobError):
        split_sidecar(raw)


def test_a_signer_never_shows_its_secret() -> None:
    secret = bytes(range(2, 34))
    signer = Signer(Account.from_key(secret))
    assert repr(signer) == f"Signer(0x{address_of(secret).hex()})"
    signer.check_chain(1)


def test_a_keystore_is_private_written_once_and_opens_with_its_password(tmp_path: Path) -> None:
    path, secret = tmp_path / "key.json", bytes(range(1, 33))
    assert write_keystore(path, secret, "correct horse") == address_of(secret)
    assert path.stat().st_mode & 0o777 == 0o600
    assert secret.hex() not in path.read_text()
    assert Account.decrypt(json.loads(path.read_text()), "correct horse") == secret
    with pytest.raises(FileExistsError):
        write_keystore(path, secret, "again")


@pytest.mark.parametrize("index", range(len(DEVNET_KEYS)))
def test_development_keys_are_refused_elsewhere(index: int) -> None:
    signer = devnet_signer(index)
    signer.check_chain(31337)
    for chain_id in (1, 11155111):
        with pytest.raises(KeyRefused, match="not a devnet"):
            signer.check_chain(chain_id)


def test_calls_go_there_and_back() -> None:
    abi = contract("Rollup")
    header, proof = (1, 0, b"\x01" * 32, b"\x02" * 32), (b"leaf", [b"\x03" * 32], b"\x06")
    call = abi.call("postBatch", header, b"data", proof)
    assert abi.arguments("postBatch", call) == {
        "header": header,
        "data": b"data",
        "proof": (b"leaf", (b"\x03" * 32,), b"\x06"),
    }
    with pytest.raises(AbiError):
        abi.arguments("postBatch", call[:-40])
    with pytest.raises(AbiError):
        abi.arguments("postBatch", b"\0\0\0\0" + call[4:])
    with pytest.raises(AbiError):
        abi.call("postBatch", header)
    with pytest.raises(AbiError):
        abi.call("noSuchFunction")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "reverted without a reason"),
        ("12345678", "reverted with 0x12345678"),
        ("4e487b71" + "11".rjust(64, "0"), "Panic(0x11)"),
        ("4e487b71", "reverted with 0x4e487b71"),
    ],
)
def test_reverts_are_put_in_words(data: str, words: str) -> None:
    assert contract("Rollup").explain(bytes.fromhex(data)) == words


def test_an_error_of_another_contract_is_named_too() -> None:
    inputs = [{"type": "uint64"}]
    data = selector("AlreadyClaimed", inputs) + (7).to_bytes(32, "big")
    assert contract("Rollup").explain(data) == "AlreadyClaimed(number=7)"


def test_a_log_of_another_event_is_refused() -> None:
    strange = L1Log(bytes(20), (bytes(32),), b"", 1, bytes(32), bytes(32), 0)
    with pytest.raises(BadAnswer):
        contract("Inbox").event("MessageQueued", strange)


def test_a_deployment_is_written_and_read_and_strict(tmp_path: Path) -> None:
    address = "0x" + "11" * 20
    deployment = Deployment(31337, 7, address, address, address, address, 2, "0x" + "22" * 32)
    path = tmp_path / "deployment.json"
    deployment.save(path)
    assert Deployment.load(path) == deployment
    assert list(tmp_path.iterdir()) == [path]
    path.write_text(path.read_text().replace('"rollup":', '"rolup":'))
    with pytest.raises(msgspec.ValidationError):
        Deployment.load(path)
