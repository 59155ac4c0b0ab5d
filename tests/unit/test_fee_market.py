"""Base prices: how they follow load, by hand, and what governors may set (iFEE_003 to iFEE_006)."""

from __future__ import annotations

from decimal import Decimal, localcontext
from itertools import pairwise

import pytest

from state import fee_market
from state.actions import CancelAll, Order, OrderKind, PlaceOrder, Side
from state.block import L1Message, MessageKind
from state.errors import RejectCode, Rejected
from state.fee_market import advance, most_backlog_ns, most_within_pusd, next_backlog_ns, risen_pusd
from state.fees import charge
from state.genesis import genesis_leaves
from state.keys import FEE_MARKET_KEY, FEE_TERMS_KEY
from state.leaves import FeeMarket, FeeTerms
from tests.exchange_checks import assert_conserved, must_reject
from tools.exchange import COIN, USD, VAULT, Exchange, owner_address, standard_exchange

S = 10**9
TERMS = FeeTerms(1_000, 10_000, 100, 200_000, 10_000_000, 0, 0, inertia_s=10, burst=4)
MINIMUM = 10_000_000


@pytest.fixture
def exchange() -> Exchange:
    return standard_exchange(3)


def registers(exchange: Exchange) -> FeeMarket:
    leaf: FeeMarket = exchange.view.get(FEE_MARKET_KEY)
    return leaf


def set_fees(exchange: Exchange, payload: bytes) -> int:
    message = L1Message(MessageKind.SET_FEES, VAULT, 0, payload)
    return exchange.messages(message).messages[0].code


def exact(price: int, backlog_ns: int, inertia_s: int) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return price * (Decimal(backlog_ns) / (inertia_s * S)).exp()


