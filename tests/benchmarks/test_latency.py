"""Histograms of latencies: as precise as they say, and the same whether added up or recorded at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.latency import added, curve, encoded

SECONDS = st.lists(st.floats(1e-6, 3000), min_size=1, max_size=50)
PERCENTILES = [0.0, 50.0, 99.0, 100.0]


@settings(max_examples=25)
@given(SECONDS)
def test_a_percentile_has_three_digits(seconds: list[float]) -> None:
    ordered = np.sort(seconds) * 1000
    found = curve(encoded(np.array([*seconds, float("nan")])), [50.0, 100.0])
    nearest = [ordered[int(np.ceil(len(ordered) / 2)) - 1], ordered[-1]]
    assert found == pytest.approx(nearest, rel=0.001, abs=0.001)


@settings(max_examples=25)
@given(SECONDS, SECONDS)
def test_runs_are_added_up(first: list[float], second: list[float]) -> None:
    together = encoded(np.array([*first, *second]))
    apart = added([encoded(np.array(first)), encoded(np.array(second))])
    assert curve(apart, PERCENTILES) == curve(together, PERCENTILES)


def test_what_is_no_histogram_is_refused() -> None:
    with pytest.raises(ValueError, match="no encoded HdrHistogram"):
        curve("HISTnothing", [50.0])
