"""What requests and quotes are refused for, each with its code; judging changes nothing; typed data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_account.messages import encode_typed_data
from msgspec.structs import replace

from sequencer.errors import REJECT_BASE, ErrorCode
from state.actions import AuthorizeSessionKey, Leg, Quote, Scope, SetProtection, Withdraw
from state.block import L1Message, MessageKind
from state.errors import RejectCode
from state.hashing import keccak
from state.keys import auction_key, instrument_key, protection_key
from state.leaves import Auction, Instrument, Protection
from state.signatures import address_of, sign
from state.typed_data import message
from tests.rfq_bench import MAKERS, SECRETS, TAKER, Bench
from tools.exchange import COIN, USD, VAULT

MAKER = MAKERS[0]
SESSION = b"\x61" * 32
Change = Callable[[Bench, Quote], Quote]


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def legs_of(change: Callable[[tuple[Leg, ...]], tuple[Leg, ...]]) -> Change:
    return lambda _, quote: replace(quote, legs=change(quote.legs))


def sized(size: int) -> Change:
    return legs_of(lambda legs: (replace(legs[0], size_ulots=size), *legs[1:]))


def used(bench: Bench, quote: Quote) -> Quote:
    bench.cancel(quote)
    return quote


def poor(bench: Bench, quote: Quote) -> Quote:
    fields = {"recipient": b"\x07" * 20, "amount_uusd": 999_990 * USD}
    bench.exchange.act(Withdraw, quote.account, **fields)
    return quote


def frozen(bench: Bench, quote: Quote) -> Quote:
    terms = dict.fromkeys(("interval_ms", "frozen_ms"), 60_000) | dict.fromkeys(
        ("quantity_ulots", "delta_ulots", "vega_uusd"), 1
    )
    bench.exchange.act(SetProtection, quote.account, underlying="C1", **terms)
    key = protection_key(quote.account, b"C1".ljust(22, b"\0"))
    leaf: Protection = bench.exchange.view.get(key)
    leaf.frozen_until_ms = bench.now_ms() + 60_000
    bench.exchange.view.touch(key, leaf)
    return quote


def in_auction(bench: Bench, quote: Quote) -> Quote:
    bench.exchange.view.put(auction_key(quote.account), Auction(1, 0, 0, 0, 0, 0))
    return quote


def halted(bench: Bench, quote: Quote) -> Quote:
    market = quote.legs[2].market
    leaf: Instrument = bench.exchange.view.get(instrument_key(market))
    terms = Instrument.decode(leaf.encode())
    terms.status = 3
    data = market.to_bytes(4, "big") + terms.encode()
    bench.exchange.messages(L1Message(MessageKind.SET_INSTRUMENT, VAULT, 0, data))
    return quote


def stale(bench: Bench, quote: Quote) -> Quote:
    bench._began_ms += 600_000
    return replace(quote, expiry_s=quote.expiry_s + 600)


REFUSED: list[tuple[RejectCode, Change]] = [
    (RejectCode.LEG_COUNT, legs_of(lambda _: ())),
    (RejectCode.LEG_COUNT, legs_of(lambda legs: legs * 6)),
    (RejectCode.DUPLICATE_LEG, legs_of(lambda legs: legs[:1] * 2)),
    (RejectCode.SIZE_OFF_LOT, sized(COIN + 1)),
    (RejectCode.SIZE_ZERO, sized(0)),
    (RejectCode.SIZE_TOO_LARGE, sized(2**62 - 2**62 % 100)),
    (RejectCode.UNKNOWN_ACCOUNT, lambda _, quote: replace(quote, account=99)),
    (RejectCode.UNKNOWN_ACCOUNT, lambda _, quote: replace(quote, taker_account=99)),
    (RejectCode.QUOTE_EXPIRED, lambda bench, quote: replace(quote, expiry_s=bench.now_ms() // 1_000)),
    (RejectCode.DEADLINE_TOO_FAR, lambda _, quote: replace(quote, expiry_s=quote.expiry_s + 86_400)),
    (RejectCode.QUOTE_USED, used),
    (RejectCode.QUOTE_TO_ONESELF, lambda _, quote: replace(quote, taker_account=MAKER)),
    (RejectCode.NET_PRICE_OFF, lambda _, quote: replace(quote, net_uusd=quote.net_uusd + 10_000 * USD)),
    (RejectCode.FEE_ABOVE_MAX, lambda _, quote: replace(quote, max_fee_uusd=1)),
    (RejectCode.INSUFFICIENT_MARGIN, poor),
    (RejectCode.MMP_FROZEN, frozen),
    (RejectCode.ACCOUNT_IN_AUCTION, in_auction),
    (RejectCode.INSTRUMENT_NOT_TRADING, halted),
    (RejectCode.ORACLE_STALE, stale),
]


@pytest.mark.parametrize(("code", "change"), REFUSED)
async def test_a_quote_that_could_not_be_taken(bench: Bench, code: RejectCode, change: Change) -> None:
    quote = change(bench, bench.quote())
    refused = bench.refused("sendQuote", **bench.signed(quote, SECRETS[0]))
    assert (refused["code"], refused["number"]) == (code.name, REJECT_BASE - code)


async def test_numbers_that_no_transaction_can_carry(bench: Bench) -> None:
    refused = bench.refused("sendQuote", **bench.signed(bench.quote(nonce=2**56)))
    assert (refused["code"], refused["path"]) == ("INVALID_PARAMS", "$.quote.nonce")
    sent = bench.signed(bench.quote())
    for name, value in (("nonce", str(2**64)), ("net_uusd", str(2**63)), ("expiry_s", -1)):
        refused = bench.refused("sendQuote", **(sent | {"quote": sent["quote"] | {name: value}}))
        assert refused["code"] == "INVALID_PARAMS"
        assert name in refused["path"]


async def test_a_quote_must_be_signed_for_its_account(bench: Bench) -> None:
    quote = bench.quote()
    stranger = address_of(SECRETS[1])
    refused = bench.refused("sendQuote", **bench.signed(quote, SECRETS[1]))
    assert (refused["code"], refused["recovered"]) == ("QUOTE_WRONG_SIGNER", "0x" + stranger.hex())
    good = bench.signed(quote)
    changed = good | {"quote": good["quote"] | {"net_uusd": quote.net_uusd + 1}}
    assert bench.refused("sendQuote", **changed)["code"] == "QUOTE_WRONG_SIGNER"
    high_s = good["signature"][:66] + "7f" + "ff" * 31
    assert bench.refused("sendQuote", **(good | {"signature": high_s}))["code"] == "BAD_SIGNATURE"
    for malformed in ("", "0x", "0x00", "00" * 64, "0x" + "0g" * 64, good["signature"] + "\n"):
        refused = bench.refused("sendQuote", **(good | {"signature": malformed}))
        assert (refused["code"], refused["path"]) == ("INVALID_PARAMS", "$.signature")
    unknown = good["quote"] | {"legs": [good["quote"]["legs"][0] | {"instrument": "NOTHING"}]}
    assert bench.refused("sendQuote", **(good | {"quote": unknown}))["code"] == "UNKNOWN_INSTRUMENT"


async def test_a_session_key_that_may_trade_signs_quotes(bench: Bench) -> None:
    key, until = address_of(SESSION), bench.now_ms() // 1_000 + 60
    quote = bench.quote()
    bench.exchange.act(AuthorizeSessionKey, MAKER, key=key, scope=Scope.CANCEL_ONLY, expiry_s=until)
    sent = bench.signed(quote, SESSION)
    assert bench.refused("sendQuote", **sent)["code"] == "QUOTE_WRONG_SIGNER"
    bench.exchange.act(AuthorizeSessionKey, MAKER, key=key, scope=Scope.TRADE, expiry_s=until)
    wallet = bytes.fromhex(sent["signature"][2:])
    v = 27 + (wallet[32] >> 7)
    as_wallets_sign = wallet[:32] + bytes([wallet[32] & 0x7F]) + wallet[33:] + bytes([v])
    bench.call("sendQuote", **(sent | {"signature": "0x" + as_wallets_sign.hex()}))
    assert bench.call("getOpenQuotes")[0]["signature"] == sent["signature"]


async def test_an_answer_must_fit_its_request(bench: Bench) -> None:
    rfq, quote = bench.ask(), bench.quote()
    legs = quote.legs[:2]
    other = bench.quote(legs=legs)
    refused = bench.refused("sendQuote", **bench.signed(other), rfq=rfq["rfq"])
    assert refused == {"number": ErrorCode.RFQ_LEGS_DIFFER, "code": "RFQ_LEGS_DIFFER", "rfq": rfq["rfq"]}
    refused = bench.refused("sendQuote", **bench.signed(quote), rfq=rfq["rfq"] + 1)
    assert (refused["code"], refused["rfq"]) == ("NOT_FOUND", rfq["rfq"] + 1)
    named = bench.signed(replace(quote, taker_account=TAKER))
    assert bench.refused("sendQuote", **named, rfq=rfq["rfq"])["code"] == "QUOTE_NOT_FOR_TAKER"
    for disclose in (False, True):
        of_taker = bench.ask(account=TAKER, disclose=disclose)
        wrong = bench.signed(replace(quote, taker_account=1))
        assert bench.refused("sendQuote", **wrong, rfq=of_taker["rfq"])["code"] == "QUOTE_NOT_FOR_TAKER"
        own = bench.ask(account=MAKER, disclose=disclose)
        oneself = bench.refused("sendQuote", **bench.signed(quote), rfq=own["rfq"])
        assert oneself["code"] == "QUOTE_TO_ONESELF"
    assert bench.nets(rfq) == []


async def test_a_hidden_taker_is_not_given_away(bench: Bench) -> None:
    """What a maker is told does not depend on who asks: here the taker's account is frozen."""
    hidden, shown = bench.ask(account=TAKER), bench.ask(account=TAKER, disclose=True)
    frozen(bench, bench.quote(TAKER))
    refused = bench.refused("sendQuote", **bench.signed(bench.quote()), rfq=shown["rfq"])
    assert (refused["code"], refused["account"]) == ("MMP_FROZEN", TAKER)
    bench.send(bench.quote(), hidden)


