from __future__ import annotations

from typing import Any

import pytest

from benchmarks.verdicts import Bound, all_passed, judge


@pytest.mark.parametrize(
    ("bound", "value", "holds"),
    [
        (Bound(at_most=2), 2.0, True),
        (Bound(at_most=2), 2.01, False),
        (Bound(at_most=2), -5.0, True),
        (Bound(at_least=200), 200, True),
        (Bound(at_least=200), 199, False),
        (Bound(at_least=1, at_most=2), 1.5, True),
        (Bound(at_least=1, at_most=2), 0.9, False),
        (Bound(at_least=1, at_most=2), 2.1, False),
        (Bound(at_most=0), 0, True),
        (Bound(at_most=2), None, False),
        (Bound(at_most=2), float("nan"), False),
        (Bound(at_least=2), float("nan"), False),
    ],
)
def test_a_figure_is_within_its_bound_or_not(bound: Bound, value: float | None, holds: bool) -> None:
    assert bound.holds(value) is holds


def test_a_bound_says_what_it_asks_for() -> None:
    assert str(Bound(at_least=0.5)) == "≥ 0.5"
    assert str(Bound(at_most=2)) == "≤ 2"
    assert str(Bound(at_least=1, at_most=1.25)) == "≥ 1 and ≤ 1.25"


BOUNDS = {"swaps": Bound(at_least=200), "failed": Bound(at_most=0)}


def judged(swaps: float | None, failed: float | None, *void: str) -> dict[str, Any]:
    return judge({"swaps": swaps, "failed": failed, "not bound": 5}, BOUNDS, void=void)


def test_a_judgement_is_figure_by_figure() -> None:
    assert judged(200, 1, "the generator was late") == {
        "bounds": {"swaps": "≥ 200", "failed": "≤ 0"},
        "passed": {"swaps": True, "failed": False},
        "void": ["the generator was late"],
    }


@pytest.mark.parametrize(
    ("report", "passed"),
    [
        (judged(200, 0), True),
        (judged(200, 1), False),
        (judged(199, 0), False),
        (judged(None, 0), False),
        (judged(200, 0, "one core only"), False),
    ],
)
def test_a_report_passes_when_every_figure_does_and_nothing_makes_it_void(report: dict[str, Any], passed: bool) -> None:
    assert all_passed(report) is passed


def test_a_figure_that_was_not_measured_is_an_error() -> None:
    with pytest.raises(KeyError, match="failed"):
        judge({"swaps": 200}, BOUNDS)
