"""Quotes made from a known surface, and chain files made from quotes; where the shared data stands."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from sequencer.implied_vol import Floats, option_prices
from sequencer.option_chain import COLUMNS, OptionQuotes
from sequencer.svi import Svi

SHARED = Path(__file__).resolve().parents[2] / "shared"
CHAINS = ("deribit_btc_options_20260801", "deribit_eth_options_20260131")

MONTH = Svi(a=0.004, b=0.06, rho=-0.3, m=0.02, sigma=0.15, forward=60_000.0, tau=30 / 365)
QUARTER = Svi(a=0.02, b=0.1, rho=-0.25, m=0.03, sigma=0.3, forward=61_000.0, tau=90 / 365)
HEADER = ",".join(COLUMNS)
SNAPSHOT = "2026-08-01T18:00:00Z"


def shared(name: str) -> Path:
    """A file of the shared data; skips the test without it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {name} in a folder `shared` beside the repository")
    return path


def quotes_of(svi: Svi, strikes: Floats, half_spread: float = 0.0005) -> OptionQuotes:
    """Calls and puts at every strike, mids exactly at the model's variance."""
    both = np.concatenate([strikes, strikes])
    is_call = np.arange(len(both)) < len(strikes)
    k = np.log(both / svi.forward)
    mid = option_prices(both / svi.forward, np.sqrt(svi.variance(k)), is_call)
    return OptionQuotes(both, is_call, mid - half_spread, mid + half_spread)


def strikes_around(svi: Svi, count: int = 25, deviations: float = 2.0) -> Floats:
    width = deviations * float(np.sqrt(svi.variance(np.zeros(1))[0]))
    return np.asarray(svi.forward * np.exp(np.linspace(-width, width, count)))


def chain_row(**changes: str) -> str:
    row = {
        "snapshot_utc": SNAPSHOT,
        "instrument_name": "BTC-28AUG26-60000-C",
        "option_type": "C",
        "strike_usd": "60000",
        "expiry_utc": "2026-08-28T08:00:00Z",
        "bid_coin": "0.04",
        "ask_coin": "0.042",
        "fwd_bid_usd": "60100",
        "fwd_ask_usd": "60110",
        "perp_bid_usd": "60000",
        "perp_ask_usd": "60010",
    }
    return ",".join((row | changes)[name] for name in COLUMNS)


def chain_file(path: Path, slices: list[tuple[str, Svi]], index: float = 60_000.0) -> Path:
    """A gzip chain of quotes at these surfaces; `slices` are (expiry_utc, surface)."""
    lines = [HEADER]
    for expiry, svi in slices:
        quotes = quotes_of(svi, np.round(strikes_around(svi)))
        for strike, is_call, bid, ask in zip(
            quotes.strike, quotes.is_call, quotes.bid, quotes.ask, strict=True
        ):
            kind = "C" if is_call else "P"
            changes = {
                "instrument_name": f"BTC-X-{strike:.0f}-{kind}",
                "option_type": kind,
                "strike_usd": f"{strike:.0f}",
                "expiry_utc": expiry,
                "bid_coin": f"{bid:.8f}" if bid > 0 else "",
                "ask_coin": f"{ask:.8f}",
                "fwd_bid_usd": f"{svi.forward - 5}",
                "fwd_ask_usd": f"{svi.forward + 5}",
                "perp_bid_usd": f"{index - 5}",
                "perp_ask_usd": f"{index + 5}",
            }
            lines.append(chain_row(**changes))
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path
