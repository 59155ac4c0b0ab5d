"""Deploying the contracts, and what a governor tells the rollup first.

A deployment is described by one JSON file with addresses, chain ids and the block to read from; node,
verifier and command line start from it. Instruments, publishers and parameters reach the rollup as governor
messages through the Inbox, so that a verifier learns them from L1 like everything else.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from l1_bridge.abi import contract
from l1_bridge.keys import DEVNET_CHAIN_IDS, KeyRefused, Signer
from l1_bridge.posting import opening_offer
from l1_bridge.rollup import RollupContract
from l1_bridge.types import L1Client, L1Receipt, L1Refused, L1Reverted, L1Unavailable
from state.block import MessageKind
from state.hashing import keccak
from state.leaves import (
    FeeTerms,
    FeeTiers,
    Instrument,
    L1Terms,
    Parameters,
    PriorityTerms,
    Publishers,
    Series,
)
from state.message_listing import SERIES_BYTES
from state.units import MAX_NAME_BYTES

LARGEST_DEPOSIT_CAP = 4 * 10**18


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a rollup lives. Addresses as 0x-hex."""

    l1_chain_id: int
    rollup_chain_id: int
    rollup: str
    inbox: str
    vault: str
    token: str
    deploy_block: int
    genesis_root: str

    @property
    def rollup_address(self) -> bytes:
        return bytes.fromhex(self.rollup[2:])

    @property
    def inbox_address(self) -> bytes:
        return bytes.fromhex(self.inbox[2:])

    @property
    def vault_address(self) -> bytes:
        return bytes.fromhex(self.vault[2:])

    @property
    def token_address(self) -> bytes:
        return bytes.fromhex(self.token[2:])

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all."""
        data = msgspec.json.format(msgspec.json.encode(self), indent=2)
        partial = path.with_suffix(path.suffix + ".partial")
        partial.write_bytes(data + b"\n")
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Deployment:
        """Raises OSError or msgspec.ValidationError."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


@dataclass(frozen=True, slots=True)
class DeployConfig:
    """The Rollup contract's configuration; durations in seconds, amounts in uusd, addresses as bytes."""

    rollup_chain_id: int
    genesis_root: bytes
    governor: bytes
    poster: bytes
    guardian: bytes
    token: bytes | None = None
    """The collateral; None deploys a worthless TestToken, on a devnet only."""
    challenge_window_s: int = 7 * 86_400
    forced_delay_s: int = 86_400
    escape_delay_s: int = 14 * 86_400
    clock_drift_s: int = 60
    minimum_deposit_uusd: int = 1_000_000
    deposit_cap_uusd: int = LARGEST_DEPOSIT_CAP


class Sender:
    """Sends one transaction after another from one key and waits for each: for tools, not for the poster."""

    def __init__(self, client: L1Client, signer: Signer, timeout_s: float = 180.0, poll_s: float = 0.1):
        self.client = client
        self.signer = signer
        self._timeout_s = timeout_s
        self._poll_s = poll_s
        self._chain_id = 0

    async def send(self, to: bytes | None, data: bytes, value_wei: int = 0) -> L1Receipt:
        """The receipt of a mined, successful transaction.

        Raises L1Reverted with the contract's reason in words (nothing is sent when simulation reverts),
        L1Refused, L1Unavailable when it is not mined in time, KeyRefused for a devnet key elsewhere.
        """
        if not self._chain_id:
            chain_id = await self.client.chain_id()
            self.signer.check_chain(chain_id)
            self._chain_id = chain_id
        try:
            gas = await self.client.estimate_gas(self.signer.address, to, data)
        except L1Reverted as error:
            raise L1Reverted(contract("Rollup").explain(error.data), error.data) from None
        offer = opening_offer(await self.client.fees())
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": self._chain_id,
            "nonce": await self.client.nonce(self.signer.address, "pending"),
            "gas": gas + gas // 5,
            "maxFeePerGas": offer.max_fee_wei,
            "maxPriorityFeePerGas": offer.tip_wei,
            "value": value_wei,
            "data": data,
        }
        if to is not None:
            transaction["to"] = to
        raw = self.signer.sign(transaction)
        await self.client.send_raw(raw)
        receipt = await self._mined(keccak(raw))
        if not receipt.succeeded:
            raise L1Reverted(f"transaction 0x{receipt.transaction_hash.hex()} reverted")
        return receipt

    async def _mined(self, transaction_hash: bytes) -> L1Receipt:
        deadline_s = time.monotonic() + self._timeout_s
        while (receipt := await self.client.receipt(transaction_hash)) is None:
            if time.monotonic() > deadline_s:
                raise L1Unavailable(f"0x{transaction_hash.hex()} is not mined after {self._timeout_s:g} s")
            await trio.sleep(self._poll_s)
        return receipt


