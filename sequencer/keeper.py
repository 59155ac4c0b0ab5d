"""A keeper: starts and ends auctions, and deleverages, so that accounts are liquidated when they must be.

It asks a node what there is to do (`straddle_getLiquidations`) and does it, one action an account, signed
for an account of its own that pays the fees. The node runs one inside, if it has an account for it; anybody
runs others with `straddle keeper`. Several do no harm: whoever comes late is refused, and nothing is charged.

Whatever goes wrong, the next look is another chance; what is wrong is told once, when it begins.

- iKEEPER_003 An account is tried again only after RETRY_S, unless what there is to do about it has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import trio
from msgspec.structs import replace

from sequencer import logs
from sequencer.client import NodeClient, NodeError, NodeUnreachable
from sequencer.config import KeeperSection, KeySection
from sequencer.liquidation_index import Todo
from sequencer.signing import SecretKey
from state.actions import Action, Deleverage, EndAuction, SignedAction, StartAuction
from state.eip712 import Domain, action_digest
from state.hashing import keccak
from state.typed_data import message
from state.wire import to_json

RETRY_S = 5.0
DEADLINE_S = 30
MAX_DONE_AT_ONCE = 64
NO_KEY = KeySection()
_ACTIONS: dict[str, type[StartAuction | EndAuction | Deleverage]] = {
    Todo.START: StartAuction,
    Todo.END: EndAuction,
    Todo.DELEVERAGE: Deleverage,
}
MARKET = 1
"""Stands for the only instrument that an action of ours names."""


@dataclass(frozen=True, slots=True)
class KeeperProcessSection:
    """Whom the keeper asks, and for which account it acts."""

    node_url: str = "http://127.0.0.1:8645"
    """The node's JSON-RPC URL."""
    account: int = 0
    """Pays the fees. 0: the only account of the key's address."""
    interval_ms: int = 500
    """Between two questions."""
    chain_id: int = 0
    """The rollup's chain id, part of what is signed; 0: as the node says."""
    rollup: str = ""
    """Address of the Rollup contract, part of what is signed; empty: as the node says."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"

    def __post_init__(self) -> None:
        if self.interval_ms < 10:
            raise ValueError(f"interval_ms: must be at least 10, got {self.interval_ms}")


@dataclass(frozen=True, slots=True)
class KeeperConfig:
    """Configuration of a Straddle keeper."""

    keeper: KeeperProcessSection = KeeperProcessSection()
    keeper_key: KeySection = NO_KEY


async def keep(
    host: str, port: int, key: SecretKey, section: KeeperSection, now_ms: Callable[[], int]
) -> None:
    """The keeper inside a node, which asks at its port like any other. Until cancelled."""
    local = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    async with NodeClient(f"http://{local}:{port}") as client:
        await Keeper(client, key, section.account, section.interval_ms, now_ms).run()


class Caller(Protocol):
    """A node, as `NodeClient` is one."""

    async def call(self, method: str, params: Any = ()) -> Any:
        """The method's result. Raises NodeError, NodeUnreachable."""


class Keeper:
    """See the module's text. `now_ms` is the wall clock. Whoever runs it closes the client."""

    def __init__(
        self,
        node: Caller,
        key: SecretKey,
        account: int,
        interval_ms: int,
        now_ms: Callable[[], int],
        expected: Domain | None = None,
    ) -> None:
        """`expected`: the only rollup to sign for; None: whichever the node serves."""
        self.done = 0
        """Actions that were executed."""
        self._node = node
        self._key = key
        self._account = account
        self._interval_s = interval_ms / 1_000
        self._now_ms = now_ms
        self._expected = expected
        self._domain: Domain | None = None
        self._nonce = 0
        self._tried: dict[int, tuple[dict[str, Any], float]] = {}
        self._told = ""
        self._log = logs.logger(keeper="0x" + key.address.hex())

    async def run(self) -> None:
        """Keeps until cancelled."""
        while True:
            try:
                await self.look()
            except (NodeError, NodeUnreachable) as error:
                self._tell(str(error))
            else:
                self._tell("")
            await trio.sleep(self._interval_s)

    async def look(self) -> int:
        """Asks, and does what there is to do; how many actions were executed.

        Raises NodeError, NodeUnreachable.
        """
        domain = self._domain or await self._begin()
        if domain is None:
            return 0
        found = await self._node.call("straddle_getLiquidations", {})
        before = self.done
        todo = {int(each["account"]): each for each in found["todo"]}
        self._tried = {account: tried for account, tried in self._tried.items() if account in todo}
        for account, what in list(todo.items())[:MAX_DONE_AT_ONCE]:
            tried, at = self._tried.get(account, ({}, 0.0))
            if tried != what or trio.current_time() - at >= RETRY_S:
                self._tried[account] = what, trio.current_time()
                await self._act(domain, account, what)
        return self.done - before

    async def _begin(self) -> Domain | None:
        """What to sign for, and as whom; None when it is another rollup."""
        status = await self._node.call("straddle_status", {})
        domain = Domain(status["chain_id"], bytes.fromhex(status["contract"][2:]))
        if self._expected is not None and (domain.chain_id, domain.contract) != (
            self._expected.chain_id,
            self._expected.contract,
        ):
            self._tell(f"the node serves another rollup, {domain.chain_id} at 0x{domain.contract.hex()}")
            return None
        if not self._account:
            owned = await self._node.call("straddle_getAccounts", {"owner": "0x" + self._key.address.hex()})
            if len(owned) != 1:
                self._tell(f"the keeper's address owns {len(owned)} accounts: name one")
                return None
            self._account = int(owned[0])
        self._domain = domain
        return domain

    async def _act(self, domain: Domain, liquidated: int, what: dict[str, Any]) -> None:
        """One action. What is refused was done by somebody else, or is not true any more."""
        self._nonce = max(self._nonce + 1, self._now_ms())
        name = what.get("instrument_name") or ""
        make = _ACTIONS[what["todo"]]
        own: dict[str, Any] = {}
        if name:
            own = {"market": MARKET, "counterparties": tuple(what["counterparties"])}
        action: Action = make(
            account=self._account,
            nonce=self._nonce,
            deadline_s=self._now_ms() // 1_000 + DEADLINE_S,
            max_fee_uusd=0,
            liquidated=liquidated,
            **own,
        )

        def name_of(_market: int) -> str:
            return str(name)

        unsigned = {"type": type(action).__name__, **message(action, name_of)}
        quote = await self._node.call("straddle_feeQuote", {"action": unsigned})
        action = replace(action, max_fee_uusd=quote["suggested_max_fee_uusd"])
        digest = action_digest(domain, action, lambda _: keccak(name.encode()))
        signed = SignedAction(action, self._key.sign(digest))
        try:
            receipt = await self._node.call(
                "straddle_sendTransactionSync", {"transaction": to_json(signed, name_of)}
            )
        except NodeError as error:
            self._log.info("refused", account=liquidated, todo=what["todo"], reason=str(error))
            return
        self.done += 1
        self._log.info("done", account=liquidated, todo=what["todo"], transaction=receipt["hash"])

    def _tell(self, wrong: str) -> None:
        if wrong and wrong != self._told:
            self._log.warning("cannot keep", reason=wrong)
        self._told = wrong
