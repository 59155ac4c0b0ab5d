"""The command line from a new key to a payout, with a node in its own process and the embedded L1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
from typer.testing import CliRunner, Result

from sequencer.cli import app
from sequencer.client import NodeClient, NodeUnreachable
from state.eip712 import Domain
from tests.crash.node_process import free_port
from tests.prices import publish_prices
from tools.devnet import CHALLENGE_WINDOW_S, ROLLUP_CHAIN_ID, Devnet, open_devnet
from tools.market import spec_for

PRICE_UUSD = 60_000_000_000
SPEC = spec_for("BTC", PRICE_UUSD)
OTHER_ROLLUP = "0x" + "5a" * 20
DEADLINE_S = 120


@dataclass
class Desk:
    """A devnet, its node, and a trader at the command line."""

    devnet: Devnet
    url: str
    directory: Path
    options: dict[str, str] = field(default_factory=dict)

    async def run(self, *arguments: str, **environment: str) -> Result:
        """Runs a command that must succeed."""
        return await self._run(arguments, 0, environment)

    async def json(self, *arguments: str, **environment: str) -> Any:
        """What a command prints with --json."""
        return json.loads((await self.run(*arguments, "--json", **environment)).stdout)

    async def fails(self, *arguments: str, **environment: str) -> str:
        """What a command says that must fail with status 1."""
        return (await self._run(arguments, 1, environment)).stderr

    async def is_misused(self, *arguments: str) -> str:
        """What a command says that must fail with status 2."""
        return (await self._run(arguments, 2, {})).stderr

    async def _run(self, arguments: Sequence[str], status: int, environment: Mapping[str, str]) -> Result:
        """In a thread, since commands start an event loop of their own."""
        env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STRADDLE_")}
        env |= {"STRADDLE_NODE": self.url, "STRADDLE_L1_URL": self.devnet.l1_url, "COLUMNS": "200"}
        env |= self.options
        env |= environment
        invoke = partial(CliRunner().invoke, app, list(arguments), env=env)
        result = await trio.to_thread.run_sync(invoke)
        text = f"{arguments}: {result.output}"
        assert result.exit_code == status, text
        assert status == 0 or isinstance(result.exception, SystemExit), text
        return result

    async def publish(self) -> None:
        """Fresh prices."""
        domain = Domain(ROLLUP_CHAIN_ID, self.devnet.deployment.rollup_address)
        prices = dict.fromkeys((SPEC.underlying, SPEC.instrument), PRICE_UUSD)
        await publish_prices(self.url, domain, self.devnet.publishers, prices)

    async def until_posted(self, block: int) -> None:
        with trio.fail_after(DEADLINE_S):
            while (await self.json("status"))["posted_block"] < block:  # noqa: ASYNC110 - another process
                await trio.sleep(0.2)

    async def pass_window(self) -> None:
        await self.devnet.client.raw_request("evm_increaseTime", [CHALLENGE_WINDOW_S + 1])
        await self.devnet.client.raw_request("evm_mine", [])

    async def hurry(self) -> None:
        """Lets L1's time run five times as fast, so that a challenge window passes while a command waits."""
        while True:
            await trio.sleep(0.5)
            await self.devnet.client.raw_request("evm_increaseTime", [2])


