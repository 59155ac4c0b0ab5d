"""What a wallet is given to sign: the EIP-712 JSON of any action, and of a quote."""

from __future__ import annotations

from typing import Any

import msgspec

from sequencer.api_context import ApiContext
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Method
from sequencer.receipts import hex_of
from sequencer.rfq_checks import decode_quote
from state.eip712 import action_digest, quote_digest
from state.typed_data import typed_data
from state.wire_types import ActionJson, QuoteJson, SignedActionJson

_UNSIGNED = "0x" + "00" * 64


class TypedDataParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of them: `action` as in a transaction, or `quote` as in ExecuteQuote, without signatures."""

    action: ActionJson | None = None
    quote: QuoteJson | None = None


class TypedDataView(msgspec.Struct, frozen=True):
    """`typed_data` is what `eth_signTypedData_v4` takes, `digest` what its signature is over."""

    typed_data: dict[str, Any]
    digest: str


class TypedDataApi:
    """The method."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_typedData",
                TypedDataParams,
                TypedDataView,
                self._typed_data,
                "The EIP-712 typed data of an action or a quote, for a wallet to sign.",
                "Only its form is checked, not whether it would be executed. The signature is sent with the "
                "same action or quote; a wallet's 65 bytes will do, but for quote_signature, which is 64.",
            )
        ]

    def _typed_data(self, params: TypedDataParams, _context: Context) -> TypedDataView:
        domain, markets = self._context.domain, self._context.machine.markets
        if params.action is not None and params.quote is None:
            action = self._context.ingress.decode(SignedActionJson(params.action, _UNSIGNED)).action
            digest = action_digest(domain, action, markets.name_hash_of)
            return TypedDataView(typed_data(domain, action, markets.name_of), hex_of(digest))
        if params.quote is not None and params.action is None:
            quote = decode_quote(params.quote, markets.number_of)
            digest = quote_digest(domain, quote, markets.name_hash_of)
            return TypedDataView(typed_data(domain, quote, markets.name_of), hex_of(digest))
        raise RpcError(ErrorCode.INVALID_PARAMS, "give an action or a quote, one of them", {"path": "$"})
