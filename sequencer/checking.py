"""What is found out about a transaction without the state: its content, its hashes, and who signed it.

Most of the work of taking an order, and none of it needs the node: so it is done by worker processes
(`recovery`), and the event loop gets the action ready to execute. The messages between the two are defined
here; `Checker` does the work, in a worker or, for tests and tools, in the caller.

- iCHECK_001 Whatever the bytes, `Checker.answer` does not raise: what it cannot take is `Refused`, with the
  error that the client gets.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from sequencer.errors import ErrorCode, RpcError
from sequencer.ordering import place_in_order
from sequencer.rpc_params import ParamsDecoder
from state import wire, wire_types
from state.actions import SignedAction
from state.eip712 import Domain, signature_pairs, transaction_hash
from state.errors import RejectCode, Rejected
from state.hashing import keccak
from state.signatures import Recoverer
from state.wire_msgpack import decode_msgpack

Sent = wire_types.SignedActionJson | str
"""A transaction as clients send it: JSON, or 0x-hex of its canonical msgpack."""
Signers = tuple[bytes | None, ...]

PAIR_BYTES: Final = 96
"""A digest and its signature."""
MESSAGES: Final = {
    RejectCode.WRONG_SIGNER: "the signer may not act for this account",
    RejectCode.DEADLINE_EXPIRED: "the deadline has passed",
    RejectCode.UNKNOWN_ACCOUNT: "there is no such account",
    RejectCode.UNKNOWN_INSTRUMENT: "there is no such instrument",
}


class SendParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`transaction`: the signed action as JSON, or its canonical msgpack as 0x-hex."""

    transaction: Sent


class Pairs(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Who signed these? `digest | signature`, 96 bytes each."""

    data: bytes


class Params(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """What transaction is this? The JSON text of `SendParams`, by name or by position."""

    json: bytes


class Signed(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Who signed each of `Pairs`; None where a signature is nobody's."""

    signers: Signers


class Checked(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Everything about the transaction that `Params` hold; `place` is its (class, bid) in the order."""

    payload: SignedAction
    digest: bytes
    hash: bytes
    signers: Signers
    place: tuple[int, int]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Not a transaction: the error that its sender gets; `data` is JSON text."""

    code: int
    message: str
    data: bytes

    def error(self) -> RpcError:
        error = RpcError(ErrorCode.INTERNAL_ERROR, self.message)
        error.code = self.code
        error.data = msgspec.json.decode(self.data)
        return error


Task = Pairs | Params
Answer = Signed | Checked | Refused


class Work(msgspec.Struct, frozen=True, array_like=True):
    """One message to a worker: instruments listed since the last one, in order, and tasks."""

    names: Sequence[str]
    tasks: Sequence[Task]


def rejection(rejected: Rejected) -> RpcError:
    """The transition's or a check's no as a JSON-RPC error."""
    code = rejected.code
    message = MESSAGES.get(code, code.name.lower().replace("_", " "))
    return RpcError.rejected(int(code), code.name, message, rejected.data)


def decode_sent(sent: Sent, market_of: wire.MarketOf) -> SignedAction:
    """The signed action that a client sent.

    Raises RpcError INVALID_PARAMS with path, expected and got, BAD_SIGNATURE, or UNKNOWN_INSTRUMENT.
    """
    try:
        if isinstance(sent, str):
            return decode_msgpack(_bytes_of(sent))
        return wire.to_signed_action(sent, market_of)
    except wire.WireError as error:
        data = {"path": error.path, "expected": error.expected, "got": error.got}
        raise RpcError(ErrorCode.INVALID_PARAMS, f"invalid transaction: {error}", data) from None
    except Rejected as rejected:
        if rejected.code is RejectCode.BAD_SIGNATURE:
            raise RpcError(ErrorCode.BAD_SIGNATURE, data=rejected.data) from None
        raise rejection(rejected) from None


def pairs_of(
    domain: Domain, signed: SignedAction, name_hash_of: Callable[[int], bytes]
) -> list[tuple[bytes, bytes]]:
    """`eip712.signature_pairs`. Raises RpcError UNKNOWN_INSTRUMENT."""
    try:
        return signature_pairs(domain, signed, name_hash_of)
    except KeyError as error:
        raise rejection(Rejected(RejectCode.UNKNOWN_INSTRUMENT, market=str(error))) from None


class Checker:
    """Does the tasks; knows the domain and, as far as it was told, the instruments' names. For one thread."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._recover = Recoverer().recover
        self._decode = ParamsDecoder(SendParams).decode
        self._known = 0
        self._numbers: dict[str, int] = {}
        self._name_hashes: dict[int, bytes] = {}

    def learn(self, names: Sequence[str]) -> None:
        """The names of the instruments that follow those known, in the order of their numbers from 1.

        An empty name stands for an instrument that is gone.
        """
        for name in names:
            self._known += 1
            if name:
                self._numbers[name] = self._known
                self._name_hashes[self._known] = keccak(name.encode())

    def answer(self, task: Task) -> Answer:
        """Does not raise."""
        recover = self._recover
        if type(task) is Pairs:
            data = task.data
            starts = range(0, len(data), PAIR_BYTES)
            return Signed(tuple([recover(data[at : at + 32], data[at + 32 : at + 96]) for at in starts]))
        assert type(task) is Params
        try:
            return self._check(task.json)
        except RpcError as error:
            return _refused(error)
        except Exception:  # its sender is told, the worker's log (the node's standard error) says what
            traceback.print_exc(file=sys.stderr)
            return _refused(RpcError(ErrorCode.INTERNAL_ERROR))

    def _check(self, json: bytes) -> Checked:
        payload = decode_sent(self._decode(json).transaction, self._numbers.__getitem__)
        pairs = pairs_of(self._domain, payload, self._name_hashes.__getitem__)
        signers = tuple([self._recover(*pair) for pair in pairs])
        found = transaction_hash(*pairs[0])
        return Checked(payload, pairs[0][0], found, signers, place_in_order(payload))


def _refused(error: RpcError) -> Refused:
    return Refused(error.code, error.message, msgspec.json.encode(error.data))


def _bytes_of(text: str) -> bytes:
    try:
        if text.startswith("0x"):
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    raise wire.WireError("$", "an object, or msgpack as 0x-hex", "another string")
