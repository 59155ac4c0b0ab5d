"""The envelope: order, signer, deadline, nonce, fee; money and keys. iNONCE_*, iMONEY_*, iORDER_*."""

from __future__ import annotations

from typing import Any

import pytest

from state.actions import (
    AuthorizeSessionKey,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    Order,
    OrderKind,
    PlaceOrder,
    Replacement,
    ReplaceOrder,
    RevokeSessionKey,
    Scope,
    SelfTrade,
    Side,
    Transfer,
    Withdraw,
)
from state.block import OrderEnd
from state.errors import RejectCode, Rejected
from state.fees import charge
from state.keys import FEE_MARKET_KEY, L1_PRICE_KEY, session_key_key, withdrawal_key
from state.leaves import FeeMarket, Withdrawal
from state.transition import simulate
from state.units import MAX_DEADLINE_AHEAD_S, MAX_NONCE
from tests.exchange_checks import assert_conserved, free_of_risk_fees, must_reject, must_reject_act
from tools.exchange import COIN, USD, Exchange, owner_address, standard_exchange

KEY = b"\x77" * 20
STRANGER = b"\x66" * 20
BUY = Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN)
NOW_S = 1_700_000_000


@pytest.fixture
def exchange() -> Exchange:
    return standard_exchange()


def place(exchange: Exchange, **changes: Any) -> PlaceOrder:
    return PlaceOrder(**({**exchange.envelope(1), "order": BUY} | changes))


# iORDER_001: within a block, classes do not decrease and bids of the last class do not increase.


def test_class_out_of_order(exchange: Exchange) -> None:
    with exchange.block() as execution:
        execution.execute(exchange.sign(place(exchange)))
        before = exchange.leaves()
        cancel = CancelAll(**exchange.envelope(2))
        with pytest.raises(Rejected) as refusal:
            execution.execute(exchange.sign(cancel))
        assert exchange.leaves() == before
    assert refusal.value.code is RejectCode.OUT_OF_ORDER
    assert exchange.send(exchange.sign(cancel)).code == 0, "in the next block it is first"


def test_bid_out_of_order(exchange: Exchange) -> None:
    with exchange.block() as execution:
        execution.execute(exchange.sign(place(exchange, priority_bid_uusd=5)))
        execution.execute(exchange.sign(place(exchange, priority_bid_uusd=5)))
        with pytest.raises(Rejected, match="OUT_OF_ORDER"):
            execution.execute(exchange.sign(place(exchange, priority_bid_uusd=6)))
        execution.execute(exchange.sign(place(exchange, priority_bid_uusd=0)))


def test_oracle_update_comes_first(exchange: Exchange) -> None:
    exchange.now_ms += 1_000
    with exchange.block() as execution:
        execution.execute(exchange.sign(CancelAll(**exchange.envelope(1))))
        with pytest.raises(Rejected, match="OUT_OF_ORDER"):
            execution.execute(exchange.update({"C1": 1_000 * USD}))


def test_post_only_stands_between_cancels_and_bids(exchange: Exchange) -> None:
    quiet = Order(1, Side.BUY, OrderKind.POST_ONLY, 900 * USD, COIN)
    with exchange.block() as execution:
        execution.execute(exchange.sign(CancelAll(**exchange.envelope(1))))
        execution.execute(exchange.sign(BulkOrders(**exchange.envelope(1), orders=(quiet, quiet))))
        execution.execute(exchange.sign(place(exchange)))
        with pytest.raises(Rejected, match="OUT_OF_ORDER"):
            execution.execute(exchange.sign(place(exchange, order=quiet)))


# Signers


def test_nobody_signed(exchange: Exchange) -> None:
    transaction = exchange.sign(place(exchange))
    unsigned = type(transaction)(transaction.payload, (None,), transaction.hash)
    must_reject(exchange, RejectCode.BAD_SIGNATURE, unsigned)


def test_wrong_signer_says_who_signed(exchange: Exchange) -> None:
    refusal = must_reject(exchange, RejectCode.WRONG_SIGNER, exchange.sign(place(exchange), STRANGER))
    assert refusal.data["recovered"] == "0x" + STRANGER.hex()


def test_unknown_account(exchange: Exchange) -> None:
    must_reject_act(exchange, RejectCode.UNKNOWN_ACCOUNT, PlaceOrder, 99, order=BUY)


