"""What `straddle deposit` does: approve, deposit, follow the message until the node has read it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from l1_bridge import deploy
from l1_bridge.keys import DEVNET_CHAIN_IDS, devnet_signer
from sequencer.cli_keys import unlock
from sequencer.cli_l1 import L1, open_l1
from sequencer.cli_output import Steps, note
from sequencer.cli_session import Node, open_node
from sequencer.cli_support import CliError
from sequencer.cli_units import show_dollars
from sequencer.client import NodeUnreachable

POLL_S = 0.5
GIVER = 9
"""The development account that nothing else uses."""


@dataclass(frozen=True, slots=True)
class Deposit:
    """What was asked for; amounts in uusd, `account` 0 for a new one."""

    amount_uusd: int
    account: int
    owner: bytes | None
    mint: bool
    wait: bool
    l1: str
    rollup: bytes | None
    node: str
    key: Path | None
    password_file: Path | None


async def run_deposit(asked: Deposit) -> dict[str, Any]:
    """What became of it. Raises CliError, L1Error, NodeError, NodeUnreachable; before sending when it can."""
    async with AsyncExitStack() as stack:
        node = None
        rollup, chain_id = asked.rollup, None
        if asked.wait or rollup is None:
            node = await stack.enter_async_context(open_node(asked.node))
            domain = await node.domain(asked.rollup)
            rollup, chain_id = domain.contract, domain.chain_id
        l1 = await stack.enter_async_context(open_l1(asked.l1, rollup))
        if chain_id not in (None, l1.info.chain_id):
            raise CliError(
                f"the node's rollup has chain id {chain_id}, the contract's is {l1.info.chain_id}: "
                "node and L1 do not belong together; nothing was sent"
            )
        key = unlock(asked.key, asked.password_file)
        owner = asked.owner or key.address
        before = await _before(node, asked.account, owner) if node and asked.wait else []
        index, transaction = await _send(asked, l1, key, owner)
        found: dict[str, Any] = {
            "message": index,
            "l1_transaction": "0x" + transaction.hex(),
            "amount_uusd": asked.amount_uusd,
            "account": asked.account or None,
            "cash_uusd": None,
        }
        if node is None or not asked.wait:
            return found
        await _until_read(node, index)
        if not asked.account:
            opened = [number for number in await _accounts(node, owner) if number not in before]
            found["account"] = opened[-1] if opened else None
        if found["account"]:
            state = await node.call("straddle_getAccount", account=found["account"])
            found["cash_uusd"] = state["cash_uusd"]
        return found


async def _before(node: Node, account: int, owner: bytes) -> list[int]:
    """The owner's accounts now. Raises NodeError when the money is for an account that does not exist."""
    if account:
        await node.call("straddle_getAccount", account=account)
    return await _accounts(node, owner)


async def _accounts(node: Node, owner: bytes) -> list[int]:
    numbers: list[int] = await node.call("straddle_getAccounts", owner="0x" + owner.hex())
    return numbers


async def _send(asked: Deposit, l1: L1, key: Any, owner: bytes) -> tuple[int, bytes]:
    """The inbox message's index and the transaction's hash."""
    if asked.mint:
        await _give_ether(l1, key.address)
    sender = await l1.sender(key)
    info, amount = l1.info, asked.amount_uusd
    into = f"account {asked.account}" if asked.account else f"a new account of 0x{owner.hex()}"
    note(
        f"depositing {show_dollars(amount)} from 0x{key.address.hex()} into {into}\n"
        f"  rollup {info.chain_id} at 0x{info.address.hex()}{'' if asked.rollup else ', as the node says'}\n"
        f"  vault 0x{info.vault.hex()}, token 0x{info.token.hex()}"
    )
    with Steps() as steps:
        if asked.mint:
            steps.wait("test dollars")
            await deploy.mint_test_dollars(sender, info.token, key.address, amount)
        has = await l1.balance_uusd(key.address)
        if has < amount:
            raise CliError(f"0x{key.address.hex()} has {show_dollars(has)}, needed {show_dollars(amount)}")
        steps.wait("L1 transactions: approval and deposit")
        index, receipt = await deploy.deposit(sender, info.vault, info.token, amount, asked.account, owner)
        steps.done(f"deposit is on L1 in block {receipt.block_number}, as message {index}")
    return index, receipt.transaction_hash


async def _give_ether(l1: L1, address: bytes) -> None:
    """One ether from a development account, if there is none. Raises CliError where that is no devnet."""
    chain_id = await l1.client.chain_id()
    if chain_id not in DEVNET_CHAIN_IDS:
        raise CliError(f"--mint: chain {chain_id} is not a devnet")
    if not await l1.client.balance(address):
        note(f"giving 0x{address.hex()} an ether of the devnet's for gas")
        await deploy.Sender(l1.client, devnet_signer(GIVER)).send(address, b"", 10**18)


async def _until_read(node: Node, index: int) -> None:
    with Steps() as steps:
        while True:
            try:
                status = await node.call("straddle_status")
            except NodeUnreachable as error:
                steps.wait("the node, which does not answer", str(error))
                await trio.sleep(POLL_S)
                continue
            if status["inbox_next"] > index:
                steps.done(f"the node has read message {index}")
                return
            steps.wait(
                "the node to read the deposit from a confirmed L1 block",
                f"it has read L1 up to block {status['l1_block']}",
            )
            await trio.sleep(POLL_S)
