import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.evaluation import choose_threshold, evaluate

SCORES = np.array(
    [[0.7, 0.2, 0.1, 0.0], [0.3, 0.4, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]], np.float32
)


def test_figures_by_hand() -> None:
    found = evaluate(SCORES, [0, 0, 0, None], threshold=0.35)
    assert found.rows == 3
    assert found.top1 == pytest.approx(1 / 3, abs=1e-5)
    assert found.top3 == pytest.approx(2 / 3, abs=1e-5)
    assert found.coverage == 1.0
    assert found.oos_recall == 1.0


def test_a_macro_that_the_model_does_not_know_is_always_wrong() -> None:
    assert evaluate(SCORES, [-1, -1, -1, -1], threshold=0).top3 == 0


def test_no_rows_give_no_figures() -> None:
    found = evaluate(np.zeros((0, 4), np.float32), [], threshold=0)
    assert (found.rows, found.top1, found.coverage, found.oos_recall) == (0, None, None, None)
    assert found.as_metrics() == {"test_rows": 0.0}


def test_the_threshold_lets_through_what_is_precise_enough() -> None:
    # Best scores 0.7 right, 0.4 right, 0.4 wrong, 0.25 wrong.
    targets = [0, 1, -1, -1]
    assert choose_threshold(SCORES, targets, precision=0.5) == 0.0
    assert choose_threshold(SCORES, targets, precision=0.6) == pytest.approx(0.4)
    assert choose_threshold(SCORES, targets, precision=0.9) == pytest.approx(0.7)
    assert choose_threshold(SCORES, [-1] * 4) == 1.0
    assert choose_threshold(SCORES[:0], []) == 0.0


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=1, max_size=40), st.floats(0.1, 1.0))
def test_what_is_shown_at_the_threshold_is_as_precise_as_asked(
    rows: list[tuple[float, bool]], precision: float
) -> None:
    best = np.array([score for score, _ in rows], np.float32)
    scores = np.stack([best, best * 0.5, best * 0.4, best * 0.3], axis=1)
    targets = [0 if right else -1 for _, right in rows]
    threshold = choose_threshold(scores, targets, precision=precision)
    shown = [right for (_, right), score in zip(rows, best, strict=True) if score >= threshold]
    assert not shown or sum(shown) / len(shown) >= precision - 1e-9
