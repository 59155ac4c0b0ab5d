"""L1 messages: deposits, what owners force through L1, what the governor sets, what batches cost.

Every message is consumed whatever is in it: a bad one changes nothing but the queue's registers. Payloads
have one exact length (PROTOCOL section 4).
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from msgspec.structs import replace

from state import l1_market
from state.accounts import check_leaving, open_account, withdraw
from state.actions import Order, OrderKind, Side
from state.block import L1Message, MessageKind, MessageResult
from state.cleanup import cleanup_step
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.hashing import keccak
from state.keys import SYSTEM_KEY, account_key
from state.leaves import Account, Progress, System, Task
from state.margin import withdrawable_uusd
from state.matching import match_step, place
from state.message_listing import list_instrument, list_series, list_strikes, set_instrument
from state.message_payloads import demand, unpack
from state.message_settings import set_feed, set_l1_terms, set_margin, set_single
from state.operations import check_place
from state.orders import check_units, instrument_of
from state.units import MAX_AMOUNT_UUSD, MAX_TOTAL_COLLATERAL_UUSD
from state.view import StateView

_DEPOSIT: Final = Struct(">20sQQ")
_FORCED_WITHDRAWAL: Final = Struct(">Q20sQ")
_FORCED_ORDER: Final = Struct(">QIBQQ")
_BATCH_COST: Final = Struct(">QIQQBQ")
_LINK: Final = Struct(">B20sQ").pack


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


def _deposit(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    owner, number, amount = unpack(_DEPOSIT, message.payload)
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
    number, recipient, amount = unpack(_FORCED_WITHDRAWAL, message.payload)
    account = _owned(view, number, message.sender)
    amount = min(amount, withdrawable_uusd(view, block, number, account.cash_uusd), MAX_AMOUNT_UUSD)
    check_leaving(view, block, number, account.cash_uusd, amount)
    withdrawal = withdraw(view, block, number, recipient, amount)
    return MessageResult(index, message.kind, account=number, amount_uusd=amount, withdrawal=withdrawal)


def _forced_order(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    number, market, side, price, size = unpack(_FORCED_ORDER, message.payload)
    account = _owned(view, number, message.sender)
    if side > Side.SELL:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, side=side)
    terms = instrument_of(view, market)
    check_units(terms.tick_uusd, terms.lot_ulots, price, size)
    order = Order(market, Side(side), OrderKind.IMMEDIATE_OR_CANCEL, price, size, True)
    crossing = check_place(view, block, progress, number, account, account.cash_uusd, order, 0)
    place(view, block, progress, crossing)
    return MessageResult(index, message.kind, account=number, market=market)


def _batch_cost(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    report = l1_market.CostReport(*unpack(_BATCH_COST, message.payload)[1:])
    demand({"bytes": report.size_bytes > 0})
    l1_market.report(view, block.timestamp_ms, report)
    return MessageResult(index, message.kind)


_HANDLERS: dict[int, Callable[[StateView, BlockContext, Progress, L1Message, int], MessageResult]] = {
    MessageKind.DEPOSIT: _deposit,
    MessageKind.FORCED_WITHDRAWAL: _forced_withdrawal,
    MessageKind.FORCED_ORDER: _forced_order,
    MessageKind.LIST_INSTRUMENT: list_instrument,
    MessageKind.SET_INSTRUMENT: set_instrument,
    MessageKind.SET_PARAMETERS: set_single,
    MessageKind.SET_PUBLISHERS: set_single,
    MessageKind.BATCH_COST: _batch_cost,
    MessageKind.SET_FEED: set_feed,
    MessageKind.SET_MARGIN: set_margin,
    MessageKind.SET_LIQUIDATION: set_single,
    MessageKind.SET_FEES: set_single,
    MessageKind.SET_FEE_TIERS: set_single,
    MessageKind.SET_PRIORITY: set_single,
    MessageKind.SET_L1_TERMS: set_l1_terms,
    MessageKind.LIST_SERIES: list_series,
    MessageKind.LIST_STRIKES: list_strikes,
}
