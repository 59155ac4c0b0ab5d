"""What tests of the transition ask again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from state.actions import Transaction
from state.conservation import conservation
from state.errors import RejectCode, Rejected
from tools.exchange import USD, Exchange


def must_reject(exchange: Exchange, code: RejectCode, transaction: Transaction) -> Rejected:
    """The transaction is refused with this code, and every leaf stays as it was."""
    with exchange.block() as execution:
        before = exchange.leaves()
        progress = execution.progress.encode()
        with pytest.raises(Rejected) as refusal:
            execution.execute(transaction)
        assert exchange.leaves() == before
        assert execution.progress.encode() == progress
    assert refusal.value.code is code, str(refusal.value)
    return refusal.value


def must_reject_act(
    exchange: Exchange, code: RejectCode, kind: type[Any], account: int, **fields: Any
) -> Rejected:
    """`must_reject` of an action of this kind with a good envelope, but for what `fields` change."""
    action = kind(**(exchange.envelope(account) | fields))
    return must_reject(exchange, code, exchange.sign(action))


def ending(call: Callable[[], Any]) -> tuple[int, int, int, int]:
    """(filled, resting, cancelled, end) of the only operation of a transaction."""
    (operation,) = call().operations
    assert operation.code == 0
    return operation.filled_ulots, operation.resting_ulots, operation.cancelled_ulots, operation.end


def assert_conserved(exchange: Exchange) -> None:
    """iMONEY_001, iMONEY_002."""
    assert conservation(exchange.leaves().items()) == 0


def free_of_risk_fees(exchange: Exchange) -> None:
    """No fee on risk from now on; the first market's mark is 1,000."""
    exchange.set_fees(risk_ppm=0)
    exchange.now_ms += 1
    exchange.report({"C1": 1_000 * USD, "C1-PERPETUAL": 1_000 * USD})
