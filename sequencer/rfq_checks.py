"""Whether a request for quotes, or a quote, is any good: by the transition's own rules, changing nothing.

A quote is judged as the block would judge it now with a taker who can pay anything: what remains is what the
maker decides. Whether the taker can carry his side he sees when he takes it, or by `straddle_simulate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from sequencer.checking import rejection
from sequencer.errors import ErrorCode, RpcError
from sequencer.markets import Markets
from sequencer.rfq import Asked, Rfq
from state import wire
from state.actions import ExecuteQuote, Quote, SignedAction
from state.blocks import check_execute, check_legs, check_quote_signer
from state.codec import CodecError, encode_transaction
from state.context import BlockContext
from state.eip712 import Domain, quote_digest
from state.errors import RejectCode, Rejected
from state.keys import SYSTEM_KEY, account_key
from state.leaves import Account, System
from state.liquidation import check_not_in_auction
from state.orders import check_size, check_trading, instrument_of
from state.signatures import normalise_signature, recover
from state.transition import same_origin
from state.view import StateView
from state.wire_types import LegJson, QuoteJson

NO_ACCOUNT: Final = 0
"""Stands for a taker who is not known: no account has this number."""
RICH_UUSD: Final = 3 * 10**18
"""More than 16 legs can cost, and within the bound of an account's cash."""
_NOTHING: Final = bytes(32)
_NO_SIGNATURE: Final = bytes(64)


class CheckedQuote(NamedTuple):
    """A quote that could be executed now. `signature` has 64 bytes."""

    quote: Quote
    signature: bytes
    digest: bytes


def decode_quote(json: QuoteJson, market_of: wire.MarketOf) -> Quote:
    """Raises RpcError INVALID_PARAMS with path and what was expected, UNKNOWN_INSTRUMENT."""
    try:
        return wire.to_quote(json, market_of, "$.quote")
    except wire.WireError as error:
        data = {"path": error.path, "expected": error.expected, "got": error.got}
        raise RpcError(ErrorCode.INVALID_PARAMS, str(error), data) from None
    except Rejected as rejected:
        raise rejection(rejected) from None


class RfqChecks:
    """The checks; they read the state."""

    def __init__(self, domain: Domain, view: StateView, markets: Markets, now_ms: Callable[[], int]) -> None:
        self._domain = domain
        self._view = view
        self._markets = markets
        self._now_ms = now_ms

    def request(self, legs: list[LegJson], account: int | None) -> Asked:
        """What is asked for, if it can be traded and the account, if one is named, may trade.

        Raises RpcError INVALID_PARAMS, or the reject code of the rule that forbids it.
        """
        unpriced = QuoteJson(0, legs, 0, 0, "0x" + _NOTHING.hex(), 0, 0, 0)
        quote = decode_quote(unpriced, self._markets.number_of)
        view, block = self._view, self._block()
        try:
            check_legs(quote)
            for leg in quote.legs:
                terms = instrument_of(view, leg.market)
                check_trading(view, block, terms, False)
                if leg.size_ulots % terms.lot_ulots:
                    raise Rejected(RejectCode.SIZE_OFF_LOT, lot_ulots=terms.lot_ulots, got=leg.size_ulots)
                check_size(terms, leg.size_ulots)
            if account is None:
                return Asked(quote.legs, legs)
            owner = self._account(account).owner
            check_not_in_auction(view, account)
        except Rejected as rejected:
            raise rejection(rejected) from None
        return Asked(quote.legs, legs, account, owner)

    def quote(self, json: QuoteJson, signature: str, rfq: Rfq | None) -> CheckedQuote:
        """A signed quote that whoever it is meant for could take now; `rfq` is what it answers.

        Raises RpcError INVALID_PARAMS, BAD_SIGNATURE, or the reject code with which its execution would be
        refused.
        """
        quote = decode_quote(json, self._markets.number_of)
        try:
            signed = normalise_signature(bytes.fromhex(signature[2:]))
        except Rejected as rejected:
            raise RpcError(ErrorCode.BAD_SIGNATURE, data=rejected.data) from None
        try:
            check_legs(quote)
            digest = quote_digest(self._domain, quote, self._markets.name_hash_of)
            check_quote_signer(self._view, self._block(), quote, (None, recover(digest, signed)))
            self._check_execution(quote, signed, rfq)
        except Rejected as rejected:
            raise rejection(rejected) from None
        except CodecError as error:
            data = {"path": f"$.quote.{error.field}", "expected": error.reason}
            raise RpcError(ErrorCode.INVALID_PARAMS, str(error), data) from None
        return CheckedQuote(quote, signed, digest)

    def _check_execution(self, quote: Quote, signature: bytes, rfq: Rfq | None) -> None:
        """Raises Rejected, CodecError. A request's taker is not told from another unless he is disclosed."""
        if rfq is None:
            number = quote.taker_account
        else:
            number = rfq.view.account or NO_ACCOUNT
            maker: Account = self._view.get(account_key(quote.account))
            if maker.owner == rfq.asked.owner:
                raise Rejected(RejectCode.QUOTE_TO_ONESELF)
        taker = Account(bytes(20), RICH_UUSD, 0, _NOTHING, 0, 0, 0, 0)
        if number != NO_ACCOUNT:
            leaf = self._account(number)
            taker.owner, taker.positions = leaf.owner, leaf.positions
        block = self._block()
        action = ExecuteQuote(
            account=number,
            nonce=0,
            deadline_s=block.now_s,
            max_fee_uusd=0,
            quote=quote,
            quote_signature=signature,
            limit_uusd=quote.net_uusd,
        )
        encode_transaction(SignedAction(action, _NO_SIGNATURE), block.timestamp_ms, {})
        check_execute(self._view, block, action, taker, 0)

    def _account(self, number: int) -> Account:
        found: Account | None = self._view.get(account_key(number))
        if found is None:
            raise Rejected(RejectCode.UNKNOWN_ACCOUNT, account=number)
        return found

    def _block(self) -> BlockContext:
        """Of a block made now."""
        system: System = self._view.get(SYSTEM_KEY)
        return BlockContext(max(self._now_ms(), system.timestamp_ms), same_origin(self._view), None)