async def test_a_takers_means_do_not_count() -> None:
    bench = Bench()
    poor(bench, bench.quote(TAKER))
    rfq = bench.ask(account=TAKER, disclose=True)
    bench.send(bench.quote(taker_account=TAKER), rfq)
    assert len(bench.nets(rfq)) == 1


BAD_LEGS: list[tuple[str, Callable[[list[Any]], list[Any]]]] = [
    ("LEG_COUNT", lambda legs: []),
    ("LEG_COUNT", lambda legs: legs * 6),
    ("DUPLICATE_LEG", lambda legs: legs[:1] * 2),
    ("UNKNOWN_INSTRUMENT", lambda legs: [legs[0] | {"instrument": "C1-1JAN30"}]),
    ("SIZE_OFF_LOT", lambda legs: [legs[0] | {"size_ulots": COIN + 1}]),
    ("SIZE_ZERO", lambda legs: [legs[0] | {"size_ulots": 0}]),
    ("SIZE_TOO_LARGE", lambda legs: [legs[0] | {"size_ulots": str(10**18)}]),
    ("INVALID_PARAMS", lambda legs: [legs[0] | {"size_ulots": str(2**64)}]),
    ("INVALID_PARAMS", lambda legs: [legs[0] | {"side": "hold"}]),
    ("INVALID_PARAMS", lambda legs: legs * 22),
]


