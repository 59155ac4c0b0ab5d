"""A block trade: a call spread against the future, quoted in one price by the desk, taken by a trader."""

from __future__ import annotations

from typing import Any

import trio

from sequencer.client import NodeClient, NodeError
from state.actions import ExecuteQuote, Leg, Quote, Side
from state.hashing import keccak
from state.units import ULOTS_PER_LOT
from tools.market import Trader
from tools.option_market import UUSD, Contract, Ticker, tickers, trading
from tools.order_sender import OrderSender
from tools.services import ServiceFailed

LOOK_S = 0.5
WORTH_USD = 60_000.0
"""Of the underlying, each leg."""
EDGE = 0.000_1
"""What the maker earns, of that."""
VALID_S = 60
TERMS = keccak(b"The two of us settle any dispute about this trade over dinner.")
"""Of what the two agreed besides; can be proved from the state."""


async def block_trade(url: str, sender: OrderSender, maker: Trader, taker: Trader, underlying: str) -> int:
    """Waits until there is something to trade, trades it; how many block trades that were: one.

    Raises ServiceFailed when it is refused.
    """
    async with NodeClient(url) as client:
        while True:
            legs = spread(await trading(client, underlying))
            found = await tickers(client, [contract.name for contract, _ in legs])
            if legs and all(each["mark_price"] is not None for each in found):
                break
            await trio.sleep(LOOK_S)
        sender.learn({contract.market: contract.name for contract, _ in legs})
        quote = quote_of(sender, maker, taker, legs, found)
        signature = sender.signed_quote(maker, quote)
        action = ExecuteQuote(
            **sender.envelope(taker), quote=quote, quote_signature=signature, limit_uusd=quote.net_uusd
        )
        (receipt,) = await sender.send(client, [(taker, action)])
    if isinstance(receipt, NodeError):
        raise ServiceFailed(f"the block trade was refused: {receipt} {receipt.data}")
    return 1


def spread(contracts: list[Contract]) -> list[tuple[Contract, Side]]:
    """The maker's legs in the nearest expiry: sells a call, buys one further out, buys half the future."""
    if not contracts:
        return []
    nearest = [each for each in contracts if each.expiry_ms == contracts[0].expiry_ms]
    futures = [each for each in nearest if not each.is_option]
    calls = sorted((each for each in nearest if each.name.endswith("-C")), key=lambda each: each.strike)
    if not futures or len(calls) < 2:
        return []
    middle = min(len(calls) // 2, len(calls) - 2)
    return [(calls[middle], Side.SELL), (calls[middle + 1], Side.BUY), (futures[0], Side.BUY)]


def quote_of(
    sender: OrderSender,
    maker: Trader,
    taker: Trader,
    legs: list[tuple[Contract, Side]],
    found: list[dict[str, Any]],
) -> Quote:
    """At the marks, less what the maker wants to earn; only this taker may execute it."""
    net_usd = worth_usd = 0.0
    signed: list[Leg] = []
    for (contract, side), ticker in zip(legs, found, strict=True):
        size = leg_ulots(contract, ticker)
        coins = size / ULOTS_PER_LOT
        net_usd += coins * ticker["mark_price"] * (1 if side else -1)
        worth_usd += coins * ticker["index_price"]
        signed.append(Leg(contract.market, side, size))
    return Quote(
        account=maker.account,
        legs=tuple(signed),
        net_uusd=round((net_usd + worth_usd * EDGE) * UUSD),
        taker_account=taker.account,
        terms_hash=TERMS,
        nonce=1,
        expiry_s=sender.clock() // 1_000 + VALID_S,
        max_fee_uusd=round(worth_usd * UUSD) // 1_000,
    )


def leg_ulots(contract: Contract, ticker: Ticker) -> int:
    """Half as much of the future as of the calls, about what their deltas come to."""
    dollars = WORTH_USD if contract.is_option else WORTH_USD / 2
    return contract.lots(dollars, ticker["index_price"])
