"""When the open batch goes out: one pure function from what waits and what L1 costs to yes or no, and why.

A batch goes out when its cost now beats the expected cost of waiting. Both are costs per byte, for the bytes
are given and will be paid once: a fuller batch shares what posting costs whatever it holds, and L1's prices
return towards their recent mean. For a wait of `t` out of what `max_delay` leaves:

    now     = level * share(bytes) * (1 - delay_worth * t / max_delay)
    waiting = level ** exp(-t / revert_s) * luck(t) * share(bytes + bytes_per_s * t)

`level` is what a usual batch costs now over what it costs at recent prices; `share` is the cost per byte at
recent prices; `luck` is what a free choice of the moment is worth, from the prices' spread; `delay_worth` is
what users' waiting is worth. The batch goes out when `now <= waiting` for every `t`. What bounds this, in the
order in which it is asked: a full batch, `max_delay`, a backlog, a minimum age, no known price.

- iPOSTING_001 Nothing waits beyond `max_delay_s`.
- iPOSTING_002 If a batch goes out, so does one that is fuller or older or sees lower prices, all else equal:
  `share` falls and is log-convex, `level` falls with either price, the waits looked at are fixed fractions of
  `max_delay`, so that an older batch has fewer of them.

Prices move as logarithms and lie outside the transition, so floats are fine here. Blobs count by their fill
beyond the first: with steps, a batch just above a blob's end would wait where a smaller one went out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from l1_bridge.blobs import DATA_BYTES_PER_BLOB, GAS_PER_BLOB
from l1_bridge.posting import CHUNK_GAS, POST_GAS
from l1_bridge.types import Fees

RECENT_S = 900.0
"""Time constant of the recent prices' averages."""
WAITS = tuple(part / 256 for part in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256))
"""The waits looked at, as parts of `max_delay_s`."""


@dataclass(frozen=True, slots=True)
class PolicyTerms:
    """What the operator promises and believes. Times in seconds, sizes in bytes."""

    max_age_s: float = 60.0
    """A batch that is not full is never younger; without a known price it goes out at this age."""
    max_delay_s: float = 600.0
    """The promise: no batch is older."""
    full_bytes: int = 3 * DATA_BYTES_PER_BLOB
    """Goes out at once."""
    backlog_bytes: int = 6 * DATA_BYTES_PER_BLOB
    """With as much waiting, closed batches and the open one, a blob's worth goes out at once."""
    revert_s: float = 450.0
    """Time constant with which prices return to their recent averages: of 300 to 900 s what saved most, with
    `luck` and `delay_worth` as they are, on recorded fees of 2022, 2024 and 2025 (tools/posting_curve)."""
    delay_worth: float = 0.1
    """Share of the cost that must be saved to justify a wait of `max_delay_s`; less in proportion."""
    luck: float = 0.1
    """Standard deviations by which the best moment of a long wait is expected to beat the mean."""
    data: str = "auto"
    """As the poster's: `auto`, `calldata` or `blobs`."""

    def __post_init__(self) -> None:
        if not 0 < self.max_age_s <= self.max_delay_s:
            raise ValueError("max_delay: must not be shorter than max_age")


@dataclass(frozen=True, slots=True)
class L1Prices:
    """What L1 costs: per gas (base fee and tip) and per blob gas, in wei; averages are geometric."""

    gas_wei: float
    blob_wei: float
    recent_gas_wei: float
    recent_blob_wei: float
    gas_spread: float = 0.0
    """Standard deviation of the logarithm around its recent average."""
    blob_spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """The open batch and what surrounds it."""

    bytes: int
    age_s: float
    """Of its first block."""
    bytes_per_s: float
    """Expected to be added."""
    backlog_bytes: int = 0
    """In closed batches that are not on L1 yet."""
    prices: L1Prices | None = None
    """None: not known, or too old."""