@pytest.mark.parametrize(
    ("backlog", "used", "elapsed_ms", "expected"),
    [
        (0, 0, 1_000, 0),
        (0, 1_000, 1_000, 0),
        (0, 1_500, 1_000, S // 2),
        (2 * S, 0, 500, 3 * S // 2),
        (2 * S, 0, 10_000, 0),
        (0, 10**9, 1_000, 3 * S),
        (0, 10**9, 100, 3 * S // 10),
        (5 * S, 10**9, 0, 5 * S),
        (0, 100_000, 3_000, S),
        (60 * S, 10**9, 1_000, 60 * S),
    ],
)
def test_backlog_by_hand(backlog: int, used: int, elapsed_ms: int, expected: int) -> None:
    """Target 1,000 a second; at most 4 times that counts, for at most a second; the cap is 69 s at first."""
    terms = FeeTerms(inertia_s=10, burst=4, most_exponent_milli=6_000)
    assert next_backlog_ns(terms, 1_000, backlog, used, elapsed_ms) == expected


def test_work_is_rounded_up() -> None:
    assert next_backlog_ns(TERMS, 3, S, 1, 334) == S + -(-S // 3) - 334_000_000


@pytest.mark.parametrize("backlog", [0, 1, S, 10 * S - 1, 10 * S, 69 * S, 92_099_999_999, 92_100_000_000])
@pytest.mark.parametrize("price", [1, 999, 10_000_000, 10**15])
def test_price_is_the_exponential_rounded_up(price: int, backlog: int) -> None:
    found, wanted = risen_pusd(price, backlog, 10), exact(price, backlog, 10)
    error = wanted / 10**16
    assert wanted - error <= found < wanted + 1 + error


def test_without_load_prices_are_the_minimums() -> None:
    market = FeeMarket()
    advance(market, TERMS, MINIMUM, 50)
    assert (market.execution_pusd, market.data_pusd, market.growth_pusd) == (MINIMUM, 200_000, 10_000_000)


def test_genesis_has_the_prices_of_no_load() -> None:
    market = genesis_leaves()[FEE_MARKET_KEY]
    assert isinstance(market, FeeMarket)
    assert market.execution_pusd == 10_000_000
    assert market.execution_backlog_ns == 0


RESOURCES = ("execution", "data", "growth")


@pytest.mark.parametrize("flooded", RESOURCES)
def test_a_flood_of_one_resource_leaves_the_other_prices(flooded: str) -> None:
    """iFEE_003, and iFEE_004, iFEE_005 on the way up and down."""
    market = FeeMarket()
    advance(market, TERMS, MINIMUM, 50)
    start = {name: getattr(market, f"{name}_pusd") for name in RESOURCES}
    target = getattr(TERMS, f"{flooded}_target")
    prices = [start[flooded]]
    for _ in range(2_000):
        setattr(market, f"{flooded}_used", 20 * target // 20)
        advance(market, TERMS, MINIMUM, 50)
        prices.append(getattr(market, f"{flooded}_pusd"))
        assert {name: getattr(market, f"{name}_pusd") for name in RESOURCES if name != flooded} == {
            name: price for name, price in start.items() if name != flooded
        }
    for before, after in pairwise(prices):
        assert before <= after <= exact(before, 150_000_000, 10) + 1
    assert prices[20] == risen_pusd(prices[0], 3 * S, 10), "three seconds of work are left of four"
    assert prices[-1] == risen_pusd(prices[0], most_backlog_ns(TERMS), 10) < 1_001 * prices[0]
    falling = [prices[-1]]
    while falling[-1] > prices[0]:
        advance(market, TERMS, MINIMUM, 50)
        falling.append(getattr(market, f"{flooded}_pusd"))
        assert falling[-2] <= exact(falling[-1], 50_000_000, 10) + 1
    assert len(falling) - 1 == -(-most_backlog_ns(TERMS) // 50_000_000), "it is worked off in real time"


def test_most_within_is_reached_and_never_exceeded() -> None:
    """What a quote may promise: iFEE_004 over any seconds."""
    market = FeeMarket(execution_backlog_ns=7 * S + 13)
    advance(market, TERMS, MINIMUM, 0)
    promised = [most_within_pusd(TERMS, market.execution_pusd, MINIMUM, seconds) for seconds in range(40)]
    assert promised[0] <= market.execution_pusd + 1
    assert promised[-1] == risen_pusd(MINIMUM, most_backlog_ns(TERMS), 10) == promised[-2]
    for block in range(1, 40 * 8):
        market.execution_used = 10**9
        advance(market, TERMS, MINIMUM, 125)
        within = -(-block // 8)
        if within < 40:
            assert market.execution_pusd <= promised[within]
            if block % 8 == 0:
                assert market.execution_pusd * 10**6 > promised[within] * (10**6 - 1)


def test_blocks_at_one_time_do_not_move_prices() -> None:
    market = FeeMarket()
    advance(market, TERMS, MINIMUM, 1)
    before = market.execution_pusd
    for _ in range(100):
        market.execution_used = 10**9
        advance(market, TERMS, MINIMUM, 0)
    assert market.execution_pusd == before


# In blocks


def test_a_block_pays_what_was_decided_before_it(exchange: Exchange) -> None:
    """iFEE_006: within a block all pay the same prices; the next one begins with its use."""
    assert set_fees(exchange, FeeTerms(execution_target=100, growth_target=100).encode()) == 0
    exchange.now_ms += 50
    with exchange.block() as execution:
        fees = [
            execution.execute(exchange.sign(limit(exchange, 900 - place))).fee_parts for place in range(30)
        ]
    assert {parts[2:4] for parts in fees} == {(140, 20)}
    market = registers(exchange)
    assert (market.execution_used, market.growth_used) == (30 * 14, 60)
    assert market.execution_backlog_ns == market.growth_backlog_ns == 0
    exchange.now_ms += 1_000
    exchange.messages()
    assert market.execution_backlog_ns == 4_200_000_000 - S
    assert market.growth_backlog_ns == 0, "60 of 100"
    assert market.data_backlog_ns == 0
    assert market.execution_pusd == risen_pusd(10_000_000, 3_200_000_000, 60)


def limit(exchange: Exchange, dollars: int) -> PlaceOrder:
    order = Order(1, Side.BUY, OrderKind.LIMIT, dollars * USD, COIN // 10)
    return PlaceOrder(**exchange.envelope(1), order=order)


def test_parts_by_hand(exchange: Exchange) -> None:
    """iFEE_001: 85 bytes, 14 units, 2 leaves; each part rounded up, the sum taken from cash."""
    market = FeeMarket(10_000_001, 200_000, 10_000_000, 500_000, 10_000)
    assert charge(3_000_000, market, 14, 2, 85, 7) == (255, 17, 141, 20, 8, 7)
    assert charge(0, FeeMarket(1, 1, 1, 1, 1), 1, 0, 0, 0) == (0, 0, 1, 0, 1, 0)
    assert charge(1, FeeMarket(), 10**6, 0, 10**6 + 1, 0) == (2, 0, 0, 0, 0, 0)
    before, fees = exchange.account(1).cash_uusd, exchange.system.fees_uusd
    result = exchange.send(exchange.sign(limit(exchange, 900)))
    assert len(result.fee_parts) == 6
    assert sum(result.fee_parts) == result.fee_uusd == before - exchange.account(1).cash_uusd
    assert exchange.system.fees_uusd == fees + sum(result.fee_parts[:5])
    assert exchange.system.insurance_uusd == result.fee_parts[5] > 0
    assert_conserved(exchange)


def test_a_risen_price_is_refused_free_above_max_fee(exchange: Exchange) -> None:
    """iFEE_002."""
    quoted = exchange.send(exchange.sign(limit(exchange, 900))).fee_uusd
    set_fees(exchange, FeeTerms(execution_target=1).encode())
    for _ in range(3):
        exchange.now_ms += 1_000
        exchange.place(2, 1, Side.BUY, 800 * USD, COIN)
    exchange.now_ms += 1_000
    order = Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN // 10)
    action = PlaceOrder(**exchange.envelope(1) | {"max_fee_uusd": quoted}, order=order)
    refusal = must_reject(exchange, RejectCode.FEE_ABOVE_MAX, exchange.sign(action))
    assert refusal.data["max_fee_uusd"] == quoted
    assert int(refusal.data["fee_uusd"]) > quoted


def test_terms_hold_from_the_next_block_on(exchange: Exchange) -> None:
    exchange.messages()
    before = registers(exchange).encode()
    new = FeeTerms(data_min_pusd=5, growth_min_pusd=6, proof_unit_pusd=7, finality_byte_pusd=8)
    assert set_fees(exchange, new.encode()) == 0
    assert registers(exchange).encode() == before
    exchange.messages()
    market = registers(exchange)
    assert (market.data_pusd, market.growth_pusd, market.proof_unit_pusd, market.finality_byte_pusd) == (
        5,
        6,
        7,
        8,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"execution_target": 0},
        {"data_target": 0},
        {"growth_target": 10**12 + 1},
        {"data_min_pusd": 10**15 + 1},
        {"growth_min_pusd": 10**15 + 1},
        {"proof_unit_pusd": 10**15 + 1},
        {"finality_byte_pusd": 10**15 + 1},
        {"inertia_s": 0},
        {"inertia_s": 86_401},
        {"burst": 0},
        {"burst": 1_001},
        {"most_exponent_milli": 9_211},
        {"open_interest_uusd": 0},
        {"risk_ppm": 10_001},
        {"risk_resting_ppm": 10**6 + 1},
        {"risk_most_ppm": 10_001},
        {"volatility_ppm": 0},
        {"variance_window_s": 59},
        {"variance_window_s": 86_401},
        {"fund_target_ppm": 10**6 + 1},
    ],
)
def test_bad_terms_change_nothing(exchange: Exchange, changes: dict[str, int]) -> None:
    assert set_fees(exchange, FeeTerms(**changes).encode()) == RejectCode.BAD_PARAMETERS
    assert set_fees(exchange, FeeTerms().encode() + b"\0") == RejectCode.MALFORMED_MESSAGE
    assert exchange.view.get(FEE_TERMS_KEY) is None


def test_the_dearest_prices_fit_their_register() -> None:
    terms = FeeTerms(
        data_min_pusd=10**15, growth_min_pusd=10**15, most_exponent_milli=fee_market.MAX_EXPONENT_MILLI
    )
    most = most_backlog_ns(terms)
    market = FeeMarket(execution_backlog_ns=most, data_backlog_ns=most, growth_backlog_ns=most)
    advance(market, terms, 10**15, 0)
    assert FeeMarket.decode(market.encode()) == market
    assert market.data_pusd > 9_990 * 10**15


def test_oracle_updates_and_refusals_are_no_load(exchange: Exchange) -> None:
    exchange.now_ms += 50
    with exchange.block() as execution:
        execution.execute(exchange.update({"C1": 1_001 * USD}))
    with exchange.block() as execution:
        refused = exchange.sign(limit(exchange, 900))
        execution.refuse(refused, b"its bytes", Rejected(RejectCode.EMPTY_ACTION))
    market = registers(exchange)
    assert (market.execution_used, market.data_used, market.growth_used) == (0, 0, 0)


def test_a_poor_account_pays_no_part(exchange: Exchange) -> None:
    account = exchange.deposit(owner_address(9), 100)
    action = CancelAll(**exchange.envelope(account), market=0)
    must_reject(exchange, RejectCode.INSUFFICIENT_CASH, exchange.sign(action))
