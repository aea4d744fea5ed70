import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.calibration import calibrate, choose_threshold, fit_temperature, tempered
from training.evaluation import calibration_error

SCORES = np.array(
    [[0.7, 0.2, 0.1, 0.0], [0.3, 0.4, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]], np.float32
)


def drawn(rows: int, macros: int = 10) -> tuple[NDArray[np.float32], list[int]]:
    """Probabilities, and right macros drawn by them: calibrated by construction."""
    rng = np.random.default_rng(5)
    logits = rng.standard_normal((rows, macros)) * 2.5
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = [int(rng.choice(macros, p=row)) for row in scores]
    return scores.astype(np.float32), targets


@pytest.mark.parametrize("wrong", [0.4, 1.0, 2.5])
def test_the_temperature_that_was_done_to_scores_is_found_and_undone(wrong: float) -> None:
    scores, targets = drawn(3000)
    spoilt = tempered(scores, wrong)
    found = fit_temperature(spoilt, targets)
    assert found == pytest.approx(1 / wrong, rel=0.06)
    mended = tempered(spoilt, found)
    assert (mended.argmax(axis=1) == scores.argmax(axis=1)).all()
    assert calibration_error(mended.max(axis=1), mended.argmax(axis=1) == targets) < 0.03
    assert wrong == 1.0 or calibration_error(spoilt.max(axis=1), spoilt.argmax(axis=1) == targets) > 0.1


@pytest.mark.parametrize("targets", [[], [None] * 4, [-1] * 4])
def test_without_a_row_that_tells_scores_stay_as_they_are(targets: list[int | None]) -> None:
    assert fit_temperature(SCORES[: len(targets)], targets) == 1.0


def test_rows_that_are_all_right_or_all_wrong_give_a_sane_temperature() -> None:
    sure = np.tile(np.array([[0.9, 0.05, 0.05]], np.float32), (8, 1))
    assert 0.05 < fit_temperature(sure, [0] * 8) < 1 < fit_temperature(sure, [2] * 8) < 20


def test_scores_of_zero_can_be_tempered() -> None:
    assert np.allclose(tempered(np.array([[1.0, 0.0]], np.float32), 0.5), [[1.0, 0.0]])
    assert tempered(SCORES[:0], 2.0).shape == (0, 4)


def test_the_threshold_lets_through_what_is_precise_enough() -> None:
    # Best scores 0.7 right, 0.4 right, 0.4 wrong, 0.25 wrong; each row a hundred times, so that chance plays no part.
    scores, targets = np.repeat(SCORES, 100, axis=0), np.repeat([0, 1, -1, -1], 100).tolist()
    assert choose_threshold(scores, targets, precision=0.45) == pytest.approx(0.4), "below it, none is right"
    assert choose_threshold(scores, targets, precision=0.6) == pytest.approx(0.4)
    assert choose_threshold(scores, targets, precision=0.9) == pytest.approx(0.7)
    assert choose_threshold(scores, [-1] * 400) == 1.0
    assert choose_threshold(SCORES[:0], []) == 0.0


def test_few_rows_are_believed_less() -> None:
    few, right = np.repeat(SCORES[:2], 4, axis=0), [0] * 4 + [1] * 4
    assert choose_threshold(few, right, precision=0.98) == 1.0
    assert choose_threshold(np.tile(few, (50, 1)), right * 50, precision=0.98) == pytest.approx(0.2), (
        "half of the least"
    )


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


def out_of_scope(inside: int, outside: int) -> tuple[NDArray[np.float32], list[int | None]]:
    """Right in scope at 0.6 and 0.9; nothing fits what scores 0.5."""
    sure = np.repeat(np.array([[0.9, 0.1, 0, 0], [0.6, 0.4, 0, 0]], np.float32), inside // 2, axis=0)
    unsure = np.tile(np.array([[0.5, 0.5, 0, 0]], np.float32), (outside, 1))
    return np.concatenate([sure, unsure]), [0] * (2 * (inside // 2)) + [None] * outside


def test_out_of_scope_rows_stand_for_more_than_their_number_and_a_few_of_them_for_little() -> None:
    assert choose_threshold(*out_of_scope(3000, 0)) == pytest.approx(0.3)
    assert choose_threshold(*out_of_scope(3000, 100)) == pytest.approx(0.6)
    assert choose_threshold(*out_of_scope(3000, 2)) == pytest.approx(0.25)
    assert choose_threshold(*out_of_scope(100, 1000)) == pytest.approx(0.6), (
        "more of them than assumed count as they are"
    )


def test_nothing_is_shown_where_a_miss_is_likelier_than_a_hit() -> None:
    # 900 sure rows that are right pay for any number of unsure ones; yet of those that score 0.2 a third is right.
    sure = np.tile(np.array([[0.9, 0.1, 0, 0]], np.float32), (900, 1))
    unsure = np.tile(np.array([[0.2, 0.2, 0.2, 0.1]], np.float32), (90, 1))
    scores = np.concatenate([sure, unsure])
    assert choose_threshold(scores, [0] * 900 + [0] * 30 + [3] * 60) == pytest.approx(0.9)
    assert choose_threshold(scores, [0] * 900 + [0] * 60 + [3] * 30) == pytest.approx(0.1)


def test_calibration_applies_the_threshold_to_what_is_calibrated() -> None:
    scores, targets = drawn(2000)
    spoilt = tempered(scores, 3.0)
    found = calibrate(spoilt, [*targets[:-1], None], precision=0.95)
    assert found.rows == 1999
    mended = tempered(spoilt, found.temperature)
    shown = mended.max(axis=1) >= found.threshold
    right = (np.argsort(-mended, axis=1)[:, :3] == np.array(targets)[:, None]).any(axis=1)
    assert 0.1 < shown.mean() < 1
    assert right[shown].mean() >= 0.95
