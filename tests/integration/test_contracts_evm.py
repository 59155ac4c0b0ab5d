"""The committed contract artifacts on a real EVM, against the Python side's leaves, roots and commitments.

Batches are made by hand: no node, no bridge. Roots and paths come from the naive tree of `tests.tree_model`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_tester.exceptions import TransactionFailed
from web3 import EthereumTesterProvider, Web3

from l1_bridge.batch import data_commitment
from state import keys
from state.hashing import keccak
from state.leaves import System, Withdrawal
from tests.tree_model import Leaves, naive_path, naive_root

REPOSITORY = Path(__file__).resolve().parents[2]
ARTIFACTS = REPOSITORY / "l1_bridge" / "artifacts"
WINDOW_S = 3600
GENESIS_ROOT = keccak(b"genesis")
DEPOSIT_UUSD = 100_123_456
DEPOSIT_GAS_LIMIT = 100_000
CLAIM_GAS_LIMIT = 120_000


def artifact(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ARTIFACTS / f"{name}.json").read_text())
    return found


@dataclass
class World:
    """A chain with the contracts on it."""

    web3: Web3
    tester: Any
    token: Any
    rollup: Any
    vault: Any
    inbox: Any
    governor: str
    poster: str
    guardian: str
    user: str

    def send(self, call: Any, sender: str) -> Any:
        """The receipt of a transaction; raises TransactionFailed with the contract's error."""
        return self.web3.eth.wait_for_transaction_receipt(call.transact({"from": sender}))

    def wait(self, duration_s: int) -> None:
        now_s = self.web3.eth.get_block("latest")["timestamp"]
        self.tester.time_travel(now_s + duration_s)


def deploy(web3: Web3, name: str, *arguments: Any) -> Any:
    built = artifact(name)
    factory = web3.eth.contract(abi=built["abi"], bytecode=built["bytecode"])
    call = factory.constructor(*arguments)
    deployer, *_ = web3.eth.accounts
    receipt: Any = web3.eth.wait_for_transaction_receipt(call.transact({"from": deployer}))
    return web3.eth.contract(address=receipt["contractAddress"], abi=built["abi"])


@pytest.fixture
def world() -> World:
    provider = EthereumTesterProvider()
    web3 = Web3(provider)
    governor, poster, guardian, user = list(web3.eth.accounts)[:4]
    token = deploy(web3, "TestToken")
    config = (
        *(777, GENESIS_ROOT, token.address, governor, poster, guardian),
        *(WINDOW_S, 6 * 3600, 24 * 3600, 60, 1_000_000, 10**15),
    )
    rollup = deploy(web3, "Rollup", config)
    vault = web3.eth.contract(address=rollup.functions.vault().call(), abi=artifact("Vault")["abi"])
    inbox = web3.eth.contract(address=rollup.functions.inbox().call(), abi=artifact("Inbox")["abi"])
    world = World(
        web3, provider.ethereum_tester, token, rollup, vault, inbox, governor, poster, guardian, user
    )
    world.send(token.functions.mint(user, 10**12), governor)
    return world


def deposit(world: World) -> Any:
    world.send(world.token.functions.approve(world.vault.address, DEPOSIT_UUSD), world.user)
    return world.send(world.vault.functions.deposit(0, world.user, DEPOSIT_UUSD), world.user)


def path_of(leaves: Leaves, key: bytes) -> tuple[list[bytes], bytes]:
    """Siblings and branch bits from the leaf to the root, as the contracts take them."""
    end, path = naive_path(leaves, key)
    assert list(end) == [key]
    return [sibling for _, sibling in path], bytes(bit for bit, _ in path)


def system_after(world: World, data: bytes, batch_number: int = 1) -> System:
    """What an honest sequencer's registers say after reading these bytes and the whole inbox."""
    latest = world.web3.eth.get_block("latest")
    count = world.inbox.functions.count().call()
    return System(
        block_number=1,
        timestamp_ms=latest["timestamp"] * 1000,
        batch_number=batch_number,
        batch_cursor=len(data),
        inbox_next=count,
        inbox_hash=world.inbox.functions.hashAt(count).call(),
        l1_block=latest["number"] - 1,
        next_withdrawal=2,
    )


def post(world: World, leaves: Leaves, data: bytes) -> Any:
    siblings, bits = path_of(leaves, keys.SYSTEM_KEY)
    header = (1, 0, GENESIS_ROOT, naive_root(leaves))
    proof = (leaves[keys.SYSTEM_KEY], siblings, bits)
    return world.send(world.rollup.functions.postBatch(header, data, proof), world.poster)


def refusal(contract: str, name: str, *arguments: int) -> str:
    """What the EVM's exception says of a custom error whose arguments are integers."""
    entry = next(e for e in artifact(contract)["abi"] if e["type"] == "error" and e["name"] == name)
    signature = f"{name}({','.join(field['type'] for field in entry['inputs'])})"
    packed = b"".join(argument.to_bytes(32, "big") for argument in arguments)
    return f"execution reverted: {keccak(signature.encode())[:4] + packed!r}"


def test_deposit_enters_the_queue(world: World) -> None:
    receipt = deposit(world)
    assert receipt["gasUsed"] <= DEPOSIT_GAS_LIMIT
    assert world.token.functions.balanceOf(world.vault.address).call() == DEPOSIT_UUSD
    (event,) = world.inbox.events.MessageQueued().get_logs(from_block=0)
    payload = bytes.fromhex(world.user[2:]) + bytes(8) + DEPOSIT_UUSD.to_bytes(8, "big")
    assert event["args"]["payload"] == payload
    vault = bytes.fromhex(world.vault.address[2:])
    hashed = keccak(bytes(32) + b"\x01" + vault + receipt["blockNumber"].to_bytes(8, "big") + payload)
    assert event["args"]["rollingHash"] == hashed == world.inbox.functions.hashAt(1).call()


