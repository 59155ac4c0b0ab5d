"""L1 messages waiting for a block: order, room, taking back, and that cost reports alone make no block."""

import trio
import trio.testing
from trio.testing import MockClock

from sequencer.executor import COST_REPORTS_WAIT_S, Inbox
from state.block import L1Message, MessageKind
from tools.exchange import l1_origin


def message(kind: MessageKind, number: int = 0) -> L1Message:
    return L1Message(kind, bytes(20), number, b"")


def has_work(inbox: Inbox) -> bool:
    return inbox.has_work


REPORT = message(MessageKind.BATCH_COST)
DEPOSIT = message(MessageKind.DEPOSIT)


async def test_a_deposit_is_work_and_a_cost_report_alone_is_not(autojump_clock: MockClock) -> None:
    inbox = Inbox(8)
    assert not has_work(inbox)
    await inbox.put([REPORT, REPORT], l1_origin(1))
    assert not has_work(inbox)
    await inbox.put([DEPOSIT], l1_origin(2))
    assert has_work(inbox)
    assert await inbox.take(8) == (REPORT, REPORT, DEPOSIT)
    assert not has_work(inbox)


async def test_cost_reports_do_not_wait_for_ever(autojump_clock: MockClock) -> None:
    inbox = Inbox(8)
    await inbox.put([REPORT], l1_origin(1))
    await trio.sleep(COST_REPORTS_WAIT_S / 2)
    await inbox.put([REPORT], l1_origin(1))
    assert not has_work(inbox)
    await trio.sleep(COST_REPORTS_WAIT_S / 2)
    assert has_work(inbox)
    assert len(await inbox.take(8)) == 2
    await inbox.put([REPORT], l1_origin(1))
    assert not has_work(inbox)


def origin_number(inbox: Inbox) -> int | None:
    return inbox.origin.number if inbox.origin is not None else None


async def test_only_messages_that_no_block_has_read_can_be_taken_back() -> None:
    inbox = Inbox(8)
    await inbox.put([message(MessageKind.DEPOSIT, number) for number in range(4)], l1_origin(4))
    assert len(await inbox.take(1)) == 1
    assert not inbox.take_back(4, 0)
    assert len(inbox) == 3
    assert inbox.take_back(0, 4)
    assert origin_number(inbox) == 4
    assert inbox.take_back(2, 1)
    assert origin_number(inbox) is None, "L1 took that block back, too"
    assert [each.l1_block for each in await inbox.take(8)] == [1]
    assert not has_work(inbox)


async def test_a_full_queue_makes_the_follower_wait(autojump_clock: MockClock) -> None:
    inbox = Inbox(2)
    async with trio.open_nursery() as nursery:
        messages = [message(MessageKind.DEPOSIT, number) for number in range(5)]
        nursery.start_soon(inbox.put, messages, l1_origin(9))
        await trio.testing.wait_all_tasks_blocked()
        assert len(inbox) == 2
        assert inbox.origin == l1_origin(9), "what waits for room may be newer than what is in the queue"
        taken = [each.l1_block for _ in range(4) for each in await _taken(inbox)]
    assert taken == [0, 1, 2, 3, 4]


async def _taken(inbox: Inbox) -> tuple[L1Message, ...]:
    await trio.testing.wait_all_tasks_blocked()
    return await inbox.take(2)
