"""What workers find out about transactions: the same as the caller would, whatever the bytes (iCHECK)."""

from __future__ import annotations

import io
import random
from typing import Any, get_args

import msgspec
import pytest
import trio

from sequencer.checking import Answer, Checked, Checker, Pairs, Params, Refused, Signed, Task, Work
from sequencer.ordering import place_in_order
from sequencer.recovery import InlineRecovery, ProcessRecovery
from sequencer.recovery_worker import LENGTH, work
from state.actions import (
    Action,
    AuthorizeSessionKey,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    Order,
    OrderKind,
    PlaceOrder,
    Replacement,
    ReplaceOrder,
    RevokeSessionKey,
    Scope,
    SelfTrade,
    Side,
    SignedAction,
    Transfer,
    Withdraw,
)
from state.eip712 import Domain, action_digest, signature_pairs, transaction_hash
from state.hashing import keccak
from state.signatures import address_of, recover, sign
from state.wire import to_json
from state.wire_msgpack import encode_msgpack
from tests.vectors import codec_vectors

SEED = 3
DOMAIN = Domain(77, bytes(range(20)))
ENVELOPE: dict[str, Any] = {
    "account": 1,
    "nonce": 2**41,
    "deadline_s": 2**32,
    "max_fee_uusd": 5,
    "priority_bid_uusd": 4,
}


def signatures(count: int) -> list[tuple[bytes, bytes | None]]:
    """(digest | signature, expected signer); some are nobody's."""
    chance = random.Random(SEED)
    made: list[tuple[bytes, bytes | None]] = []
    for _ in range(count):
        digest = chance.randbytes(32)
        if chance.random() < 0.2:
            made.append((digest + b"\xff" * 64, None))
        else:
            secret = chance.randbytes(32)
            made.append((digest + sign(digest, secret), address_of(secret)))
    return made


NAMES = ["BTC-PERPETUAL", "ETH-PERPETUAL"]
ACTIONS: list[Action] = [
    PlaceOrder(**ENVELOPE, order=Order(1, Side.BUY, OrderKind.POST_ONLY, 7, 2**64 - 1, True, 5)),
    PlaceOrder(**ENVELOPE, order=Order(2, Side.SELL, OrderKind.LIMIT, 7, 1)),
    CancelOrder(**ENVELOPE, cancel=Cancel(2, 9)),
    CancelAll(**ENVELOPE),
    ReplaceOrder(**ENVELOPE, replacement=Replacement(1, 3, 4, 5)),
    BulkOrders(
        **ENVELOPE,
        cancels=(Cancel(1, 2),),
        replacements=(Replacement(2, 3, 4, 5),),
        orders=(Order(1, Side.SELL, OrderKind.MARKET, 7, 1, self_trade=SelfTrade.DECREMENT_BOTH),),
    ),
    Transfer(**ENVELOPE, to_account=4, amount_uusd=5),
    Withdraw(**ENVELOPE, recipient=bytes(20), amount_uusd=5),
    AuthorizeSessionKey(**ENVELOPE, key=bytes(range(20)), scope=Scope.TRADE, expiry_s=9),
    RevokeSessionKey(**ENVELOPE, key=bytes(range(20))),
    CancelAllAfter(**ENVELOPE, timeout_s=10),
    *[action for action in codec_vectors.ACTIONS if action.KIND > CancelAllAfter.KIND],
]
BAD_PARAMS: list[tuple[bytes, str, int]] = [
    (b"", "INVALID_PARAMS", -32602),
    (b"null", "INVALID_PARAMS", -32602),
    (b"7", "INVALID_REQUEST", -32600),
    (b"[]", "INVALID_PARAMS", -32602),
    (b"[7]", "INVALID_PARAMS", -32602),
    (b'["zz"]', "INVALID_PARAMS", -32602),
    (b'["0x93"]', "INVALID_PARAMS", -32602),
    (b'[{"action":{"type":"Nonsense"},"signature":"0x"}]', "INVALID_PARAMS", -32602),
    (b'{"transaction":{},"more":1}', "INVALID_PARAMS", -32602),
    (b'[{"action":{},"signature":' + b"9" * 400 + b"}]", "INVALID_PARAMS", -32602),
]


def test_kinds_tag_actions_between_processes() -> None:
    """What a worker sends is what the transition gets, with its enums, for every kind of action."""
    assert {type(action) for action in ACTIONS} == set(get_args(Action))
    decode = msgspec.msgpack.Decoder(SignedAction).decode
    for action in ACTIONS:
        signed = SignedAction(action, bytes(64))
        assert type(action).__struct_config__.tag == action.KIND
        found = decode(msgspec.msgpack.encode(signed))
        assert found == signed
        assert type(found.action) is type(action)
    order = decode(msgspec.msgpack.encode(SignedAction(ACTIONS[0], b""))).action
    assert isinstance(order, PlaceOrder)
    assert order.order.kind is OrderKind.POST_ONLY
    assert order.order.side is Side.BUY


