"""CachedState against a plain dictionary: order, dirt, release, eviction, reloading."""

from __future__ import annotations

import random

import pytest

from state.cache import CachedState, MemorySource
from state.keys import (
    account_key,
    account_order_key,
    account_orders_prefix,
    dead_man_key,
    order_book_prefix,
    order_key,
    position_key,
    positions_prefix,
)
from state.leaves import Account, AccountOrder, Leaf, Marker, Position, RestingOrder


def leaf_for(key: bytes, number: int) -> Leaf:
    kinds: dict[int, Leaf] = {
        8: Account(bytes(20), number, 0, bytes(32), 0, 0, 0, 0),
        11: Position(number, 0, 0, 0, 0, 0),
        12: RestingOrder(1, number, 1, 0, 0, 0, 0),
        13: AccountOrder(0, number, 1),
        14: Marker(1),
    }
    return kinds[key[0]]


def random_key(source: random.Random) -> bytes:
    account, market, price = source.randint(1, 4), source.randint(1, 2), source.randint(1, 4)
    return source.choice(
        (
            account_key(account),
            position_key(account, market),
            order_key(market, source.randint(0, 1), price, source.randint(1, 5)),
            account_order_key(account, market, price),
            dead_man_key(price, account),
        )
    )


PREFIXES = [
    *(positions_prefix(account) for account in range(1, 5)),
    *(account_orders_prefix(account, market) for account in range(1, 5) for market in range(3)),
    *(order_book_prefix(market, side) for market in (1, 2) for side in (0, 1)),
    b"\x0e",
]


@pytest.mark.parametrize("max_clean", [0, 4, 1_000])
@pytest.mark.parametrize("seed", range(10))
def test_cache_is_the_source_plus_the_changes(seed: int, max_clean: int) -> None:
    random_source = random.Random(seed)
    source = MemorySource()
    state = CachedState(source, max_clean)
    model: dict[bytes, bytes] = {}
    in_flight: list[dict[bytes, bytes | None]] = []
    for number in range(600):
        key = random_key(random_source)
        if key in model and random_source.random() < 0.4:
            assert state.get(key) is not None
            state.delete(key)
            del model[key]
        else:
            leaf = leaf_for(key, number)
            state.put(key, leaf)
            model[key] = leaf.encode()
        if random_source.random() < 0.1:
            in_flight.append(state.take_dirty())
        if in_flight and random_source.random() < 0.1:
            source.apply(in_flight.pop(0))
            state.release()
        prefix = random_source.choice(PREFIXES)
        bound = random_source.randint(1, 4)
        under = sorted(item for item in model.items() if item[0].startswith(prefix))
        assert [(k, v.encode()) for k, v in state.iterate_under(prefix, bound)] == under[:bound]
        first = state.first_under(prefix)
        assert (first and first[0]) == (under[0][0] if under else None)
        key = random_key(random_source)
        found = state.get(key)
        assert (found and found.encode()) == model.get(key)
    in_flight.append(state.take_dirty())
    for changes in in_flight:
        source.apply(changes)
    assert source.leaves == model


def test_memory_is_bounded_at_release() -> None:
    source = MemorySource()
    state = CachedState(source, 10)
    for account in range(100):
        state.put(account_key(account), leaf_for(account_key(account), account))
    source.apply(state.take_dirty())
    assert (state.dirty, state.resident) == (0, 100)
    state.put(account_key(0), leaf_for(account_key(0), 7))
    state.release()
    assert state.resident <= 11
    assert state.get(account_key(0)).cash_uusd == 7
    assert state.get(account_key(1)).cash_uusd == 1
    assert state.take_dirty().keys() == {account_key(0)}


def test_what_is_taken_but_not_released_stays() -> None:
    state = CachedState(MemorySource(), 0)
    state.put(account_key(1), leaf_for(account_key(1), 1))
    state.take_dirty()
    state.put(account_key(2), leaf_for(account_key(2), 2))
    state.take_dirty()
    state.release()
    assert state.get(account_key(2)).cash_uusd == 2
    assert state.get(account_key(1)) is None, "released, though this source did not take it"
