"""Threads for what blocks: disk and store. All are started at once, so that their number is a constant of the process."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def stand_back(nice: int) -> None:
    """Have the thread that calls this stand so far behind where it is, for good, and what it starts from now on.

    Nobody but root may come forward again.
    """
    if nice and sys.platform == "linux":
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, min(19, os.getpriority(os.PRIO_PROCESS, own) + nice))


class Workers:
    """A fixed number of threads.

    Args:
        name: of the threads, for who looks at the process.
        count: how many calls run at once; more wait their turn.
        nice: how far they stand back for the threads that answer requests, from 0 to 19; what they start stands back as
            far. On Linux alone this is a thread's own, so elsewhere nothing is done.
    """

    def __init__(self, name: str, count: int, *, nice: int = 0) -> None:
        self._pool = ThreadPoolExecutor(
            max_workers=count, thread_name_prefix=name, initializer=stand_back, initargs=(nice,)
        )
        # The pool starts a thread only when none is idle: occupy all until the last one is there.
        started = threading.Barrier(count + 1)
        for _ in range(count):
            self._pool.submit(started.wait)
        started.wait()

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises. A caller that is cancelled does not stop it."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def begin(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have something done, for another thread to wait for; what is begun or run later starts later."""
        return self._pool.submit(work, *args, **kwargs)

    def start(self, work: Callable[[], object]) -> None:
        """Have something done some time; nobody waits for it. It must not raise."""
        self._pool.submit(work)

    def close(self) -> None:
        """Let go of the threads as they finish; what has not begun is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