class Rule(Enum):
    """What decided."""

    FULL = "full"
    MAX_DELAY = "max_delay"
    BACKLOG = "backlog"
    YOUNG = "young"
    NO_PRICE = "no_price"
    CHEAP_NOW = "cheap_now"
    CHEAPER_LATER = "cheaper_later"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to post, by which rule, and its figures."""

    post: bool
    rule: Rule
    reason: str
    """A sentence for people."""
    level: float | None = None
    """Cost now over cost at recent prices; None without a price."""
    saving: float = 0.0
    """Share of the cost per byte that is expected to be saved by waiting `wait_s`."""
    wait_s: float = 0.0


def decide(seen: Waiting, terms: PolicyTerms) -> Verdict:
    """Whether the open batch goes out now; see the module's text."""
    if seen.bytes >= terms.full_bytes:
        return Verdict(True, Rule.FULL, "the batch is full")
    if seen.age_s >= terms.max_delay_s:
        return Verdict(True, Rule.MAX_DELAY, f"the promised {terms.max_delay_s:g} s have passed")
    waiting_bytes = seen.bytes + seen.backlog_bytes
    if waiting_bytes >= terms.backlog_bytes and seen.bytes >= DATA_BYTES_PER_BLOB:
        return Verdict(True, Rule.BACKLOG, f"{waiting_bytes:,} bytes wait for L1")
    if seen.age_s < terms.max_age_s:
        return Verdict(False, Rule.YOUNG, f"not {terms.max_age_s:g} s old and not full")
    if seen.prices is None:
        return Verdict(True, Rule.NO_PRICE, f"{terms.max_age_s:g} s old, and L1's price is not known")
    if seen.age_s > terms.max_delay_s * (1 - WAITS[0]):
        return Verdict(True, Rule.MAX_DELAY, f"the promised {terms.max_delay_s:g} s are nearly over")
    return _weigh(seen, terms, seen.prices)


def _weigh(seen: Waiting, terms: PolicyTerms, prices: L1Prices) -> Verdict:
    usual = _usual_bytes(seen, terms)
    level = math.exp(_log_level(usual, terms, prices))
    saving, wait_s = _best_wait(seen, terms, prices, usual, math.log(level))
    at = f"L1 is at {level:.2f} of its recent price"
    filled = f"the batch {seen.bytes / terms.full_bytes:.0%} full"
    if saving > 0:
        reason = f"{at}, {filled}: waiting {wait_s:.0f} s is expected to save {saving:.1%}"
        return Verdict(False, Rule.CHEAPER_LATER, reason, level, saving, wait_s)
    return Verdict(True, Rule.CHEAP_NOW, f"{at}, {filled}: waiting is not worth it", level)


def _best_wait(
    seen: Waiting, terms: PolicyTerms, prices: L1Prices, usual: int, log_level: float
) -> tuple[float, float]:
    """The wait that is worth most: what it is expected to save, and how long it is; (0, 0) if none is."""
    by_calldata = _calldata_is_cheaper(usual, terms, prices.recent_gas_wei, prices.recent_blob_wei)
    spread = _spread(usual, prices, by_calldata)
    share_now = _share(seen.bytes, prices, by_calldata)
    left_s = terms.max_delay_s - seen.age_s
    best, saving, best_s = 0.0, 0.0, 0.0
    for part in WAITS:
        wait_s = part * terms.max_delay_s
        if wait_s > left_s:
            break
        staying = math.exp(-wait_s / terms.revert_s)
        luck = math.exp(-terms.luck * spread * math.sqrt(1 - staying * staying))
        later = math.exp(log_level * (staying - 1)) * luck
        later *= _share(seen.bytes + seen.bytes_per_s * wait_s, prices, by_calldata) / share_now
        worth = 1 - terms.delay_worth * part - later
        if worth > best:
            best, saving, best_s = worth, 1 - later, wait_s
    return saving, best_s


