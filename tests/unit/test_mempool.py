"""The mempool: bounds, order, expiry (iMEMPOOL_001 to 003)."""

from __future__ import annotations

import random

import pytest

from sequencer.mempool import Full, Mempool, Pending
from sequencer.ordering import arrange
from state.actions import OracleUpdate

SEED = 20


def pending(
    arrival: int, account: int = 1, deadline_s: int | None = 100, place: tuple[int, int] = (3, 0)
) -> Pending:
    return Pending(
        OracleUpdate(()), bytes(32), arrival.to_bytes(32, "big"), account, deadline_s, place, arrival
    )


def test_takes_what_arrange_would_put_first() -> None:
    """iMEMPOOL_001, over random classes, bids and interleaved takes."""
    chance = random.Random(SEED)
    for _ in range(50):
        pool = Mempool(1_000, 1_000)
        waiting: list[Pending] = []
        for arrival in range(chance.randrange(1, 120)):
            kind = chance.randrange(4)
            bid = chance.choice([0, 0, 0, 5, 9, arrival]) if kind == 3 else 0
            new = pending(arrival, chance.randrange(4), place=(kind, bid))
            pool.add(new)
            waiting.append(new)
            if chance.random() < 0.1:
                limit = chance.randrange(10)
                wanted = arrange(waiting)[:limit]
                assert pool.take(limit) == wanted
                waiting = [it for it in waiting if it not in wanted]
        assert len(pool) == len(waiting)
        assert pool.take(1_000) == arrange(waiting)
        assert len(pool) == 0


def test_full_in_total() -> None:
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
