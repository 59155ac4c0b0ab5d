"""The HTTP source: values by path, and nothing a server sends makes a reading fail."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from sequencer.oracle_config import HttpFeed, HttpSection
from sequencer.oracle_http import HttpSource
from sequencer.oracle_sources import Expiry, Observed, Reading
from tests.http_script import Behaviour, answer, floods, scripted_server, sends, stalls_after
from tests.option_quotes import MONTH

NOW_MS = 1_785_607_200_000
EXPIRY = "2026-08-28T08:00:00Z"
KEY = Expiry("BTC", 1_787_904_000_000)
DOCUMENT = {
    "result": {
        "price": 62_687.5,
        "text": "62687.25",
        "bid": 62_600,
        "ask": 62_700.0,
        "rate": -0.02,
        "trust": 0.7,
        "usOut": NOW_MS * 1000 - 2_500_000,
        "bad": [True, None, "nan", "inf", "1_000", "0x10", "", "1e999", -1, 0, "-5", {}, []],
    },
    "svi": {name: getattr(MONTH, name) for name in ("a", "b", "rho", "m", "sigma", "forward", "tau")},
    "stable": "0.9991",
}


def feed(base: str, **values: object) -> HttpFeed:
    defaults: dict[str, object] = {"kind": "index", "underlying": "BTC", "url": base + "/all"}
    return msgspec.convert(defaults | values, HttpFeed)


async def read(feeds: list[dict[str, object]], **paths: Behaviour) -> Reading:
    async with scripted_server() as server:
        server.paths["/all"] = sends(answer(msgspec.json.encode(DOCUMENT)))
        for path, behave in paths.items():
            server.paths["/" + path] = behave
        made = []
        for one in feeds:
            url = server.base + "/" + str(one.pop("at", "all"))
            made.append(feed(server.base, **(one | {"url": url})))
        reading = await HttpSource(HttpSection(feeds=tuple(made), timeout_s=5.0)).read(NOW_MS)
        assert len(server.requests) <= len({one.url for one in made}), "one fetch for each document"
        return reading
    raise AssertionError


async def test_every_kind_of_feed() -> None:
    reading = await read(
        [
            {"value": "$.result.price", "timestamp": "$.result.usOut", "timestamp_unit": "us"},
            {"underlying": "ETH", "bid": "$.result.bid", "ask": "$.result.ask"},
            {"kind": "forward", "expiry": EXPIRY, "value": "$.result['text']", "confidence": 0.9},
            {"kind": "rate", "expiry": EXPIRY, "value": "$.result.rate", "confidence_path": "$.result.trust"},
            {"kind": "svi", "expiry": EXPIRY, "value": "$.svi", "confidence": 0.8},
            {"kind": "stable", "underlying": "", "value": "$.stable"},
        ]
    )
    assert reading.problems == ()
    assert reading.index["BTC"] == Observed(62_687.5, 1.0, NOW_MS - 2_500)
    mid = reading.index["ETH"]
    assert (mid.value, mid.timestamp_ms) == (62_650, NOW_MS)
    assert mid.confidence == pytest.approx(1 - 50 / 62_650 / 0.01)
    assert reading.forward[KEY] == Observed(62_687.25, 0.9, NOW_MS)
    assert reading.rate[KEY] == Observed(-0.02, 0.7, NOW_MS)
    assert reading.svi[KEY] == Observed(MONTH, 0.8, NOW_MS)
    assert reading.stable == Observed(0.9991, 1.0, NOW_MS)


@pytest.mark.parametrize("place", range(len(DOCUMENT["result"]["bad"])))  # type: ignore[index]
async def test_what_is_no_price_is_left_out_and_named(place: int) -> None:
    reading = await read(
        [{"value": f"$.result.bad[{place}]"}, {"underlying": "ETH", "value": "$.result.price"}]
    )
    assert list(reading.index) == ["ETH"]
    assert len(reading.problems) == 1
    assert reading.problems[0].startswith("index BTC: ")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"value": "$.result.nothing"}, "index BTC: $['result'] has no 'nothing'"),
        ({"value": "$.result"}, "is no number"),
        ({"bid": "$.result.ask", "ask": "$.result.bid"}, "bid 62700 above ask 62600"),
        ({"value": "$.result.price", "timestamp": "$.result.usOut"}, "s ahead"),
        ({"value": "$.result.price", "timestamp": "$.result.price"}, "s old"),
        ({"value": "$.result.price", "confidence_path": "$.result.price"}, "not between 0 and 1"),
        ({"kind": "rate", "expiry": EXPIRY, "value": "$.result.price"}, "beyond 10 a year"),
        ({"kind": "svi", "expiry": EXPIRY, "value": "$.result"}, "expected an object with a, b, rho"),
        ({"kind": "svi", "expiry": EXPIRY, "value": "$.result.bad"}, "expected an object with a, b, rho"),
    ],
)
async def test_what_cannot_be_believed_is_left_out(values: dict[str, object], said: str) -> None:
    reading = await read([values])
    assert [len(values) for values in (reading.index, reading.rate, reading.svi)] == [0, 0, 0]
    assert said in reading.problems[0]


@pytest.mark.parametrize(
    "svi",
    [
        {"b": -1},
        {"rho": 1},
        {"sigma": 0},
        {"a": -0.02},
        {"m": 0.0, "a": 0.0, "sigma": 1e-4},
        {"a": 1e30, "b": 1e30},
        {"tau": "x"},
    ],
)
async def test_arbitrage_is_not_passed_on(svi: dict[str, object]) -> None:
    body = msgspec.json.encode({"svi": DOCUMENT["svi"] | svi})  # type: ignore[operator]
    reading = await read(
        [{"kind": "svi", "expiry": EXPIRY, "value": "$.svi", "at": "svi"}], svi=sends(answer(body))
    )
    assert reading.svi == {}
    assert reading.problems[0].startswith("svi BTC 2026-08-28T08:00:00Z: ")


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (sends(answer(b"busy", "503 Service Unavailable")), "status 503: 'busy'"),
        (sends(answer(b"<html>")), "not JSON"),
        (sends(answer(b"")), "not JSON"),
        (sends(answer(b"\xff\xfe")), "not JSON"),
        (sends(answer(b"[" * 500_000)), "not JSON"),
        (sends(answer(b"1" * 500_000)), "not JSON"),
        (sends(answer(b"1e999999")), "not JSON"),
        (sends(answer(b'"\xed\xa0\x80"')), "not JSON"),
        (sends(b"garbage\r\n\r\n"), "not HTTP"),
        (floods, "more than 1048576 bytes"),
    ],
)
async def test_one_bad_server_costs_only_its_own_feeds(behave: Behaviour, said: str) -> None:
    reading = await read(
        [
            {"at": "bad", "value": "$"},
            {"at": "bad", "underlying": "SOL", "value": "$.x"},
            {"underlying": "ETH", "value": "$.result.price"},
        ],
        bad=behave,
    )
    assert list(reading.index) == ["ETH"]
    assert [said in problem for problem in reading.problems] == [True, True]


async def test_a_slow_server_costs_one_deadline_and_holds_up_no_other(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0.02
    async with scripted_server() as quick, scripted_server() as slow:
        quick.paths["/all"] = sends(answer(msgspec.json.encode(DOCUMENT)))
        feeds = [feed(quick.base, value="$.result.price")]
        for number in range(20):
            slow.paths[f"/{number}"] = stalls_after(b"HTTP/1.1 200 OK\r\n")
            feeds.append(feed("", underlying=f"X{number}", url=f"{slow.base}/{number}", value="$"))
        before = trio.current_time()
        section = HttpSection(feeds=tuple(feeds), timeout_s=5.0, max_parallel=2)
        reading = await HttpSource(section).read(NOW_MS)
        assert trio.current_time() - before == pytest.approx(5, abs=0.5)
    assert list(reading.index) == ["BTC"]
    assert len(reading.problems) == 20
    assert all("no whole answer within 5 s" in problem for problem in reading.problems)


async def test_cancellation_passes_through(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 0.02
    with trio.move_on_after(1) as scope:
        await read([{"at": "slow", "value": "$"}], slow=stalls_after(b""))
    assert scope.cancelled_caught
