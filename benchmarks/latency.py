"""Latencies as a High Dynamic Range histogram: three significant digits from a microsecond to an hour.

Percentiles that a bench prints are exact, from its samples (`benchmarks.load.percentiles`). The histogram is what is kept:
a few kilobytes whatever the number of samples, runs can be added up, and every HdrHistogram tool reads its encoding. It
is the HdrHistogram project's own Python implementation (`hdrhistogram` on PyPI).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.load import Floats

if TYPE_CHECKING:
    from hdrh.histogram import HdrHistogram

_LOWEST_US, _HIGHEST_US, _DIGITS = 1, 3_600_000_000, 3


def encoded(seconds: Floats) -> str:
    """A histogram of these latencies, in microseconds, as text (V2, compressed); NaN is left out."""
    found = seconds[~np.isnan(seconds)]
    rounded = np.clip(np.rint(found * 1e6), _LOWEST_US, _HIGHEST_US).astype(np.int64)
    histogram = _empty()
    for value, count in zip(*(part.tolist() for part in np.unique(rounded, return_counts=True)), strict=True):
        histogram.record_value(value, count)
    text: bytes = histogram.encode()
    return text.decode("ascii")


def added(texts: Iterable[str]) -> str:
    """Several runs' histograms as one. Raises ValueError: one is none."""
    whole = _empty()
    for text in texts:
        whole.add(_decoded(text))
    joined: bytes = whole.encode()
    return joined.decode("ascii")


def curve(text: str, percentiles: Iterable[float]) -> list[float]:
    """The latency in milliseconds at each percentile (0 to 100). Raises ValueError: the text is no histogram."""
    histogram = _decoded(text)
    return [histogram.get_value_at_percentile(percentile) / 1000 for percentile in percentiles]


def mean_seconds(text: str) -> float:
    """The mean latency. Raises ValueError: the text is no histogram."""
    return float(_decoded(text).get_mean_value()) / 1e6


def _empty() -> HdrHistogram:
    from hdrh.histogram import HdrHistogram

    return HdrHistogram(_LOWEST_US, _HIGHEST_US, _DIGITS)


def _decoded(text: str) -> HdrHistogram:
    from hdrh.histogram import HdrHistogram

    try:
        return HdrHistogram.decode(text.encode("ascii"))
    except Exception as error:  # its decoder raises whatever zlib, base64 and ctypes do
        raise ValueError("this is no encoded HdrHistogram") from error
