"""Runs of the comparison with other servers, at rest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.peers.results import Cell, PeerInfo, PeerRun, parse_run, read_run, runs_in, write_run
from registry.errors import InvalidInput

WARM = Cell(peer="mms", step="warm", tenants=10, clients=8, text="short", figures={"rps": 12.5, "p99_ms": None})
RUN = PeerRun(
    date="2026-11-28T10:00:00Z",
    command="macrofleet bench peers --json",
    machine={"cores": 2},
    settings={"seconds": 3.0},
    peers={"mms": PeerInfo(title="MMS", versions={"mms": "1.1.11"}, documentation=("https://example.org",))},
    cells=(WARM,),
    void=("one core",),
)

words = st.text(max_size=20)
cells = st.builds(
    Cell,
    peer=st.sampled_from(["macrofleet", "mms", "ray"]),
    step=st.sampled_from(["ready", "cold", "warm", "zipf"]),
    tenants=st.integers(1, 3),
    clients=st.none() | st.integers(1, 2),
    text=st.sampled_from([None, "short", "50 words"]),
    outcome=st.sampled_from(["measured", "failed", "skipped"]),
    error=st.none() | words,
    figures=st.dictionaries(words, st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)),
)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_run(tmp_path / "deep" / "run.json", RUN)
    assert read_run(tmp_path / "deep" / "run.json") == RUN
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run.json"]


@given(st.lists(cells, max_size=8))
def test_a_step_has_one_result_the_last(done: list[Cell]) -> None:
    run = dataclasses.replace(RUN, cells=())
    for cell in done:
        run = run.with_cell(cell)
    assert {cell.key: cell for cell in done} == {cell.key: cell for cell in run.cells}
    assert len(run.cells) == len({cell.key for cell in done})
    assert all(run.done(dataclasses.replace(cell, figures={}, error="")) is not None for cell in done)
    assert parse_run(json.loads(json.dumps(run.as_dict()))) == run


def test_a_figure_of_a_step_that_was_not_measured_is_none() -> None:
    named = {"peer": "mms", "step": "warm"}
    assert RUN.figure("rps", **named) == 12.5
    assert RUN.figure("p99_ms", **named) is None
    failed = dataclasses.replace(WARM, tenants=100, outcome="failed", figures={"rps": 1.0})
    assert RUN.with_cell(failed).figure("rps", **named, tenants=100) is None
    two = RUN.with_cell(dataclasses.replace(WARM, tenants=100))
    assert two.figure("rps", **named) is None, "which of them?"


def test_a_file_that_is_no_run(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_run(path)
    whole: dict[str, Any] = json.loads(json.dumps(RUN.as_dict()))
    data: Any
    for data in (
        [],
        {},
        {**whole, "format": 2},
        {**whole, "more": 1},
        {**whole, "cells": [{**whole["cells"][0], "outcome": "perhaps"}]},
        {**whole, "cells": [{**whole["cells"][0], "step": "guess"}]},
    ):
        path.write_text(json.dumps(data))
        with pytest.raises(InvalidInput, match="is no run"):
            read_run(path)


def test_the_earliest_run_comes_first(tmp_path: Path) -> None:
    later = dataclasses.replace(RUN, date="2026-11-29T10:00:00Z")
    for name, run in (("a", later), ("b", RUN)):
        write_run(tmp_path / name, run)
    assert runs_in([tmp_path / "a", tmp_path / "b"]) == [RUN, later]
