"""JSON and msgpack forms of signed actions: round trips, and each malformed input with where it is wrong."""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from typing import Any, get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from state import eip712, eip712_types
from state.actions import Action, BulkOrders, Order, OrderKind, SelfTrade, Side, SignedAction
from state.errors import Rejected
from state.typed_data import typed_data
from state.wire import WireError, to_json, to_oracle_update, to_signed_action
from state.wire_msgpack import MAX_BYTES, decode_msgpack, encode_msgpack
from state.wire_types import (
    ActionJson,
    AuthorizeSessionKeyJson,
    OracleUpdateJson,
    OrderJson,
    SignedActionJson,
)
from tests.property.action_strategies import INSTRUMENTS, MARKET_OF, any_wire_action
from tests.vectors.codec_vectors import ACTIONS, signed, signed_update

# Any bytes with a low s will do where nobody is recovered.
LOW_S = st.binary(min_size=64, max_size=64).map(lambda raw: raw[:32] + bytes((raw[32] & 0xBF,)) + raw[33:])
signed_actions = st.builds(SignedAction, any_wire_action, LOW_S)


def decode(data: Any) -> SignedAction:
    """As the node does: by type, then to the action."""
    if isinstance(data, dict):
        return to_signed_action(msgspec.convert(data, SignedActionJson), MARKET_OF.__getitem__)
    return to_signed_action(msgspec.json.decode(data, type=SignedActionJson), MARKET_OF.__getitem__)


def example(place: int = 0) -> dict[str, Any]:
    return deepcopy(to_json(signed(ACTIONS[place]), INSTRUMENTS.__getitem__))


@given(signed_actions)
def test_json_round_trips(payload: SignedAction) -> None:
    form = to_json(payload, INSTRUMENTS.__getitem__)
    assert decode(form) == payload
    assert decode(json.dumps(form)) == payload
    assert decode(json.dumps(_as_strings(form)).encode()) == payload


def _as_strings(value: Any) -> Any:
    """The same JSON with every integer as a decimal string."""
    if isinstance(value, dict):
        return {name: _as_strings(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_strings(item) for item in value]
    return str(value) if type(value) is int else value


@pytest.mark.parametrize("action", ACTIONS)
def test_json_is_what_the_wallet_signed(action: Action) -> None:
    domain = eip712.Domain(1, bytes(20))
    typed = typed_data(domain, action, INSTRUMENTS.__getitem__)
    form = {"action": {"type": typed["primaryType"], **typed["message"]}, "signature": "0x" + "00" * 65}
    assert decode(form).action == action


@given(signed_actions)
def test_msgpack_round_trips(payload: SignedAction) -> None:
    data = encode_msgpack(payload)
    assert decode_msgpack(data) == payload


@given(signed_actions, st.data())
def test_damaged_msgpack_is_refused_or_canonical(payload: SignedAction, data: st.DataObject) -> None:
    damaged = bytearray(encode_msgpack(payload))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 65))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_msgpack(bytes(damaged))
    except WireError:
        return
    assert encode_msgpack(decoded) == damaged


@given(st.binary(max_size=200))
def test_any_bytes_give_an_action_or_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_msgpack(data)
    with pytest.raises((msgspec.MsgspecError, UnicodeError)):
        decode(data)


def test_the_json_types_are_the_typed_data() -> None:
    """Field names and enum strings of the JSON types against those of the signed types."""
    types = {cls.__struct_config__.tag: cls for cls in get_args(ActionJson)}
    assert types.keys() == {cls.__name__ for cls in get_args(Action)}
    for name, cls in types.items():
        assert set(cls.__struct_fields__) == {field for field, _ in eip712_types.TYPES[str(name)]}
        assert msgspec.structs.fields(cls)[0].required
    order = get_type_hints(OrderJson)
    assert get_args(order["side"]) == eip712_types.SIDES
    assert get_args(order["kind"]) == eip712_types.ORDER_KINDS
    assert get_args(order["self_trade"]) == eip712_types.SELF_TRADES
    assert get_args(get_type_hints(AuthorizeSessionKeyJson)["scope"]) == eip712_types.SCOPES
    trigger = get_type_hints(types["PlaceTrigger"])
    assert get_args(trigger["source"]) == eip712_types.TRIGGER_SOURCES
    assert get_args(trigger["condition"]) == eip712_types.TRIGGER_CONDITIONS


def _with(path: str, value: Any, place: int = 0) -> dict[str, Any]:
    """An example with one value changed; `...` deletes."""
    form = example(place)
    *parents, last = path.split(".")
    target = form
    for name in parents:
        target = target[name]
    if value is ...:
        del target[last]
    else:
        target[last] = value
    return form


