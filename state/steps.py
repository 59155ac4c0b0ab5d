"""The steps of a block: each executes from the view, the progress and its own input alone.

`item` is what L1 data gives a step: the message being consumed, or the transaction being executed. A
transaction's first step is its envelope: it is refused there, with nothing changed, or it is included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from state import fee_market, l1_market
from state.accounts import admit, set_switch, spend, sweep
from state.actions import (
    Action,
    Bid,
    BulkOrders,
    CancelAll,
    Deleverage,
    ExecuteQuote,
    OracleUpdate,
    Payload,
    SignedAction,
    StartAuction,
    Transaction,
)
from state.block import BlockHeader, InvalidBlock, L1Message, OrderEnd
from state.blocks import check_quote_signer
from state.cleanup import cleanup_step
from state.codec import (
    BLOCK_END,
    MAX_TIMESTAMP_MS,
    CodecError,
    MarketEntry,
    Table,
    block_start,
    encode_transaction,
)
from state.context import BlockContext
from state.deleverage import deleverage_step
from state.eip712 import header_hash
from state.errors import RejectCode, Rejected
from state.expiries import delist_step, settle_step
from state.fees import charge
from state.hashing import keccak
from state.keys import (
    DEAD_MAN,
    DUE,
    FEE_MARKET_KEY,
    L1_PRICE_KEY,
    SYSTEM_KEY,
    market_key,
    parse_due_key,
)
from state.leaves import Due, FeeMarket, L1Price, Market, Phase, Progress, System, Task
from state.liquidation import auction_orders_step, seize_step
from state.matching import match_step
from state.messages import message_step
from state.operations import operation_step, sweep_step
from state.oracle import check_update, feed_step, pricing_step, trigger_step
from state.orders import check_units, instrument_of
from state.pricing import mark_of
from state.priority import lend_back, market_of, release, settle, take_again
from state.risk_fees import risk_uusd
from state.rules import ORACLE_CLASS, priced_of, rule_of, use_of
from state.series import list_step
from state.units import MAX_DUE_STEPS, MAX_SWITCHES
from state.view import StateView

_NONE: Final = int(Task.NONE)
_CLEANUP: Final = int(Task.CLEANUP)
_AUCTION_ORDERS: Final = int(Task.AUCTION_ORDERS)
_DEAD_MAN_PREFIX: Final = bytes((DEAD_MAN,))
_TRANSACTIONS: Final = int(Phase.TRANSACTIONS)
_MESSAGES: Final = int(Phase.MESSAGES)
_SWITCHES: Final = int(Phase.SWITCHES)
_DUE_PREFIX: Final = bytes((DUE,))


def begin_block(view: StateView, block: BlockContext, messages: Sequence[L1Message]) -> Progress:
    """Opens a block. Raises InvalidBlock, with nothing changed, when it cannot follow the last one."""
    system: System = view.get(SYSTEM_KEY)
    if not system.timestamp_ms <= block.timestamp_ms <= MAX_TIMESTAMP_MS:
        raise InvalidBlock(f"timestamp {block.timestamp_ms} after {system.timestamp_ms}")
    origin = block.origin
    if not system.l1_block <= origin.number < 2**63:
        raise InvalidBlock(f"L1 origin {origin.number} after {system.l1_block}")
    if any(message.l1_block > origin.number for message in messages):
        raise InvalidBlock(f"a message is newer than the L1 origin {origin.number}")
    elapsed, l1_blocks = block.timestamp_ms - system.timestamp_ms, origin.number - system.l1_block
    start = block_start(elapsed, len(messages), l1_blocks)
    block.encoded.append(start)
    system.block_number += 1
    system.timestamp_ms = block.timestamp_ms
    system.l1_block = origin.number
    system.batch_cursor += len(start)
    system.order_class = 0
    system.order_bid = 0
    view.touch(SYSTEM_KEY, system)
    fee_market.begin(view, elapsed)
    l1_market.begin(view, block.timestamp_ms, origin)
    return Progress(messages_left=len(messages), phase=Phase.MESSAGES if messages else Phase.SWITCHES)


def end_block(view: StateView, block: BlockContext, progress: Progress) -> tuple[BlockHeader, bytes]:
    """Closes a block: its header, and that header's hash."""
    fee_market.end(view, progress)
    l1_market.end(view, progress)
    if progress.bidder:
        release(view, progress)
    system: System = view.get(SYSTEM_KEY)
    header = BlockHeader(
        system.block_number,
        system.parent_hash,
        system.timestamp_ms,
        progress.accumulator,
        system.l1_block,
        system.inbox_next,
    )
    system.parent_hash = header_hash(header)
    system.batch_cursor += len(BLOCK_END)
    view.touch(SYSTEM_KEY, system)
    block.encoded.append(BLOCK_END)
    return header, system.parent_hash


