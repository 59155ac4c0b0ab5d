"""SVI on recorded chains of a real exchange, when they stand beside the repository."""

import csv
import gzip

import numpy as np
import pytest

from sequencer.implied_vol import implied_deviations
from sequencer.option_chain import read_chain
from sequencer.svi import check_arbitrage
from sequencer.svi_fit import fit_chain
from tests.option_quotes import CHAINS, shared
from tools.svi_fit import summary

SIZES = {"deribit_btc_options_20260801": (868, 802, 13), "deribit_eth_options_20260131": (429, 429, 7)}


@pytest.mark.parametrize("name", CHAINS)
def test_the_fit_is_near_and_without_arbitrage(name: str) -> None:
    chain = read_chain(shared(f"data/{name}.csv.gz"))
    fitted = fit_chain(chain)
    result = summary(chain, fitted)
    assert (result["options"], result["two_sided"], len(fitted.expiries)) == SIZES[name]
    assert fitted.refused == ()
    earlier = None
    for one in fitted.expiries:
        assert check_arbitrage(one.svi, earlier).problems == ()
        earlier = one.svi
    overall = result["overall"]
    assert overall["quotes"] > 200
    assert overall["median_vol_points"] < 0.25, "the target is 1; measured 0.15 and 0.13"
    assert overall["within_bid_ask"] > 0.97


@pytest.mark.parametrize("name", CHAINS)
def test_mid_volatilities_equal_the_recorded_ones(name: str) -> None:
    path = shared(f"data/{name}.csv.gz")
    chain = read_chain(path)
    with gzip.open(path, "rt") as file:
        recorded = {
            (row["option_type"] == "C", float(row["strike_usd"]), row["expiry_utc"]): row["derived_iv_mid"]
            for row in csv.DictReader(file)
        }
    compared = 0
    for expiry in chain.expiries:
        quotes = expiry.quotes.two_sided()
        moneyness = quotes.strike / expiry.forward.mid
        deviation = implied_deviations((quotes.bid + quotes.ask) / 2, moneyness, quotes.is_call)
        vols = deviation / np.sqrt(expiry.tau)
        day = np.datetime64(expiry.expiry_ms, "ms").astype("datetime64[s]").astype(str) + "Z"
        for strike, is_call, vol in zip(quotes.strike, quotes.is_call, vols, strict=True):
            known = recorded[(bool(is_call), float(strike), day)]
            if known:
                assert vol == pytest.approx(float(known), abs=2e-5)
                compared += 1
    assert compared > 400
