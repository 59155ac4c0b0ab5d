"""The chain reader: what it reads, and every file it refuses with its line."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from sequencer.option_chain import ChainError, read_chain
from tests.option_quotes import HEADER, MONTH, QUARTER, chain_file, chain_row

PUT = {"option_type": "P"}
LATER = {"expiry_utc": "2026-09-25T08:00:00Z", "fwd_bid_usd": "60400", "fwd_ask_usd": "60420"}


def write(directory: Path, *rows: str, header: str = HEADER) -> Path:
    path = directory / "chain.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_rows_become_expiries_in_order(tmp_path: Path) -> None:
    chain = read_chain(
        write(tmp_path, chain_row(**LATER), chain_row(), chain_row(**PUT, bid_coin="", ask_coin="0.0"))
    )
    assert (chain.underlying, chain.snapshot_ms, chain.index.mid) == ("BTC", 1_785_607_200_000, 60_005)
    near, far = chain.expiries
    assert near.expiry_ms == 1_787_904_000_000
    assert near.tau == pytest.approx((26 + 14 / 24) / 365)
    assert (near.forward.mid, far.forward.mid) == (60_105, 60_410)
    assert near.quotes.is_call.tolist() == [True, False]
    assert near.quotes.strike.tolist() == [60_000, 60_000]
    assert np.isnan(near.quotes.bid[1])
    assert np.isnan(near.quotes.ask[1])
    assert len(near.quotes.two_sided()) == 1


def test_plain_and_gzip_read_alike(tmp_path: Path) -> None:
    packed = chain_file(tmp_path / "a.csv.gz", [("2026-08-28T08:00:00Z", MONTH)])
    plain = tmp_path / "b.csv"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    a, b = read_chain(packed), read_chain(plain)
    assert a.expiries[0].quotes.strike.tolist() == b.expiries[0].quotes.strike.tolist()
    assert len(a.expiries[0].quotes) == 50


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"option_type": "X"}, "option_type 'X': expected C or P"),
        ({"strike_usd": "sixty"}, "strike_usd 'sixty': expected a number"),
        ({"strike_usd": "-1"}, "must be above 0"),
        ({"bid_coin": "nan"}, "bid_coin 'nan': must be above 0"),
        ({"ask_coin": "-0.1"}, "ask_coin '-0.1': must be above 0"),
        ({"expiry_utc": "soon"}, "expected a time"),
        ({"expiry_utc": "2026-07-31T08:00:00Z"}, "not after the snapshot"),
        ({"fwd_bid_usd": "70000"}, "fwd_bid_usd 70000 above fwd_ask_usd 60110"),
        ({"fwd_ask_usd": ""}, "fwd_ask_usd ''"),
        ({"instrument_name": "BTC USD"}, "expected UNDERLYING-EXPIRY"),
        ({"instrument_name": "ETH-28AUG26-60000-C"}, "another underlying"),
        ({"perp_bid_usd": "59000"}, "another underlying or snapshot"),
        ({"strike_usd": "61000", "fwd_bid_usd": "60099"}, "another forward"),
        ({}, "stands in the file twice"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(ChainError) as caught:
        read_chain(write(tmp_path, chain_row(), chain_row(**changes)))
    assert said in str(caught.value)
    assert str(caught.value).startswith("chain.csv:3: ")


def test_files_that_are_no_chain(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2", header="a,b")
    with pytest.raises(ChainError, match="no column snapshot_utc"):
        read_chain(path)
    with pytest.raises(ChainError, match="no rows"):
        read_chain(write(tmp_path))
    with pytest.raises(ChainError, match="not as many fields"):
        read_chain(write(tmp_path, "2026-08-01T18:00:00Z,BTC"))
    path.write_bytes(b"")
    with pytest.raises(ChainError, match="no column"):
        read_chain(path)
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(ChainError, match="not text"):
        read_chain(path)
    whole = chain_file(tmp_path / "whole.gz", [("2026-09-28T08:00:00Z", QUARTER)]).read_bytes()
    for damaged in (whole[:200], whole[:30] + b"\0\0\0\0" + whole[34:], b"\x1f\x8bnothing"):
        path.write_bytes(damaged)
        with pytest.raises(ChainError, match="damaged gzip"):
            read_chain(path)
    with pytest.raises(OSError, match="nowhere"):
        read_chain(tmp_path / "nowhere.csv")


def test_a_file_too_large_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.csv.gz"
    bomb.write_bytes(gzip.compress(b"0" * (65 * 1024 * 1024), 1))
    with pytest.raises(ChainError, match="more than 67108864 bytes"):
        read_chain(bomb)
