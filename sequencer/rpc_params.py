"""Parameters of a JSON-RPC method: decoded by one msgspec type, by name or by position, and explained.

Decoding is one pass in C. Only when it fails is the value looked at again, to say where it went wrong,
what was expected and what came.
"""

from __future__ import annotations

import re
from typing import Any, Final, Generic, TypeVar

import msgspec

from sequencer.errors import ErrorCode, RpcError

P = TypeVar("P", bound=msgspec.Struct)

GOT_MAX_CHARS: Final = 120

_PATH = re.compile(r" - at `(\$[^`]*)`$")
_EXPECTED = re.compile(r"^Expected `?(?P<expected>.+?)(?:, got `?(?P<got>[^`]+)`?)?$")
_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]*)|\[(\d+|\.\.\.)\]")


class ParamsDecoder(Generic[P]):
    """Decodes `params` into one Struct type.

    Raises TypeError at construction when the type would let unknown members pass.
    """

    def __init__(self, params: type[P]) -> None:
        config = params.__struct_config__
        if not config.forbid_unknown_fields or config.array_like:
            raise TypeError(f"{params.__name__}: parameters need forbid_unknown_fields and named members")
        positional = msgspec.defstruct(f"{params.__name__}ByPosition", [], bases=(params,), array_like=True)
        self._field_names = tuple(field.encode_name for field in msgspec.structs.fields(params))
        self._by_name = msgspec.json.Decoder(params)
        self._by_position: msgspec.json.Decoder[Any] = msgspec.json.Decoder(positional)

    def decode(self, raw: bytes | msgspec.Raw) -> P:
        """The parameters; empty input and null stand for none.

        Raises RpcError INVALID_PARAMS, with what was expected, what came and where in `data`, or
        INVALID_REQUEST when `params` is neither an array nor an object.
        """
        first = memoryview(raw)[:1].tobytes()
        try:
            if first == b"{":
                return self._by_name.decode(raw)
            if first == b"[":
                return self._by_position.decode(raw)  # type: ignore[no-any-return]
            if first in (b"", b"n"):
                return self._by_name.decode(b"{}")
        except msgspec.ValidationError as error:
            raise self._explained(error, bytes(raw)) from None
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise RpcError(ErrorCode.INVALID_PARAMS, data={"message": str(error)[:200]}) from None
        raise RpcError(ErrorCode.INVALID_REQUEST, "params must be an array or an object")

    def _explained(self, error: msgspec.ValidationError, raw: bytes) -> RpcError:
        message = str(error)
        found = _PATH.search(message)
        path = found.group(1) if found else "$"
        problem = message[: found.start()] if found else message
        data: dict[str, object] = {"message": problem[:300], "path": path}
        expected = _EXPECTED.match(problem)
        if expected:
            data["expected"] = expected.group("expected").replace("`", "")
        steps = _STEP.findall(path)
        if steps and steps[0][1].isdigit() and int(steps[0][1]) < len(self._field_names):
            data["param"] = self._field_names[int(steps[0][1])]
        got = _value_at(raw, steps)
        if got is not msgspec.UNSET:
            data["got"] = _shortened(got)
        return RpcError(ErrorCode.INVALID_PARAMS, f"invalid params at {path}: {problem[:300]}", data)


def _value_at(raw: bytes, steps: list[tuple[str, str]]) -> object:
    """What stands at the path of a validation error, or UNSET when it cannot be told."""
    try:
        value: Any = msgspec.json.decode(raw) if raw else {}
    except (msgspec.DecodeError, RecursionError, ValueError):
        return msgspec.UNSET
    for member, index in steps:
        try:
            value = value[member] if member else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return msgspec.UNSET
    return value


def _shortened(value: object) -> object:
    """The value itself when short, else the head of its JSON text."""
    text = msgspec.json.encode(value)
    if len(text) <= GOT_MAX_CHARS:
        return value
    return text[:GOT_MAX_CHARS].decode(errors="replace") + "..."