@pytest.mark.parametrize(
    ("form", "path", "expected"),
    [
        (_with("action.nonce", "x"), "$.action.nonce", "matching"),
        (_with("action.nonce", "007"), "$.action.nonce", "matching"),
        (_with("action.nonce", "7\n"), "$.action.nonce", "matching"),
        (_with("action.nonce", "-1"), "$.action.nonce", "matching"),
        (_with("action.nonce", ""), "$.action.nonce", "matching"),
        (_with("action.nonce", -1), "$.action.nonce", ">= 0"),
        (_with("action.nonce", 1.5), "$.action.nonce", "int | str"),
        (_with("action.nonce", True), "$.action.nonce", "int | str"),
        (_with("action.nonce", None), "$.action.nonce", "int | str"),
        (_with("action.nonce", 2**64), "$.action.nonce", "0..2^64-1"),
        (_with("action.nonce", str(2**64)), "$.action.nonce", "0..2^64-1"),
        (_with("action.nonce", "99999999999999999999"), "$.action.nonce", "0..2^64-1"),
        (_with("action.order.price_uusd", 2**64), "$.action.order.price_uusd", "0..2^64-1"),
        (_with("action.order.side", "BUY"), "$.action.order.side", "Invalid enum value"),
        (_with("action.order.kind", 0), "$.action.order.kind", "str"),
        (_with("action.order.reduce_only", 0), "$.action.order.reduce_only", "bool"),
        (_with("action.order.instrument", ""), "$.action.order.instrument", "length >= 1"),
        (_with("action.order.instrument", "A" * 32), "$.action.order.instrument", "length <= 31"),
        (_with("action.order.colour", 1), "$.action.order", "unknown field `colour`"),
        (_with("action.priority_bid_uusd", ...), "$.action", "field `priority_bid_uusd`"),
        (_with("action.order.expiry_s", ...), "$.action.order", "field `expiry_s`"),
        (_with("action.memo", "hello"), "$.action", "unknown field `memo`"),
        (_with("action.type", "OracleReport"), "$.action.type", "Invalid value"),
        (_with("action.type", ...), "$.action", "field `type`"),
        (_with("memo", 1), "$", "unknown field `memo`"),
        (_with("signature", ...), "$", "field `signature`"),
        (_with("signature", 5), "$.signature", "str"),
        (_with("action", []), "$.action", "object"),
        (_with("action.cancels", [{"instrument": "X", "order_id": 1}] * 65, 8), "$.action.cancels", "<= 64"),
        (_with("action.recipient", "0x12", 10), "$.action.recipient", "matching"),
        (_with("action.recipient", "0x" + "zz" * 20, 10), "$.action.recipient", "matching"),
        ("[]", "$", "object"),
    ],
)
def test_json_of_another_form(form: Any, path: str, expected: str) -> None:
    for data in (form, json.dumps(form)) if isinstance(form, dict) else (form,):
        with pytest.raises((WireError, msgspec.ValidationError)) as caught:
            decode(data)
        said = str(caught.value)
        assert expected in said
        assert path in said or path == "$"


def test_errors_inside_bulk_actions_say_where() -> None:
    form = example(8)
    form["action"]["orders"][2]["size_ulots"] = 2**64
    with pytest.raises(WireError, match=r"\$\.action\.orders\[2\]\.size_ulots"):
        decode(form)


