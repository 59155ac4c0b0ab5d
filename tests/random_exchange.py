"""Seeded random traffic for an exchange: mostly sensible, sometimes absurd, never outside the types."""

from __future__ import annotations

import random
from struct import pack
from typing import Any

from state.actions import (
    Action,
    AuthorizeSessionKey,
    Bid,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    CancelQuote,
    CancelTrigger,
    Deleverage,
    EndAuction,
    ExecuteQuote,
    Leg,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    Price,
    Quote,
    Replacement,
    ReplaceOrder,
    ResetProtection,
    RevokeSessionKey,
    Scope,
    SelfTrade,
    SetProtection,
    Side,
    SignedAction,
    StartAuction,
    Transaction,
    Transfer,
    TriggerCondition,
    TriggerSource,
    Withdraw,
)
from state.block import L1Message, MessageKind
from state.hashing import keccak
from state.keys import account_key, auction_key
from state.leaves import Account
from state.rules import rule_of
from state.seizure import health, holdings
from state.units import PPM
from state.view import StateView
from tools.exchange import COIN, PUBLISHERS, USD, VAULT, deposit_message, instrument, owner_address

MARKETS = 2
OWNERS = 4
ACCOUNTS = 6
"""The owners' first accounts, and second ones of owners 1 and 2."""
IN_RANGE = (0, 1, 2**31, 2**32 - 1, 2**32, 2**56 - 1, 2**63 - 1, 2**63, 2**64 - 1)
"""What a decoder may give."""
EXTREMES = (*IN_RANGE, -1, 2**64)
"""What may come in otherwise: encoding refuses the rest."""
MAX_U64 = 2**64 - 1
KINDS = list(MessageKind)[:8]
"""Of messages in the traffic: those after them list, and are not random."""


