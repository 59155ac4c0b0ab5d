"""Base prices that follow load: of execution units, of bytes in the batch, of leaves added to the state.

Each of the three has a target per second and a *backlog*: the time that the venue would take, at its target,
for what was used beyond it. When a block begins, `dt` after the one before it,

    backlog = max(0, backlog + min(used / target, burst * min(dt, 1 s)) - dt), at most inertia * most_exponent
    price   = minimum * e^(backlog / inertia)

`used` being what the last block's transactions were charged for. This is the exponential of an excess, as
EIP-4844 prices blobs, over a leaky bucket in time, as Arbitrum Nitro prices L2 gas; three buckets, because a
flood of one resource says nothing about the others. All of it happens between blocks, so in a block prices
stand still.

- iFEE_003 What is used of one resource moves no other's price.
- iFEE_004 From block to block a price rises at most by the factor e^((burst - 1) * min(dt, 1 s) / inertia),
  so also from any time to `s` seconds later at most by e^((burst - 1) * s / inertia), and falls at most by
  e^(dt / inertia), but for what the governor sets.
- iFEE_005 A price is never below its minimum, nor above e^most_exponent times it.
- iFEE_006 What a block's transactions pay was decided before the block.

Rounding: work up to the next ns, prices up to the next pusd; before that a price is within 10^-16 of itself.
"""

from __future__ import annotations

from typing import Final

from state.fixed import exp2_fraction_x62
from state.fixed_tables import LOG2E_X80
from state.keys import FEE_MARKET_KEY, FEE_TERMS_KEY, PARAMETERS_KEY
from state.leaves import FeeMarket, FeeTerms, Parameters, Progress
from state.message_payloads import demand
from state.units import MS_PER_S, PPM
from state.view import StateView

NS_PER_S: Final = 1_000_000_000
NS_PER_MS: Final = 1_000_000
MAX_TARGET: Final = 10**12
MAX_PUSD: Final = 10**15
MAX_RISK_PPM: Final = 10_000
MIN_WINDOW_S: Final = 60
MAX_INERTIA_S: Final = 86_400
MAX_BURST: Final = 1_000
MAX_EXPONENT_MILLI: Final = 9_210
"""A price stays below 10,000 times its minimum."""
_MILLI: Final = 1_000
_DEFAULTS: Final = FeeTerms()


def terms_of(view: StateView) -> FeeTerms:
    """What the governor set, or the defaults."""
    terms: FeeTerms | None = view.get(FEE_TERMS_KEY)
    return _DEFAULTS if terms is None else terms


def check_fee_terms(terms: FeeTerms) -> None:
    """Raises Rejected BAD_PARAMETERS naming the field."""
    targets = (terms.execution_target, terms.data_target, terms.growth_target)
    prices = (terms.data_min_pusd, terms.growth_min_pusd, terms.proof_unit_pusd, terms.finality_byte_pusd)
    good = {
        "targets": min(targets) > 0 and max(targets) <= MAX_TARGET,
        "prices": max(prices) <= MAX_PUSD,
        "inertia_s": 0 < terms.inertia_s <= MAX_INERTIA_S,
        "burst": 0 < terms.burst <= MAX_BURST,
        "most_exponent_milli": terms.most_exponent_milli <= MAX_EXPONENT_MILLI,
    }
    good |= {
        "open_interest_uusd": terms.open_interest_uusd > 0,
        "risk": max(terms.risk_ppm, terms.risk_most_ppm) <= MAX_RISK_PPM,
        "risk_resting_ppm": terms.risk_resting_ppm <= PPM,
        "volatility_ppm": terms.volatility_ppm > 0,
        "variance_window_s": MIN_WINDOW_S <= terms.variance_window_s <= MAX_INERTIA_S,
        "fund_target_ppm": terms.fund_target_ppm <= PPM,
    }
    demand(good)


def most_backlog_ns(terms: FeeTerms) -> int:
    """No backlog counts beyond it."""
    return terms.inertia_s * NS_PER_S * terms.most_exponent_milli // _MILLI