def test_deep_nesting_is_refused_before_it_is_decoded() -> None:
    """Also where a library has raised Python's recursion limit, which is all that would guard the C stack."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200_000)
    try:
        for packed in (b"\x91" * 200_000, b"\x91" * MAX_BYTES):
            with pytest.raises(WireError):
                decode_msgpack(packed)
    finally:
        sys.setrecursionlimit(limit)


def test_the_largest_action_is_not_too_large() -> None:
    top = 2**64 - 1
    order = Order(2**32 - 1, Side.SELL, OrderKind.MARKET, top, top, True, top, SelfTrade.DECREMENT_BOTH)
    bulk = BulkOrders(
        account=top, nonce=top, deadline_s=top, max_fee_uusd=top, priority_bid_uusd=top, orders=(order,) * 64
    )
    payload = SignedAction(bulk, bytes(64))
    assert decode_msgpack(encode_msgpack(payload)) == payload
    assert decode(json.dumps(to_json(payload, INSTRUMENTS.__getitem__))) == payload


def test_unknown_instruments_have_a_reject_code() -> None:
    with pytest.raises(Rejected, match=r"UNKNOWN_INSTRUMENT.*DOGE-PERPETUAL"):
        decode(_with("action.order.instrument", "DOGE-PERPETUAL"))


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "0x",
        "0x12",
        "0x" + "11" * 66,
        "11" * 66,
        "0x" + "zz" * 65,
        "0x" + " 1" * 65,
        "0x" + "11" * 64 + "02",
    ],
)
def test_malformed_signatures_have_a_reject_code(signature: str) -> None:
    with pytest.raises(Rejected, match="BAD_SIGNATURE"):
        decode(_with("signature", signature))


def test_a_high_s_has_a_reject_code() -> None:
    form = example()
    form["signature"] = form["signature"][:66] + "ff" * 32 + "1b"
    with pytest.raises(Rejected, match="s is high"):
        decode(form)


def test_wallets_signatures_become_64_bytes() -> None:
    payload = signed(ACTIONS[0])
    raw = payload.signature
    s = bytes((raw[32] & 0x7F,)) + raw[33:]
    form = example()
    form["signature"] = "0x" + (raw[:32] + s + bytes((27 + (raw[32] >> 7),))).hex()
    assert decode(form) == payload


def test_oracle_updates() -> None:
    update = signed_update()
    form = to_json(update, INSTRUMENTS.__getitem__)
    assert to_oracle_update(msgspec.json.decode(msgspec.json.encode(form), type=OracleUpdateJson)) == update
    for feed in ("", "A B", "A\n", "é", "A" * 32):
        form["reports"][0]["prices"][0]["feed"] = feed
        with pytest.raises(msgspec.ValidationError, match=r"prices\[0\]\.feed|prices\[...\]\.feed"):
            msgspec.convert(form, OracleUpdateJson)
    form = to_json(update, INSTRUMENTS.__getitem__)
    form["reports"][0]["prices"][1]["value_uusd"] = 2**64
    with pytest.raises(WireError, match=r"\$\.reports\[0\]\.prices\[1\]\.value_uusd"):
        to_oracle_update(msgspec.convert(form, OracleUpdateJson))
    for list_name, field in (("rates", "value_ppb"), ("surfaces", "rho_pico")):
        form = to_json(update, INSTRUMENTS.__getitem__)
        form["reports"][0][list_name][0][field] = str(-(2**63))
        again = to_oracle_update(msgspec.convert(form, OracleUpdateJson))
        assert getattr(getattr(again.reports[0], list_name)[0], field) == -(2**63)
        form["reports"][0][list_name][0][field] = 2**63
        with pytest.raises(WireError, match=rf"\$\.reports\[0\]\.{list_name}\[0\]\.{field}"):
            to_oracle_update(msgspec.convert(form, OracleUpdateJson))
        for bad in ("-0", "+1", "01", "1 ", "-"):
            form["reports"][0][list_name][0][field] = bad
            with pytest.raises(msgspec.ValidationError, match=list_name):
                msgspec.convert(form, OracleUpdateJson)


def _packed(*, kind: Any = 1, place: int | None = None, value: Any = None, inner: int | None = None) -> bytes:
    """The msgpack of an example order with one value changed."""
    parts: list[Any] = msgspec.msgpack.decode(encode_msgpack(signed(ACTIONS[0])))
    parts[0] = kind
    if inner is not None:
        parts[1][1][inner] = value
    elif place is not None:
        parts[1][place] = value
    return msgspec.msgpack.encode(parts)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (_packed(kind=0), r"\$\[0\]"),
        (_packed(kind=20), r"\$\[0\]"),
        (_packed(kind="1"), r"\$\[0\]"),
        (_packed(kind=True), r"\$\[0\]"),
        (_packed(place=0, value=-1), r"\$\[1\]\[0\]"),
        (_packed(place=0, value="1"), r"\$\[1\]\[0\]"),
        (_packed(place=0, value=1.0), r"\$\[1\]\[0\]"),
        (_packed(place=1, value=[]), r"\$\[1\]\[1\]"),
        (_packed(inner=0, value=2**32), r"\$\[1\]\[1\]\[0\]"),
        (_packed(inner=1, value=2), r"\$\[1\]\[1\]\[1\]"),
        (_packed(inner=2, value=5), r"\$\[1\]\[1\]\[2\]"),
        (_packed(inner=5, value=0), r"\$\[1\]\[1\]\[5\]"),
        (_packed(inner=7, value=3), r"\$\[1\]\[1\]\[7\]"),
        (encode_msgpack(signed(ACTIONS[0])) + b"\x00", r"\$"),
        (encode_msgpack(signed(ACTIONS[0]))[:-1], r"\$"),
        (b"\x93\xcc\x01" + encode_msgpack(signed(ACTIONS[0]))[2:], "shortest"),
        (b"\xdc\x00\x03" + encode_msgpack(signed(ACTIONS[0]))[1:], "shortest"),
        (b"\xdd\xff\xff\xff\xff\x01", r"\$"),
        (b"\x80", r"\$"),
        (b"", r"\$"),
    ],
)
def test_msgpack_of_another_form(data: bytes, path: str) -> None:
    with pytest.raises(WireError, match=path):
        decode_msgpack(data)


def test_msgpack_lists_are_limited() -> None:
    parts = msgspec.msgpack.decode(encode_msgpack(signed(ACTIONS[8])))
    parts[1][1] = [[1, 1]] * 65
    with pytest.raises(WireError, match="at most 64"):
        decode_msgpack(msgspec.msgpack.encode(parts))
