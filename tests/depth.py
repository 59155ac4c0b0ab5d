"""What tests of block trades, protection and triggers share: a chain of options, quotes, witnesses."""

from __future__ import annotations

from typing import Any

from state.actions import ExecuteQuote, Leg, Quote, Side, Transaction
from state.block import TransactionResult
from state.calendar import Rule
from state.errors import Rejected
from state.keys import extras_key
from state.leaves import Extras
from state.recorder import RecordedExecution
from state.transition import BlockExecution
from tests.unit.test_transition_steps import Witnessed
from tools.exchange import COIN, USD, Exchange, l1_origin, standard_exchange
from tools.option_exchange import full_update, make_due, markets_of, series_message

INDEX = 1_000 * USD
SIGNATURE = bytes(64)


def chain_exchange(traders: int = 4, strikes: int = 2) -> tuple[Exchange, dict[str, int]]:
    """C1 with a perpetual (market 1) and one expiry: its future, calls and puts, by what follows the date in
    their names (`F` for the future); and C2 with a perpetual (market 2)."""
    exchange = standard_exchange(traders, 2)
    exchange.messages(series_message("C1", Rule.DAILY, 1, strikes=strikes))
    make_due(exchange)
    exchange.now_ms += 1_000
    update(exchange, INDEX)
    markets = {"P": 1, "C2": 2}
    for name, market in markets_of(exchange, 1).items():
        markets["".join(name.split("-")[2:]) or "F"] = market
    return exchange, markets


def update(exchange: Exchange, index_uusd: int, second_uusd: int = 2_000 * USD) -> TransactionResult:
    """Everything is reported; all marks of C1 follow its index."""
    return exchange.send(full_update(exchange, {"C1": index_uusd, "C2": second_uusd}))


def quote_of(
    exchange: Exchange, legs: tuple[Leg, ...], net_uusd: int, account: int = 1, **more: Any
) -> Quote:
    """A good quote of account 1, but for what is given."""
    fields: dict[str, Any] = {
        "taker_account": 0,
        "terms_hash": bytes(32),
        "nonce": 7,
        "expiry_s": exchange.now_ms // 1_000 + 30,
        "max_fee_uusd": 1_000 * USD,
    }
    return Quote(account, legs, net_uusd, **(fields | more))


def execution(exchange: Exchange, quote: Quote, account: int = 2, **more: Any) -> Transaction:
    """Signed by the owner of `account`, the quote by its account's."""
    fields: dict[str, Any] = {"quote": quote, "quote_signature": SIGNATURE, "limit_uusd": quote.net_uusd}
    return exchange.sign(ExecuteQuote(**(exchange.envelope(account) | fields | more)))


def extras(exchange: Exchange, account: int) -> Extras | None:
    leaf: Extras | None = exchange.view.get(extras_key(account))
    return leaf


def witness_block(exchange: Exchange, *transactions: Transaction) -> set[int]:
    """Executes a block of these in the exchange and beside it step by step, each step again from its witness;
    the tasks there were. What is refused is refused in both."""
    witnessed = Witnessed()
    witnessed.store.leaves = exchange.leaves()
    witnessed.tree.update(dict.fromkeys(_genesis_keys(witnessed, exchange)))
    witnessed.tree.update(witnessed.store.leaves)
    recorded = RecordedExecution(witnessed.store, exchange.now_ms, l1_origin(0), (), witnessed.step)
    made = BlockExecution(exchange.view, exchange.now_ms, l1_origin(0), ())
    for transaction in transactions:
        assert _outcome(recorded, transaction) == _outcome(made, transaction)
    result = made.end()
    assert recorded.end() == result
    exchange.results.append(result)
    assert witnessed.store.leaves == exchange.leaves()
    return witnessed.tasks


def _genesis_keys(witnessed: Witnessed, exchange: Exchange) -> set[bytes]:
    return set(Witnessed().store.leaves) - witnessed.store.leaves.keys()


def _outcome(block: BlockExecution, transaction: Transaction) -> object:
    try:
        return block.execute(transaction)
    except Rejected as refusal:
        return refusal.code, refusal.data


def straddle(markets: dict[str, int], size: int = COIN) -> tuple[Leg, ...]:
    """The maker sells a straddle at 1000 and buys the perpetual's half."""
    return (
        Leg(markets["1000C"], Side.SELL, size),
        Leg(markets["1000P"], Side.SELL, size),
        Leg(markets["P"], Side.BUY, size // 2),
    )
