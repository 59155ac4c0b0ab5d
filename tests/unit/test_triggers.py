"""Trigger orders: when they fire, in which order, how many at once, what ends them.

iTRIGGER_001, iTRIGGER_002, iTRIGGER_003.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest

from state.actions import (
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelTrigger,
    Leg,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    Side,
    TriggerCondition,
    TriggerSource,
)
from state.block import L1Message, MessageKind, OrderEnd
from state.errors import RejectCode, Rejected
from state.keys import (
    ACCOUNT_TRIGGER,
    CLEANUP,
    EXTRAS,
    MARKET_TRIGGER,
    TRIGGER,
    TRIGGER_COUNT,
    TRIGGER_QUEUE,
    instrument_key,
    parse_trigger_queue,
)
from state.leaves import Extras, Instrument, Task, Trigger, TriggerCount
from state.units import MAX_FIRED, MAX_LOOKED
from tests.depth import chain_exchange, execution, extras, quote_of, update, witness_block
from tests.exchange_checks import assert_conserved, must_reject_act
from tools.exchange import COIN, USD, VAULT, Exchange
from tools.option_exchange import full_update, make_due

ABOVE, BELOW = TriggerCondition.AT_OR_ABOVE, TriggerCondition.AT_OR_BELOW
MARK, BY_INDEX = TriggerSource.MARK, TriggerSource.INDEX


def terms(market: int = 1, **changes: Any) -> dict[str, Any]:
    """A buy stop at 1,050 of its mark, which then buys at up to 1,100."""
    order = {"side": Side.BUY, "kind": OrderKind.MARKET, "price_uusd": 1_100 * USD, "size_ulots": COIN // 10}
    own = {name: changes.pop(name) for name in list(changes) if name in Order.__struct_fields__}
    fields: dict[str, Any] = {"source": MARK, "condition": ABOVE, "trigger_uusd": 1_050 * USD}
    return {"order": Order(market=market, **(order | own)), **(fields | changes)}


def place(exchange: Exchange, account: int = 1, market: int = 1, **changes: Any) -> int:
    """Places a trigger; the id of its order."""
    result = exchange.act(PlaceTrigger, account, **terms(market, **changes))
    return result.operations[0].order_id


def ends(exchange: Exchange) -> list[tuple[int, int, int]]:
    """(order id, end, code) of what became of triggers in the last block."""
    return [(event.order_id, event.end, event.code) for event in exchange.results[-1].triggers]


def check_index(exchange: Exchange) -> None:
    """iTRIGGER_001: all that counts and finds triggers."""
    leaves = exchange.leaves()
    kinds: dict[int, list[bytes]] = {}
    for key in leaves:
        kinds.setdefault(key[0], []).append(key)
    found = [Trigger.decode(leaves[key]) for key in kinds.get(TRIGGER, [])]
    assert len(kinds.get(ACCOUNT_TRIGGER, [])) == len(found)
    counts: dict[int, int] = {}
    dated: dict[int, int] = {}
    entries = 0
    for key, trigger in zip(kinds.get(TRIGGER, []), found, strict=True):
        counts[trigger.account] = counts.get(trigger.account, 0) + 1
        listed: Instrument = exchange.view.get(instrument_key(trigger.market))
        if listed.expiry:
            entries += 1
            if key[1] == 0:
                dated[trigger.market] = dated.get(trigger.market, 0) + 1
    assert {
        int.from_bytes(key[1:9], "big"): count
        for key in kinds.get(EXTRAS, [])
        if (count := Extras.decode(leaves[key]).triggers)
    } == counts
    assert len(kinds.get(MARKET_TRIGGER, [])) == entries
    assert {
        int.from_bytes(key[1:5], "big"): TriggerCount.decode(leaves[key]).triggers
        for key in kinds.get(TRIGGER_COUNT, [])
    } == dated
    assert sorted(parse_trigger_queue(key)[1] for key in kinds.get(TRIGGER_QUEUE, [])) == sorted(dated)
    assert not kinds.get(CLEANUP)


def test_a_stop_and_a_take_profit_on_the_mark() -> None:
    exchange, _ = chain_exchange()
    exchange.place(2, 1, Side.SELL, 1_052 * USD, COIN)
    exchange.now_ms += 1_000
    stop = place(exchange)
    profit = place(exchange, side=Side.SELL, price_uusd=900 * USD, condition=BELOW, trigger_uusd=970 * USD)
    update(exchange, 1_049 * USD)
    assert ends(exchange) == []
    exchange.now_ms += 1_000
    tasks = witness_block(exchange, full_update(exchange, {"C1": 1_050 * USD}))
    assert tasks >= {Task.TRIGGERS, Task.MATCH}
    assert ends(exchange) == [(stop, OrderEnd.TRIGGERED, 0)]
    (trade,) = exchange.results[-1].trades
    assert (trade.taker_order_id, trade.size_ulots) == (stop, COIN // 10)
    (operation,) = exchange.results[-1].results[0].operations
    assert (operation.order_id, operation.filled_ulots) == (stop, COIN // 10)
    exchange.place(2, 1, Side.BUY, 965 * USD, COIN)
    exchange.now_ms += 1_000
    update(exchange, 960 * USD)
    assert ends(exchange) == [(profit, OrderEnd.TRIGGERED, 0)]
    check_index(exchange)
    assert extras(exchange, 1) is None
    assert_conserved(exchange)


def test_an_index_sets_off_triggers_in_all_its_instruments() -> None:
    exchange, markets = chain_exchange()
    ids = [
        place(exchange, market=market, source=BY_INDEX, kind=OrderKind.LIMIT, price_uusd=price * USD)
        for market, price in ((1, 1_001), (markets["F"], 1_001), (markets["1000C"], 30))
    ]
    other = place(exchange, market=2, source=BY_INDEX, price_uusd=2_100 * USD, trigger_uusd=2_050 * USD)
    check_index(exchange)
    exchange.now_ms += 1_000
    witness_block(exchange, full_update(exchange, {"C1": 1_051 * USD, "C2": 2_000 * USD}))
    assert ends(exchange) == [(each, OrderEnd.TRIGGERED, 0) for each in ids]
    assert exchange.account(1).orders == 3
    exchange.now_ms += 1_000
    update(exchange, 1_051 * USD, 2_050 * USD)
    assert ends(exchange) == [(other, OrderEnd.TRIGGERED, 0)]
    check_index(exchange)


def test_marks_of_options_and_futures_follow_their_expiry() -> None:
    exchange, markets = chain_exchange()
    call = place(
        exchange,
        market=markets["1000C"],
        kind=OrderKind.LIMIT,
        price_uusd=60 * USD,
        trigger_uusd=50 * USD,
    )
    put = place(
        exchange,
        market=markets["1000P"],
        kind=OrderKind.LIMIT,
        price_uusd=1 * USD,
        condition=BELOW,
        trigger_uusd=2 * USD,
    )
    future = place(exchange, market=markets["F"])
    for index_uusd, fired in ((1_005 * USD, []), (1_055 * USD, [call, put, future])):
        exchange.now_ms += 1_000
        witness_block(exchange, full_update(exchange, {"C1": index_uusd}))
        assert sorted(each for each, _, _ in ends(exchange)) == sorted(fired)
        check_index(exchange)


def test_nearest_first_then_oldest() -> None:
    """iTRIGGER_002."""
    exchange, _ = chain_exchange()
    late = place(exchange, trigger_uusd=1_040 * USD)
    first = place(exchange, account=2, trigger_uusd=1_030 * USD)
    second = place(exchange, trigger_uusd=1_030 * USD)
    exchange.now_ms += 1_000
    update(exchange, 1_045 * USD)
    assert [each for each, _, _ in ends(exchange)] == [first, second, late]


def test_what_exceeds_the_bound_comes_with_the_next_update() -> None:
    exchange, markets = chain_exchange()
    ids = [place(exchange, trigger_uusd=(1_010 * 1_000 + number) * 1_000) for number in range(MAX_FIRED + 2)]
    future = place(exchange, market=markets["F"], trigger_uusd=1_015 * USD)
    for expected in (ids[:MAX_FIRED], [*ids[MAX_FIRED:], future], []):
        exchange.now_ms += 1_000
        update(exchange, 1_020 * USD)
        assert [each for each, _, _ in ends(exchange)] == expected
    check_index(exchange)


def test_no_market_is_passed_over_for_ever() -> None:
    """Many markets whose triggers do not fire: one that does gets its turn, and feeds do not wait."""
    exchange, markets = chain_exchange(strikes=25)
    options = [name for name in markets if name[-1] in "CP" and name[0] in "123"]
    assert len(options) > 2 * MAX_LOOKED
    for name in options:
        limit = {"kind": OrderKind.LIMIT, "price_uusd": USD, "trigger_uusd": 5_000 * USD}
        place(exchange, market=markets[name], **limit)
    future = place(exchange, market=markets["F"], trigger_uusd=1_015 * USD)
    perpetual = place(exchange, trigger_uusd=1_015 * USD)
    fired: list[list[int]] = []
    while not any(future in each for each in fired):
        exchange.now_ms += 1_000
        update(exchange, (1_015 + len(fired)) * USD)
        fired.append([each for each, _, _ in ends(exchange)])
        check_index(exchange)
    assert perpetual in fired[0]
    assert len(fired) <= len(options) // MAX_LOOKED + 1


def test_an_order_is_checked_when_it_is_placed() -> None:
    exchange, _ = chain_exchange()
    far = place(exchange, price_uusd=2_000 * USD)
    big = place(exchange, size_ulots=900 * COIN, trigger_uusd=1_051 * USD, account=3)
    late = place(
        exchange, kind=OrderKind.LIMIT, expiry_s=exchange.now_ms // 1_000 + 1, trigger_uusd=1_052 * USD
    )
    exchange.now_ms += 2_000
    before = exchange.account(3).cash_uusd
    parameters = exchange.parameters
    parameters.max_orders = 1
    exchange.messages(L1Message(MessageKind.SET_PARAMETERS, VAULT, 0, parameters.encode()))
    witness_block(exchange, full_update(exchange, {"C1": 1_060 * USD}))
    assert (
        ends(exchange)
        == [
            (far, OrderEnd.TRIGGERED, RejectCode.PRICE_OUT_OF_BAND),
            (big, OrderEnd.TRIGGERED, 0),
            (late, OrderEnd.TRIGGERED, RejectCode.ORDER_EXPIRED),
        ]
        or ends(exchange)[1][2] == RejectCode.INSUFFICIENT_MARGIN
    )
    codes = [operation.code for operation in exchange.results[-1].results[0].operations]
    assert codes == [code for _, _, code in ends(exchange)]
    assert exchange.account(3).cash_uusd == before
    check_index(exchange)


# How they end otherwise


def with_position(size: int = COIN) -> Exchange:
    """Account 1 is long the perpetual and has stops that only reduce, and one that does not."""
    exchange, _ = chain_exchange()
    exchange.place(2, 1, Side.SELL, 1_000 * USD, size)
    exchange.place(1, 1, Side.BUY, 1_000 * USD, size)
    for place_ in range(20):
        place(exchange, **selling(reduce_only=True, trigger_uusd=(970 - place_) * USD))
    place(exchange, **selling(trigger_uusd=940 * USD))
    return exchange


def selling(**changes: Any) -> dict[str, Any]:
    return {"side": Side.SELL, "price_uusd": 900 * USD, "condition": BELOW} | changes


@pytest.mark.parametrize("is_maker", [False, True])
def test_reduce_only_triggers_die_with_the_position(is_maker: bool) -> None:
    exchange = with_position()
    closing = Order(1, Side.SELL, OrderKind.LIMIT, 1_000 * USD, 2 * COIN)
    opposite = Order(1, Side.BUY, OrderKind.LIMIT, 1_000 * USD, 2 * COIN)
    sent = [
        exchange.sign(PlaceOrder(**exchange.envelope(1), order=closing)),
        exchange.sign(PlaceOrder(**exchange.envelope(3), order=opposite)),
    ]
    tasks = witness_block(exchange, *(sent if is_maker else reversed(sent)))
    assert Task.CLEANUP in tasks
    assert [end for _, end, _ in ends(exchange)] == [OrderEnd.POSITION_CLOSED] * 20
    found = extras(exchange, 1)
    assert found is not None
    assert found.triggers == 1
    check_index(exchange)


def test_a_block_trade_that_closes_takes_them_along() -> None:
    exchange = with_position()
    quote = quote_of(exchange, (Leg(1, Side.BUY, COIN),), -1_000 * USD, account=3)
    tasks = witness_block(exchange, execution(exchange, quote, 1))
    assert Task.CLEANUP in tasks
    assert len(ends(exchange)) == 20
    check_index(exchange)


def test_reducing_keeps_them_and_they_reduce() -> None:
    exchange = with_position()
    exchange.place(3, 1, Side.BUY, 960 * USD, 5 * COIN)
    exchange.now_ms += 1_000
    update(exchange, 960 * USD)
    fired = [each for each in ends(exchange) if each[1] == OrderEnd.TRIGGERED]
    assert len(fired) == 10, "a tenth each: the tenth closes the position, and the rest goes"
    assert len(ends(exchange)) == 20
    assert exchange.position(1, 1) is None
    check_index(exchange)


def test_cancelled_one_by_one_and_all_together() -> None:
    exchange = with_position()
    order_id = place(exchange)
    exchange.act(CancelTrigger, 1, cancel=Cancel(1, order_id))
    assert ends(exchange) == [(order_id, OrderEnd.CANCELLED, 0)]
    must_reject_act(exchange, RejectCode.UNKNOWN_TRIGGER, CancelTrigger, 1, cancel=Cancel(1, order_id))
    must_reject_act(exchange, RejectCode.UNKNOWN_TRIGGER, CancelTrigger, 1, cancel=Cancel(999, 1))
    must_reject_act(exchange, RejectCode.UNKNOWN_TRIGGER, CancelTrigger, 2, cancel=Cancel(1, order_id))
    place(exchange, market=2, price_uusd=2_100 * USD, trigger_uusd=2_050 * USD)
    exchange.place(1, 1, Side.BUY, 900 * USD, COIN)
    tasks = witness_block(exchange, exchange.sign(CancelAll(**exchange.envelope(1), market=1)))
    assert Task.SWEEP in tasks
    assert len(ends(exchange)) == 21
    assert exchange.account(1).orders == 0
    check_index(exchange)
    exchange.act(CancelAll, 1)
    assert extras(exchange, 1) is None


def test_a_dead_mans_triggers_go() -> None:
    exchange = with_position()
    exchange.act(CancelAllAfter, 1, timeout_s=5)
    exchange.now_ms += 5_000
    exchange.messages()
    assert {end for _, end, _ in ends(exchange)} == {OrderEnd.DEAD_MAN}
    assert extras(exchange, 1) is None


def test_they_go_when_their_instrument_expires() -> None:
    exchange, markets = chain_exchange()
    place(exchange, market=markets["F"])
    place(exchange, market=markets["1000C"], source=BY_INDEX, price_uusd=60 * USD)
    place(exchange, market=1)
    listed: Instrument = exchange.view.get(instrument_key(markets["F"]))
    exchange.now_ms = (listed.expiry_s - 1_800) * 1_000 - 1
    for _ in range(32):
        update(exchange, 1_000 * USD)
        exchange.now_ms += 60_000
    exchange.messages()
    make_due(exchange)
    gone = [event for result in exchange.results for event in result.triggers if event.end]
    assert [event.end for event in gone] == [OrderEnd.INSTRUMENT_EXPIRED] * 2
    check_index(exchange)
    found = extras(exchange, 1)
    assert found is not None
    assert found.triggers == 1


# What is refused


def test_bad_triggers() -> None:
    exchange, markets = chain_exchange()

    def refused(code: RejectCode, **changes: Any) -> dict[str, int | str | bool]:
        return must_reject_act(exchange, code, PlaceTrigger, 1, **terms(**changes)).data

    at_once = refused(RejectCode.TRIGGER_FIRES_AT_ONCE, trigger_uusd=1_000 * USD)
    assert at_once == {"price_uusd": 1_000 * USD, "trigger_uusd": 1_000 * USD}
    refused(RejectCode.TRIGGER_FIRES_AT_ONCE, trigger_uusd=1_000 * USD, condition=BELOW)
    refused(RejectCode.TRIGGER_FIRES_AT_ONCE, trigger_uusd=999 * USD, source=BY_INDEX)
    refused(RejectCode.TRIGGER_FIRES_AT_ONCE, market=markets["800C"], trigger_uusd=150 * USD)
    refused(RejectCode.NUMBER_OUT_OF_RANGE, trigger_uusd=0)
    refused(RejectCode.NUMBER_OUT_OF_RANGE, trigger_uusd=10**15 + 1)
    refused(RejectCode.UNKNOWN_INSTRUMENT, market=999)
    refused(RejectCode.PRICE_OFF_TICK, price_uusd=1)
    refused(RejectCode.SIZE_OFF_LOT, size_ulots=150)
    refused(RejectCode.SIZE_ZERO, size_ulots=0)
    refused(RejectCode.SIZE_TOO_LARGE, size_ulots=1_001 * COIN)
    refused(RejectCode.REDUCE_ONLY_INCREASES, reduce_only=True)
    past = {"kind": OrderKind.LIMIT, "expiry_s": exchange.now_ms // 1_000}
    refused(RejectCode.ORDER_EXPIRED, **past)
    refused(RejectCode.ORDER_EXPIRED, expiry_s=-1)
    for _ in range(3):
        place(exchange)
    parameters = exchange.parameters
    parameters.max_orders = 3
    exchange.messages(L1Message(MessageKind.SET_PARAMETERS, VAULT, 0, parameters.encode()))
    refused(RejectCode.TOO_MANY_ORDERS)
    order = Order(1, Side.BUY, OrderKind.LIMIT, 990 * USD, COIN)
    must_reject_act(exchange, RejectCode.TOO_MANY_ORDERS, PlaceOrder, 1, order=order)
    listed: Instrument = exchange.view.get(instrument_key(markets["F"]))
    exchange.now_ms = listed.expiry_s * 1_000
    refused(RejectCode.EXPIRED_INSTRUMENT, market=markets["F"])


@pytest.mark.parametrize("seed", range(2))
def test_random_triggers_keep_their_index_and_money(seed: int) -> None:
    exchange, markets = chain_exchange()
    chance = random.Random(seed)
    fired = placed = 0
    for _ in range(30):
        for account in (1, 2, 3, 4):
            market = chance.choice((1, 1, markets["F"], markets["1000C"]))
            base = 30 if market == markets["1000C"] else 1_000
            kind = chance.choice((OrderKind.LIMIT, OrderKind.MARKET, OrderKind.IMMEDIATE_OR_CANCEL))
            changes = {
                "side": Side(chance.getrandbits(1)),
                "kind": kind,
                "price_uusd": base * chance.randint(90, 110) * USD // 100,
                "trigger_uusd": base * chance.randint(94, 106) * USD // 100,
                "condition": chance.choice((ABOVE, BELOW)),
                "source": chance.choice((MARK, BY_INDEX)) if base > 30 else MARK,
                "reduce_only": chance.random() < 0.3,
            }
            action = PlaceTrigger(**exchange.envelope(account), **terms(market, **changes))
            with suppress(Rejected):
                exchange.send(exchange.sign(action))
                placed += 1
            side = Side(chance.getrandbits(1))
            exchange.act(
                PlaceOrder,
                account,
                order=Order(1, side, OrderKind.LIMIT, chance.randint(980, 1_020) * USD, COIN // 2),
            )
        exchange.now_ms += 1_000
        update(exchange, chance.randint(920, 1_080) * USD)
        fired += sum(end == OrderEnd.TRIGGERED for _, end, _ in ends(exchange))
        check_index(exchange)
        assert_conserved(exchange)
    assert placed > fired > 20