def quote_signers(signed: SignedAction) -> list[bytes | None]:
    """Who signed what the action executes; the golden quote is of another domain, so an unknown one did."""
    pairs = signature_pairs(DOMAIN, signed, lambda market: keccak(NAMES[market - 1].encode()))
    return [recover(*pair) for pair in pairs[1:]]


def tasks() -> list[tuple[Task, Answer | None]]:
    """Tasks, and their answers where those can be told here."""
    made = signatures(180)
    found: list[tuple[Task, Answer | None]] = []
    for item in range(60):  # of one, two and three signatures
        pairs = made[3 * item : 3 * item + 1 + item % 3]
        found.append((Pairs(b"".join(pair for pair, _ in pairs)), Signed(tuple(it for _, it in pairs))))
    secret = bytes([7]) * 32
    for action in ACTIONS:
        digest = action_digest(DOMAIN, action, lambda market: keccak(NAMES[market - 1].encode()))
        signed = SignedAction(action, sign(digest, secret))
        answer = Checked(
            signed,
            digest,
            transaction_hash(digest, signed.signature),
            (address_of(secret), *quote_signers(signed)),
            place_in_order(signed),
        )
        for sent in (to_json(signed, lambda market: NAMES[market - 1]), "0x" + encode_msgpack(signed).hex()):
            found.append((Params(msgspec.json.encode([sent])), answer))
            found.append((Params(msgspec.json.encode({"transaction": sent})), answer))
    found += [(Params(json), None) for json, _, _ in BAD_PARAMS]
    return found


async def test_processes_answer_what_the_inline_check_answers() -> None:
    expected: dict[int, Answer] = {}
    inline: InlineRecovery[int] = InlineRecovery(DOMAIN, lambda count: NAMES[count:], expected.__setitem__)
    found: dict[int, Answer] = {}
    complete = trio.Event()
    made = tasks()

    def on_checked(item: int, answer: Answer) -> None:
        found[item] = answer
        if len(found) == len(made):
            complete.set()

    processes = ProcessRecovery(2, DOMAIN, lambda count: NAMES[count:], on_checked)
    async with trio.open_nursery() as nursery:
        await nursery.start(processes.run)
        for item, (task, _) in enumerate(made):
            inline.submit(item, task)
            processes.submit(item, task)
            if item % 9 == 0:
                await trio.lowlevel.checkpoint()  # so that both workers get batches
        with trio.fail_after(30):
            await complete.wait()
        nursery.cancel_scope.cancel()
    assert found == expected
    assert list(found) == list(range(len(made)))  # iRECOVERY_001
    for item, (_, answer) in enumerate(made):
        assert answer is None or found[item] == answer


@pytest.mark.parametrize(("json", "code", "number"), BAD_PARAMS)
def test_what_is_no_transaction_is_refused(json: bytes, code: str, number: int) -> None:
    answer = Checker(DOMAIN).answer(Params(json))
    assert isinstance(answer, Refused)
    error = answer.error()
    assert (error.code, error.data["code"]) == (number, code)


def test_an_instrument_is_known_once_it_was_told() -> None:
    checker = Checker(DOMAIN)
    signed = SignedAction(ACTIONS[1], sign(bytes(32), bytes([7]) * 32))
    text = Params(msgspec.json.encode([to_json(signed, lambda market: NAMES[market - 1])]))
    packed = Params(msgspec.json.encode(["0x" + encode_msgpack(signed).hex()]))
    for names in ([], NAMES[:1]):
        checker.learn(names)
        for task in (text, packed):
            answer = checker.answer(task)
            assert isinstance(answer, Refused)
            assert answer.error().data["code"] == "UNKNOWN_INSTRUMENT"
    checker.learn(NAMES[1:])
    assert isinstance(checker.answer(text), Checked)
    assert isinstance(checker.answer(packed), Checked)


def test_a_bug_while_checking_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """iCHECK_001."""
    checker = Checker(DOMAIN)
    monkeypatch.setattr(checker, "_check", lambda json: 1 // 0)
    answer = checker.answer(Params(b"[]"))
    assert isinstance(answer, Refused)
    assert answer.error().data == {"code": "INTERNAL_ERROR"}
    assert "ZeroDivision" not in answer.message
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_worker_ends_when_its_input_ends_within_a_message() -> None:
    pair, signer = signatures(1)[0]
    message = msgspec.msgpack.encode(Work([], [Pairs(pair)]))
    sink = io.BytesIO()
    source = io.BytesIO(LENGTH.pack(len(message)) + message + LENGTH.pack(len(message)) + message[:-1])
    work(Checker(DOMAIN), source, sink)
    answer = msgspec.msgpack.encode([Signed((signer,))])
    assert sink.getvalue() == LENGTH.pack(len(answer)) + answer
