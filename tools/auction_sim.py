"""Who gains what by bidding otherwise: `python -m tools.auction_sim [--games N] [--seed N] [--json]`.

A class of a block is one auction (PROTOCOL 8.1): transactions stand by bid, ties by arrival, and each pays
the bid that follows it. The first part plays games on that rule alone. A bidder's *worth* of a place is what
it gains by standing there rather than last; it does not rise from place to place, and its *value* is its
worth of the first place. All others bid their values, and one tries everything that could matter. The second
part executes blocks, and lets the operator try what the rule leaves to it.

What holds, and why (the tests look for exceptions in `tests/property/test_auction`):

- A bid above value is never better than the best bid that is not. If it changes the place, somebody's
  bid of the value or more stands behind it, so it pays what the first place is worth, or more; bidding
  nothing costs nothing.
- With two bidders truth is the best bid whatever the other does: a second-price auction (Vickrey 1961).
- With three or more it is not: who is outbid anyway may pay less, or nothing, by bidding less. That truth is
  no dominant strategy of a generalised second price is known from Edelman, Ostrovsky, Schwarz, "Internet
  Advertising and the Generalized Second-Price Auction", American Economic Review 97(1), 2007, and Varian,
  "Position auctions", Int. J. of Industrial Organization 25, 2007. They sell clicks, so that a place's price
  is per click; here it is for the place as such, and their equilibria are not claimed.
- All payments of a class together are its bids less the highest. So whoever leaves transactions out, or puts
  them into different blocks, lowers the sum, and the order of equal bids does not change it.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from state.actions import Order, OrderKind, PlaceOrder, Side
from state.block import L1Message, MessageKind
from state.leaves import PriorityTerms
from state.priority import MAX_OPERATOR_PPM
from tools.exchange import COIN, USD, VAULT, Exchange, standard_exchange

TRADERS = 8
OPERATOR = TRADERS
"""Account with which the operator bids; the others are its users'."""
_ORDER = Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN)
_MAX_BID = 1_000


# The rule


def ranking(bids: Sequence[int]) -> list[int]:
    """Indexes of bids, given by arrival, in the order in which they stand."""
    return sorted(range(len(bids)), key=lambda index: -bids[index])


def prices(bids: Sequence[int]) -> list[int]:
    """What each bid pays, in uusd."""
    order = ranking(bids)
    paid = [0] * len(bids)
    for place, index in enumerate(order[:-1]):
        paid[index] = bids[order[place + 1]]
    return paid


def payoff(bids: Sequence[int], bidder: int, worth: Sequence[int]) -> int:
    """The worth of its place to the bidder, less what it pays."""
    return worth[ranking(bids).index(bidder)] - prices(bids)[bidder]


# Games


class Deviation(NamedTuple):
    """The best that one bidder can do while the others bid their values."""

    truthful: int
    within: int
    """The most that a bid of at most its value brings."""
    above: int
    """The most that a bid above its value brings."""


class Games(NamedTuple):
    games: int
    above_beats_within: int
    """Games in which some bid above value is better than every other."""
    truth_is_best: int
    lower_is_better: int
    truth_loses: int
    """Truth brings less than bidding nothing does at the least."""


def deviation(bids: Sequence[int], bidder: int, worth: Sequence[int]) -> Deviation:
    """What the bidder can get, by all bids that give it different places."""
    value = worth[0]
    around = {bid + step for bid in bids for step in (-1, 0, 1)} | {0, value, value + 1, 2 * value + 1}
    outcome = {
        bid: payoff([*bids[:bidder], bid, *bids[bidder + 1 :]], bidder, worth) for bid in around if bid >= 0
    }
    within = max(found for bid, found in outcome.items() if bid <= value)
    above = max(found for bid, found in outcome.items() if bid > value)
    return Deviation(outcome[value], within, above)


def one_prize(chance: random.Random, bidders: int) -> list[int]:
    """Only the first place is worth anything: a race."""
    return [chance.randint(1, _MAX_BID)] + [0] * (bidders - 1)


def falling(chance: random.Random, bidders: int) -> list[int]:
    """Each place is worth less than the one before, the last nothing."""
    return [*sorted((chance.randint(0, _MAX_BID) for _ in range(bidders - 1)), reverse=True), 0]


Worth = Callable[[random.Random, int], list[int]]


def play(seed: int, games: int, bidders: int, worth_of: Worth) -> Games:
    """Each game's bidders bid their values; the first by arrival looks for something better."""
    chance = random.Random(seed)
    above = best = lower = loses = 0
    for _ in range(games):
        worths = [worth_of(chance, bidders) for _ in range(bidders)]
        found = deviation([worth[0] for worth in worths], 0, worths[0])
        above += found.above > found.within
        best += found.truthful >= max(found.within, found.above)
        lower += found.within > found.truthful
        loses += found.truthful < 0
    return Games(games, above, best, lower, loses)


# The operator


class Money(NamedTuple):
    """What was paid for places in a block, in uusd, and who got it."""

    paid: tuple[int, ...]
    """By account."""
    insurance: int
    pot: int
    operator: int


