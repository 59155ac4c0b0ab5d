"""What portfolio margin and repricing cost: `python -m tools.bench_margin`.

Margin: accounts of 1, 16, 64 and 128 options spread over eight expiries of the recorded chain, by processor
time, in microseconds and in signature recoveries measured next to each round (the median of the quotients
counts, since shared machines change speed from second to second). `fresh`: the risk arrays are there. `after
a tick`: every forward has moved, so the account's expiries and arrays are made anew first.

Chain: all 868 options of the recorded chain at all scenarios, beginning with the oracle's values, once option
by option and once on vectors. Without the recording, a synthetic chain of as many options.
"""

from __future__ import annotations

import csv
import gzip
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import NamedTuple

from state.expiry_sums import ExpiryHolding
from state.fixed import ONE
from state.margin_defaults import default_parameters
from state.portfolio import PortfolioMargin, UnderlyingHolding, portfolio_margin
from state.risk_array import make_risk_array
from state.risk_grid import Expiry, ExpiryMarket, make_expiry, make_grid
from state.svi import Svi
from state.vector_risk import make_risk_arrays
from tools.figure import Figure, recover_cpu_seconds

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data" / "deribit_btc_options_20260801.csv.gz"
OPTIONS = (1, 16, 64, 128)
ACCOUNT_EXPIRIES = 8
ROUNDS = 15
SECONDS_OF_A_ROUND = 0.02
LIMIT_RECOVERIES = 5
LIMIT_CHAIN_MS = 150
USD = COIN = 10**6
SEED = 20_260_801
GRID = make_grid(default_parameters())


class Listed(NamedTuple):
    """An expiry as recorded."""

    seconds: int
    forward: int
    options: list[tuple[int, bool]]


def recorded_chain(path: Path) -> list[Listed]:
    """Strikes, expiries and forwards of the recording."""
    expiries: dict[str, Listed] = {}
    with gzip.open(path, "rt", newline="") as file:
        for row in csv.DictReader(file):
            moments = [datetime.fromisoformat(row[name]) for name in ("snapshot_utc", "expiry_utc")]
            seconds = int((moments[1] - moments[0]).total_seconds())
            forward = round((Fraction(row["fwd_bid_usd"]) + Fraction(row["fwd_ask_usd"])) * USD / 2)
            listed = expiries.setdefault(row["expiry_utc"], Listed(seconds, forward, []))
            listed.options.append((round(Fraction(row["strike_usd"]) * USD), row["option_type"] == "C"))
    return list(expiries.values())