def step(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    item: L1Message | Transaction | None,
    encoded: bytes = b"",
) -> None:
    """One step. Raises Rejected only in a transaction's first step, and then nothing has changed.

    `encoded`: the transaction's bytes in the batch if known.
    """
    if progress.phase == _TRANSACTIONS:
        assert type(item) is Transaction
        payload = item.payload
        if progress.task:
            _continue(view, block, progress, payload)
        elif type(payload) is SignedAction:
            _begin_action(view, block, progress, item, payload, encoded)
        else:
            assert type(payload) is OracleUpdate
            _begin_update(view, block, progress, item, payload, encoded)
    elif progress.phase == _MESSAGES:
        assert type(item) is L1Message
        message_step(view, block, progress, item)
        if progress.messages_left == 0 and progress.task == _NONE:
            progress.phase = Phase.SWITCHES
    elif progress.phase == _SWITCHES:
        _switch_step(view, block, progress)
    else:
        _due_step(view, block, progress)


def _switch_step(view: StateView, block: BlockContext, progress: Progress) -> None:
    """Cancels some orders of the account whose dead-man switch is due, or moves on to what is due next."""
    found = view.first_under(_DEAD_MAN_PREFIX)
    if found is not None and progress.switches < MAX_SWITCHES:
        deadline_ms = int.from_bytes(found[0][1:9], "big")
        if deadline_ms <= block.timestamp_ms:
            number = int.from_bytes(found[0][9:17], "big")
            _, done = sweep(view, block, number, 0, OrderEnd.DEAD_MAN)
            if done:
                set_switch(view, number, 0)
                progress.switches += 1
            return
    progress.phase = Phase.DUE


def _due_step(view: StateView, block: BlockContext, progress: Progress) -> None:
    """One step of what block time drives, or moves on to transactions."""
    found = view.first_under(_DUE_PREFIX)
    if found is not None and progress.due < MAX_DUE_STEPS:
        key: bytes = found[0]
        time_s, what, number = parse_due_key(key)
        if time_s <= block.now_s:
            progress.due += 1
            if what == Due.SETTLE:
                settle_step(view, block, key, number)
            elif what == Due.DELIST:
                delist_step(view, block, key, number)
            else:
                list_step(view, block, key, number)
            return
    progress.phase = Phase.TRANSACTIONS


def _continue(view: StateView, block: BlockContext, progress: Progress, payload: Payload) -> None:
    """A transaction's further steps."""
    if progress.task == Task.MATCH:
        match_step(view, block, progress)
    elif progress.task == _CLEANUP:
        cleanup_step(view, block, progress)
    elif isinstance(payload, OracleUpdate):
        if progress.task == Task.FEEDS:
            feed_step(view, block, progress, payload)
        elif progress.task == Task.PRICINGS:
            pricing_step(view, block, progress, payload)
        else:
            trigger_step(view, block, progress, payload)
    elif progress.task >= _AUCTION_ORDERS:
        _liquidate(view, block, progress, payload.action)
    elif isinstance(payload.action, BulkOrders):
        operation_step(view, block, progress, payload.action)
    else:
        assert isinstance(payload.action, CancelAll)
        sweep_step(view, block, progress, payload.action)


def _liquidate(view: StateView, block: BlockContext, progress: Progress, action: Action) -> None:
    """A further step of an auction's start, of a bid, of deleveraging."""
    if isinstance(action, Bid):
        seize_step(view, block, progress, action)
    elif isinstance(action, Deleverage):
        deleverage_step(view, block, progress, action)
    else:
        assert isinstance(action, StartAuction)
        auction_orders_step(view, block, progress, action)
    if progress.task == _NONE:
        progress.parent = Task.NONE
        progress.task = Task.CLEANUP


