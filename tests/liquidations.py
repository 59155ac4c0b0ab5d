"""Random crashes and what liquidation does about them, on an exchange with perpetuals, a future and options.

`Crash` trades until accounts are leveraged, lets prices fall or rise, and sends every kind of liquidation
action, good ones and bad ones. After each of these it checks who lost what.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from state.actions import Bid, Deleverage, EndAuction, OrderKind, Side, StartAuction, Withdraw
from state.auction import Health
from state.block import L1Message, LiquidationChange, MessageKind, TransactionResult
from state.calendar import Rule
from state.errors import RejectCode, Rejected
from state.keys import INSTRUMENT, SYSTEM_KEY, account_key, auction_key, instrument_key, positions_prefix
from state.leaves import Account, Auction, Instrument, Parameters, Position
from state.seizure import health, holdings, mark_uusd
from tools.exchange import COIN, PUBLISHERS, USD, VAULT, Exchange, instrument, owner_address
from tools.option_exchange import full_update, make_due, series_message

RICH, POOR = 2, 6
"""Accounts with much and with little money."""
ROUNDING_UUSD = 600
"""Bound of what the roundings of one transaction can cost an account of so few positions."""


def health_of_account(exchange: Exchange, number: int) -> Health:
    account: Account = exchange.view.get(account_key(number))
    return health(exchange.view, number, account.cash_uusd)


def auction(exchange: Exchange, number: int) -> Auction | None:
    found: Auction | None = exchange.view.get(auction_key(number))
    return found


class Crash:
    """`exchange` with traders, and a seed for what they do."""

    def __init__(self, exchange: Exchange, seed: int, insurance_uusd: int = 0) -> None:
        """`insurance_uusd`: in the fund from the start, as if paid in."""
        self.random = random.Random(seed)
        self.exchange = exchange
        self.done: Counter[str] = Counter()
        self.index = {"C1": 1_000 * USD, "C2": 2_000 * USD}
        exchange.set_publishers(2, PUBLISHERS)
        parameters = exchange.parameters
        wild = Parameters.decode(parameters.encode())
        wild.oracle_deviation_ppm = 1_000_000
        exchange.messages(L1Message(MessageKind.SET_PARAMETERS, VAULT, 0, wild.encode()))
        for coin in self.index:
            exchange.list(instrument(f"{coin}-PERPETUAL", coin, band_ppm=900_000))
        exchange.messages(series_message("C1", Rule.WEEKLY, 1, strikes=2))
        exchange.now_ms += 1_000
        make_due(exchange)
        exchange.send(full_update(exchange, self.index))
        for number in range(1, RICH + POOR + 1):
            money = 1_000_000 if number <= RICH else self.random.choice((300, 700, 1_500))
            exchange.deposit(owner_address(number), money * USD)
        system = exchange.system
        system.insurance_uusd += insurance_uusd
        system.collateral_uusd += insurance_uusd
        exchange.view.touch(SYSTEM_KEY, system)
        found = exchange.view.iterate_under(bytes((INSTRUMENT,)), 1_000)
        self.markets = [int.from_bytes(key[1:5], "big") for key, _ in found]
        self.accounts = range(1, RICH + POOR + 1)

    def attempt(self, kind: type[Any], account: int, **fields: Any) -> TransactionResult | Rejected:
        """Sends an action, counts what becomes of it, and checks who has lost by it."""
        before = {number: health_of_account(self.exchange, number) for number in self.accounts}
        profits = {number: self.profits(number) for number in self.accounts}
        try:
            result = self.exchange.act(kind, account, **fields)
        except Rejected as refusal:
            self.done[refusal.code.name] += 1
            return refusal
        self.done[kind.__name__] += 1
        for event in result.liquidations:
            self.done[LiquidationChange(event.change).name] += 1
        self.check_losses(result, account, before, profits)
        return result

    def check_losses(
        self,
        result: TransactionResult,
        sender: int,
        before: dict[int, Health],
        profits: dict[int, dict[int, int]],
    ) -> None:
        """iLIQ_007: only the liquidated account pays, by the auction's rule; counterparties by theirs."""
        liquidated = {event.account for event in result.liquidations}
        closed = {
            event.other: event
            for event in result.liquidations
            if event.change == LiquidationChange.DELEVERAGED
        }
        for number in self.accounts:
            after = health_of_account(self.exchange, number)
            lost = before[number].equity_uusd - after.equity_uusd
            if number == sender:
                lost -= result.fee_uusd
            if number in closed:
                self.check_counterparty(number, before[number], after)
                assert profits[number][closed[number].market] > 0
            elif number not in liquidated:
                assert lost <= ROUNDING_UUSD, (number, lost, result)
            elif before[number].equity_uusd > 0:
                paid = sum(
                    -event.amount_uusd
                    for event in result.liquidations
                    if event.change in (LiquidationChange.BID, LiquidationChange.FEE)
                )
                assert lost <= paid + ROUNDING_UUSD

    def check_counterparty(self, number: int, before: Health, after: Health) -> None:
        """iLIQ_006."""
        needed = before.equity_uusd - before.maintenance_uusd
        needs = after.equity_uusd - after.maintenance_uusd
        assert after.equity_uusd * needed >= (before.equity_uusd - ROUNDING_UUSD) * needs

    def profits(self, number: int) -> dict[int, int]:
        """By market: what the account has gained in its position at the mark."""
        marks = {held.market: held.mark_uusd for held in holdings(self.exchange.view, number)}
        found = {}
        for key, leaf in self.exchange.view.iterate_under(positions_prefix(number), 128):
            position: Position = leaf
            market = int.from_bytes(key[9:13], "big")
            mark = marks.get(market, 0)
            index = self.exchange.market(market).funding_index_nusd
            funding = position.size_ulots * (index - position.funding_index_nusd) // 10**9
            found[market] = position.quote_uusd + position.size_ulots * mark // COIN - funding
        return found

    def trade(self) -> None:
        """Somebody poor and somebody rich trade at the mark, if both can carry it."""
        market = self.random.choice(self.markets)
        terms: Instrument = self.exchange.view.get(instrument_key(market))
        if terms.expiry and terms.expiry_s * 1_000 <= self.exchange.now_ms:
            return
        maker = self.random.randint(1, RICH)
        taker = self.random.randint(RICH + 1, RICH + POOR)
        side = Side(self.random.getrandbits(1))
        price = max(mark_uusd(self.exchange.view, market) // 10_000 * 10_000, 10_000)
        size = self.random.randint(1, 60) * 50_000
        for account, each, kind in (
            (maker, Side(1 - side), OrderKind.LIMIT),
            (taker, side, OrderKind.LIMIT if self.random.random() < 0.2 else OrderKind.IMMEDIATE_OR_CANCEL),
        ):
            try:
                self.exchange.place(account, market, each, price, size, kind)
            except Rejected as refusal:
                self.done["trade " + refusal.code.name] += 1

    def move(self, low_ppm: int, high_ppm: int) -> None:
        """Prices change to somewhere between these parts of what they are."""
        self.exchange.now_ms += self.random.choice((50, 1_000, 300_000, 4_000_000))
        make_due(self.exchange)
        for coin in self.index:
            moved = self.index[coin] * self.random.randint(low_ppm, high_ppm) // 1_000_000
            self.index[coin] = max(20 * USD, min(moved, 20_000 * USD)) // 10_000 * 10_000
        self.exchange.send(full_update(self.exchange, self.index))

    def liquidate(self) -> None:
        """Every account that must be, and some that must not, and bids good and bad."""
        some = self.random
        for number in self.accounts:
            sender = some.choice(self.accounts)
            standing = health_of_account(self.exchange, number)
            if standing.maintenance_uusd < 0 or some.random() < 0.1:
                self.attempt(StartAuction, sender, liquidated=number)
            if auction(self.exchange, number) is None and some.random() < 0.9:
                continue
            for _ in range(some.randint(1, 3)):
                self.bid(some.choice((1, 2, sender)), number)
            if some.random() < 0.5:
                held = holdings(self.exchange.view, number)
                market = some.choice(held).market if held else some.choice(self.markets)
                others = tuple(some.choice(self.accounts) for _ in range(some.randint(1, 4)))
                self.attempt(Deleverage, sender, liquidated=number, market=market, counterparties=others)
            if some.random() < 0.3:
                self.attempt(EndAuction, sender, liquidated=number)
            if auction(self.exchange, number) is not None and some.random() < 0.2:
                self.attempt(Withdraw, number, recipient=bytes(20), amount_uusd=USD)

    def bid(self, bidder: int, number: int) -> None:
        """For some share; then, if that was too much, for what is allowed."""
        share = self.random.choice((1, 1_000, 100_000, 300_000, 1_000_000))
        answer = self.attempt(Bid, bidder, liquidated=number, share_ppm=share, min_reward_uusd=0)
        if isinstance(answer, Rejected) and answer.code is RejectCode.BID_SHARE:
            allowed = int(answer.data["allowed_ppm"])
            self.attempt(Bid, bidder, liquidated=number, share_ppm=allowed, min_reward_uusd=0)

    def run(self, rounds: int) -> None:
        for place in range(rounds):
            for _ in range(6):
                self.trade()
            self.move(450_000, 560_000) if place % 4 == 2 else self.move(930_000, 1_080_000)
            if place % 4 == 3:
                self.move(1_400_000, 2_000_000)
            self.liquidate()
