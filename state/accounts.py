"""Accounts: who may sign, replay protection, the fee; opening, transfers, withdrawals, keys, switches.

`admit` is the envelope of every action: it checks in a fixed order and changes nothing, `spend` then commits
it. Between the two the action makes its own checks, so a refused transaction leaves no trace.
"""

from __future__ import annotations

from typing import Final

from state.actions import Action, AuthorizeSessionKey, CancelAllAfter, Scope, Transfer, Withdraw
from state.block import OrderEnd
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.keys import (
    PARAMETERS_KEY,
    SYSTEM_KEY,
    account_key,
    account_orders_prefix,
    auction_key,
    dead_man_key,
    order_key,
    owner_account_key,
    session_key_key,
    withdrawal_key,
)
from state.leaves import Account, AccountOrder, Marker, Parameters, SessionKey, System, Withdrawal
from state.margin import withdrawable_uusd
from state.orders import remove
from state.trigger_book import sweep_triggers
from state.units import (
    MAX_AMOUNT_UUSD,
    MAX_CASH_UUSD,
    MAX_DEADLINE_AHEAD_S,
    MAX_NONCE,
    MS_PER_S,
    NONCE_WINDOW,
    SWEEP_ORDERS,
)
from state.view import StateView

LAST_CLASS: Final = 3
CANCEL_RIGHT: Final = 0
"""What a session key of any scope may sign."""
TRADE_RIGHT: Final = 1
OWNER_RIGHT: Final = 2
_TOP: Final = NONCE_WINDOW - 1


def admit(
    view: StateView,
    block: BlockContext,
    action: Action,
    signer: bytes | None,
    order_class: int,
    right: int,
    fee: int,
) -> Account:
    """The account, when the envelope is good; raises Rejected otherwise. Changes nothing."""
    system: System = view.get(SYSTEM_KEY)
    bid = action.priority_bid_uusd
    if order_class < system.order_class or (order_class == system.order_class and bid > system.order_bid):
        raise Rejected(
            RejectCode.OUT_OF_ORDER, order_class=order_class, after=system.order_class, bid=system.order_bid
        )
    if signer is None:
        raise Rejected(RejectCode.BAD_SIGNATURE)
    account: Account | None = view.get(account_key(action.account))
    if account is None:
        raise Rejected(RejectCode.UNKNOWN_ACCOUNT, account=action.account)
    if signer != account.owner:
        _check_session_key(view, block, action.account, signer, right)
    now_s = block.now_s
    if action.deadline_s < now_s:
        raise Rejected(RejectCode.DEADLINE_EXPIRED, now_s=now_s, got=action.deadline_s)
    if action.deadline_s > now_s + MAX_DEADLINE_AHEAD_S:
        raise Rejected(
            RejectCode.DEADLINE_TOO_FAR, latest_s=now_s + MAX_DEADLINE_AHEAD_S, got=action.deadline_s
        )
    _check_nonce(account, action.nonce)
    if fee > action.max_fee_uusd:
        raise Rejected(RejectCode.FEE_ABOVE_MAX, fee_uusd=fee, max_fee_uusd=action.max_fee_uusd)
    if fee + bid > action.max_fee_uusd:
        raise Rejected(
            RejectCode.BID_ABOVE_MAX_FEE, bid_uusd=bid, fee_uusd=fee, max_fee_uusd=action.max_fee_uusd
        )
    if account.cash_uusd < fee + bid:
        raise Rejected(RejectCode.INSUFFICIENT_CASH, needed_uusd=fee + bid, available_uusd=account.cash_uusd)
    return account


def _check_session_key(view: StateView, block: BlockContext, number: int, signer: bytes, right: int) -> None:
    """The signer is not the owner: it must be a session key with the right to sign this."""
    key: SessionKey | None = view.get(session_key_key(number, signer))
    if key is None:
        raise Rejected(RejectCode.WRONG_SIGNER, recovered="0x" + signer.hex())
    if key.expiry_s <= block.now_s:
        raise Rejected(RejectCode.SESSION_KEY_EXPIRED, now_s=block.now_s, expiry_s=key.expiry_s)
    if right == OWNER_RIGHT or (right == TRADE_RIGHT and key.scope != Scope.TRADE):
        raise Rejected(RejectCode.SESSION_KEY_SCOPE, scope=key.scope)