@asynccontextmanager
async def node_process(devnet: Devnet, directory: Path) -> AsyncIterator[tuple[str, trio.Process]]:
    """`straddle node` with a configuration that `straddle init` wrote; drained at the end."""
    port = free_port()
    config = directory / "node.toml"
    assert CliRunner().invoke(app, ["init", "node", str(config)]).exit_code == 0
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STRADDLE_")}
    environment |= devnet.node_environment()
    environment |= {
        "STRADDLE_NODE": "a trader's variable, which is none of the node's business",
        "STRADDLE_NODE_DATA_DIR": str(directory / "data"),
        "STRADDLE_SERVER_PORT": str(port),
        "STRADDLE_ADMIN_PORT": str(free_port()),
        "STRADDLE_L1_URL": devnet.l1_url,
        "STRADDLE_L1_ROLLUP": devnet.deployment.rollup,
        "STRADDLE_L1_CONFIRMATIONS": "0",
        "STRADDLE_L1_POLL_MS": "200",
        "STRADDLE_BATCHES_MAX_AGE_MS": "1000",
        "STRADDLE_BATCHES_MAX_DELAY_MS": "1000",
        "STRADDLE_BATCHES_MAX_BYTES": "100000",
        "STRADDLE_POSTER_DATA": "calldata",
    }
    command = [sys.executable, "-m", "sequencer.cli", "node", "--config", str(config)]
    with (directory / "node.log").open("wb") as log:
        process = await trio.lowlevel.open_process(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        url = f"http://127.0.0.1:{port}"
        try:
            await until_ready(url, process, directory / "node.log")
            yield url, process
        finally:
            with trio.CancelScope(shield=True):
                await end(process)


async def until_ready(url: str, process: trio.Process, log: Path) -> None:
    with trio.fail_after(DEADLINE_S):
        while True:
            assert process.poll() is None, log.read_text()  # noqa: ASYNC240 - on the way out
            try:
                async with NodeClient(url) as client:
                    if (await client.call("straddle_status"))["ready"]:
                        return
            except NodeUnreachable:
                pass
            await trio.sleep(0.1)


async def end(process: trio.Process) -> None:
    """SIGTERM, which drains the node; SIGKILL if that takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with trio.move_on_after(30):
            await process.wait()
    if process.poll() is None:
        process.kill()
        await process.wait()


async def test_from_a_new_key_to_a_payout(tmp_path: Path) -> None:
    async with (
        open_devnet("embedded", [SPEC]) as devnet,
        node_process(devnet, tmp_path) as (url, process),
    ):
        desk = Desk(devnet, url, tmp_path, {"STRADDLE_L1_ROLLUP": devnet.deployment.rollup})
        address = await opens_a_key(desk)
        await deposits(desk, address)
        await trades(desk)
        await refusals(desk)
        await proves(desk)
        await withdraws_in_one_go(desk, address)
        await withdraws_without_a_node(desk, process)


async def opens_a_key(desk: Desk) -> str:
    password = desk.directory / "password"
    password.write_text("correct horse\n")
    keystore = desk.directory / "trader.json"
    made = await desk.json("keys", "new", str(keystore), "--password-file", str(password))
    assert keystore.stat().st_mode & 0o777 == 0o600
    address: str = made["address"]
    assert (await desk.run("keys", "show", str(keystore))).stdout.strip() == address
    desk.options |= {"STRADDLE_KEY": str(keystore), "STRADDLE_PASSWORD": "correct horse"}
    assert "owns no account" in await desk.fails("account")
    assert "has no ether" in await desk.fails("deposit", "1")
    return address


async def deposits(desk: Desk, address: str) -> None:
    result = await desk.run("deposit", "1000.25", "--mint", "--json")
    assert "an ether of the devnet's" in result.stderr
    assert "the node has read message" in result.stderr
    assert f"from {address} into a new account" in result.stderr
    found = json.loads(result.stdout)
    assert (found["account"], found["cash_uusd"]) == (1, 1_000_250_000)
    assert "has $0.00, needed $1,000.00" in await desk.fails("deposit", "1000")
    again = await desk.json("deposit", "500", "--mint", "--account", "1")
    assert (again["account"], again["cash_uusd"]) == (1, 1_500_250_000)
    shown = (await desk.run("account")).stdout
    assert "$1,500.25" in shown
    assert address in shown
    assert (await desk.json("account", "--owner", address))[0]["account"] == 1
    assert "(NOT_FOUND)" in await desk.fails("deposit", "1", "--account", "99")


async def trades(desk: Desk) -> None:
    await desk.publish()
    assert "60,000" in (await desk.run("markets")).stdout
    sent = await desk.run(
        "order",
        "buy",
        "0.05",
        SPEC.instrument,
        "--price",
        "59000.5",
        "--post-only",
        "--expires",
        "8h",
        "--json",
    )
    assert f"signing PlaceOrder: buy 0.05 {SPEC.instrument}, at $59,000.50, post-only, until" in sent.stderr
    receipt = json.loads(sent.stdout)
    (operation,) = receipt["operations"]
    assert operation["resting_ulots"] == 50_000
    book = await desk.json("book", SPEC.instrument)
    assert (book["bids"], book["asks"]) == ([[59000.5, 0.05]], [])
    assert "59,000.5" in (await desk.run("book", SPEC.instrument)).stdout
    (found,) = await desk.json("account")
    assert [each["order_id"] for each in found["orders"]] == [operation["order_id"]]
    cancelled = await desk.json("cancel", str(operation["order_id"]), SPEC.instrument)
    assert cancelled["operations"][0]["cancelled_ulots"] == 50_000
    await desk.run("order", "sell", "0.01", SPEC.instrument, "--price", "61000")
    assert (await desk.json("cancel", "--all"))["operations"][0]["cancelled_ulots"] == 10_000
    again = await desk.run("receipt", receipt["hash"])
    assert "executed" in again.stdout


async def refusals(desk: Desk) -> None:
    """Each ends with 1 and says what was wrong, with the node's figures."""
    await desk.publish()
    order = ("order", "buy", "10", SPEC.instrument, "--price", "60000")
    said = await desk.fails(*order)
    assert "(INSUFFICIENT_MARGIN)" in said
    assert "needed $" in said
    assert "available $1,5" in said
    stranger = {"STRADDLE_KEY": "", "STRADDLE_PRIVATE_KEY": "44" * 32}
    wrong = await desk.fails(*order, "--account", "1", **stranger)
    assert "(WRONG_SIGNER)" in wrong
    assert "recovered 0x" in wrong
    assert "44" * 32 not in wrong
    assert "wrong password" in await desk.fails(*order, STRADDLE_PASSWORD="correct horses")
    other = await desk.fails(*order, "--rollup", OTHER_ROLLUP)
    assert "nothing was signed" in other
    assert "no Rollup contract at" in await desk.fails(
        "deposit", "1", "--no-wait", "--rollup", OTHER_ROLLUP, "--mint"
    )
    dead = f"http://127.0.0.1:{free_port()}"
    assert "the node does not answer" in await desk.fails(*order, STRADDLE_NODE=dead)
    assert "is not a Straddle node" in await desk.fails(*order, STRADDLE_NODE=desk.devnet.l1_url)
    assert "L1 does not answer" in await desk.fails("deposit", "1", STRADDLE_L1_URL=dead)
    assert "L1 does not answer" in await desk.fails("withdraw", "1", STRADDLE_L1_URL=dead)
    off_tick = await desk.is_misused("order", "buy", "1", SPEC.instrument, "--price", "60000.000001")
    assert "--price" in off_tick
    assert f"did you mean {SPEC.instrument}?" in await desk.is_misused("book", "btc-perpetual")


async def proves(desk: Desk) -> None:
    block = (await desk.json("status"))["block_number"]
    await desk.until_posted(block)
    shown = (await desk.run("proof", "--account", "1", "--at", "safe")).stdout
    assert "has this leaf" in shown
    assert "cash_uusd" in shown
    assert "root on L1" in shown
    assert (await desk.json("proof", "--system", "--at", "safe"))["root_on_l1"] is True
    absent = (await desk.run("proof", "--account", "77")).stdout
    assert "has no leaf of this key" in absent


async def withdraws_in_one_go(desk: Desk, address: str) -> None:
    """Waits for the window; the recipient has the dollars at the end, and a second run pays nothing."""
    recipient = "0x" + "ab" * 20
    assert "(INSUFFICIENT_" in await desk.fails("withdraw", "99999")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.hurry)
        with trio.fail_after(DEADLINE_S):
            found = await desk.json("withdraw", "250.5", "--to", recipient)
        nursery.cancel_scope.cancel()
    assert (found["status"], found["amount_uusd"], found["recipient"]) == ("paid", 250_500_000, recipient)
    assert await balance(desk, recipient) == 250_500_000
    again = await desk.run("withdraw", "--number", str(found["number"]))
    assert "was paid before" in again.stdout
    assert await balance(desk, recipient) == 250_500_000
    assert await balance(desk, address) == 0


