from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ratios import Run, read_run
from benchmarks.regressions import main
from tests.benchmarks.runs import COLD, MACHINE, SCORE, made_bench, made_run

PARTS = {"map": 0.5, "outside phases": 1.5}


class Files:
    """A folder with a baseline, which `main` is asked about."""

    def __init__(self, folder: Path) -> None:
        self.baseline = folder / "baseline.json"
        self.page = folder / "page.md"
        self._folder = folder
        self._count = 0

    def main(self, *arguments: str, runs: list[dict[str, Any]]) -> int:
        options = list(arguments)
        for run in runs:
            self._count += 1
            path = self._folder / f"run-{self._count}.json"
            path.write_text(json.dumps(run))
            options += ["--run", str(path)]
        return main([*options, "--baseline", str(self.baseline), "--page", str(self.page)])


@pytest.fixture
def files(tmp_path: Path) -> Files:
    files = Files(tmp_path)
    assert files.main("--accept", runs=[made_run(made_bench(COLD, 2.0, phases=PARTS), made_bench(SCORE, 0.5))]) == 0
    return files


def test_a_run_like_the_baseline_passes(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(made_bench(COLD, 2.0, phases=PARTS), made_bench(SCORE, 0.5))
    assert files.main(runs=[run]) == 0
    assert "2 benches beside the baseline" in capsys.readouterr().out


def test_a_slowed_phase_fails_and_is_named(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    slowed = made_bench(COLD, 2.8, phases={**PARTS, "map": 1.3})
    assert files.main(runs=[made_run(slowed, made_bench(SCORE, 0.5))]) == 1
    out = capsys.readouterr().out
    assert "FAIL  cold from disk +40%: map grew 2.6x" in out
    assert "1 failed" in out


def test_the_same_as_json(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert files.main("--json", runs=[made_run(made_bench(COLD, 2.8), made_bench(SCORE, 0.5))]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["failed"] == 1
    assert [(bench["bench"], bench["kind"]) for bench in report["benches"]] == [(COLD, "grown"), (SCORE, "as before")]


def test_accepting_makes_it_the_new_measure(files: Files) -> None:
    slower = made_run(made_bench(COLD, 2.8), made_bench(SCORE, 0.5))
    assert files.main(runs=[slower]) == 1
    assert files.main("--accept", runs=[slower, slower]) == 0
    assert files.main(runs=[slower]) == 0


def test_accepting_puts_the_table_into_its_page(files: Files) -> None:
    files.page.write_text("Before.\n<!-- baseline: make bench-accept -->stale<!-- end of the baseline -->\nAfter.\n")
    run = made_run(made_bench(COLD, 2.0))
    assert files.main("--accept", runs=[run]) == 0
    page = files.page.read_text()
    assert "| cold from disk | 2e+03 ms | 2 of echo | +0% | +0% |" in page
    assert (page.startswith("Before."), page.endswith("After.\n"), "stale" in page) == (True, True, False)
    assert files.main("--accept", runs=[run]) == 0
    assert files.page.read_text() == page


def test_a_page_without_a_place_for_the_table_is_left_alone_and_the_baseline_with_it(files: Files) -> None:
    before = files.baseline.read_bytes()
    files.page.write_text("Nothing.\n")
    assert files.main("--accept", runs=[made_run(made_bench(COLD, 9.0))]) == 2
    assert (files.page.read_text(), files.baseline.read_bytes()) == ("Nothing.\n", before)


def test_a_damaged_baseline_is_no_obstacle_to_a_new_one(files: Files) -> None:
    run = made_run(made_bench(COLD, 2.0))
    files.baseline.write_text("{}")
    assert files.main(runs=[run]) == 2
    assert files.main("--accept", "--only", "cold", runs=[run]) == 2
    assert files.main("--accept", runs=[run]) == 0
    assert files.main(runs=[run]) == 0


def measured_by(files: Files, runs: list[dict[str, Any]]) -> tuple[int, list[list[str]]]:
    """The exit code when these runs are what is measured, one after the other, and which benches each was asked for."""
    asked: list[list[str]] = []
    waiting = iter(runs)

    def measure(benches: Sequence[str]) -> Run:
        asked.append(list(benches))
        return read_run(next(waiting))

    return main(["--baseline", str(files.baseline)], measure=measure), asked


def test_what_has_grown_is_measured_again_by_itself_and_may_have_been_chance(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [made_run(made_bench(COLD, 2.8), made_bench(SCORE, 0.5)), made_run(made_bench(COLD, 2.1))]
    assert measured_by(files, runs) == (0, [[], [COLD]])
    assert "again, by themselves:\ncold from disk +40%" in capsys.readouterr().err


def test_what_has_grown_three_times_fails(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [made_run(made_bench(COLD, seconds), made_bench(SCORE, 0.5)) for seconds in (2.8, 3.0, 2.9)]
    assert measured_by(files, runs) == (1, [[], [COLD], [COLD]])
    assert "(the least of 3 runs)" in capsys.readouterr().out


def test_a_missing_bench_is_not_measured_again(files: Files) -> None:
    assert measured_by(files, [made_run(made_bench(COLD, 2.0))]) == (1, [[]])


def test_ctrl_c_ends_it_without_a_word_of_pythons(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: Sequence[str]) -> Run:
        raise KeyboardInterrupt

    before = files.baseline.read_bytes()
    assert main(["--accept", "--baseline", str(files.baseline), "--page", str(files.page)], measure=interrupted) == 130
    assert files.baseline.read_bytes() == before
    assert "interrupted" in capsys.readouterr().err


def test_another_machine_is_told(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(made_bench(COLD, 2.0), made_bench(SCORE, 0.5), machine={**MACHINE, "cpu": "another one"})
    assert files.main(runs=[run]) == 0
    assert "another machine (cpu a processor there, another one here)" in capsys.readouterr().out


def test_without_a_baseline_one_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--baseline", str(tmp_path / "none.json")]) == 2
    assert "make bench-accept" in capsys.readouterr().err


def test_what_is_no_run_is_refused(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert files.main(runs=[{"benchmarks": [{}]}]) == 2
    assert main(["--baseline", str(files.baseline), "--run", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err
