"""A core that its tasks share alike: of n of them, each goes on at an nth of its speed (egalitarian processor sharing)."""

from __future__ import annotations

import heapq

_NEVER = float("inf")


class SharedCore:
    """Tasks on one core, by how much of it each has had: all that are there get the same share at any time."""

    __slots__ = ("_attained", "_number", "_since", "_tasks")

    def __init__(self) -> None:
        self._attained = 0.0  # seconds of the core that a task has had which was there from the beginning
        self._since = 0.0
        self._number = 0
        self._tasks: list[tuple[float, int, int]] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, now: float, seconds: float, what: int) -> None:
        """A task that wants so many seconds of the core comes at `now`; `what` tells it when it is done."""
        self._advance(now)
        self._number += 1  # tasks that end together end in the order in which they came
        heapq.heappush(self._tasks, (self._attained + seconds, self._number, what))

    def next_at(self) -> float:
        """When the next task is done, if nothing comes before."""
        if not self._tasks:
            return _NEVER
        return self._since + max(0.0, self._tasks[0][0] - self._attained) * len(self._tasks)

    def finish(self, now: float) -> int:
        """Take away the task that is done at `now`, the moment that `next_at` said; its `what`."""
        self._advance(now)
        return heapq.heappop(self._tasks)[2]

    def _advance(self, now: float) -> None:
        if self._tasks:
            self._attained += (now - self._since) / len(self._tasks)
        self._since = now
