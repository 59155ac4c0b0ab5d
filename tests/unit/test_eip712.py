"""Digests equal eth_account's, type strings equal PROTOCOL's, and only well-formed signatures recover."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eth_account import Account
from eth_account.messages import SignableMessage, encode_typed_data
from hypothesis import given, settings

import state
from state import eip712, eip712_types
from state.actions import Action, BulkOrders, OracleReport, Rate
from state.eip712 import Domain, action_digest, header_digest, header_hash, report_digest
from state.errors import Rejected
from state.hashing import keccak
from state.signatures import Recoverer, address_of, normalise_signature, recover, recover_many, sign
from state.typed_data import typed_data
from tests.property.action_strategies import ACTION_TYPES, INSTRUMENTS, any_wire_action, oracle_reports
from tests.vectors.codec_vectors import ACTIONS, HEADER, REPORT

DOMAIN = Domain(421_614, bytes(range(20)))
NAMES = {market: keccak(name.encode()) for market, name in INSTRUMENTS.items()}
SECRET = keccak(b"a trader")
ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


def reference_digest(struct: Any) -> bytes:
    full: dict[str, Any] = typed_data(DOMAIN, struct, INSTRUMENTS.__getitem__)
    return _digest(encode_typed_data(full_message=full))


def _digest(message: SignableMessage) -> bytes:
    return keccak(b"\x19" + message.version + message.header + message.body)


def digest_of(action: Action) -> bytes:
    return action_digest(DOMAIN, action, NAMES.__getitem__)


def test_every_action_is_covered() -> None:
    assert {type(action) for action in ACTIONS} == set(ACTION_TYPES)
    sizes = {
        tuple(map(len, (each.cancels, each.replacements, each.orders)))
        for each in ACTIONS
        if isinstance(each, BulkOrders)
    }
    assert (0, 0, 0) in sizes, "empty arrays are a case of their own"
    assert any(all(size) for size in sizes)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: f"{type(action).__name__}-{action.nonce}")
def test_digests_equal_eth_accounts(action: Action) -> None:
    assert digest_of(action) == reference_digest(action)


@settings(max_examples=60)
@given(oracle_reports)
def test_digests_of_any_report_equal_eth_accounts(report: OracleReport) -> None:
    assert report_digest(DOMAIN, report) == reference_digest(report)


@settings(max_examples=80)
@given(any_wire_action)
def test_digests_of_any_action_equal_eth_accounts(action: Action) -> None:
    assert digest_of(action) == reference_digest(action)


def test_report_and_header_digests_equal_eth_accounts() -> None:
    assert report_digest(DOMAIN, REPORT) == reference_digest(REPORT)
    empty = OracleReport(2**64 - 1, (), bytes(64))
    assert report_digest(DOMAIN, empty) == reference_digest(empty)
    assert header_digest(DOMAIN, HEADER) == reference_digest(HEADER)
    assert keccak(b"\x19\x01" + DOMAIN.separator + header_hash(HEADER)) == header_digest(DOMAIN, HEADER)


def test_type_strings_are_those_of_the_protocol() -> None:
    page = (Path(state.__file__).parent / "PROTOCOL.md").read_text()
    block = page[page.index("```\nOrder(") :].split("```")[1]
    end = "deadline_s,uint64 max_fee_uusd,uint64 priority_bid_uusd"
    documented = dict(re.findall(r"^(\w+)\((.*)\)$", block.replace("...", f"uint64 {end}"), re.MULTILINE))
    ours = {name: eip712_types.type_string(name) for name in eip712_types.TYPES if name != "EIP712Domain"}
    assert documented.keys() == ours.keys()
    for name, text in ours.items():
        nested = "".join(f"{each}({documented[each]})" for each in eip712_types.nested_types(name))
        assert text == f"{name}({documented[name]}){nested}"


def test_the_domain_binds_chain_and_contract() -> None:
    others = [Domain(1, bytes(range(20))), Domain(421_614, bytes(20)), Domain(2**200, bytes(range(20)))]
    digests = {action_digest(domain, ACTIONS[0], NAMES.__getitem__) for domain in (DOMAIN, *others)}
    assert len(digests) == 4
    with pytest.raises(ValueError, match="19 bytes"):
        Domain(1, bytes(19))


def test_an_unknown_market_has_no_digest() -> None:
    with pytest.raises(KeyError):
        action_digest(DOMAIN, ACTIONS[0], dict[int, bytes]().__getitem__)


def test_large_numbers_reach_wallets_as_strings() -> None:
    action = msgspec.structs.replace(ACTIONS[0], nonce=2**53, account=2**53 - 1)
    message = typed_data(DOMAIN, action, INSTRUMENTS.__getitem__)["message"]
    assert message["nonce"] == "9007199254740992"
    assert message["account"] == 2**53 - 1
    report = OracleReport(1, (), bytes(64), (Rate("BTC-27DEC26", -(2**53), 1),))
    message = typed_data(DOMAIN, report, INSTRUMENTS.__getitem__)["message"]
    assert message["rates"][0]["value_ppb"] == "-9007199254740992"


def test_numbers_beyond_64_bits_have_no_digest() -> None:
    for value in (2**63, -(2**63) - 1, 2**300):
        with pytest.raises(OverflowError):
            report_digest(DOMAIN, OracleReport(1, (), bytes(64), (Rate("A", value, 1),)))


# Signatures


def test_sign_and_recover() -> None:
    for number in range(40):
        digest = keccak(number.to_bytes(4, "big"))
        signature = sign(digest, SECRET)
        assert recover(digest, signature) == address_of(SECRET)
        assert recover(keccak(digest), signature) != address_of(SECRET)


def test_wallets_signatures_are_ours() -> None:
    wallet = Account.from_key(SECRET)
    assert bytes.fromhex(wallet.address[2:]) == address_of(SECRET)
    for action in ACTIONS:
        full = typed_data(DOMAIN, action, INSTRUMENTS.__getitem__)
        signed = wallet.sign_message(encode_typed_data(full_message=full))
        digest = digest_of(action)
        assert normalise_signature(bytes(signed.signature)) == sign(digest, SECRET)
        with_parity = bytes(signed.signature)[:64] + bytes((signed.v - 27,))
        assert normalise_signature(with_parity) == sign(digest, SECRET)
        assert normalise_signature(sign(digest, SECRET)) == sign(digest, SECRET)


def _split(signature: bytes) -> tuple[int, int, int]:
    s = int.from_bytes(signature[32:], "big")
    return int.from_bytes(signature[:32], "big"), s & (2**255 - 1), s >> 255


def _joined(r: int, s: int, parity: int) -> bytes:
    return r.to_bytes(32, "big") + (s | parity << 255).to_bytes(32, "big")


def test_malformed_signatures_recover_to_nobody() -> None:
    digest = keccak(b"digest")
    r, s, parity = _split(sign(digest, SECRET))
    assert recover(digest, _joined(r, s, parity)) == address_of(SECRET)
    high = ORDER - s
    assert high > ORDER // 2
    bad = {
        "high s": _joined(r, min(high, 2**255 - 1), 1 - parity),
        "lowest high s": _joined(r, ORDER // 2 + 1, parity),
        "zero r": _joined(0, s, parity),
        "zero s": _joined(r, 0, parity),
        "r is the order": _joined(ORDER, s, parity),
        "r above the order": _joined(2**256 - 1, s, parity),
        "zeros": bytes(64),
        "ones": b"\xff" * 64,
        "empty": b"",
        "63 bytes": _joined(r, s, parity)[:63],
        "65 bytes": _joined(r, s, parity) + b"\x00",
    }
    assert {name: recover(digest, signature) for name, signature in bad.items()} == dict.fromkeys(bad)


def test_the_other_parity_is_another_signer() -> None:
    digest = keccak(b"digest")
    r, s, parity = _split(sign(digest, SECRET))
    assert recover(digest, _joined(r, s, 1 - parity)) not in (None, address_of(SECRET))


def test_a_recoverer_finds_what_recover_finds() -> None:
    """One after the other, good and bad: nothing is left over from the one before."""
    rng = random.Random(9)
    recoverer = Recoverer()
    made = []
    for _ in range(200):
        digest = rng.randbytes(32)
        signature = sign(digest, rng.randbytes(32))
        r, rest = signature[:32], signature[32:]
        made += [
            (digest, signature),
            (digest, r + bytes((rest[0] ^ 0x80,)) + rest[1:]),
            (keccak(digest), signature),
            (digest, rng.choice([rest + r, rng.randbytes(64), bytes(64), r + bytes(32), bytes(32) + rest])),
            (digest, signature[: rng.randrange(64)]),
            (digest[:31], signature),
        ]
    expected = [recover(digest, signature) for digest, signature in made]
    assert [recoverer.recover(digest, signature) for digest, signature in made] == expected
    assert expected.count(None) > 400


def test_recover_many_keeps_order() -> None:
    digests = [keccak(bytes((number,))) for number in range(5)]
    pairs = [(digest, sign(digest, SECRET)) for digest in digests]
    pairs[2] = (digests[2], bytes(64))
    ours = address_of(SECRET)
    assert recover_many(pairs) == [ours, ours, None, ours, ours]
    assert recover_many([]) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r, s: r + s + b"\x02", "v is not"),
        (lambda r, s: r + s + b"\x1a", "v is not"),
        (lambda r, s: r + s + b"\x1d", "v is not"),
        (lambda r, s: r + s + b"\xff", "v is not"),
        (lambda r, s: r + s[:-1], "length"),
        (lambda r, s: r + s + b"\x00\x00", "length"),
        (lambda r, s: b"", "length"),
        (lambda r, s: r + (ORDER - int.from_bytes(s, "big")).to_bytes(32, "big") + b"\x1b", "s is high"),
        (lambda r, s: r + (ORDER // 2 + 1).to_bytes(32, "big"), "s is high"),
    ],
)
def test_signatures_that_are_not_normalised(change: Any, reason: str) -> None:
    r, s, _ = _split(sign(keccak(b"digest"), SECRET))
    raw = change(r.to_bytes(32, "big"), s.to_bytes(32, "big"))
    with pytest.raises(Rejected, match="BAD_SIGNATURE") as caught:
        normalise_signature(raw)
    assert reason in str(caught.value)


@pytest.mark.parametrize("secret", [bytes(32), ORDER.to_bytes(32, "big")])
def test_secrets_that_are_not_keys(secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"[Ss]ecret"):
        sign(keccak(b"digest"), secret)


def test_check_shows_every_step() -> None:
    action = ACTIONS[0]
    digest = digest_of(action)
    found = eip712.check(DOMAIN, action, sign(digest, SECRET), NAMES.__getitem__)
    assert found.type_string.startswith("PlaceOrder(uint64 account,Order order,")
    assert found.type_hash == keccak(found.type_string.encode())
    assert found.digest == digest == keccak(b"\x19\x01" + found.domain_separator + found.struct_hash)
    assert found.recovered == address_of(SECRET)
    assert eip712.check(DOMAIN, action, bytes(64), NAMES.__getitem__).recovered is None


def test_transaction_hashes_depend_on_digest_and_signature() -> None:
    hashes = {
        eip712.transaction_hash(digest, signature)
        for digest in (bytes(32), b"\x01" * 32)
        for signature in (bytes(64), b"\x01" * 64)
    }
    assert len(hashes) == 4
    one, two = list(hashes)[:2]
    assert eip712.update_hash([one, two]) == keccak(one + two)
