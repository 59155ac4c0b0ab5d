"""The methods of request for quote; `rfq` holds what they tell of, `rfq_checks` what they refuse."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Method, NoParams
from sequencer.receipts import hex_of
from sequencer.rfq import MAX_TTL_S, QuotesView, QuoteView, Rfqs, RfqView
from sequencer.rfq_checks import RfqChecks
from state.typed_data import message
from state.units import MAX_BULK_OPERATIONS, MS_PER_S
from state.wire_types import LegJson, QuoteJson

DEFAULT_TTL_S = 60

RfqNumber = Annotated[int, Meta(ge=1, le=2**53 - 1)]
RfqKey = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$(?!\n)")]
Signature = Annotated[str, Meta(pattern=r"^0x(?:[0-9a-fA-F]{128}|[0-9a-fA-F]{130})$(?!\n)")]
"""64 bytes (EIP-2098) or 65 (r, s, v)."""


class RequestQuoteParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`legs` are what the taker would do. `account` is his, so that he is not quoted by himself; makers see
    it only if `disclose`."""

    legs: Annotated[list[LegJson], Meta(max_length=MAX_BULK_OPERATIONS)]
    account: Annotated[int, Meta(ge=1, le=2**62)] | None = None
    disclose: bool = False
    ttl_s: Annotated[int, Meta(ge=1, le=MAX_TTL_S)] = DEFAULT_TTL_S


class RfqOpened(msgspec.Struct, frozen=True):
    """`key` is the taker's: with it the quotes are read, and nobody else should have it."""

    rfq: int
    key: str
    channel: str
    """On which its quotes come."""
    expires_ms: int


class RfqParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rfq: RfqNumber
    key: RfqKey


class SendQuoteParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`quote` as it was signed; without `rfq` it goes to the board that everybody sees."""

    quote: QuoteJson
    signature: Signature
    rfq: RfqNumber | None = None


class QuoteTaken(msgspec.Struct, frozen=True):
    """`mirrored`: the maker would do what the request's taker asked to do, the taker the reverse."""

    rfq: int | None
    mirrored: bool
    expires_ms: int
    """Of the quote, or of the request if that is sooner."""


class RfqApi:
    """The methods."""

    def __init__(self, context: ApiContext, rfqs: Rfqs) -> None:
        machine = context.machine
        self._now_ms = context.now_ms
        self._markets = machine.markets
        self._rfqs = rfqs
        self._checks = RfqChecks(context.domain, machine.view, machine.markets, context.now_ms)

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_requestQuote",
                RequestQuoteParams,
                RfqOpened,
                self._request,
                "Ask makers to quote several legs for one price.",
                "Makers see it on the channel rfqs. Quotes come on the channel that the answer names; to take"
                " one, sign ExecuteQuote. Requests are forgotten when the node restarts. Legs that cannot be"
                " traded are refused with the reject code of the rule.",
                errors=(ErrorCode.TOO_MANY_RFQS, ErrorCode.BUSY),
            ),
            Method(
                "straddle_cancelRfq",
                RfqParams,
                bool,
                self._cancel,
                "Close a request before it expires. Quotes that were seen stay good until they expire.",
                errors=(ErrorCode.NOT_FOUND,),
            ),
            Method(
                "straddle_getRfqs",
                NoParams,
                list[RfqView],
                lambda _params, _context: self._rfqs.open_rfqs(),
                "Open requests, oldest first, as the channel rfqs shows them.",
            ),
            Method(
                "straddle_sendQuote",
                SendQuoteParams,
                QuoteTaken,
                self._send,
                "Answer a request with a signed quote, or offer one to everybody.",
                "A quote that could not be executed now is refused with the reject code with which its"
                " execution would be, its taker's means left out. It stays good until it expires, is executed"
                " or cancelled by CancelQuote, also when its request is closed. It names taker_account only"
                " where the request discloses it.",
                errors=(
                    ErrorCode.BAD_SIGNATURE,
                    ErrorCode.NOT_FOUND,
                    ErrorCode.RFQ_LEGS_DIFFER,
                    ErrorCode.TOO_MANY_QUOTES,
                    ErrorCode.QUOTE_OUTBID,
                    ErrorCode.BUSY,
                ),
            ),
            Method(
                "straddle_getQuotes",
                RfqParams,
                QuotesView,
                self._quotes,
                "The quotes to one's request, best net price first.",
                errors=(ErrorCode.NOT_FOUND,),
            ),
            Method(
                "straddle_getOpenQuotes",
                NoParams,
                list[QuoteView],
                lambda _params, _context: self._rfqs.board(),
                "Quotes to no request, as the channel quotes shows them; of the same legs the best first.",
            ),
        ]

    def _request(self, params: RequestQuoteParams, context: Context) -> RfqOpened:
        asked = self._checks.request(params.legs, params.account)
        if params.disclose and params.account is None:
            raise RpcError(ErrorCode.INVALID_PARAMS, "disclose needs an account", {"path": "$.account"})
        source = context.subscriber or context.peer
        rfq = self._rfqs.ask(asked, params.disclose, params.ttl_s, source)
        return RfqOpened(rfq.view.rfq, rfq.key, rfq.channel, rfq.view.expires_ms)

    def _cancel(self, params: RfqParams, _context: Context) -> bool:
        self._rfqs.cancel(params.rfq, params.key)
        return True

    def _send(self, params: SendQuoteParams, _context: Context) -> QuoteTaken:
        rfq = None if params.rfq is None else self._rfqs.find(params.rfq)
        quote, signature, digest = self._checks.quote(params.quote, params.signature, rfq)
        shown = msgspec.convert(message(quote, self._markets.name_of), QuoteJson)
        view = QuoteView(shown, hex_of(signature), self._now_ms())
        expires_ms = quote.expiry_s * MS_PER_S
        if rfq is None:
            self._rfqs.post(digest, quote, view)
            return QuoteTaken(None, False, expires_ms)
        mirrored = self._rfqs.answer(rfq, digest, quote, view)
        return QuoteTaken(params.rfq, mirrored, min(expires_ms, rfq.view.expires_ms))

    def _quotes(self, params: RfqParams, _context: Context) -> QuotesView:
        return self._rfqs.quotes(self._rfqs.find(params.rfq, params.key))
