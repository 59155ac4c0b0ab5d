"""JSON-RPC 2.0 without I/O: bytes of a message in, bytes of its answer out.

A transport hands each message to `Dispatcher.dispatch`. Methods are `Method` records whose parameter
type (a `msgspec.Struct`) both validates requests and, in openrpc.py, documents them.

A handler may answer in three ways, from cheapest to dearest:

- return its result: the answer is complete when `dispatch` returns;
- return a `Deferred` and resolve it later (the executor does so when a block is durable): nothing waits
  meanwhile, there is no task per request, and all entries of a batch start before any is waited for;
- be a coroutine function: it runs as a task of the connection, and is cancelled with it.

Invariants:
- iRPC_001 `done` is called exactly once when `dispatch` returned None, and never otherwise.
- iRPC_002 Entries of a batch start in array order, all of them before any answer is awaited; answers stand
  in array order; notifications leave no trace, and a message of nothing but notifications answers b"".
- iRPC_003 An id comes back byte for byte; where none can be told it is null.
- iRPC_004 Whatever the bytes, `dispatch` does not raise, and no answer holds text of an unknown exception.
- iRPC_005 At most `max_in_flight` calls wait at a time over all messages; further calls answer BUSY.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Generic, Literal, Protocol, TypeVar, cast

import msgspec

from sequencer.errors import MEANING, ErrorCode, RpcError
from sequencer.rpc_params import ParamsDecoder

P = TypeVar("P", bound=msgspec.Struct)
P_contra = TypeVar("P_contra", contravariant=True)
T = TypeVar("T")

Done = Callable[[bytes], None]
OnFault = Callable[[BaseException, str], None]

_encode = msgspec.json.Encoder().encode
_NULL: Final = b"null"
_PENDING: Final = object()


class NoParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameter type of methods that take none."""


class Deferred(Generic[T]):
    """An answer that comes later, resolved from the same trio thread.

    `resolve` or `fail` must be called once; RuntimeError says that it was called twice. Neither raises
    because of what the receiver does. If the client has gone, the answer is dropped silently.
    """

    __slots__ = ("_outcome", "_receiver")

    def __init__(self) -> None:
        self._outcome: object = _PENDING
        self._receiver: Callable[[object], None] | None = None

    def resolve(self, result: T) -> None:
        """Answer with `result` (give `msgspec.Raw` when the JSON is already at hand)."""
        self._settle(result)

    def fail(self, error: RpcError) -> None:
        """Answer with an error."""
        self._settle(error)

    def on_settled(self, receiver: Callable[[object], None]) -> None:
        """Call `receiver(result or RpcError)` once, now if already settled. One receiver only."""
        if self._receiver is not None:
            raise RuntimeError("a Deferred has one receiver")
        self._receiver = receiver
        if self._outcome is not _PENDING:
            receiver(self._outcome)

    @property
    def settled(self) -> bool:
        """Whether `resolve` or `fail` was called."""
        return self._outcome is not _PENDING

    def _settle(self, outcome: object) -> None:
        if self._outcome is not _PENDING:
            raise RuntimeError("a Deferred is settled once")
        self._outcome = outcome
        if self._receiver is not None:
            self._receiver(outcome)


class Subscriber(Protocol):
    """A connection that can be sent messages it did not ask for one by one (see feed.py)."""

    def push(self, frame: bytes) -> bool:
        """Queue a ready WebSocket frame; False when the queue was full and the subscriber is dropped."""

    def room(self) -> int:
        """How many more messages the queue takes."""


StartSoon = Callable[[Callable[[], Awaitable[None]]], None]


@dataclass(frozen=True, slots=True)
class Context:
    """Where a call came from.

    `peer` is the client's address as text, `start_soon` runs an async function as a task of the
    connection, `subscriber` is the WebSocket's subscription sink, or None over HTTP.
    """

    peer: str
    start_soon: StartSoon
    subscriber: Subscriber | None = None


