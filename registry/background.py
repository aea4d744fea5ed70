"""One thread for work that nobody waits for: started when there is some, gone when there is none."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

_LOG = logging.getLogger(__name__)


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

    def submit(self, job: Callable[[], object]) -> None:
        """Have a job run some time; after `close` it is dropped. What it raises is logged."""
        with self._changed:
            if self._closed:
                return
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name)
                self._thread.start()

    def settle(self) -> None:
        """Return when all that was submitted has run."""
        with self._changed:
            self._changed.wait_for(lambda: self._thread is None)

    def close(self, seconds: float) -> None:
        """Take no more jobs, run those that wait for so long at most, and end the thread after the one it is at."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._thread is None, seconds)
            self._jobs.clear()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._jobs:
                    self._thread = None
                    self._changed.notify_all()
                    return
                job = self._jobs.popleft()
            try:
                job()
            except Exception:  # noqa: BLE001  # one that fails must not keep the others from running
                _LOG.exception("a background job failed")