def test_deposit_with_permit(world: World) -> None:
    owner = Account.from_key(keccak(b"a depositor's key"))
    payment = {"from": world.governor, "to": owner.address, "value": 10**18}
    world.web3.eth.send_transaction(payment)  # type: ignore[arg-type]
    world.send(world.token.functions.mint(owner.address, DEPOSIT_UUSD), world.governor)
    deadline_s = world.web3.eth.get_block("latest")["timestamp"] + 60
    domain = {
        "name": "Test Dollar",
        "version": "1",
        "chainId": world.web3.eth.chain_id,
        "verifyingContract": world.token.address,
    }
    names = {"owner": "address", "spender": "address", "value": "uint256", "nonce": "uint256"}
    fields = [{"name": name, "type": kind} for name, kind in {**names, "deadline": "uint256"}.items()]
    message = {"owner": owner.address, "spender": world.vault.address, "value": DEPOSIT_UUSD}
    signed = owner.sign_typed_data(
        domain, {"Permit": fields}, {**message, "nonce": 0, "deadline": deadline_s}
    )
    permit = (deadline_s, signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big"))
    call = world.vault.functions.depositWithPermit(0, owner.address, DEPOSIT_UUSD, *permit)
    built = call.build_transaction({"from": owner.address, "nonce": 0})
    sent = world.web3.eth.send_raw_transaction(owner.sign_transaction(built).raw_transaction)
    assert world.web3.eth.wait_for_transaction_receipt(sent)["status"] == 1
    assert world.token.functions.balanceOf(world.vault.address).call() == DEPOSIT_UUSD
    assert world.token.functions.allowance(owner.address, world.vault.address).call() == 0


def test_batch_then_claim_after_the_window(world: World) -> None:
    deposit(world)
    data = bytes(range(1, 256)) * 9
    recipient = list(world.web3.eth.accounts)[5]
    leaves = {
        keys.SYSTEM_KEY: system_after(world, data).encode(),
        keys.withdrawal_key(1): Withdrawal(bytes.fromhex(recipient[2:]), 40_000_000, 1, 1).encode(),
    }
    posted = post(world, leaves, data)
    (event,) = world.rollup.events.BatchPosted().get_logs(from_block=0)
    assert event["args"]["commitment"] == data_commitment(data)
    assert event["args"]["newRoot"] == naive_root(leaves) == world.rollup.functions.rootOf(1).call()
    check_cost_report(world, posted, len(data))

    siblings, bits = path_of(leaves, keys.withdrawal_key(1))
    claim = world.vault.functions.claim(1, 1, leaves[keys.withdrawal_key(1)], siblings, bits)
    with pytest.raises(TransactionFailed) as refused:
        claim.call()
    assert str(refused.value) == refusal("Rollup", "BatchNotFinal", 1)
    world.wait(WINDOW_S)
    receipt = world.send(claim, world.user)
    assert receipt["gasUsed"] <= CLAIM_GAS_LIMIT
    assert world.token.functions.balanceOf(recipient).call() == 40_000_000
    with pytest.raises(TransactionFailed) as refused:
        claim.call()
    assert str(refused.value) == refusal("Vault", "AlreadyClaimed", 1)


def check_cost_report(world: World, posted: Any, data_bytes: int) -> None:
    """The BatchCost message is queued by the post and states its cost within a tenth."""
    report = world.inbox.events.MessageQueued().get_logs(from_block=posted["blockNumber"])[-1]["args"]
    payload = report["payload"]
    assert (report["kind"], report["sender"], len(payload)) == (8, world.rollup.address, 37)
    assert int.from_bytes(payload[0:8], "big") == 1
    assert int.from_bytes(payload[8:12], "big") == data_bytes
    gas = int.from_bytes(payload[12:20], "big")
    assert abs(gas - posted["gasUsed"]) * 10 <= posted["gasUsed"]
    base_fee_wei = world.web3.eth.get_block(posted["blockNumber"])["baseFeePerGas"]
    assert int.from_bytes(payload[20:28], "big") == base_fee_wei
    assert payload[28] == 0


def test_a_batch_must_read_what_is_posted(world: World) -> None:
    data = b"some bytes of a batch"
    system = system_after(world, data)
    system.batch_cursor -= 1
    with pytest.raises(TransactionFailed) as refused:
        post(world, {keys.SYSTEM_KEY: system.encode()}, data)
    assert str(refused.value) == refusal("Rollup", "DataLengthMismatch", len(data) - 1, len(data))


def test_a_batch_may_not_invent_messages(world: World) -> None:
    deposit(world)
    system = system_after(world, b"batch")
    system.inbox_hash = keccak(b"another history")
    with pytest.raises(TransactionFailed) as refused:
        post(world, {keys.SYSTEM_KEY: system.encode()}, b"batch")
    numbers = [int.from_bytes(h, "big") for h in (world.inbox.functions.hashAt(1).call(), system.inbox_hash)]
    assert str(refused.value) == refusal("Rollup", "InboxHashMismatch", *numbers)


def test_every_custom_error_has_a_test() -> None:
    sources = "".join(path.read_text() for path in (REPOSITORY / "contracts" / "src").rglob("*.sol"))
    tests = "".join(path.read_text() for path in (REPOSITORY / "contracts" / "test").glob("*.t.sol"))
    errors = set(re.findall(r"^    error (\w+)\(", sources, re.MULTILINE))
    assert len(errors) > 40
    assert {name for name in errors if f".{name}.selector" not in tests} == set()
