"""A bench's rounds with a calibration's in between, so that a machine which changes its speed changes both.

One before all and one after all would not do: on a shared machine the speed changes within a second, and a run takes a
minute. What is compared is made of these by `benchmarks.ratios`.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.calibrations import Calibration

# Long against the clock, short against the slices of time that a busy machine gives each of its processes: many rounds
# are then without an interruption.
_ROUND_SECONDS = 0.001
_MOST_CALLS = 1 << 16
_LEAST_ROUNDS, _MOST_ROUNDS = 20, 1000
_WARM_UP = 3

Phases = Callable[[], Mapping[str, float]]


class Interleaved:
    """Measures one bench; what the fixture `compared` gives.

    Args:
        benchmark: pytest-benchmark's.
        calibrations: makes one by its name.
        seconds: what a bench may take, its calibration included; some rounds are made whatever they take.
        core: the one to measure on; None leaves that to the kernel.
    """

    def __init__(
        self,
        benchmark: BenchmarkFixture,
        calibrations: Callable[[str], Calibration],
        *,
        seconds: float,
        core: int | None,
    ) -> None:
        self._benchmark = benchmark
        self._calibrations = calibrations
        self._seconds = seconds
        self._core = core

    def __call__(
        self,
        work: Callable[[], object],
        *,
        beside: str,
        least_calls: int = 1,
        rounds: int | None = None,
        prepare: Callable[[], object] | None = None,
        phases: Phases | None = None,
    ) -> None:
        """Measure `work`.

        Args:
            work: one call of it.
            beside: the calibration's name.
            least_calls: of a round, where what is done between rounds would show in the first ones.
            rounds: for work that can be done only so often, one call in each; otherwise a round lasts some milliseconds.
            prepare: called before each round, not measured; only beside `rounds`.
            phases: called after each round, not measured: the seconds that its parts took, by name, of a call.
        """
        calibration = self._calibrations(beside)
        between: list[float] = []
        parts: dict[str, list[float]] = {}

        def calibrate() -> None:
            began = time.perf_counter()
            for _ in range(per_sample):
                calibration.sample()
            between.append((time.perf_counter() - began) / (per_sample * calibration.units))

        def after_round() -> None:
            if phases is not None:
                for name, seconds in phases().items():
                    parts.setdefault(name, []).append(seconds)
            calibrate()

        with on_core(self._core), _settled():
            per_sample, sample_seconds = _calls_for_a_round(calibration.sample, least=1)
            calls = 1
            if rounds is None:
                calls, round_seconds = _calls_for_a_round(work, least=least_calls)
                affordable = int(self._seconds / (round_seconds + sample_seconds))
                rounds = min(max(affordable, _LEAST_ROUNDS), _MOST_ROUNDS)
            calibrate()
            self._benchmark.pedantic(  # type: ignore[no-untyped-call]
                work, iterations=calls, rounds=rounds, teardown=after_round, setup=prepare
            )
        self._benchmark.extra_info.update(
            calibration=beside,
            # Of calls that are not rounds (pytest-benchmark makes one more for the result) there is none.
            calibration_seconds=between[: rounds + 1],
            phases={name: seconds[:rounds] for name, seconds in parts.items()},
        )


def _calls_for_a_round(work: Callable[[], object], *, least: int) -> tuple[int, float]:
    """How many calls take a round's time, and what that is in seconds. Warms up, too."""
    for _ in range(_WARM_UP):
        work()
    calls = least
    while True:
        began = time.perf_counter()
        for _ in range(calls):
            work()
        seconds = time.perf_counter() - began
        if seconds >= _ROUND_SECONDS or calls >= _MOST_CALLS:
            return calls, seconds
        calls = min(_MOST_CALLS, max(calls * 2, int(calls * _ROUND_SECONDS / max(seconds, 1e-9))))


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """This thread on one core, for as long as the context lasts."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _settled() -> Iterator[None]:
    """What is there by now is not looked at by the garbage collector, as in a server that is ready."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
