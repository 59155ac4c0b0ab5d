"""The contracts' interfaces, read from the committed artifacts: calls, answers, events and errors as bytes.

One `Contract` stands for one artifact. Nothing here talks to L1.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from l1_bridge.types import L1Log, L1Unavailable
from state.hashing import keccak

PANIC = keccak(b"Panic(uint256)")[:4]
REASON = keccak(b"Error(string)")[:4]


class AbiError(ValueError):
    """Calldata that is not what the interface says, or a name that it does not have."""


class BadAnswer(L1Unavailable):
    """A node's answer is not what the contract would say: there is none, or the node babbles."""


def type_of(field: dict[str, Any]) -> str:
    """An ABI field's canonical type, tuples spelled out."""
    kind: str = field["type"]
    if not kind.startswith("tuple"):
        return kind
    inner = ",".join(type_of(part) for part in field["components"])
    return f"({inner}){kind[5:]}"


class Contract:
    """The interface of one contract."""

    def __init__(self, name: str, artifact: dict[str, Any]):
        self.name = name
        self.artifact = artifact
        self._entries: list[dict[str, Any]] = artifact["abi"]

    def call(self, function: str, *arguments: Any) -> bytes:
        """Calldata of a function call. Raises AbiError for an unknown function or unfit arguments."""
        inputs = self._find("function", function)["inputs"]
        types = [type_of(field) for field in inputs]
        try:
            return selector(function, inputs) + encode(types, arguments)
        except Exception as error:
            raise AbiError(f"{self.name}.{function}: {error}") from None

    def result(self, function: str, data: bytes) -> Any:
        """What a call returned: the value, or a tuple of several. Raises BadAnswer."""
        outputs = self._find("function", function)["outputs"]
        try:
            values = self._decode(outputs, data, function)
        except AbiError as error:
            raise BadAnswer(str(error)) from None
        return values[0] if len(values) == 1 else tuple(values)

    def arguments(self, function: str, data: bytes) -> dict[str, Any]:
        """Calldata back to named arguments. Raises AbiError when it is another call or does not decode."""
        inputs = self._find("function", function)["inputs"]
        if data[:4] != selector(function, inputs):
            raise AbiError(f"not a call of {self.name}.{function}")
        values = self._decode(inputs, data[4:], function)
        return {field["name"]: value for field, value in zip(inputs, values, strict=True)}

    def constructor(self, *arguments: Any) -> bytes:
        """Bytecode with constructor arguments: the data of a deployment."""
        inputs: list[dict[str, Any]] = next(
            (entry["inputs"] for entry in self._entries if entry["type"] == "constructor"), []
        )
        code = bytes.fromhex(self.artifact["bytecode"].removeprefix("0x"))
        return code + encode([type_of(field) for field in inputs], arguments)

    def topic(self, event: str) -> bytes:
        """The event's first topic."""
        entry = self._find("event", event)
        return keccak(signature(event, entry["inputs"]))

    def event(self, event: str, log: L1Log) -> dict[str, Any]:
        """A log's named values. Raises BadAnswer when it is another event's."""
        inputs = self._find("event", event)["inputs"]
        if not log.topics or log.topics[0] != self.topic(event):
            raise BadAnswer(f"not a {event} event")
        indexed = [field for field in inputs if field["indexed"]]
        plain = [field for field in inputs if not field["indexed"]]
        if len(log.topics) != 1 + len(indexed):
            raise BadAnswer(f"{event}: {len(log.topics)} topics")
        try:
            found = self._decode(plain, log.data, event)
            values = {field["name"]: value for field, value in zip(plain, found, strict=True)}
            for field, topic in zip(indexed, log.topics[1:], strict=True):
                values[field["name"]] = self._decode([field], topic, event)[0]
        except AbiError as error:
            raise BadAnswer(str(error)) from None
        return values

    def explain(self, data: bytes) -> str:
        """A revert's data in words: the custom error with its arguments, a reason string, or a panic."""
        if not data:
            return "reverted without a reason"
        try:
            if data[:4] == REASON:
                return str(decode(["string"], data[4:])[0])
            if data[:4] == PANIC:
                return f"Panic({decode(['uint256'], data[4:])[0]:#x})"
            for entry in self._errors.get(data[:4], ()):
                values = self._decode(entry["inputs"], data[4:], entry["name"])
                shown = ", ".join(
                    f"{field['name']}={'0x' + value.hex() if isinstance(value, bytes) else value}"
                    for field, value in zip(entry["inputs"], values, strict=True)
                )
                return f"{entry['name']}({shown})"
        except (DecodingError, AbiError):
            pass
        return f"reverted with 0x{data.hex()}"

    @cached_property
    def _errors(self) -> dict[bytes, list[dict[str, Any]]]:
        """Errors of all our contracts: a call may fail inside another one."""
        found: dict[bytes, list[dict[str, Any]]] = {}
        for entry in _all_entries():
            if entry["type"] == "error":
                found.setdefault(selector(entry["name"], entry["inputs"]), []).append(entry)
        return found

    def _find(self, kind: str, name: str) -> dict[str, Any]:
        for entry in self._entries:
            if entry["type"] == kind and entry["name"] == name:
                return entry
        raise AbiError(f"{self.name} has no {kind} {name}")

    def _decode(self, fields: Sequence[dict[str, Any]], data: bytes, what: str) -> list[Any]:
        try:
            return list(decode([type_of(field) for field in fields], data))
        except (DecodingError, OverflowError) as error:
            raise AbiError(f"{self.name}.{what}: {error}") from None


def signature(name: str, inputs: Iterable[dict[str, Any]]) -> bytes:
    return f"{name}({','.join(type_of(field) for field in inputs)})".encode()


def selector(name: str, inputs: Iterable[dict[str, Any]]) -> bytes:
    return keccak(signature(name, inputs))[:4]


@lru_cache(maxsize=1)
def _artifacts() -> dict[str, dict[str, Any]]:
    found = {}
    for path in files("l1_bridge.artifacts").iterdir():
        if path.name.endswith(".json"):
            artifact = json.loads(path.read_text())
            found[artifact["contractName"]] = artifact
    return found


def _all_entries() -> list[dict[str, Any]]:
    return [entry for artifact in _artifacts().values() for entry in artifact["abi"]]


@lru_cache(maxsize=8)
def contract(name: str) -> Contract:
    """The contract whose artifact is `artifacts/<name>.json`. Raises AbiError if there is none."""
    if name not in _artifacts():
        raise AbiError(f"no artifact for {name}")
    return Contract(name, _artifacts()[name])
