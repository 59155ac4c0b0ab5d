"""The mempool: bounds, order, expiry, and who gets room when not all fit (iMEMPOOL)."""

from __future__ import annotations

import random

import pytest

from sequencer.mempool import Full, Mempool, Pending
from sequencer.ordering import arrange
from state.actions import OracleUpdate, Order, OrderKind, PlaceOrder, Side, SignedAction

SEED = 20


def pending(
    arrival: int, account: int = 1, deadline_s: int | None = 100, place: tuple[int, int] = (3, 0)
) -> Pending:
    return Pending(
        OracleUpdate(()), bytes(32), arrival.to_bytes(32, "big"), account, deadline_s, place, arrival
    )


def order(arrival: int, account: int, bid: int = 0, reduce_only: bool = False) -> Pending:
    """Of the last class."""
    placed = Order(1, Side.BUY, OrderKind.LIMIT, 100, 100, reduce_only)
    action = PlaceOrder(account=account, nonce=arrival, deadline_s=100, max_fee_uusd=0, order=placed)
    signed = SignedAction(action, bytes(64))
    return Pending(signed, b"", arrival.to_bytes(32, "big"), account, 100, (3, bid), arrival)


def test_takes_each_once_and_in_order() -> None:
    """iMEMPOOL_001 and iMEMPOOL_003, over random classes, bids, takes, expiries and returns."""
    chance = random.Random(SEED)
    for _ in range(50):
        pool = Mempool(1_000, 1_000)
        waiting: list[Pending] = []
        for arrival in range(chance.randrange(1, 200)):
            bid = chance.choice([0, 0, 0, 5, 9, arrival])
            deadline_s = chance.choice([100, arrival])
            new = pending(arrival, chance.randrange(1, 4), deadline_s, (chance.randrange(4), bid))
            pool.add(new)
            waiting.append(new)
            if chance.random() < 0.1:
                limit = chance.randrange(10)
                taken = pool.take(limit)
                assert taken == arrange(taken)
                assert len(taken) == min(limit, len(waiting))
                back = [it for it in taken if chance.random() < 0.2]
                pool.put_back(back)
                assert set(taken) <= set(waiting)
                waiting = [it for it in waiting if it in back or it not in taken]
            elif chance.random() < 0.05:
                expired = pool.expire(50)
                assert set(expired) == {it for it in waiting if (it.deadline_s or 0) < 50}
                waiting = [it for it in waiting if it not in expired]
        assert len(pool) == len(waiting)
        assert pool.take(1_000) == arrange(waiting)
        assert len(pool) == 0


def test_room_goes_to_the_highest_bids_and_a_quarter_to_the_oldest() -> None:
    pool = Mempool(100, 100)
    for arrival in range(40):
        pool.add(order(arrival, account=arrival + 1, bid=arrival))
    taken = [it.arrival for it in pool.take(8)]
    assert taken == [39, 38, 37, 36, 35, 34, 1, 0], "in the order of the block: by bid"


def test_classes_compete_for_room_by_bid() -> None:
    """Post-only orders stand before others in a block; for room in it they bid like them."""
    pool = Mempool(100, 100)
    for arrival in range(20):
        pool.add(pending(arrival, account=arrival + 1, place=(2, 0)))
    for arrival in range(20, 30):
        pool.add(order(arrival, account=arrival + 1, bid=7))
    assert [it.arrival for it in pool.take(8)] == [0, 1, 20, 21, 22, 23, 24, 25]


def test_no_bid_takes_the_room_of_cancels_and_of_orders_that_reduce_risk() -> None:
    """iMEMPOOL_005."""
    pool = Mempool(1_000, 100)
    for arrival in range(40):
        pool.add(order(arrival, account=arrival + 1, bid=10**9))
    for arrival in range(40, 44):
        pool.add(pending(arrival, account=arrival + 1, place=(1, 0)))
    for arrival in range(44, 48):
        pool.add(order(arrival, account=arrival + 1, reduce_only=True))
    taken = pool.take(12)
    assert {it.arrival for it in taken} == {0, 1, 2, 40, 41, 42, 43, 44, 45, 46, 47, 3}
    assert taken == arrange(taken)


