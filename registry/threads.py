"""Work that waits for a store or another server, side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 16
_AHEAD = 16

In = TypeVar("In")
Out = TypeVar("Out")


def in_threads(function: Callable[[In], Out], items: Iterable[In], *, threads: int = THREADS) -> list[Out]:
    """`function` of every item, in order, several at once: what waits for a store waits side by side.

    Raises:
        Exception: what `function` raises first; what has not begun then is left out.
    """
    work = list(items)
    if min(threads, len(work)) < 2:
        return [function(item) for item in work]
    with ThreadPoolExecutor(min(threads, len(work))) as pool:
        return list(pool.map(function, work))


def stream_in_threads(
    function: Callable[[In], Out], items: Iterable[In], *, threads: int = THREADS, ahead: int = _AHEAD
) -> Iterator[Out]:
    """Like `in_threads`, of more items than memory may hold: what comes of them in order, as they come.

    Args:
        ahead: so many items a thread are taken before what came of the first of them is.

    Raises:
        Exception: what `function` raises, in the place of what would have come of the item; later ones are left out.
    """
    if threads < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Out]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= threads * ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