def execute(exchange: Exchange, bids: Sequence[tuple[int, int]]) -> Money:
    """A block of orders by (account, bid), in the order in which they must stand."""
    before = exchange.system.fees_uusd, exchange.system.insurance_uusd, exchange.market(1).priority_pot_uusd
    standing = sorted(bids, key=lambda it: -it[1])
    with exchange.block() as execution:
        for account, bid in standing:
            fields = exchange.envelope(account) | {"priority_bid_uusd": bid}
            execution.execute(exchange.sign(PlaceOrder(**fields, order=_ORDER)))
    results = exchange.results[-1].results
    paid = [0] * (TRADERS + 1)
    for (account, _), result in zip(standing, results, strict=True):
        paid[account] += result.priority_uusd
    risk = sum(result.fee_parts[-1] for result in results)
    fees = sum(result.fee_uusd for result in results) - risk
    income = exchange.system.fees_uusd - before[0] - fees
    insurance = exchange.system.insurance_uusd - before[1] - risk
    return Money(tuple(paid), insurance, exchange.market(1).priority_pot_uusd - before[2], income)


class Operator(NamedTuple):
    """Over all blocks, in uusd."""

    blocks: int
    share_ppm: int
    """Of what is paid for places; set by the governor, 0 by default."""
    honest_income: int
    reordered_income: int
    """With equal bids in another order."""
    dropped_income: int
    """The best that leaving one transaction out brought."""
    bidding_income: int
    bidding_cost: int
    """What its own bids paid; `user_cost` is what the same bids cost another account."""
    user_cost: int


def try_operator(seed: int, blocks: int, share_ppm: int = 0) -> Operator:
    """The same bids honestly, and with what the operator can do about them."""
    chance = random.Random(seed)
    exchange = standard_exchange(TRADERS, cash_uusd=10**6 * USD)
    terms = PriorityTerms(operator_ppm=share_ppm)
    exchange.messages(L1Message(MessageKind.SET_PRIORITY, VAULT, 0, terms.encode()))
    honest = reordered = dropped = bidding = cost = user = 0
    for _ in range(blocks):
        bids = [(account, chance.choice((0, 5, 5, 9, chance.randint(1, 99)))) for account in range(1, 7)]
        honest += execute(exchange, bids).operator
        reordered += execute(exchange, chance.sample(bids, len(bids))).operator
        dropped += max(execute(exchange, bids[:gone] + bids[gone + 1 :]).operator for gone in range(6))
        own = max(0, max(bid for _, bid in bids) - 1)
        found = execute(exchange, [*bids, (OPERATOR, own)])
        bidding += found.operator
        cost += found.paid[OPERATOR]
        user += execute(exchange, [*bids, (OPERATOR - 1, own)]).paid[OPERATOR - 1]
    return Operator(blocks, share_ppm, honest, reordered, dropped, bidding, cost, user)


def main() -> None:
    parser = argparse.ArgumentParser(description="Who gains what by bidding otherwise.")
    parser.add_argument("--games", type=int, default=1_000, help="of each kind")
    parser.add_argument("--blocks", type=int, default=20, help="in which the operator tries")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    kinds: list[tuple[str, int, Worth]] = [
        ("two bidders", 2, one_prize),
        ("six, one prize", 6, one_prize),
        ("six, falling worth", 6, falling),
    ]
    found = {name: play(options.seed, options.games, number, worth) for name, number, worth in kinds}
    operators = [try_operator(options.seed, options.blocks, share) for share in (0, MAX_OPERATOR_PPM)]
    if options.json:
        games = {name: result._asdict() for name, result in found.items()}
        print(json.dumps({"games": games, "operator": [each._asdict() for each in operators]}))
        return
    show_games(found)
    for operator in operators:
        show_operator(operator)


def show_games(found: Mapping[str, Games]) -> None:
    print(f"{'one tries all bids, others bid their values':45}above value  truth   lower is  truth")
    print(f"{'':45}is best      is best better    loses")
    for name, result in found.items():
        shares = (f"{each / result.games:.1%}" for each in result[2:])
        above, rest = (
            f"{result.above_beats_within / result.games:.1%}",
            "  ".join(f"{it:>7}" for it in shares),
        )
        print(f"  {name:43}{above:>11}  {rest}")


def show_operator(operator: Operator) -> None:
    share = f"{operator.share_ppm / 10_000:g} % of what is paid"
    print(f"the operator, with {share}, gets from {operator.blocks} blocks, in uusd:")
    for label, income in (
        ("honest", operator.honest_income),
        ("equal bids reordered", operator.reordered_income),
        ("one left out", operator.dropped_income),
        ("bidding against its users", operator.bidding_income),
    ):
        print(f"  {label:43}{income:>11}")
    print(f"  {'less what those bids cost it':43}{-operator.bidding_cost:>11}")
    print(f"  {'which would cost another account':43}{-operator.user_cost:>11}")


if __name__ == "__main__":
    main()