def next_backlog_ns(terms: FeeTerms, target: int, backlog_ns: int, used: int, elapsed_ms: int) -> int:
    """The backlog of a resource `elapsed_ms` after a block that used so much of it."""
    work_ns = -(-used * NS_PER_S // target)
    work_ns = min(work_ns, terms.burst * min(elapsed_ms, MS_PER_S) * NS_PER_MS)
    rest_ns = max(0, backlog_ns + work_ns - elapsed_ms * NS_PER_MS)
    return min(rest_ns, most_backlog_ns(terms))


def risen_pusd(price_pusd: int, exponent_ns: int, inertia_s: int) -> int:
    """price * e^(exponent / inertia), rounded up; the quotient is at most 9.21."""
    octaves_x80 = exponent_ns * LOG2E_X80 // (inertia_s * NS_PER_S)
    fraction_x62 = exp2_fraction_x62((octaves_x80 & ((1 << 80) - 1)) >> 18)
    shift = 61 - (octaves_x80 >> 80)
    return -(-price_pusd * fraction_x62 >> shift)


def advance(market: FeeMarket, terms: FeeTerms, execution_min_pusd: int, elapsed_ms: int) -> None:
    """Makes the registers those of a block that begins `elapsed_ms` after the last one."""
    inertia_s = terms.inertia_s
    execution_ns = market.execution_backlog_ns = next_backlog_ns(
        terms, terms.execution_target, market.execution_backlog_ns, market.execution_used, elapsed_ms
    )
    data_ns = market.data_backlog_ns = next_backlog_ns(
        terms, terms.data_target, market.data_backlog_ns, market.data_used, elapsed_ms
    )
    growth_ns = market.growth_backlog_ns = next_backlog_ns(
        terms, terms.growth_target, market.growth_backlog_ns, market.growth_used, elapsed_ms
    )
    market.execution_used = market.data_used = market.growth_used = 0
    market.execution_pusd = risen_pusd(execution_min_pusd, execution_ns, inertia_s)
    market.data_pusd = risen_pusd(terms.data_min_pusd, data_ns, inertia_s)
    market.growth_pusd = risen_pusd(terms.growth_min_pusd, growth_ns, inertia_s)
    market.proof_unit_pusd = terms.proof_unit_pusd
    market.finality_byte_pusd = terms.finality_byte_pusd


def begin(view: StateView, elapsed_ms: int) -> None:
    """A block begins: its prices."""
    market: FeeMarket = view.get(FEE_MARKET_KEY)
    parameters: Parameters = view.get(PARAMETERS_KEY)
    advance(market, terms_of(view), parameters.exec_price_pusd, elapsed_ms)
    view.touch(FEE_MARKET_KEY, market)


def end(view: StateView, progress: Progress) -> None:
    """A block ends: what its transactions used counts when the next one begins."""
    market: FeeMarket = view.get(FEE_MARKET_KEY)
    market.execution_used = progress.units_used
    market.data_used = progress.bytes_used
    market.growth_used = progress.leaves_used
    view.touch(FEE_MARKET_KEY, market)


def coming(view: StateView, elapsed_ms: int) -> FeeMarket:
    """The registers of a block that would begin `elapsed_ms` after the last one; changes nothing."""
    market: FeeMarket = view.get(FEE_MARKET_KEY)
    parameters: Parameters = view.get(PARAMETERS_KEY)
    copy = FeeMarket.decode(market.encode())
    advance(copy, terms_of(view), parameters.exec_price_pusd, elapsed_ms)
    return copy


def most_within_pusd(terms: FeeTerms, price_pusd: int, minimum_pusd: int, seconds: int) -> int:
    """The highest that a price can be within so many seconds, whatever is used (iFEE_004)."""
    highest_ns = most_backlog_ns(terms)
    rise_ns = min((terms.burst - 1) * seconds * NS_PER_S, highest_ns)
    highest = risen_pusd(minimum_pusd, highest_ns, terms.inertia_s)
    # One more for the roundings of the two factors where the price has one.
    return max(price_pusd, min(highest, risen_pusd(price_pusd, rise_ns, terms.inertia_s) + 1))
