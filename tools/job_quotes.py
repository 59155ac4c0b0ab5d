"""Some of the main job's traders ask what an action will cost before they sign it, and hold the node to it.

Every `ASK_EVERY`th action is quoted, whatever it is and whoever sends it, and signed with the quote's
`most_uusd` as its `max_fee_uusd`. The quote must carry the sequencer's signature and be for exactly that
action. It was exceeded if a block within the quote's time charged more for it (places paid for included, the
venue's fees on fills not), or if it was refused for its fee; what is answered later says nothing.
"""

from __future__ import annotations

from typing import Any

from sequencer.client import NodeClient, NodeError
from state.eip712 import Domain, fee_quote_digest
from state.errors import RejectCode
from state.signatures import recover
from tools.services import ServiceFailed

ASK_EVERY = 20
SECONDS = 30
FOR_ITS_FEE = (RejectCode.FEE_ABOVE_MAX.name, RejectCode.BID_ABOVE_MAX_FEE.name)


class FeeQuotes:
    """Counts; `sequencer` is the address whose word quotes are."""

    def __init__(self, domain: Domain, sequencer: bytes) -> None:
        self.asked = 0
        self.exceeded = 0
        self._domain = domain
        self._sequencer = sequencer
        self._seen = 0

    def wanted(self) -> bool:
        """Whether the next action is to be quoted."""
        self._seen += 1
        return self._seen % ASK_EVERY == 0

    async def ask(self, client: NodeClient, unsigned: dict[str, Any]) -> dict[str, Any] | None:
        """The signed quote for an action's JSON form; None for what the node refuses to execute anyway.

        Raises ServiceFailed for one that the sequencer did not sign.
        """
        try:
            answer = await client.call("straddle_feeQuote", {"action": unsigned, "seconds": SECONDS})
        except NodeError:
            return None
        quote: dict[str, Any] = answer["quote"]
        covered, *numbers, signature = quote.values()
        digest = fee_quote_digest(self._domain, bytes.fromhex(covered[2:]), numbers)
        if recover(digest, bytes.fromhex(signature[2:])) != self._sequencer:
            raise ServiceFailed(f"a fee quote has not the sequencer's signature: {quote}")
        self.asked += 1
        return quote

    def judge(self, quote: dict[str, Any], outcome: Any) -> None:
        """What came of an action that was signed with its quote's most."""
        if isinstance(outcome, NodeError):
            self.exceeded += (outcome.data or {}).get("code") in FOR_ITS_FEE
            return
        fee = outcome["fee"]
        charged = fee["inclusion_uusd"] + fee["priority_uusd"]
        in_time = outcome["timestamp_ms"] <= quote["expiry_ms"]
        self.exceeded += in_time and charged > quote["most_uusd"]
