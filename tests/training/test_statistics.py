import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.statistics import bootstrap_interval, mcnemar, wilson_interval


def test_wilsons_interval_by_hand() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert np.allclose(wilson_interval(81 / 263, 263), (0.2553, 0.3662), atol=1e-4)
    assert np.allclose(wilson_interval(0.0, 20), (0.0, 0.1611), atol=1e-4)


@given(st.integers(0, 50), st.integers(1, 50), st.floats(0, 4))
def test_the_share_lies_in_its_interval(right: int, rows: int, z: float) -> None:
    share = min(right, rows) / rows
    low, high = wilson_interval(share, rows, z=z)
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1


def test_arrays_have_an_interval_each() -> None:
    low, high = wilson_interval(np.array([0.5, 1.0]), np.array([10, 10]))
    assert low.shape == high.shape == (2,)
    assert low[1] == pytest.approx(1 - 0.2775, abs=1e-3)


def test_the_bootstrap_is_about_as_wide_as_wilsons_and_the_same_every_time() -> None:
    values = np.arange(400) < 300
    found = bootstrap_interval(lambda rows: float(values[rows].mean()), len(values))
    assert found == bootstrap_interval(lambda rows: float(values[rows].mean()), len(values))
    assert np.allclose(found, wilson_interval(0.75, 400), atol=0.015)


@pytest.mark.parametrize(
    ("lost", "won", "chance"), [(0, 0, 1.0), (1, 0, 0.5), (5, 0, 1 / 32), (3, 1, 5 / 16), (2000, 2000, 0.506)]
)
def test_mcnemar_by_hand(lost: int, won: int, chance: float) -> None:
    assert mcnemar(lost, won) == pytest.approx(chance, abs=1e-3)
