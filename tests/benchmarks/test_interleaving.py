from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any, cast

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.calibrations import Calibration
from benchmarks.interleaving import Interleaved


class Pedantic:
    """What `Interleaved` asks of pytest-benchmark: so many rounds, and what is done before and after each."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}
        self.rounds = self.iterations = 0

    def pedantic(
        self,
        target: Callable[[], object],
        *,
        setup: Callable[[], object] | None,
        teardown: Callable[[], object],
        rounds: int,
        iterations: int,
    ) -> None:
        self.rounds, self.iterations = rounds, iterations
        for _ in range(rounds + (iterations > 1)):  # one more for the result, as the library does
            if setup:
                setup()
            for _ in range(iterations):
                target()
            teardown()


def measure(events: list[str], *, seconds: float = 0.2, core: int | None = None, **more: Any) -> Pedantic:
    """Measure work that says "work" beside a calibration that says so."""
    calibration = Calibration(lambda: events.append("calibration"), units=4)
    pedantic = Pedantic()
    compared = Interleaved(cast("BenchmarkFixture", pedantic), lambda _: calibration, seconds=seconds, core=core)
    compared(lambda: events.append("work"), beside="echo", **more)
    return pedantic


def kinds(events: list[str]) -> list[str]:
    """What happened, equal things in a row once."""
    return [event for place, event in enumerate(events) if place == 0 or events[place - 1] != event]


def test_every_round_lies_between_two_samples_of_the_calibration() -> None:
    events: list[str] = []
    info = measure(events, rounds=3, prepare=lambda: events.append("prepare")).extra_info
    assert kinds(events) == ["calibration", *["prepare", "work", "calibration"] * 3]
    assert events.count("work") == 3
    assert info["calibration"] == "echo"
    assert len(info["calibration_seconds"]) == 4


def test_rounds_of_quick_work_are_many_calls_and_as_many_as_there_is_time_for() -> None:
    short, long = measure([], seconds=0.3), measure([], seconds=1.2)
    assert short.iterations > 100
    assert short.rounds >= 20
    assert long.rounds > short.rounds
    assert len(long.extra_info["calibration_seconds"]) == long.rounds + 1


def test_a_calibration_counts_by_its_units() -> None:
    seconds = measure([], rounds=2).extra_info["calibration_seconds"]
    assert all(0 < second < 1e-5 for second in seconds)


def test_phases_are_asked_for_after_each_round() -> None:
    answers = iter([{"map": 0.1}, {"map": 0.2}, {"map": 0.3}])
    assert measure([], rounds=3, phases=lambda: next(answers)).extra_info["phases"] == {"map": [0.1, 0.2, 0.3]}


def test_it_is_measured_on_one_core_with_a_settled_heap() -> None:
    seen: list[tuple[set[int], int]] = []
    gc.unfreeze()
    before, core = os.sched_getaffinity(0), max(os.sched_getaffinity(0))
    measure([], rounds=1, core=core, prepare=lambda: seen.append((os.sched_getaffinity(0), gc.get_freeze_count())))
    assert seen[0][0] == {core}
    assert seen[0][1] > 1000
    assert os.sched_getaffinity(0) == before
    assert gc.get_freeze_count() == 0
    gc.freeze()
