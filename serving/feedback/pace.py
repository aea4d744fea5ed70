"""Work in threads that stands back for requests: it gets a share of a processor, in pieces, however much there is of it.

A thread's niceness does not help: threads of one process wait for the interpreter in turn, whatever their priority, and a
thread that stands back while it has the interpreter holds up the loop for longer still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Shorter pieces of work go on without a rest: a rest costs some tens of microseconds itself.
_PIECE_SECONDS = 0.001


class Pace:
    """How much of a processor some threads may use together.

    Args:
        share: of one processor, above 0 and at most 1, asked before each rest.
        threads: how many threads share it.
        used: processor time of the thread that calls, in seconds.
    """

    def __init__(
        self, share: Callable[[], float], *, threads: int = 1, used: Callable[[], float] = time.thread_time
    ) -> None:
        self._share = share
        self._threads = threads
        self._used = used
        self._hurried = 0
        self._hurry = threading.Event()
        self._since = threading.local()

    def rest(self) -> None:
        """To be called by a thread between pieces of its work, some hundred microseconds long: returns when it may go on.

        Whoever waits for the interpreter gets it, at every call. The first call of a thread begins its time.
        """
        now = self._used()
        since = getattr(self._since, "used", None)
        if since is not None:
            if now - since < _PIECE_SECONDS:
                time.sleep(0)
                return
            share = min(self._share(), 1.0) / self._threads
            self._hurry.wait((now - since) * (1 / share - 1))
        self._since.used = self._used()

    @contextmanager
    def hurried(self) -> Iterator[None]:
        """Nobody rests while this lasts, and who rests goes on. On one thread, the event loop's."""
        self._hurried += 1
        self._hurry.set()
        try:
            yield
        finally:
            self._hurried -= 1
            if not self._hurried:
                self._hurry.clear()
