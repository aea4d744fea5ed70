"""How every bench runs and reports: progress, a report that says when and how it was made, an exit code."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import typer

from registry.console_output import Step, print_report, progress


def run_bench(measure: Callable[[Step], dict[str, Any]], as_json: bool, check: bool) -> None:
    """Measure, print, and with `check` exit with 1 unless every figure is what it must be.

    What is printed can be kept as it is: the report has its command and when it began, in UTC.
    """
    began = datetime.now(UTC)
    with progress(quiet=False) as step:
        report = measure(step)
    report |= {"command": shlex.join(["macrofleet", *sys.argv[1:]]), "began": began.strftime("%Y-%m-%dT%H:%M:%SZ")}
    print_report(report, as_json)
    if check:
        from benchmarks.verdicts import all_passed

        if not all_passed(report):
            raise typer.Exit(1)