def _check_nonce(account: Account, nonce: int) -> None:
    offset = nonce - account.nonce_base
    if 0 <= offset < NONCE_WINDOW:
        # Bit 0 of the map is the last bit of its last byte.
        if account.nonce_map[31 - (offset >> 3)] >> (offset & 7) & 1:
            raise Rejected(RejectCode.NONCE_USED, got=nonce)
    elif offset < 0:
        raise Rejected(RejectCode.NONCE_TOO_OLD, lowest=account.nonce_base, got=nonce)
    if nonce > MAX_NONCE:
        raise Rejected(RejectCode.NONCE_OUT_OF_RANGE, highest=MAX_NONCE, got=nonce)


def spend(
    view: StateView,
    action: Action,
    account: Account,
    order_class: int,
    fee: int,
    risk_uusd: int,
    size_bytes: int,
) -> None:
    """Commits the envelope: nonce, fee (of it `risk_uusd` to the insurance fund), place in the order, bytes
    in the batch."""
    offset = action.nonce - account.nonce_base
    spent = int.from_bytes(account.nonce_map, "big")
    if offset >= NONCE_WINDOW:
        shift = offset - _TOP
        account.nonce_base += shift
        spent >>= shift
        offset = _TOP
    account.nonce_map = (spent | 1 << offset).to_bytes(32, "big")
    bid = action.priority_bid_uusd
    account.cash_uusd -= fee + bid
    view.touch(account_key(action.account), account)
    system: System = view.get(SYSTEM_KEY)
    system.batch_cursor += size_bytes
    system.fees_uusd += fee - risk_uusd
    if risk_uusd:
        system.insurance_uusd += risk_uusd
    system.order_class = order_class
    system.order_bid = bid
    view.touch(SYSTEM_KEY, system)


def open_account(view: StateView, owner: bytes) -> int:
    """A new account of this owner, without cash; its number."""
    system: System = view.get(SYSTEM_KEY)
    number = system.next_account
    system.next_account = number + 1
    view.touch(SYSTEM_KEY, system)
    view.put(account_key(number), Account(owner, 0, 0, bytes(32), 0, 0, 0, 0))
    view.put(owner_account_key(owner, number), Marker(1))
    return number


def check_leaving(
    view: StateView, block: BlockContext, number: int, cash_uusd: int, amount_uusd: int
) -> None:
    """Whether `amount` may leave an account of this cash. Raises Rejected."""
    if view.get(auction_key(number)) is not None:
        raise Rejected(RejectCode.ACCOUNT_IN_AUCTION, account=number)
    if amount_uusd == 0:
        raise Rejected(RejectCode.AMOUNT_ZERO)
    if amount_uusd > MAX_AMOUNT_UUSD:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, maximum=MAX_AMOUNT_UUSD, got=amount_uusd)
    if amount_uusd > cash_uusd:
        raise Rejected(RejectCode.INSUFFICIENT_CASH, needed_uusd=amount_uusd, available_uusd=cash_uusd)
    withdrawable = withdrawable_uusd(view, block, number, cash_uusd)
    if amount_uusd > withdrawable:
        raise Rejected(RejectCode.INSUFFICIENT_MARGIN, needed_uusd=amount_uusd, available_uusd=withdrawable)


def withdraw(view: StateView, block: BlockContext, number: int, recipient: bytes, amount_uusd: int) -> int:
    """Moves checked cash out of the exchange: a leaf that L1 pays. Returns the withdrawal's number."""
    account: Account = view.get(account_key(number))
    account.cash_uusd -= amount_uusd
    view.touch(account_key(number), account)
    system: System = view.get(SYSTEM_KEY)
    system.collateral_uusd -= amount_uusd
    withdrawal = system.next_withdrawal
    system.next_withdrawal = withdrawal + 1
    view.touch(SYSTEM_KEY, system)
    leaf = Withdrawal(recipient, amount_uusd, number, system.block_number)
    view.put(withdrawal_key(withdrawal), leaf)
    block.accounts.add(number)
    return withdrawal


def check_withdraw(
    view: StateView, block: BlockContext, action: Withdraw, account: Account, fee: int
) -> None:
    check_leaving(view, block, action.account, account.cash_uusd - fee, action.amount_uusd)


def apply_withdraw(view: StateView, block: BlockContext, action: Withdraw) -> None:
    block.withdrawal = withdraw(view, block, action.account, action.recipient, action.amount_uusd)


