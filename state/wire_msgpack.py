"""The msgpack form of signed actions: `[kind, [fields in the order of the typed data], signature]`.

Nested structs are arrays, enums and instruments numbers, addresses, hashes and signatures binary. Canonical:
data that re-encoding does not reproduce byte for byte is refused, so an action has one msgpack form.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, get_args

import msgspec

from state.actions import (
    Action,
    Cancel,
    Leg,
    Order,
    OrderKind,
    Quote,
    Replacement,
    Scope,
    SelfTrade,
    Side,
    SignedAction,
    TriggerCondition,
    TriggerSource,
)
from state.codec_format import is_name
from state.eip712_types import TYPES
from state.units import MAX_BULK_OPERATIONS
from state.wire import MAX_MARKET, MAX_U64, WireError

MAX_BYTES = 8_192
"""More than any action needs. It also bounds nesting: the decoder recurses in C, guarded only by Python's
recursion limit, and libraries that raise that limit would let deep nesting overflow the stack."""

_ACTIONS: dict[int, type[Any]] = {action.KIND: action for action in get_args(Action)}
_NESTED: dict[str, type[Any]] = {
    "Order": Order,
    "Cancel": Cancel,
    "Replacement": Replacement,
    "Leg": Leg,
    "Quote": Quote,
}
_ENUMS: dict[str, type[IntEnum]] = {
    "side": Side,
    "kind": OrderKind,
    "self_trade": SelfTrade,
    "scope": Scope,
    "source": TriggerSource,
    "condition": TriggerCondition,
}
_BINARY: dict[str, int] = {"address": 20, "bytes32": 32, "bytes": 64}
"""Lengths; the only `bytes` of ours are signatures."""


def encode_msgpack(signed: SignedAction) -> bytes:
    """The canonical msgpack of a signed action."""
    return msgspec.msgpack.encode((signed.action.KIND, _values(signed.action), signed.signature))


def decode_msgpack(data: bytes) -> SignedAction:
    """Inverse of `encode_msgpack`. Raises WireError for anything that it does not produce."""
    if len(data) > MAX_BYTES:
        raise WireError("$", f"at most {MAX_BYTES} bytes", str(len(data)))
    try:
        parts = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise WireError("$", "msgpack", str(error)) from None
    kind, fields, signature = _array(parts, 3, "$")
    action_type = _ACTIONS.get(kind) if type(kind) is int else None
    if action_type is None:
        raise WireError("$[0]", "the number of an action", _shown(kind))
    action = _struct(action_type, fields, "$[1]")
    signed = SignedAction(action, _binary(signature, 64, "$[2]"))
    if encode_msgpack(signed) != data:
        raise WireError("$", "the shortest encoding", "another")
    return signed


def _values(struct: Any) -> list[Any]:
    values: list[Any] = []
    for name, kind in TYPES[type(struct).__name__]:
        value = getattr(struct, "market" if name == "instrument" else name)
        if kind.endswith("[]"):
            value = [_values(item) for item in value] if kind[:-2] in _NESTED else list(value)
        elif kind in _NESTED:
            value = _values(value)
        elif name in _ENUMS:
            value = int(value)
        values.append(value)
    return values


def _struct(cls: type[Any], values: Any, path: str) -> Any:
    types = TYPES[cls.__name__]
    fields: dict[str, Any] = {}
    for place, ((name, kind), value) in enumerate(zip(types, _array(values, len(types), path), strict=True)):
        key = "market" if name == "instrument" else name
        fields[key] = _field(name, kind, value, f"{path}[{place}]")
    return cls(**fields)


def _field(name: str, kind: str, value: Any, path: str) -> Any:
    if name == "instrument":
        return _number(value, MAX_MARKET, path)
    if name in _ENUMS:
        enum = _ENUMS[name]
        return enum(_number(value, len(enum) - 1, path))
    if kind == "bool":
        if type(value) is not bool:
            raise WireError(path, "a boolean", _shown(value))
        return value
    if kind in _BINARY:
        return _binary(value, _BINARY[kind], path)
    if kind == "string":
        if type(value) is not str or not is_name(value.encode()):
            raise WireError(path, "a feed's name", _shown(value))
        return value
    if kind == "int64":
        if type(value) is not int or not -(2**63) <= value < 2**63:
            raise WireError(path, "an integer in -2^63..2^63-1", _shown(value))
        return value
    if kind.endswith("[]"):
        if type(value) is not list or len(value) > MAX_BULK_OPERATIONS:
            raise WireError(path, f"an array of at most {MAX_BULK_OPERATIONS}", _shown(value))
        nested = kind.removesuffix("[]")
        return tuple(_field("", nested, item, f"{path}[{place}]") for place, item in enumerate(value))
    if kind in _NESTED:
        return _struct(_NESTED[kind], value, path)
    return _number(value, MAX_U64, path)


def _number(value: Any, limit: int, path: str) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise WireError(path, f"an integer in 0..{limit}", _shown(value))
    return value


def _binary(value: Any, length: int, path: str) -> bytes:
    if type(value) is not bytes or len(value) != length:
        raise WireError(path, f"{length} bytes", _shown(value))
    return value


def _array(value: Any, length: int, path: str) -> list[Any]:
    if type(value) is not list or len(value) != length:
        raise WireError(path, f"an array of {length}", _shown(value))
    return value


def _shown(value: Any) -> str:
    if isinstance(value, list | dict | bytes | str):
        return f"{type(value).__name__} of {len(value)}"
    return str(value)
