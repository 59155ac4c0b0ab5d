"""The fit: recovers what it should, refuses what it must, and publishes nothing with arbitrage in it."""

from dataclasses import replace

import numpy as np
import pytest

from sequencer.option_chain import ChainExpiry, OptionChain, OptionQuotes, TwoSided
from sequencer.svi import Svi, check_arbitrage
from sequencer.svi_fit import FitError, fit_chain, fit_svi, quote_errors
from tests.option_quotes import MONTH, QUARTER, quotes_of, strikes_around

NAN = float("nan")


def fitted(svi: Svi, quotes: OptionQuotes | None = None, earlier: Svi | None = None) -> Svi:
    return fit_svi(
        quotes_of(svi, strikes_around(svi)) if quotes is None else quotes, svi.forward, svi.tau, earlier
    )


@pytest.mark.parametrize("svi", [MONTH, QUARTER])
def test_known_parameters_are_recovered(svi: Svi) -> None:
    found = fitted(svi)
    for name in ("a", "b", "rho", "m", "sigma"):
        assert getattr(found, name) == pytest.approx(getattr(svi, name), rel=1e-3, abs=1e-5), name
    assert (found.forward, found.tau) == (svi.forward, svi.tau)
    errors = quote_errors(found, quotes_of(svi, strikes_around(svi)))
    assert errors.count > 20
    assert errors.rms < 1e-6
    assert errors.containment == 1.0


def test_noise_within_the_spread_moves_the_fit_by_less_than_the_spread() -> None:
    quotes = quotes_of(MONTH, strikes_around(MONTH))
    noise = np.random.default_rng(3).uniform(-0.0004, 0.0004, len(quotes))
    noisy = OptionQuotes(quotes.strike, quotes.is_call, quotes.bid + noise, quotes.ask + noise)
    errors = quote_errors(fitted(MONTH, noisy), quotes)
    assert 0 < errors.rms < float(np.median(errors.half_spread)) / 2


def test_one_wild_quote_does_not_bend_the_smile() -> None:
    quotes = quotes_of(MONTH, strikes_around(MONTH))
    quotes.bid[3] += 0.05
    quotes.ask[3] += 0.05
    strikes = strikes_around(MONTH)
    bent = np.abs(fitted(MONTH, quotes).vols(strikes) - MONTH.vols(strikes)).max()
    assert bent < 0.005


def test_tight_quotes_outweigh_wide_ones() -> None:
    tight, high = quotes_of(MONTH, strikes_around(MONTH), 0.0001), strikes_around(MONTH)
    lifted = Svi(MONTH.a + 0.004, MONTH.b, MONTH.rho, MONTH.m, MONTH.sigma, MONTH.forward, MONTH.tau)
    wide = quotes_of(lifted, high, 0.01)
    both = OptionQuotes(
        *(
            np.concatenate([getattr(tight, name), getattr(wide, name)])
            for name in ("strike", "is_call", "bid", "ask")
        )
    )
    money = np.array([MONTH.forward])
    assert fitted(MONTH, both).vols(money)[0] == pytest.approx(MONTH.vols(money)[0], abs=0.005)


@pytest.mark.parametrize(
    ("changes", "near"),
    [
        ({"a": -0.0092, "b": 0.08, "rho": 0.5, "m": 0.12}, 0.001),
        ({"a": 0.0, "sigma": 0.01}, 0.02),
        ({"a": 0.0, "b": 0.2, "rho": -0.8, "m": 0.1, "sigma": 0.02}, 0.01),
    ],
)
def test_arbitrage_in_the_quotes_does_not_reach_the_parameters(
    changes: dict[str, float], near: float
) -> None:
    quoted = replace(MONTH, **changes)
    assert any("butterfly" in problem for problem in check_arbitrage(quoted).problems)
    quotes = quotes_of(quoted, strikes_around(quoted, deviations=3.0))
    found = fitted(quoted, quotes)
    assert check_arbitrage(found).problems == ()
    assert quote_errors(found, quotes).median < near