def check_transfer(
    view: StateView, block: BlockContext, action: Transfer, account: Account, fee: int
) -> None:
    if action.to_account == action.account:
        raise Rejected(RejectCode.SAME_ACCOUNT)
    to: Account | None = view.get(account_key(action.to_account))
    if to is None:
        raise Rejected(RejectCode.UNKNOWN_RECIPIENT, account=action.to_account)
    check_leaving(view, block, action.account, account.cash_uusd - fee, action.amount_uusd)
    if to.cash_uusd + action.amount_uusd > MAX_CASH_UUSD:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, maximum=MAX_CASH_UUSD - to.cash_uusd)


def apply_transfer(view: StateView, block: BlockContext, action: Transfer) -> None:
    for number, amount in ((action.account, -action.amount_uusd), (action.to_account, action.amount_uusd)):
        account: Account = view.get(account_key(number))
        account.cash_uusd += amount
        view.touch(account_key(number), account)
        block.accounts.add(number)


def check_authorize(
    view: StateView, block: BlockContext, action: AuthorizeSessionKey, account: Account
) -> None:
    if action.expiry_s <= block.now_s:
        raise Rejected(RejectCode.SESSION_KEY_EXPIRED, now_s=block.now_s, expiry_s=action.expiry_s)
    parameters: Parameters = view.get(PARAMETERS_KEY)
    known = view.get(session_key_key(action.account, action.key)) is not None
    if not known and account.session_keys >= parameters.max_session_keys:
        raise Rejected(RejectCode.TOO_MANY_SESSION_KEYS, limit=parameters.max_session_keys)


def apply_authorize(view: StateView, action: AuthorizeSessionKey) -> None:
    """Adds the key, or changes its scope and expiry."""
    key = session_key_key(action.account, action.key)
    if view.get(key) is None:
        _count_session_keys(view, action.account, 1)
    view.put(key, SessionKey(int(action.scope), action.expiry_s))


def check_revoke(view: StateView, account: int, address: bytes) -> None:
    if view.get(session_key_key(account, address)) is None:
        raise Rejected(RejectCode.UNKNOWN_SESSION_KEY, key="0x" + address.hex())


def apply_revoke(view: StateView, account: int, address: bytes) -> None:
    view.delete(session_key_key(account, address))
    _count_session_keys(view, account, -1)


def _count_session_keys(view: StateView, number: int, change: int) -> None:
    account: Account = view.get(account_key(number))
    account.session_keys += change
    view.touch(account_key(number), account)


def check_switch(timeout_s: int) -> None:
    if timeout_s > MAX_DEADLINE_AHEAD_S:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, maximum=MAX_DEADLINE_AHEAD_S, got=timeout_s)


def apply_switch(view: StateView, block: BlockContext, action: CancelAllAfter) -> None:
    deadline_ms = block.timestamp_ms + action.timeout_s * MS_PER_S if action.timeout_s else 0
    set_switch(view, action.account, deadline_ms)


def set_switch(view: StateView, number: int, deadline_ms: int) -> None:
    """Sets, moves or (0) clears an account's dead-man switch."""
    account: Account = view.get(account_key(number))
    if account.dead_man_ms:
        view.delete(dead_man_key(account.dead_man_ms, number))
    account.dead_man_ms = deadline_ms
    view.touch(account_key(number), account)
    if deadline_ms:
        view.put(dead_man_key(deadline_ms, number), Marker(1))


def sweep(view: StateView, block: BlockContext, number: int, market: int, end: OrderEnd) -> tuple[int, bool]:
    """Cancels some of the account's orders, in one market or (0) in all.

    Triggers go too, after orders. Returns the size cancelled, and whether that were all.
    """
    found = view.iterate_under(account_orders_prefix(number, market), SWEEP_ORDERS + 1)
    cancelled = 0
    for entry_key, leaf in found[:SWEEP_ORDERS]:
        entry: AccountOrder = leaf
        of_market = int.from_bytes(entry_key[9:13], "big")
        key = order_key(of_market, entry.side, entry.price_uusd, entry.sequence)
        order = view.get(key)
        cancelled += order.size_ulots
        remove(view, block, key, order, end)
    room = SWEEP_ORDERS - len(found)
    return cancelled, room >= 0 and sweep_triggers(view, block, number, market, room, end)
