"""The OpenRPC document of an endpoint, made from the very records that validate its requests.

`rpc.discover` answers with it. Schemas come from msgspec, so a field that is validated is documented, with
its bounds; shared types stand once under `components.schemas`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sequencer.errors import MEANING, ErrorCode
from sequencer.jsonrpc import Context, Method, NoParams, Registry

OPENRPC_VERSION: Final = "1.3.2"
_REF_TEMPLATE: Final = "#/components/schemas/{name}"


def document(registry: Registry, *, title: str, version: str, description: str = "") -> dict[str, Any]:
    """The OpenRPC 1.3.2 document of all methods in `registry`.

    Raises TypeError when msgspec cannot describe a parameter or result type.
    """
    methods = list(registry)
    types = [method.params for method in methods] + [method.result for method in methods]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF_TEMPLATE)
    results = schemas[len(methods) :]
    used_errors = sorted({code for method in methods for code in method.errors}, reverse=True)
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": title, "version": version, "description": description},
        "methods": [
            _method(method, result, components) for method, result in zip(methods, results, strict=True)
        ],
        "components": {
            "schemas": components,
            "errors": {code.name: _error(code) for code in used_errors},
        },
    }


def discover_method(registry: Registry, *, title: str, version: str, description: str = "") -> Method[Any]:
    """`rpc.discover` for `registry`, itself included once it is added. The document is encoded once."""
    encoded: list[msgspec.Raw] = []

    def discover(_params: NoParams, _context: Context) -> msgspec.Raw:
        if not encoded:
            whole = document(registry, title=title, version=version, description=description)
            encoded.append(msgspec.Raw(msgspec.json.encode(whole)))
        return encoded[0]

    return Method(
        name="rpc.discover",
        params=NoParams,
        result=dict[str, Any],
        handler=discover,
        summary="This document: every method with its parameters, result and errors (OpenRPC).",
    )


def _method(method: Method[Any], result: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    schema = components[_component_name(method.params)]
    required = schema.get("required", [])
    entry: dict[str, Any] = {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": [
            {
                "name": name,
                "required": name in required,
                "schema": member,
                **({"description": member["description"]} if "description" in member else {}),
            }
            for name, member in schema["properties"].items()
        ],
        "result": {"name": "result", "schema": result},
        "errors": [{"$ref": f"#/components/errors/{code.name}"} for code in method.errors],
    }
    if method.description:
        entry["description"] = method.description
    return entry


def _component_name(params: type[msgspec.Struct]) -> str:
    (schema,), _ = msgspec.json.schema_components([params], ref_template="{name}")
    return str(schema["$ref"])


def _error(code: ErrorCode) -> dict[str, Any]:
    return {"code": int(code), "message": MEANING[code], "data": {"code": code.name}}
