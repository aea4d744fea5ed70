"""How every bench runs and reports: progress, a report that says when and how it was made, an exit code."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import typer

from registry.console_output import Step, print_report, progress


def run_bench(measure: Callable[[Step], dict[str, Any]], as_json: bool, check: bool) -> None:
    """Measure, print, and with `check` exit with 1 unless every figure is what it must be.

    What is printed can be kept as it is: the report has its command, when it began (UTC), and how busy the machine was
    before it did.
    """
    began, busy = datetime.now(UTC), os.getloadavg()[0]
    with progress(quiet=False) as step:
        report = measure(step)
    report = {**with_origin(report, began), "load_average_before": round(busy, 2)}
    print_report(report, as_json)
    if check:
        from benchmarks.verdicts import all_passed

        if not all_passed(report):
            raise typer.Exit(1)


def with_origin(report: dict[str, Any], began: datetime | None = None) -> dict[str, Any]:
    """A report with the command that made it, and when that began; now, unless it is given."""
    command = shlex.join(["macrofleet", *sys.argv[1:]])
    moment = began or datetime.now(UTC)
    return {**report, "command": command, "began": moment.strftime("%Y-%m-%dT%H:%M:%SZ")}