def test_an_account_gets_its_share_and_what_nobody_else_wants() -> None:
    pool = Mempool(1_000, 1_000)
    for arrival in range(30):
        pool.add(order(arrival, account=1, bid=10**6))
    for arrival in range(30, 40):
        pool.add(order(arrival, account=arrival, bid=1))
    accounts = [it.account for it in pool.take(16)]
    assert accounts.count(1) == 16 - 10, "2 by its share, 4 that nobody else wanted"
    for arrival in range(40, 60):
        pool.add(order(arrival, account=arrival, bid=1))
    accounts = [it.account for it in pool.take(16)]
    assert accounts.count(1) == 2


def test_an_account_does_not_crowd_out_the_cancels_of_others() -> None:
    pool = Mempool(1_000, 1_000)
    for arrival in range(50):
        pool.add(pending(arrival, account=1, place=(1, 0)))
    for arrival in range(50, 54):
        pool.add(pending(arrival, account=arrival, place=(1, 0)))
    taken = pool.take(16)
    assert {it.account for it in taken} == {1, 50, 51, 52, 53}
    assert all(it.ordering_class == 1 for it in taken)


def test_nothing_starves_however_high_others_bid() -> None:
    """iMEMPOOL_004: the mempool is full all the time, of ever new bids above those that wait."""
    total, each, limit = 160, 20, 16
    most = -(-total // (limit // 4)) + -(-each // (limit // 8))
    pool = Mempool(total, each)
    chance = random.Random(SEED)
    since: dict[Pending, int] = {}
    arrival = worst = 0
    for block in range(300):
        while len(pool) < total:
            account = chance.randrange(1, 12)
            arrival += 1
            try:
                new = order(arrival, account, bid=0 if chance.random() < 0.2 else arrival)
                pool.add(new)
            except Full:
                if len(pool) > total - each:
                    break
            else:
                since[new] = block
        for taken in pool.take(limit):
            worst = max(worst, block - since.pop(taken))
    assert most // 3 < worst < most
    assert len(since) == len(pool) > total // 2


def test_what_has_left_is_forgotten() -> None:
    """The heaps stay as small as what is waiting, though most of it leaves by age."""
    pool = Mempool(200, 200)
    for arrival in range(20_000):
        if arrival > 100 and arrival % 12 == 0:
            pool.take(12)
        pool.add(order(arrival, account=arrival % 50, bid=arrival if arrival % 10 < 7 else 0))
        assert sum(map(len, pool._lanes)) <= 2 * len(pool) + 2 * 12
    assert len(pool) > 90


def test_full_in_total() -> None:
    """iMEMPOOL_002"""
    pool = Mempool(3, 3)
    for arrival in range(3):
        pool.add(pending(arrival, account=arrival))
    with pytest.raises(Full) as raised:
        pool.add(pending(3, account=9))
    assert (raised.value.what, raised.value.limit) == ("total", 3)
    assert len(pool) == 3
    pool.take(1)
    pool.add(pending(4, account=9))


def test_full_for_one_account_leaves_room_for_others() -> None:
    """iMEMPOOL_002"""
    pool = Mempool(10, 2)
    pool.add(pending(0))
    pool.add(pending(1))
    with pytest.raises(Full) as raised:
        pool.add(pending(2))
    assert (raised.value.what, raised.value.limit) == ("account", 2)
    pool.add(pending(3, account=2))
    pool.take(10)
    pool.add(pending(4))


def test_put_back_keeps_the_place_in_order() -> None:
    pool = Mempool(10, 10)
    for arrival in range(4):
        pool.add(pending(arrival))
    taken = pool.take(3)
    pool.put_back(taken[1:])
    pool.add(pending(9))
    assert [it.arrival for it in pool.take(10)] == [1, 2, 3, 9]


def test_expires_by_deadline_only() -> None:
    """iMEMPOOL_003: what expired is gone, its room is free, the rest stays in order."""
    pool = Mempool(4, 4)
    pool.add(pending(0, deadline_s=50))
    pool.add(pending(1, deadline_s=60))
    pool.add(pending(2, deadline_s=None, place=(0, 0)))
    pool.add(pending(3, deadline_s=49, place=(1, 0)))
    assert [it.arrival for it in pool.expire(50)] == [3]
    assert [it.arrival for it in pool.expire(51)] == [0]
    assert pool.expire(51) == []
    pool.add(pending(4))
    assert [it.arrival for it in pool.take(10)] == [2, 1, 4]
