from __future__ import annotations

import ast
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import benchmarks
from benchmarks.baseline import (
    Baseline,
    Verdict,
    accept,
    chance_of_alarm,
    compare,
    differences,
    read_baseline,
    with_table,
)
from benchmarks.ratios import Run, read_run, title
from benchmarks.regressions import BASELINE, PAGE
from registry.errors import InvalidInput
from tests.benchmarks.runs import COLD, FEATURISE, MACHINE, SCORE, made_bench, made_run

DAY = date(2026, 11, 28)
PARTS = {"queue": 0.1, "featurise": 0.3, "map": 0.4, "outside phases": 1.2}


def cold(scale: float = 1.0, **phases: float) -> dict[str, Any]:
    """The bench `cold from disk`, its phases as in `PARTS` unless they are given."""
    parts = {name: scale * seconds for name, seconds in {**PARTS, **phases}.items()}
    return made_bench(COLD, sum(parts.values()), phases=parts)


def run_of(*benches: Mapping[str, Any], **more: Any) -> Run:
    return read_run(made_run(*benches, **more))


def baseline_of(*benches: Mapping[str, Any], **more: Any) -> Baseline:
    return accept([run_of(*benches, **more)], None, taken=DAY, only=False)


def only(verdicts: list[Verdict]) -> Verdict:
    (verdict,) = verdicts
    return verdict


def test_a_bench_as_it_was_passes() -> None:
    verdict = only(compare(baseline_of(cold()), [run_of(cold())]))
    assert (verdict.kind, verdict.growth, verdict.fails) == ("as before", 0.0, False)


@pytest.mark.parametrize(
    ("scale", "kind"), [(1.24, "as before"), (1.26, "grown"), (0.76, "as before"), (0.74, "quicker")]
)
def test_a_quarter_more_is_too_much(scale: float, kind: str) -> None:
    verdict = only(compare(baseline_of(cold()), [run_of(cold(scale))]))
    assert verdict.kind == kind
    assert verdict.fails == (kind == "grown")


def test_a_machine_that_is_half_as_fast_fails_nothing() -> None:
    slower = made_bench(COLD, 4.0, calibration=2.0, phases={"map": 0.8})
    assert only(compare(baseline_of(cold()), [run_of(slower)])).kind == "as before"


def test_the_phase_that_grew_is_named() -> None:
    verdict = only(compare(baseline_of(cold()), [run_of(cold(map=1.2))]))
    assert verdict.message == "cold from disk +40%: map grew 3.0x (0.4 to 1.2 of echo), 100% of it"


def test_the_phase_with_most_of_the_growth_is_named_and_not_the_one_that_grew_most_times() -> None:
    message = only(compare(baseline_of(cold()), [run_of(cold(queue=0.4, featurise=1.0))])).message
    assert message == "cold from disk +50%: featurise grew 3.3x (0.3 to 1 of echo), 70% of it"


def test_a_phase_that_was_not_there_is_named_without_a_factor() -> None:
    message = only(compare(baseline_of(cold()), [run_of(cold(download=1.0))])).message
    assert message == "cold from disk +50%: download grew from 0 to 1 of echo, 100% of it"


def test_a_bench_without_phases_is_named_itself() -> None:
    before, now = made_bench(FEATURISE, 2.0, beside="gather"), made_bench(FEATURISE, 3.0, beside="gather")
    message = only(compare(baseline_of(before), [run_of(now)])).message
    assert message == "featurise 8 +50%: featurise 8 grew 1.5x (2 to 3 of gather)"


def test_a_bench_whose_phases_did_not_grow_is_named_itself() -> None:
    before = made_bench(COLD, 2.0, phases={"map": 1.0})
    message = only(compare(baseline_of(before), [run_of(made_bench(COLD, 4.0, phases={"map": 1.0}))])).message
    assert message == "cold from disk +100%: cold from disk grew 2.0x (2 to 4 of echo)"


def test_a_bench_fails_only_when_it_has_grown_in_every_run_that_it_was_measured_in() -> None:
    baseline = baseline_of(cold(), made_bench(SCORE, 1.0))
    first = run_of(cold(1.5), made_bench(SCORE, 1.0))
    again = compare(baseline, [first, run_of(cold(1.1))])
    assert [verdict.kind for verdict in again] == ["as before", "as before"]
    still = compare(baseline, [first, run_of(cold(1.6)), run_of(cold(1.4))])
    assert [verdict.kind for verdict in still] == ["grown", "as before"]
    assert still[0].message.startswith("cold from disk +40%")
    assert still[0].message.endswith("(the least of 3 runs)")


def test_what_fails_stands_first() -> None:
    names = [f"benchmarks/test_a.py::test_{letter}" for letter in "abcd"]
    baseline = baseline_of(*(made_bench(name, 1.0) for name in names))
    run = run_of(*(made_bench(name, 2.0 if name == names[2] else 1.0) for name in names))
    assert [verdict.bench for verdict in compare(baseline, [run])] == [names[2], names[0], names[1], names[3]]


def test_a_new_bench_is_told_and_passes() -> None:
    verdicts = compare(baseline_of(cold()), [run_of(cold(), made_bench(SCORE, 0.5))])
    new = next(verdict for verdict in verdicts if verdict.bench == SCORE)
    assert (new.kind, new.fails) == ("new", False)
    assert "make bench-accept" in new.message


