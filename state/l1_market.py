"""The price of a batch byte in the state: when `l1_price` is asked, and with what (PROTOCOL 8.13).

| when | what the price learns |
|---|---|
| a block begins | the fees of its L1 origin, if it is a new one; its time: the price moves to its target |
| a block ends | bytes charged for, and what was charged for them, as Progress has added them up |
| a batch closes | its length |
| a batch is reported | what it cost |

An origin's fees are those of its header, found by its number as messages are found by theirs, and a report is
the contract's: nothing here is the operator's word. A transaction reads the price and touches nothing of
this.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from state import l1_price
from state.block import L1Origin
from state.keys import FEED, L1_PRICE_KEY, L1_TERMS_KEY, PARAMETERS_KEY, name_key
from state.leaves import Feed, L1Price, L1Terms, Parameters, Progress
from state.message_payloads import demand
from state.pricing import is_fresh
from state.units import PPM
from state.view import StateView

ETH_FEED: Final = "ETH"
"""Converts wei while it is fresh."""
MAX_PUSD: Final = 10**15
_ETH_KEY: Final = name_key(FEED, ETH_FEED)
_MIN_SLOT_MS: Final = 1_000
_MAX_SLOT_MS: Final = 86_400_000
_MAX_RATIO_PPM: Final = 100 * PPM
_MAX_WEIGHT: Final = 65_536
_MIN_POST_GAS: Final = 21_000
_MAX_POST_GAS: Final = 30_000_000
_MIN_BLOB_FRACTION: Final = 1_000_000
_MAX_TIP_WEI: Final = 10**12


class CostReport(NamedTuple):
    """What a BatchCost message says after the batch's number."""

    size_bytes: int
    gas: int
    base_fee_wei: int
    blobs: int
    blob_fee_wei: int


def terms_of(view: StateView) -> L1Terms:
    """What the governor set, or the defaults."""
    terms: L1Terms | None = view.get(L1_TERMS_KEY)
    return L1Terms() if terms is None else terms


def check_l1_terms(terms: L1Terms) -> None:
    """Raises Rejected BAD_PARAMETERS naming the field."""
    weights = (terms.batch_weight, terms.variance_weight, terms.memory_batches)
    good = {
        "prices": 0 < terms.min_pusd <= terms.max_pusd <= MAX_PUSD,
        "step_ppm": 0 < terms.step_ppm <= PPM,
        "slot_ms": _MIN_SLOT_MS <= terms.slot_ms <= _MAX_SLOT_MS,
        "horizon_ppm": PPM <= terms.horizon_ppm <= _MAX_RATIO_PPM,
        "feedback_ppm": terms.feedback_ppm <= PPM,
        "reserve_ppm": terms.reserve_ppm <= _MAX_RATIO_PPM,
        "weights": min(weights) > 0 and max(weights) <= _MAX_WEIGHT,
        "post_gas": _MIN_POST_GAS <= terms.post_gas <= _MAX_POST_GAS,
        "blob_fraction": terms.blob_fraction >= _MIN_BLOB_FRACTION,
        "tip_wei": terms.tip_wei <= _MAX_TIP_WEI,
    }
    demand(good)


def set_terms(view: StateView, terms: L1Terms, now_ms: int) -> None:
    """Stores checked terms; the next block is the first whose price they decide."""
    view.put(L1_TERMS_KEY, terms)
    price: L1Price = view.get(L1_PRICE_KEY)
    l1_price.reset(price, terms, now_ms)
    view.touch(L1_PRICE_KEY, price)


def eth_price_uusd(view: StateView, now_ms: int) -> int:
    """Of the feed ETH while it is fresh, else the governor's."""
    parameters: Parameters = view.get(PARAMETERS_KEY)
    feed: Feed | None = view.get(_ETH_KEY)
    if feed is not None and is_fresh(feed, parameters, now_ms):
        return feed.value_uusd
    return parameters.eth_price_uusd


def begin(view: StateView, now_ms: int, origin: L1Origin) -> None:
    """A block begins: its price. `origin` is not before the last one."""
    price: L1Price = view.get(L1_PRICE_KEY)
    terms = terms_of(view)
    if origin.number > price.l1_block:
        excess = origin.excess_blob_gas
        blob_fee_wei = 0 if excess is None else l1_price.blob_base_fee(excess, terms)
        l1_price.observed(price, terms, origin.number, origin.base_fee_wei, blob_fee_wei)
    l1_price.advanced(price, terms, eth_price_uusd(view, now_ms), now_ms)
    view.touch(L1_PRICE_KEY, price)


def end(view: StateView, progress: Progress) -> None:
    """A block ends: what its transactions paid for their bytes."""
    if progress.bytes_used:
        price: L1Price = view.get(L1_PRICE_KEY)
        l1_price.collected(price, terms_of(view), progress.bytes_used, progress.data_uusd)
        view.touch(L1_PRICE_KEY, price)


def close(view: StateView, size_bytes: int) -> None:
    """A batch of this length is closed; an empty one says nothing."""
    if size_bytes:
        price: L1Price = view.get(L1_PRICE_KEY)
        l1_price.closed(price, terms_of(view), size_bytes)
        view.touch(L1_PRICE_KEY, price)


def report(view: StateView, now_ms: int, cost: CostReport) -> None:
    """The contract reports a batch of at least a byte."""
    price: L1Price = view.get(L1_PRICE_KEY)
    l1_price.reported(price, terms_of(view), eth_price_uusd(view, now_ms), *cost)
    view.touch(L1_PRICE_KEY, price)


def coming(view: StateView, now_ms: int) -> L1Price:
    """The registers of a block that would begin now; changes nothing."""
    price: L1Price = view.get(L1_PRICE_KEY)
    copy = L1Price.decode(price.encode())
    l1_price.advanced(copy, terms_of(view), eth_price_uusd(view, now_ms), now_ms)
    return copy
