"""Crashes while instruments expire: auctions of what is being settled, settlement of what is up for auction.

`Expiring` lives through expiry after expiry of two underlyings. Prices fall by half before the settlement
window, inside it, or between expiry and settlement; the oracle is silent now and then, so that settlement
waits while liquidation goes on; so many orders rest that settlement takes several blocks. Settlement alone
changes nobody's equity by more than roundings, and `wind_down` looks for auctions that nothing ends.
"""

from __future__ import annotations

from sequencer.deleveraging import Pick, pick
from state.actions import Bid, BulkOrders, Deleverage, EndAuction, Order, OrderKind, Side, StartAuction
from state.auction import Health
from state.calendar import DAY_S, Rule
from state.errors import Rejected
from state.keys import AUCTION, INSTRUMENT, SYSTEM_KEY
from state.leaves import Expiry, Instrument, Status
from state.liquidation import offer_now
from state.seizure import holdings, mark_uusd
from state.units import MAX_BULK_OPERATIONS, MS_PER_S, SETTLEMENT_WINDOW_MS
from tests.liquidations import POOR, RICH, ROUNDING_UUSD, Crash, auction, health_of_account
from tools.exchange import USD, Exchange, owner_address
from tools.option_exchange import expiries, full_update, is_due, send_message, series_message

BEAT_MS = 60_000
HOUR_MS = 3_600_000
QUOTER = 9
"""Rests many small orders in what expires next."""
SAVIOUR = 10
"""Has all the money that bids may need, and no positions before it bids."""