def _begin_action(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    transaction: Transaction,
    payload: SignedAction,
    encoded: bytes,
) -> None:
    action = payload.action
    entries = _entries(view, block, action)
    if not encoded:
        encoded = _encode(payload, block, entries or block.entries)
    if type(action) is ExecuteQuote:
        check_quote_signer(view, block, action.quote, transaction.signers)
    rule = rule_of(action)
    l1_price: L1Price = view.get(L1_PRICE_KEY)
    market: FeeMarket = view.get(FEE_MARKET_KEY)
    size_bytes = len(encoded)
    units, leaves = use_of(view, action, rule)
    parts = charge(l1_price.price_pusd, market, units, leaves, size_bytes, risk_uusd(view, action))
    fee = sum(parts)
    order_class, bid = rule.order_class, action.priority_bid_uusd
    lent = lend_back(view, progress, order_class, bid) if progress.bidder else 0
    try:
        account = admit(view, block, action, transaction.signers[0], order_class, rule.right, fee)
        plan = rule.check(view, block, progress, action, account, fee + bid)
    except Rejected:
        if lent:
            take_again(view, progress, lent)
        raise
    if progress.bidder:
        settle(view, block, progress, order_class, bid)
    spend(view, action, account, order_class, fee, parts[-1], size_bytes)
    if bid:
        progress.bidder, progress.bid_market = action.account, market_of(action)
    progress.units_used += units
    progress.bytes_used += size_bytes
    progress.leaves_used += leaves
    progress.data_uusd += parts[0]
    _include(block, progress, transaction, encoded)
    if entries:
        _use_markets(view, block, entries)
    block.fee_uusd = fee
    block.fee_parts = parts
    block.accounts.add(action.account)
    rule.apply(view, block, progress, action, plan)


def _begin_update(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    transaction: Transaction,
    update: OracleUpdate,
    encoded: bytes,
) -> None:
    if not encoded:
        encoded = _encode(update, block, {})
    system: System = view.get(SYSTEM_KEY)
    if system.order_class > ORACLE_CLASS:
        raise Rejected(RejectCode.OUT_OF_ORDER, order_class=ORACLE_CLASS, after=system.order_class)
    check_update(view, block, update, transaction.signers)
    _include(block, progress, transaction, encoded)
    system.batch_cursor += len(encoded)
    view.touch(SYSTEM_KEY, system)
    block.fee_uusd = 0
    block.fee_parts = ()
    progress.task = Task.FEEDS
    progress.operation = 0


def _encode(payload: SignedAction | OracleUpdate, block: BlockContext, entries: Table) -> bytes:
    try:
        return encode_transaction(payload, block.timestamp_ms, entries)
    except CodecError as error:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, field=error.field) from None


def _entries(view: StateView, block: BlockContext, action: Action) -> dict[int, MarketEntry]:
    """Table entries of the markets in which the action has prices; empty when `block.entries` has them all.

    Raises Rejected for what no batch can express (unknown market, off tick, off lot), and in a replay when
    the batch's table differs from the state.
    """
    known = block.entries
    entries: dict[int, MarketEntry] = {}
    for priced in priced_of(action):
        market = priced.market
        entry = known.get(market) or entries.get(market)
        if entry is None:
            entry = _entry(view, market)
            entries[market] = entry
        check_units(entry.tick_uusd, entry.lot_ulots, priced.price_uusd, priced.size_ulots)
        if block.table is not None and block.table.get(market) != entry:
            raise Rejected(RejectCode.BAD_MARKET_TABLE, market=market, reference_ticks=entry.reference_ticks)
    return known | entries if entries else entries


def _entry(view: StateView, market: int) -> MarketEntry:
    """The entry that a market has, or would have if it were used first now."""
    terms = instrument_of(view, market)
    state: Market = view.get(market_key(market))
    system: System = view.get(SYSTEM_KEY)
    fixed = state.reference_batch == system.batch_number
    reference = state.reference_ticks if fixed else (mark_of(view, state, terms) or 0) // terms.tick_uusd
    return MarketEntry(terms.tick_uusd, terms.lot_ulots, reference)


def _use_markets(view: StateView, block: BlockContext, entries: dict[int, MarketEntry]) -> None:
    """Fixes the reference price of markets that this batch has not used before."""
    system: System = view.get(SYSTEM_KEY)
    for market, entry in entries.items():
        state: Market = view.get(market_key(market))
        if state.reference_batch != system.batch_number:
            state.reference_batch = system.batch_number
            state.reference_ticks = entry.reference_ticks
            view.touch(market_key(market), state)
    block.entries = entries


def _include(block: BlockContext, progress: Progress, transaction: Transaction, encoded: bytes) -> None:
    """The transaction is in the block: its hash counts, and its bytes (which the caller adds up)."""
    progress.accumulator = keccak(progress.accumulator + transaction.hash)
    block.encoded.append(encoded)


def skip(
    view: StateView, block: BlockContext, progress: Progress, transaction: Transaction, encoded: bytes
) -> None:
    """A transaction in a batch that is refused: it takes its place and changes nothing else."""
    _include(block, progress, transaction, encoded)
    system: System = view.get(SYSTEM_KEY)
    system.batch_cursor += len(encoded)
    view.touch(SYSTEM_KEY, system)
