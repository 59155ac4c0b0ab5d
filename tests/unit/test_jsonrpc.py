"""The JSON-RPC 2.0 specification's behaviours, and the dispatcher's own invariants (iRPC_...)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sequencer.errors import MEANING, ErrorCode, RpcError
from sequencer.jsonrpc import Context, Deferred, Dispatcher, Method, NoParams, Registry


class Subtract(msgspec.Struct, forbid_unknown_fields=True):
    minuend: int
    subtrahend: int


class Place(msgspec.Struct, forbid_unknown_fields=True):
    size_ulots: Annotated[int, msgspec.Meta(ge=1)]
    legs: list[Subtract] = []


class Fixture:
    """A dispatcher whose handlers' waiting answers and faults are at hand."""

    def __init__(self, *, max_in_flight: int = 8, max_answer_bytes: int = 4096) -> None:
        self.faults: list[tuple[BaseException, str]] = []
        self.waiting: list[Deferred[Any]] = []
        self.done: list[bytes] = []
        self.tasks: list[Callable[[], Awaitable[None]]] = []
        self.calls: list[str] = []
        self.context = Context(peer="test", start_soon=self.tasks.append)
        registry = Registry(
            [
                Method("subtract", Subtract, int, self._subtract, "minuend - subtrahend"),
                Method("update", Place, int, lambda p, c: p.size_ulots, "echo"),
                Method("none", NoParams, None, lambda p, c: None, "nothing"),
                Method("wait", NoParams, int, self._wait, "answers later"),
                Method("early", NoParams, int, self._early, "answers before it returns"),
                Method("sleep", NoParams, int, self._sleep, "a coroutine"),
                Method("fail", NoParams, int, self._fail, "a fault"),
                Method("refuse", NoParams, int, self._refuse, "an error"),
                Method("unencodable", NoParams, int, lambda p, c: object(), "a fault of the result"),
                Method("large", NoParams, str, lambda p, c: "x" * 1500, "1500 characters"),
            ]
        )
        self.dispatcher = Dispatcher(
            registry,
            lambda fault, where: self.faults.append((fault, where)),
            max_batch=1000,
            max_in_flight=max_in_flight,
            max_answer_bytes=max_answer_bytes,
        )

    def _subtract(self, params: Subtract, _context: Context) -> int:
        self.calls.append("subtract")
        return params.minuend - params.subtrahend

    def _wait(self, _params: NoParams, _context: Context) -> Deferred[int]:
        self.calls.append("wait")
        self.waiting.append(Deferred())
        return self.waiting[-1]

    def _early(self, _params: NoParams, _context: Context) -> Deferred[int]:
        deferred: Deferred[int] = Deferred()
        deferred.resolve(5)
        return deferred

    async def _sleep(self, _params: NoParams, _context: Context) -> int:
        await trio.sleep(1)
        return 9

    def _fail(self, _params: NoParams, _context: Context) -> int:
        raise KeyError("secret detail")

    def _refuse(self, _params: NoParams, _context: Context) -> int:
        raise RpcError.rejected(7, "STALE_NONCE", "the nonce was used", {"expected": 7, "got": 6})

    def raw(self, body: bytes | str) -> bytes | None:
        data = body.encode() if isinstance(body, str) else body
        return self.dispatcher.dispatch(data, self.context, self.done.append)

    def ask(self, body: bytes | str) -> Any:
        answer = self.raw(body)
        assert answer is not None
        return json.loads(answer) if answer else None


@pytest.fixture
def rpc() -> Fixture:
    return Fixture()


