"""A devnet in one call: an L1, the contracts, listed instruments, oracle publishers and funded traders.

Everything goes the way it would on a real L1: the governor's messages and the deposits are L1 transactions
that the node reads from the inbox; the terms of L1's prices say this L1's block time and usual tip. Keys are
the public development keys and keys derived from names, so `open_devnet` refuses any L1 that is not a
development chain.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from l1_bridge.abi import contract
from l1_bridge.anvil import Anvil, AnvilMissing
from l1_bridge.client import RpcClient, connect
from l1_bridge.deploy import (
    DeployConfig,
    Deployment,
    Sender,
    deploy,
    deposit,
    govern,
    list_instrument,
    list_series,
    mint_test_dollars,
    set_feed,
    set_l1_terms,
    set_publishers,
)
from l1_bridge.keys import DEVNET_CHAIN_IDS, DEVNET_KEYS, KeyRefused, devnet_signer
from sequencer.cli_support import CliError
from state.calendar import DAY_S, Rule
from state.genesis import GENESIS_ROOT
from state.leaves import Instrument, L1Terms, Series, Terms
from state.oracle import FeedKind
from state.series import CALLS, FUTURES, PUTS
from state.signatures import address_of
from state.units import MAX_NAME_BYTES, MAX_SIZE_ULOTS, ULOTS_PER_LOT
from tools.l1_process import embedded_l1
from tools.market import MarketSpec, Trader, strike_step_uusd

ROLLUP_CHAIN_ID = 424_242
CHALLENGE_WINDOW_S = 10
FORCED_DELAY_S = 7 * DAY_S
"""More than the day that time may travel at once: what waited in the inbox would be overdue in one jump."""
GOVERNOR, POSTER = 0, 1
PUBLISHERS = ("publisher 1", "publisher 2", "publisher 3")
QUORUM = 2
EXPIRIES_AHEAD = 2
STRIKES_EACH_SIDE = 3
OURS = ("embedded", "anvil")
"""Chains that are started here, with a block each second: prices of L1 may move by their step in each."""
OUR_BLOCK_MS = 1_000
INDEX_HEARTBEAT_MS = 15 * 60 * 1_000
"""Of the index that options settle at: when time travels, reports are minutes apart."""


@dataclass(frozen=True, slots=True)
class Devnet:
    """A running devnet; `sequencer_secret` signs blocks, `poster_secret` pays for batches."""

    l1_url: str
    client: RpcClient
    governor: Sender
    deployment: Deployment
    publishers: tuple[Trader, ...]
    sequencer_secret: bytes
    poster_secret: bytes

    def node_environment(self) -> dict[str, str]:
        """Secrets for the node's process, which takes none from its configuration file."""
        return {
            "STRADDLE_SEQUENCER_KEY_PRIVATE_KEY": self.sequencer_secret.hex(),
            "STRADDLE_POSTER_KEY_PRIVATE_KEY": self.poster_secret.hex(),
        }

    async def fund(self, traders: Sequence[Trader], amount_uusd: int) -> None:
        """Deposits for every trader into a new account of its own."""
        owner, token = self.governor.signer.address, self.deployment.token_address
        total_uusd = amount_uusd * len(traders)
        await mint_test_dollars(self.governor, token, owner, total_uusd)
        approve = contract("TestToken").call("approve", self.deployment.vault_address, total_uusd)
        await self.governor.send(token, approve)
        for trader in traders:
            await deposit(
                self.governor,
                self.deployment.vault_address,
                token,
                amount_uusd,
                owner=address_of(trader.secret),
            )

    async def list_options(self, spec: MarketSpec, price_uusd: int) -> None:
        """A daily series of a future and options around the index, which must have been reported."""
        messages = [
            set_feed(FeedKind.PRICE, spec.underlying, INDEX_HEARTBEAT_MS),
            list_series(option_series(spec, price_uusd)),
        ]
        await govern(self.governor, self.deployment.inbox_address, messages)


