"""The golden vectors still hold: made anew they are the same, and each decodes to what it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import msgspec

from l1_bridge.batch import data_commitment, decode_batch
from state import eip712
from state.actions import Action, OracleUpdate, Payload
from state.codec import MarketEntry, decode_transaction, encode_transaction
from state.hashing import keccak
from state.wire import to_oracle_update, to_signed_action
from state.wire_msgpack import decode_msgpack, encode_msgpack
from state.wire_types import OracleUpdateJson, SignedActionJson
from tests.vectors.codec_vectors import build_codec, build_eip712


def load(name: str) -> Any:
    return json.loads((Path(__file__).parent / name).read_text())


def test_nothing_changed() -> None:
    assert build_eip712() == load("eip712.json")
    assert build_codec() == load("codec.json")


def test_digests_and_signatures() -> None:
    vectors = load("eip712.json")
    domain = eip712.Domain(vectors["chain_id"], bytes.fromhex(vectors["contract"]))
    assert domain.separator.hex() == vectors["domain_separator"]
    market_of = {"BTC-PERPETUAL": 1, "ETH-PERPETUAL": 2}
    names = {market: keccak(name.encode()) for name, market in market_of.items()}
    assert len(vectors["actions"]) >= 10
    for case in vectors["actions"]:
        signed = to_signed_action(
            msgspec.convert(case["transaction"], SignedActionJson), market_of.__getitem__
        )
        assert signed.signature.hex() == case["signature"]
        checked = eip712.check(domain, signed.action, signed.signature, names.__getitem__)
        assert checked.digest.hex() == case["digest"]
        assert checked.struct_hash.hex() == case["struct_hash"]
        assert checked.type_hash.hex() == vectors["type_hashes"][case["transaction"]["action"]["type"]]
        assert checked.recovered is not None
        assert checked.recovered.hex() == vectors["signer"]
        assert eip712.transaction_hash(checked.digest, signed.signature).hex() == case["transaction_hash"]


def test_encodings() -> None:
    vectors = load("codec.json")
    table = {int(market): MarketEntry(*entry) for market, entry in vectors["table"].items()}
    market_of = {name: int(market) for market, name in vectors["instruments"].items()}
    seen: list[Payload] = []
    for case in vectors["transactions"]:
        payload: Payload
        if "reports" in case["json"]:
            payload = to_oracle_update(msgspec.convert(case["json"], OracleUpdateJson))
        else:
            payload = to_signed_action(msgspec.convert(case["json"], SignedActionJson), market_of.__getitem__)
            assert decode_msgpack(bytes.fromhex(case["msgpack"])) == payload
            assert encode_msgpack(payload).hex() == case["msgpack"]
        encoded = bytes.fromhex(case["encoded"])
        assert encode_transaction(payload, case["block_timestamp_ms"], table) == encoded
        assert decode_transaction(encoded, 0, case["block_timestamp_ms"], table) == (payload, len(encoded))
        seen.append(payload)
    kinds = {p.KIND if isinstance(p, OracleUpdate) else p.action.KIND for p in seen}
    assert kinds == {OracleUpdate.KIND} | {kind.KIND for kind in get_args(Action)}
    batch = bytes.fromhex(vectors["batch"])
    decoded = decode_batch(batch)
    assert decoded.undecodable_at is None
    assert [payload for block in decoded.blocks for payload in block.transactions] == seen
    assert [block.offset for block in decoded.blocks] == vectors["block_offsets"]
    assert data_commitment(batch).hex() == vectors["data_commitment"]