async def withdraws_without_a_node(desk: Desk, process: trio.Process) -> None:
    """Begun, posted; then the node is gone, a verifier's data make the proof."""
    recipient = "0x" + "cd" * 20
    begun = await desk.json("withdraw", "100", "--to", recipient, "--begin-only")
    receipt = await desk.json("receipt", begun["transaction"])
    await desk.until_posted(receipt["block_number"])
    await end(process)
    assert process.returncode == 0
    data_dir = desk.directory / "verifier"
    number = str(begun["number"])
    go_on = ("withdraw", "--number", number, "--data-dir", str(data_dir))
    assert "has no state of rollup" in await desk.fails(*go_on)
    await verify(desk, data_dir)
    await desk.pass_window()
    found = await desk.json(*go_on)
    assert found["status"] == "paid"
    assert await balance(desk, recipient) == 100_000_000


async def verify(desk: Desk, data_dir: Path) -> None:
    """`straddle verifier` in its own process, until all posted batches are verified."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STRADDLE_")}
    environment |= {
        "STRADDLE_VERIFIER_DATA_DIR": str(data_dir),
        "STRADDLE_L1_URL": desk.devnet.l1_url,
        "STRADDLE_L1_ROLLUP": desk.devnet.deployment.rollup,
        "STRADDLE_L1_CONFIRMATIONS": "0",
    }
    command = [sys.executable, "-m", "sequencer.cli", "verifier", "--json"]
    with trio.fail_after(DEADLINE_S):
        done = await trio.run_process(command, env=environment, capture_stdout=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["batch"] == lines[-1]["last_batch"]


async def balance(desk: Desk, owner: str) -> int:
    """Test dollars of an address on L1."""
    from l1_bridge.abi import contract

    abi = contract("TestToken")
    token = desk.devnet.deployment.token_address
    answer = await desk.devnet.client.call(token, abi.call("balanceOf", bytes.fromhex(owner[2:])))
    return int(abi.result("balanceOf", answer))


async def test_deploy_saves_what_others_start_from(tmp_path: Path) -> None:
    """On a fresh devnet chain with a development key; the file describes contracts that are there."""
    from l1_bridge.deploy import Deployment, describe
    from l1_bridge.embedded import EmbeddedL1
    from l1_bridge.keys import DEVNET_KEYS
    from tests.integration.bridge_support import connected

    out = tmp_path / "deployment.json"
    env = {"STRADDLE_PRIVATE_KEY": DEVNET_KEYS[3].hex(), "STRADDLE_KEY": None}
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, _):
        arguments = ["deploy", "--l1", l1.url, "--out", str(out), "--challenge-window", "10m", "--json"]
        invoke = partial(CliRunner().invoke, app, arguments, env=env)
        result = await trio.to_thread.run_sync(invoke)
        assert result.exit_code == 0, result.output
        assert DEVNET_KEYS[3].hex() not in result.output
        saved = Deployment.load(out)
        assert json.loads(result.stdout)["rollup"] == saved.rollup
        assert await describe(client, saved.rollup_address) == saved
        refused = await trio.to_thread.run_sync(invoke)
        assert refused.exit_code == 1
        assert "exists already; nothing was deployed" in refused.stderr