def result(request_id: object, value: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": request_id, "result": value}


def code_of(answer: Any) -> tuple[object, int]:
    assert set(answer) == {"jsonrpc", "id", "error"}
    assert answer["jsonrpc"] == "2.0"
    assert set(answer["error"]) == {"code", "message", "data"}
    return answer["id"], answer["error"]["code"]


# The examples of section 7 of the specification.


def test_spec_positional_and_named(rpc: Fixture) -> None:
    assert rpc.ask('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}') == result(1, 19)
    assert rpc.ask('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}') == result(2, -19)
    named = '{"jsonrpc":"2.0","method":"subtract","params":{"subtrahend":23,"minuend":42},"id":3}'
    assert rpc.ask(named) == result(3, 19)


def test_spec_notifications_answer_nothing(rpc: Fixture) -> None:
    assert rpc.raw('{"jsonrpc": "2.0", "method": "subtract", "params": [1, 2]}') == b""
    assert rpc.calls == ["subtract"]
    for silent in ("foobar", "fail", "refuse", "unencodable", "wait"):
        assert rpc.raw(json.dumps({"jsonrpc": "2.0", "method": silent})) == b""
    assert [where for _, where in rpc.faults] == ["fail"]
    rpc.waiting[0].resolve(1)
    assert rpc.done == []
    assert rpc.dispatcher.in_flight == 0


def test_spec_unknown_method(rpc: Fixture) -> None:
    answer = rpc.ask('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}')
    assert code_of(answer) == ("1", -32601)
    assert answer["error"]["data"] == {"code": "METHOD_NOT_FOUND", "method": "foobar"}


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        '[{"jsonrpc":"2.0","method":"subtract","params":[1,2],"id":"1"},{"jsonrpc":"2.0","method"]',
        "",
        "  ",
        "[",
        "{",
        "nul",
        '{"jsonrpc":"2.0","method":1,"id":01}',
        '{"jsonrpc":"2.0","method":"none","id":1} {}',
        b"\xff\xfe",
        b'{"jsonrpc":"2.0","method":"none","id":"\xff"}',
        b'[{"jsonrpc":"2.0","method":"none","id":"\xed\xa0\x80"}]',
        b"\x00" * 100,
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"jsonrpc":"2.0","method":"none","params":' + '{"a":' * 50_000 + "1" + "}" * 50_001,
    ],
)
def test_spec_not_json(rpc: Fixture, body: bytes | str) -> None:
    assert code_of(rpc.ask(body)) == (None, -32700)


@pytest.mark.parametrize(
    ("body", "request_id"),
    [
        ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', None),
        ("[]", None),
        ("1", None),
        ("null", None),
        ('"text"', None),
        ('{"jsonrpc": "1.0", "method": "none", "id": 4}', 4),
        ('{"method": "none", "id": "a"}', "a"),
        ('{"jsonrpc": "2.0", "id": 4}', 4),
        ('{"jsonrpc": "2.0", "method": "none", "id": {}}', None),
        ('{"jsonrpc": "2.0", "method": "none", "id": [1]}', None),
        ('{"jsonrpc": "2.0", "method": "none", "id": true}', None),
        ('{"jsonrpc": "2.0", "method": "none", "params": 1, "id": 4}', 4),
        ('{"jsonrpc": "2.0", "method": "none", "params": "bar", "id": 4}', 4),
    ],
)
def test_spec_invalid_request(rpc: Fixture, body: str, request_id: object) -> None:
    assert code_of(rpc.ask(body)) == (request_id, -32600)
    assert rpc.calls == []


def test_spec_batch_of_invalid_entries(rpc: Fixture) -> None:
    assert [code_of(entry) for entry in rpc.ask("[1,2,3]")] == [(None, -32600)] * 3


def test_spec_mixed_batch(rpc: Fixture) -> None:
    answers = rpc.ask(
        """[
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "1"},
        {"jsonrpc": "2.0", "method": "update", "params": [7]},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "none", "id": "9"}
    ]"""
    )
    assert answers[0] == result("1", 19)
    assert code_of(answers[1]) == (None, -32600)
    assert code_of(answers[2]) == ("5", -32601)
    assert answers[3] == result("9", None)
    assert len(answers) == 4


def test_spec_batch_of_notifications_answers_nothing(rpc: Fixture) -> None:
    note = '{"jsonrpc": "2.0", "method": "subtract", "params": [1,2]}'
    assert rpc.raw(f"[{note},{note}]") == b""
    assert rpc.calls == ["subtract", "subtract"]


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "1.0",
        "1e3",
        "12345678901234567890123456789",
        '""',
        '"\\u00e9\\n"',
        '"é"',
        "null",
        "1.50E+3",
    ],
)
def test_ids_come_back_byte_for_byte(rpc: Fixture, text: str) -> None:
    """iRPC_003"""
    body = '{"jsonrpc":"2.0","id": ' + text + ' ,"method":"none"}'
    assert rpc.raw(body) == b'{"jsonrpc":"2.0","id":' + text.encode() + b',"result":null}'


def test_null_params_mean_none(rpc: Fixture) -> None:
    assert rpc.ask('{"jsonrpc":"2.0","id":1,"method":"none","params":null}') == result(1, None)


