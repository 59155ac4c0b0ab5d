"""An account after a batch: all figures from proved leaves, the margin by its components, adding up."""

from __future__ import annotations

import pytest

from sequencer.api_moments import moment_view
from sequencer.liquidation_proofs import Moment, NotProved
from sequencer.margin_vector import Components, MarginVector, margin_vector
from state import keys
from state.actions import Side
from state.leaves import Account, Pricing
from state.margin import margin
from state.proofs import AbsenceProof, MembershipProof, verify_absence, verify_membership
from state.tree import Tree
from tests.tree_model import MemoryStore
from tests.unit.test_portfolio_state import INDEX, Trading, terms_of
from tests.unit.test_risk import mixed, move
from tools.exchange import COIN, USD, Exchange, owner_address, standard_exchange


def tree_of(exchange: Exchange) -> Tree:
    tree = Tree(MemoryStore(), 4_096)
    tree.update(exchange.leaves())
    return tree


def moment_of(exchange: Exchange, account: int) -> Moment:
    return Moment(tree_of(exchange).view(), account)


def vector_of(exchange: Exchange, account: int) -> MarginVector:
    found = moment_of(exchange, account).margin()
    assert found is not None
    return found


def check_components(of: Components) -> None:
    """iMARGIN_010."""
    assert of.required_uusd == of.loss_uusd + sum(of.contingencies_uusd.values())
    lowest = min(each.pnl_uusd for each in of.scenarios)
    assert of.worst_uusd == min(lowest, of.basis_uusd)
    if of.worst_scenario is None:
        assert of.basis_uusd < lowest
    else:
        assert of.scenarios[of.worst_scenario].pnl_uusd == of.worst_uusd
    # `worst` is shown rounded down, by less than a uusd.
    assert -(of.worst_uusd + 1) * of.factor - 1 <= of.loss_uusd <= -of.worst_uusd * of.factor + 1


def check_vector(exchange: Exchange, account: int, vector: MarginVector) -> None:
    """Components add up to the totals, and the totals are those of the state."""
    stated = margin(exchange.view, account)
    assert stated is not None
    assert (vector.equity_uusd, vector.initial_uusd, vector.maintenance_uusd) == stated[:3]
    marks = sum(each.mark_to_market_uusd for each in vector.underlyings)
    assert vector.equity_uusd == vector.cash_uusd + vector.settling_uusd + marks
    for kind in ("initial", "maintenance"):
        parts = [getattr(each, kind) for each in vector.underlyings]
        assert sum(part.required_uusd for part in parts) == getattr(vector, f"{kind}_uusd")
        for part in parts:
            check_components(part)


@pytest.mark.parametrize("dollars", [-100, 0, 150])
def test_imargin_010_an_account_of_everything(dollars: int) -> None:
    market, poor = mixed()
    move(market, INDEX + dollars * USD)
    vector = vector_of(market.exchange, poor)
    check_vector(market.exchange, poor, vector)
    assert [each.underlying for each in vector.underlyings] == ["C1"]
    assert set(vector.underlyings[0].initial.contingencies_uusd) == {
        "perp_mm", "perp_im", "perp_oracle", "option_mm", "option_im", "option_oracle"
    }  # fmt: skip
    assert set(vector.underlyings[0].maintenance.contingencies_uusd) == {"perp_mm", "option_mm"}


def test_underlyings_add_up_without_offsets() -> None:
    exchange = standard_exchange(3, 2)
    poor = exchange.deposit(owner_address(9), 1_000 * USD)
    for market, side in ((1, Side.BUY), (2, Side.SELL)):
        exchange.place(1, market, Side(1 - side), market * 1_000 * USD, COIN)
        exchange.place(poor, market, side, market * 1_000 * USD, COIN)
    exchange.place(poor, 2, Side.SELL, 2_100 * USD, COIN // 10)
    vector = vector_of(exchange, poor)
    check_vector(exchange, poor, vector)
    assert [each.underlying for each in vector.underlyings] == ["C1", "C2"]
    worst = [each.maintenance.scenarios[each.maintenance.worst_scenario or 0] for each in vector.underlyings]
    assert worst[0].spot < 1 < worst[1].spot, "long the one, short the other"


def test_the_basis_may_be_worse_than_any_scenario() -> None:
    market = Trading()
    poor = market.poor(1_000)
    market.trade(poor, 1, market.future, INDEX, COIN)
    market.trade(1, poor, 1, INDEX, COIN)
    vector = vector_of(market.exchange, poor)
    check_vector(market.exchange, poor, vector)
    assert vector.underlyings[0].maintenance.worst_scenario is None


def test_an_account_without_anything() -> None:
    exchange = standard_exchange(1)
    found = vector_of(exchange, 1)
    assert (found.equity_uusd, found.initial_uusd, found.maintenance_uusd) == (found.cash_uusd, 0, 0)
    assert moment_of(exchange, 9).margin() is None


def test_every_value_has_its_proof_and_nothing_else_is_read() -> None:
    market, poor = mixed()
    exchange = market.exchange
    tree = tree_of(exchange)
    moment = Moment(tree.view(), poor, [(1, market.call), (2, 0), (99, 1)])
    shown = moment_view(moment, 1, str)
    assert shown.root == "0x" + tree.root.hex()
    proved: dict[str, bytes | None] = {}
    for each in shown.proofs:
        leaf, encoded = bytes.fromhex(each.key[2:]), bytes.fromhex(each.encoded[2:])
        if each.present:
            proved[each.key] = verify_membership(tree.root, MembershipProof.decode(encoded), leaf)
        else:
            verify_absence(tree.root, AbsenceProof.decode(encoded), leaf)
            proved[each.key] = None
    expiry = shown.expiries[0].expiry
    assert [each.feed for each in shown.oracle] == ["C1", "C1-PERPETUAL", expiry]
    assert [each.leaf for each in shown.expiries] == ["snapshot", "rate", "surface"]
    for key in [each.key for each in shown.oracle] + [each.key for each in shown.expiries]:
        assert proved[key] is not None
    snapshot = shown.expiries[0]
    encoded_leaf = proved[snapshot.key]
    assert encoded_leaf is not None
    assert Pricing(**snapshot.values) == Pricing.decode(encoded_leaf)
    assert snapshot.values["index_uusd"] == INDEX
    for other, held in ((1, market.call), (99, 1)):
        wanted = "0x" + keys.position_key(other, held).hex()
        assert (proved[wanted] is not None) == (exchange.position(other, held) is not None)
    account = proved["0x" + keys.account_key(2).hex()]
    assert account is not None
    assert Account.decode(account) == exchange.account(2)
    assert shown.margin == margin_vector(exchange.view, poor, exchange.account(poor).cash_uusd)
    assert {each.instrument_name for each in shown.holdings} == {"1", str(market.call), str(market.future)}
    with pytest.raises(NotProved):
        moment.view.get(keys.market_key(market.put + 99))
    assert terms_of(exchange, market.put).expiry in moment.expiries
