"""Taking connections: all that wait, in every turn of the event loop.

libuv takes one a turn (libuv/libuv#3696), whatever waits behind it. A turn of a busy server takes as long as a batch of
tickets, so fifty callers who connected at once waited for 0.3 to 0.5 seconds, while those with a connection were answered
within milliseconds.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

# In one turn; more would hold up the requests of those who are connected.
_AT_ONCE = 32
# Without descriptors or memory for another connection, the next try is that far away.
_PAUSE_SECONDS = 1.0
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_LOG = logging.getLogger(__name__)


class Acceptor:
    """Takes the connections of one socket from `start` to `close`. Owned by one event loop.

    Args:
        listener: bound, listening, not blocking; closed by `close`.
        make_protocol: for each connection.
    """

    def __init__(self, listener: socket.socket, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take connections from now on."""
        self._again = None
        self._loop.add_reader(self._listener, self._take, _AT_ONCE)

    def close(self, *, take_waiting: bool = False) -> None:
        """Take no more, and close the socket. More than once is fine.

        Args:
            take_waiting: take those that are made already, however many. No turn of the loop lies between the last one
                and the end of the socket.
        """
        if self._listener.fileno() < 0:
            return
        self._stop()
        if take_waiting:
            self._take(None)
        self._stop()
        self._listener.close()

    async def settled(self) -> None:
        """Wait until those that were taken have their protocol."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _take(self, most: int | None) -> None:
        taken = 0
        while most is None or taken < most:
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                taken += 1
                if error.errno not in _EXHAUSTED:
                    continue  # that one alone: it has gone already, say
                _LOG.error("no connection can be taken for now", exc_info=error)
                self._stop()
                self._again = self._loop.call_later(_PAUSE_SECONDS, self.start)
                return
            accepted.setblocking(False)
            task = self._loop.create_task(self._connect(accepted))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
            taken += 1

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, accepted)
        except OSError:  # it has gone already
            accepted.close()

    def _stop(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._again is not None:
            self._again.cancel()
            self._again = None
