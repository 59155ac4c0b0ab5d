"""What random traffic is charged: parts that add up, no more than was allowed, all of it in the pots."""

from __future__ import annotations

import random

import pytest

from state.actions import OracleUpdate, SignedAction
from state.block import L1Message, MessageKind
from state.cache import CachedState, MemorySource
from state.conservation import conservation
from state.errors import Rejected
from state.fee_market import most_within_pusd
from state.fee_tiers import make_tiers
from state.genesis import genesis_leaves
from state.keys import FEE_MARKET_KEY, SYSTEM_KEY
from state.leaves import FeeMarket, FeeTerms, System
from state.transition import BlockExecution, next_batch, open_batch
from state.units import PPM
from tests.random_exchange import Traffic
from tools.exchange import VAULT, l1_origin

BLOCKS = 60


def random_terms(chance: random.Random) -> FeeTerms:
    """Small targets, so that this little traffic moves prices."""
    return FeeTerms(
        execution_target=chance.choice((1, 20, 500)),
        data_target=chance.choice((1, 300, 9_000)),
        growth_target=chance.choice((1, 5, 50)),
        inertia_s=chance.choice((1, 10, 60)),
        burst=chance.choice((1, 2, 5, 50)),
        most_exponent_milli=chance.choice((0, 1_000, 9_210)),
    )


@pytest.mark.parametrize("seed", range(6))
def test_charges_of_random_traffic(seed: int) -> None:
    """iFEE_001, iFEE_002, iFEE_004, iFEE_005, iFEE_007, iTIER_001."""
    chance = random.Random(seed)
    terms = random_terms(chance)
    traffic = Traffic(seed)
    source = MemorySource({key: leaf.encode() for key, leaf in genesis_leaves().items()})
    view = CachedState(source, 10**6)
    open_batch(view, next_batch(view))
    system: System = view.get(SYSTEM_KEY)
    market: FeeMarket = view.get(FEE_MARKET_KEY)
    tiers = make_tiers([(0, -PPM, PPM), (1, -PPM // 2, PPM // 3), (10**10, -PPM, 0)])
    messages = [*traffic.setup(), L1Message(MessageKind.SET_FEES, VAULT, 0, terms.encode())]
    messages += [L1Message(MessageKind.SET_FEE_TIERS, VAULT, 0, tiers.encode())] * (seed % 2)
    charged = rebates = 0
    for number in range(BLOCKS):
        before = (market.execution_pusd, market.data_pusd, market.growth_pusd)
        then_ms, fees, insurance = system.timestamp_ms, system.fees_uusd, system.insurance_uusd
        transactions = traffic.block()
        execution = BlockExecution(view, traffic.now_ms, l1_origin(0), messages)
        if number > 1:
            seconds = -(-(traffic.now_ms - then_ms) // 1_000)
            after = (market.execution_pusd, market.data_pusd, market.growth_pusd)
            minimums = (10_000_000, terms.data_min_pusd, terms.growth_min_pusd)
            for old, new, minimum in zip(before, after, minimums, strict=True):
                assert minimum <= new <= most_within_pusd(terms, old, minimum, seconds)
        total = risk = 0
        for transaction in transactions:
            try:
                result = execution.execute(transaction)
            except Rejected:
                continue
            assert sum(result.fee_parts) == result.fee_uusd
            if isinstance(transaction.payload, OracleUpdate):
                assert result.fee_parts == ()
                continue
            assert isinstance(transaction.payload, SignedAction)
            assert 0 < result.fee_uusd <= transaction.payload.action.max_fee_uusd
            assert min(result.fee_parts) >= 0
            total += result.fee_uusd
            risk += result.fee_parts[-1]
        ended = execution.end()
        results = ended.results
        for each in ended.trades:
            assert each.taker_fee_uusd >= 0 <= each.taker_fee_uusd + each.maker_fee_uusd
        rebates += sum(each.maker_fee_uusd < 0 for each in ended.trades)
        assert system.fees_uusd - fees == total - risk
        if not any(each.liquidations for each in results):
            places = sum(each.priority_uusd for each in results)
            assert risk <= system.insurance_uusd - insurance <= risk + places
        charged += total
        messages = []
    source.apply(view.take_dirty())
    assert conservation(source.leaves.items()) == 0
    assert charged > 0
    assert (rebates > 0) == seed % 2
