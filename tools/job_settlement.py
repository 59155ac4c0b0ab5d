"""The end of the main job: one trader withdraws by proof, all roots are verified, the money is counted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import trio

from l1_bridge.abi import contract
from l1_bridge.rollup import RollupContract
from l1_bridge.withdrawals import Claim, claim, is_paid, wait_final
from sequencer.client import NodeClient, NodeError
from state.actions import Withdraw
from state.keys import SYSTEM_KEY, withdrawal_key
from state.leaves import System
from state.signatures import address_of
from tools.devnet import Devnet
from tools.job_display import Progress
from tools.job_fees import PosterSpend, look_settled
from tools.market import Trader
from tools.order_sender import OrderSender
from tools.services import ServiceFailed

WITHDRAWAL_UUSD = 1_234_567_890
SETTLE_TIMEOUT_S = 180


class Settlement:
    """Each step tells in `progress` what it does, and what has come of it."""

    def __init__(
        self,
        devnet: Devnet,
        client: NodeClient,
        sender: OrderSender,
        spend: PosterSpend,
        progress: Progress,
    ) -> None:
        self._spend = spend
        self._devnet = devnet
        self._client = client
        self._sender = sender
        self._progress = progress
        self._rollup = RollupContract(devnet.client, devnet.deployment.rollup_address)

    async def run(self, trader: Trader) -> dict[str, Any]:
        """Withdraws, waits for everything to be posted, verified and final, and claims; the summary.

        Raises ServiceFailed, L1Error.
        """
        with within(SETTLE_TIMEOUT_S, self._progress):
            await self._withdraw(trader)
            self._progress.stage = "verifying every posted root"
            posted = await self._all_verified()
            self._progress.conservation_ok = await self._is_conserved()
            return await self._summary(posted)

    async def _withdraw(self, trader: Trader) -> None:
        progress = self._progress
        progress.stage = "withdrawing"
        recipient = address_of(b"straddle devnet withdrawal to..!")
        action = Withdraw(**self._sender.envelope(trader), recipient=recipient, amount_uusd=WITHDRAWAL_UUSD)
        (receipt,) = await self._sender.send(self._client, [(trader, action)])
        if isinstance(receipt, NodeError):
            raise ServiceFailed(f"the withdrawal was refused: {receipt}")
        progress.stage = "waiting for the withdrawal's batch to be final"
        final = await wait_final(self._rollup, receipt["batch"], poll_s=0.5)
        ready = await self._claim(receipt["withdrawal"], final)
        progress.stage = "claiming on L1"
        await claim(self._devnet.governor, self._devnet.deployment.vault_address, ready)
        paid = await is_paid(self._rollup, ready.number)
        progress.withdrawals_paid = int(paid and await self._balance(recipient) == WITHDRAWAL_UUSD)

    async def _claim(self, number: int, batch: int) -> Claim:
        key = "0x" + withdrawal_key(number).hex()
        proof = await self._client.call("straddle_getProof", {"key": key, "at": batch})
        siblings = tuple(bytes.fromhex(each[2:]) for each in proof["siblings"])
        leaf, bits = bytes.fromhex(proof["value"][2:]), bytes.fromhex(proof["bits"][2:])
        return Claim(batch, number, leaf, siblings, bits)

    async def _balance(self, owner: bytes) -> int:
        token = contract("TestToken")
        call = token.call("balanceOf", owner)
        answer = await self._devnet.client.call(self._devnet.deployment.token_address, call)
        return int(token.result("balanceOf", answer))

    async def _all_verified(self) -> int:
        """Waits until all that is posted by now is verified; how many batches that is."""
        posted = await self._rollup.last_batch()
        while True:
            if len(self._progress.verified) >= posted or self._progress.mismatched:
                return posted
            await trio.sleep(0.1)

    async def _is_conserved(self) -> bool:
        """The vault holds what a proved System leaf says the accounts hold, and what is on its way."""
        final = await self._rollup.finalized_batch()
        proof = await self._client.call("straddle_getProof", {"key": "0x" + SYSTEM_KEY.hex(), "at": final})
        system = System.decode(bytes.fromhex(proof["value"][2:]))
        books = await self._client.call("straddle_status")
        vault = await self._balance(self._devnet.deployment.vault_address)
        return bool(books["ready"]) and vault == system.collateral_uusd

    async def _summary(self, posted: int) -> dict[str, Any]:
        tally, progress = self._sender.tally, self._progress
        status = await self._client.call("straddle_status")
        bytes_posted = sum(batch["data_bytes"] for batch in progress.verified.values())
        gas = await self._gas_of_batches()
        settled = progress.settled
        fees = progress.fees = await look_settled(self._client, self._spend, self._rollup)
        quotes = self._sender.quotes
        assert quotes is not None
        return {
            "orders": tally.orders,
            "rejected": tally.rejected,
            "fills": tally.fills,
            "options_settled": None if settled is None else settled.options,
            "liquidations": progress.liquidations,
            "block_trades": progress.block_trades,
            "margin_checks": status["margin_checks"],
            "blocks": status["block_number"],
            "batches_posted": posted,
            "roots_verified": sum(number <= posted for number in progress.verified),
            "roots_mismatched": progress.mismatched,
            "withdrawals_paid": progress.withdrawals_paid,
            "conservation_ok": progress.conservation_ok,
            "orders_per_s": round(tally.orders_per_s, 1),
            "ack_ms_p50": round(tally.percentile_ms(50), 1),
            "ack_ms_p99": round(tally.percentile_ms(99), 1),
            "l1_gas_total": gas,
            "l1_gas_per_order": round(gas / max(tally.orders, 1), 1),
            "batch_bytes_per_order": round(bytes_posted / max(tally.orders, 1), 1),
            **fees.summary(tally.orders),
            "quotes_asked": quotes.asked,
            "quote_exceeded": quotes.exceeded,
        }

    async def _gas_of_batches(self) -> int:
        head = await self._devnet.client.head()
        gas = 0
        for event in await self._rollup.posted(self._devnet.deployment.deploy_block, head.number):
            receipt = await self._devnet.client.receipt(event.transaction_hash)
            gas += receipt.gas_used if receipt else 0
        return gas


def held(summary: dict[str, Any]) -> bool:
    """Whether everything that the job promises held; an expiry that could not be seen is no failure."""
    return bool(
        summary["batches_posted"] > 0
        and summary["roots_verified"] == summary["batches_posted"]
        and not summary["roots_mismatched"]
        and summary["withdrawals_paid"] == 1
        and summary["conservation_ok"]
        and summary["fills"] > 0
        and (summary["options_settled"] is None or summary["options_settled"] > 0)
        and summary["liquidations"] > 0
        and summary["block_trades"] > 0
        and summary["quotes_asked"] > 0
        and summary["quote_exceeded"] == 0
    )


@contextlib.contextmanager
def within(seconds: float, progress: Progress) -> Iterator[None]:
    """Raises ServiceFailed, naming the stage, when it takes longer."""
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise ServiceFailed(f"not done within {seconds:g} s: {progress.stage}") from None