class Expiring(Crash):
    """See the module's text."""

    def __init__(self, exchange: Exchange, seed: int, insurance_uusd: int = 0) -> None:
        super().__init__(exchange, seed, insurance_uusd)
        for coin in self.index:
            send_message(exchange, series_message(coin, Rule.DAILY, 1, step_uusd=self.index[coin] // 10))
        for number in (QUOTER, SAVIOUR):
            assert exchange.deposit(owner_address(number), 10_000_000 * USD) == number
        self.accounts = range(1, SAVIOUR + 1)

    # Time and prices

    def report(self, after_ms: int, low_ppm: int = 1_000_000, high_ppm: int = 1_000_000) -> None:
        """Everything is reported, prices somewhere between these parts of what they were."""
        self.exchange.now_ms += after_ms
        self.settle()
        for coin in self.index:
            moved = self.index[coin] * self.random.randint(low_ppm, high_ppm) // 1_000_000
            self.index[coin] = max(20 * USD, min(moved, 20_000 * USD)) // 10_000 * 10_000
        self.exchange.send(full_update(self.exchange, self.index))

    def settle(self, blocks: int = 1_000) -> None:
        """Blocks in which nothing happens but what is due: nobody gains, nobody loses."""
        while blocks and is_due(self.exchange):
            before = self.standings()
            self.exchange.messages()
            blocks -= 1
            for number, after in self.standings().items():
                assert abs(after.equity_uusd - before[number].equity_uusd) <= ROUNDING_UUSD, number
            self.done["settled in part"] += is_due(self.exchange) and self.is_settling()

    def standings(self) -> dict[int, Health]:
        return {number: health_of_account(self.exchange, number) for number in self.accounts}

    def next_expiry(self) -> Expiry:
        """The first of C1 that is not over; C2's is at the same time."""
        found = expiries(self.exchange, "C1").values()
        return next(each for each in found if each.expiry_s * MS_PER_S > self.exchange.now_ms)

    def is_settling(self) -> bool:
        return any(
            expiry.status == Status.SETTLING
            for coin in self.index
            for expiry in expiries(self.exchange, coin).values()
        )

    # What is traded

    def find_markets(self) -> None:
        """Markets that trade."""
        found = self.exchange.view.iterate_under(bytes((INSTRUMENT,)), 4_096)
        terms: dict[int, Instrument] = {int.from_bytes(key[1:5], "big"): leaf for key, leaf in found}
        now_s = self.exchange.now_ms // MS_PER_S
        self.markets = [number for number, each in terms.items() if not each.expiry or each.expiry_s > now_s]
        self.dated = [number for number in self.markets if terms[number].expiry]

    def rest(self) -> None:
        """Many orders in what expires."""
        for _ in range(3):
            orders = []
            for place in range(MAX_BULK_OPERATIONS):
                market = self.dated[place % len(self.dated)]
                mark = mark_uusd(self.exchange.view, market) // 10_000 * 10_000
                side = Side(mark > 2 * USD and self.random.getrandbits(1) == 0)
                price = mark + USD if side == Side.SELL else max(10_000, mark - USD)
                orders.append(Order(market, side, OrderKind.POST_ONLY, price, 100))
            self.exchange.act(BulkOrders, QUOTER, orders=tuple(orders), max_fee_uusd=100 * USD)

    # Days

    def day(self) -> None:
        """From two hours before an expiry until it is settled, and a little on."""
        exchange, some = self.exchange, self.random
        expiry_ms = self.next_expiry().expiry_s * MS_PER_S
        exchange.now_ms = max(exchange.now_ms, expiry_ms - 2 * HOUR_MS)
        self.report(1)
        self.find_markets()
        self.rest()
        for number in range(RICH + 1, RICH + POOR + 1):
            wanted = some.choice((300, 700, 1_500)) * USD - exchange.account(number).cash_uusd
            if wanted > 0 and some.random() < 0.8:
                exchange.deposit(owner_address(number), wanted, number)
        for _ in range(90):
            self.trade()
        crash_ms = some.choice((-HOUR_MS, -SETTLEMENT_WINDOW_MS // 2, -BEAT_MS, 5 * BEAT_MS))
        fall = some.choice(((450_000, 560_000), (800_000, 880_000)))
        if crash_ms <= -HOUR_MS:
            self.report(1, *fall)
            self.some_liquidation()
        exchange.now_ms = expiry_ms - SETTLEMENT_WINDOW_MS - BEAT_MS
        silent_ms = some.choice((0, 0, 8 * BEAT_MS))
        while self.exchange.now_ms < expiry_ms + silent_ms:
            beats = silent_ms // BEAT_MS if silent_ms and some.random() < 0.1 else some.choice((1, 1, 2))
            low, high = fall if some.random() < 0.04 else (980_000, 1_020_000)
            if crash_ms > -HOUR_MS and exchange.now_ms >= expiry_ms + crash_ms:
                (low, high), crash_ms = fall, -HOUR_MS
            self.report(beats * BEAT_MS, low, high)
            if low < 900_000 or some.random() < 0.1:
                self.some_liquidation()
        self.end_of_expiry(expiry_ms)

    def end_of_expiry(self, expiry_ms: int) -> None:
        """What is left of it, with liquidation between any two blocks."""
        for _ in range(200):
            if not self.is_settling() and not any(
                expiry.expiry_s * MS_PER_S <= expiry_ms and expiry.status < Status.SETTLED
                for coin in self.index
                for expiry in expiries(self.exchange, coin).values()
            ):
                break
            self.exchange.now_ms += self.random.choice((50, 1_000, BEAT_MS))
            if is_due(self.exchange):
                if self.random.random() < 0.5:
                    self.settle(1)
                self.some_liquidation()
            else:
                self.exchange.send(full_update(self.exchange, self.index))
        else:
            raise AssertionError("an expiry does not settle")
        self.report(BEAT_MS)
        self.liquidate()
        self.report(self.random.choice((HOUR_MS, DAY_S * MS_PER_S // 3)), 900_000, 2_000_000)
        self.liquidate()

    def some_liquidation(self) -> None:
        if self.random.random() < 0.7:
            self.liquidate()

    # Until nothing can be done

    def open_auctions(self) -> list[int]:
        found = self.exchange.view.iterate_under(bytes((AUCTION,)), 100)
        return [int.from_bytes(key[1:9], "big") for key, _ in found]

    def wind_down(self) -> None:
        """Keepers and a bidder with money do all that can be done, at prices that stay."""
        for _ in range(2):
            self.report(2 * HOUR_MS)
            for _ in range(40):
                if not [number for number in self.accounts if self.act_on(number)]:
                    break
            else:
                raise AssertionError("liquidation never comes to an end")

    def act_on(self, number: int) -> bool:
        """The next thing to do about an account; whether there was one. None of them may be refused."""
        exchange = self.exchange
        standing, held = health_of_account(exchange, number), holdings(exchange.view, number)
        found = auction(exchange, number)
        if found is None:
            if standing.maintenance_uusd >= 0 or self.is_dead(number):
                return False
            return self.must(StartAuction, liquidated=number)
        if standing.buffer_uusd >= 0 or (not held and exchange.system.insurance_uusd > 0):
            return self.must(EndAuction, liquidated=number)
        offer, _ = offer_now(exchange.view, exchange.now_ms, found, standing)
        if held and offer.allowed_ppm > 0:
            return self.must(Bid, liquidated=number, share_ppm=offer.allowed_ppm, min_reward_uusd=0)
        chosen = self.pick_for(number)
        if chosen is None or standing.equity_uusd > 0:
            return False
        return self.must(
            Deleverage, liquidated=number, market=chosen.market, counterparties=chosen.counterparties
        )

    def is_dead(self, number: int) -> bool:
        """An account that has debts alone, which nothing can pay now."""
        return not holdings(self.exchange.view, number) and self.exchange.system.insurance_uusd == 0

    def pick_for(self, number: int) -> Pick | None:
        return pick(self.exchange.view, number, lambda _: self.accounts)

    def must(self, kind: type[object], **fields: object) -> bool:
        answer = self.attempt(kind, SAVIOUR, **fields)
        assert not isinstance(answer, Rejected), (kind, fields, answer)
        return True

    def pay_in(self, amount_uusd: int) -> None:
        """Into the insurance fund, from outside."""
        system = self.exchange.system
        system.insurance_uusd += amount_uusd
        system.collateral_uusd += amount_uusd
        self.exchange.view.touch(SYSTEM_KEY, system)