@pytest.mark.parametrize(
    ("params", "data"),
    [
        ('{"size_ulots":"x"}', {"path": "$.size_ulots", "expected": "int, got str", "got": "x"}),
        ('{"size_ulots":0}', {"path": "$.size_ulots", "expected": "int >= 1", "got": 0}),
        ("[0]", {"path": "$[0]", "param": "size_ulots", "expected": "int >= 1", "got": 0}),
        ('{"size_ulots":1,"legs":[{"minuend":1,"subtrahend":null}]}', {"path": "$.legs[0].subtrahend"}),
        ('{"size_ulots":1,"price":2}', {"message": "Object contains unknown field `price`", "path": "$"}),
        ("{}", {"message": "Object missing required field `size_ulots`"}),
        ("[]", {"message": "Expected `array` of at least length 1, got 0"}),
        ("[1,[],3]", {"message": "Expected `array` of at most length 2"}),
        ('{"size_ulots":"' + "y" * 500 + '"}', {"got": '"' + "y" * 119 + "..."}),
    ],
)
def test_invalid_params_say_where_and_what(rpc: Fixture, params: str, data: dict[str, object]) -> None:
    answer = rpc.ask('{"jsonrpc":"2.0","id":1,"method":"update","params":' + params + "}")
    assert code_of(answer) == (1, -32602)
    got = answer["error"]["data"]
    assert got["code"] == "INVALID_PARAMS"
    if data.get("expected") == "int, got str":
        data = {**data, "expected": "int"}
    assert {key: got.get(key) for key in data} == data


def test_application_error_has_its_code_and_data(rpc: Fixture) -> None:
    answer = rpc.ask('{"jsonrpc":"2.0","id":1,"method":"refuse"}')
    assert answer["error"] == {
        "code": -32007,
        "message": "the nonce was used",
        "data": {"code": "STALE_NONCE", "expected": 7, "got": 6},
    }
    assert rpc.faults == []


@pytest.mark.parametrize("method", ["fail", "unencodable"])
def test_faults_are_told_once_and_not_shown(rpc: Fixture, method: str) -> None:
    """iRPC_004"""
    raw = rpc.raw(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}))
    assert raw is not None
    assert code_of(json.loads(raw)) == (1, -32603)
    assert b"secret" not in raw
    assert b"Traceback" not in raw
    assert [where for _, where in rpc.faults] == [method]


def test_batch_starts_everything_before_waiting(rpc: Fixture) -> None:
    """iRPC_001, iRPC_002"""
    call = '{"jsonrpc":"2.0","id":%d,"method":"%s"%s}'
    sync = call % (2, "subtract", ',"params":[3,1]')
    note = '{"jsonrpc":"2.0","method":"wait"}'
    body = "[" + ",".join([call % (1, "wait", ""), sync, note, "7", call % (3, "wait", "")]) + "]"
    assert rpc.raw(body) is None
    assert rpc.calls == ["wait", "subtract", "wait", "wait"]
    rpc.waiting[2].resolve(30)
    assert rpc.done == []
    rpc.waiting[0].fail(RpcError(ErrorCode.TIMED_OUT))
    assert len(rpc.done) == 1
    first, second, invalid, last = json.loads(rpc.done[0])
    assert code_of(first) == (1, int(ErrorCode.TIMED_OUT))
    assert second == result(2, 2)
    assert code_of(invalid) == (None, -32600)
    assert last == result(3, 30)
    rpc.waiting[1].resolve(0)
    assert len(rpc.done) == 1
    assert rpc.dispatcher.in_flight == 0


def test_settled_before_return_is_answered_at_once(rpc: Fixture) -> None:
    assert rpc.ask('{"jsonrpc":"2.0","id":1,"method":"early"}') == result(1, 5)
    assert rpc.done == []
    assert rpc.dispatcher.in_flight == 0


def test_deferred_is_settled_once_and_received_once() -> None:
    deferred: Deferred[int] = Deferred()
    deferred.on_settled(lambda _: None)
    with pytest.raises(RuntimeError):
        deferred.on_settled(lambda _: None)
    deferred.resolve(1)
    with pytest.raises(RuntimeError):
        deferred.resolve(1)
    with pytest.raises(RuntimeError):
        deferred.fail(RpcError(ErrorCode.BUSY))


def test_busy_beyond_max_in_flight() -> None:
    """iRPC_005"""
    rpc = Fixture(max_in_flight=2)
    call = '{"jsonrpc":"2.0","id":1,"method":"wait"}'
    assert rpc.raw(call) is None
    assert rpc.raw(call) is None
    assert code_of(rpc.ask(call)) == (1, int(ErrorCode.BUSY))
    rpc.waiting[0].resolve(1)
    assert rpc.raw(call) is None


async def test_coroutine_handler(rpc: Fixture, autojump_clock: trio.testing.MockClock) -> None:
    assert rpc.raw('{"jsonrpc":"2.0","id":1,"method":"sleep"}') is None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rpc.tasks[0])
    assert json.loads(rpc.done[0]) == result(1, 9)


