"""One thread for work that nobody waits for: started when there is some, gone when there is none.

It keeps out of the way of work that somebody does wait for: syncing one file slows down the writing of the next.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOG = logging.getLogger(__name__)
# A job starts when nothing urgent was under way for so long, or after so long all the same.
_QUIET_SECONDS = 0.25
_PATIENCE_SECONDS = 5.0


class Background:
    """Runs jobs one after the other, in the order they came.

    A process that ends without `close` waits for the jobs, since the thread is no daemon.

    Args:
        name: the thread's.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: deque[Callable[[], object]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._urgent = 0
        self._urgencies = 0
        self._hurried = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Have a job run some time; after `close` it is dropped. What it raises is logged."""
        with self._changed:
            if self._closed:
                return
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name)
                self._thread.start()

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """Have jobs that have not started wait, while the context lasts and a little longer; seconds at most."""
        with self._changed:
            self._urgent += 1
            self._urgencies += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._urgent -= 1
                self._changed.notify_all()

    def settle(self) -> None:
        """Return when all that was submitted has run."""
        with self._changed:
            self._hurry()
            self._changed.wait_for(lambda: self._thread is None)
            self._hurried -= 1

    def close(self, seconds: float) -> None:
        """Take no more jobs, run those that wait for so long at most, and end the thread after the one it is at."""
        with self._changed:
            self._closed = True
            self._hurry()
            self._changed.wait_for(lambda: self._thread is None, seconds)
            self._jobs.clear()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _hurry(self) -> None:
        self._hurried += 1
        self._changed.notify_all()

    def _wait_for_quiet(self) -> None:
        """Called, and returns, with the lock held."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._hurried and (left := deadline - time.monotonic()) > 0:
            if self._urgent:
                self._changed.wait(left)
                continue
            before = self._urgencies
            self._changed.wait_for(lambda: self._hurried or self._urgent, min(left, _QUIET_SECONDS))
            if self._urgencies == before:
                return

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._jobs:
                    self._wait_for_quiet()
                if not self._jobs:  # none came, or `close` gave them up
                    self._thread = None
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:  # noqa: BLE001  # one that fails must not keep the others from running
                _LOG.exception("a background job failed")