async def deploy(sender: Sender, config: DeployConfig) -> Deployment:
    """Deploys Rollup, which creates Vault and Inbox; and a TestToken first when no token is given.

    Raises L1Reverted for a configuration the contract refuses, KeyRefused for a TestToken off a devnet.
    """
    l1_chain_id = await sender.client.chain_id()
    token = config.token
    if token is None:
        if l1_chain_id not in DEVNET_CHAIN_IDS:
            raise KeyRefused(f"chain {l1_chain_id} is not a devnet: name the collateral token")
        token = created(await sender.send(None, contract("TestToken").constructor()))
    arguments = (
        config.rollup_chain_id,
        config.genesis_root,
        token,
        config.governor,
        config.poster,
        config.guardian,
        config.challenge_window_s,
        config.forced_delay_s,
        config.escape_delay_s,
        config.clock_drift_s,
        config.minimum_deposit_uusd,
        config.deposit_cap_uusd,
    )
    receipt = await sender.send(None, contract("Rollup").constructor(arguments))
    info = await RollupContract(sender.client, created(receipt)).info()
    return Deployment(
        l1_chain_id,
        config.rollup_chain_id,
        "0x" + info.address.hex(),
        "0x" + info.inbox.hex(),
        "0x" + info.vault.hex(),
        "0x" + info.token.hex(),
        info.deploy_block,
        "0x" + info.genesis_root.hex(),
    )


def created(receipt: L1Receipt) -> bytes:
    """The address of the contract that a transaction created. Raises L1Refused if none."""
    if receipt.contract is None:
        raise L1Refused("the transaction created no contract")
    return receipt.contract


async def describe(client: L1Client, rollup: bytes) -> Deployment:
    """The deployment behind a Rollup address alone. Raises L1Refused when there is none."""
    info = await RollupContract(client, rollup).info()
    return Deployment(
        await client.chain_id(),
        info.chain_id,
        "0x" + rollup.hex(),
        "0x" + info.inbox.hex(),
        "0x" + info.vault.hex(),
        "0x" + info.token.hex(),
        info.deploy_block,
        "0x" + info.genesis_root.hex(),
    )


# what governors send


def list_instrument(instrument: Instrument) -> tuple[int, bytes]:
    """The message that lists an instrument."""
    return MessageKind.LIST_INSTRUMENT, instrument.encode()


def list_series(series: Series) -> tuple[int, bytes]:
    """The message that creates a series; its registers are not part of it."""
    return MessageKind.LIST_SERIES, series.encode()[:SERIES_BYTES]


def set_instrument(market: int, instrument: Instrument) -> tuple[int, bytes]:
    """The message that changes an instrument's terms; name, kind and underlying must stay."""
    return MessageKind.SET_INSTRUMENT, market.to_bytes(4, "big") + instrument.encode()


def set_parameters(parameters: Parameters) -> tuple[int, bytes]:
    """The message that sets the venue's parameters."""
    return MessageKind.SET_PARAMETERS, parameters.encode()


