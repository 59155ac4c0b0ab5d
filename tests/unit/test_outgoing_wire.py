"""The outgoing side of a socket: when its owner is told (iWIRE_003)."""

from __future__ import annotations

import socket

import pytest
import trio

from sequencer.wire import Flusher, Wire

MEGABYTE = bytes(1 << 20)


class Told:
    """A wire on one end of a pair; counts what its owner is told."""

    def __init__(self, nursery: trio.Nursery) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.theirs.setblocking(False)
        self.times = 0
        self.wire = Wire(ours, Flusher(), nursery.start_soon, self.tell, 10.0)

    def tell(self) -> None:
        self.times += 1

    def close(self) -> None:
        self.wire.sock.close()
        self.theirs.close()


@pytest.fixture
def told(nursery: trio.Nursery) -> Told:
    return Told(nursery)


async def test_told_when_the_queue_becomes_empty(told: Told) -> None:
    told.wire.put(b"a message")
    assert told.times == 0
    told.wire.flush()
    assert (told.times, told.theirs.recv(100)) == (1, b"a message")
    told.wire.put(MEGABYTE)
    told.wire.flush()
    assert told.times == 1, "the client has not taken all of it"
    received = 0
    with trio.fail_after(10):
        while received < len(MEGABYTE):
            await trio.lowlevel.wait_readable(told.theirs)
            received += len(told.theirs.recv(1 << 16))
        while told.times == 1:
            await trio.lowlevel.checkpoint()
    assert (told.times, told.wire.queued_bytes) == (2, 0)
    told.close()


async def test_told_when_the_wire_breaks(told: Told) -> None:
    told.wire.put(MEGABYTE)
    told.wire.flush()
    assert told.times == 0
    told.theirs.close()
    with trio.fail_after(10):
        while not told.wire.broken:
            await trio.lowlevel.checkpoint()
    assert told.times >= 1
    assert (told.wire.queued_bytes, len(told.wire.queue)) == (0, 0)
    told.close()
