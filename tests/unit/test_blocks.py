"""Block trades: all legs or none, exact money, every way in which a quote is no good.

iBLOCK_001, iBLOCK_002, iBLOCK_003, iBLOCK_004.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from state.actions import (
    AuthorizeSessionKey,
    CancelQuote,
    Leg,
    Quote,
    Scope,
    SetProtection,
    Side,
    Transaction,
)
from state.block import L1Message, MessageKind
from state.errors import RejectCode, Rejected
from state.hashing import keccak
from state.keys import (
    BLOCK_TRADE,
    QUOTE_USED,
    block_trade_key,
    instrument_key,
    market_key,
    protection_key,
    quote_used_key,
)
from state.leaves import BlockTrade, Instrument, Protection
from state.pricing import mark_of
from state.units import BLOCK_TRADE_KEPT_MS
from tests.depth import chain_exchange, execution, quote_of, straddle, update, witness_block
from tests.exchange_checks import assert_conserved, must_reject, must_reject_act
from tools.exchange import COIN, USD, VAULT, Exchange, owner_address


def mark(exchange: Exchange, market: int) -> int:
    terms: Instrument = exchange.view.get(instrument_key(market))
    found = mark_of(exchange.view, exchange.view.get(market_key(market)), terms)
    assert found is not None
    return found


def at_marks(exchange: Exchange, legs: tuple[Leg, ...]) -> int:
    """What the maker would receive at the marks, each leg rounded down."""
    amounts = [mark(exchange, leg.market) * leg.size_ulots // COIN * (1 if leg.side else -1) for leg in legs]
    return sum(amounts)


def good(**more: Any) -> tuple[Exchange, Quote]:
    exchange, markets = chain_exchange()
    legs = straddle(markets)
    return exchange, quote_of(exchange, legs, at_marks(exchange, legs) + 3 * USD + 7, **more)


def quotes_of(exchange: Exchange, account: int, legs: tuple[Leg, ...]) -> list[int]:
    return [exchange.account(account).cash_uusd] + [
        position.quote_uusd if (position := exchange.position(account, leg.market)) else 0 for leg in legs
    ]


def test_all_legs_trade_for_the_net_price() -> None:
    exchange, quote = good()
    before = {account: sum(quotes_of(exchange, account, quote.legs)) for account in (1, 2)}
    tasks = witness_block(exchange, execution(exchange, quote))
    result = exchange.results[-1]
    assert tasks == {0}
    trades = result.trades
    assert [trade.block_trade for trade in trades] == [trades[0].number] * 3
    assert [trade.maker_order_id for trade in trades] == [quote.nonce] * 3
    assert len({trade.taker_order_id for trade in trades}) == 3
    assert result.results[0].trades == (trades[0].number, trades[0].number + 3)
    for leg in quote.legs:
        signed = -leg.size_ulots if leg.side else leg.size_ulots
        maker, taker = exchange.position(1, leg.market), exchange.position(2, leg.market)
        assert maker is not None
        assert taker is not None
        assert (maker.size_ulots, taker.size_ulots) == (signed, -signed)
    fees = sum(trade.maker_fee_uusd for trade in trades)
    assert sum(quotes_of(exchange, 1, quote.legs)) == before[1] + quote.net_uusd - fees
    taken = sum(trade.taker_fee_uusd for trade in trades) + result.results[0].fee_uusd
    assert sum(quotes_of(exchange, 2, quote.legs)) == before[2] - quote.net_uusd - taken
    assert exchange.market(quote.legs[0].market).last_price_uusd == 0, "no price of the book"
    assert_conserved(exchange)


def test_the_remainder_goes_to_the_first_leg_that_takes_it() -> None:
    """iBLOCK_003. A leg's amount does not fall below 0; the next takes the rest."""
    exchange, markets = chain_exchange()
    far, near, perpetual = markets["1200C"], markets["1000C"], markets["P"]
    legs = (Leg(far, Side.SELL, COIN), Leg(near, Side.SELL, COIN), Leg(perpetual, Side.BUY, COIN))
    marks = [mark(exchange, leg.market) for leg in legs]
    below = marks[0] + 5
    exchange.send(execution(exchange, quote_of(exchange, legs, at_marks(exchange, legs) - below)))
    amounts = [trade.price_uusd * trade.size_ulots // COIN for trade in exchange.results[-1].trades]
    assert amounts == [0, marks[1] - 5, marks[2]]
    assert_conserved(exchange)


def test_what_no_leg_can_take_is_no_price() -> None:
    exchange, markets = chain_exchange()
    legs = (Leg(markets["1200C"], Side.SELL, COIN),)
    quote = quote_of(exchange, legs, -1)
    refused = must_reject(exchange, RejectCode.NET_PRICE_OFF, execution(exchange, quote))
    assert refused.data["got"] == -1


def test_the_band_applies_to_the_net_price() -> None:
    exchange, quote = good()
    width = sum(
        mark(exchange, leg.market) * 200_000 // 10**6 * leg.size_ulots // COIN for leg in quote.legs[2:]
    ) + 2 * (200 * USD)
    for net, code in (
        (at_marks(exchange, quote.legs) + width, None),
        (at_marks(exchange, quote.legs) + width + 1, RejectCode.NET_PRICE_OFF),
    ):
        tried = replace(quote, net_uusd=net)
        if code is None:
            exchange.send(execution(exchange, tried))
        else:
            must_reject(exchange, code, execution(exchange, replace(tried, nonce=8)))
    assert_conserved(exchange)


@pytest.mark.parametrize("seed", range(3))
def test_random_blocks_conserve_money(seed: int) -> None:
    """Positions open, close and change sign at prices off tick; nothing appears or vanishes."""
    exchange, markets = chain_exchange()
    chance = random.Random(seed)
    traded = 0
    for nonce in range(40):
        chosen = chance.sample(sorted(markets.values()), chance.randint(1, 6))
        legs = tuple(
            Leg(market, Side(chance.getrandbits(1)), chance.randint(1, 50) * 100_000) for market in chosen
        )
        net = at_marks(exchange, legs) + chance.randint(-30 * USD, 30 * USD)
        maker, taker = chance.sample(range(1, 5), 2)
        quote = quote_of(exchange, legs, net, maker, nonce=nonce)
        with suppress(Rejected):
            exchange.send(execution(exchange, quote, taker))
            traded += 1
        assert_conserved(exchange)
        exchange.now_ms += 1_000
        update(exchange, chance.randint(950, 1_050) * USD)
    assert traded > 20


def test_terms_are_kept_and_can_be_proved() -> None:
    exchange, quote = good(terms_hash=keccak(b"what we said"))
    witness_block(exchange, execution(exchange, quote))
    trades = exchange.results[-1].trades
    leaf: BlockTrade = exchange.view.get(block_trade_key(trades[0].number))
    assert leaf.terms_hash == quote.terms_hash
    assert (leaf.maker, leaf.taker, leaf.net_uusd) == (1, 2, quote.net_uusd)
    packed = b"".join(
        leg.market.to_bytes(4, "big")
        + bytes([leg.side])
        + leg.size_ulots.to_bytes(8, "big")
        + amount.to_bytes(8, "big")
        for leg, amount in zip(quote.legs, _amounts(exchange, quote), strict=True)
    )
    assert leaf.legs_hash == keccak(packed)


def _amounts(exchange: Exchange, quote: Quote) -> list[int]:
    amounts = [mark(exchange, leg.market) * leg.size_ulots // COIN for leg in quote.legs]
    amounts[0] += quote.net_uusd - at_marks(exchange, quote.legs)
    return amounts


def test_what_is_remembered_is_bounded() -> None:
    """Used quotes go when they have expired, terms after BLOCK_TRADE_KEPT_MS, two with each new one."""
    exchange, quote = good(terms_hash=keccak(b"terms"))
    for nonce in range(3):
        exchange.send(execution(exchange, replace(quote, nonce=nonce)))
    assert len(exchange.view.iterate_under(bytes([QUOTE_USED]), 9)) == 3
    exchange.now_ms += 31_000
    exchange.act(CancelQuote, 3, quote_nonce=1, quote_expiry_s=exchange.now_ms // 1_000 + 5)
    assert len(exchange.view.iterate_under(bytes([QUOTE_USED]), 9)) == 2
    exchange.act(CancelQuote, 3, quote_nonce=2, quote_expiry_s=exchange.now_ms // 1_000 + 5)
    assert len(exchange.view.iterate_under(bytes([QUOTE_USED]), 9)) == 2
    assert len(exchange.view.iterate_under(bytes([BLOCK_TRADE]), 9)) == 3
    exchange.now_ms += BLOCK_TRADE_KEPT_MS
    exchange.act(CancelQuote, 3, quote_nonce=3, quote_expiry_s=exchange.now_ms // 1_000 + 5)
    assert len(exchange.view.iterate_under(bytes([BLOCK_TRADE]), 9)) == 1


# What is refused


@pytest.mark.parametrize("count", [0, 17])
def test_leg_count(count: int) -> None:
    exchange, quote = good()
    legs = tuple(Leg(market, Side.BUY, COIN) for market in range(1, count + 1))
    refused = must_reject(exchange, RejectCode.LEG_COUNT, execution(exchange, replace(quote, legs=legs)))
    assert refused.data == {"limit": 16, "got": count}


def test_an_instrument_twice() -> None:
    exchange, quote = good()
    legs = (quote.legs[0], Leg(quote.legs[0].market, Side.BUY, COIN))
    must_reject(exchange, RejectCode.DUPLICATE_LEG, execution(exchange, replace(quote, legs=legs)))


def test_expired_used_and_cancelled_quotes() -> None:
    """iBLOCK_002."""
    exchange, quote = good()
    now_s = exchange.now_ms // 1_000
    must_reject(exchange, RejectCode.QUOTE_EXPIRED, execution(exchange, replace(quote, expiry_s=now_s)))
    far = replace(quote, expiry_s=now_s + 86_401)
    must_reject(exchange, RejectCode.DEADLINE_TOO_FAR, execution(exchange, far))
    exchange.send(execution(exchange, quote))
    must_reject(exchange, RejectCode.QUOTE_USED, execution(exchange, quote, 3))
    cancelled = replace(quote, nonce=8)
    terms = {"quote_nonce": 8, "quote_expiry_s": quote.expiry_s}
    exchange.act(CancelQuote, 2, **terms)
    exchange.act(CancelQuote, 1, **terms)
    must_reject(exchange, RejectCode.QUOTE_USED, execution(exchange, cancelled))
    must_reject_act(exchange, RejectCode.QUOTE_USED, CancelQuote, 1, **terms)
    must_reject_act(exchange, RejectCode.QUOTE_EXPIRED, CancelQuote, 1, quote_nonce=9, quote_expiry_s=now_s)
    assert exchange.view.get(quote_used_key(quote.expiry_s, 1, 8)) is not None


def test_the_takers_limit_and_the_quotes_taker() -> None:
    exchange, quote = good(taker_account=3)
    must_reject(exchange, RejectCode.QUOTE_NOT_FOR_TAKER, execution(exchange, quote, 2))
    over = execution(exchange, quote, 3, limit_uusd=quote.net_uusd - 1)
    must_reject(exchange, RejectCode.NET_PRICE_LIMIT, over)
    exchange.send(execution(exchange, quote, 3))


def test_rfq_to_oneself() -> None:
    exchange, quote = good()
    second = exchange.deposit(owner_address(1), 100_000 * USD)
    must_reject(exchange, RejectCode.QUOTE_TO_ONESELF, execution(exchange, quote, second))
    must_reject(exchange, RejectCode.QUOTE_TO_ONESELF, execution(exchange, quote, 1))


def test_only_the_maker_signs_its_quote() -> None:
    exchange, quote = good()
    sent = execution(exchange, quote)
    for signers in (sent.signers[:1], (sent.signers[0], None), (sent.signers[0], owner_address(3))):
        wrong = Transaction(sent.payload, signers, sent.hash)
        must_reject(exchange, RejectCode.QUOTE_WRONG_SIGNER, wrong)
    unknown = execution(exchange, replace(quote, account=99))
    must_reject(exchange, RejectCode.UNKNOWN_ACCOUNT, unknown)
    key, expiry_s = b"\x55" * 20, exchange.now_ms // 1_000 + 10
    by_key = Transaction(sent.payload, (sent.signers[0], key), sent.hash)
    exchange.act(AuthorizeSessionKey, 1, key=key, scope=Scope.CANCEL_ONLY, expiry_s=expiry_s)
    must_reject(exchange, RejectCode.QUOTE_WRONG_SIGNER, by_key)
    exchange.act(AuthorizeSessionKey, 1, key=key, scope=Scope.TRADE, expiry_s=expiry_s)
    exchange.send(by_key)


def test_each_legs_instrument_must_be_good() -> None:
    exchange, quote = good()
    first, *rest = quote.legs

    def tried(leg: Leg) -> Transaction:
        return execution(exchange, replace(quote, legs=(leg, *rest)))

    must_reject(exchange, RejectCode.UNKNOWN_INSTRUMENT, tried(replace(first, market=999)))
    must_reject(exchange, RejectCode.SIZE_OFF_LOT, tried(replace(first, size_ulots=150)))
    must_reject(exchange, RejectCode.SIZE_ZERO, tried(replace(first, size_ulots=0)))
    must_reject(exchange, RejectCode.SIZE_TOO_LARGE, tried(replace(first, size_ulots=2_000 * COIN)))
    halted: Instrument = exchange.view.get(instrument_key(2))
    halted.status = 3
    message = (2).to_bytes(4, "big") + halted.encode()
    exchange.messages(L1Message(MessageKind.SET_INSTRUMENT, VAULT, 0, message))
    must_reject(exchange, RejectCode.INSTRUMENT_NOT_TRADING, tried(replace(first, market=2)))
    exchange.now_ms += 600_000
    later = replace(quote, expiry_s=exchange.now_ms // 1_000 + 9)
    must_reject(exchange, RejectCode.ORACLE_STALE, execution(exchange, later))
    terms: Instrument = exchange.view.get(instrument_key(first.market))
    exchange.now_ms = terms.expiry_s * 1_000
    later = replace(quote, expiry_s=exchange.now_ms // 1_000 + 9)
    must_reject(exchange, RejectCode.EXPIRED_INSTRUMENT, execution(exchange, later))


def test_margin_of_both_after_the_whole() -> None:
    """iBLOCK_004. Legs that need more than there is alone are good together; the reverse is refused."""
    exchange, markets = chain_exchange()
    poor = exchange.deposit(owner_address(9), 150 * USD)
    call, perpetual = markets["800C"], markets["P"]
    hedged = (Leg(call, Side.SELL, COIN), Leg(perpetual, Side.BUY, COIN))
    for legs, account, taker in (
        (hedged[:1], poor, 2),
        (hedged[1:], 2, poor),
        (tuple(replace(leg, size_ulots=10 * COIN) for leg in hedged), poor, 2),
    ):
        quote = quote_of(exchange, legs, at_marks(exchange, legs), account)
        if legs == hedged[1:]:
            legs = (replace(legs[0], side=Side.SELL, size_ulots=5 * COIN),)
            quote = quote_of(exchange, legs, at_marks(exchange, legs), account)
        refused = must_reject(exchange, RejectCode.INSUFFICIENT_MARGIN, execution(exchange, quote, taker))
        assert refused.data["account"] == poor
    quote = quote_of(exchange, hedged, at_marks(exchange, hedged), poor)
    exchange.send(execution(exchange, quote))
    assert_conserved(exchange)


def test_fees_and_positions_are_bounded() -> None:
    exchange, quote = good()
    must_reject(exchange, RejectCode.FEE_ABOVE_MAX, execution(exchange, replace(quote, max_fee_uusd=1)))
    parameters = exchange.parameters
    parameters.max_positions = 2
    exchange.messages(L1Message(MessageKind.SET_PARAMETERS, VAULT, 0, parameters.encode()))
    must_reject(exchange, RejectCode.TOO_MANY_POSITIONS, execution(exchange, quote))


def test_a_frozen_account_makes_no_block_trade() -> None:
    exchange, quote = good()
    for account in (1, 2):
        exchange.act(
            SetProtection,
            account,
            underlying="C1",
            interval_ms=1_000,
            frozen_ms=0,
            quantity_ulots=1,
            delta_ulots=0,
            vega_uusd=0,
        )
        leaf: Protection = exchange.view.get(protection_key(account, b"C1"))
        leaf.frozen_until_ms = exchange.now_ms + 1
        exchange.view.touch(protection_key(account, b"C1"), leaf)
        must_reject(exchange, RejectCode.MMP_FROZEN, execution(exchange, quote))
        leaf.frozen_until_ms = 0
    exchange.send(execution(exchange, quote))
