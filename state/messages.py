"""L1 messages: deposits, what owners force through L1, what the governor sets, what batches cost.

Every message is consumed whatever is in it: a bad one changes nothing but the queue's registers. Payloads
have one exact length (PROTOCOL section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from state import l1_market
from state.accounts import check_leaving, open_account, withdraw
from state.actions import Order, OrderKind, Side
from state.block import L1Message, MessageKind, MessageResult
from state.calendar import (
    MAX_UNDERLYING_BYTES,
    STRIKE_UNIT_UUSD,
    Rule,
    parse_name,
)
from state.cleanup import cleanup_step
from state.codec_format import is_name
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.fee_market import check_fee_terms
from state.fee_tiers import check_tiers
from state.funding import PERPETUAL
from state.hashing import keccak
from state.keys import (
    FEE_TERMS_KEY,
    FEE_TIERS_KEY,
    FEED,
    LIQUIDATION_KEY,
    MARKET_NAME,
    PARAMETERS_KEY,
    PRIORITY_KEY,
    PUBLISHERS_KEY,
    RATE,
    SURFACE,
    SYSTEM_KEY,
    account_key,
    expiry_of_key,
    instrument_key,
    market_key,
    name_key,
)
from state.leaves import (
    Account,
    ExpiryOf,
    Feed,
    FeeTerms,
    FeeTiers,
    Instrument,
    L1Terms,
    LiquidationParameters,
    MarginTerms,
    Market,
    MarketName,
    Parameters,
    PriorityTerms,
    Progress,
    Publishers,
    RateFeed,
    Series,
    Surface,
    System,
    Task,
    Terms,
)
from state.margin import withdrawable_uusd
from state.margin_terms import check_margin_terms, margin_key
from state.matching import match_step, place
from state.operations import check_place
from state.oracle import FeedKind
from state.orders import check_units, instrument_of
from state.priority import check_priority_terms
from state.series import CALLS, FUTURES, PUTS, add_series
from state.units import (
    MAX_AHEAD,
    MAX_AMOUNT_UUSD,
    MAX_NAME_BYTES,
    MAX_NOTIONAL_UUSD,
    MAX_OPEN_ORDERS,
    MAX_POSITIONS,
    MAX_PRICE_UUSD,
    MAX_PUBLISHERS,
    MAX_SIZE_ULOTS,
    MAX_STRIKES,
    MAX_TOTAL_COLLATERAL_UUSD,
    PPM,
    ULOTS_PER_LOT,
)
from state.view import StateView

_DEPOSIT: Final = Struct(">20sQQ")
_FORCED_WITHDRAWAL: Final = Struct(">Q20sQ")
_FORCED_ORDER: Final = Struct(">QIBQQ")
_BATCH_COST: Final = Struct(">QIQQBQ")
_SET_FEED: Final = Struct(">B31sII")
_LINK: Final = Struct(">B20sQ").pack
_MARKET: Final = Struct(">I")
_SERIES: Final = Struct(">31s B B B Q I 52s 52s")
SERIES_BYTES: Final = _SERIES.size
"""How much of a Series leaf its message has: all before its registers."""
_STRIKES: Final = Struct(">31s Q B Q Q I 52s")
_NO_TERMS: Final = bytes(52)
_MAX_STATUS: Final = 3
_MAX_FEE_PPM: Final = 100_000
_MAX_PUSD: Final = 10**15
_MAX_AGE_MS: Final = 86_400_000
_MAX_SESSION_KEYS: Final = 64
_MAX_AUCTION_MS: Final = 7 * 86_400_000
"""Of each phase."""

DecodedLeaf = TypeVar(
    "DecodedLeaf",
    Instrument,
    Parameters,
    Publishers,
    LiquidationParameters,
    MarginTerms,
    FeeTerms,
    FeeTiers,
    PriorityTerms,
    L1Terms,
)


def message_hash(before: bytes, message: L1Message) -> bytes:
    """The rolling hash of the inbox after this message."""
    link = _LINK(message.kind, message.sender, message.l1_block)
    return keccak(before + link + message.payload)


def message_step(view: StateView, block: BlockContext, progress: Progress, message: L1Message) -> None:
    """Consumes a message, or goes on with the forced order that it began."""
    if progress.task == Task.MATCH:
        match_step(view, block, progress)
    elif progress.task == Task.CLEANUP:
        cleanup_step(view, block, progress)
    else:
        _consume(view, block, progress, message)
    if progress.task == Task.NONE and block.operations and block.message_results:
        operation = block.operations.pop()
        block.message_results[-1] = replace(block.message_results[-1], operation=operation)


def _consume(view: StateView, block: BlockContext, progress: Progress, message: L1Message) -> None:
    system: System = view.get(SYSTEM_KEY)
    index = system.inbox_next
    system.inbox_next = index + 1
    system.inbox_hash = message_hash(system.inbox_hash, message)
    view.touch(SYSTEM_KEY, system)
    progress.messages_left -= 1
    handler = _HANDLERS.get(message.kind)
    try:
        if handler is None:
            raise Rejected(RejectCode.MALFORMED_MESSAGE, kind=message.kind)
        result = handler(view, block, progress, message, index)
    except Rejected as refusal:
        result = MessageResult(index, message.kind, refusal.code)
    block.message_results.append(result)


def _unpack(layout: Struct, payload: bytes) -> tuple[Any, ...]:
    if len(payload) != layout.size:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, expected=layout.size, got=len(payload))
    return layout.unpack(payload)


def _decode(leaf_type: type[DecodedLeaf], payload: bytes) -> DecodedLeaf:
    try:
        leaf: DecodedLeaf = leaf_type.decode(payload)
    except ValueError:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, got=len(payload)) from None
    return leaf


def _deposit(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    owner, number, amount = _unpack(_DEPOSIT, message.payload)
    system: System = view.get(SYSTEM_KEY)
    if system.collateral_uusd + amount > MAX_TOTAL_COLLATERAL_UUSD:
        raise Rejected(RejectCode.COLLATERAL_LIMIT, maximum=MAX_TOTAL_COLLATERAL_UUSD)
    if view.get(account_key(number)) is None:
        number = open_account(view, owner)
    account: Account = view.get(account_key(number))
    account.cash_uusd += amount
    view.touch(account_key(number), account)
    system.collateral_uusd += amount
    view.touch(SYSTEM_KEY, system)
    block.accounts.add(number)
    return MessageResult(index, message.kind, account=number, amount_uusd=amount)


def _owned(view: StateView, number: int, sender: bytes) -> Account:
    account: Account | None = view.get(account_key(number))
    if account is None:
        raise Rejected(RejectCode.UNKNOWN_ACCOUNT, account=number)
    if account.owner != sender:
        raise Rejected(RejectCode.NOT_OWNER, sender="0x" + sender.hex())
    return account


def _forced_withdrawal(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    number, recipient, amount = _unpack(_FORCED_WITHDRAWAL, message.payload)
    account = _owned(view, number, message.sender)
    amount = min(amount, withdrawable_uusd(view, block, number, account.cash_uusd), MAX_AMOUNT_UUSD)
    check_leaving(view, block, number, account.cash_uusd, amount)
    withdrawal = withdraw(view, block, number, recipient, amount)
    return MessageResult(index, message.kind, account=number, amount_uusd=amount, withdrawal=withdrawal)


def _forced_order(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    number, market, side, price, size = _unpack(_FORCED_ORDER, message.payload)
    account = _owned(view, number, message.sender)
    if side > Side.SELL:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, side=side)
    terms = instrument_of(view, market)
    check_units(terms.tick_uusd, terms.lot_ulots, price, size)
    order = Order(market, Side(side), OrderKind.IMMEDIATE_OR_CANCEL, price, size, True)
    crossing = check_place(view, block, progress, number, account, account.cash_uusd, order, 0)
    place(view, block, progress, crossing)
    return MessageResult(index, message.kind, account=number, market=market)


def _check_instrument(terms: Instrument) -> None:
    """Bounds and relations of an instrument's fields. Raises Rejected BAD_PARAMETERS naming the field."""
    name, underlying = terms.name.rstrip(b"\0"), terms.underlying.rstrip(b"\0")
    _demand(
        {
            "name": is_name(name) and is_name(underlying) and name != underlying,
            "status": terms.status <= _MAX_STATUS,
        }
    )
    _check_terms(terms)