@pytest.mark.parametrize(("code", "change"), BAD_LEGS)
async def test_legs_that_cannot_be_asked_for(
    bench: Bench, code: str, change: Callable[[list[Any]], list[Any]]
) -> None:
    assert bench.refused("requestQuote", legs=change(bench.shown(bench.legs)))["code"] == code


async def test_requests_that_are_refused(bench: Bench) -> None:
    legs = bench.shown(bench.legs)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"account": 99}, "UNKNOWN_ACCOUNT"),
        ({"account": 0}, "INVALID_PARAMS"),
        ({"ttl_s": 0}, "INVALID_PARAMS"),
        ({"ttl_s": 601}, "INVALID_PARAMS"),
        ({"more": 1}, "INVALID_PARAMS"),
    ]
    for params, code in wrong:
        assert bench.refused("requestQuote", **({"legs": legs} | params))["code"] == code
    in_auction(bench, bench.quote())
    assert bench.refused("requestQuote", legs=legs, account=MAKER)["code"] == "ACCOUNT_IN_AUCTION"
    halted(bench, bench.quote())
    assert bench.refused("requestQuote", legs=legs)["code"] == "INSTRUMENT_NOT_TRADING"
    for number, key in ((0, "0" * 32), (1, "0" * 31), (1, "G" * 32)):
        assert bench.refused("getQuotes", rfq=number, key=key)["code"] == "INVALID_PARAMS"


# Typed data


def digest_of(typed: dict[str, Any]) -> str:
    """By the library that wallets' authors use."""
    made = encode_typed_data(full_message=typed)
    return "0x" + keccak(b"\x19" + made.version + made.header + made.body).hex()


async def test_typed_data_of_a_quote_is_what_its_maker_signs(bench: Bench) -> None:
    quote = bench.quote()
    sent = bench.signed(quote)
    found = bench.call("typedData", quote=sent["quote"])
    assert found["typed_data"]["primaryType"] == "Quote"
    assert digest_of(found["typed_data"]) == found["digest"]
    signature = sign(bytes.fromhex(found["digest"][2:]), SECRETS[0])
    assert "0x" + signature.hex() == sent["signature"]


async def test_typed_data_of_an_action(bench: Bench) -> None:
    action = Withdraw(**bench.exchange.envelope(1), recipient=b"\x07" * 20, amount_uusd=2**60)
    json = {"type": "Withdraw", **message(action, bench.names.name_of)}
    found = bench.call("typedData", action=json)
    assert found["typed_data"]["message"]["amount_uusd"] == str(2**60), "exact in JavaScript"
    assert digest_of(found["typed_data"]) == found["digest"]
    quote = bench.signed(bench.quote())["quote"]
    for params in ({}, {"action": json, "quote": quote}, {"action": json | {"account": str(2**64)}}):
        assert bench.refused("typedData", **params)["code"] == "INVALID_PARAMS"
    unknown = quote | {"legs": [{"instrument": "X", "side": "buy", "size_ulots": 1}]}
    assert bench.refused("typedData", quote=unknown)["code"] == "UNKNOWN_INSTRUMENT"
