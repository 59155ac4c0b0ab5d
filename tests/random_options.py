"""Seeded random traffic with dated instruments: listing, trading, oracle outages, expiry after expiry."""

from __future__ import annotations

from state.actions import OracleReport, OracleUpdate, Order, Price, Rate, SurfaceReport, Transaction
from state.block import L1Message
from state.calendar import DAY_S, EXPIRY_HOUR_S, Rule, expiry_name
from state.hashing import keccak
from state.keys import INSTRUMENT, expiries_prefix, market_key
from state.leaves import ExpiryOf, Instrument
from state.pricing import mark_of
from state.series import CALLS, FUTURES, PUTS
from state.units import MAX_EXPIRIES, MS_PER_S, PPM, SETTLEMENT_WINDOW_MS
from state.view import StateView
from tests.random_exchange import MARKETS, Traffic
from tools.exchange import PUBLISHERS, USD
from tools.option_exchange import series_message, strikes_message

MAX_INSTRUMENTS = 4_096
BEAT_MS = 60_000
YEAR_S = 365 * DAY_S


class OptionTraffic(Traffic):
    """Two underlyings with daily expiries, from shortly before the first one on.

    `view` is only looked at, to name what is listed and price it sensibly. Most time passes in steps within
    the heartbeat; now and then there is an outage, and after `day` blocks without an expiry a day passes.
    """

    def __init__(self, seed: int, view: StateView, absurdity: float = 0.0) -> None:
        super().__init__(seed, absurdity)
        self.view: StateView = view
        today = self.now_ms // MS_PER_S // DAY_S * DAY_S + EXPIRY_HOUR_S
        self.now_ms = today * MS_PER_S - SETTLEMENT_WINDOW_MS - 2 * BEAT_MS
        self.expiry_ms = today * MS_PER_S
        self.reported_ms = 0
        self.after = 0

    def setup(self) -> list[L1Message]:
        return [
            *super().setup(),
            series_message("C1", Rule.DAILY, 2, FUTURES | CALLS | PUTS, 100 * USD, 1),
            series_message("C2", Rule.DAILY, 1, FUTURES, 0, 0, option=None),
        ]

    def messages(self) -> list[L1Message]:
        found = super().messages()
        if self.random.random() < 0.05:
            lowest = self.random.randint(8, 12) * 100 * USD
            expiry_s = self.expiry_ms // MS_PER_S + self.random.randint(0, 1) * DAY_S
            found.append(strikes_message("C1", expiry_s, lowest, 100 * USD, 2, self.random.choice((2, 4, 6))))
        return found

    def instruments(self) -> dict[int, Instrument]:
        found = self.view.iterate_under(bytes([INSTRUMENT]), MAX_INSTRUMENTS)
        return {int.from_bytes(key[1:5], "big"): leaf for key, leaf in found}

    def order(self) -> Order:
        """As always, or in a dated instrument near its mark, if it has one."""
        order = super().order()
        dated = {market: terms for market, terms in self.instruments().items() if terms.expiry}
        if not dated or self.random.random() < 0.3:
            return order
        live = [market for market, terms in dated.items() if terms.expiry_s * MS_PER_S > self.now_ms]
        market = self.random.choice(live[:4] if live and self.random.random() < 0.9 else list(dated))
        mark = mark_of(self.view, self.view.get(market_key(market)), dated[market]) or USD
        ticks = max(1, mark // 10_000 + self.random.randint(-300, 300))
        return Order(
            self.number(market),
            order.side,
            order.kind,
            self.number(ticks * 10_000),
            order.size_ulots,
            order.reduce_only,
            order.expiry_s,
            order.self_trade,
        )

    def update(self) -> Transaction:
        """All publishers report all feeds; small moves, so that the band holds most orders."""
        prices, rates, surfaces = [], [], []
        for place in range(MARKETS):
            mark = self.mark[place] * self.random.randint(985, 1_015) // 1_000
            self.mark[place] = mark = max(10 * USD, min(mark, 10**6 * USD))
            name = f"C{place + 1}"
            prices += [Price(name, self.number(mark), PPM), Price(f"{name}-PERPETUAL", mark, PPM)]
            found = self.view.iterate_under(expiries_prefix(name.encode()), MAX_EXPIRIES)
            listed: list[tuple[bytes, ExpiryOf]] = found
            for key, _ in listed:
                expiry_s = int.from_bytes(key[24:32], "big")
                tau_s = max(60, expiry_s - self.now_ms // MS_PER_S)
                feed = expiry_name(name, expiry_s)
                forward = mark * self.random.randint(999, 1_001) // 1_000
                variance = 360_000_000_000 * tau_s // YEAR_S
                prices.append(Price(feed, forward, PPM))
                rates.append(Rate(feed, 0, PPM))
                surfaces.append(SurfaceReport(feed, variance, 0, 0, 0, 10**11, forward, tau_s, PPM))
        report = OracleReport(self.now_ms, tuple(prices), bytes(64), tuple(rates), tuple(surfaces))
        self.reported_ms = self.now_ms
        self.count += 1
        digest = keccak(b"update" + self.count.to_bytes(8, "big"))
        return Transaction(OracleUpdate((report,) * 3), PUBLISHERS, digest)

    def block(self, size: int = 12) -> list[Transaction]:
        """Half a minute further, seldom ten; once an expiry is well past, most of a day."""
        self.now_ms += self.random.choice((1, 20_000, 30_000, 50_000))
        if self.random.random() < 0.02:
            self.now_ms += 10 * BEAT_MS
        self.after += self.now_ms > self.expiry_ms
        if self.after > 25:
            self.after = 0
            self.expiry_ms += DAY_S * MS_PER_S
            self.now_ms = max(self.now_ms, self.expiry_ms - SETTLEMENT_WINDOW_MS - 2 * BEAT_MS)
        transactions = super().block(size)
        transactions = [each for each in transactions if not isinstance(each.payload, OracleUpdate)]
        if self.random.random() < 0.9:
            transactions.insert(0, self.update())
        return transactions
