from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ratios import first_decile, read_run, title
from registry.errors import InvalidInput
from tests.benchmarks.runs import COLD, FEATURISE, SCORE, made_bench, made_run

SECONDS = st.floats(min_value=1e-6, max_value=10.0)


def test_a_figure_is_a_bench_beside_its_calibration() -> None:
    bench = made_bench(COLD, 0.004, beside="echo", calibration=0.002, phases={"map": 0.001})
    run = read_run(made_run(bench, skipped={SCORE: "no wheel"}))
    figure = run.figures[COLD]
    assert (figure.calibration, figure.ratio, dict(figure.phases)) == ("echo", 2.0, {"map": 0.5})
    assert (figure.microseconds, figure.unrest) == (4000.0, 1.0)
    assert run.skipped == {SCORE: "no wheel"}


@given(
    seconds=st.lists(SECONDS, min_size=2, max_size=30),
    calibration=st.lists(SECONDS, min_size=2, max_size=30),
    factor=SECONDS,
)
def test_a_slower_machine_changes_no_ratio_and_a_slower_bench_does(
    seconds: list[float], calibration: list[float], factor: float
) -> None:
    def ratio(by: float, calibration_by: float) -> float:
        bench = made_bench(
            SCORE, [by * second for second in seconds], calibration=[calibration_by * second for second in calibration]
        )
        return read_run(made_run(bench)).figures[SCORE].ratio

    assert ratio(factor, factor) == pytest.approx(ratio(1.0, 1.0))
    assert ratio(factor, 1.0) == pytest.approx(factor * ratio(1.0, 1.0))


@given(slow=st.lists(st.floats(min_value=1.0, max_value=100.0), min_size=1, max_size=40), quick=st.integers(8, 20))
def test_what_else_a_machine_does_for_most_of_a_run_is_not_in_the_ratio(slow: list[float], quick: int) -> None:
    times = [*slow, *[1.0] * quick]
    bench = made_bench(SCORE, [3.0 * time for time in times], calibration=[2.0 * time for time in times])
    assert read_run(made_run(bench)).figures[SCORE].ratio == pytest.approx(1.5)


def test_the_first_decile_lies_between_its_neighbours() -> None:
    assert first_decile([float(number) for number in range(11)]) == 1.0
    assert first_decile([1.0, 2.0]) == 1.1


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"benchmarks": []},
        made_run({"fullname": SCORE, "stats": {"data": [1.0]}, "extra_info": {}}),
        made_run(made_bench(SCORE, [1.0], calibration=[1.0])),
        made_run(made_bench(SCORE, 1.0, calibration=0.0)),
    ],
)
def test_other_json_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="not a run of the suites"):
        read_run(document)


@pytest.mark.parametrize(
    ("bench", "name"), [(COLD, "cold from disk"), (FEATURISE, "featurise 8"), ("something else", "something else")]
)
def test_a_bench_has_a_name_for_people(bench: str, name: str) -> None:
    assert title(bench) == name
