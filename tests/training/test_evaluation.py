import numpy as np
import pytest

from training.evaluation import Judged, calibration_error, evaluate, intervals, judge, macro_table, reliability

SCORES = np.array(
    [[0.7, 0.2, 0.1, 0.0], [0.3, 0.4, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.25, 0.25]], np.float32
)
MACROS = ["a", "b", "c", "d"]


def judged(targets: list[str | None], threshold: float = 0.35) -> Judged:
    return judge(SCORES[: len(targets)], targets, MACROS, threshold=threshold)


def test_figures_by_hand() -> None:
    found = evaluate(judged(["a", "a", "a", None]))
    assert (found.rows, found.oos_rows) == (3, 1)
    assert found.top1 == pytest.approx(1 / 3, abs=1e-5)
    assert found.top3 == pytest.approx(2 / 3, abs=1e-5)
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 4) / 3, abs=1e-5)
    assert (found.coverage, found.oos_recall) == (1.0, 1.0)
    assert found.precision_at_threshold == pytest.approx(2 / 3, abs=1e-5)
    assert found.in_scope_accuracy == pytest.approx(1 / 3, abs=1e-5)


def test_abstaining_is_wrong_in_scope_and_right_out_of_it() -> None:
    found = evaluate(judged(["a", "b", None, None], threshold=0.5))
    assert (found.coverage, found.in_scope_accuracy, found.top1, found.oos_recall) == (0.5, 0.5, 1.0, 1.0)
    assert evaluate(judged(["a", "b", None, None], threshold=0.3)).precision_at_threshold == pytest.approx(
        2 / 3, abs=1e-5
    )


def test_a_score_at_the_threshold_is_shown_as_serving_shows_it() -> None:
    assert judged(["a"], threshold=float(SCORES[0, 0])).shown.tolist() == [True]
    assert judged(["a"], threshold=float(np.nextafter(SCORES[0, 0], np.float32(1)))).shown.tolist() == [False]


def test_a_macro_that_the_model_does_not_know_is_always_wrong() -> None:
    found = evaluate(judged(["x", "x", "x", "x"], threshold=0))
    assert (found.top3, found.mrr) == (0, 0)


def test_two_macros_are_enough() -> None:
    found = judge(SCORES[:, :2], ["a", "b", "b", None], ["a", "b"], threshold=0)
    assert found.suggested[0].tolist() == ["a", "b", ""]
    assert evaluate(found).top3 == 1.0


def test_no_rows_give_no_figures() -> None:
    found = evaluate(judge(np.zeros((0, 4), np.float32), [], MACROS, threshold=0))
    assert (found.rows, found.top1, found.coverage, found.oos_recall, found.ece) == (0, None, None, None, None)
    assert found.as_metrics() == {"test_rows": 0.0}
    assert intervals(judged([])) == {}


def test_what_is_about_out_of_scope_rows_stands_only_where_there_are_any() -> None:
    assert {"oos_recall", "in_scope_accuracy", "oos_rows"} & evaluate(judged(["a"])).figures().keys() == set()
    assert {"oos_recall", "in_scope_accuracy", "oos_rows"} <= evaluate(judged(["a", None])).figures().keys()


def test_the_calibration_error_by_hand() -> None:
    # Two bins: 0.9 said and half right, 0.2 said and none right.
    confidence = np.array([0.9, 0.9, 0.2, 0.2], np.float32)
    right = np.array([True, False, False, False])
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.4 + 0.5 * 0.2)
    assert reliability(confidence, right) == [
        {"confidence": 0.2, "accuracy": 0.0, "rows": 2},
        {"confidence": 0.9, "accuracy": 0.5, "rows": 2},
    ]
    assert calibration_error(np.ones(1, np.float32), np.ones(1, bool)) == 0.0


def test_intervals_hold_the_figures() -> None:
    rng = np.random.default_rng(1)
    scores = rng.dirichlet(np.ones(4), 500).astype(np.float32)
    found = judge(scores, [*rng.choice(MACROS, 400), *[None] * 100], MACROS, threshold=0.5)
    figures = evaluate(found).figures()
    bounds = intervals(found)
    assert bounds.keys() == figures.keys() - {"test_rows", "oos_rows"}
    for name in bounds.keys() - {"ece"}:  # resampling makes noise, which a calibration error counts
        low, high = bounds[name]
        assert low < figures[name] < high, name
        assert high - low < 0.2


def test_the_table_of_macros() -> None:
    table = macro_table(judged(["a", "a", "d", None]))
    assert table == [
        {"macro": "a", "support": 2, "precision": 0.5, "recall": 0.5, "top3": 1.0},
        {"macro": "d", "support": 1, "precision": 1.0, "recall": 1.0, "top3": 1.0},
        {"macro": "b", "support": 0, "precision": 0.0, "recall": None, "top3": None},
    ]


def test_rows_of_several_tenants_together() -> None:
    one, other = judged(["a"]), judged(["b", "b"])
    assert evaluate(Judged.together([one, other])).figures()["top1"] == pytest.approx(2 / 3, abs=1e-5)
