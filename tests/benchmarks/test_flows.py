"""What `macrofleet bench flows` makes of what it saw, and what a run of it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import flow_world
from benchmarks.flow_world import FlowWorld
from benchmarks.flows import fifths, memory_drift, states
from registry.settings import StoreSettings


def test_memory_is_compared_between_the_second_and_the_last_fifth() -> None:
    peaks = [900] * 100 + [500, *[400] * 99] + [9000] * 200 + [*[400] * 99, 510]
    assert memory_drift(peaks) == 0.02
    assert [len(part) for part in fifths(peaks)] == [100] * 5
    assert memory_drift([1, 2, 3, 4]) is None, "too few to say"


def test_every_value_is_in_one_part() -> None:
    assert [list(part) for part in fifths(range(7))] == [[0], [1], [2, 3], [4], [5, 6]]


def test_states_are_counted() -> None:
    outcomes = {"a": {"state": "trained"}, "b": {"state": "failed"}, "c": {"state": "trained"}}
    assert states(outcomes) == {"failed": 1, "trained": 2}


@pytest.fixture
def world(tmp_path: Path) -> FlowWorld:
    return FlowWorld(tmp_path / "run", StoreSettings(url=str(tmp_path / "store")), disk=tmp_path / "disk", prefect={})


def runs_as(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Have this program run in the flow's place."""
    monkeypatch.setattr(flow_world, "FLOW_RUN", [sys.executable, "-c", f"import json, signal\n{program}"])


SAYS = "def say(**line): print(json.dumps(line), flush=True)\n"


def test_a_run_tells_how_far_it_is_and_what_became_of_each(world: FlowWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    program = SAYS + (
        "say(doing='starting', share=0.0)\n"
        "say(doing='training', share=0.5)\n"
        "say(summary={'tenants': [{'tenant': 'a', 'state': 'trained'}, {'tenant': 'b', 'state': 'failed'}]})"
    )
    runs_as(monkeypatch, program)
    told: list[tuple[str, float]] = []
    report = world.run(processes=2, saying=lambda *event: told.append(event))
    assert told == [("starting", 0.0), ("training", 0.5)]
    assert (report.of("failed"), report.of("trained", "unchanged"), report.killed) == (["b"], ["a"], False)
    assert 0 < report.training_seconds < report.seconds


def test_a_run_is_killed_after_the_first_sign_of_fitting(world: FlowWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_as(monkeypatch, SAYS + "say(doing='training', share=0.1)\nsignal.pause()")
    report = world.run(processes=2, kill_after=0.0)
    assert (report.killed, report.outcomes) == (True, {})


def test_a_run_that_was_quicker_than_its_kill_was_not_killed(world: FlowWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_as(monkeypatch, SAYS + "say(doing='training', share=0.1)\nsay(summary={'tenants': []})")
    assert not world.run(processes=2, kill_after=3600.0).killed


def test_a_run_that_ends_by_itself_without_a_summary_is_an_error(
    world: FlowWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs_as(monkeypatch, "raise SystemExit(3)")
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        world.run(processes=2)
