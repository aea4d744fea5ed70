"""The report: the same results give the same files, and stale ones are found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.latency import encoded
from benchmarks.peers.results import Cell, PeerInfo, PeerRun, write_run
from benchmarks.report.__main__ import main
from benchmarks.report.build import DOCUMENTS, TABLES, build_report, stale_files, write_report
from benchmarks.report.markdown import cell, csv_text, fill, number, table
from benchmarks.report.marks import marks, marks_table
from benchmarks.report.measure import RESULTS
from benchmarks.report.measure import main as measure
from benchmarks.report.plots import digest_of, plotted_digest
from benchmarks.report.stored import read_results
from registry.errors import InvalidInput

ROOT = Path(__file__).parents[2]
EMPTY = {
    document: "# Title\n"
    + "".join(f"Text before {name}.\n<!-- generated: {name} -->\n<!-- end of generated -->\n\n" for name in names)
    for document, names in DOCUMENTS.items()
}
MACHINE = {"cpu": "A | B", "cores": 2, "memory_bytes": 8e9, "kernel": "6", "python": "3.11"}
WARM: dict[str, Any] = {
    "bench": "warm",
    "command": "macrofleet bench warm --json",
    "began": "2026-11-28T10:00:00Z",
    "load_average_before": 3.0,
    "p99_ratio_to_echo": 7.25,
    "rps_least": 1234.5,
    "bounds": {"p99_ratio_to_echo": "≤ 5", "rps_least": "≥ 1"},
    "passed": {"p99_ratio_to_echo": False, "rps_least": True},
    "void": [],
    "hdr": encoded(np.array([0.001, 0.002, 0.5])),
    "machine": MACHINE,
}
OFFER = {"machine": "r5.large", "count": 8, "limited_by": "memory", "an_hour": 1.5, "a_month": 1095.0}
COST: dict[str, Any] = {
    "bench": "cost",
    "command": "macrofleet cost --json",
    "began": "2026-11-28T11:00:00Z",
    "settings": {"tenants": 5000, "rate": 2.0, "copies": 2},
    "offers": [{"name": "macrofleet", **OFFER}, {"name": "an endpoint a tenant", **OFFER}],
    "saved_against_each": {"an endpoint a tenant": 0.998},
    "saved_against_multi_model": 0.4,
    "saved_against_dedicated": 0.998,
    "measured": [{"command": "warm", "load_average_before": 0.9, "void": ["the generator was late"]}],
}


def stored(folder: Path, **reports: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, report in reports.items():
        (folder / f"{name}.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = stored(tmp_path / "results", warm=WARM, cost=COST)
    (folder / "why.toml").write_text('[warm]\np99_ratio_to_echo = "One core | nearly full."\n', encoding="utf-8")
    return folder


def part(documents: Mapping[str, str], name: str) -> str:
    document = next(text for text in documents.values() if f"generated: {name} " in text)
    return document.partition(f"<!-- generated: {name} -->\n")[2].partition("<!-- end of generated -->")[0]


def test_the_same_results_give_the_same_report_and_it_is_its_own_input(results: Path) -> None:
    first = build_report(read_results(results), EMPTY)
    os.utime(results / "warm.json", (1, 1))
    again = build_report(read_results(results), first.documents)
    assert again.documents == first.documents != EMPTY
    assert again.numbers == first.numbers
    assert "Text before marks.\n" in first.documents["benchmarks.md"]


def test_a_figure_has_its_bound_its_verdict_and_the_reason(results: Path) -> None:
    document = build_report(read_results(results), EMPTY).documents
    shown = part(document, "figures")
    assert (
        "| warm | p99_ratio_to_echo | ≤ 5 | 7.25 | **not reached**, on a busy machine | One core \\| nearly full. |\n"
        in shown
    )
    assert "| warm | rps_least | ≥ 1 | 1,234 | reached, on a busy machine |  |\n" in shown
    assert "busy: load 3.0 before" in part(document, "runs")
    assert "`macrofleet bench warm --json`" in part(document, "runs")
    assert part(document, "peers") == "Nothing was measured yet.\n"
    assert "benchmarks/latency.png" in part(document, "latency")


def test_a_void_result_is_neither_reached_nor_missed(results: Path) -> None:
    stored(results, warm={**WARM, "void": ["the generator was late"]})
    shown = part(build_report(read_results(results), EMPTY).documents, "figures")
    assert shown.count("| void |") == 2
    assert "reached" not in shown


def test_marks_are_reached_missed_or_not_measured_and_doubted(results: Path) -> None:
    found = {mark.name: mark for mark in marks(read_results(results))}
    assert (found["saved_against_dedicated"].passed, found["saved_against_multi_model"].passed) == (True, False)
    assert found["saved_against_multi_model"].void == (
        "it rests on `warm` (the generator was late; other work was on the machine (load 0.9 before))",
    )
    assert found["mms_cold_cached"].value is None
    rows = {row[1] + row[0]: row for row in marks_table(read_results(results)).rows}
    missed = next(row for name, row in rows.items() if name.endswith("500 models an instance"))
    assert missed[4:6] == ["**not reached**", "nobody wrote down why"]
    (results / "why.toml").write_text('[marks]\nsaved_against_multi_model = "Memory."\n', encoding="utf-8")
    assert [row[5] for row in marks_table(read_results(results)).rows if row[5]] == ["Memory."]
    stored(results, cost={**COST, "settings": {**COST["settings"], "tenants": 10}})
    assert next(mark for mark in marks(read_results(results)) if mark.name == "saved_against_dedicated").value is None


def test_what_is_computed_says_when_it_rests_on_little(results: Path) -> None:
    document = build_report(read_results(results), EMPTY).documents
    for name in ("cost", "runs", "marks"):
        assert "it rests on `warm` (the generator was late; other work was on the machine (load" in part(document, name)
    stored(results, cost={**COST, "measured": [{"command": "warm", "load_average_before": 0.1, "void": []}]})
    document = build_report(read_results(results), EMPTY).documents
    assert "rests on" not in "".join(document.values())


def test_a_comparison_on_a_busy_machine_says_so(results: Path) -> None:
    for load, busy in ((0.2, False), (2.0, True)):
        machine = {**MACHINE, "load_average": load}
        run = PeerRun(date="2026-11-28", command="c", machine=machine, settings={}, void=())
        write_run(results / "peers.json", run)
        made = read_results(results)
        against = [mark for mark in marks(made) if mark.source == "peers"]
        assert len(against) == 17
        assert all(bool(mark.void) == busy for mark in against)


def test_every_step_of_every_peer_is_shown_with_its_own_error(results: Path) -> None:
    cells = (
        Cell(peer="macrofleet", step="cold", tenants=10, figures={"cached_p50_ms": 2.5, "more": None}),
        Cell(peer="ray", step="warm", tenants=100, clients=8, text="short", outcome="failed", error="no | room"),
    )
    peers = {"macrofleet": PeerInfo(title="ours"), "ray": PeerInfo(title="Ray Serve")}
    run = PeerRun(
        date="2026-11-28", command="macrofleet bench peers", machine=MACHINE, settings={}, peers=peers, cells=cells
    )
    write_run(results / "peers.json", run)
    (results / "why.toml").unlink()
    made = read_results(results)
    shown = TABLES["peers"](made).rows
    assert shown[0][:3] == ["peers", "ours", "cold"]
    assert shown[0][7] == "cached_p50_ms 2.5"
    assert list(shown[1][1:]) == ["Ray Serve", "warm", 100, 8, "short", "failed", "", "no | room"]
    summary = TABLES["servers"](made).rows
    assert [row[0] for row in summary] == ["ours", "Ray Serve"]
    assert (summary[0][2], summary[0][3], summary[1][2]) == (2.5, None, None)
    assert {mark.name: mark.aim for mark in marks(made)}["mms_cold_cached"] == "≥ 1000"
    assert "macrofleet bench peers" in csv_text(*_columns_and_rows("runs", made))


def _columns_and_rows(name: str, made: Any) -> tuple[Any, Any]:
    found = TABLES[name](made)
    return found.columns, found.rows


def test_files_are_written_once_and_stale_ones_found(results: Path, tmp_path: Path) -> None:
    docs, folder = tmp_path, tmp_path / "benchmarks"
    document = docs / "benchmarks.md"
    for name, text in EMPTY.items():
        (docs / name).write_text(text, encoding="utf-8")

    def run(*more: str) -> int:
        return main(["--results", str(results), "--docs", str(docs), *more])

    assert run("--check") == 1
    assert run() == 0
    assert run("--check") == 0
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {"latency.png", "cost.png", "figures.csv"} <= set(written)
    assert run() == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written

    stored(results, warm={**WARM, "hdr": encoded(np.array([0.7]))})
    written_now = {name: (docs / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    report = build_report(read_results(results), written_now)
    assert {path.name for path in stale_files(report, docs)} == {"latency.csv", "latency.png"}
    assert run("--check") == 1
    (folder / "old.csv").write_text("x", encoding="utf-8")
    changed = {path.name for path in write_report(report, docs)}
    assert changed == {"latency.csv", "latency.png", "old.csv"}
    assert not stale_files(report, docs)
    document.write_text(document.read_text(encoding="utf-8").replace("7.25", "4.25"), encoding="utf-8")
    assert run("--check") == 1


def test_a_plot_knows_its_numbers_and_a_damaged_one_does_not(results: Path, tmp_path: Path) -> None:
    report = build_report(read_results(results), EMPTY)
    write_report(report, tmp_path)
    plot = tmp_path / "benchmarks" / "cost.png"
    assert plotted_digest(plot) == digest_of(report.numbers["cost.csv"])
    plot.write_bytes(plot.read_bytes().replace(b"Numbers", b"numbers"))
    assert plotted_digest(plot) is None
    plot.write_bytes(b"no png")
    assert plotted_digest(plot) is None


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("x.json", "[]", "no report of a bench"),
        ("x.json", "{", "cannot be read as a result"),
        ("x.json", '{"bench": "warm"}', "no report of a bench"),
        ("x.json", '{"cells": []}', "cannot be read as a result"),
        ("why.toml", "x = ", "is no TOML"),
        ("why.toml", "x = 1", "no sentence"),
        ("why.toml", "[warm]\nx = 1", "no sentence"),
    ],
)
def test_what_is_no_result_is_named(tmp_path: Path, file: str, text: str, told: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=told):
        read_results(tmp_path)


def test_a_document_has_every_part_once() -> None:
    with pytest.raises(InvalidInput, match=r"x\.md has the generated parts a, a, not a"):
        fill("x.md", 2 * "<!-- generated: a -->\n<!-- end of generated -->\n", {"a": "x\n"})
    with pytest.raises(InvalidInput, match="has the generated parts none"):
        fill("x.md", "nothing", {"a": "x\n"})


@given(st.lists(st.text(max_size=8), min_size=1, max_size=4))
def test_a_table_has_a_line_for_each_row_whatever_is_in_it(values: list[str]) -> None:
    columns = [f"c{place}" for place in range(len(values))]
    lines = table(columns, [values]).splitlines()
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == len(values) + 1


def test_numbers_are_for_people() -> None:
    assert [number(value) for value in (0.0, 0.12345, 12.345, 1234.5, -0.5)] == ["0", "0.123", "12.3", "1,234", "-0.5"]
    assert [cell(value) for value in (None, True, 1500, "a\nb")] == ["", "yes", "1,500", "a b"]


def test_a_result_that_cannot_be_measured_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RESULTS, "cost", ("cost --json --tenants 0", False))
    (tmp_path / "cost.json").write_text("old", encoding="utf-8")
    assert measure(["cost", "--results", str(tmp_path)]) == 1
    assert (tmp_path / "cost.json").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["cost.json"]


def test_the_report_in_the_repository_is_what_its_results_say() -> None:
    documents = {name: (ROOT / "docs" / name).read_text(encoding="utf-8") for name in DOCUMENTS}
    report = build_report(read_results(ROOT / "benchmarks/results"), documents)
    assert not stale_files(report, ROOT / "docs"), "make bench-report"
