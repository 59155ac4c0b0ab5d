"""Request for quote: who is told what, the best first, bounds, and how everything ends. iRFQ_001 to 003."""

from __future__ import annotations

import pytest
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from sequencer.errors import ErrorCode, RpcError
from sequencer.rfq import SWEEP_S, facing
from state.actions import Leg, Side
from tests.rfq_bench import FAIR, MAKERS, TAKER, Bench
from tools.exchange import COIN, USD


@pytest.fixture
async def bench(nursery: trio.Nursery) -> Bench:
    made = Bench()
    await nursery.start(made.rfqs.run)
    return made


async def test_a_request_its_quotes_and_its_end(bench: Bench) -> None:
    bench.feed.subscribe(bench.sink, ["rfqs"], {})
    rfq = bench.ask(account=TAKER)
    bench.feed.subscribe(bench.sink, [rfq["channel"]], {})
    dear, cheap = bench.quote(MAKERS[0]), bench.quote(MAKERS[1], bench.at_marks(bench.legs) + FAIR - 1)
    assert bench.send(dear, rfq) == {
        "rfq": rfq["rfq"],
        "mirrored": False,
        "expires_ms": dear.expiry_s * 1_000,
    }
    bench.send(cheap, rfq)
    found = bench.call("getQuotes", rfq=rfq["rfq"], key=rfq["key"])
    assert [each["quote"]["account"] for each in found["quotes"]] == [MAKERS[1], MAKERS[0]]
    assert found["mirrored"] == []
    assert found["quotes"][0]["signature"] == bench.signed(cheap)["signature"]
    bench.execute(cheap)
    assert bench.refused("getQuotes", rfq=rfq["rfq"], key=rfq["key"])["code"] == "NOT_FOUND"
    snapshot, opened, closed = bench.told("rfqs")
    assert snapshot == []
    request = opened["request"]
    assert opened["event"] == "opened"
    assert (request["rfq"], request["account"]) == (rfq["rfq"], None), "he did not disclose himself"
    assert request["legs"] == bench.shown(bench.legs, True)
    assert closed == {"event": "closed", "rfq": rfq["rfq"], "reason": "executed"}
    snapshot, *events = bench.told(rfq["channel"])
    assert (snapshot["rfq"], snapshot["quotes"]) == (rfq["rfq"], [])
    assert [(each["event"], each.get("reason")) for each in events] == [
        ("quoted", None),
        ("quoted", None),
        ("withdrawn", "executed"),
        ("closed", "executed"),
    ]
    assert events[2]["quote"]["quote"]["account"] == MAKERS[1]


async def test_both_sides_of_a_request_are_quoted(bench: Bench) -> None:
    """iRFQ_003. The best is the lowest net price on either side, the first of equal ones."""
    rfq = bench.ask()
    reverse = tuple(Leg(leg.market, Side(1 - leg.side), leg.size_ulots) for leg in reversed(bench.legs))
    fair, away = bench.at_marks(bench.legs), bench.at_marks(reverse)
    for number, (maker, net) in enumerate(((MAKERS[0], 3), (MAKERS[1], 1), (MAKERS[2], 1))):
        bench.send(bench.quote(maker, fair + net, nonce=number), rfq)
        answer = bench.send(bench.quote(maker, away + net, nonce=10 + number, legs=reverse), rfq)
        assert answer["mirrored"] is True
    found = bench.call("getQuotes", rfq=rfq["rfq"], key=rfq["key"])
    for side, base in (("quotes", fair), ("mirrored", away)):
        assert [(each["quote"]["account"], each["quote"]["net_uusd"] - base) for each in found[side]] == [
            (MAKERS[1], 1),
            (MAKERS[2], 1),
            (MAKERS[0], 3),
        ]


def test_legs_face_each_other_in_any_order() -> None:
    asked = (Leg(1, Side.BUY, 5), Leg(2, Side.SELL, 7))
    assert facing(asked, (Leg(2, Side.BUY, 7), Leg(1, Side.SELL, 5))) is False
    assert facing(asked, asked[::-1]) is True
    for other in (
        (Leg(1, Side.SELL, 5),),
        (Leg(1, Side.SELL, 5), Leg(2, Side.SELL, 7)),
        (Leg(1, Side.SELL, 5), Leg(2, Side.BUY, 8)),
        (Leg(1, Side.SELL, 5), Leg(3, Side.BUY, 7)),
    ):
        assert facing(asked, other) is None


