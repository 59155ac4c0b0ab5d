"""Turns a tape of trades into order flow: makers quote around it, takers hit the quotes, every trade happens.

For each market the tape is cut into *rounds*: the longest runs of trades in which every buyer paid more than
every seller got, so that one set of post-only quotes can stand against all of them. A round is one request:

1. the round's maker cancels what is left of its last round (`CancelAll`, first in the block by class),
2. quotes the round's trades as post-only orders plus a ladder behind them (`BulkOrders`),
3. takers send the trades as immediate-or-cancel orders.

Arrival order and the ordering classes keep that sequence even where a block boundary cuts through it. Nothing
here does I/O or reads a clock; the same tape and seed give the same actions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from state.actions import (
    Action,
    BulkOrders,
    CancelAll,
    Order,
    OrderKind,
    PlaceOrder,
    Side,
)
from state.calendar import STRIKE_UNIT_UUSD
from state.hashing import keccak
from state.units import ULOTS_PER_LOT
from tools.tape import TapeTrade

LADDER_LEVELS = 8
LADDER_STEP_TICKS = 5
MAX_ROUND_TRADES = 24
MAX_ROUND_MS = 250
DEADLINE_S = 30
MAX_FEE_UUSD = 1_000_000


@dataclass(frozen=True, slots=True)
class MarketSpec:
    """A perpetual to list for an underlying of the tape; the size of a tick follows the price."""

    underlying: str
    tick_uusd: int
    lot_ulots: int

    @property
    def instrument(self) -> str:
        return f"{self.underlying}-PERPETUAL"


def spec_for(underlying: str, price_uusd: int) -> MarketSpec:
    """A tick of 10^-6 to 10^-5 of the price, and the smallest decimal lot that keeps fills exact."""
    tick = 1
    while tick * 10 * 100_000 <= price_uusd:
        tick *= 10
    return MarketSpec(underlying, tick, max(ULOTS_PER_LOT // tick, 1_000))


def strike_step_uusd(price_uusd: int) -> int:
    """The least of 1, 2 or 5 times a power of ten that is 1 % of the price or more; at least a cent."""
    unit = STRIKE_UNIT_UUSD
    while True:
        for factor in (1, 2, 5):
            if unit * factor * 100 >= price_uusd:
                return unit * factor
        unit *= 10


@dataclass(slots=True)
class Trader:
    """A devnet trader; its key is derived from its name, so it may hold test money only."""

    name: str
    secret: bytes = field(repr=False, default=b"")
    account: int = 0
    nonce: int = 0
    bid_uusd: int = 0
    """For the place in a block, with every action."""

    def __post_init__(self) -> None:
        self.secret = keccak(b"straddle devnet trader " + self.name.encode())

    def next_nonce(self) -> int:
        self.nonce += 1
        return self.nonce


@dataclass(frozen=True, slots=True)
class Round:
    """Consecutive trades of one market that one set of quotes can serve."""

    underlying: str
    trades: tuple[TapeTrade, ...]

    @property
    def time_ms(self) -> int:
        return self.trades[0].time_ms

    @property
    def last_price_uusd(self) -> int:
        return self.trades[-1].price_uusd


def rounds(trades: Iterable[TapeTrade]) -> Iterator[Round]:
    """Rounds of all markets, by the time of their last trade."""
    open_rounds: dict[str, list[TapeTrade]] = defaultdict(list)
    for trade in trades:
        current = open_rounds[trade.underlying]
        if current and not _fits(current, trade):
            yield Round(trade.underlying, tuple(current))
            current.clear()
        current.append(trade)
    for underlying, current in open_rounds.items():
        if current:
            yield Round(underlying, tuple(current))


def _fits(current: list[TapeTrade], trade: TapeTrade) -> bool:
    if len(current) >= MAX_ROUND_TRADES or trade.time_ms - current[0].time_ms > MAX_ROUND_MS:
        return False
    joined = [*current, trade]
    sold = max((t.price_uusd for t in joined if not t.taker_buys), default=0)
    bought = min((t.price_uusd for t in joined if t.taker_buys), default=2**63)
    return sold < bought


def quote_orders(market: int, spec: MarketSpec, trades: Round) -> tuple[Order, ...]:
    """Post-only quotes that fill every trade of the round, and a ladder behind them on both sides."""
    wanted: dict[tuple[Side, int], int] = defaultdict(int)
    for trade in trades.trades:
        side = Side.SELL if trade.taker_buys else Side.BUY
        wanted[side, grid_price(spec, trade)] += to_lots(spec, trade.size_ulots)
    asks = [price for side, price in wanted if side is Side.SELL]
    bids = [price for side, price in wanted if side is Side.BUY]
    ask_base = max(asks + [price + spec.tick_uusd for price in bids])
    bid_base = min(bids + [price - spec.tick_uusd for price in asks])
    size = to_lots(spec, ULOTS_PER_LOT * 2_000 * 1_000_000 // trades.last_price_uusd)
    for level in range(1, LADDER_LEVELS + 1):
        step = level * LADDER_STEP_TICKS * spec.tick_uusd
        wanted[Side.SELL, ask_base + step] += size * level
        wanted[Side.BUY, bid_base - step] += size * level
    return tuple(
        Order(market, side, OrderKind.POST_ONLY, price, lots)
        for (side, price), lots in sorted(wanted.items())
        if price > 0
    )


def round_actions(
    market: int, spec: MarketSpec, trades: Round, maker: Trader, takers: list[Trader], now_s: int
) -> list[tuple[Trader, Action]]:
    """The actions of one round in sending order, each with who signs it."""

    def envelope(trader: Trader) -> dict[str, Any]:
        return {
            "account": trader.account,
            "nonce": trader.next_nonce(),
            "deadline_s": now_s + DEADLINE_S,
            "max_fee_uusd": MAX_FEE_UUSD,
            "priority_bid_uusd": trader.bid_uusd,
        }

    actions: list[tuple[Trader, Action]] = [
        (maker, CancelAll(**envelope(maker), market=market)),
        (maker, BulkOrders(**envelope(maker), orders=quote_orders(market, spec, trades))),
    ]
    for trade in trades.trades:
        taker = takers[(trade.time_ms + trade.size_ulots) % len(takers)]
        order = Order(
            market,
            Side.BUY if trade.taker_buys else Side.SELL,
            OrderKind.IMMEDIATE_OR_CANCEL,
            grid_price(spec, trade),
            to_lots(spec, trade.size_ulots),
        )
        actions.append((taker, PlaceOrder(**envelope(taker), order=order)))
    return actions


def grid_price(spec: MarketSpec, trade: TapeTrade) -> int:
    """The trade's price on the grid: buyers' up, sellers' down, so that what did not cross still does not."""
    ticks = -(-trade.price_uusd // spec.tick_uusd) if trade.taker_buys else trade.price_uusd // spec.tick_uusd
    return max(ticks, 1) * spec.tick_uusd


def to_lots(spec: MarketSpec, size_ulots: int) -> int:
    """The size in whole lots, rounded down, at least one lot."""
    return max(size_ulots // spec.lot_ulots, 1) * spec.lot_ulots
