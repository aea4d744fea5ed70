"""A run's figures: what each bench took, as a multiple of its calibration. Arithmetic over pytest-benchmark's JSON.

Of a bench's rounds, and of its calibration's samples between them, the first decile is taken: whatever else a machine
does only adds to what a round takes, so that the quick rounds are those that say what our code does, and the slow ones
what the machine did. Medians look like a regression twice as often by chance (`docs/benchmarks-in-ci.md`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from registry.errors import InvalidInput

_NAME = re.compile(r"test_(\w+)(?:\[(.+)\])?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one run says of one bench.

    Attributes:
        calibration: what it was measured beside.
        ratio: to the calibration.
        phases: parts of the ratio, by name, where the bench has them: each part's time by the calibration's.
        microseconds: the median of a call, for people.
        unrest: how busy the machine was: the median of the calibration by its first decile.
    """

    calibration: str
    ratio: float
    phases: Mapping[str, float] = field(default_factory=dict)
    microseconds: float = 0.0
    unrest: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the suites.

    Attributes:
        figures: by the bench's name, `benchmarks/test_parts.py::test_score` say.
        skipped: why, by the bench's name.
        machine: what it was measured on.
    """

    figures: Mapping[str, Figure]
    skipped: Mapping[str, str]
    machine: Mapping[str, Any]


def read_run(document: Mapping[str, Any]) -> Run:
    """The figures in pytest-benchmark's JSON.

    Raises:
        InvalidInput: it is not of these suites: a bench without a calibration, say.
    """
    try:
        return Run(
            figures={bench["fullname"]: _figure(bench) for bench in document["benchmarks"]},
            skipped=document["skipped"],
            machine=document["machine"],
        )
    except (LookupError, TypeError, ValueError, ArithmeticError) as problem:
        raise InvalidInput(
            f"this is not a run of the suites in benchmarks/: {type(problem).__name__}: {problem}",
            remedy="A bench measures through the fixture `compared`, which records its calibration.",
        ) from None


def _figure(bench: Mapping[str, Any]) -> Figure:
    info, seconds = bench["extra_info"], bench["stats"]["data"]
    between = info["calibration_seconds"]
    unit = first_decile(between)
    return Figure(
        calibration=info["calibration"],
        ratio=first_decile(seconds) / unit,
        phases={name: first_decile(part) / unit for name, part in info["phases"].items()},
        microseconds=1e6 * median(seconds),
        unrest=median(between) / unit,
    )


def first_decile(seconds: Sequence[float]) -> float:
    """What a tenth of the rounds took at most; between the two nearest of them. Raises ValueError for fewer than two."""
    return quantiles(seconds, n=10, method="inclusive")[0]


def title(bench: str) -> str:
    """A bench's name for people: `cold from disk`, `featurise 8`."""
    found = _NAME.search(bench)
    if found is None:
        return bench
    return " ".join(part for part in (found[1].replace("_", " "), found[2]) if part)
