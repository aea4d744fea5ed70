"""Work in steps: a generator that yields wherever it may be left for a while, and returns what it made."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]


def finished(steps: Steps[T]) -> T:
    """What work returns, all of it done now."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        made: T = end.value
        return made