def _check_terms(terms: Instrument | Terms) -> None:
    """Bounds and relations of trading terms. Raises Rejected BAD_PARAMETERS naming the field."""
    good = {
        "tick_uusd": 0 < terms.tick_uusd <= MAX_PRICE_UUSD,
        "lot_ulots": 0 < terms.lot_ulots <= MAX_SIZE_ULOTS
        and terms.tick_uusd * terms.lot_ulots % ULOTS_PER_LOT == 0,
        "size": 0 < terms.min_size_ulots <= terms.max_size_ulots <= MAX_SIZE_ULOTS,
        "band_ppm": 0 < terms.band_ppm < PPM,
        "fees": max(terms.maker_fee_ppm, terms.taker_fee_ppm) <= _MAX_FEE_PPM,
        "impact_notional_uusd": 0 < terms.impact_notional_uusd <= MAX_NOTIONAL_UUSD,
    }
    _demand(good)


def _demand(good: dict[str, bool]) -> None:
    for field, is_good in good.items():
        if not is_good:
            raise Rejected(RejectCode.BAD_PARAMETERS, field=field)


def _list_instrument(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    terms = _decode(Instrument, message.payload)
    _check_instrument(terms)
    name, underlying = terms.name.rstrip(b"\0").decode(), terms.underlying.rstrip(b"\0").decode()
    _demand(
        {
            "kind": terms.kind == PERPETUAL,
            "expiry": terms.strike_uusd == terms.expiry_s == terms.expiry == 0,
            "name": parse_name(name) is None and parse_name(underlying) is None,
        }
    )
    # An instrument's name must not be a feed already, nor may an instrument's mark serve as an index.
    if view.get(name_key(FEED, name)) is not None or view.get(name_key(MARKET_NAME, underlying)) is not None:
        raise Rejected(RejectCode.NAME_TAKEN, name=name)
    system: System = view.get(SYSTEM_KEY)
    market = system.next_market
    system.next_market = market + 1
    view.touch(SYSTEM_KEY, system)
    view.put(instrument_key(market), terms)
    view.put(market_key(market), Market(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    view.put(name_key(MARKET_NAME, name), MarketName(market))
    for feed in (name, underlying):
        if view.get(name_key(FEED, feed)) is None:
            view.put(name_key(FEED, feed), Feed(0, 0, 0, 0))
    block.markets.add(market)
    return MessageResult(index, message.kind, market=market)


def _set_instrument(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    if len(message.payload) < _MARKET.size:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, got=len(message.payload))
    (market,) = _MARKET.unpack_from(message.payload)
    terms = _decode(Instrument, message.payload[_MARKET.size :])
    before = instrument_of(view, market)
    _check_instrument(terms)
    fixed = ("name", "kind", "underlying", "tick_uusd", "lot_ulots", "strike_uusd", "expiry_s", "expiry")
    _demand({field: getattr(terms, field) == getattr(before, field) for field in fixed})
    _demand({"status": before.status <= _MAX_STATUS})
    view.put(instrument_key(market), terms)
    block.markets.add(market)
    return MessageResult(index, message.kind, market=market)


def _set_parameters(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    new = _decode(Parameters, message.payload)
    _demand(
        {
            "exec_price_pusd": new.exec_price_pusd <= _MAX_PUSD,
            "eth_price_uusd": 0 < new.eth_price_uusd <= MAX_PRICE_UUSD,
            "oracle_max_age_ms": 0 < new.oracle_max_age_ms <= _MAX_AGE_MS,
            "oracle_deviation_ppm": 0 < new.oracle_deviation_ppm <= PPM,
            "max_orders": 0 < new.max_orders <= MAX_OPEN_ORDERS,
            "max_positions": 0 < new.max_positions <= MAX_POSITIONS,
            "max_session_keys": new.max_session_keys <= _MAX_SESSION_KEYS,
        }
    )
    view.put(PARAMETERS_KEY, new)
    return MessageResult(index, message.kind)


def _set_publishers(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    new = _decode(Publishers, message.payload)
    count = len(new.addresses)
    _demand(
        {
            "quorum": 0 < new.quorum <= count,
            "addresses": count <= MAX_PUBLISHERS and len(set(new.addresses)) == count,
        }
    )
    view.put(PUBLISHERS_KEY, new)
    return MessageResult(index, message.kind)


def _list_series(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    series = Series(*_unpack(_SERIES, message.payload))
    options = bool(series.kinds & (CALLS | PUTS))
    underlying = _check_underlying(series.underlying)
    _demand(
        {
            "rule": Rule.DAILY <= series.rule <= Rule.QUARTERLY,
            "ahead": 0 < series.ahead <= MAX_AHEAD,
            "kinds": 0 < series.kinds <= FUTURES | CALLS | PUTS,
            "strikes": series.strikes <= MAX_STRIKES and (options or series.strikes == 0),
        }
    )
    _check_strikes(series.strike_step_uusd, series.strike_step_uusd, options)
    _check_encoded(series.future, bool(series.kinds & FUTURES))
    _check_encoded(series.option, options)
    if view.get(name_key(MARKET_NAME, underlying)) is not None:
        raise Rejected(RejectCode.NAME_TAKEN, name=underlying)
    if view.get(name_key(FEED, underlying)) is None:
        view.put(name_key(FEED, underlying), Feed(0, 0, 0, 0))
    return MessageResult(index, message.kind, series=add_series(view, block, series))


def _list_strikes(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    underlying, expiry_s, kinds, lowest_uusd, step_uusd, count, option = _unpack(_STRIKES, message.payload)
    name = _check_underlying(underlying)
    _demand({"kinds": kinds > 0 and kinds & ~(CALLS | PUTS) == 0, "count": 0 < count <= MAX_STRIKES})
    _check_strikes(lowest_uusd, step_uusd, True)
    _check_encoded(option, True)
    found: ExpiryOf | None = view.get(expiry_of_key(name.encode(), expiry_s))
    if found is None or expiry_s <= block.now_s:
        raise Rejected(RejectCode.UNKNOWN_EXPIRY, expiry_s=expiry_s)
    series = Series(
        underlying, int(Rule.ONCE), 0, kinds, step_uusd, count, _NO_TERMS, option, found.expiry, lowest_uusd
    )
    return MessageResult(index, message.kind, series=add_series(view, block, series))


def _check_underlying(padded: bytes) -> str:
    """Of dated instruments: short enough for their names, and no such name itself."""
    name = padded.rstrip(b"\0")
    _demand({"underlying": is_name(name) and len(name) <= MAX_UNDERLYING_BYTES})
    _demand({"underlying": parse_name(name.decode()) is None})
    return name.decode()


def _check_strikes(lowest_uusd: int, step_uusd: int, options: bool) -> None:
    """Strikes are multiples of the step, and that of a cent; both are 0 without options."""
    _demand({"strike_step_uusd": 0 < step_uusd <= MAX_PRICE_UUSD if options else step_uusd == 0})
    if options and (lowest_uusd == 0 or lowest_uusd % step_uusd or step_uusd % STRIKE_UNIT_UUSD):
        raise Rejected(RejectCode.STRIKE_OFF_GRID, step_uusd=step_uusd, got=lowest_uusd)


def _check_encoded(terms: bytes, are_used: bool) -> None:
    """Terms of a template: good ones, or zeros where that kind is not listed."""
    if are_used:
        _check_terms(Terms.decode(terms))
    else:
        _demand({"terms": terms == _NO_TERMS})


def _batch_cost(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    report = l1_market.CostReport(*_unpack(_BATCH_COST, message.payload)[1:])
    _demand({"bytes": report.size_bytes > 0})
    l1_market.report(view, block.timestamp_ms, message.l1_block, report)
    return MessageResult(index, message.kind)


def _set_feed(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets the terms of a feed, which need not exist before."""
    kind, padded, heartbeat_ms, deviation_ppm = _unpack(_SET_FEED, message.payload)
    name = padded.rstrip(b"\0")
    _demand(
        {
            "kind": kind in _FEED_KINDS,
            "name": is_name(name),
            "heartbeat_ms": heartbeat_ms <= _MAX_AGE_MS,
            "deviation_ppm": deviation_ppm <= PPM,
        }
    )
    key_kind, make = _FEED_KINDS[kind]
    key = name_key(key_kind, name.decode())
    feed: Feed | RateFeed | Surface | None = view.get(key)
    if feed is None:
        if kind == FeedKind.PRICE and view.get(name_key(MARKET_NAME, name.decode())) is not None:
            raise Rejected(RejectCode.NAME_TAKEN, name=name.decode())
        feed = make()
    feed.heartbeat_ms = heartbeat_ms
    feed.deviation_ppm = deviation_ppm
    view.put(key, feed)
    return MessageResult(index, message.kind)


def _set_liquidation(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    new = _decode(LiquidationParameters, message.payload)
    _demand(
        {
            "buffer_ppm": new.buffer_ppm <= PPM,
            "discounts": 0 < new.start_discount_ppm <= new.fast_discount_ppm <= PPM,
            "fee_ppm": new.fee_ppm <= PPM,
            "durations": min(new.fast_ms, new.slow_ms, new.insolvent_ms) > 0
            and max(new.fast_ms, new.slow_ms, new.insolvent_ms) <= _MAX_AUCTION_MS,
        }
    )
    view.put(LIQUIDATION_KEY, new)
    return MessageResult(index, message.kind)


def _set_fees(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets what base prices follow; the next block is the first that they decide."""
    new = _decode(FeeTerms, message.payload)
    check_fee_terms(new)
    view.put(FEE_TERMS_KEY, new)
    return MessageResult(index, message.kind)


def _set_fee_tiers(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets what accounts pay of the instruments' fees; each from its next day on."""
    new = _decode(FeeTiers, message.payload)
    check_tiers(new)
    view.put(FEE_TIERS_KEY, new)
    return MessageResult(index, message.kind)


def _set_priority(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets where what is paid for places in blocks goes."""
    new = _decode(PriorityTerms, message.payload)
    check_priority_terms(new)
    view.put(PRIORITY_KEY, new)
    return MessageResult(index, message.kind)


def _set_l1_terms(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets how the price of a batch byte follows L1; the next block is the first that they decide."""
    new = _decode(L1Terms, message.payload)
    l1_market.check_l1_terms(new)
    l1_market.set_terms(view, new, block.timestamp_ms)
    return MessageResult(index, message.kind)


def _set_margin(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets the margin parameters of an underlying that there is."""
    padded = message.payload[:MAX_NAME_BYTES]
    name = padded.rstrip(b"\0")
    if len(padded) < MAX_NAME_BYTES:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, got=len(message.payload))
    terms = _decode(MarginTerms, message.payload[MAX_NAME_BYTES:])
    _demand({"underlying": is_name(name) and view.get(name_key(FEED, name.decode())) is not None})
    check_margin_terms(terms)
    view.put(margin_key(padded), terms)
    return MessageResult(index, message.kind)


_FEED_KINDS: Final[dict[int, tuple[int, type[Feed] | type[RateFeed] | type[Surface]]]] = {
    FeedKind.PRICE: (FEED, Feed),
    FeedKind.RATE: (RATE, RateFeed),
    FeedKind.SURFACE: (SURFACE, Surface),
}

_HANDLERS: dict[int, Callable[[StateView, BlockContext, Progress, L1Message, int], MessageResult]] = {
    MessageKind.DEPOSIT: _deposit,
    MessageKind.FORCED_WITHDRAWAL: _forced_withdrawal,
    MessageKind.FORCED_ORDER: _forced_order,
    MessageKind.LIST_INSTRUMENT: _list_instrument,
    MessageKind.SET_INSTRUMENT: _set_instrument,
    MessageKind.SET_PARAMETERS: _set_parameters,
    MessageKind.SET_PUBLISHERS: _set_publishers,
    MessageKind.BATCH_COST: _batch_cost,
    MessageKind.SET_FEED: _set_feed,
    MessageKind.SET_MARGIN: _set_margin,
    MessageKind.SET_LIQUIDATION: _set_liquidation,
    MessageKind.SET_FEES: _set_fees,
    MessageKind.SET_FEE_TIERS: _set_fee_tiers,
    MessageKind.SET_PRIORITY: _set_priority,
    MessageKind.SET_L1_TERMS: _set_l1_terms,
    MessageKind.LIST_SERIES: _list_series,
    MessageKind.LIST_STRIKES: _list_strikes,
}
