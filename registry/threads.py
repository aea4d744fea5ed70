"""Work that waits for a store or another server, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 16

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