async def test_cancelled_coroutine_settles(rpc: Fixture, autojump_clock: trio.testing.MockClock) -> None:
    assert rpc.raw('{"jsonrpc":"2.0","id":1,"method":"sleep"}') is None
    with trio.move_on_after(0.5):
        await rpc.tasks[0]()
    assert rpc.dispatcher.in_flight == 0
    assert len(rpc.done) == 1


def test_batch_limit(rpc: Fixture) -> None:
    entry = '{"jsonrpc":"2.0","id":1,"method":"none"}'
    assert len(rpc.ask("[" + ",".join([entry] * 1000) + "]")) == 1000
    too_long = rpc.ask("[" + ",".join([entry] * 1001) + "]")
    assert code_of(too_long) == (None, -32600)
    assert too_long["error"]["data"] == {"code": "INVALID_REQUEST", "limit": 1000, "got": 1001}
    assert code_of(rpc.ask("[" + ",".join(["1"] * 1001) + "]")) == (None, -32600)
    assert rpc.calls == []


def test_answers_are_bounded() -> None:
    rpc = Fixture(max_answer_bytes=4096)
    call = '{"jsonrpc":"2.0","id":%d,"method":"large"}'
    answers = rpc.ask("[" + ",".join(call % n for n in range(5)) + "]")
    assert [entry.get("result", "")[:1] for entry in answers] == ["x", "x", "", "", ""]
    assert code_of(answers[4]) == (4, int(ErrorCode.ANSWER_TOO_LARGE))
    small = Fixture(max_answer_bytes=1000)
    assert code_of(small.ask(call % 1)) == (1, int(ErrorCode.ANSWER_TOO_LARGE))


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(body: bytes) -> None:
    """iRPC_004"""
    rpc = Fixture()
    answer = rpc.raw(body)
    assert answer is not None
    assert rpc.faults == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
_requests = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | _json,
        "method": st.sampled_from(["subtract", "update", "none", "refuse"]) | _json,
        "params": st.fixed_dictionaries({"minuend": st.integers(), "subtrahend": st.integers()}) | _json,
        "id": st.integers() | st.text(max_size=8) | _json,
    },
)


@given(_requests | st.lists(_requests, max_size=5) | _json)
def test_any_json_gets_wellformed_answers(body: object) -> None:
    """iRPC_002, iRPC_004"""
    rpc = Fixture()
    answer = rpc.ask(json.dumps(body))
    assert rpc.faults == []
    answers = answer if isinstance(answer, list) else [] if answer is None else [answer]
    for entry in answers:
        assert entry["jsonrpc"] == "2.0"
        assert ("result" in entry) != ("error" in entry)
        assert entry["id"] is None or isinstance(entry["id"], int | float | str)


def test_registration_refuses_mistakes() -> None:
    class Loose(msgspec.Struct):
        a: int

    with pytest.raises(TypeError, match="forbid_unknown_fields"):
        Method("loose", Loose, int, lambda p, c: 1, "lets unknown members pass")
    method = Method("none", NoParams, None, lambda p, c: None, "nothing")
    with pytest.raises(ValueError, match="twice"):
        Registry([method, method])


def test_error_table_is_complete() -> None:
    assert set(MEANING) == set(ErrorCode)
    own = [code for code in ErrorCode if code > -32000]
    assert all(-31999 <= code <= -31000 for code in own)
    for number in (0, 500):
        with pytest.raises(ValueError, match="reject number"):
            RpcError.rejected(number, "X", "x", {})


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused_even_when_a_library_raised_the_recursion_limit(
    opening: str, closing: str
) -> None:
    program = (
        "import sys, msgspec; sys.setrecursionlimit(100_000)\n"
        "from sequencer.jsonrpc import Dispatcher, Method, Registry\n"
        "class P(msgspec.Struct, frozen=True, forbid_unknown_fields=True):\n    a: int\n"
        "methods = Registry([Method('m', P, int, lambda *_: 1, 'test')])\n"
        "dispatcher = Dispatcher(methods, print, max_batch=9, max_in_flight=9, max_answer_bytes=9_999)\n"
        f"params = {opening!r} * 99_000 + '1' + {closing!r} * 99_000\n"
        'body = \'{"jsonrpc":"2.0","id":1,"method":"m","params":\' + params + \'}\'\n'
        "print(dispatcher.dispatch(body.encode(), None, print).decode())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert '"code":-32700' in done.stdout