class Traffic:
    """`absurdity`: how often a number is replaced by an extreme one."""

    def __init__(self, seed: int, absurdity: float = 0.0, extremes: tuple[int, ...] = EXTREMES) -> None:
        self.extremes = extremes
        self.random = random.Random(seed)
        self.absurdity = absurdity
        self.now_ms = 1_700_000_000_000
        self.mark = [number * 1_000 * USD for number in range(1, MARKETS + 1)]
        self.nonces = [0] * (ACCOUNTS + 2)
        self.placed: dict[int, list[tuple[int, int]]] = {}
        self.waiting: dict[int, list[tuple[int, int]]] = {}
        """Triggers, as `placed` has orders."""
        self.view: StateView | None = None
        """If set, it is looked at to find who can be liquidated; otherwise that is guessed."""
        self.weak: list[int] = []
        self.auctions: list[int] = []
        self.count = 0

    def number(self, sensible: int) -> int:
        """`sensible`, or an extreme number."""
        if self.random.random() < self.absurdity:
            return self.random.choice(self.extremes)
        return sensible

    def setup(self) -> list[L1Message]:
        """Messages of the first block: publishers, instruments, money."""
        publishers = b"\x02\x03" + b"".join(PUBLISHERS)
        messages = [L1Message(MessageKind.SET_PUBLISHERS, VAULT, 0, publishers)]
        for number in range(1, MARKETS + 1):
            terms = instrument(f"C{number}-PERPETUAL", f"C{number}", max_size_ulots=50 * COIN)
            messages.append(L1Message(MessageKind.LIST_INSTRUMENT, VAULT, 0, terms.encode()))
        messages += [
            deposit_message(owner_address(owner), 0, self.random.choice((2_000, 3_000, 50_000)) * USD)
            for owner in (*range(1, OWNERS + 1), 1, 2)
        ]
        return messages

    def messages(self) -> list[L1Message]:
        """Sometimes a few messages."""
        if self.random.random() < 0.7:
            return []
        return [self.message() for _ in range(self.random.randint(1, 3))]

    def message(self) -> L1Message:
        account = self.number(self.random.randint(1, ACCOUNTS)) & MAX_U64
        sender = owner_address((account - 1) % OWNERS + 1)
        amount = self.number(self.random.randint(0, 1_000) * USD) & MAX_U64
        market = self.number(self.random.randint(1, MARKETS)) % 2**32
        price = self.price(market) & MAX_U64
        size = self.number(self.random.randint(1, 40) * 100_000) & MAX_U64
        payloads = {
            MessageKind.DEPOSIT: pack(">20sQQ", sender, account, min(amount, 10**12)),
            MessageKind.FORCED_WITHDRAWAL: pack(">Q20sQ", account, sender, amount),
            MessageKind.FORCED_ORDER: pack(">QIBQQ", account, market, self.random.randint(0, 1), price, size),
            MessageKind.BATCH_COST: pack(
                ">QIQQBQ", 1, market, amount, self.number(10**10) & MAX_U64, 3, self.number(1) & MAX_U64
            ),
        }
        kind = self.random.choice(KINDS)
        payload = payloads.get(kind, b"") if self.random.random() > self.absurdity else b"\xff" * 70
        return L1Message(kind, sender, 0, payload)

    def price(self, market: int) -> int:
        mark = self.mark[market - 1] if 0 < market <= MARKETS else USD
        ticks = mark // 10_000
        return self.number((ticks + self.random.randint(-ticks // 50, ticks // 50)) * 10_000)

    def order(self) -> Order:
        market = self.number(self.random.randint(1, MARKETS))
        return Order(
            market,
            Side(self.random.getrandbits(1)),
            self.random.choice((OrderKind.LIMIT, OrderKind.LIMIT, OrderKind.LIMIT, *OrderKind)),
            self.price(market),
            self.number(self.random.randint(1, 40) * 100_000),
            self.random.random() < 0.15,
            self.number(self.random.choice((0, 0, 0, self.now_ms // 1_000 + 2))),
            self.random.choice(list(SelfTrade)),
        )

    def placed_order(self, account: int) -> tuple[int, int]:
        """(market, order id) of one of the account's latest orders, whatever became of it."""
        placed = self.placed.get(account, [])[-6:]
        market, order_id = self.random.choice(placed) if placed else (1, 0)
        return self.number(market), self.number(order_id)

    def cancel(self, account: int) -> Cancel:
        return Cancel(*self.placed_order(account))

    def replacement(self, account: int) -> Replacement:
        market, order_id = self.placed_order(account)
        size = self.number(self.random.randint(0, 40) * 100_000)
        return Replacement(market, order_id, self.price(market), size)

    def action(self) -> Action:
        account = self.number(self.random.randint(1, ACCOUNTS))
        nonce = self.nonces[account] if account < len(self.nonces) else 0
        if account < len(self.nonces):
            self.nonces[account] += 1
        fields: dict[str, Any] = {
            "account": account,
            "nonce": self.number(nonce),
            "deadline_s": self.number(self.now_ms // 1_000 + 30),
            "max_fee_uusd": self.number(10 * USD),
            "priority_bid_uusd": self.number(self.random.choice((0, 0, 5, 9))),
        }
        address = owner_address(self.random.randint(1, OWNERS))
        some = self.random.randint
        kinds: dict[type[Any], dict[str, Any]] = {
            PlaceOrder: {"order": self.order()},
            CancelOrder: {"cancel": self.cancel(account)},
            CancelAll: {"market": self.number(some(0, MARKETS))},
            ReplaceOrder: {"replacement": self.replacement(account)},
            BulkOrders: {
                "cancels": tuple(self.cancel(account) for _ in range(some(0, 2))),
                "replacements": tuple(self.replacement(account) for _ in range(some(0, 1))),
                "orders": tuple(self.order() for _ in range(some(0, 3))),
            },
            Transfer: {
                "to_account": self.number(some(1, ACCOUNTS)),
                "amount_uusd": self.number(some(0, 100) * USD),
            },
            Withdraw: {"recipient": address, "amount_uusd": self.number(some(0, 100) * USD)},
            AuthorizeSessionKey: {
                "key": address,
                "scope": self.random.choice(list(Scope)),
                "expiry_s": self.number(self.now_ms // 1_000 + 5),
            },
            RevokeSessionKey: {"key": address},
            CancelAllAfter: {"timeout_s": self.number(some(0, 30))},
            **self.depth(account),
            **self.liquidation(),
        }
        weights = [12, 2, 0.3, 2, 3, 0.5, 0.5, 0.4, 0.4, 0.3, 1, 0.1, 0.5, 0.2, 2, 0.3]
        weights += [6 if self.weak else 0.3] + [3.0 if self.auctions else 0.3] * 3
        (kind,) = self.random.choices(list(kinds), weights)
        made: Action = kind(**fields, **kinds[kind])
        orders = made.orders if isinstance(made, BulkOrders) else ()
        if isinstance(made, PlaceTrigger):
            self.waiting.setdefault(account, []).append((made.order.market, made.nonce * 64))
        if isinstance(made, PlaceOrder | PlaceTrigger):
            orders = (made.order,)
        ids = [
            (order.market, made.nonce * 64 + place)
            for place, order in enumerate(orders)
            if order.kind <= OrderKind.POST_ONLY
        ]
        self.placed.setdefault(account, []).extend(ids)
        return made

    def depth(self, account: int) -> dict[type[Any], dict[str, Any]]:
        """Fields of block trades, protection and triggers."""
        some, chance = self.random.randint, self.random
        expiry_s = self.number(self.now_ms // 1_000 + some(1, 20))
        legs = [
            Leg(self.number(market), Side(some(0, 1)), self.number(some(1, 40) * 100_000))
            for market in chance.sample(range(1, MARKETS + 1), some(1, MARKETS))
        ]
        flows = [
            leg.size_ulots * self.mark[leg.market - 1] // 10**6 * (1 if leg.side else -1)
            for leg in legs
            if 0 < leg.market <= MARKETS
        ]
        net = max(-(2**63), min(2**63 - 1, sum(flows) + some(-50, 50) * USD))
        terms = chance.choice((bytes(32), keccak(b"terms")))
        maker = self.number(some(1, ACCOUNTS))
        quote = Quote(maker, tuple(legs), net, 0, terms, self.number(some(0, 30)), expiry_s, 100 * USD)
        underlying = f"C{some(1, MARKETS)}"
        market, order_id = chance.choice(self.waiting.get(account, [])[-4:] or [(1, 0)])
        mark = self.mark[some(0, MARKETS - 1)]
        return {
            ExecuteQuote: {"quote": quote, "quote_signature": bytes(64), "limit_uusd": net},
            CancelQuote: {"quote_nonce": self.number(some(0, 30)), "quote_expiry_s": expiry_s},
            SetProtection: {
                "underlying": underlying,
                "interval_ms": self.number(some(0, 3) * 1_000),
                "frozen_ms": self.number(some(0, 2) * 1_000),
                "quantity_ulots": self.number(some(0, 20) * 100_000),
                "delta_ulots": self.number(some(0, 20) * 100_000),
                "vega_uusd": self.number(0),
            },
            ResetProtection: {"underlying": underlying},
            PlaceTrigger: {
                "order": self.order(),
                "source": chance.choice(list(TriggerSource)),
                "condition": chance.choice(list(TriggerCondition)),
                "trigger_uusd": self.number(mark * some(900, 1_100) // 1_000),
            },
            CancelTrigger: {"cancel": Cancel(market, order_id)},
        }

    def look(self) -> None:
        """Notes who is below maintenance margin, and who is in auction."""
        if self.view is None:
            return
        self.weak, self.auctions = [], []
        for number in range(1, ACCOUNTS + 1):
            account: Account | None = self.view.get(account_key(number))
            if account is not None and health(self.view, number, account.cash_uusd).maintenance_uusd < 0:
                self.weak.append(number)
            if self.view.get(auction_key(number)) is not None:
                self.auctions.append(number)

    def liquidation(self) -> dict[type[Any], dict[str, Any]]:
        """Fields of what liquidates."""
        some, chance = self.random.randint, self.random
        anybody = some(1, ACCOUNTS)
        liquidated = self.number(chance.choice([*self.auctions * 4, anybody]))
        held = holdings(self.view, liquidated) if self.view and liquidated in self.auctions else []
        others = tuple(self.number(some(1, ACCOUNTS)) for _ in range(some(0, 6)))
        return {
            StartAuction: {"liquidated": self.number(chance.choice([*self.weak * 2, anybody]))},
            Bid: {
                "liquidated": liquidated,
                "share_ppm": self.number(chance.choice((0, 1, 1_000, 50_000, 300_000, PPM))),
                "min_reward_uusd": self.number(chance.choice((0, 0, 0, 5 * USD))),
            },
            EndAuction: {"liquidated": liquidated},
            Deleverage: {
                "liquidated": liquidated,
                "market": self.number(chance.choice([some(1, MARKETS), *(each.market for each in held)])),
                "counterparties": others,
            },
        }

    def transaction(self) -> Transaction:
        action = self.action()
        owner = (action.account - 1) % OWNERS + 1
        if self.random.random() < 0.03:
            owner = self.random.randint(1, OWNERS)
        self.count += 1
        digest = keccak(b"random" + self.count.to_bytes(8, "big"))
        signers = [owner_address(owner)]
        if isinstance(action, ExecuteQuote):
            signers.append(owner_address((action.quote.account - 1) % OWNERS + 1))
        return Transaction(SignedAction(action, bytes(64)), tuple(signers), digest)

    def update(self) -> Transaction:
        """All publishers report marks after a random step, a fall now and then, indexes near them."""
        prices = []
        low, high = (810, 860) if self.random.random() < 0.2 else (940, 1_150)
        for number in range(MARKETS):
            self.mark[number] = self.mark[number] * self.random.randint(low, high) // 1_000
            self.mark[number] = max(10 * USD, min(self.mark[number], 10**6 * USD))
            index = self.mark[number] * self.random.randint(990, 1_010) // 1_000
            prices += [
                Price(f"C{number + 1}", self.number(index), PPM),
                Price(f"C{number + 1}-PERPETUAL", self.number(self.mark[number]), PPM),
            ]
        report = OracleReport(self.number(self.now_ms), tuple(prices), bytes(64))
        self.count += 1
        digest = keccak(b"update" + self.count.to_bytes(8, "big"))
        return Transaction(OracleUpdate((report,) * 3), PUBLISHERS, digest)

    def block(self, size: int = 12) -> list[Transaction]:
        """Transactions in order of class and bid, but for a few that are not."""
        self.now_ms += self.random.choice((1, 50, 50, 900, 5_000))
        self.look()
        transactions = [self.transaction() for _ in range(self.random.randint(0, size))]

        def place(transaction: Transaction) -> tuple[int, int]:
            assert isinstance(transaction.payload, SignedAction)
            action = transaction.payload.action
            return rule_of(action).order_class, -action.priority_bid_uusd

        transactions.sort(key=place)
        if self.random.random() < 0.5:
            transactions.insert(0, self.update())
        if self.random.random() < 0.1:
            self.random.shuffle(transactions)
        return transactions
