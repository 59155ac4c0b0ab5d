"""Typed data as wallets and bot authors are shown it: the JSON of `eth_signTypedData_v4`.

What a signature over it covers is in `eip712`; the types are described in `eip712_types`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from state.actions import Action, OracleReport, Quote
from state.block import BlockHeader
from state.eip712 import Domain
from state.eip712_types import (
    DOMAIN_NAME,
    DOMAIN_VERSION,
    ORDER_KINDS,
    SCOPES,
    SELF_TRADES,
    SIDES,
    TRIGGER_CONDITIONS,
    TRIGGER_SOURCES,
    TYPES,
    nested_types,
)

_ENUMS: dict[str, tuple[str, ...]] = {
    "side": SIDES,
    "kind": ORDER_KINDS,
    "self_trade": SELF_TRADES,
    "scope": SCOPES,
    "source": TRIGGER_SOURCES,
    "condition": TRIGGER_CONDITIONS,
}
_SAFE_INTEGER: Final = 2**53 - 1
"""Larger numbers are not exact in JavaScript: wallets get them as decimal strings."""


def message(struct: Any, instrument_name: Callable[[int], str]) -> dict[str, Any]:
    """The fields of an action, quote, report, header or nested struct as the typed data names them.

    Integers stay integers, addresses and hashes become 0x-hex, enums and instruments strings.
    """
    values: dict[str, Any] = {}
    for name, kind in TYPES[type(struct).__name__]:
        if name == "instrument":
            values[name] = instrument_name(struct.market) if struct.market else ""
            continue
        value = getattr(struct, name)
        if name in _ENUMS:
            value = _ENUMS[name][value]
        elif kind in ("address", "bytes32", "bytes"):
            value = "0x" + value.hex()
        elif kind.endswith("[]"):
            value = [message(item, instrument_name) for item in value] if kind[:-2] in TYPES else list(value)
        elif kind in TYPES:
            value = message(value, instrument_name)
        values[name] = value
    return values


def _wallet_safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _wallet_safe(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_wallet_safe(item) for item in value]
    return str(value) if isinstance(value, int) and abs(value) > _SAFE_INTEGER else value


def typed_data(
    domain: Domain, struct: Action | Quote | OracleReport | BlockHeader, instrument_name: Callable[[int], str]
) -> dict[str, Any]:
    """The JSON object that `eth_signTypedData_v4` takes. Raises KeyError for an unknown market."""
    primary = type(struct).__name__
    return {
        "types": {
            each: [{"name": name, "type": kind} for name, kind in TYPES[each]]
            for each in ("EIP712Domain", primary, *nested_types(primary))
        },
        "primaryType": primary,
        "domain": {
            "name": DOMAIN_NAME,
            "version": DOMAIN_VERSION,
            "chainId": domain.chain_id,
            "verifyingContract": "0x" + domain.contract.hex(),
        },
        "message": _wallet_safe(message(struct, instrument_name)),
    }