def synthetic_chain() -> list[Listed]:
    """As many options as the recorded one has."""
    forward = 62_700 * USD
    options = [(forward * (40 + 4 * n) // 100, is_call) for n in range(31) for is_call in (True, False)]
    return [
        Listed(86_400 * days, forward, options)
        for days in (1, 2, 3, 6, 13, 20, 27, 55, 90, 146, 181, 237, 328, 419)
    ]


def market(listed: Listed, forward: int) -> ExpiryMarket:
    """Values an oracle could report: how they bend changes nothing of the cost."""
    years = Fraction(listed.seconds, 365 * 86_400)
    a, b = round(Fraction("0.12") * years * 2**112), round(Fraction("0.05") * years * 2**112)
    svi = Svi(a, b, -ONE // 5, 0, ONE // 5, forward, round(years * 2**112))
    return ExpiryMarket(listed.seconds << 56, forward, ONE // 25, svi)


def priced(chain: list[Listed], tick: int) -> list[tuple[Expiry, list[tuple[int, bool]]]]:
    """The chain's expiries with forwards moved by `tick` dollars."""
    return [(make_expiry(market(each, each.forward + tick * USD), GRID), each.options) for each in chain]


class Account:
    """Options of a chain, by expiry, with an amount each."""

    def __init__(self, chain: list[Listed], options: int) -> None:
        rng = random.Random(SEED + options)
        near = sorted(chain, key=lambda listed: len(listed.options))[-ACCOUNT_EXPIRIES:]
        shares = [
            options // ACCOUNT_EXPIRIES + (n < options % ACCOUNT_EXPIRIES) for n in range(ACCOUNT_EXPIRIES)
        ]
        self.chain = [
            Listed(listed.seconds, listed.forward, rng.sample(listed.options, share))
            for listed, share in zip(near, shares, strict=True)
            if share
        ]
        self.amounts = [[rng.randint(-30 * COIN, 30 * COIN) for _ in each.options] for each in self.chain]
        self.holding = self.repriced(0)
        self.ticks = 0

    def repriced(self, tick: int) -> UnderlyingHolding:
        """The account's holding at forwards moved by a tick."""
        chain = priced(self.chain, tick)
        arrays = make_risk_arrays(GRID, chain)
        expiries = [
            ExpiryHolding(expiry, options, amounts)
            for (expiry, _), options, amounts in zip(chain, arrays, self.amounts, strict=True)
        ]
        return UnderlyingHolding(GRID, 62_700 * USD, ONE, 0, (), expiries)

    def fresh(self) -> PortfolioMargin:
        return portfolio_margin([self.holding], 10**12)

    def after_a_tick(self) -> PortfolioMargin:
        self.ticks += 1
        return portfolio_margin([self.repriced(self.ticks)], 10**12)


def cost(call: Callable[[], object]) -> tuple[float, float]:
    """(seconds, recoveries) of one call: medians over rounds."""
    begin = time.process_time()
    call()
    count = max(1, int(SECONDS_OF_A_ROUND / max(time.process_time() - begin, 1e-6)))
    seconds, ratios = [], []
    before = recover_cpu_seconds()
    for _ in range(ROUNDS):
        begin = time.process_time()
        for _ in range(count):
            call()
        seconds.append((time.process_time() - begin) / count)
        after = recover_cpu_seconds()
        ratios.append(2 * seconds[-1] / (before + after))
        before = after
    return median(seconds), median(ratios)


def the_chain() -> tuple[list[Listed], str]:
    """The chain to measure with, and what it is."""
    if RECORDED.exists():
        return recorded_chain(RECORDED), "recorded chain"
    return synthetic_chain(), "synthetic chain"


def bench_margin() -> list[Figure]:
    """Microseconds an account, beside recoveries."""
    chain, name = the_chain()
    figures = []
    for options in OPTIONS:
        account = Account(chain, options)
        note = f"{len(account.chain)} expiries, {name}"
        seconds, recoveries = cost(account.fresh)
        title = f"margin of {options} options, arrays fresh"
        limit = LIMIT_RECOVERIES if options == 64 else None
        figures.append(Figure(title, seconds * 1e6, "us", note=note))
        figures.append(Figure(title, recoveries, "recoveries", limit))
        seconds, recoveries = cost(account.after_a_tick)
        title = f"margin of {options} options, after a tick"
        figures.append(Figure(title, seconds * 1e6, "us", note=f"{recoveries:.1f} recoveries"))
    return figures


def bench_chain() -> list[Figure]:
    """Milliseconds to reprice everything."""
    chain, name = the_chain()
    count = sum(len(each.options) for each in chain)
    note = f"{name}: {len(chain)} expiries, {len(GRID.points)} points"

    def scalar() -> object:
        return [
            make_risk_array(expiry, GRID, *option)
            for expiry, options in priced(chain, 1)
            for option in options
        ]

    def vector() -> object:
        return make_risk_arrays(GRID, priced(chain, 1))

    return [
        Figure(f"{count} options, vectors", cost(vector)[0] * 1e3, "ms", LIMIT_CHAIN_MS, note=note),
        Figure(f"{count} options, one by one", cost(scalar)[0] * 1e3, "ms", note="the definition"),
    ]


if __name__ == "__main__":
    for figure in [*bench_margin(), *bench_chain()]:
        print({name: value for name, value in asdict(figure).items() if value not in (None, "")})
