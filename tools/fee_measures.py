"""Drives pricers through a replay, and says how well they did.

*Surplus* is what batches on L1 collected less what they cost, at the time they are mined: like with like. It
is given as a multiple of an hour's cost, the recording's mean. *Recovery* is the longest time that it stays
outside +-5 % of an hour's cost before it returns (or to the end, if it does not).

A transaction's *charge ratio* is what it paid over its share, by bytes, of what its batch cost. Overcharge
and undercharge are its parts above and below 1; the mean overcharge that counts for operator and users as a
whole is the mean of the ratio less 1 (`mean_error`). The parts by themselves are bounded below by how far L1
moves until a batch is mined, for every price that must be known when a transaction is executed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from state.units import PUSD_PER_UUSD
from tools.fee_baselines import Pricer
from tools.fee_recording import ETH_PRICE_UUSD, SIZES, Replay

BAND = 0.05
QUOTES_S = (12, 60, 300)
"""Times for which a quote is asked every second."""
_WEI_PER_ETH = 10**18

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Run:
    """What a pricer did, by second: price in pusd per byte, fees in uusd, quotes in pusd by `QUOTES_S`."""

    name: str
    price_pusd: Floats
    collected_uusd: Floats
    quotes_pusd: dict[int, Floats]


@dataclass(frozen=True, slots=True)
class Figures:
    """How well a pricer did; see the module's text. Shares are fractions, times in seconds."""

    name: str
    worst_deficit_hours: float
    worst_surplus_hours: float
    recovery_s: float
    recovered: bool
    """Whether the surplus is inside the band at the end."""
    mean_error: float
    mean_overcharge: float
    p99_overcharge: float
    mean_undercharge: float
    p99_undercharge: float
    largest_jump: float
    """Relative, from second to second."""
    quotes: int
    quotes_exceeded: int


def drive(replayed: Replay, pricer: Pricer) -> Run:
    """The pricer through the whole replay. Charges are rounded up to a uusd by transaction."""
    size = len(replayed.seconds)
    prices, fees = np.zeros(size), np.zeros(size)
    quotes = {seconds: np.full(size, np.inf) for seconds in QUOTES_S}
    for index, second in enumerate(replayed.seconds):
        if second.origin is not None:
            pricer.observed(second.origin)
        for batch in second.reports:
            pricer.reported(batch, second.time_s)
        if second.closed is not None:
            pricer.closed(second.closed)
        price = pricer.price_pusd(second.time_s)
        charged = paid = 0
        for count, each in zip(second.counts, SIZES, strict=True):
            charged += count * each
            paid += count * -(-each * price // PUSD_PER_UUSD)
        if charged:
            pricer.collected(charged, paid)
        prices[index], fees[index] = price, paid
        for seconds, most in quotes.items():
            quote = pricer.most_pusd(second.time_s, seconds)
            if quote is not None:
                most[index] = quote
    return Run(pricer.name, prices, fees, quotes)


def surplus_uusd(replayed: Replay, run: Run) -> Floats:
    """After each batch."""
    held, batch_of = _held(replayed)
    collected = np.bincount(batch_of[held], run.collected_uusd[held], len(replayed.batches))
    return np.cumsum(collected - costs_uusd(replayed))


def costs_uusd(replayed: Replay) -> Floats:
    """Of each batch."""
    return np.array([batch.cost_wei * ETH_PRICE_UUSD / _WEI_PER_ETH for batch in replayed.batches])


def hour_uusd(replayed: Replay) -> float:
    """What an hour costs, on average."""
    elapsed_s = replayed.batches[-1].block.timestamp_s - replayed.seconds[0].time_s
    return float(costs_uusd(replayed).sum()) * 3_600 / elapsed_s


def mined_s(replayed: Replay) -> Floats:
    """When each batch is mined."""
    return np.array([float(batch.block.timestamp_s) for batch in replayed.batches])


def measure(replayed: Replay, run: Run) -> Figures:
    """All figures of a run."""
    surplus = surplus_uusd(replayed, run) / hour_uusd(replayed)
    ratio, weight = charge_ratios(replayed, run)
    over, under = np.maximum(ratio - 1, 0), np.maximum(1 - ratio, 0)
    recovery_s, recovered = _recovery(mined_s(replayed), surplus)
    before = np.maximum(run.price_pusd[:-1], 1)
    asked, exceeded = _exceeded(run)
    return Figures(
        run.name,
        worst_deficit_hours=max(0.0, -float(surplus.min())),
        worst_surplus_hours=max(0.0, float(surplus.max())),
        recovery_s=recovery_s,
        recovered=recovered,
        mean_error=float(np.average(ratio - 1, weights=weight)),
        mean_overcharge=float(np.average(over, weights=weight)),
        p99_overcharge=_percentile(over, weight, 0.99),
        mean_undercharge=float(np.average(under, weights=weight)),
        p99_undercharge=_percentile(under, weight, 0.99),
        largest_jump=float(np.abs(np.diff(run.price_pusd) / before).max()),
        quotes=asked,
        quotes_exceeded=exceeded,
    )


def charge_ratios(replayed: Replay, run: Run) -> tuple[Floats, Floats]:
    """By second, where a batch on L1 holds its transactions: charge ratio, and number of transactions."""
    held, batch_of = _held(replayed)
    counts = np.array([second.counts for second in replayed.seconds], dtype=np.float64)
    size = counts @ np.array(SIZES, dtype=np.float64)
    held &= size > 0
    charged = np.array([batch.charged_bytes for batch in replayed.batches], dtype=np.float64)
    per_byte = costs_uusd(replayed) / charged
    share = size[held] * per_byte[batch_of[held]]
    return run.collected_uusd[held] / share, counts.sum(axis=1)[held]


def moves_away(replayed: Replay, right: Run, off: Run) -> tuple[int, int]:
    """Of a run with a wrong starting price beside one with the right one, at the ends of batches.

    First, after how many batches the price is inside +-5 % of what it would be, for good. Second, how often
    it has moved away from that for two batches in a row.
    """
    ends = [index - 1 for index, second in enumerate(replayed.seconds) if second.closed is not None]
    away = np.abs(np.log(np.maximum(off.price_pusd[ends], 1) / np.maximum(right.price_pusd[ends], 1)))
    outside = np.flatnonzero(away > BAND)
    grows = np.diff(away) > 1e-3
    twice = grows[:-1] & grows[1:]
    return (int(outside[-1]) + 1 if len(outside) else 0), int(twice.sum())


def _held(replayed: Replay) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    batch_of = np.array([second.batch for second in replayed.seconds], dtype=np.int64)
    return batch_of < len(replayed.batches), batch_of


def _recovery(times_s: Floats, surplus: Floats) -> tuple[float, bool]:
    longest, since = 0.0, None
    outside = np.abs(surplus) > BAND
    for time_s, is_outside in zip(times_s.tolist(), outside.tolist(), strict=True):
        if is_outside and since is None:
            since = time_s
        if since is not None:
            longest = max(longest, time_s - since)
        if not is_outside:
            since = None
    return longest, since is None


def _percentile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, share * reached[-1])])


def _exceeded(run: Run) -> tuple[int, int]:
    """Quotes given, and how many of them a later price within their time exceeded."""
    asked = exceeded = 0
    for seconds, quotes in run.quotes_pusd.items():
        padded = np.concatenate((run.price_pusd, np.zeros(seconds)))
        highest = np.lib.stride_tricks.sliding_window_view(padded, seconds + 1).max(axis=1)
        asked += int(np.isfinite(quotes).sum())
        exceeded += int((highest > quotes).sum())
    return asked, exceeded
