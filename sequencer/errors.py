"""Every error code a JSON-RPC client of the node can meet, in one table.

Standard codes are used where the JSON-RPC 2.0 specification has one. The node's own codes stand in two
ranges that can never meet:

- `-32000 - n`, 1 <= n <= `REJECT_NUMBER_MAX`: the transition rejected the transaction with reject code n
  (state/PROTOCOL.md lists them); `data.code` is the reject code's name.
- `-31000 - n`: the node or its transport could not take the call (`ErrorCode`).

Invariants: a code is never given a new meaning; `data` is always an object and its member `code` is the
stable name, so clients may switch on names and never need to parse a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

REJECT_BASE: Final = -32000
REJECT_NUMBER_MAX: Final = 499


class ErrorCode(IntEnum):
    """JSON-RPC error codes; the member's name is what stands in `data.code`."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603

    BUSY = -31001
    DRAINING = -31002
    NOT_FOUND = -31003
    NOT_AVAILABLE = -31004
    TIMED_OUT = -31005
    ANSWER_TOO_LARGE = -31006
    NEED_WEBSOCKET = -31010
    UNKNOWN_CHANNEL = -31011
    RESUME_GONE = -31012
    TOO_MANY_SUBSCRIPTIONS = -31013
    BAD_SIGNATURE = -31020
    WRONG_SIGNER = -31021
    PAUSED = -31022
    RFQ_LEGS_DIFFER = -31030
    TOO_MANY_RFQS = -31031
    TOO_MANY_QUOTES = -31032
    QUOTE_OUTBID = -31033
    FEE_QUOTE_EXPIRED = -31040
    FEE_QUOTE_FOREIGN = -31041


MEANING: Final[Mapping[ErrorCode, str]] = {
    ErrorCode.PARSE_ERROR: "The body is not JSON, not UTF-8, or nested too deeply.",
    ErrorCode.INVALID_REQUEST: "The JSON is not a JSON-RPC 2.0 request, or a batch is empty or too long.",
    ErrorCode.METHOD_NOT_FOUND: "There is no such method; rpc.discover lists them.",
    ErrorCode.INVALID_PARAMS: "The parameters do not match the method; data says where and why.",
    ErrorCode.INTERNAL_ERROR: "The node failed while answering. The fault is logged; nothing was changed.",
    ErrorCode.BUSY: "A queue of the node is full. Try again after a short pause.",
    ErrorCode.DRAINING: "The node is shutting down and takes no new work.",
    ErrorCode.NOT_FOUND: "What was asked for does not exist.",
    ErrorCode.NOT_AVAILABLE: "It exists, but this node cannot serve it (pruned, or not yet known).",
    ErrorCode.TIMED_OUT: "The answer did not come in time; the transaction may still be included.",
    ErrorCode.ANSWER_TOO_LARGE: "The answer would exceed the size limit; ask for less at a time.",
    ErrorCode.NEED_WEBSOCKET: "Subscriptions need a WebSocket connection to the same address.",
    ErrorCode.UNKNOWN_CHANNEL: "There is no such channel.",
    ErrorCode.RESUME_GONE: "The missed messages are no longer kept. Subscribe without a resume token.",
    ErrorCode.TOO_MANY_SUBSCRIPTIONS: "This connection has as many subscriptions as it may have.",
    ErrorCode.BAD_SIGNATURE: "The signature is malformed or not canonical (high s).",
    ErrorCode.WRONG_SIGNER: "The signer may not act for the account; data has signer and digest.",
    ErrorCode.PAUSED: "The operator has paused intake.",
    ErrorCode.RFQ_LEGS_DIFFER: "The quote's legs are neither the other side of the request nor the same.",
    ErrorCode.TOO_MANY_RFQS: "This connection has as many open requests for quotes as it may have.",
    ErrorCode.TOO_MANY_QUOTES: "This maker has as many quotes there as it may have.",
    ErrorCode.QUOTE_OUTBID: "The request has as many quotes as it takes, all better ones or as good.",
    ErrorCode.FEE_QUOTE_EXPIRED: "The fee quote is older than it holds. Ask for another.",
    ErrorCode.FEE_QUOTE_FOREIGN: "The fee quote, as it is, was not signed by this sequencer for this rollup.",
}


class RpcError(Exception):
    """An error a method answers with: it goes to the client as it is and is not logged as a fault.

    `code` is the JSON-RPC code, `message` one plain sentence, `data` what a program needs to react;
    `data["code"]` is filled in with the stable name.
    """

    def __init__(self, code: ErrorCode, message: str = "", data: Mapping[str, object] | None = None) -> None:
        self.code: int = int(code)
        self.message = message or MEANING[code]
        self.data: dict[str, object] = {"code": code.name, **(data or {})}
        super().__init__(self.message)

    @classmethod
    def rejected(cls, number: int, name: str, message: str, data: Mapping[str, object]) -> RpcError:
        """The transition's reject code `number` (`name`) as a JSON-RPC error with code -32000 - number.

        Raises ValueError when the number is outside 1..`REJECT_NUMBER_MAX`.
        """
        if not 1 <= number <= REJECT_NUMBER_MAX:
            raise ValueError(f"reject number {number} is outside 1..{REJECT_NUMBER_MAX}")
        error = cls(ErrorCode.INTERNAL_ERROR, message)
        error.code = REJECT_BASE - number
        error.data = {"code": name, **data}
        return error
