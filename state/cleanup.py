"""What trades made void: the CLEANUP task cancels it, some leaves a step, before anything else goes on.

An entry stands for each account and underlying that market-maker protection has frozen, whose orders there
go; and for each account and market in which a position was closed, whose reduce-only triggers there go.
Between two transactions there are no entries.
"""

from __future__ import annotations

from typing import Final

from state.block import OrderEnd
from state.context import BlockContext
from state.keys import (
    CLEANUP,
    account_orders_prefix,
    instrument_key,
    order_key,
    positions_prefix,
)
from state.leaves import AccountOrder, Instrument, Position, Progress
from state.orders import remove
from state.trigger_book import sweep_reducing
from state.units import MAX_POSITIONS, SWEEP_ORDERS
from state.view import StateView

_PREFIX: Final = bytes((CLEANUP,))


def cleanup_step(view: StateView, block: BlockContext, progress: Progress) -> None:
    """Cancels up to SWEEP_ORDERS orders or triggers of the first entry, or goes on with the parent task."""
    found = view.first_under(_PREFIX)
    if found is None:
        progress.task = progress.parent
        return
    key: bytes = found[0]
    account = int.from_bytes(key[2:10], "big")
    if key[1]:
        done = sweep_reducing(view, block, account, int.from_bytes(key[10:14], "big"), SWEEP_ORDERS)
    else:
        done = _sweep_underlying(view, block, account, key[10:].rstrip(b"\0"))
    if done:
        view.delete(key)


def _sweep_underlying(view: StateView, block: BlockContext, account: int, underlying: bytes) -> bool:
    """Cancels some orders in the first market of the underlying that has any; whether none had."""
    for key, leaf in view.iterate_under(positions_prefix(account), MAX_POSITIONS):
        position: Position = leaf
        if not position.orders:
            continue
        market = int.from_bytes(key[9:13], "big")
        terms: Instrument = view.get(instrument_key(market))
        if terms.underlying.rstrip(b"\0") != underlying:
            continue
        for _, entry in view.iterate_under(account_orders_prefix(account, market), SWEEP_ORDERS):
            order: AccountOrder = entry
            book_key = order_key(market, order.side, order.price_uusd, order.sequence)
            remove(view, block, book_key, view.get(book_key), OrderEnd.PROTECTION)
        return False
    return True
