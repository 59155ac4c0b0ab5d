"""What margin costs on a real view, and orders per second with option market makers:
`python -m tools.bench_options`.

Margin: one account with 1, 16, 64 or 128 options over as many as thirteen expiries, asked for as every order
asks: what if one of its positions were another. Everything but that position's expiry is as it was, so its
sums are still there. `sums anew`: only the risk arrays are there, as for an account that was not looked at
since the last tick. `after a tick`: nothing is.

Transition: the mix of `bench_transition` (60 % resting, 30 % cancels, 10 % crossing), all in options, by
market makers who quote and hold dozens of them, with an oracle update between blocks now and then.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from statistics import median

from state.actions import Order, OrderKind, PlaceOrder, Side, Transaction
from state.calendar import Rule
from state.expiry_books import forget_sums
from state.keys import account_key, instrument_key, market_key, market_position_key, position_key
from state.leaves import Account, Instrument, Kind, Marker, Market, Position
from state.margin import requirement
from state.pricing import mark_of
from tools.bench_margin import LIMIT_RECOVERIES, ROUNDS, SECONDS_OF_A_ROUND
from tools.bench_transition import Blocks, Flow, run
from tools.exchange import COIN, USD, Exchange, standard_exchange
from tools.figure import Figure, recover_cpu_seconds
from tools.option_exchange import expiries, full_update, make_due, markets_of, send_message, series_message

OPTIONS = (1, 16, 64, 128)
INDEX = 1_000 * USD
MAKERS = 16
HELD = 48
"""Options that each maker holds and quotes."""
FLOW = 4_000
TICK_BLOCKS = 5
"""Blocks between two oracle updates."""
SEED = 20_261_123


def options_exchange(traders: int) -> tuple[Exchange, list[int]]:
    """Thirteen expiries with chains, priced; the options' markets, near strikes first."""
    exchange = standard_exchange(traders, cash_uusd=10**9 * USD)
    for rule, ahead in ((Rule.DAILY, 6), (Rule.WEEKLY, 4), (Rule.MONTHLY, 4), (Rule.QUARTERLY, 3)):
        send_message(exchange, series_message("C1", rule, ahead, step_uusd=20 * USD, strikes=8))
        make_due(exchange)
    exchange.now_ms += 1_000
    exchange.send(full_update(exchange, {"C1": INDEX}))
    found: list[tuple[int, int]] = []
    for number in expiries(exchange, "C1"):
        for market in markets_of(exchange, number).values():
            terms: Instrument = exchange.view.get(instrument_key(market))
            if terms.kind != Kind.FUTURE:
                found.append((abs(terms.strike_uusd - INDEX), market))
    return exchange, [market for _, market in sorted(found)]


def hold(exchange: Exchange, account: int, markets: list[int], rng: random.Random) -> None:
    """Gives the account positions, each against one of account 1, at their marks' cost."""
    for market in markets:
        size = rng.randint(-10 * COIN, 10 * COIN)
        for owner, amount in ((account, size), (1, -size)):
            key = position_key(owner, market)
            position: Position | None = exchange.view.get(key)
            if position is None:
                position = Position(0, 0, 0, 0, 0, 0)
                exchange.view.put(key, position)
                exchange.view.put(market_position_key(market, owner), Marker(1))
                leaf: Account = exchange.view.get(account_key(owner))
                leaf.positions += 1
                exchange.view.touch(account_key(owner), leaf)
            position.size_ulots += amount
            exchange.view.touch(key, position)


def cost(call: Callable[[], object], before: Callable[[], object] = lambda: None) -> tuple[float, float]:
    """(seconds, recoveries) of one call, medians over rounds; `before` runs before each, unmeasured."""
    begin = time.process_time()
    before()
    call()
    count = max(1, int(SECONDS_OF_A_ROUND / max(time.process_time() - begin, 1e-6)))
    seconds, ratios = [], []
    yardstick = recover_cpu_seconds()
    for _ in range(ROUNDS):
        elapsed = 0.0
        for _ in range(count):
            before()
            begin = time.process_time()
            call()
            elapsed += time.process_time() - begin
        seconds.append(elapsed / count)
        after = recover_cpu_seconds()
        ratios.append(2 * seconds[-1] / (yardstick + after))
        yardstick = after
    return median(seconds), median(ratios)


