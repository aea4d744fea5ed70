"""Run the suites and hold them to the baseline: `python -m benchmarks.regressions`, which is `make bench`.

Exit codes: 0; 1, a bench takes over a quarter more than in the baseline, or is missing; 2, the suites could not be run or
what was asked for makes no sense. `docs/benchmarks.md` says how the figures come about.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from benchmarks.baseline import (
    Baseline,
    Verdict,
    accept,
    chance_of_alarm,
    compare,
    differences,
    read_baseline,
    with_table,
)
from benchmarks.ratios import Run, read_run
from registry.errors import InvalidInput, MacrofleetError

BASELINE = Path(__file__).with_name("baseline.json")
_FOLDER = BASELINE.parent
PAGE = _FOLDER.parent / "docs" / "benchmarks-in-ci.md"
# One run may be slow by chance; a bench fails when the second and the third are, too.
_MORE_RUNS = 2
_ACCEPTED_RUNS = 8
_QUIET_LOAD = 1.0

Measure = Callable[[Sequence[str]], Run]


def main(arguments: Sequence[str] | None = None, *, measure: Measure | None = None) -> int:
    """Run, compare or accept; the exit code.

    Args:
        measure: makes a run of some benches by name, or of all; pytest in a process of its own unless something else is
            given.
    """
    options = _parser().parse_args(arguments)
    work = _accept if options.accept else _compare
    try:
        return work(options, measure or partial(_measure, options))
    except MacrofleetError as problem:
        _say(str(problem))
        return 2
    except KeyboardInterrupt:
        _say("interrupted; the baseline is as it was")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.regressions",
        description="Run the pytest-benchmark suites and compare them with benchmarks/baseline.json.",
        epilog="Example: python -m benchmarks.regressions --only featurise --seconds 5",
    )
    parser.add_argument("--accept", action="store_true", help="take a new baseline instead, on a quiet machine")
    parser.add_argument("--only", metavar="EXPRESSION", help="benches by name, as pytest's -k")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each bench, calibration included (default: 1)")
    parser.add_argument("--runs", type=int, default=_ACCEPTED_RUNS, help="that a baseline is taken from (default: 8)")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="keep pytest-benchmark's JSON of every run there")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="the file (default: benchmarks/baseline.json)")
    parser.add_argument(
        "--run", type=Path, action="append", help="pytest-benchmark's JSON of a run made before, instead"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="gets its table (default: docs/benchmarks-in-ci.md)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _compare(options: argparse.Namespace, measure: Measure) -> int:
    if not options.baseline.exists():
        raise InvalidInput(f"there is no {options.baseline}", remedy="Take one on a quiet machine: make bench-accept.")
    baseline = read_baseline(options.baseline.read_bytes())
    runs = [_read(path) for path in options.run or ()] or [measure([])]
    verdicts = compare(baseline, runs, only=options.only is not None)
    if not options.run:
        for _ in range(_MORE_RUNS):
            grown = [verdict for verdict in verdicts if verdict.kind == "grown"]
            if not grown:
                break
            _say("again, by themselves:", *(verdict.message for verdict in grown))
            runs.append(measure([verdict.bench for verdict in grown]))
            verdicts = compare(baseline, runs, only=options.only is not None)
    failed = any(verdict.fails for verdict in verdicts)
    if options.json:
        print(json.dumps(_report(baseline, runs[0], verdicts), indent=1, sort_keys=True))  # noqa: T201
    else:
        _show(baseline, runs[0], verdicts)
    return int(failed)


def _accept(options: argparse.Namespace, measure: Measure) -> int:
    before = _before(options)
    runs = [_read(path) for path in options.run or ()]
    if not runs:
        if (load := os.getloadavg()[0]) > _QUIET_LOAD:
            _say(f"the load average is {load:.1f}: a baseline wants a quiet machine")
        for number in range(options.runs):
            _say(f"run {number + 1} of {options.runs}")
            runs.append(measure([]))
    baseline = accept(runs, before, taken=datetime.now(UTC).date(), only=options.only is not None)
    page = with_table(options.page.read_text(), baseline) if options.page.exists() else None
    _write(options.baseline, baseline.to_text())
    if page is not None:
        _write(options.page, page)
    print(baseline.to_table(), chance_of_alarm(runs), sep="\n\n")  # noqa: T201
    return 0


def _before(options: argparse.Namespace) -> Baseline | None:
    """The baseline until now; one that cannot be read does not keep anybody from taking all of it anew."""
    if not options.baseline.exists():
        return None
    try:
        return read_baseline(options.baseline.read_bytes())
    except InvalidInput:
        if options.only:
            raise
        return None


def _write(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def _measure(options: argparse.Namespace, benches: Sequence[str]) -> Run:
    """One run in a process of its own: all benches, or some.

    Raises:
        InvalidInput: a bench broke, or there is none to run.
    """
    with tempfile.TemporaryDirectory(prefix="macrofleet-bench-") as folder:
        found = Path(folder) / "run.json"
        command = [
            *(sys.executable, "-m", "pytest", *(benches or [_FOLDER.name]), "--benchmark-only"),
            *("--override-ini", "filterwarnings=default", "-p", "no:cacheprovider"),
            *(f"--bench-seconds={options.seconds}", f"--benchmark-json={found}", "--benchmark-columns=min,median,max"),
            *(("-k", options.only) if options.only and not benches else ()),
        ]
        process = subprocess.Popen(command, cwd=_FOLDER.parent, stdout=sys.stderr)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.wait()  # Ctrl-C is pytest's, too, and it has servers to stop
            raise
        if code or not found.exists():
            raise InvalidInput(f"the suites ended with exit code {code}", remedy="What pytest says above is why.")
        run = _read(found)
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, options.keep / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
        return run


def _read(path: Path) -> Run:
    try:
        return read_run(json.loads(path.read_bytes()))
    except (OSError, ValueError) as problem:
        raise InvalidInput(f"{path} cannot be read: {problem}") from None


def _show(baseline: Baseline, run: Run, verdicts: Sequence[Verdict]) -> None:
    for verdict in verdicts:
        mark = "FAIL" if verdict.fails else "ok" if verdict.kind == "as before" else verdict.kind
        print(f"{mark:>8}  {verdict.message}")  # noqa: T201
    failed = sum(verdict.fails for verdict in verdicts)
    print(f"{len(verdicts)} benches beside the baseline, {failed} failed")  # noqa: T201
    if any(verdict.kind == "quicker" for verdict in verdicts):
        print("What became quicker is held only once the baseline says so: make bench-accept")  # noqa: T201
    if other := differences(baseline.machine, run.machine):
        print(f"The baseline is of another machine ({'; '.join(other)}), which moves ratios, too")  # noqa: T201


def _report(baseline: Baseline, run: Run, verdicts: Sequence[Verdict]) -> dict[str, object]:
    return {
        "baseline_machine": baseline.machine,
        "machine": dict(run.machine),
        "benches": [
            {
                "bench": verdict.bench,
                "kind": verdict.kind,
                "fails": verdict.fails,
                "growth": verdict.growth,
                "message": verdict.message,
            }
            for verdict in verdicts
        ],
        "failed": sum(verdict.fails for verdict in verdicts),
    }


def _say(*lines: str) -> None:
    print(*lines, sep="\n", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
