"""A signature worker: one child process of the node (see `recovery`), which keeps only instruments' names.

`python -m sequencer.recovery_worker CHAIN_ID CONTRACT` reads messages from its standard input and answers
each on its standard output: `length u32 | msgpack`, of `checking.Work` and of a list of its tasks' answers.
It ends when its input ends, so none outlives the node, and ignores signals sent to the whole group, so that
a drain after Ctrl-C can still check what it has.
"""

from __future__ import annotations

import signal
import sys
from struct import Struct
from typing import BinaryIO, Final

import msgspec

from sequencer.checking import Checker, Work
from state.eip712 import Domain

LENGTH: Final = Struct(">I")


def work(checker: Checker, source: BinaryIO, sink: BinaryIO) -> None:
    """Answers messages until `source` ends."""
    decode = msgspec.msgpack.Decoder(Work).decode
    encode = msgspec.msgpack.Encoder().encode
    while len(head := source.read(LENGTH.size)) == LENGTH.size:
        (length,) = LENGTH.unpack(head)
        body = source.read(length)
        if len(body) != length:
            return
        message = decode(body)
        checker.learn(message.names)
        answer = encode([checker.answer(task) for task in message.tasks])
        sink.write(LENGTH.pack(len(answer)) + answer)
        sink.flush()


def main(chain_id: str, contract: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    work(Checker(Domain(int(chain_id), bytes.fromhex(contract))), sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
