"""The main job (`make run`): a market on a rollup, from real deposits to a withdrawal paid on L1.

Starts an L1, deploys, starts a node and an independent verifier as processes of their own, funds traders,
replays a tape through the public JSON-RPC port, withdraws for one trader by Merkle proof, waits until every
posted root is verified, and checks that money was conserved. Options come from the environment (see the
Makefile); exit status 0 means that all of it held.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import typer
from rich.console import Console

from l1_bridge.abi import contract
from l1_bridge.keys import address_of
from l1_bridge.rollup import RollupContract
from l1_bridge.withdrawals import Claim, claim, is_paid, wait_final
from sequencer.cli_support import CliError, exits_cleanly
from sequencer.client import NodeClient, NodeError
from state.actions import Withdraw
from state.eip712 import Domain
from state.keys import SYSTEM_KEY, withdrawal_key
from state.leaves import System
from tools.devnet import Devnet, open_devnet
from tools.flow import Flow, Listed
from tools.job_display import Display, Progress
from tools.market import MAX_FEE_UUSD, MarketSpec, Trader, spec_for
from tools.services import ServiceFailed, following_verifier, node_config, running_node
from tools.tape import TapeError, TapeTrade, read_tape, synthetic_tape

RUN_DIR = Path("data/run")
SYNTHETIC_TRADES = 3_000
SYNTHETIC_SEED = 1
TAKERS = 8
DEPOSIT_UUSD = 50_000_000 * 10**6
WITHDRAWAL_UUSD = 1_234_567_890
SETTLE_TIMEOUT_S = 180


@dataclass(frozen=True, slots=True)
class Options:
    tape: Path | None
    l1: str
    duration_s: float | None
    json: Path | None

    @classmethod
    def of(cls, environment: dict[str, str]) -> Options:
        """Raises ValueError naming the option."""
        duration = environment.get("DURATION", "")
        try:
            duration_s = float(duration) if duration else None
        except ValueError:
            raise ValueError(f"DURATION={duration}: expected a number of seconds") from None
        if duration_s is not None and duration_s <= 0:
            raise ValueError(f"DURATION={duration}: expected more than 0 seconds")
        l1 = environment.get("L1") or "embedded"
        if l1 not in ("embedded", "anvil") and not l1.startswith(("http://", "https://")):
            raise ValueError(f"L1={l1}: expected embedded, anvil or a URL")
        tape = environment.get("TAPE")
        if tape and not Path(tape).is_file():
            raise ValueError(f"TAPE={tape}: there is no such file")
        path = environment.get("JSON")
        return cls(Path(tape) if tape else None, l1, duration_s, Path(path) if path else None)


class Job:
    """One run. `run` does everything in order; the parts below it are its steps."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.console = console
        self.progress = Progress()
        self.display = Display(self.progress, console)
        self._ports = _free_port(8645), _free_port(8646)
        self._url = f"http://127.0.0.1:{self._ports[0]}"
        self._tape = _tape(options)

    async def run(self) -> dict[str, Any]:
        """The summary. Raises ServiceFailed, L1Error, KeyRefused."""
        specs = _specs(self._tape)
        makers = {spec.underlying: Trader(f"maker {spec.underlying}") for spec in specs}
        takers = [Trader(f"taker {number}") for number in range(TAKERS)]
        _empty(RUN_DIR)
        self.progress.stage = f"starting L1 ({self.options.l1}) and deploying"
        with self.display:
            async with open_devnet(self.options.l1, specs) as devnet:
                self.progress.stage = "starting node and verifier"
                poster = address_of(devnet.poster_secret)
                balance_wei = await devnet.client.balance(poster)
                config = RUN_DIR / "node.toml"
                config.write_text(node_config(devnet, RUN_DIR / "node", *self._ports))
                environment = devnet.node_environment()
                log, verifier_log = RUN_DIR / "node.log", RUN_DIR / "verifier.log"
                async with (
                    running_node(config, log, environment, self._url) as node,
                    following_verifier(
                        devnet, RUN_DIR / "verifier", verifier_log, self._on_verified
                    ) as verifier,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(self._watch, (node, log), (verifier, verifier_log))
                    nursery.start_soon(self._watch_spend, devnet, poster, balance_wei)
                    flow = await self._trade(devnet, specs, makers, takers)
                    summary = await self._settle(devnet, flow, takers[0])
                    self._report(summary)
                    if self.options.duration_s is None:
                        await self._serve()
                    nursery.cancel_scope.cancel()
        return summary

    async def _trade(
        self,
        devnet: Devnet,
        specs: list[MarketSpec],
        makers: dict[str, Trader],
        takers: list[Trader],
    ) -> Flow:
        traders = [*makers.values(), *takers]
        self.progress.stage = f"depositing for {len(traders)} traders"
        await devnet.fund(traders, DEPOSIT_UUSD)
        async with NodeClient(self._url) as client:
            for trader in traders:
                trader.account = await self._account_of(client, trader)
            names = {row["instrument_name"] for row in await client.call("public/get_instruments")}
        missing = [spec.instrument for spec in specs if spec.instrument not in names]
        if missing:
            raise ServiceFailed(f"the node does not list {', '.join(missing)}")
        domain = Domain(devnet.deployment.rollup_chain_id, devnet.deployment.rollup_address)
        markets = {spec.underlying: Listed(number, spec) for number, spec in enumerate(specs, start=1)}
        flow = Flow(self._url, domain, markets, makers, takers, devnet.publishers)
        self.display.flow = flow
        self.progress.stage = "trading"
        with trio.move_on_after(self.options.duration_s or float("inf")):
            await flow.replay(self._tape)
        return flow

    async def _settle(self, devnet: Devnet, flow: Flow, trader: Trader) -> dict[str, Any]:
        """Withdraws, waits for everything to be posted, verified and final, and claims."""
        self.progress.stage = "withdrawing"
        rollup = RollupContract(devnet.client, devnet.deployment.rollup_address)
        recipient = address_of(b"straddle devnet withdrawal to..!")
        now_s = int(time.time())
        action = Withdraw(
            account=trader.account,
            nonce=trader.next_nonce(),
            deadline_s=now_s + 30,
            max_fee_uusd=MAX_FEE_UUSD,
            recipient=recipient,
            amount_uusd=WITHDRAWAL_UUSD,
        )
        with _within(SETTLE_TIMEOUT_S, self.progress):
            async with NodeClient(self._url) as client:
                (receipt,) = await flow.send(client, [(trader, action)])
                if isinstance(receipt, NodeError):
                    raise ServiceFailed(f"the withdrawal was refused: {receipt}")
                self.progress.stage = "waiting for the withdrawal's batch to be final"
                final = await wait_final(rollup, receipt["batch"], poll_s=0.5)
                ready = await self._claim(client, receipt["withdrawal"], final)
                self.progress.stage = "claiming on L1"
                await claim(devnet.governor, devnet.deployment.vault_address, ready)
                paid = await is_paid(rollup, ready.number)
                balance = await self._balance(devnet, recipient)
                self.progress.withdrawals_paid = int(paid and balance == WITHDRAWAL_UUSD)
                self.progress.stage = "verifying every posted root"
                posted = await self._all_verified(rollup)
                conserved = await self._is_conserved(client, devnet, rollup)
                self.progress.conservation_ok = conserved
                return await self._summary(client, devnet, flow, posted)

    async def _account_of(self, client: NodeClient, trader: Trader) -> int:
        owner = "0x" + address_of(trader.secret).hex()
        with trio.fail_after(60):
            while True:
                if found := await client.call("straddle_getAccounts", [owner]):
                    return int(found[0])
                await trio.sleep(0.2)

    async def _claim(self, client: NodeClient, number: int, batch: int) -> Claim:
        key = "0x" + withdrawal_key(number).hex()
        proof = await client.call("straddle_getProof", {"key": key, "at": batch})
        siblings = tuple(bytes.fromhex(each[2:]) for each in proof["siblings"])
        leaf, bits = bytes.fromhex(proof["value"][2:]), bytes.fromhex(proof["bits"][2:])
        return Claim(batch, number, leaf, siblings, bits)

    async def _balance(self, devnet: Devnet, owner: bytes) -> int:
        token = contract("TestToken")
        answer = await devnet.client.call(devnet.deployment.token_address, token.call("balanceOf", owner))
        return int(token.result("balanceOf", answer))

    async def _all_verified(self, rollup: RollupContract) -> int:
        """Waits until all that is posted by now is verified; how many batches that is."""
        posted = await rollup.last_batch()
        while True:
            if len(self.progress.verified) >= posted or self.progress.mismatched:
                return posted
            await trio.sleep(0.1)

    async def _is_conserved(self, client: NodeClient, devnet: Devnet, rollup: RollupContract) -> bool:
        """The vault holds what a proved System leaf says the accounts hold, and what is on its way."""
        final = await rollup.finalized_batch()
        proof = await client.call("straddle_getProof", {"key": "0x" + SYSTEM_KEY.hex(), "at": final})
        system = System.decode(bytes.fromhex(proof["value"][2:]))
        books = await client.call("straddle_status")
        vault = await self._balance(devnet, devnet.deployment.vault_address)
        return bool(books["ready"]) and vault == system.collateral_uusd

    async def _summary(self, client: NodeClient, devnet: Devnet, flow: Flow, posted: int) -> dict[str, Any]:
        tally = flow.tally
        status = await client.call("straddle_status")
        bytes_posted = sum(batch["data_bytes"] for batch in self.progress.verified.values())
        gas = await self._gas_of_batches(devnet)
        return {
            "orders": tally.orders,
            "rejected": tally.rejected,
            "fills": tally.fills,
            "blocks": status["block_number"],
            "batches_posted": posted,
            "roots_verified": len(self.progress.verified),
            "roots_mismatched": self.progress.mismatched,
            "withdrawals_paid": self.progress.withdrawals_paid,
            "conservation_ok": self.progress.conservation_ok,
            "orders_per_s": round(tally.orders_per_s, 1),
            "ack_ms_p50": round(tally.percentile_ms(50), 1),
            "ack_ms_p99": round(tally.percentile_ms(99), 1),
            "l1_gas_total": gas,
            "l1_gas_per_order": round(gas / max(tally.orders, 1), 1),
            "batch_bytes_per_order": round(bytes_posted / max(tally.orders, 1), 1),
        }

    async def _gas_of_batches(self, devnet: Devnet) -> int:
        rollup = RollupContract(devnet.client, devnet.deployment.rollup_address)
        head = await devnet.client.head()
        gas = 0
        for event in await rollup.posted(devnet.deployment.deploy_block, head.number):
            receipt = await devnet.client.receipt(event.transaction_hash)
            gas += receipt.gas_used if receipt else 0
        return gas

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

    async def _watch_spend(self, devnet: Devnet, poster: bytes, balance_wei: int) -> None:
        """What the poster has paid: what it had before the node started, less what is left."""
        while True:
            self.progress.l1_spent_wei = balance_wei - await devnet.client.balance(poster)
            await trio.sleep(1)

    async def _serve(self) -> None:
        self.progress.stage = f"done; serving at {self._url} until Ctrl-C"
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                return

    def _on_verified(self, batch: dict[str, Any]) -> None:
        self.progress.verified[batch["batch"]] = batch

    def _report(self, summary: dict[str, Any]) -> None:
        if self.options.json:
            self.options.json.write_text(json.dumps(summary, indent=1) + "\n")
        self.display.report(summary)


def _tape(options: Options) -> list[TapeTrade]:
    """Raises TapeError for a file that is not a tape, or an empty one."""
    path = options.tape
    found = list(read_tape(path) if path else synthetic_tape(SYNTHETIC_SEED, SYNTHETIC_TRADES))
    if not found:
        raise TapeError(f"TAPE={path}: no trades to replay")
    return found


def _empty(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)


@contextlib.contextmanager
def _within(seconds: float, progress: Progress) -> Iterator[None]:
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise ServiceFailed(f"not done within {seconds:g} s: {progress.stage}") from None


def _specs(tape: list[TapeTrade]) -> list[MarketSpec]:
    first: dict[str, int] = {}
    for trade in tape:
        first.setdefault(trade.underlying, trade.price_uusd)
    return [spec_for(underlying, price) for underlying, price in sorted(first.items())]


def _free_port(wanted: int) -> int:
    """`wanted`, the command line's default, or any other port when that is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def held(summary: dict[str, Any]) -> bool:
    """Whether everything that the job promises held."""
    return bool(
        summary["batches_posted"] > 0
        and summary["roots_verified"] == summary["batches_posted"]
        and not summary["roots_mismatched"]
        and summary["withdrawals_paid"] == 1
        and summary["conservation_ok"]
        and summary["fills"] > 0
    )


@exits_cleanly
def main() -> None:
    """Runs the main job; options come from the environment."""
    try:
        options = Options.of(dict(os.environ))
        job = Job(options, Console())
    except ValueError as error:
        raise CliError(str(error)) from None
    if not held(trio.run(job.run)):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