def test_variance_that_falls_with_expiry_is_lifted() -> None:
    found = fitted(MONTH, earlier=QUARTER)
    assert check_arbitrage(found, QUARTER).problems == ()


@pytest.mark.parametrize("strikes", [0, 1, 4])
def test_few_quotes_are_refused(strikes: int) -> None:
    quotes = quotes_of(MONTH, strikes_around(MONTH, count=strikes))
    with pytest.raises(FitError, match=f"at {strikes} strikes, 5 needed"):
        fitted(MONTH, quotes)


def test_crossed_locked_and_one_sided_quotes_do_not_count() -> None:
    quotes = quotes_of(MONTH, strikes_around(MONTH, count=8))
    whole = fitted(MONTH, quotes_of(MONTH, strikes_around(MONTH, count=6)))
    assert check_arbitrage(whole).problems == ()
    for column in (quotes.bid, quotes.ask):
        column.flags.writeable = True
    quotes.bid[:4], quotes.ask[:4] = 0.3, 0.2
    quotes.bid[4:8] = NAN
    quotes.ask[8:12] = NAN
    quotes.bid[12:14] = quotes.ask[12:14]
    assert len(quotes.two_sided()) == 2
    with pytest.raises(FitError, match="at 2 strikes"):
        fitted(MONTH, quotes)


@pytest.mark.parametrize("value", [NAN, float("inf"), -1.0, 0.0, 5.0])
def test_garbage_prices_are_refused(value: float) -> None:
    quotes = quotes_of(MONTH, strikes_around(MONTH))
    quotes.bid[:] = value
    quotes.ask[:] = value * 2
    with pytest.raises(FitError, match="strikes"):
        fitted(MONTH, quotes)


@pytest.mark.parametrize(("forward", "tau"), [(0.0, 1.0), (NAN, 1.0), (60_000.0, 0.0), (60_000.0, -1.0)])
def test_a_forward_and_a_time_are_needed(forward: float, tau: float) -> None:
    with pytest.raises(FitError, match="must be above 0"):
        fit_svi(quotes_of(MONTH, strikes_around(MONTH)), forward, tau)


def test_random_prices_give_a_sound_fit_or_none() -> None:
    random = np.random.default_rng(11)
    for _ in range(10):
        strikes = strikes_around(MONTH, count=12)
        mid = random.uniform(0.001, 0.2, 24)
        quotes = quotes_of(MONTH, strikes)
        quotes = OptionQuotes(quotes.strike, quotes.is_call, mid * 0.9, mid * 1.1)
        try:
            found = fitted(MONTH, quotes)
        except FitError:
            continue
        assert check_arbitrage(found).problems == ()


def test_a_chain_is_fitted_in_order_and_says_what_it_refused() -> None:
    empty = quotes_of(MONTH, strikes_around(MONTH, count=2))

    def expiry(day: int, svi: Svi, quotes: OptionQuotes) -> ChainExpiry:
        return ChainExpiry(day, svi.tau, TwoSided(svi.forward - 1, svi.forward + 1), quotes)

    chain = OptionChain(
        "BTC",
        0,
        TwoSided(59_990, 60_010),
        (
            expiry(1, MONTH, quotes_of(MONTH, strikes_around(MONTH))),
            expiry(2, MONTH, empty),
            expiry(3, QUARTER, quotes_of(QUARTER, strikes_around(QUARTER))),
        ),
    )
    result = fit_chain(chain)
    assert [one.expiry_ms for one in result.expiries] == [1, 3]
    assert result.refused == ((2, "usable two-sided quotes at 2 strikes, 5 needed"),)
    assert result.expiries[1].arbitrage.least_calendar is not None
    assert fit_chain(chain).expiries[1].svi == result.expiries[1].svi, "same quotes, same parameters"
