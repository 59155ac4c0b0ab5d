"""The main job (`make run`): a derivatives market on a rollup, from real deposits to a withdrawal paid on L1.

Starts an L1, deploys, starts a node and an independent verifier as processes of their own, three oracle
publishers and a keeper; funds traders, replays a tape on perpetuals, has a desk quote a future and options
that takers trade, a block trade and a liquidation, lets the nearest expiry come and settle, withdraws for one
trader by Merkle proof, waits until every posted root is verified, and checks that money was conserved. All
trading goes through the public JSON-RPC port. Options come from the environment (see the Makefile); exit
status 0 means that all of it held.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import typer
from rich.console import Console

from sequencer.cli_support import CliError, exits_cleanly
from sequencer.client import NodeClient
from sequencer.keeper import Keeper
from sequencer.option_chain import ChainError
from sequencer.signing import SecretKey
from state.eip712 import Domain
from state.signatures import address_of
from tools import liquidation_scene
from tools.block_scene import block_trade
from tools.devnet import Devnet, open_devnet
from tools.expiry_scene import see_expiry
from tools.flow import Flow, Listed
from tools.job_clock import JobClock
from tools.job_display import Display, Progress
from tools.job_fees import PosterSpend, look
from tools.job_oracle import MarketSource, Publishers, log_to, reported
from tools.job_quotes import FeeQuotes
from tools.job_settings import Settings
from tools.job_settlement import Settlement, held, within
from tools.liquidation_scene import LiquidationScene, sliding_market
from tools.market import MarketSpec, Trader, spec_for
from tools.option_desk import OptionDesk
from tools.option_market import trading
from tools.option_takers import OptionTakers
from tools.order_sender import OrderSender
from tools.services import ServiceFailed, following_verifier, node_config, running_node
from tools.smiles import ModelSmile, RecordedSmile, smile_of
from tools.tape import TapeError, TapeTrade, read_tape, synthetic_tape

RUN_DIR = Path("data/run")
SYNTHETIC_TRADES = 3_000
SYNTHETIC_SEED = 1
FAVOURITE = "BTC"
"""Options are on it if the tape trades it, and there is no chain that says otherwise."""
TAKERS_BIDS_UUSD = (0, 0, 0, 0, 0, 500, 1_000, 2_000)
"""For each taker, what it bids for a place in a block at most."""
DEPOSIT_UUSD = 50_000_000 * 10**6
START_TIMEOUT_S = 90
SCENES_TIMEOUT_S = 120
KEEPER_INTERVAL_MS = 500


@dataclass(frozen=True, slots=True)
class Cast:
    """Everybody who has an account. `makers` by underlying."""

    makers: dict[str, Trader]
    takers: list[Trader]
    desk: Trader
    victim: Trader
    keeper: Trader

    @property
    def funded(self) -> list[Trader]:
        """All but the victim, who has less."""
        return [*self.makers.values(), *self.takers, self.desk, self.keeper]

    @property
    def everybody(self) -> list[Trader]:
        return [*self.funded, self.victim]


class Job:
    """One run. `run` does everything in order; the parts below it are its steps."""

    def __init__(self, settings: Settings, console: Console) -> None:
        """Raises TapeError, ChainError, OSError for what cannot be replayed."""
        self.settings = settings
        self.progress = Progress()
        self.display = Display(self.progress, console)
        self._ports = _free_port(8645), _free_port(8646)
        self._url = f"http://127.0.0.1:{self._ports[0]}"
        self._tape = _tape(settings.tape)
        self._prices: dict[str, int] = {}
        for trade in self._tape:
            self._prices.setdefault(trade.underlying, trade.price_uusd)
        chain = smile_of(settings.chain) if settings.chain else None
        self._smile: RecordedSmile | ModelSmile = chain or ModelSmile()
        self._specs = {name: spec_for(name, price) for name, price in sorted(self._prices.items())}
        self._underlying = _option_underlying(self._tape, chain)
        self._clock = JobClock()

    async def run(self) -> dict[str, Any]:
        """The summary. Raises ServiceFailed, L1Error, KeyRefused."""
        sliding = sliding_market()
        specs = [*self._specs.values(), sliding]
        self._prices[sliding.underlying] = liquidation_scene.PRICE_UUSD
        cast = Cast(
            {name: Trader(f"maker {name}") for name in self._specs},
            [Trader(f"taker {number}", bid_uusd=bid) for number, bid in enumerate(TAKERS_BIDS_UUSD)],
            Trader("option desk"),
            Trader("over-leveraged"),
            Trader("keeper"),
        )
        _empty(RUN_DIR)
        self.progress.stage = f"starting L1 ({self.settings.l1}) and deploying"
        with self.display, (RUN_DIR / "oracle.log").open("w") as oracle_log:
            log_to(oracle_log)
            async with open_devnet(self.settings.l1, specs) as devnet:
                return await self._run_on(devnet, cast, specs)

    async def _run_on(self, devnet: Devnet, cast: Cast, specs: list[MarketSpec]) -> dict[str, Any]:
        self.progress.stage = "starting node and verifier"
        poster = address_of(devnet.poster_secret)
        spend = PosterSpend(devnet.client, poster, await devnet.client.balance(poster))
        config = RUN_DIR / "node.toml"
        config.write_text(node_config(devnet, RUN_DIR / "node", *self._ports))
        log, verifier_log = RUN_DIR / "node.log", RUN_DIR / "verifier.log"
        async with (
            running_node(config, log, devnet.node_environment(), self._url) as node,
            following_verifier(devnet, RUN_DIR / "verifier", verifier_log, self._on_verified) as verifier,
            NodeClient(self._url) as client,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(self._watch, (node, log), (verifier, verifier_log))
            nursery.start_soon(self._watch_fees, spend)
            source = MarketSource(self._prices, self._underlying, self._smile)
            nursery.start_soon(Publishers(source, devnet.publishers, self._url, self._clock).run)
            await self._open(devnet, cast, client)
            nursery.start_soon(self._keep, cast.keeper)
            domain = Domain(devnet.deployment.rollup_chain_id, devnet.deployment.rollup_address)
            quotes = self.progress.quotes = FeeQuotes(domain, address_of(devnet.sequencer_secret))
            sender = OrderSender(domain, self._clock, quotes)
            markets = {spec.underlying: Listed(number, spec) for number, spec in enumerate(specs, start=1)}
            await self._trade(cast, sender, markets)
            await self._expire(devnet, cast, client)
            summary = await Settlement(devnet, client, sender, spend, self.progress).run(cast.takers[0])
            self._report(summary)
            if self.settings.duration_s is None:
                await self._serve(devnet.l1_url)
            nursery.cancel_scope.cancel()
        return summary

    async def _open(self, devnet: Devnet, cast: Cast, client: NodeClient) -> None:
        """Lists options, funds everybody, and waits until there is something to trade."""
        with within(START_TIMEOUT_S, self.progress):
            self.progress.stage = f"listing a future and options on {self._underlying}"
            await reported(client, [self._underlying], 1)
            spec = self._specs[self._underlying]
            await devnet.list_options(spec, self._prices[self._underlying])
            self.progress.stage = f"depositing for {len(cast.everybody)} traders"
            await devnet.fund(cast.funded, DEPOSIT_UUSD)
            await devnet.fund([cast.victim], liquidation_scene.DEPOSIT_UUSD)
            for trader in cast.everybody:
                trader.account = await self._account_of(client, trader)
            names = {row["instrument_name"] for row in await client.call("public/get_instruments")}
            missing = [spec.instrument for spec in self._specs.values() if spec.instrument not in names]
            if missing:
                raise ServiceFailed(f"the node does not list {', '.join(missing)}")
            self.progress.stage = "waiting for the options' first prices"
            while not await trading(client, self._underlying):  # noqa: ASYNC110 - another process
                await trio.sleep(0.2)
            await self._clock.follow(client)

    async def _trade(self, cast: Cast, sender: OrderSender, markets: dict[str, Listed]) -> None:
        """Everything at once, until the tape or the time is over and both scenes have been played."""
        progress, url = self.progress, self._url
        sender.learn({listed.number: listed.spec.instrument for listed in markets.values()})
        flow = Flow(url, sender, markets, cast.makers, cast.takers, self._prices)
        desk = OptionDesk(url, sender, cast.desk, markets[self._underlying])
        takers = OptionTakers(url, sender, cast.takers, self._underlying)
        progress.tally, progress.desk, progress.takers = sender.tally, desk, takers
        progress.stage = "trading"
        begin = trio.current_time()
        async with trio.open_nursery() as market:
            market.start_soon(desk.run)
            market.start_soon(takers.run)
            async with trio.open_nursery() as scenes:
                scenes.start_soon(self._block_trade, cast, sender)
                scenes.start_soon(self._liquidate, cast, sender, markets[liquidation_scene.UNDERLYING])
                with trio.move_on_after(self.settings.duration_s or float("inf")):
                    await flow.replay(self._tape)
            market.cancel_scope.cancel()
        sender.tally.busy_s = trio.current_time() - begin

    async def _block_trade(self, cast: Cast, sender: OrderSender) -> None:
        with within(SCENES_TIMEOUT_S, self.progress):
            self.progress.block_trades += await block_trade(
                self._url, sender, cast.desk, cast.takers[0], self._underlying
            )

    async def _liquidate(self, cast: Cast, sender: OrderSender, market: Listed) -> None:
        traders = (cast.victim, cast.takers[1], cast.takers[2])
        scene = LiquidationScene(self._url, sender, market, traders, self._prices)
        with within(SCENES_TIMEOUT_S, self.progress):
            self.progress.liquidations += await scene.run()

    async def _expire(self, devnet: Devnet, cast: Cast, client: NodeClient) -> None:
        """Lets the nearest expiry come, where time is ours to move."""
        if not self.settings.can_travel:
            self.display.say(
                "skipped: an expiry; it needs an L1 whose time can travel, and this one is not ours"
            )
            return

        def tell(stage: str) -> None:
            self.progress.stage = stage

        accounts = [trader.account for trader in cast.everybody]
        with within(SCENES_TIMEOUT_S, self.progress):
            self.progress.settled = await see_expiry(
                self._clock, devnet.client, client, self._underlying, accounts, tell
            )

    async def _keep(self, trader: Trader) -> None:
        async with NodeClient(self._url) as client:
            key = SecretKey(trader.secret)
            await Keeper(client, key, trader.account, KEEPER_INTERVAL_MS, self._clock).run()

    async def _account_of(self, client: NodeClient, trader: Trader) -> int:
        owner = "0x" + address_of(trader.secret).hex()
        while True:
            if found := await client.call("straddle_getAccounts", [owner]):
                return int(found[0])
            await trio.sleep(0.2)

    async def _watch(self, *processes: tuple[trio.Process, Path]) -> None:
        """Polls the node for the display; a process that ends early ends the job."""
        async with NodeClient(self._url) as client:
            while True:
                for process, log in processes:
                    if process.poll() is not None:
                        self.progress.mismatched += "verifier" in log.name
                        raise ServiceFailed(f"a process ended with status {process.returncode}; see {log}")
                self.progress.status = await client.call("straddle_status")
                self.display.refresh()
                await trio.sleep(0.25)

    async def _watch_fees(self, spend: PosterSpend) -> None:
        async with NodeClient(self._url) as client:
            while True:
                self.progress.fees = await look(client, spend)
                await trio.sleep(1)

    async def _serve(self, l1_url: str) -> None:
        """The desk quotes what is left, so that there is something to trade by hand."""
        self.progress.stage = f"done; serving at {self._url}, L1 at {l1_url}, until Ctrl-C"
        assert self.progress.desk is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.progress.desk.run)
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    return

    def _on_verified(self, batch: dict[str, Any]) -> None:
        self.progress.verified[batch["batch"]] = batch

    def _report(self, summary: dict[str, Any]) -> None:
        if self.settings.json:
            self.settings.json.write_text(json.dumps(summary, indent=1) + "\n")
        self.display.report(summary)
        assert self.progress.fees is not None
        self.display.say(self.progress.fees.said())
        if summary["quote_exceeded"]:
            self.display.say(f"FAILED: {summary['quote_exceeded']} fee quotes were exceeded in their time")


def _tape(path: Path | None) -> list[TapeTrade]:
    """Raises TapeError for a file that is not a tape, or an empty one."""
    found = list(read_tape(path) if path else synthetic_tape(SYNTHETIC_SEED, SYNTHETIC_TRADES))
    if not found:
        raise TapeError(f"TAPE={path}: no trades to replay")
    return found


def _option_underlying(tape: list[TapeTrade], chain: RecordedSmile | None) -> str:
    """Raises ChainError for a chain of something that the tape does not trade."""
    traded = {trade.underlying for trade in tape}
    if chain is not None and chain.underlying not in traded:
        raise ChainError(
            f"CHAIN: options on {chain.underlying}, but the tape trades {', '.join(sorted(traded))}"
        )
    if chain is not None:
        return chain.underlying
    return FAVOURITE if FAVOURITE in traded else tape[0].underlying


def _empty(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


def _free_port(wanted: int) -> int:
    """`wanted`, the command line's default, or any other port when that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@exits_cleanly
def main() -> None:
    """Runs the main job; options come from the environment."""
    try:
        settings = Settings.of(dict(os.environ))
        job = Job(settings, Console())
    except ValueError as error:
        raise CliError(str(error)) from None
    if not held(trio.run(job.run)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
