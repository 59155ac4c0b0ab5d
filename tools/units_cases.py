"""The actions that `bench_units` measures: scenarios on a `Scene`, each a generator of cases.

A scenario yields what to execute and measure next, and undoes, unmeasured, what would make the next round
another one. `reference` is what everything is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count, cycle, islice
from typing import Any, Final, NamedTuple

from state.actions import (
    AuthorizeSessionKey,
    Bid,
    BulkOrders,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    CancelQuote,
    CancelTrigger,
    Deleverage,
    EndAuction,
    ExecuteQuote,
    Leg,
    Order,
    OrderKind,
    PlaceTrigger,
    Quote,
    Replacement,
    ReplaceOrder,
    ResetProtection,
    RevokeSessionKey,
    Scope,
    SetProtection,
    Side,
    StartAuction,
    Transaction,
    Transfer,
    TriggerCondition,
    TriggerSource,
    Withdraw,
)
from state.codec_format import NO_HASH
from state.hashing import keccak
from state.margin import NO_CHANGES, requirement
from tools.exchange import COIN, USD
from tools.units_scene import COUNT, DATED, MARK, SMALL, TICK, Placed, Scene, placed_by

_NO_SIGNATURE: Final = bytes(64)
_TERMS: Final = keccak(b"agreed terms")
_quote_nonces = count()


class Case(NamedTuple):
    """Transactions of one kind, executed in a block of their own; the first `warm` are not measured."""

    name: str
    transactions: list[Transaction]
    parts: int = 0
    """Of each: what there may be more or fewer of under the same name."""
    fills: int = 0
    """That each must make."""
    warm: int = 4


Scenario = Callable[[Scene], Iterator[Case]]


def reference(scene: Scene) -> Iterator[Case]:
    """A limit order that rests in a perpetual."""
    orders = [scene.place(account, scene.resting(scene.perpetual())) for account in scene.some()]
    yield Case("limit order, rests", orders)
    scene.execute(cancels(scene, placed_by(orders)))


def cancels(scene: Scene, placed: Sequence[Placed]) -> list[Transaction]:
    return [scene.sign(CancelOrder, each.account, cancel=each.cancel) for each in placed]


def moved(each: Placed, size_ulots: int = SMALL) -> Replacement:
    """A little further from the mark."""
    price = max(each.order.price_uusd + (7 * TICK if each.order.side else -7 * TICK), TICK)
    return Replacement(each.order.market, each.order_id, price, size_ulots)


def single_orders(scene: Scene) -> Iterator[Case]:
    kind = OrderKind.POST_ONLY
    orders = [scene.place(account, scene.resting(scene.perpetual(), kind)) for account in scene.some()]
    yield Case("post-only order, rests", orders)
    placed = placed_by(orders)
    elsewhere = [scene.sign(ReplaceOrder, each.account, replacement=moved(each)) for each in placed]
    yield Case("replacement, elsewhere", elsewhere)
    smaller = [scene.sign(ReplaceOrder, each.account, replacement=moved(each, SMALL // 2)) for each in placed]
    yield Case("replacement, smaller", smaller)
    yield Case("cancel", cancels(scene, placed))


def near_margin(scene: Scene) -> Iterator[Case]:
    """The same by accounts without much more cash than they need, which are looked at more closely."""
    some = scene.some()
    orders = [scene.place(account, scene.resting(scene.perpetual())) for account in some]
    cash = [scene.account(account).cash_uusd for account in some]
    for each in placed_by(orders):
        equity, initial = requirement(scene.view, each.account, 0, NO_CHANGES)
        needed = each.order.price_uusd * each.order.size_ulots // COIN * 25 // 100
        scene.set_cash(each.account, initial - equity + needed + USD)
    yield Case("limit order, rests, account near its margin", orders)
    for account, before in zip(some, cash, strict=True):
        scene.set_cash(account, before)
    scene.execute(cancels(scene, placed_by(orders)))


def sweeps(scene: Scene) -> Iterator[Case]:
    """Orders that never rest, against so many makers at the best price."""
    for kind, name in (
        (OrderKind.IMMEDIATE_OR_CANCEL, "immediate"),
        (OrderKind.FILL_OR_KILL, "fill or kill"),
    ):
        for makers in (1, 4, 16):
            side = Side(scene.random.getrandbits(1))
            people = iter(scene.some(COUNT * (makers + 1)))
            orders = meeting(scene, people, people, scene.perpetual(), side, makers, kind)
            yield Case(f"{name} order, makers met", orders, makers, makers)


def meeting(
    scene: Scene,
    takers: Iterator[int],
    others: Iterator[int],
    market: int,
    side: Side,
    makers: int,
    kind: OrderKind = OrderKind.IMMEDIATE_OR_CANCEL,
) -> list[Transaction]:
    """Orders that take exactly what as many makers have placed for each, unmeasured."""
    price = scene.price(market, -1 if side else 1)
    best = Order(market, Side(1 - side), OrderKind.LIMIT, price, SMALL)
    scene.execute([scene.place(account, best) for account in islice(others, COUNT * makers)])
    order = Order(market, side, kind, price, SMALL * makers)
    return [scene.place(account, order) for account in islice(takers, COUNT)]


def bulks(scene: Scene) -> Iterator[Case]:
    for size in (1, 10, 60):
        for kind, name in ((OrderKind.LIMIT, "limit orders"), (OrderKind.POST_ONLY, "post-only orders")):
            orders = [
                scene.sign(
                    BulkOrders,
                    account,
                    orders=tuple(scene.resting(scene.perpetual(), kind) for _ in range(size)),
                )
                for account in scene.some()
            ]
            yield Case(f"bulk, {name}", orders, size)
            groups = [placed_by([transaction]) for transaction in orders]
            if kind is OrderKind.LIMIT:
                replaced = [
                    scene.sign(BulkOrders, each[0].account, replacements=tuple(map(moved, each)))
                    for each in groups
                ]
                yield Case("bulk, replacements", replaced, size)
            ended = [
                scene.sign(BulkOrders, each[0].account, cancels=tuple(order.cancel for order in each))
                for each in groups
            ]
            yield Case("bulk, cancels", ended, size)


def all_cancelled(scene: Scene) -> Iterator[Case]:
    accounts = scene.idle[:COUNT]
    for orders in (0, 1, 32, 256):
        scene.execute(
            [
                scene.place(account, scene.resting(scene.perpetual()))
                for account in accounts
                for _ in range(orders)
            ]
        )
        yield Case("CancelAll", [scene.sign(CancelAll, account) for account in accounts], orders)


def accounts(scene: Scene) -> Iterator[Case]:
    """Money, keys, the switch."""
    some = scene.some()
    to = [scene.sign(Transfer, account, to_account=account - 1, amount_uusd=USD) for account in some]
    yield Case("Transfer", to)
    yield Case("Withdraw", [withdraw(scene, account) for account in some])
    key = scene.exchange.account(1).owner
    until_s = scene.exchange.now_ms // 1_000 + 3_600
    given = [
        scene.sign(AuthorizeSessionKey, account, key=key, scope=Scope.TRADE, expiry_s=until_s)
        for account in some
    ]
    yield Case("AuthorizeSessionKey", given)
    yield Case("RevokeSessionKey", [scene.sign(RevokeSessionKey, account, key=key) for account in some])
    for name in ("CancelAllAfter", "CancelAllAfter, again"):
        yield Case(name, [scene.sign(CancelAllAfter, account, timeout_s=3_600) for account in some])
    scene.execute([scene.sign(CancelAllAfter, account, timeout_s=0) for account in some])


def withdraw(scene: Scene, account: int) -> Transaction:
    return scene.sign(Withdraw, account, recipient=scene.exchange.account(1).owner, amount_uusd=USD)


def protections(scene: Scene) -> Iterator[Case]:
    some = scene.some()
    limits = {"frozen_ms": 0, "quantity_ulots": 10**6 * COIN, "delta_ulots": 0, "vega_uusd": 0}
    made = [
        scene.sign(SetProtection, account, underlying="C1", interval_ms=1_000, **limits) for account in some
    ]
    yield Case("SetProtection", made)
    yield Case("ResetProtection", [scene.sign(ResetProtection, account, underlying="C1") for account in some])
    scene.execute(
        [scene.sign(SetProtection, account, underlying="C1", interval_ms=0, **limits) for account in some]
    )


def triggers(scene: Scene) -> Iterator[Case]:
    """Put, taken away; and set off by an update of an index, `COUNT` and none."""
    for name, markets in (
        ("perpetual", [scene.perpetual() for _ in range(COUNT)]),
        ("option", scene.random.choices(scene.options, k=COUNT)),
    ):
        waiting = [
            trigger(scene, account, market, TriggerSource.MARK, 5 * scene.mark(market) + USD)
            for account, market in zip(scene.some(), markets, strict=True)
        ]
        yield Case(f"PlaceTrigger, {name}", waiting)
        taken = [scene.sign(CancelTrigger, each.account, cancel=each.cancel) for each in placed_by(waiting)]
        yield Case(f"CancelTrigger, {name}", taken)
    for fired in (0, 64):
        index = 2 * MARK + scene.random.randint(-5, 5) * TICK
        scene.exchange.now_ms += 1_000
        scene.exchange.report({"C2": index})
        armed = [
            trigger(scene, account, 2, TriggerSource.INDEX, index + TICK) for account in scene.some(fired)
        ]
        scene.execute(armed)
        scene.exchange.now_ms += 1_000
        yield Case("update with triggers fired", [scene.exchange.update({"C2": index + TICK})], fired, warm=0)
        scene.execute(cancels(scene, placed_by(armed)))


def trigger(scene: Scene, account: int, market: int, source: TriggerSource, at_uusd: int) -> Transaction:
    """A limit order that will rest, from where the price is so high."""
    return scene.sign(
        PlaceTrigger,
        account,
        order=scene.resting(market),
        source=source,
        condition=TriggerCondition.AT_OR_ABOVE,
        trigger_uusd=at_uusd,
    )


def quotes(scene: Scene) -> Iterator[Case]:
    """Of accounts that hold nothing, and of such that hold as much as most may."""
    makers, takers = scene.idle[:COUNT], scene.idle[COUNT:]
    scene.warm_up()
    for legs in (1, 4, 16):
        for name, markets, terms in (
            ("options", scene.options[:legs], NO_HASH),
            ("a perpetual first", [1, *scene.options[: legs - 1]], NO_HASH),
            ("options and terms", scene.options[:legs], _TERMS),
        ):
            pairs = list(zip(makers, takers, strict=True))
            made = [quote(scene, *pair, markets, terms) for pair in pairs]
            yield Case(f"ExecuteQuote, {name}, legs", made, legs, legs)
            scene.execute([quote(scene, *pair, markets, backwards=True) for pair in pairs])
        for many in DATED[1:]:
            holders = scene.holders[many]
            pairs = list(islice(zip(cycle(holders), cycle(holders[1:] + holders[:1]), strict=False), COUNT))
            held = [(*pair, scene.options[:legs]) for pair in pairs]
            made = [quote(scene, *each) for each in held]
            yield Case(f"ExecuteQuote, both hold {many} options, legs", made, legs, legs)
            scene.execute([quote(scene, *each, backwards=True) for each in held])
    until_s = scene.exchange.now_ms // 1_000 + 30
    yield Case(
        "CancelQuote",
        [
            scene.sign(CancelQuote, account, quote_nonce=next(_quote_nonces), quote_expiry_s=until_s)
            for account in scene.some()
        ],
    )


def quote(
    scene: Scene,
    maker: int,
    taker: int,
    markets: Sequence[int],
    terms: bytes = NO_HASH,
    *,
    backwards: bool = False,
) -> Transaction:
    """Buys and sells in turn, at the marks."""
    legs = tuple(Leg(market, Side((place + backwards) % 2), SMALL) for place, market in enumerate(markets))
    net = sum(scene.mark(leg.market) * SMALL // COIN * (1 if leg.side else -1) for leg in legs)
    until_s = scene.exchange.now_ms // 1_000 + 30
    offer = Quote(maker, legs, net, 0, terms, next(_quote_nonces), until_s, 1_000 * USD)
    return scene.sign(ExecuteQuote, taker, quote=offer, quote_signature=_NO_SIGNATURE, limit_uusd=net)


def dated(scene: Scene) -> Iterator[Case]:
    """By accounts with so many options: margin is most of it."""
    for held in DATED:
        holders = scene.holders[held]
        accounts = list(islice(cycle(holders), COUNT))
        own = [scene.held[account] or scene.options for account in accounts]
        who = f"by one with {held} options"
        scene.tick()
        first = [scene.place(holders[0], scene.resting(own[0][0]))]
        yield Case(f"order in an option {who}, first after a tick", first, warm=0)
        scene.warm_up()
        for name, markets in (
            ("an option", [scene.random.choice(each) for each in own]),
            ("a future", scene.random.choices(scene.futures, k=COUNT)),
            ("a perpetual", [1] * COUNT),
        ):
            orders = [
                scene.place(account, scene.resting(market))
                for account, market in zip(accounts, markets, strict=True)
            ]
            yield Case(f"order in {name} {who}", orders)
            scene.clear(holders)
        bulk = [
            scene.sign(
                BulkOrders,
                account,
                orders=tuple(
                    scene.resting(scene.random.choice(each), OrderKind.POST_ONLY) for _ in range(60)
                ),
            )
            for account, each in zip(accounts, own, strict=True)
        ]
        yield Case(f"bulk of 60 in options {who}", bulk)
        scene.clear(holders)
        yield Case(f"Withdraw {who}", [withdraw(scene, account) for account in accounts])
        for makers in (1, 16):
            others = holders[1:] + holders[:1]
            side = Side(scene.random.getrandbits(1))
            for way, measured in ((side, True), (Side(1 - side), False)):
                orders = meeting(
                    scene,
                    cycle(holders),
                    (other for other in cycle(others) for _ in range(makers)),
                    own[0][0],
                    way,
                    makers,
                )
                if measured:
                    yield Case(f"immediate order in an option {who}, makers met", orders, makers, makers)
                else:
                    scene.execute(orders)


def liquidations(scene: Scene) -> Iterator[Case]:
    """Of accounts with so many options, by accounts that come to hold as many."""
    for held, victims in scene.victims.items():
        keepers = scene.some(len(victims))
        for victim in victims:
            scene.set_equity(victim, healthy=False)
        started = pairwise(scene, StartAuction, keepers, victims)
        yield Case("StartAuction, positions", started, held, warm=1)
        bids = pairwise(scene, Bid, scene.bidders, victims, share_ppm=100, min_reward_uusd=0)
        yield Case("Bid, positions", bids, held, warm=1)
        for victim in victims:
            scene.set_equity(victim, healthy=True)
        yield Case("EndAuction, positions", pairwise(scene, EndAuction, keepers, victims), held, warm=1)
        for many in (1, 16):
            yield from deleveraged(scene, held, victims, keepers, many)


def deleveraged(scene: Scene, held: int, victims: list[int], keepers: list[int], many: int) -> Iterator[Case]:
    found = iter(scene.winners)
    counterparties = [tuple(islice(found, many)) for _ in victims]
    for victim, others in zip(victims, counterparties, strict=True):
        market = scene.held[victim][0]
        scene.give(victim, market, -10 * COIN)
        for other in others:
            scene.give(other, market, SMALL, 1_000 * USD)
        scene.set_cash(victim, scene.account(victim).cash_uusd - 10**9 * USD)
    scene.execute(pairwise(scene, StartAuction, keepers, victims))
    actions = [
        scene.sign(Deleverage, keeper, liquidated=victim, market=scene.held[victim][0], counterparties=others)
        for keeper, victim, others in zip(keepers, victims, counterparties, strict=True)
    ]
    yield Case(f"Deleverage, {held} positions, counterparties", actions, many, warm=1)
    for victim in victims:
        scene.set_equity(victim, healthy=True)
    scene.execute(pairwise(scene, EndAuction, keepers, victims))


def pairwise(
    scene: Scene, kind: type[Any], actors: Sequence[int], victims: Sequence[int], **fields: int
) -> list[Transaction]:
    """An action of each of the actors about one of the victims."""
    return [
        scene.sign(kind, actor, liquidated=victim, **fields)
        for actor, victim in zip(actors, victims, strict=True)
    ]


SCENARIOS: Final[tuple[Scenario, ...]] = (
    single_orders,
    near_margin,
    sweeps,
    bulks,
    all_cancelled,
    accounts,
    protections,
    triggers,
    quotes,
    dated,
    liquidations,
)
