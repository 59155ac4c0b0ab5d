"""BookSide against a sorted list."""

from __future__ import annotations

import random

import pytest

from state.book import BookSide
from state.keys import order_key


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_book_side_is_a_sorted_list_of_keys(seed: int, side: int) -> None:
    source = random.Random(seed)
    book = BookSide()
    keys: list[bytes] = []
    for _ in range(1_000):
        if keys and source.random() < 0.45:
            key = keys.pop(source.randrange(len(keys)))
            book.remove(key)
        else:
            key = order_key(1, side, source.choice((1, 2, 50, 2**63)), source.randint(1, 10**6))
            book.add(key)
            if key not in keys:
                keys.append(key)
        keys.sort()
        bound = source.randint(0, 20)
        assert book.iterate(bound) == keys[:bound]
        assert book.first() == (keys[0] if keys else None)


def test_adding_twice_is_once() -> None:
    book = BookSide()
    for sequence in (1, 3, 2, 2, 1, 3):
        book.add(order_key(1, 0, 10, sequence))
    assert book.iterate(10) == [order_key(1, 0, 10, sequence) for sequence in (1, 2, 3)]
