"""What an action would be charged, now and at most, signed: `straddle_feeQuote`, and checking such a quote.

The sequencer's key signs the EIP-712 struct `FeeQuote` in the rollup's domain (PROTOCOL sections 5 and 8.13),
so a trader can show later what it was told; nothing in the transition depends on it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from sequencer.api_context import ApiContext
from sequencer.checking import rejection
from sequencer.errors import ErrorCode, RpcError
from sequencer.fee_quote import MAX_SECONDS, priced
from sequencer.jsonrpc import Context, Method
from sequencer.receipts import hex_of
from state import eip712, keys, signatures, wire_types
from state.actions import Action
from state.codec import CodecError, MarketEntry
from state.errors import RejectCode, Rejected
from state.leaves import Market
from state.pricing import mark_of
from state.rules import priced_of
from state.units import MS_PER_S

DEFAULT_SECONDS: Final = 30

Digest = Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
Signature = Annotated[str, Meta(pattern="^0x[0-9a-f]{128}$")]
Numbers = tuple[int, int, int, int, int, int, int, int, int, int, int]
"""The fields of a quote from `quoted_ms` to `bid_uusd`."""
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class QuoteParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`action` as in a signed transaction, without its signature; `seconds` is how long the quote holds."""

    action: wire_types.ActionJson
    seconds: Annotated[int, Meta(ge=1, le=MAX_SECONDS)] = DEFAULT_SECONDS


class SignedFeeQuote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of the EIP-712 struct in order, and the sequencer's signature of them."""

    action: Digest
    """What the trader signs of the action with `max_fee_uusd` = `most_uusd`."""
    quoted_ms: Number
    expiry_ms: Number
    fee_uusd: Number
    """Of a block that begins now: the sum of the six parts."""
    most_uusd: Number
    """No block until `expiry_ms` charges more, bid included."""
    data_uusd: Number
    bandwidth_uusd: Number
    execution_uusd: Number
    growth_uusd: Number
    finality_uusd: Number
    risk_uusd: Number
    bid_uusd: Number
    """The action's bid; it pays the next lower one of its class, at most its own."""
    signature: Signature


class MostParts(msgspec.Struct, frozen=True):
    """The most that each part can be until the quote expires."""

    data_uusd: int
    bandwidth_uusd: int
    execution_uusd: int
    growth_uusd: int
    finality_uusd: int
    risk_uusd: int


class FeeQuote(msgspec.Struct, frozen=True):
    """What it would cost in a block that began now; the parts (`state/fees.py`) add up to the fee."""

    fee_uusd: int
    suggested_max_fee_uusd: int
    """The most that it can cost until the quote expires, bid included."""
    execution_units: int
    batch_bytes: int
    exec_price_pusd: int
    byte_price_pusd: int
    added_leaves: int
    data_uusd: int
    bandwidth_uusd: int
    execution_uusd: int
    growth_uusd: int
    finality_uusd: int
    risk_uusd: int
    bid_uusd: int
    most: MostParts
    quote: SignedFeeQuote


class CheckQuoteParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quote as `straddle_feeQuote` gave it."""

    quote: SignedFeeQuote


class QuoteCheck(msgspec.Struct, frozen=True):
    """A quote that this sequencer signed, and for how long it still holds."""

    digest: str
    signer: str
    left_ms: int


class FeeQuoteApi:
    """Quotes, signed and checked."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_feeQuote",
                QuoteParams,
                FeeQuote,
                self._quote,
                "What an action would be charged for inclusion now, and at most in so many seconds; signed.",
            ),
            Method(
                "straddle_checkFeeQuote",
                CheckQuoteParams,
                QuoteCheck,
                self._check,
                "Whether this sequencer signed a fee quote, and it still holds.",
                errors=(ErrorCode.FEE_QUOTE_EXPIRED, ErrorCode.FEE_QUOTE_FOREIGN),
            ),
        ]

    def _quote(self, params: QuoteParams, _context: Context) -> FeeQuote:
        context = self._context
        view = context.machine.view
        action = context.ingress.decode(wire_types.SignedActionJson(params.action, "0x" + "00" * 64)).action
        if view.get(keys.account_key(action.account)) is None:
            raise rejection(Rejected(RejectCode.UNKNOWN_ACCOUNT, account=action.account))
        now_ms = max(context.now_ms(), context.machine.system.timestamp_ms)
        try:
            found = priced(view, action, self._table(action), now_ms, params.seconds)
        except CodecError as error:
            raise RpcError(
                ErrorCode.INVALID_PARAMS, str(error), {"path": error.field, "expected": error.reason}
            ) from None
        except Rejected as rejected:
            raise rejection(rejected) from None
        bid = action.priority_bid_uusd
        most = found.most_uusd + bid
        signed = self._signed(
            replace(action, max_fee_uusd=most),
            (now_ms, now_ms + params.seconds * MS_PER_S, found.fee_uusd, most, *found.now, bid),
        )
        return FeeQuote(
            found.fee_uusd,
            most,
            found.units,
            found.size_bytes,
            found.execution_pusd,
            found.byte_price_pusd,
            found.leaves,
            *found.now,
            bid,
            MostParts(*found.most),
            signed,
        )

    def _signed(self, action: Action, numbers: Numbers) -> SignedFeeQuote:
        context = self._context
        covered = eip712.action_digest(context.domain, action, context.machine.markets.name_hash_of)
        digest = eip712.fee_quote_digest(context.domain, covered, numbers)
        return SignedFeeQuote(hex_of(covered), *numbers, hex_of(context.sign(digest)))

    def _table(self, action: Action) -> dict[int, MarketEntry]:
        """The units in which the action's prices would stand in the batch. Raises RpcError, Rejected."""
        machine = self._context.machine
        table = dict(machine.batch.table) if machine.batch else {}
        for market in {each.market for each in priced_of(action)} - table.keys():
            listed = machine.markets.by_number.get(market)
            if listed is None:
                raise rejection(Rejected(RejectCode.UNKNOWN_INSTRUMENT, market=market))
            leaf: Market = machine.view.get(keys.market_key(market))
            mark = mark_of(machine.view, leaf, listed.leaf) or 0
            tick_uusd = listed.leaf.tick_uusd
            table[market] = MarketEntry(tick_uusd, listed.leaf.lot_ulots, mark // tick_uusd)
        return table

    def _check(self, params: CheckQuoteParams, _context: Context) -> QuoteCheck:
        context, quote = self._context, params.quote
        covered, *numbers, signature = msgspec.structs.astuple(quote)
        digest = eip712.fee_quote_digest(context.domain, bytes.fromhex(covered[2:]), numbers)
        signer = signatures.recover(digest, bytes.fromhex(signature[2:]))
        if signer != context.sequencer:
            data = {"digest": hex_of(digest), "signer": hex_of(signer) if signer else None}
            raise RpcError(ErrorCode.FEE_QUOTE_FOREIGN, data=data)
        left_ms = quote.expiry_ms - context.now_ms()
        if left_ms < 0:
            raise RpcError(ErrorCode.FEE_QUOTE_EXPIRED, data={"expiry_ms": quote.expiry_ms})
        return QuoteCheck(hex_of(digest), hex_of(signer), left_ms)