def test_a_bench_that_is_gone_fails() -> None:
    verdict = compare(baseline_of(cold(), made_bench(SCORE, 0.5)), [run_of(cold())])[0]
    assert (verdict.bench, verdict.kind, verdict.fails) == (SCORE, "missing", True)
    assert "make bench-accept" in verdict.message


def test_a_bench_that_was_not_asked_for_is_not_missing() -> None:
    baseline = baseline_of(cold(), made_bench(SCORE, 0.5))
    assert [verdict.bench for verdict in compare(baseline, [run_of(cold())], only=True)] == [COLD]


def test_a_bench_that_was_skipped_says_why_and_passes() -> None:
    baseline = baseline_of(cold(), made_bench(SCORE, 0.5))
    verdicts = compare(baseline, [run_of(cold(), skipped={SCORE: "name the wheel"})])
    skipped = next(verdict for verdict in verdicts if verdict.bench == SCORE)
    assert (skipped.kind, skipped.fails) == ("skipped", False)
    assert "name the wheel" in skipped.message


def test_another_calibration_is_no_comparison() -> None:
    verdict = only(compare(baseline_of(cold()), [run_of(made_bench(COLD, 2.0, beside="loop"))]))
    assert (verdict.kind, verdict.fails) == ("other calibration", True)


def test_an_uneasy_machine_is_said_to_be_one() -> None:
    uneasy = made_bench(COLD, [3.0] * 9, calibration=[1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0])
    verdict = only(compare(baseline_of(cold()), [run_of(uneasy)]))
    assert verdict.message.endswith("echo itself took 5.0x as long most of the time")


def test_a_baseline_is_the_median_of_its_runs_and_keeps_their_spread() -> None:
    runs = [run_of(cold(scale)) for scale in (1.0, 1.3, 1.1)]
    accepted = accept(runs, None, taken=DAY, only=False).benches[COLD]
    assert (accepted.ratio, accepted.least, accepted.most) == (2.2, 2.0, 2.6)
    assert accepted.phases["map"] == 0.44


def test_a_baseline_can_be_shown() -> None:
    runs = [run_of(cold(scale)) for scale in (1.0, 1.3, 1.1)]
    table = accept(runs, None, taken=DAY, only=False).to_table()
    assert table.splitlines()[2] == "| cold from disk | 2.2e+03 ms | 2.2 of echo | -9% | +18% |"
    assert "Of 3 runs the highest lies 18% above" in table.splitlines()[-1]


def test_runs_of_the_same_code_tell_how_often_chance_looks_like_a_regression() -> None:
    scales = [1.0, 1.0, 1.0, 1.0, 1.0, 1.3, 1.3, 1.3]
    told = chance_of_alarm([run_of(cold(scale), made_bench(SCORE, 1.0)) for scale in scales])
    assert "3 of 16 figures" in told
    assert "1 of 112 choices of three" in told


def test_renewing_some_benches_keeps_the_others() -> None:
    before = baseline_of(cold(), made_bench(SCORE, 0.5))
    after = accept([run_of(cold(2.0))], before, taken=DAY, only=True)
    assert (after.benches[COLD].ratio, after.benches[SCORE].ratio) == (4.0, 0.5)


def test_renewing_all_forgets_what_is_gone_and_keeps_what_was_skipped() -> None:
    before = baseline_of(cold(), made_bench(SCORE, 0.5), made_bench(FEATURISE, 0.5))
    after = accept([run_of(cold(), skipped={SCORE: "name the wheel"})], before, taken=DAY, only=False)
    assert set(after.benches) == {COLD, SCORE}


def test_figures_of_two_machines_make_no_baseline() -> None:
    before = baseline_of(cold(), made_bench(SCORE, 0.5))
    other = run_of(cold(), machine={**MACHINE, "cpu": "another one"})
    with pytest.raises(InvalidInput, match="another one"):
        accept([other], before, taken=DAY, only=True)
    assert accept([other], before, taken=DAY, only=False).machine["cpu"] == "another one"


def test_machines_differ_by_what_moves_ratios() -> None:
    assert differences(MACHINE, {**MACHINE, "load_average": 7}) == []
    assert differences(MACHINE, {**MACHINE, "cores": 8}) == ["cores 2 there, 8 here"]


def test_a_baseline_comes_back_from_its_file() -> None:
    baseline = baseline_of(cold())
    assert read_baseline(baseline.to_text().encode()) == baseline


@pytest.mark.parametrize("text", ["", "{}", '{"format": 2}', "[]"])
def test_a_damaged_baseline_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="make bench-accept"):
        read_baseline(text.encode())


def test_the_documentation_has_the_baselines_figures() -> None:
    page = PAGE.read_text()
    assert with_table(page, read_baseline(BASELINE.read_bytes())) == page


def test_the_baseline_has_a_request_and_all_of_its_parts() -> None:
    found = {title(bench) for bench in read_baseline(BASELINE.read_bytes()).benches}
    parts = "normalise", "tokenise 1", "score", "bind", "verify", "lease of warm models", "fleet diff", "parse manifest"
    featurised = {f"featurise {tickets}" for tickets in (1, 8, 32, 64)}
    assert found >= {*parts, *featurised, "http warm", "cold from disk", "cold from s3", "swap"}


def test_the_baseline_names_benches_that_exist() -> None:
    names = {bench.partition("[")[0] for bench in read_baseline(BASELINE.read_bytes()).benches}
    folder = Path(benchmarks.__file__).parent
    there = {
        f"benchmarks/{path.name}::{node.name}"
        for path in folder.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    assert names <= there