def set_fees(terms: FeeTerms) -> tuple[int, bytes]:
    """The message that sets how base prices follow load."""
    return MessageKind.SET_FEES, terms.encode()


def set_fee_tiers(tiers: FeeTiers) -> tuple[int, bytes]:
    """The message that sets what accounts pay of the instruments' fees (`fee_tiers.make_tiers`)."""
    return MessageKind.SET_FEE_TIERS, tiers.encode()


def set_priority(terms: PriorityTerms) -> tuple[int, bytes]:
    """The message that sets where goes what is paid for places."""
    return MessageKind.SET_PRIORITY, terms.encode()


def set_l1_terms(terms: L1Terms) -> tuple[int, bytes]:
    """The message that sets how the price of a batch byte follows L1."""
    return MessageKind.SET_L1_TERMS, terms.encode()


def set_publishers(quorum: int, addresses: Sequence[bytes]) -> tuple[int, bytes]:
    """The message that names the oracle's publishers."""
    return MessageKind.SET_PUBLISHERS, Publishers(quorum, tuple(addresses)).encode()


def set_feed(kind: int, name: str, heartbeat_ms: int = 0, deviation_ppm: int = 0) -> tuple[int, bytes]:
    """The message that sets a feed's terms (0: the venue's), and makes it if it is not there.

    `kind` is an `oracle.FeedKind`.
    """
    padded = name.encode("ascii").ljust(MAX_NAME_BYTES, b"\0")
    return MessageKind.SET_FEED, struct.pack(">B31sII", kind, padded, heartbeat_ms, deviation_ppm)


async def govern(governor: Sender, inbox: bytes, messages: Sequence[tuple[int, bytes]]) -> list[L1Receipt]:
    """Queues governor messages in order. Raises L1Reverted when the sender is not a governor."""
    abi = contract("Inbox")
    return [
        await governor.send(inbox, abi.call("queueGovernance", kind, payload)) for kind, payload in messages
    ]


# what traders send


async def mint_test_dollars(sender: Sender, token: bytes, owner: bytes, amount_uusd: int) -> L1Receipt:
    """On a devnet, gives worthless dollars."""
    return await sender.send(token, contract("TestToken").call("mint", owner, amount_uusd))


async def deposit(
    sender: Sender, vault: bytes, token: bytes, amount_uusd: int, account: int = 0, owner: bytes | None = None
) -> tuple[int, L1Receipt]:
    """Approves and deposits; `account` 0 opens a new account of `owner` (the sender unless named).

    Returns the message's index in the inbox, and the receipt. Raises L1Reverted with the contract's reason.
    """
    token_abi, vault_abi = contract("TestToken"), contract("Vault")
    mine = sender.signer.address
    answer = await sender.client.call(token, token_abi.call("allowance", mine, vault))
    if token_abi.result("allowance", answer) < amount_uusd:
        await sender.send(token, token_abi.call("approve", vault, amount_uusd))
    receipt = await sender.send(vault, vault_abi.call("deposit", account, owner or mine, amount_uusd))
    inbox_abi = contract("Inbox")
    for log in receipt.logs:
        if log.topics[0] == inbox_abi.topic("MessageQueued"):
            return int(inbox_abi.event("MessageQueued", log)["index"]), receipt
    raise L1Refused("the deposit queued no message")


async def force_withdrawal(
    sender: Sender, inbox: bytes, account: int, recipient: bytes, amount_uusd: int
) -> L1Receipt:
    """Withdraws without the sequencer's consent; the sender must own the account."""
    call = contract("Inbox").call("forceWithdrawal", account, recipient, amount_uusd)
    return await sender.send(inbox, call)


async def force_order(
    sender: Sender, inbox: bytes, account: int, market: int, side: int, price_uusd: int, size_ulots: int
) -> L1Receipt:
    """A reduce-only, immediate-or-cancel order without the sequencer's consent."""
    call = contract("Inbox").call("forceOrder", account, market, side, price_uusd, size_ulots)
    return await sender.send(inbox, call)