async def test_quotes_are_for_who_has_the_key(bench: Bench) -> None:
    rfq, other = bench.ask(), bench.ask()
    assert rfq["rfq"] + 1 == other["rfq"]
    bench.send(bench.quote(), rfq)
    for key in (other["key"], "0" * 32):
        assert bench.refused("getQuotes", rfq=rfq["rfq"], key=key)["code"] == "NOT_FOUND"
        assert bench.refused("cancelRfq", rfq=rfq["rfq"], key=key)["code"] == "NOT_FOUND"
        for name in (f"quotes.{rfq['rfq']}.{key}", f"quotes.{rfq['rfq']}", f"quotes.x.{key}", "rfqs.1"):
            with pytest.raises(RpcError) as error:
                bench.feed.subscribe(bench.sink, [name], {})
            assert error.value.code == ErrorCode.UNKNOWN_CHANNEL
    assert "key" not in str(bench.call("getRfqs"))
    bench.feed.subscribe(bench.sink, [rfq["channel"]], {})
    assert len(bench.told(rfq["channel"])[0]["quotes"]) == 1, "the snapshot has what came before"


async def test_who_discloses_himself_is_quoted_by_name(bench: Bench) -> None:
    rfq = bench.ask(account=TAKER, disclose=True)
    assert bench.call("getRfqs")[0]["account"] == TAKER
    bench.send(bench.quote(taker_account=TAKER), rfq)
    assert len(bench.nets(rfq)) == 1
    assert bench.refused("requestQuote", legs=bench.shown(bench.legs), disclose=True)["code"] == (
        "INVALID_PARAMS"
    )


async def test_a_quote_sent_twice_is_one_quote(bench: Bench) -> None:
    rfq, quote = bench.ask(), bench.quote()
    bench.feed.subscribe(bench.sink, [rfq["channel"], "quotes"], {})
    for _ in range(2):
        bench.send(quote, rfq)
        bench.send(quote)
    assert len(bench.nets(rfq)) == len(bench.call("getOpenQuotes")) == 1
    assert len(bench.told(rfq["channel"])) == len(bench.told("quotes")) == 2


async def test_quotes_to_no_request_are_for_all_to_see(bench: Bench) -> None:
    """Those of the same legs together, the best first."""
    bench.feed.subscribe(bench.sink, ["quotes"], {})
    single = (Leg(1, Side.SELL, COIN),)
    first, fair = bench.at_marks(single), bench.at_marks(bench.legs)
    sent = [
        bench.quote(MAKERS[0], first + 2, legs=single),
        bench.quote(MAKERS[1], fair, taker_account=TAKER),
        bench.quote(MAKERS[2], first + 1, legs=single),
    ]
    for quote in sent:
        assert bench.send(quote)["rfq"] is None
    listed = [each["quote"]["net_uusd"] for each in bench.call("getOpenQuotes")]
    assert [net for net in listed if net in (first + 1, first + 2)] == [first + 1, first + 2]
    assert abs(listed.index(first + 1) - listed.index(first + 2)) == 1
    bench.execute(sent[0])
    bench.cancel(sent[1])
    assert [each["quote"]["account"] for each in bench.call("getOpenQuotes")] == [MAKERS[2]]
    events = [(each["event"], each.get("reason")) for each in bench.told("quotes")[1:]]
    assert events == [("quoted", None)] * 3 + [("withdrawn", "executed"), ("withdrawn", "cancelled")]


# How it ends


