"""Work that several callers need at once and that is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """Runs one piece of work for a key at a time. Owned by one event loop.

    The work is a task of its own: a caller that is cancelled leaves it running for the others. Its result or error
    reaches everybody who waits and is then forgotten.
    """

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    async def run(self, key: K, work: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The outcome of the work under way for `key`, or of `work` where there is none."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    def _forget(self, key: K, done: asyncio.Task[V]) -> None:
        del self._tasks[key]
        if not done.cancelled():
            done.exception()  # seen: where every caller has gone, nobody else looks
