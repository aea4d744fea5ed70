"""Runs of suites that nobody ran: pytest-benchmark's JSON, as far as `benchmarks.ratios` reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MACHINE = {"cpu": "a processor", "cores": 2, "python": "3.11.7", "tensorflow": "2.21.0", "numpy": "2.3.1"}
COLD = "benchmarks/test_http.py::test_cold_from_disk"
SCORE = "benchmarks/test_parts.py::test_score"
FEATURISE = "benchmarks/test_parts.py::test_featurise[8]"


def made_bench(
    name: str,
    seconds: Sequence[float] | float,
    *,
    beside: str = "echo",
    calibration: Sequence[float] | float = 1.0,
    phases: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """A bench's part of the JSON: one number stands for five equal rounds."""
    rounds = [seconds] * 5 if isinstance(seconds, float) else list(seconds)
    between = [calibration] * (len(rounds) + 1) if isinstance(calibration, float) else list(calibration)
    return {
        "fullname": name,
        "stats": {"data": rounds},
        "extra_info": {
            "calibration": beside,
            "calibration_seconds": between,
            "phases": {phase: [part] * len(rounds) for phase, part in (phases or {}).items()},
        },
    }


def made_run(
    *benches: Mapping[str, Any],
    skipped: Mapping[str, str] | None = None,
    machine: Mapping[str, Any] = MACHINE,
) -> dict[str, Any]:
    """The JSON of a run."""
    return {"benchmarks": list(benches), "skipped": dict(skipped or {}), "machine": dict(machine)}