def authorize(exchange: Exchange, scope: Scope, expiry_s: int = NOW_S + 100, key: bytes = KEY) -> None:
    exchange.act(AuthorizeSessionKey, 1, key=key, scope=scope, expiry_s=expiry_s)


def test_session_key_trades_until_it_expires(exchange: Exchange) -> None:
    authorize(exchange, Scope.TRADE)
    assert exchange.send(exchange.sign(place(exchange), KEY)).code == 0
    exchange.now_ms += 100_000
    must_reject(exchange, RejectCode.SESSION_KEY_EXPIRED, exchange.sign(place(exchange), KEY))


@pytest.mark.parametrize("scope", Scope)
def test_session_key_cannot_move_money_or_keys(exchange: Exchange, scope: Scope) -> None:
    authorize(exchange, scope)
    for kind, fields in (
        (Transfer, {"to_account": 2, "amount_uusd": 1}),
        (Withdraw, {"recipient": KEY, "amount_uusd": 1}),
        (AuthorizeSessionKey, {"key": STRANGER, "scope": Scope.TRADE, "expiry_s": NOW_S + 9}),
        (RevokeSessionKey, {"key": KEY}),
    ):
        action = kind(**exchange.envelope(1), **fields)
        must_reject(exchange, RejectCode.SESSION_KEY_SCOPE, exchange.sign(action, KEY))


def test_cancel_only_key_cancels_only(exchange: Exchange) -> None:
    placed = exchange.place(1, 1, Side.BUY, 900 * USD, COIN)
    cancel = Cancel(1, placed.operations[0].order_id)
    authorize(exchange, Scope.CANCEL_ONLY)
    must_reject(exchange, RejectCode.SESSION_KEY_SCOPE, exchange.sign(place(exchange), KEY))
    mixed = BulkOrders(**exchange.envelope(1), cancels=(cancel,), orders=(BUY,))
    must_reject(exchange, RejectCode.SESSION_KEY_SCOPE, exchange.sign(mixed, KEY))
    for action in (
        BulkOrders(**exchange.envelope(1), cancels=(cancel,)),
        CancelAll(**exchange.envelope(1)),
        CancelAllAfter(**exchange.envelope(1), timeout_s=5),
    ):
        assert exchange.send(exchange.sign(action, KEY)).code == 0


def test_revoked_key_is_a_stranger(exchange: Exchange) -> None:
    authorize(exchange, Scope.TRADE)
    exchange.act(RevokeSessionKey, 1, key=KEY)
    assert exchange.account(1).session_keys == 0
    must_reject(exchange, RejectCode.WRONG_SIGNER, exchange.sign(place(exchange), KEY))
    must_reject_act(exchange, RejectCode.UNKNOWN_SESSION_KEY, RevokeSessionKey, 1, key=KEY)


def test_session_keys_are_bounded_and_can_be_changed(exchange: Exchange) -> None:
    limit = exchange.parameters.max_session_keys
    for number in range(limit):
        authorize(exchange, Scope.TRADE, key=bytes([number] * 20))
    fields = {"key": KEY, "scope": Scope.TRADE, "expiry_s": NOW_S + 9}
    must_reject_act(exchange, RejectCode.TOO_MANY_SESSION_KEYS, AuthorizeSessionKey, 1, **fields)
    authorize(exchange, Scope.CANCEL_ONLY, key=bytes(20))
    assert exchange.view.get(session_key_key(1, bytes(20))).scope == Scope.CANCEL_ONLY
    assert exchange.account(1).session_keys == limit


def test_session_key_that_has_expired_already(exchange: Exchange) -> None:
    fields = {"key": KEY, "scope": Scope.TRADE, "expiry_s": NOW_S}
    must_reject_act(exchange, RejectCode.SESSION_KEY_EXPIRED, AuthorizeSessionKey, 1, **fields)


# iNONCE_*: every nonce once, in any order within the window, none after its deadline.


def test_deadline_bounds(exchange: Exchange) -> None:
    must_reject(exchange, RejectCode.DEADLINE_EXPIRED, exchange.sign(place(exchange, deadline_s=NOW_S - 1)))
    late = NOW_S + MAX_DEADLINE_AHEAD_S
    must_reject(exchange, RejectCode.DEADLINE_TOO_FAR, exchange.sign(place(exchange, deadline_s=late + 1)))
    for deadline_s in (NOW_S, late):
        assert exchange.send(exchange.sign(place(exchange, deadline_s=deadline_s))).code == 0


