"""Signers of a batch: the same whether the process found them, or whoever would have waited for it did."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from l1_bridge.recovery import PARTS, Recovering, recover_batch
from tools.bench_codec import DOMAIN, SEED, SingleFlow, as_batch, markets_of
from tools.tape import synthetic_tape


class PartlyBusy(Executor):
    """Does its first `begins` jobs at once and begins no other."""

    def __init__(self, begins: int) -> None:
        self.begins = begins

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if self.begins:
            self.begins -= 1
            future.set_running_or_notify_cancel()
            future.set_result(fn(*args, **kwargs))
        return future


@pytest.mark.parametrize("begins", [0, 1, PARTS // 2, PARTS])
def test_what_was_not_begun_is_done_by_who_waits(begins: int) -> None:
    trades = list(synthetic_tape(SEED, 40))
    markets = markets_of(trades)
    flow = list(SingleFlow(trades, markets))
    data = as_batch(flow, markets)
    names = {number: markets.names(number) for number in markets.numbers.values()}
    expected = recover_batch(DOMAIN, data, names)
    assert sum(map(len, expected)) == len(flow)
    assert all(signed and None not in signed.signers for block in expected for signed in block)
    pool = PartlyBusy(begins)
    assert Recovering(DOMAIN, data, names, pool).result() == expected


def test_unknown_markets_are_left_open_in_every_part() -> None:
    trades = list(synthetic_tape(SEED, 20))
    markets = markets_of(trades)
    data = as_batch(list(SingleFlow(trades, markets)), markets)
    open_ = Recovering(DOMAIN, data, {}, PartlyBusy(0)).result()
    assert open_ == recover_batch(DOMAIN, data, {})
    assert all(signed is None for block in open_ for signed in block)
