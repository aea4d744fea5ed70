"""Random draws that are the same on every machine and with every release of Python and numpy."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 4096


class Draws:
    """A stream of random numbers, seeded by a number and a name.

    numpy promises that a bit generator's raw output never changes, and does not promise it for the methods of
    `Generator`; so everything here is derived from the raw words, with exact arithmetic and no call into libm.

    Args:
        seed: not negative.
        name: what the stream is for; other names give independent streams.
        stream: tells streams of one name apart.
    """

    __slots__ = ("_bits", "_block")

    def __init__(self, seed: int, name: str, stream: int = 0) -> None:
        digest = hashlib.sha256(name.encode()).digest()
        words = [int.from_bytes(digest[at : at + 4], "big") for at in range(0, 32, 4)]
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, *words], spawn_key=(stream,)))
        self._block: list[float] = []

    def uniform(self) -> float:
        """A number from 0 up to, and without, 1."""
        if not self._block:
            # Blocks, since one call into numpy costs as much as hundreds of `list.pop`.
            raw = self._bits.random_raw(_BLOCK)
            self._block = ((raw >> np.uint64(11)) * 2.0**-53).tolist()
        return self._block.pop()

    def below(self, count: int) -> int:
        """One of 0 to `count` - 1."""
        return int(self.uniform() * count)

    def between(self, low: int, high: int) -> int:
        """One of `low` to `high`, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.uniform() < probability

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, each as likely."""
        return options[int(self.uniform() * len(options))]

    def weighted(self, cumulative: Sequence[float]) -> int:
        """An index, by running totals of weights of which the last is above 0."""
        return min(bisect_right(cumulative, self.uniform() * cumulative[-1]), len(cumulative) - 1)

    def quantile(self, points: Sequence[float]) -> float:
        """A number from the distribution with these equally spaced quantiles, linear in between."""
        at = self.uniform() * (len(points) - 1)
        left = int(at)
        return points[left] + (points[left + 1] - points[left]) * (at - left)

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """The options in a random order."""
        mixed = list(options)
        for last in range(len(mixed) - 1, 0, -1):
            other = self.below(last + 1)
            mixed[last], mixed[other] = mixed[other], mixed[last]
        return mixed
