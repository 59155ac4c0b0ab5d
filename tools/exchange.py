"""A whole exchange in memory, without a node, L1 or signatures: for tests and benchmarks of the transition.

Each call is one transaction or message in a block of its own, unless a block is opened with `block()`.
Signatures are not made: transactions carry the signer that recovery would have found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from struct import pack
from typing import Any

from state.actions import (
    Action,
    Cancel,
    CancelOrder,
    ExecuteQuote,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Price,
    SelfTrade,
    Side,
    SignedAction,
    Transaction,
)
from state.block import BlockResult, L1Message, L1Origin, MessageKind, TransactionResult
from state.cache import CachedState, MemorySource
from state.genesis import FIRST_BASE_FEE_WEI, genesis_leaves
from state.hashing import keccak
from state.keys import PARAMETERS_KEY, SYSTEM_KEY, account_key, market_key, position_key
from state.leaves import Account, FeeTerms, Instrument, Market, Parameters, Position, Publishers, System
from state.transition import BlockExecution, next_batch, open_batch, same_origin
from state.units import PPM

USD = 1_000_000
COIN = 1_000_000
START_MS = 1_700_000_000_000
PUBLISHERS = tuple(bytes([0xEE] * 19 + [number]) for number in range(3))
VAULT = bytes([0xAA] * 20)
_NO_SIGNATURE = bytes(64)


def owner_address(number: int) -> bytes:
    """The address of the trader of that number."""
    return b"\x11" * 12 + number.to_bytes(8, "big")


def instrument(name: str, underlying: str, /, **changes: Any) -> Instrument:
    """A perpetual with usual terms."""
    terms: dict[str, Any] = {
        "name": name.encode().ljust(31, b"\0"),
        "kind": 0,
        "underlying": underlying.encode().ljust(31, b"\0"),
        "status": 1,
        "tick_uusd": 10_000,
        "lot_ulots": 100,
        "min_size_ulots": 100,
        "max_size_ulots": 1_000 * COIN,
        "band_ppm": 200_000,
        "maker_fee_ppm": 100,
        "taker_fee_ppm": 300,
        "impact_notional_uusd": 10_000 * USD,
    }
    return Instrument(**(terms | changes))


def order(
    market: int, side: Side, price_uusd: int, size_ulots: int, kind: OrderKind = OrderKind.LIMIT, **more: Any
) -> Order:
    return Order(market, side, kind, price_uusd, size_ulots, **more)


def l1_origin(number: int) -> L1Origin:
    """A block of L1 with about the fees of the first price (`state.genesis`)."""
    return L1Origin(number, FIRST_BASE_FEE_WEI, 229_870_000)


def deposit_message(owner: bytes, account: int, amount_uusd: int, l1_block: int = 0) -> L1Message:
    return L1Message(MessageKind.DEPOSIT, VAULT, l1_block, owner + pack(">QQ", account, amount_uusd))


class Exchange:
    """A state with the means to change it. `now_ms` is the time of the next block."""

    def __init__(self) -> None:
        self._source = MemorySource()
        self.view = CachedState(self._source, 1_000_000)
        for key, leaf in genesis_leaves().items():
            self.view.put(key, leaf)
        open_batch(self.view, next_batch(self.view))
        self.now_ms = START_MS
        self.nonces: dict[int, int] = {}
        self.results: list[BlockResult] = []
        self._count = 0
        self._execution: BlockExecution | None = None

    @contextmanager
    def block(self, *messages: L1Message) -> Iterator[BlockExecution]:
        """Everything inside goes into one block."""
        self._execution = BlockExecution(self.view, self.now_ms, same_origin(self.view), messages)
        try:
            yield self._execution
        finally:
            self.results.append(self._execution.end())
            self._execution = None

    def leaves(self) -> dict[bytes, bytes]:
        """The whole state, encoded."""
        self._source.apply(self.view.take_dirty())
        self.view.release()
        return dict(self._source.leaves)

    def messages(self, *messages: L1Message) -> BlockResult:
        with self.block(*messages):
            pass
        return self.results[-1]

    def send(self, transaction: Transaction) -> TransactionResult:
        """Executes in the open block, or in one of its own. Raises Rejected."""
        if self._execution is not None:
            return self._execution.execute(transaction)
        with self.block() as execution:
            return execution.execute(transaction)

    def sign(self, action: Action, signer: bytes | None = None) -> Transaction:
        """The action as recovered: signed by its account's owner or `signer`; a quote by its account's."""
        self._count += 1
        if signer is None:
            account = self.view.get(account_key(action.account))
            signer = account.owner if account else owner_address(0)
        digest = keccak(b"transaction" + self._count.to_bytes(8, "big"))
        signers: tuple[bytes, ...] = (signer,)
        if isinstance(action, ExecuteQuote):
            maker = self.view.get(account_key(action.quote.account))
            signers = (signer, maker.owner if maker else owner_address(0))
        return Transaction(SignedAction(action, _NO_SIGNATURE), signers, digest)

    def envelope(self, account: int) -> dict[str, Any]:
        """Fresh envelope fields for an action."""
        nonce = self.nonces.get(account, 0)
        self.nonces[account] = nonce + 1
        deadline_s = self.now_ms // 1_000 + 60
        return {"account": account, "nonce": nonce, "deadline_s": deadline_s, "max_fee_uusd": USD}

    def act(self, kind: type[Any], account: int, **fields: Any) -> TransactionResult:
        """Signs and executes an action of this kind. Raises Rejected."""
        return self.send(self.sign(kind(**(self.envelope(account) | fields))))

    def deposit(self, owner: bytes, amount_uusd: int, account: int = 0) -> int:
        """Credits `account` or opens one; its number."""
        result = self.messages(deposit_message(owner, account, amount_uusd))
        return result.messages[0].account

    def list(self, terms: Instrument) -> int:
        """Lists an instrument; its market."""
        message = L1Message(MessageKind.LIST_INSTRUMENT, VAULT, 0, terms.encode())
        return self.messages(message).messages[0].market

    def set_publishers(self, quorum: int = 2, addresses: Sequence[bytes] = PUBLISHERS) -> None:
        leaf = Publishers(quorum, tuple(addresses))
        self.messages(L1Message(MessageKind.SET_PUBLISHERS, VAULT, 0, leaf.encode()))

    def set_fees(self, **terms: int) -> None:
        """The governor's terms of fees: the defaults but for these."""
        self.messages(L1Message(MessageKind.SET_FEES, VAULT, 0, FeeTerms(**terms).encode()))

    def update(self, prices: dict[str, int], publishers: Sequence[bytes] = PUBLISHERS) -> Transaction:
        """An oracle update in which all publishers report the same prices now."""
        self._count += 1
        listed = tuple(Price(feed, value, PPM) for feed, value in prices.items())
        report = OracleReport(self.now_ms, listed, _NO_SIGNATURE)
        digest = keccak(b"update" + self._count.to_bytes(8, "big"))
        return Transaction(OracleUpdate((report,) * len(publishers)), tuple(publishers), digest)

    def report(self, prices: dict[str, int]) -> TransactionResult:
        return self.send(self.update(prices))

    def place(
        self,
        account: int,
        market: int,
        side: Side,
        price_uusd: int,
        size_ulots: int,
        kind: OrderKind = OrderKind.LIMIT,
        *,
        reduce_only: bool = False,
        expiry_s: int = 0,
        self_trade: SelfTrade = SelfTrade.CANCEL_MAKER,
    ) -> TransactionResult:
        placed = Order(market, side, kind, price_uusd, size_ulots, reduce_only, expiry_s, self_trade)
        return self.act(PlaceOrder, account, order=placed)

    def cancel(self, account: int, market: int, order_id: int) -> TransactionResult:
        return self.act(CancelOrder, account, cancel=Cancel(market, order_id))

    @property
    def system(self) -> System:
        leaf: System = self.view.get(SYSTEM_KEY)
        return leaf

    @property
    def parameters(self) -> Parameters:
        leaf: Parameters = self.view.get(PARAMETERS_KEY)
        return leaf

    def account(self, number: int) -> Account:
        leaf: Account = self.view.get(account_key(number))
        return leaf

    def market(self, number: int) -> Market:
        leaf: Market = self.view.get(market_key(number))
        return leaf

    def position(self, account: int, market: int) -> Position | None:
        leaf: Position | None = self.view.get(position_key(account, market))
        return leaf


def standard_exchange(
    traders: int = 3, markets: int = 1, cash_uusd: int = 1_000_000 * USD, **terms: int
) -> Exchange:
    """An exchange with publishers, listed and marked perpetuals, and funded accounts 1 to `traders`.

    Market n has index and mark of n thousand dollars; `terms` change the usual ones.
    """
    exchange = Exchange()
    exchange.set_publishers()
    prices: dict[str, int] = {}
    for number in range(1, markets + 1):
        coin = f"C{number}"
        exchange.list(instrument(f"{coin}-PERPETUAL", coin, **terms))
        prices[coin] = prices[f"{coin}-PERPETUAL"] = number * 1_000 * USD
    exchange.report(prices)
    for number in range(1, traders + 1):
        exchange.deposit(owner_address(number), cash_uusd)
    return exchange
