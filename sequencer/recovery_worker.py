"""A signature worker: one child process of the node (see `recovery`), which knows nothing and keeps nothing.

It reads `count u32 | count * (digest 32, signature 64)` from its standard input and answers with
`count * (found u8, address 20)` on its standard output. It ends when its input ends, so none outlives the
node, and ignores signals sent to the whole group, so that a drain after Ctrl-C can still check what it has.
"""

from __future__ import annotations

import signal
import sys
from struct import Struct
from typing import BinaryIO, Final

from state.eip712 import recover

COUNT: Final = Struct(">I")
PAIR_BYTES: Final = 96
RESULT_BYTES: Final = 21


def work(source: BinaryIO, sink: BinaryIO) -> None:
    """Answers batches until `source` ends."""
    nobody = bytes(RESULT_BYTES)
    while len(head := source.read(COUNT.size)) == COUNT.size:
        (count,) = COUNT.unpack(head)
        body = source.read(count * PAIR_BYTES)
        if len(body) != count * PAIR_BYTES:
            return
        answers = []
        for at in range(0, len(body), PAIR_BYTES):
            signer = recover(body[at : at + 32], body[at + 32 : at + PAIR_BYTES])
            answers.append(b"\x01" + signer if signer else nobody)
        sink.write(b"".join(answers))
        sink.flush()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    work(sys.stdin.buffer, sys.stdout.buffer)
