"""Sending transactions, and what one wants to know before: simulation, signatures (fees: `api_fee_quote`).

The hot path is `straddle_sendTransactionSync`: its parameters go to a worker process as they came, the answer
is one Struct encoded once, and between them nothing waits in a task of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.checking import SendParams, Sent, rejection
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Deferred, Method
from sequencer.receipts import OperationView, Receipt, hex_of, operation_view
from state import eip712, keys, signatures, wire, wire_types
from state.actions import Transaction
from state.errors import RejectCode, Rejected
from state.margin import Margin
from state.transition import simulate
from state.typed_data import typed_data

MAX_TRANSACTIONS = 256

SEND_ERRORS = (
    ErrorCode.BUSY,
    ErrorCode.DRAINING,
    ErrorCode.PAUSED,
    ErrorCode.BAD_SIGNATURE,
    ErrorCode.WRONG_SIGNER,
)


class SendManyParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`until`: answer each when it is accepted (with its hash) or sealed (with its receipt)."""

    transactions: Annotated[list[Sent], Meta(min_length=1, max_length=MAX_TRANSACTIONS)]
    until: Literal["accepted", "sealed"] = "sealed"


class OneError(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: dict[str, Any]


class OneResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of many: its hash, its receipt, or its error."""

    hash: str | None = None
    receipt: Receipt | None = None
    error: OneError | None = None


class MarginView(msgspec.Struct, frozen=True):
    equity_uusd: int
    initial_uusd: int
    maintenance_uusd: int
    available_uusd: int


class SimulationView(msgspec.Struct, frozen=True):
    """What would happen now; `error` is why it would be refused."""

    executed: bool
    fee_uusd: int | None
    operations: list[OperationView]
    error: OneError | None
    margin_before: MarginView | None
    margin_after: MarginView | None


class SignatureView(msgspec.Struct, frozen=True):
    """Every intermediate of the check, for whoever must find where theirs differs."""

    type_string: str
    type_hash: str
    struct_hash: str
    domain_separator: str
    digest: str
    recovered: str | None
    account_owner: str | None
    may_sign: bool
    typed_data: dict[str, Any]


def error_view(error: RpcError) -> OneError:
    return OneError(error.code, error.message, error.data)


def margin_view(margin: Margin | None) -> MarginView | None:
    if margin is None:
        return None
    return MarginView(margin.equity_uusd, margin.initial_uusd, margin.maintenance_uusd, margin.available_uusd)


class _Many:
    """Answers an array when its last transaction is answered."""

    def __init__(self, count: int) -> None:
        self.answer: Deferred[list[OneResult]] = Deferred()
        self._results: list[OneResult] = [OneResult()] * count
        self._missing = count

    def receiver(self, index: int) -> Callable[[object], None]:
        return lambda outcome: self.put(index, outcome)

    def put(self, index: int, outcome: object) -> None:
        if isinstance(outcome, RpcError):
            result = OneResult(error=error_view(outcome))
        elif isinstance(outcome, Receipt):
            result = OneResult(outcome.hash, outcome)
        else:
            result = OneResult(str(outcome))
        self._results[index] = result
        self._missing -= 1
        if not self._missing:
            self.answer.resolve(self._results)


class TransactionApi:
    """Methods that take transactions, or look at ones that are not sent."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._ingress = context.ingress

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_sendTransaction",
                SendParams,
                str,
                lambda params, _: self._ingress.submit(params.transaction, False),
                "Take a signed action; answers with its hash when it waits for a block.",
                errors=SEND_ERRORS,
                undecoded=lambda params: self._ingress.submit_params(params, False),
            ),
            Method(
                "straddle_sendTransactionSync",
                SendParams,
                Receipt,
                lambda params, _: self._ingress.submit(params.transaction, True),
                "Take a signed action; answers with its signed receipt when its block is durable.",
                errors=SEND_ERRORS,
                undecoded=lambda params: self._ingress.submit_params(params, True),
            ),
            Method(
                "straddle_sendTransactions",
                SendManyParams,
                list[OneResult],
                self._send_many,
                "Take several signed actions; one result each, in their order.",
                errors=SEND_ERRORS,
            ),
            Method(
                "straddle_sendOracleUpdate",
                wire_types.OracleUpdateJson,
                Receipt,
                self._send_update,
                "Take publishers' signed reports, together as one transaction.",
                errors=SEND_ERRORS,
            ),
            Method(
                "straddle_simulate",
                SendParams,
                SimulationView,
                self._simulate,
                "What a signed action would do now: results, fee and margin. Nothing is changed.",
                errors=(ErrorCode.BAD_SIGNATURE,),
            ),
            Method(
                "straddle_checkSignature",
                SendParams,
                SignatureView,
                self._check_signature,
                "Who signed an action, and every hash on the way to knowing it.",
                errors=(ErrorCode.BAD_SIGNATURE,),
            ),
        ]

    def _send_many(self, params: SendManyParams, _context: Context) -> Deferred[list[OneResult]]:
        many = _Many(len(params.transactions))
        until_sealed = params.until == "sealed"
        for index, sent in enumerate(params.transactions):
            try:
                answer = self._ingress.submit(sent, until_sealed)
            except RpcError as error:
                many.put(index, error)
                continue
            if isinstance(answer, Deferred):
                answer.on_settled(many.receiver(index))
            else:
                many.put(index, answer)
        return many.answer

    def _send_update(self, params: wire_types.OracleUpdateJson, _context: Context) -> Any:
        try:
            update = wire.to_oracle_update(params)
        except wire.WireError as error:
            raise RpcError(
                ErrorCode.INVALID_PARAMS,
                str(error),
                {"path": error.path, "expected": error.expected, "got": error.got},
            ) from None
        except Rejected as rejected:
            raise RpcError(ErrorCode.BAD_SIGNATURE, data=rejected.data) from None
        self._context.reports.witness(update)
        return self._ingress.submit_update(update, True)

    def _simulate(self, params: SendParams, _context: Context) -> SimulationView:
        signed = self._ingress.decode(params.transaction)
        pairs = self._ingress.pairs(signed)
        transaction = Transaction(
            signed,
            tuple([signatures.recover(*pair) for pair in pairs]),
            eip712.transaction_hash(*pairs[0]),
        )
        machine = self._context.machine
        system = machine.system
        now_ms = max(self._context.now_ms(), system.timestamp_ms)
        found = simulate(machine.view, now_ms, transaction)
        result = found.result
        return SimulationView(
            result is not None,
            result.fee_uusd if result else None,
            [operation_view(each) for each in result.operations] if result else [],
            error_view(rejection(found.rejected)) if found.rejected else None,
            margin_view(found.before),
            margin_view(found.after),
        )

    def _check_signature(self, params: SendParams, _context: Context) -> SignatureView:
        signed = self._ingress.decode(params.transaction)
        context = self._context
        markets = context.machine.markets
        try:
            found = eip712.check(context.domain, signed.action, signed.signature, markets.name_hash_of)
        except KeyError as error:
            raise rejection(Rejected(RejectCode.UNKNOWN_INSTRUMENT, market=str(error))) from None
        view = context.machine.view
        number = signed.action.account
        account = view.get(keys.account_key(number))
        signer = found.recovered
        may_sign = (
            account is not None
            and signer is not None
            and (account.owner == signer or view.get(keys.session_key_key(number, signer)) is not None)
        )
        return SignatureView(
            found.type_string,
            hex_of(found.type_hash),
            hex_of(found.struct_hash),
            hex_of(found.domain_separator),
            hex_of(found.digest),
            hex_of(signer) if signer else None,
            hex_of(account.owner) if account else None,
            may_sign,
            typed_data(context.domain, signed.action, markets.name_of),
        )
