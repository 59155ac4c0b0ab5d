"""Tapes: every layout gives the same trades; what is not a tape is refused by line."""

import gzip
import itertools
import zipfile
from pathlib import Path

import pytest

from tools.tape import TapeError, TapeTrade, read_tape, synthetic_tape

EXPECTED = [
    TapeTrade(1723161255342, "BTC", 61_837_630_000, 20_000, False),
    TapeTrade(1723161255611, "BTC", 61_838_000_000, 2_000, True),
]
VENUE = (
    "trade_time_ms,venue,symbol,trade_id,price,qty,taker_side,exec_type\n"
    "1723161255342,usdm,BTCUSDT,1,61837.63,0.02,S,MARKET\n"
    "1723161255400,spot,BTCUSDT,1,61837.63,0.02,S,\n"
    "1723161255500,usdm,BTCUSDT,2,1.0,5,S,INSURANCE_FUND\n"
    "1723161255611,usdm,BTCUSDT,3,61838,0.002,B,MARKET\n"
)
TRADES = "1,61837.63,0.02,1236.7526,1723161255342,true\n2,61838,0.002,123.676,1723161255611,false\n"
AGGREGATED = (
    "1,61837.63,0.02,1,1,1723161255342000,True,True\n2,61838.00,0.002,2,3,1723161255611000,False,True\n"
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("any.csv", VENUE),
        ("BTCUSDT-trades-2024-08-08.csv", TRADES),
        ("BTCUSDT-trades-2024-08-08.csv", "id,price,qty,quote_qty,time,is_buyer_maker\n" + TRADES),
        ("BTCUSDT-aggTrades-2025-08-08.csv", AGGREGATED),
        (
            "BTCUSDT-aggTrades-2025-08-08.csv",
            "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker,best\n"
            + AGGREGATED,
        ),
    ],
)
def test_layouts_give_the_same_trades(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert list(read_tape(path)) == EXPECTED


def test_compressed_tapes(tmp_path: Path) -> None:
    packed = tmp_path / "BTCUSDT-trades.csv.gz"
    packed.write_bytes(gzip.compress(TRADES.encode()))
    assert list(read_tape(packed)) == EXPECTED
    archive = tmp_path / "BTCUSDT-trades.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("BTCUSDT-trades.csv", TRADES)
    assert list(read_tape(archive)) == EXPECTED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "2 columns"),
        ("1,abc,0.02,1,1723161255342,true\n", "line 1: time, price or size"),
        ("1,-5,0.02,1,1723161255342,true\n", "must be positive"),
        (TRADES + "3,1,1\n", "line 3: 3 columns"),
        ("1,5,0.02,1,1723161255342,maybe\n", "is_buyer_maker 'maybe'"),
    ],
)
def test_what_is_not_a_tape_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "BTCUSDT-trades.csv"
    path.write_text(text)
    with pytest.raises(TapeError, match=says):
        list(read_tape(path))


def test_a_symbol_without_a_dollar_quote_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mytape.csv"
    path.write_text(TRADES)
    with pytest.raises(TapeError, match=r"symbol .mytape"):
        list(read_tape(path))


def test_the_synthetic_tape_is_its_seed() -> None:
    assert list(synthetic_tape(7, 200)) == list(synthetic_tape(7, 200))
    assert list(synthetic_tape(7, 200)) != list(synthetic_tape(8, 200))
    trades = list(synthetic_tape(7, 2000))
    assert {t.underlying for t in trades} == {"BTC", "ETH"}
    assert all(t.price_uusd > 0 and t.size_ulots > 0 for t in trades)
    assert all(a.time_ms <= b.time_ms for a, b in itertools.pairwise(trades))