def bench_account_margin() -> list[Figure]:
    """Microseconds of `requirement`, beside recoveries."""
    figures = []
    for options in OPTIONS:
        exchange, markets = options_exchange(2)
        rng = random.Random(SEED + options)
        near = rng.sample(markets[: max(options, 130)], options)
        hold(exchange, 2, near, rng)
        count = len({exchange.view.get(instrument_key(market)).expiry for market in near})
        numbers = iter(range(10**9))

        def ask(exchange: Exchange = exchange, market: int = near[0], numbers: object = numbers) -> object:
            size = next(numbers) * 100  # type: ignore[call-overload]
            return requirement(exchange.view, 2, 0, {market: (size, -size, 0, 0)})

        def tick(exchange: Exchange = exchange, rng: random.Random = rng) -> object:
            exchange.now_ms += 11_000
            return exchange.send(full_update(exchange, {"C1": INDEX + rng.randint(-20, 20) * USD // 10}))

        ask()
        limit = LIMIT_RECOVERIES if options == 64 else None
        for title, before in (("arrays fresh", int), ("sums anew", forget_sums), ("after a tick", tick)):
            seconds, recoveries = cost(ask, before)
            title = f"margin of {options} options, {title}"
            note = f"{count} expiries, {recoveries:.2f} recoveries"
            figures.append(Figure(title, seconds * 1e6, "us", note=note))
            if title.endswith("fresh"):
                figures.append(Figure(title, recoveries, "recoveries", limit))
    return figures


class OptionFlow(Flow):
    """The flow of `bench_transition`, in options and by makers who hold many."""

    def __init__(self, exchange: Exchange, seed: int, markets: list[int]) -> None:
        super().__init__(exchange, seed)
        self.quoted = {maker: self.random.sample(markets, HELD) for maker in range(2, MAKERS + 2)}
        for maker, held in self.quoted.items():
            hold(exchange, maker, held, self.random)

    def _order(self, ticks_away: int, size: int) -> Transaction:
        account = self.random.choice(list(self.quoted))
        market = self.random.choice(self.quoted[account])
        side = Side(self.random.getrandbits(1))
        view = self.exchange.view
        state: Market = view.get(market_key(market))
        terms: Instrument = view.get(instrument_key(market))
        mark = mark_of(view, state, terms) or 0
        ticks = max(mark // terms.tick_uusd + (ticks_away if side else -ticks_away), 1)
        fields = self.exchange.envelope(account)
        self.open.append((account, market, fields["nonce"] << 6))
        price = ticks * terms.tick_uusd
        placed = Order(market, side, OrderKind.LIMIT, price, size * COIN // 1_000)
        return self.exchange.sign(PlaceOrder(**fields, order=placed))


def prepare_options(flow_length: int = FLOW) -> tuple[Exchange, Blocks]:
    """Makers with positions and quotes, and blocks of the flow to execute."""
    exchange, markets = options_exchange(MAKERS + 1)
    leaf = exchange.parameters
    leaf.max_orders, leaf.max_positions = 4_096, 128
    flow = OptionFlow(exchange, SEED, markets[:200])
    return exchange, flow.blocks(10, flow_length)


def bench_transition_options() -> list[Figure]:
    """Orders per second; the oracle updates between them are not counted, what they make stale is."""
    exchange, blocks = prepare_options()
    slices, ratios = [], []
    executed = refused = fills = 0
    before = recover_cpu_seconds()
    for number, block in enumerate(blocks):
        if number % TICK_BLOCKS == 0:
            exchange.now_ms += 11_000
            exchange.send(full_update(exchange, {"C1": INDEX + number * USD // 100}))
        begin = time.process_time()
        tally = run(exchange, [block])
        slices.append((time.process_time() - begin) / len(block))
        after = recover_cpu_seconds()
        ratios.append(2 * slices[-1] / (before + after))
        before = after
        executed, refused, fills = executed + tally.executed, refused + tally.refused, fills + tally.fills
    mean, ratio = sum(slices) / len(slices), sum(ratios) / len(ratios)
    note = f"{MAKERS} makers with {HELD} options each; {executed} executed, {refused} refused, {fills} fills"
    return [
        Figure("orders with option market makers", 1 / mean, "1/s", note=note),
        Figure("one such order, in recoveries", ratio, "recoveries", note="mean, repricing included"),
        Figure("one such order between ticks", median(ratios), "recoveries", note="median block"),
    ]


if __name__ == "__main__":
    for figure in [*bench_account_margin(), *bench_transition_options()]:
        print(figure)
