"""One run of the flow in a process of its own, in which tenants that are planted mean harm.

`python -m benchmarks.flow_run '{"tenants": null, "processes": 2}'` trains as `macrofleet train` does, and prints a JSON
object a line: `{"doing": …, "share": …}` while it runs, and `{"summary": …}` at its end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from flows import training_processes
from flows.pool import Told
from flows.training_processes import TenantDone, TenantJob, TrainTenant, open_trainer

HANGS, HUNGRY = "planted-hangs", "planted-hungry"
# Names the file that every process adds a line a tenant to: `{"tenant", "process", "peak_bytes"}`.
PEAKS_VARIABLE = "MACROFLEET_BENCH_PEAKS"
_MIB = 1024**2


def open_trapped(programs: Sequence[str]) -> TrainTenant:
    """What a process of this run trains with."""
    train = open_trainer(programs)
    peaks = Path(os.environ[PEAKS_VARIABLE])

    def trapped(job: TenantJob, told: Told) -> TenantDone:
        if job.tenant == HANGS:
            _hang()
        if job.tenant == HUNGRY:
            _eat()
        _forget_peak()
        done = train(job, told)
        line = json.dumps({"tenant": job.tenant, "process": os.getpid(), "peak_bytes": _peak()}) + "\n"
        with peaks.open("a") as file:  # appended by one write, as processes take turns
            file.write(line)
        return done

    return trapped


def _hang() -> NoReturn:
    while True:
        pass


def _eat() -> NoReturn:
    kept = []
    while True:
        kept.append(b"x" * _MIB)


def _forget_peak() -> None:
    """Have the kernel begin anew with the peak of this process's memory (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Run the flow."""
    wanted = json.loads(sys.argv[1])
    # Whatever libraries print goes where errors go, in every process.
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(**line: object) -> None:
        lines.write(json.dumps(line) + "\n")

    training_processes.open_trainer = open_trapped
    from flows.command import run_retrain_fleet

    def step(doing: str, share: float) -> None:
        say(doing=doing, share=share)

    say(summary=run_retrain_fleet(wanted["tenants"], step, processes=wanted["processes"]).as_dict())


if __name__ == "__main__":
    main()
