from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from typer.testing import CliRunner

import macrofleet
from registry.errors import InvalidInput
from training import quality
from training.evaluation import evaluate, intervals, judge, reliability
from training.quality import RUNS, measure, reliability_svg, write_page


def report(*, outside: int = 0) -> dict[str, Any]:
    """As `evaluate` prints it, of scores that were drawn."""
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.full(4, 0.4), 200 + outside).astype(np.float32)
    targets = [*rng.choice(list("abcd"), 200), *[None] * outside]
    judged = judge(scores, targets, list("abcd"), threshold=0.6)
    inside = judged.of(judged.in_scope)
    return {
        **evaluate(judged).figures(),
        "interval": {name: list(ends) for name, ends in intervals(judged).items()},
        "baselines": {"tfidf": {"top1": 0.9123, "top3": 0.974}},
        "fit_seconds": 1.25,
        "reliability": reliability(inside.confidence, inside.rank == 0),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for run in RUNS:
        (tmp_path / "data" / run.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / run.file).write_text("")
    (tmp_path / "docs").mkdir()
    return tmp_path


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.slug)
def test_every_run_is_a_use_of_the_command_line(run: quality.Run) -> None:
    command = run.command(Path("/nowhere"), "bag", 3)
    assert command[0] == "macrofleet"
    result = CliRunner().invoke(macrofleet.app, command[1:])
    assert isinstance(result.exception, InvalidInput), result.output
    assert "cannot be read" in str(result.exception)


def test_runs_are_kept_and_the_page_is_rewritten_between_its_marks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(command: list[str]) -> dict[str, Any]:
        asked.append(command[command.index("--program") + 1])
        return report(outside=50 if "clinc150" in command[3] else 0)

    monkeypatch.setattr(quality, "_evaluate", answer)
    page = folder / "docs" / "quality.md"
    page.write_text(f"before\n{quality._BEGIN}\nold\n{quality._END}\nafter\n")
    names = ["BANKING77 10-shot", "CLINC150"]
    measure(folder / "data", ["bag"], seeds=2, names=names, out=folder / "docs")
    measure(folder / "data", ["encoder"], seeds=2, names=names[:1], out=folder / "docs")
    assert asked == ["bag", "bag", "encoder"]
    text = page.read_text()
    assert (text.startswith("before\n"), text.endswith("after\n"), "old" in text) == (True, True, False)
    rows = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line.startswith("| ")}
    found = report(outside=50)
    assert f" {100 * found['top1']:.1f} (" in rows["CLINC150"]
    assert f"{100 * found['oos_recall']:.1f} / {100 * found['in_scope_accuracy']:.1f}" in rows["CLINC150"]
    assert "91.2 / 97.4" in rows["CLINC150"]
    assert text.count("| BANKING77 10-shot | 200 |") == 2, "once a program"
    assert "macrofleet evaluate --data banking77/banking77.csv --few-shot 10 --program bag --seeds 2" in text
    for name in ("bag-banking77-10-shot", "bag-clinc150", "encoder-banking77-10-shot"):
        assert f"(quality/{name}.svg)" in text
        assert (folder / "docs" / "quality" / f"{name}.svg").exists()
    assert json.loads((folder / "docs" / "quality" / "figures.json").read_text()).keys() == {"bag", "encoder"}
    again = page.read_text()
    write_page(json.loads((folder / "docs" / "quality" / "figures.json").read_text()), folder / "docs")
    assert page.read_text() == again


def test_the_plot_is_a_drawing_with_a_bar_a_bin() -> None:
    found = report()
    root = ET.fromstring(reliability_svg("A, b", found))
    bars = [shape for shape in root if shape.find("{http://www.w3.org/2000/svg}title") is not None]
    assert len(bars) == len(found["reliability"]) > 3
    for bar, one in zip(bars, found["reliability"], strict=True):
        assert float(bar.attrib["height"]) == pytest.approx(220 * one["accuracy"], abs=0.1)


def test_what_cannot_be_measured_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no run is named"):
        measure(folder / "data", ["bag"], seeds=1, names=["nothing"], out=folder / "docs")
    with pytest.raises(InvalidInput, match="none of the data sets"):
        measure(tmp_path / "docs", ["bag"], seeds=1, names=[], out=folder / "docs")
    (folder / "docs" / "quality.md").write_text("no marks")
    with pytest.raises(InvalidInput, match="no place"):
        write_page({}, folder / "docs")