class Handler(Protocol[P_contra]):
    """What a method does. It may return a result, a `Deferred` of it, or be an `async def`.

    Raises RpcError to answer with an error; any other exception is a fault of the node.
    """

    def __call__(self, params: P_contra, context: Context, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Method(Generic[P]):
    """One method: the record that validates, runs and documents it.

    `params` is a Struct with `forbid_unknown_fields=True`; clients may send it by name or by position (in
    the order of its fields). `result` is any type msgspec knows; it documents, and is not checked at run
    time. `errors` are those a caller should expect beyond the standard ones.
    """

    name: str
    params: type[P]
    result: Any
    handler: Handler[P]
    summary: str
    description: str = ""
    errors: tuple[ErrorCode, ...] = ()
    undecoded: Callable[[msgspec.Raw], Deferred[Any]] | None = None
    """Takes the JSON text of the parameters in the handler's place, and has `params` validated elsewhere."""
    decoder: ParamsDecoder[P] = field(init=False, repr=False, compare=False)
    is_async: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decoder", ParamsDecoder(self.params))
        call = getattr(self.handler, "__call__", self.handler)  # noqa: B004
        is_async = inspect.iscoroutinefunction(self.handler) or inspect.iscoroutinefunction(call)
        object.__setattr__(self, "is_async", is_async)


class Registry:
    """The methods of one endpoint, in the order they were added."""

    def __init__(self, methods: Sequence[Method[Any]] = ()) -> None:
        self._methods: dict[str, Method[Any]] = {}
        for method in methods:
            self.add(method)

    def add(self, method: Method[Any]) -> None:
        """Add one method. Raises ValueError when the name is taken."""
        if method.name in self._methods:
            raise ValueError(f"method {method.name} is registered twice")
        self._methods[method.name] = method

    def get(self, name: str) -> Method[Any] | None:
        """The method of that name, or None."""
        return self._methods.get(name)

    def __iter__(self) -> Iterator[Method[Any]]:
        return iter(self._methods.values())


class _Request(msgspec.Struct):
    jsonrpc: Literal["2.0"]
    method: str
    params: msgspec.Raw = msgspec.Raw(b"")
    id: msgspec.Raw = msgspec.Raw(b"")


MAX_BRACKETS = 10_000
"""Objects and arrays of one body: a full array of full bulk actions has 7,000. The JSON decoder recurses on
the C stack, and its own guard is Python's recursion limit, which libraries below web3 raise to 100,000."""

_decode_request = msgspec.json.Decoder(_Request).decode
_decode_batch = msgspec.json.Decoder(list[_Request]).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_check_syntax = msgspec.json.Decoder(msgspec.Raw).decode


def result_bytes(request_id: bytes, result: object) -> bytes:
    """A success answer. Raises what msgspec raises when `result` cannot be encoded."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (request_id, _encode(result))


def error_bytes(request_id: bytes, error: RpcError) -> bytes:
    """An error answer."""
    body = {"code": error.code, "message": error.message, "data": error.data}
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (request_id, _encode(body))


def _id_of(raw: msgspec.Raw) -> bytes | None:
    """The id's exact bytes; None when its JSON type may not be an id."""
    text = bytes(raw)
    return text if text[:1] in b'"-0123456789n' else None


class Dispatcher:
    """Runs messages against a registry.

    `max_batch` entries per array, `max_in_flight` waiting calls in all, `max_answer_bytes` per answer.
    `on_fault(exception, where)` is called once for every exception that is not an `RpcError`; the client
    gets INTERNAL_ERROR without its text.
    """

    def __init__(
        self,
        registry: Registry,
        on_fault: OnFault,
        *,
        max_batch: int,
        max_in_flight: int,
        max_answer_bytes: int,
    ) -> None:
        self.registry = registry
        self.in_flight = 0
        self._on_fault = on_fault
        self._max_batch = max_batch
        self._max_in_flight = max_in_flight
        self._max_answer_bytes = max_answer_bytes
        self._raw_batch = msgspec.json.Decoder(
            Annotated[list[msgspec.Raw], msgspec.Meta(max_length=max_batch)]
        )

    def dispatch(self, body: bytes, context: Context, done: Done) -> bytes | None:
        """Run one message.

        Returns the answer (b"" when there is nothing to answer), or None when `done(answer)` will be
        called later, exactly once and with the same meaning. Does not raise.
        """
        if body.count(b"{") + body.count(b"[") > MAX_BRACKETS:
            reason = f"more than {MAX_BRACKETS} objects and arrays"
            return error_bytes(_NULL, RpcError(ErrorCode.PARSE_ERROR, reason))
        if not body.isascii():
            try:
                body.decode()
            except UnicodeDecodeError:
                return error_bytes(_NULL, RpcError(ErrorCode.PARSE_ERROR, "the body is not UTF-8"))
        if body[:1] == b"[" or body.lstrip(b" \t\r\n")[:1] == b"[":
            return self._dispatch_batch(body, context, done)
        try:
            request = _decode_request(body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            return _diagnose(body)
        return self._start(request, context, done)

    def _dispatch_batch(self, body: bytes, context: Context, done: Done) -> bytes | None:
        entries: Sequence[_Request | bytes]
        try:
            entries = _decode_batch(body)
        except (msgspec.DecodeError, RecursionError, ValueError):
            try:
                _check_syntax(body)
            except (msgspec.DecodeError, RecursionError, ValueError) as error:
                return error_bytes(_NULL, _parse_error(error))
            try:
                entries = [_entry(raw) for raw in self._raw_batch.decode(body)]
            except msgspec.ValidationError:
                return error_bytes(_NULL, self._too_long("more"))
        if not entries:
            return error_bytes(_NULL, RpcError(ErrorCode.INVALID_REQUEST, "the array is empty"))
        if len(entries) > self._max_batch:
            return error_bytes(_NULL, self._too_long(len(entries)))
        batch = _Batch(len(entries), self._max_answer_bytes, done)
        for index, entry in enumerate(entries):
            if isinstance(entry, bytes):
                batch.put(index, entry)
                continue
            answer = self._start(entry, context, batch.receiver(index))
            if answer is not None:
                batch.put(index, answer)
        return batch.all_started()

    def _too_long(self, got: int | str) -> RpcError:
        message = f"an array may have {self._max_batch} entries"
        return RpcError(ErrorCode.INVALID_REQUEST, message, {"limit": self._max_batch, "got": got})

    def _start(self, request: _Request, context: Context, done: Done) -> bytes | None:
        """Start one call: as `dispatch`, for one request."""
        request_id = bytes(request.id)
        if request_id and _id_of(request.id) is None:
            return error_bytes(
                _NULL, RpcError(ErrorCode.INVALID_REQUEST, "id must be a string, number or null")
            )
        try:
            outcome = self._invoke(request, context)
        except RpcError as error:
            outcome = error
        except Exception as fault:
            self._on_fault(fault, request.method)
            outcome = RpcError(ErrorCode.INTERNAL_ERROR)
        if type(outcome) is Deferred:
            if not request_id:
                done = _ignore
            call = _Call(self, request.method, request_id, done)
            self.in_flight += 1
            answer = call.attach(outcome)
            return answer if request_id else b""
        return self.encode(request_id, outcome, request.method)

    def _invoke(self, request: _Request, context: Context) -> object:
        method = self.registry.get(request.method)
        if method is None:
            name = request.method[:64]
            raise RpcError(ErrorCode.METHOD_NOT_FOUND, f"there is no method {name!r}", {"method": name})
        if self.in_flight >= self._max_in_flight:
            raise RpcError(ErrorCode.BUSY, data={"limit": self._max_in_flight})
        if method.undecoded is not None:
            return method.undecoded(request.params)
        params = method.decoder.decode(request.params)
        if not method.is_async:
            return method.handler(params, context)
        deferred: Deferred[Any] = Deferred()

        async def run() -> None:
            try:
                deferred.resolve(await cast("Awaitable[Any]", method.handler(params, context)))
            except RpcError as error:
                deferred.fail(error)
            except Exception as fault:
                self._on_fault(fault, method.name)
                deferred.fail(RpcError(ErrorCode.INTERNAL_ERROR))
            finally:
                if not deferred.settled:  # cancelled with its connection: nobody is left to answer
                    deferred.fail(RpcError(ErrorCode.DRAINING))

        context.start_soon(run)
        return deferred

    def encode(self, request_id: bytes, outcome: object, where: str) -> bytes:
        """The answer for a result or an RpcError; b"" for a notification (empty `request_id`)."""
        if not request_id:
            return b""
        try:
            if isinstance(outcome, RpcError):
                answer = error_bytes(request_id, outcome)
            else:
                answer = result_bytes(request_id, outcome)
        except Exception as fault:
            self._on_fault(fault, where)
            return error_bytes(request_id, RpcError(ErrorCode.INTERNAL_ERROR))
        if len(answer) > self._max_answer_bytes:
            return error_bytes(request_id, _too_large(self._max_answer_bytes))
        return answer


class _Call:
    """A call whose Deferred is not settled yet."""

    __slots__ = ("_dispatcher", "_done", "_early", "_request_id", "_returned", "_where")

    def __init__(self, dispatcher: Dispatcher, where: str, request_id: bytes, done: Done) -> None:
        self._dispatcher = dispatcher
        self._where = where
        self._request_id = request_id
        self._done = done
        self._returned = False
        self._early: bytes | None = None

    def attach(self, deferred: Deferred[Any]) -> bytes | None:
        """Listen; the answer if the Deferred was settled before it was returned, else None."""
        deferred.on_settled(self._settled)
        self._returned = True
        return self._early

    def _settled(self, outcome: object) -> None:
        self._dispatcher.in_flight -= 1
        answer = self._dispatcher.encode(self._request_id, outcome, self._where)
        if self._returned:
            self._done(answer)
        else:
            self._early = answer


class _Batch:
    """The answers of one array, put together when the last one is there."""

    __slots__ = ("_answers", "_budget", "_done", "_missing", "_started")

    def __init__(self, count: int, max_answer_bytes: int, done: Done) -> None:
        self._answers: list[bytes] = [b""] * count
        self._missing = count
        self._budget = max_answer_bytes
        self._done = done
        self._started = False

    def receiver(self, index: int) -> Done:
        return lambda answer: self.put(index, answer)

    def put(self, index: int, answer: bytes) -> None:
        if len(answer) > self._budget:
            request_id = bytes(_decode_members(answer)["id"])
            answer = error_bytes(request_id, _too_large(self._budget))
        self._budget = max(0, self._budget - len(answer))
        self._answers[index] = answer
        self._missing -= 1
        if self._started and self._missing == 0:
            self._done(self._joined())

    def all_started(self) -> bytes | None:
        """The whole answer if nothing is waited for, else None."""
        self._started = True
        return self._joined() if self._missing == 0 else None

    def _joined(self) -> bytes:
        body = b",".join(filter(None, self._answers))
        return b"[%b]" % body if body else b""


def _ignore(_answer: bytes) -> None:
    """Where the outcome of a waiting notification goes."""


def _too_large(limit_bytes: int) -> RpcError:
    return RpcError(ErrorCode.ANSWER_TOO_LARGE, data={"limit_bytes": limit_bytes})


def _parse_error(error: Exception) -> RpcError:
    if isinstance(error, RecursionError):
        return RpcError(ErrorCode.PARSE_ERROR, "the JSON is nested too deeply")
    return RpcError(ErrorCode.PARSE_ERROR, MEANING[ErrorCode.PARSE_ERROR], {"message": str(error)[:200]})


def _entry(raw: msgspec.Raw) -> _Request | bytes:
    """One array entry: a request, or the answer that says why it is none."""
    try:
        return _decode_request(raw)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return _diagnose(bytes(raw))


def _diagnose(body: bytes) -> bytes:
    """The answer to a message that is not a request: parse error, or invalid request with its id if any."""
    try:
        _check_syntax(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        return error_bytes(_NULL, _parse_error(error))
    try:
        members = _decode_members(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return error_bytes(_NULL, RpcError(ErrorCode.INVALID_REQUEST, "a request is a JSON object"))
    request_id = _id_of(members["id"]) if "id" in members else None
    problem = 'a request has jsonrpc "2.0" and a method name'
    try:
        _decode_request(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        problem = str(error)[:200]
    return error_bytes(request_id or _NULL, RpcError(ErrorCode.INVALID_REQUEST, data={"message": problem}))