async def test_what_has_expired_is_not_shown_and_forgotten(bench: Bench, autojump_clock: MockClock) -> None:
    """iRFQ_002, for a quote and for a request, also before they are forgotten."""
    bench.feed.subscribe(bench.sink, ["rfqs", "quotes"], {})
    rfq = bench.ask(ttl_s=20)
    bench.feed.subscribe(bench.sink, [rfq["channel"]], {})
    short = bench.quote(expiry_s=bench.now_ms() // 1_000 + 10)
    bench.send(short, rfq)
    bench.send(short)
    await trio.sleep(short.expiry_s - bench.now_ms() / 1_000 - 0.001)
    assert len(bench.nets(rfq)) == len(bench.call("getOpenQuotes")) == 1
    await trio.sleep(0.001)
    assert bench.nets(rfq) == bench.call("getOpenQuotes") == []
    await trio.sleep(SWEEP_S)
    gone = {"event": "withdrawn", "reason": "expired"}
    for channel in ("quotes", rfq["channel"]):
        told = bench.told(channel)[-1]
        assert {name: told[name] for name in gone} == gone
    await trio.sleep((rfq["expires_ms"] - bench.now_ms()) / 1_000 - 0.001)
    assert len(bench.call("getRfqs")) == 1
    await trio.sleep(0.001)
    assert bench.call("getRfqs") == []
    assert bench.refused("getQuotes", rfq=rfq["rfq"], key=rfq["key"])["code"] == "NOT_FOUND"
    answer = bench.signed(bench.quote(nonce=8))
    assert bench.refused("sendQuote", **answer, rfq=rfq["rfq"])["rfq"] == rfq["rfq"]
    await trio.sleep(SWEEP_S)
    assert bench.told(rfq["channel"])[-1] == {"event": "closed", "reason": "expired"}
    assert bench.told("rfqs")[-1] == {"event": "closed", "rfq": rfq["rfq"], "reason": "expired"}


async def test_a_request_may_be_cancelled(bench: Bench) -> None:
    bench.feed.subscribe(bench.sink, ["rfqs"], {})
    rfq = bench.ask()
    assert bench.call("cancelRfq", rfq=rfq["rfq"], key=rfq["key"]) is True
    assert bench.refused("cancelRfq", rfq=rfq["rfq"], key=rfq["key"])["code"] == "NOT_FOUND"
    assert bench.told("rfqs")[-1]["reason"] == "cancelled"


async def test_only_what_a_block_used_ends(bench: Bench) -> None:
    """iRFQ_002. Quotes of one account and nonce differ by expiry; a request ends with its taker's trade."""
    rfq, other = bench.ask(account=TAKER), bench.ask()
    quote = bench.quote(nonce=9)
    later = replace(quote, expiry_s=quote.expiry_s + 1)
    for each in (quote, later):
        bench.send(each, rfq)
    bench.send(quote, other)
    bench.execute(quote, taker=1)
    found = bench.call("getQuotes", rfq=rfq["rfq"], key=rfq["key"])["quotes"]
    assert [each["quote"]["expiry_s"] for each in found] == [later.expiry_s], "another took it, not he"
    assert [each["rfq"] for each in bench.call("getRfqs")] == [rfq["rfq"]], "nobody said whose it is"
    bench.cancel(later)
    assert bench.nets(rfq) == []
    assert len(bench.call("getRfqs")) == 1


# Bounds: iRFQ_001


async def test_requests_are_bounded() -> None:
    bench = Bench(max_rfqs=3, max_rfqs_of_source=2)
    for _ in range(2):
        first = bench.ask()
    refused = bench.refused("requestQuote", legs=bench.shown(bench.legs))
    assert refused == {"number": ErrorCode.TOO_MANY_RFQS, "code": "TOO_MANY_RFQS", "limit": 2}
    bench.ask(peer="another")
    busy = bench.refused("requestQuote", peer="third", legs=bench.shown(bench.legs))
    assert (busy["code"], busy["queue"], busy["limit"]) == ("BUSY", "rfqs", 3)
    bench.call("cancelRfq", rfq=first["rfq"], key=first["key"])
    bench.ask()


async def test_quotes_of_a_maker_are_bounded() -> None:
    bench = Bench(max_quotes_of_maker=2, max_board_of_maker=1, max_board=2)
    rfq = bench.ask()
    for nonce in range(2):
        bench.send(bench.quote(nonce=nonce), rfq)
    one_more = bench.signed(bench.quote(nonce=2))
    assert bench.refused("sendQuote", **one_more, rfq=rfq["rfq"]) == {
        "number": ErrorCode.TOO_MANY_QUOTES,
        "code": "TOO_MANY_QUOTES",
        "account": MAKERS[0],
        "limit": 2,
    }
    bench.send(bench.quote(nonce=0))
    assert bench.refused("sendQuote", **one_more)["code"] == "TOO_MANY_QUOTES"
    bench.send(bench.quote(MAKERS[1]))
    busy = bench.refused("sendQuote", **bench.signed(bench.quote(MAKERS[2])))
    assert (busy["code"], busy["queue"], busy["limit"]) == ("BUSY", "quotes", 2)


async def test_a_full_request_keeps_the_best() -> None:
    """iRFQ_003, on each side by itself."""
    bench = Bench(max_quotes=2)
    rfq = bench.ask()
    bench.feed.subscribe(bench.sink, [rfq["channel"]], {})
    fair = bench.at_marks(bench.legs)
    for maker, net in zip(MAKERS, (3, 2, 3), strict=True):
        quote = bench.quote(maker, fair + net)
        if maker == MAKERS[2]:
            refused = bench.refused("sendQuote", **bench.signed(quote), rfq=rfq["rfq"])
            assert (refused["number"], refused["limit"]) == (ErrorCode.QUOTE_OUTBID, 2)
        else:
            bench.send(quote, rfq)
    bench.send(bench.quote(MAKERS[2], fair + 1), rfq)
    assert bench.nets(rfq) == [fair + 1, fair + 2]
    out, new = bench.told(rfq["channel"])[-2:]
    assert (out["event"], out["reason"], out["quote"]["quote"]["net_uusd"]) == (
        "withdrawn",
        "outbid",
        fair + 3,
    )
    assert new["event"] == "quoted"
    reverse = tuple(Leg(leg.market, Side(1 - leg.side), leg.size_ulots) for leg in bench.legs)
    bench.send(bench.quote(MAKERS[0], bench.at_marks(reverse) + 20 * USD, legs=reverse), rfq)
    assert len(bench.nets(rfq, "mirrored")) == 1


async def test_numbers_begin_at_the_time_of_the_start(bench: Bench, autojump_clock: MockClock) -> None:
    """So that none is met again after a restart."""
    began_ms = bench.now_ms()
    await trio.sleep(1)
    assert [bench.ask()["rfq"] for _ in range(2)] == [began_ms, began_ms + 1]