def test_inonce_001_a_nonce_is_spent_once(exchange: Exchange) -> None:
    action = place(exchange, nonce=7)
    exchange.send(exchange.sign(action))
    must_reject(exchange, RejectCode.NONCE_USED, exchange.sign(action))


def test_inonce_002_nonces_in_any_order_within_the_window(exchange: Exchange) -> None:
    for nonce in (300, 45, 299, 46, 100):
        assert exchange.send(exchange.sign(place(exchange, nonce=nonce))).code == 0
    assert exchange.account(1).nonce_base == 45
    for nonce in (45, 46, 100, 299, 300):
        must_reject(exchange, RejectCode.NONCE_USED, exchange.sign(place(exchange, nonce=nonce)))
    must_reject(exchange, RejectCode.NONCE_TOO_OLD, exchange.sign(place(exchange, nonce=44)))


def test_inonce_003_the_window_slides_so_that_a_higher_nonce_is_its_top(exchange: Exchange) -> None:
    exchange.send(exchange.sign(place(exchange, nonce=255)))
    assert exchange.account(1).nonce_base == 0
    exchange.send(exchange.sign(place(exchange, nonce=256)))
    assert exchange.account(1).nonce_base == 1
    assert exchange.account(1).nonce_map == (3 << 254).to_bytes(32, "big")
    exchange.send(exchange.sign(place(exchange, nonce=MAX_NONCE)))
    assert exchange.account(1).nonce_base == MAX_NONCE - 255
    assert exchange.account(1).nonce_map == (1 << 255).to_bytes(32, "big")


def test_nonce_out_of_range(exchange: Exchange) -> None:
    # The codec refuses it before; in a replay, where nothing is encoded, the envelope does.
    action = place(exchange, nonce=MAX_NONCE + 1)
    must_reject(exchange, RejectCode.NUMBER_OUT_OF_RANGE, exchange.sign(action))
    with exchange.block() as execution, pytest.raises(Rejected, match="NONCE_OUT_OF_RANGE"):
        execution.execute(exchange.sign(action), b"any bytes")


# Fees


def fee_of(exchange: Exchange, units: int, leaves: int, size: int) -> int:
    """What this costs in the last block."""
    market: FeeMarket = exchange.view.get(FEE_MARKET_KEY)
    return sum(charge(exchange.view.get(L1_PRICE_KEY).price_pusd, market, units, leaves, size, 0))


def test_fee_is_units_and_bytes_and_is_collected(exchange: Exchange) -> None:
    cash = exchange.account(1).cash_uusd
    with exchange.block() as execution:
        result = execution.execute(exchange.sign(place(exchange)))
        size = len(execution.block.encoded[-1])
    assert result.fee_uusd - result.fee_parts[-1] == fee_of(exchange, 14, 2, size) > 0
    assert exchange.account(1).cash_uusd == cash - result.fee_uusd
    assert exchange.system.fees_uusd + exchange.system.insurance_uusd == result.fee_uusd
    assert_conserved(exchange)


def test_units_of_a_bulk_action_are_those_of_its_operations(exchange: Exchange) -> None:
    quiet = Order(1, Side.BUY, OrderKind.POST_ONLY, 900 * USD, COIN)
    replacement = Replacement(1, 0, 900 * USD, COIN)
    fields: dict[str, Any] = {
        "cancels": (Cancel(1, 0),) * 2,
        "replacements": (replacement,),
        "orders": (BUY, quiet, quiet),
    }
    with exchange.block() as execution:
        result = execution.execute(exchange.sign(BulkOrders(**exchange.envelope(1), **fields)))
        size = len(execution.block.encoded[-1])
    assert result.fee_uusd - result.fee_parts[-1] == fee_of(exchange, 4 + 2 * 3 + 12 + 10 + 2 * 8, 6, size)


def test_fee_above_max(exchange: Exchange) -> None:
    fee = exchange.send(exchange.sign(place(exchange, max_fee_uusd=1_000))).fee_uusd
    refusal = must_reject(
        exchange, RejectCode.FEE_ABOVE_MAX, exchange.sign(place(exchange, max_fee_uusd=fee - 1))
    )
    assert refusal.data == {"fee_uusd": fee, "max_fee_uusd": fee - 1}


def test_bid_above_max_fee(exchange: Exchange) -> None:
    action = place(exchange, max_fee_uusd=1_000, priority_bid_uusd=1_001)
    must_reject(exchange, RejectCode.BID_ABOVE_MAX_FEE, exchange.sign(action))