def _usual_bytes(seen: Waiting, terms: PolicyTerms) -> int:
    """Size of a batch that waits as long as it may, at the present flow."""
    return max(1, min(terms.full_bytes, int(seen.bytes_per_s * terms.max_delay_s)))


def posting_cost_wei(size: float, gas_wei: float, blob_wei: float, by_calldata: bool) -> float:
    """What `size` bytes, none of them zero, cost; the first blob counts whole, the others by their fill."""
    if by_calldata:
        executed = POST_GAS + (16 + CHUNK_GAS / 1024) * size
        return max(executed, 21_000 + 40 * size) * gas_wei
    blobs = max(1.0, size / DATA_BYTES_PER_BLOB)
    return POST_GAS * gas_wei + blobs * GAS_PER_BLOB * max(blob_wei, 1.0)


def _calldata_is_cheaper(size: int, terms: PolicyTerms, gas_wei: float, blob_wei: float) -> bool:
    if terms.data != "auto":
        return terms.data == "calldata"
    return posting_cost_wei(size, gas_wei, blob_wei, True) < posting_cost_wei(size, gas_wei, blob_wei, False)


def _cheapest_wei(size: int, terms: PolicyTerms, gas_wei: float, blob_wei: float) -> float:
    by_calldata = _calldata_is_cheaper(size, terms, gas_wei, blob_wei)
    return posting_cost_wei(size, gas_wei, blob_wei, by_calldata)


def _log_level(size: int, terms: PolicyTerms, prices: L1Prices) -> float:
    now = _cheapest_wei(size, terms, prices.gas_wei, prices.blob_wei)
    recent = _cheapest_wei(size, terms, prices.recent_gas_wei, prices.recent_blob_wei)
    return math.log(max(now, 1.0) / max(recent, 1.0))


def _share(size: float, prices: L1Prices, by_calldata: bool) -> float:
    size = max(size, 1.0)
    gas_wei = max(prices.recent_gas_wei, 1.0)
    return posting_cost_wei(size, gas_wei, prices.recent_blob_wei, by_calldata) / size


def _spread(size: int, prices: L1Prices, by_calldata: bool) -> float:
    """Of the cost's logarithm: gas and blob gas by their parts of the cost."""
    if by_calldata:
        return prices.gas_spread
    whole = posting_cost_wei(size, prices.recent_gas_wei, prices.recent_blob_wei, False)
    gas_part = POST_GAS * prices.recent_gas_wei / whole
    return gas_part * prices.gas_spread + (1 - gas_part) * prices.blob_spread


class RecentPrices:
    """Averages of the prices seen: exponential in time, of logarithms. Not for several threads."""

    def __init__(self, recent_s: float = RECENT_S) -> None:
        self._recent_s = recent_s
        self._last_s = -math.inf
        self._gas = _Average()
        self._blob = _Average()

    def observed(self, time_s: float, fees: Fees) -> L1Prices:
        """A new sight of L1's fees, and the prices with it. Time that goes back counts as none."""
        weight = 1 - math.exp(-max(0.0, time_s - self._last_s) / self._recent_s)
        self._last_s = max(self._last_s, time_s)
        gas_wei = float(max(fees.base_wei + fees.tip_wei, 1))
        blob_wei = float(max(fees.blob_base_wei, 1))
        self._gas.add(math.log(gas_wei), weight)
        self._blob.add(math.log(blob_wei), weight)
        return L1Prices(
            gas_wei,
            blob_wei,
            math.exp(self._gas.mean),
            math.exp(self._blob.mean),
            math.sqrt(self._gas.variance),
            math.sqrt(self._blob.variance),
        )


@dataclass(slots=True)
class _Average:
    """Mean and variance with exponentially falling weights."""

    mean: float = 0.0
    variance: float = 0.0

    def add(self, value: float, weight: float) -> None:
        if weight == 1.0:
            self.mean, self.variance = value, 0.0
            return
        away = value - self.mean
        self.mean += weight * away
        self.variance = (1 - weight) * (self.variance + weight * away * away)
