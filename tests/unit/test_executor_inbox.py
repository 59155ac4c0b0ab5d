"""L1 messages waiting for a block: order, room, taking back, and that cost reports alone make no block."""

import trio
import trio.testing
from trio.testing import MockClock

from sequencer.executor import COST_REPORTS_WAIT_S, Inbox
from state.block import L1Message, MessageKind


def message(kind: MessageKind, number: int = 0) -> L1Message:
    return L1Message(kind, bytes(20), number, b"")


def has_work(inbox: Inbox) -> bool:
    return inbox.has_work


REPORT = message(MessageKind.BATCH_COST)
DEPOSIT = message(MessageKind.DEPOSIT)


async def test_a_deposit_is_work_and_a_cost_report_alone_is_not(autojump_clock: MockClock) -> None:
    inbox = Inbox(8)
    assert not has_work(inbox)
    await inbox.put([REPORT, REPORT], 1)
    assert not has_work(inbox)
    await inbox.put([DEPOSIT], 2)
    assert has_work(inbox)
    assert await inbox.take(8) == (REPORT, REPORT, DEPOSIT)
    assert not has_work(inbox)


async def test_cost_reports_do_not_wait_for_ever(autojump_clock: MockClock) -> None:
    inbox = Inbox(8)
    await inbox.put([REPORT], 1)
    await trio.sleep(COST_REPORTS_WAIT_S / 2)
    await inbox.put([REPORT], 1)
    assert not has_work(inbox)
    await trio.sleep(COST_REPORTS_WAIT_S / 2)
    assert has_work(inbox)
    assert len(await inbox.take(8)) == 2
    await inbox.put([REPORT], 1)
    assert not has_work(inbox)


async def test_only_messages_that_no_block_has_read_can_be_taken_back() -> None:
    inbox = Inbox(8)
    await inbox.put([message(MessageKind.DEPOSIT, number) for number in range(4)], 4)
    assert len(await inbox.take(1)) == 1
    assert not inbox.take_back(4)
    assert len(inbox) == 3
    assert inbox.take_back(2)
    assert [each.l1_block for each in await inbox.take(8)] == [1]
    assert not has_work(inbox)


async def test_a_full_queue_makes_the_follower_wait(autojump_clock: MockClock) -> None:
    inbox = Inbox(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.put, [message(MessageKind.DEPOSIT, number) for number in range(5)], 9)
        await trio.testing.wait_all_tasks_blocked()
        assert len(inbox) == 2
        assert inbox.l1_block == 0
        taken = [each.l1_block for _ in range(4) for each in await _taken(inbox)]
    assert taken == [0, 1, 2, 3, 4]
    assert inbox.l1_block == 9


async def _taken(inbox: Inbox) -> tuple[L1Message, ...]:
    await trio.testing.wait_all_tasks_blocked()
    return await inbox.take(2)