def test_fee_needs_cash(exchange: Exchange) -> None:
    account = exchange.deposit(owner_address(9), 100)
    refusal = must_reject_act(exchange, RejectCode.INSUFFICIENT_CASH, CancelAll, account)
    assert refusal.data["available_uusd"] == 100


# What cannot be expressed in a batch


@pytest.mark.parametrize(
    ("code", "order"),
    [
        (RejectCode.UNKNOWN_INSTRUMENT, Order(9, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN)),
        (RejectCode.UNKNOWN_INSTRUMENT, Order(2**40, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN)),
        (RejectCode.UNKNOWN_INSTRUMENT, Order(0, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN)),
        (RejectCode.PRICE_OFF_TICK, Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD + 1, COIN)),
        (RejectCode.SIZE_OFF_LOT, Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN + 1)),
    ],
)
def test_order_that_no_batch_can_express(exchange: Exchange, code: RejectCode, order: Order) -> None:
    must_reject(exchange, code, exchange.sign(place(exchange, order=order)))
    bulk = BulkOrders(**exchange.envelope(1), orders=(BUY, order))
    must_reject(exchange, code, exchange.sign(bulk))


def test_numbers_beyond_the_codec(exchange: Exchange) -> None:
    for kind, fields in (
        (Transfer, {"to_account": 2, "amount_uusd": 2**64}),
        (CancelOrder, {"cancel": Cancel(2**40, 1)}),
        (CancelOrder, {"cancel": Cancel(1, 2**63)}),
        (PlaceOrder, {"order": BUY, "max_fee_uusd": 2**64}),
        (Withdraw, {"recipient": bytes(19), "amount_uusd": 1}),
        (AuthorizeSessionKey, {"key": bytes(21), "scope": Scope.TRADE, "expiry_s": NOW_S + 9}),
    ):
        must_reject_act(exchange, RejectCode.NUMBER_OUT_OF_RANGE, kind, 1, **fields)


def test_operation_counts(exchange: Exchange) -> None:
    must_reject_act(exchange, RejectCode.EMPTY_ACTION, BulkOrders, 1)
    must_reject_act(exchange, RejectCode.TOO_MANY_OPERATIONS, BulkOrders, 1, orders=(BUY,) * 65)


# Transfers and withdrawals


def test_transfer(exchange: Exchange) -> None:
    before = exchange.account(1).cash_uusd, exchange.account(2).cash_uusd
    result = exchange.act(Transfer, 1, to_account=2, amount_uusd=5 * USD)
    assert exchange.account(1).cash_uusd == before[0] - 5 * USD - result.fee_uusd
    assert exchange.account(2).cash_uusd == before[1] + 5 * USD
    assert_conserved(exchange)


@pytest.mark.parametrize(
    ("code", "to", "amount"),
    [
        (RejectCode.SAME_ACCOUNT, 1, 1),
        (RejectCode.UNKNOWN_RECIPIENT, 99, 1),
        (RejectCode.AMOUNT_ZERO, 2, 0),
        (RejectCode.NUMBER_OUT_OF_RANGE, 2, 10**17 + 1),
        (RejectCode.INSUFFICIENT_CASH, 2, 1_000_000 * USD),
    ],
)
def test_bad_transfers(exchange: Exchange, code: RejectCode, to: int, amount: int) -> None:
    must_reject_act(exchange, code, Transfer, 1, to_account=to, amount_uusd=amount)


def test_withdraw_writes_a_leaf_that_l1_pays(exchange: Exchange) -> None:
    collateral = exchange.system.collateral_uusd
    first = exchange.act(Withdraw, 1, recipient=KEY, amount_uusd=5 * USD)
    second = exchange.act(Withdraw, 2, recipient=STRANGER, amount_uusd=6 * USD)
    assert (first.withdrawal, second.withdrawal) == (1, 2)
    leaf = exchange.view.get(withdrawal_key(2))
    assert leaf == Withdrawal(STRANGER, 6 * USD, 2, exchange.system.block_number)
    assert exchange.system.collateral_uusd == collateral - 11 * USD
    assert_conserved(exchange)


