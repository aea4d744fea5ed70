"""So many requests a minute, however many threads ask."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Stopped(Exception):
    """Whoever waits shall stop: the work is being broken off."""


class Pace:
    """Lets requests through at even distances.

    Args:
        per_minute: how many; None for no limit of our own. A server's word (`hold`) counts all the same.
        clock: seconds, never backwards.
        sleep: waits so many seconds, and says whether the wait was broken off; by default until `stop`.
    """

    def __init__(
        self,
        per_minute: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], bool] | None = None,
    ) -> None:
        self._interval = 60 / per_minute if per_minute else 0.0
        self._clock = clock
        self._stopping = threading.Event()
        self._sleep = sleep or self._stopping.wait
        self._lock = threading.Lock()
        self._next = float("-inf")

    @property
    def per_minute(self) -> float | None:
        """How many requests a minute; None for no limit."""
        return 60 / self._interval if self._interval else None

    def change(self, per_minute: float) -> None:
        """From now on so many a minute."""
        with self._lock:
            self._interval = 60 / per_minute

    def wait(self) -> None:
        """Return when it is this request's turn. Raises Stopped."""
        with self._lock:
            now = self._clock()
            at = max(self._next, now)
            self._next = at + self._interval
        self.pause(at - now)

    def pause(self, seconds: float) -> None:
        """Wait so long. Raises Stopped."""
        if self._stopping.is_set() or (seconds > 0 and self._sleep(seconds)):
            raise Stopped

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)

    def stop(self) -> None:
        """Have everybody who waits, and who would, raise Stopped."""
        self._stopping.set()
