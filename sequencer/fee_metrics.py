"""Prices and fees as gauges: what an operator watches to know whether data fees pay for L1.

Read from the state when a scrape asks; `surplus` and `position` are those of `state/l1_price.py`. Prices are
those of the last block, in pusd (10^-12 dollars).
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from sequencer.fee_history import FeeHistory
from sequencer.metrics import Metrics
from state import keys, l1_market, l1_price
from state.fees import PARTS
from state.leaves import FeeMarket, L1Price
from state.view import StateView

NS_PER_S = 10**9
RESOURCES = ("execution", "data", "growth")
"""As the fields of FeeMarket begin."""


def watch_fees(metrics: Metrics, view: StateView, fees: FeeHistory, now_ms: Callable[[], int]) -> None:
    """Adds the gauges. `view` is the state that blocks are executed on."""

    def price() -> L1Price:
        found: L1Price = view.get(keys.L1_PRICE_KEY)
        return found

    def market() -> FeeMarket:
        found: FeeMarket = view.get(keys.FEE_MARKET_KEY)
        return found

    def eth_uusd() -> int:
        return l1_market.eth_price_uusd(view, now_ms())

    def cost_pusd() -> int:
        return l1_price.feed_forward(price(), l1_market.terms_of(view), eth_uusd())

    def position_uusd() -> int:
        return l1_price.position_uusd(price(), l1_market.terms_of(view), eth_uusd())

    watch, each = metrics.watch, metrics.watch_each
    watch("l1_byte_price_pusd", "What a byte pays for L1", lambda: price().price_pusd)
    watch("l1_byte_target_pusd", "Where that price moves to", lambda: price().target_pusd)
    watch("l1_byte_cost_pusd", "What a byte costs on L1 at its origin's fees", cost_pusd)
    watch("l1_surplus_uusd", "Data fees collected less posting costs reported", lambda: price().surplus_uusd)
    watch("l1_position_uusd", "The same less what is on its way, at its present cost", position_uusd)
    watch("l1_origin_block", "L1 block whose fees the last block knew", lambda: price().l1_block)
    watch("l1_origin_base_fee_wei", "Its base fee", lambda: price().base_fee_wei)
    watch("l1_origin_blob_fee_wei", "Its blob base fee, by `blob_fraction`", lambda: price().blob_fee_wei)
    watch("eth_price_uusd", "What converts L1's wei", eth_uusd)
    each(
        "base_price_pusd",
        "Price of an execution unit, a batch byte, a leaf",
        "resource",
        {name: _of(market, f"{name}_pusd") for name in RESOURCES},
    )
    each(
        "load_backlog_seconds",
        "How long a resource would take at its target for what was used beyond it",
        "resource",
        {name: _of(market, f"{name}_backlog_ns", NS_PER_S) for name in RESOURCES},
    )
    each(
        "fees_collected_uusd",
        "Charged since the start, by part, and paid for places",
        "part",
        {part: _part(fees, place) for place, part in enumerate(PARTS)}
        | {"priority": lambda: fees.total.priority_uusd},
    )


def _of(market: Callable[[], FeeMarket], field: str, unit: int = 1) -> Callable[[], float]:
    read = attrgetter(field)
    return lambda: read(market()) / unit


def _part(fees: FeeHistory, place: int) -> Callable[[], float]:
    return lambda: fees.total.parts_uusd[place]
