from __future__ import annotations

import pytest

from benchmarks.client import parse_metrics
from benchmarks.phases import parts_of_a_swap, parts_of_answers, phase_seconds
from serving.metrics import Metrics


def metrics_of(**phases: float) -> dict[str, float]:
    """What a server that spent so much in its phases says of itself."""
    metrics = Metrics("0")
    for name, seconds in phases.items():
        metrics.phase(name, seconds)
    return parse_metrics(metrics.exposition()[0].decode())


def test_phases_are_those_between_two_readings_of_a_servers_metrics() -> None:
    before = metrics_of(queue=0.5, score=1.0)
    after = metrics_of(queue=0.75, score=1.0, map=0.25, load_wait=0.5)
    found = phase_seconds(before, after)
    assert found == {"queue": 0.25, "featurise": 0.0, "score": 0.0, "load_wait": 0.5, "download": 0.0, "map": 0.25}


def test_the_parts_of_an_answer_are_its_whole_time() -> None:
    phases = {"queue": 1.0, "featurise": 2.0, "score": 1.0, "load_wait": 8.0, "download": 4.0, "map": 1.0}
    parts = parts_of_answers(phases, seconds=20.0, answers=2)
    assert parts == {
        "queue": 0.5,
        "featurise": 1.0,
        "score": 0.5,
        "download": 2.0,
        "map": 0.5,
        "load wait": 1.5,
        "outside phases": 4.0,
    }
    assert sum(parts.values()) == pytest.approx(10.0)


def test_a_load_that_no_request_waited_for_is_a_part_all_the_same() -> None:
    phases = {"queue": 0.0, "featurise": 1.0, "score": 0.0, "load_wait": 0.0, "download": 4.0, "map": 1.0}
    parts = parts_of_answers(phases, seconds=10.0, answers=1)
    assert (parts["load wait"], parts["outside phases"]) == (0.0, 4.0)


def test_requests_during_a_swap_are_no_parts_of_it() -> None:
    phases = {"queue": 1.0, "featurise": 9.0, "score": 1.0, "load_wait": 0.0, "download": 4.0, "map": 1.0}
    assert parts_of_a_swap(phases, seconds=7.0) == {"download": 4.0, "map": 1.0, "outside phases": 2.0}
