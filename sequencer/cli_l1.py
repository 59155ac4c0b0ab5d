"""The command line's way to L1: the contracts behind one address, and a sender for one key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass

from eth_account import Account

from l1_bridge.abi import contract
from l1_bridge.client import RpcClient, connect
from l1_bridge.deploy import Sender
from l1_bridge.keys import Signer
from l1_bridge.rollup import RollupContract, RollupInfo
from sequencer.cli_support import CliError
from sequencer.signing import SecretKey

ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class L1:
    """A rollup on its L1."""

    client: RpcClient
    rollup: RollupContract
    info: RollupInfo

    async def balance_uusd(self, owner: bytes) -> int:
        """What an address has of the collateral."""
        token = contract("TestToken")
        answer = await self.client.call(self.info.token, token.call("balanceOf", owner))
        return int(token.result("balanceOf", answer))

    async def sender(self, key: SecretKey) -> Sender:
        """Sends L1 transactions. Raises CliError when the key has no ether for them, KeyRefused."""
        return await sender_for(self.client, key)


@asynccontextmanager
async def open_client(url: str) -> AsyncIterator[RpcClient]:
    """A client of an L1 node, closed at the end."""
    client, transport = connect(url, attempts=ATTEMPTS)
    with closing(transport):
        yield client


@asynccontextmanager
async def open_l1(url: str, rollup: bytes) -> AsyncIterator[L1]:
    """Raises L1Unavailable, and L1Refused when there is no Rollup contract at the address."""
    async with open_client(url) as client:
        found = RollupContract(client, rollup)
        yield L1(client, found, await found.info())


async def sender_for(client: RpcClient, key: SecretKey) -> Sender:
    """See `L1.sender`."""
    signer = Signer(Account.from_key(key.reveal()))
    signer.check_chain(await client.chain_id())
    if not await client.balance(signer.address):
        raise CliError(f"0x{signer.address.hex()} has no ether on this L1 to pay for transactions")
    return Sender(client, signer)
