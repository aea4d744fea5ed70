"""How far a figure may be off, and whether a difference is more than chance: pure functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of a normal distribution, 95 % lie within so many standard deviations.
_Z95 = 1.959964
_RESAMPLES = 400


def wilson_interval(share: Any, rows: Any, *, z: float = _Z95) -> tuple[Any, Any]:
    """The interval of Wilson (1927) around a share: sound for few rows and for shares near 0 and 1.

    Args:
        share: between 0 and 1; a number or an array.
        rows: how many it was measured on, more than 0; need not be whole (an effective number of weighted rows).
        z: width in standard deviations, by default that of 95 %.

    Returns:
        Its lower and its upper end.
    """
    centre = share + z * z / (2 * rows)
    half = z * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    scale = 1 + z * z / rows
    return np.maximum((centre - half) / scale, 0.0), np.minimum((centre + half) / scale, 1.0)


def bootstrap_interval(figure: Callable[[NDArray[np.int64]], float], rows: int) -> tuple[float, float]:
    """A 95 % interval by the percentile bootstrap (Efron 1979), the same on every call.

    Args:
        figure: of a sample, given as positions of rows; positions may repeat.
        rows: how many there are, at least one.
    """
    rng = np.random.default_rng(0)
    values = [figure(rng.integers(0, rows, rows)) for _ in range(_RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def mcnemar(lost: int, won: int) -> float:
    """The exact test of McNemar (1947) on paired rows, one-sided.

    Args:
        lost: rows that the old one had right and the new one has wrong.
        won: the other way round.

    Returns:
        How probable so many losses (or more) are if both are equally good.
    """
    rows = lost + won
    as_many = sum(math.comb(rows, count) for count in range(lost, rows + 1))
    return float(Fraction(as_many, 2**rows))