@asynccontextmanager
async def open_devnet(l1: str, markets: Sequence[MarketSpec]) -> AsyncIterator[Devnet]:
    """`l1` is `embedded`, `anvil`, or the URL of a development chain's node; ends what it started.

    Raises KeyRefused for any other chain, CliError without anvil, L1Unavailable.
    """
    with ExitStack() as stack:
        if l1 == "embedded":
            url = stack.enter_context(embedded_l1())
        elif l1 == "anvil":
            url = stack.enter_context(_anvil()).url
        else:
            url = l1
        client, transport = connect(url)
        stack.callback(transport.close)
        chain_id = await client.chain_id()
        if chain_id not in DEVNET_CHAIN_IDS:
            raise KeyRefused(
                f"L1 has chain id {chain_id}: a devnet needs a development chain, {DEVNET_CHAIN_IDS}"
            )
        governor = Sender(client, devnet_signer(GOVERNOR))
        config = DeployConfig(
            rollup_chain_id=ROLLUP_CHAIN_ID,
            genesis_root=GENESIS_ROOT,
            governor=governor.signer.address,
            poster=devnet_signer(POSTER).address,
            guardian=governor.signer.address,
            challenge_window_s=CHALLENGE_WINDOW_S,
            forced_delay_s=FORCED_DELAY_S,
        )
        deployment = await deploy(governor, config)
        publishers = tuple(Trader(name) for name in PUBLISHERS)
        terms = L1Terms(tip_wei=(await client.fees()).tip_wei)
        if l1 in OURS:
            terms.slot_ms = OUR_BLOCK_MS
        messages = [
            set_l1_terms(terms),
            set_publishers(QUORUM, [address_of(publisher.secret) for publisher in publishers]),
        ]
        messages += [list_instrument(perpetual(spec)) for spec in markets]
        await govern(governor, deployment.inbox_address, messages)
        sequencer = Trader("sequencer")
        yield Devnet(url, client, governor, deployment, publishers, sequencer.secret, DEVNET_KEYS[POSTER])


def _anvil() -> Anvil:
    try:
        return Anvil(block_time_s=1, options=("--mixed-mining",))
    except AnvilMissing as error:
        raise CliError(str(error)) from None


def perpetual(spec: MarketSpec) -> Instrument:
    """The instrument to list: 0 and 0.05 % fees."""
    terms: dict[str, Any] = {
        "name": spec.instrument.encode().ljust(31, b"\0"),
        "kind": 0,
        "underlying": spec.underlying.encode().ljust(31, b"\0"),
        "status": 1,
        "tick_uusd": spec.tick_uusd,
        "lot_ulots": spec.lot_ulots,
        "min_size_ulots": spec.lot_ulots,
        "max_size_ulots": MAX_SIZE_ULOTS // spec.lot_ulots * spec.lot_ulots,
        "band_ppm": 100_000,
        "maker_fee_ppm": 0,
        "taker_fee_ppm": 500,
        "impact_notional_uusd": 10_000_000_000,
    }
    return Instrument(**terms)


def option_series(spec: MarketSpec, price_uusd: int) -> Series:
    """The next days' future and options; ticks ten times the perpetual's, fees 0 and 0.03 %."""
    tick = 10 * spec.tick_uusd
    lot = max(ULOTS_PER_LOT // 100, ULOTS_PER_LOT // tick)
    terms = Terms(
        tick_uusd=tick,
        lot_ulots=lot,
        min_size_ulots=lot,
        max_size_ulots=MAX_SIZE_ULOTS // lot * lot,
        band_ppm=200_000,
        maker_fee_ppm=0,
        taker_fee_ppm=300,
        impact_notional_uusd=10_000_000_000,
    ).encode()
    return Series(
        underlying=spec.underlying.encode().ljust(MAX_NAME_BYTES, b"\0"),
        rule=Rule.DAILY,
        ahead=EXPIRIES_AHEAD,
        kinds=FUTURES | CALLS | PUTS,
        strike_step_uusd=strike_step_uusd(price_uusd),
        strikes=STRIKES_EACH_SIDE,
        future=terms,
        option=terms,
    )
