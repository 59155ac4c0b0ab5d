"""The OpenRPC document: its structure, and that it is made from what validates."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec

from sequencer.errors import ErrorCode
from sequencer.feed import Feed
from sequencer.jsonrpc import Context, Dispatcher, Method, NoParams, Registry
from sequencer.openrpc import discover_method
from tests.unit.server_fixture import check_channel

SIZE = Annotated[int, msgspec.Meta(ge=1, le=10**12, description="Size in micro-lots.")]


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """An order."""

    instrument: str
    size_ulots: SIZE
    note: str | None = None


class Receipt(msgspec.Struct):
    """What became of it."""

    order: Order
    block: int


def discovered() -> dict[str, Any]:
    registry = Registry(
        [
            Method("place", Order, Receipt, lambda p, c: None, "Place.", "At length.", (ErrorCode.BUSY,)),
            Method("list", NoParams, list[Receipt], lambda p, c: [], "List."),
        ]
    )
    for method in Feed(check_channel, max_subscriptions=1).methods():
        registry.add(method)
    registry.add(discover_method(registry, title="Straddle", version="1.2.3"))
    dispatcher = Dispatcher(registry, lambda *_: None, max_batch=1, max_in_flight=1, max_answer_bytes=10**6)
    context = Context(peer="test", start_soon=lambda _: None)
    answer = dispatcher.dispatch(b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}', context, lambda _: None)
    assert answer
    document: dict[str, Any] = json.loads(answer)["result"]
    return document


def references(node: Any) -> list[str]:
    """Every `$ref` anywhere below."""
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [ref for child in node.values() for ref in references(child)]
    return [ref for child in node for ref in references(child)] if isinstance(node, list) else []


def test_structure_follows_the_specification() -> None:
    document = discovered()
    assert document["openrpc"] == "1.3.2"
    assert set(document["info"]) >= {"title", "version"}
    names = [method["name"] for method in document["methods"]]
    assert names == ["place", "list", "public/subscribe", "public/unsubscribe", "rpc.discover"]
    for method in document["methods"]:
        assert method["summary"]
        assert method["paramStructure"] in ("by-name", "by-position", "either")
        assert set(method["result"]) == {"name", "schema"}
        required = [param["required"] for param in method["params"]]
        assert required == sorted(required, reverse=True)
        for param in method["params"]:
            assert param["name"]
            assert isinstance(param["schema"], dict)
    for error in document["components"]["errors"].values():
        assert set(error) == {"code", "message", "data"}


def test_every_reference_resolves() -> None:
    document = discovered()
    found = references(document)
    assert "#/components/schemas/Receipt" in found
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_bounds_and_descriptions_come_from_the_types() -> None:
    document = discovered()
    place = document["methods"][0]
    assert place["description"] == "At length."
    assert place["errors"] == [{"$ref": "#/components/errors/BUSY"}]
    size = place["params"][1]
    assert size["description"] == "Size in micro-lots."
    assert size["schema"]["minimum"] == 1
    assert [param["required"] for param in place["params"]] == [True, True, False]
    assert document["components"]["errors"]["BUSY"]["code"] == ErrorCode.BUSY
    assert document["components"]["schemas"]["Order"]["description"] == "An order."