def test_withdrawal_must_leave_initial_margin(exchange: Exchange) -> None:
    free_of_risk_fees(exchange)
    exchange.place(1, 1, Side.BUY, 1_000 * USD, 100 * COIN)
    refusal = must_reject_act(
        exchange, RejectCode.INSUFFICIENT_MARGIN, Withdraw, 1, recipient=KEY, amount_uusd=979_000 * USD
    )
    assert refusal.data["needed_uusd"] == 979_000 * USD
    fee = 4 * 10 + 10 * 10 + 3 * 120
    most = int(refusal.data["available_uusd"])
    assert 978_000 * USD - 2 * fee < most < 978_000 * USD
    must_reject_act(
        exchange, RejectCode.INSUFFICIENT_MARGIN, Withdraw, 1, recipient=KEY, amount_uusd=most + 1
    )
    assert exchange.act(Withdraw, 1, recipient=KEY, amount_uusd=most).withdrawal == 1


def test_withdrawal_from_positions_needs_fresh_marks(exchange: Exchange) -> None:
    exchange.place(1, 1, Side.BUY, 1_000 * USD, COIN)
    exchange.now_ms += exchange.parameters.oracle_max_age_ms + 1
    must_reject_act(exchange, RejectCode.ORACLE_STALE, Withdraw, 1, recipient=KEY, amount_uusd=1)
    assert exchange.act(Withdraw, 2, recipient=KEY, amount_uusd=1).withdrawal == 1


# Dead-man switch


def test_dead_man_switch_cancels_what_is_open(exchange: Exchange) -> None:
    for _ in range(40):
        exchange.place(1, 1, Side.BUY, 900 * USD, COIN)
    exchange.act(CancelAllAfter, 1, timeout_s=10)
    exchange.now_ms += 9_999
    exchange.messages()
    assert exchange.account(1).orders == 40
    exchange.now_ms += 1
    result = exchange.messages()
    assert exchange.account(1).orders == exchange.account(1).dead_man_ms == 0
    assert [event.end for event in result.orders] == [OrderEnd.DEAD_MAN] * 40


def test_dead_man_switch_is_refreshed_and_switched_off(exchange: Exchange) -> None:
    exchange.place(1, 1, Side.BUY, 900 * USD, COIN)
    exchange.act(CancelAllAfter, 1, timeout_s=10)
    exchange.now_ms += 5_000
    exchange.act(CancelAllAfter, 1, timeout_s=10)
    exchange.now_ms += 9_000
    exchange.act(CancelAllAfter, 1, timeout_s=0)
    exchange.now_ms += 99_000
    exchange.messages()
    assert exchange.account(1).orders == 1
    must_reject_act(exchange, RejectCode.NUMBER_OUT_OF_RANGE, CancelAllAfter, 1, timeout_s=86_401)


def test_switches_of_one_block_are_bounded() -> None:
    exchange = standard_exchange(70)
    for account in range(1, 71):
        exchange.act(CancelAllAfter, account, timeout_s=10)
    exchange.now_ms += 10_000
    exchange.messages()
    assert sum(exchange.account(account).dead_man_ms != 0 for account in range(1, 71)) == 6
    exchange.messages()
    assert sum(exchange.account(account).dead_man_ms != 0 for account in range(1, 71)) == 0


# Simulation


def test_simulation_changes_nothing(exchange: Exchange) -> None:
    exchange.place(2, 1, Side.SELL, 1_000 * USD, COIN)
    before = exchange.leaves()
    order = Order(1, Side.BUY, OrderKind.LIMIT, 1_000 * USD, 2 * COIN, self_trade=SelfTrade.CANCEL_MAKER)
    outcome = simulate(exchange.view, exchange.now_ms, exchange.sign(place(exchange, order=order)))
    assert exchange.leaves() == before
    assert outcome.result is not None
    assert outcome.before is not None
    assert outcome.after is not None
    assert outcome.result.operations[0].filled_ulots == COIN
    assert outcome.before.initial_uusd == 0
    assert 0 <= outcome.after.initial_uusd - 440 * USD <= 3
    refused = simulate(exchange.view, exchange.now_ms, exchange.sign(place(exchange), STRANGER))
    assert refused.rejected is not None
    assert refused.rejected.code is RejectCode.WRONG_SIGNER
    replace = ReplaceOrder(**exchange.envelope(1), replacement=Replacement(1, 5, 900 * USD, COIN))
    unknown = simulate(exchange.view, exchange.now_ms, exchange.sign(replace))
    assert unknown.rejected is not None
    assert exchange.leaves() == before
