"""Block trades: a maker's signed quote of several legs, executed at once or not at all by a taker's action.

The net price is what the maker receives for all legs together. It is divided over the legs by an exact rule:
each leg is worth its size at the mark, rounded down; what the net price differs from the sum of these goes to
the first leg, as far as its amount does not fall below 0, the rest to the second, and so on. So a leg's price
may be off tick, its amount is an integer, and the amounts add up to the net price exactly. The price band of
the instruments applies to the whole: the net price differs from the sum of the marks by no more than the sum
of the legs' bands.

Both accounts are judged after all legs. Everything is one step: at most 16 legs, two accounts.

A quote that was executed or cancelled is remembered until it expires, at most MAX_QUOTE_AHEAD_S. If it names
agreed terms by a hash, a BlockTrade leaf makes hash, parties and legs provable for BLOCK_TRADE_KEPT_MS; every
block trade and cancelled quote takes two entries of either kind away that are past that.

- iBLOCK_001 All legs of a quote trade, or none.
- iBLOCK_002 A quote is executed at most once, and not after it was cancelled.
- iBLOCK_003 The amounts of the legs add up to the net price; what the maker receives the taker pays.
- iBLOCK_004 Both accounts can carry the whole (iMARGIN_003), with their open orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from state.actions import CancelQuote, ExecuteQuote, Leg, Quote, Scope
from state.block import Trade
from state.codec_format import NO_HASH
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.fee_tiers import count_volume, fill_fees
from state.hashing import keccak
from state.keys import (
    BLOCK_TRADE,
    PARAMETERS_KEY,
    QUOTE_USED,
    SYSTEM_KEY,
    account_key,
    block_trade_key,
    market_key,
    quote_used_key,
    session_key_key,
)
from state.leaves import (
    Account,
    BlockTrade,
    Marker,
    Market,
    Parameters,
    Progress,
    SessionKey,
    System,
    Task,
)
from state.liquidation import check_not_in_auction
from state.margin import carries
from state.orders import band_width, check_size, check_trading, instrument_of
from state.positions import notional_of
from state.pricing import check_fresh, mark_of
from state.protection import is_frozen
from state.seizure import Party
from state.trigger_book import position_closed
from state.units import (
    BLOCK_TRADE_KEPT_MS,
    MAX_CASH_UUSD,
    MAX_LEGS,
    MAX_NOTIONAL_UUSD,
    MAX_QUOTE_AHEAD_S,
    OPERATION_BITS,
    ULOTS_PER_LOT,
)
from state.view import StateView

_LEG: Final = Struct(">IBQQ").pack
_FORGOTTEN: Final = 2
"""Entries of each kind that one action takes away."""


class LegPlan(NamedTuple):
    """A leg with what it comes to; `maker_side` is 1 where the maker sells."""

    market: int
    maker_side: int
    size_ulots: int
    amount_uusd: int
    maker_fee_uusd: int
    taker_fee_uusd: int
    maker: Party
    taker: Party


class BlockPlan(NamedTuple):
    """A block trade that was checked."""

    quote: Quote
    legs: list[LegPlan]


def check_legs(quote: Quote) -> None:
    """What can be said of a quote alone. Raises Rejected LEG_COUNT, DUPLICATE_LEG."""
    count = len(quote.legs)
    if not 0 < count <= MAX_LEGS:
        raise Rejected(RejectCode.LEG_COUNT, limit=MAX_LEGS, got=count)
    markets = [leg.market for leg in quote.legs]
    for place, market in enumerate(markets):
        if market in markets[:place]:
            raise Rejected(RejectCode.DUPLICATE_LEG, market=market)


def check_quote_signer(
    view: StateView, block: BlockContext, quote: Quote, signers: Sequence[bytes | None]
) -> None:
    """Whether the quote is by its account: signed by its owner, or by a session key that may trade."""
    account: Account | None = view.get(account_key(quote.account))
    if account is None:
        raise Rejected(RejectCode.UNKNOWN_ACCOUNT, account=quote.account)
    signer = signers[1] if len(signers) > 1 else None
    if signer == account.owner:
        return
    key: SessionKey | None = view.get(session_key_key(quote.account, signer)) if signer is not None else None
    if key is None or key.scope != Scope.TRADE or key.expiry_s <= block.now_s:
        recovered = "nobody" if signer is None else "0x" + signer.hex()
        raise Rejected(RejectCode.QUOTE_WRONG_SIGNER, account=quote.account, recovered=recovered)


def check_execute(
    view: StateView, block: BlockContext, action: ExecuteQuote, account: Account, fee: int
) -> BlockPlan:
    """The block trade that an action makes. Raises Rejected."""
    quote = action.quote
    maker: Account = view.get(account_key(quote.account))
    if maker.owner == account.owner:
        raise Rejected(RejectCode.QUOTE_TO_ONESELF)
    if quote.taker_account and quote.taker_account != action.account:
        raise Rejected(RejectCode.QUOTE_NOT_FOR_TAKER, taker_account=quote.taker_account)
    _check_open(view, block, quote.account, quote.nonce, quote.expiry_s)
    if quote.net_uusd > action.limit_uusd:
        raise Rejected(RejectCode.NET_PRICE_LIMIT, limit_uusd=action.limit_uusd, got=quote.net_uusd)
    for number in (quote.account, action.account):
        check_not_in_auction(view, number)
    amounts = _amounts(view, block, quote, action.account)
    legs = [
        _leg_plan(view, block, quote, action.account, leg, amount)
        for leg, amount in zip(quote.legs, amounts, strict=True)
    ]
    maker_fee = sum([leg.maker_fee_uusd for leg in legs])
    if maker_fee > quote.max_fee_uusd:
        raise Rejected(RejectCode.FEE_ABOVE_MAX, fee_uusd=maker_fee, max_fee_uusd=quote.max_fee_uusd)
    _check_party(view, quote.account, maker, maker.cash_uusd, [leg.maker for leg in legs])
    _check_party(view, action.account, account, account.cash_uusd - fee, [leg.taker for leg in legs])
    return BlockPlan(quote, legs)


def _check_open(view: StateView, block: BlockContext, account: int, nonce: int, expiry_s: int) -> None:
    """Whether a quote can still be executed. Raises Rejected."""
    now_s = block.now_s
    if expiry_s <= now_s:
        raise Rejected(RejectCode.QUOTE_EXPIRED, now_s=now_s, got=expiry_s)
    if expiry_s > now_s + MAX_QUOTE_AHEAD_S:
        raise Rejected(RejectCode.DEADLINE_TOO_FAR, latest_s=now_s + MAX_QUOTE_AHEAD_S, got=expiry_s)
    if view.get(quote_used_key(expiry_s, account, nonce)) is not None:
        raise Rejected(RejectCode.QUOTE_USED, got=nonce)


def _amounts(view: StateView, block: BlockContext, quote: Quote, taker: int) -> list[int]:
    """What each leg is worth in uusd, once each may be traded. Raises Rejected."""
    amounts: list[int] = []
    at_marks = band = 0
    for leg in quote.legs:
        mark, width = _check_leg(view, block, quote.account, taker, leg)
        amount = notional_of(mark, leg.size_ulots)
        amounts.append(amount)
        at_marks += amount if leg.side else -amount
        band += notional_of(width, leg.size_ulots)
    left = quote.net_uusd - at_marks
    for place, leg in enumerate(quote.legs):
        more = max(left if leg.side else -left, -amounts[place])
        amounts[place] += more
        left -= more if leg.side else -more
    if left or not at_marks - band <= quote.net_uusd <= at_marks + band:
        raise Rejected(
            RejectCode.NET_PRICE_OFF, lowest=at_marks - band, highest=at_marks + band, got=quote.net_uusd
        )
    if max(amounts) > MAX_NOTIONAL_UUSD:
        raise Rejected(RejectCode.NOTIONAL_TOO_LARGE, maximum_uusd=MAX_NOTIONAL_UUSD)
    return amounts


def _check_leg(view: StateView, block: BlockContext, maker: int, taker: int, leg: Leg) -> tuple[int, int]:
    """(mark, width of the price band) of a leg that may be traded now. Raises Rejected."""
    terms = instrument_of(view, leg.market)
    check_trading(view, block, terms, False)
    if leg.size_ulots % terms.lot_ulots:
        raise Rejected(RejectCode.SIZE_OFF_LOT, lot_ulots=terms.lot_ulots, got=leg.size_ulots)
    check_size(terms, leg.size_ulots)
    check_fresh(view, block, terms)
    mark = mark_of(view, view.get(market_key(leg.market)), terms)
    if mark is None:
        raise Rejected(RejectCode.ORACLE_STALE, mark_ms=0)
    for number in (maker, taker):
        if is_frozen(view, block, number, terms):
            raise Rejected(RejectCode.MMP_FROZEN, account=number)
    return mark, band_width(view, terms, mark)


def _leg_plan(
    view: StateView, block: BlockContext, quote: Quote, taker: int, leg: Leg, amount: int
) -> LegPlan:
    terms = instrument_of(view, leg.market)
    state: Market = view.get(market_key(leg.market))
    index = state.funding_index_nusd
    maker_change = -leg.size_ulots if leg.side else leg.size_ulots
    own, other = Party(view, quote.account, leg.market), Party(view, taker, leg.market)
    own.trade(index, maker_change, amount)
    other.trade(index, -maker_change, amount)
    maker_fee, taker_fee = fill_fees(view, block, quote.account, taker, terms, amount)
    own.cash_change -= maker_fee
    other.cash_change -= taker_fee
    return LegPlan(leg.market, int(leg.side), leg.size_ulots, amount, maker_fee, taker_fee, own, other)


def _check_party(view: StateView, number: int, account: Account, cash_uusd: int, legs: list[Party]) -> None:
    """Whether an account may come to hold what its legs give it. Raises Rejected."""
    parameters: Parameters = view.get(PARAMETERS_KEY)
    opened = sum([leg.position is None for leg in legs])
    if account.positions + opened > parameters.max_positions:
        raise Rejected(RejectCode.TOO_MANY_POSITIONS, account=number, limit=parameters.max_positions)
    cash = cash_uusd + sum([leg.cash_change for leg in legs])
    if abs(cash) > MAX_CASH_UUSD or not all(leg.is_within_bounds() for leg in legs):
        raise Rejected(RejectCode.NOTIONAL_TOO_LARGE, account=number, maximum_uusd=MAX_NOTIONAL_UUSD)
    changes = {leg.market: leg.change for leg in legs}
    if not carries(view, number, cash, changes, cash_uusd):
        raise Rejected(RejectCode.INSUFFICIENT_MARGIN, account=number)


def apply_execute(
    view: StateView, block: BlockContext, progress: Progress, action: ExecuteQuote, plan: BlockPlan
) -> None:
    """All legs trade; what they leave behind of triggers is cancelled by the steps that follow."""
    quote = plan.quote
    _remember(view, block, quote.account, quote.nonce, quote.expiry_s)
    system: System = view.get(SYSTEM_KEY)
    first = system.next_trade
    closed = False
    for place, leg in enumerate(plan.legs):
        state: Market = view.get(market_key(leg.market))
        index = state.funding_index_nusd
        state.open_interest_ulots += leg.maker.write(view, index) + leg.taker.write(view, index)
        state.funding_pot_uusd += leg.maker.owed + leg.taker.owed
        view.touch(market_key(leg.market), state)
        for party in (leg.maker, leg.taker):
            if position_closed(view, party.number, leg.market, party.held_ulots, party.size):
                closed = True
        system.venue_fees_uusd += leg.maker_fee_uusd + leg.taker_fee_uusd
        count_volume(view, block, (quote.account, action.account), leg.amount_uusd)
        block.trades.append(
            Trade(
                first + place,
                leg.market,
                leg.amount_uusd * ULOTS_PER_LOT // leg.size_ulots,
                leg.size_ulots,
                1 - leg.maker_side,
                quote.account,
                quote.nonce,
                action.account,
                action.nonce << OPERATION_BITS | place,
                leg.maker_fee_uusd,
                leg.taker_fee_uusd,
                leg.maker.cash_change,
                leg.taker.cash_change,
                first,
            )
        )
    system.next_trade = first + len(plan.legs)
    view.touch(SYSTEM_KEY, system)
    block.accounts.add(quote.account)
    if quote.terms_hash != NO_HASH:
        leaf = BlockTrade(
            quote.terms_hash,
            legs_hash(plan.legs),
            quote.account,
            action.account,
            quote.net_uusd,
            block.timestamp_ms,
        )
        view.put(block_trade_key(first), leaf)
    if closed:
        progress.parent = Task.NONE
        progress.task = Task.CLEANUP


def legs_hash(legs: Sequence[LegPlan]) -> bytes:
    """keccak of market u32, maker's side u8, size u64 and amount u64 of each leg, in order."""
    parts = [_LEG(leg.market, leg.maker_side, leg.size_ulots, leg.amount_uusd) for leg in legs]
    return keccak(b"".join(parts))


def check_cancel_quote(view: StateView, block: BlockContext, action: CancelQuote) -> None:
    """Raises Rejected when the quote cannot be executed anyway."""
    _check_open(view, block, action.account, action.quote_nonce, action.quote_expiry_s)


def apply_cancel_quote(view: StateView, block: BlockContext, action: CancelQuote) -> None:
    _remember(view, block, action.account, action.quote_nonce, action.quote_expiry_s)


def _remember(view: StateView, block: BlockContext, account: int, nonce: int, expiry_s: int) -> None:
    """The quote is used; some of what need not be remembered any more goes."""
    for key, _ in view.iterate_under(bytes((QUOTE_USED,)), _FORGOTTEN):
        if int.from_bytes(key[1:9], "big") <= block.now_s:
            view.delete(key)
    for key, leaf in view.iterate_under(bytes((BLOCK_TRADE,)), _FORGOTTEN):
        kept: BlockTrade = leaf
        if kept.timestamp_ms + BLOCK_TRADE_KEPT_MS <= block.timestamp_ms:
            view.delete(key)
    view.put(quote_used_key(expiry_s, account, nonce), Marker(1))
