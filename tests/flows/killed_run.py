"""Runs of `retrain_fleet` that are killed after a chosen write: `python -m tests.flows.killed_run`.

Everything is real but the fitting and the time that passes while a dead run's lease is outwaited: the flow, the lease, the
store, MLflow, Prefect. What takes seconds is imported once; each run is a fork. Reads a JSON object a line:
`{"environment": …, "after": 7}` runs the flow and kills it (SIGKILL) when its 7th write has been done, `null` never does.
Answers with a line: `{"killed": true}`, or what the run did.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.utils import requirements_utils
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

import flows.retrain_fleet
from flows import retraining
from flows.judging import Judge
from flows.retraining import Retraining
from flows.trainers import Trainers
from registry.catalogue import Catalogue
from registry.fleet.state import FleetEntry
from registry.leases import Leases
from registry.model.bundle import Label, write_bundle
from registry.model.program import RELEASED_PROGRAMS
from registry.store.local import LocalStore
from tests.flows.forks import Forks
from tests.registry.lease_world import JumpingClock
from training.choosing import TenantTrainer
from training.evaluation import evaluate, judge
from training.examples import Example, fingerprint
from training.gate import Decision
from training.settings import TrainingSettings
from training.trainer import Trained

STORE_WRITES = ("put", "put_file", "delete", "purge")
TRACKING_WRITES = (
    "create_experiment",
    "create_run",
    "log_batch",
    "set_tag",
    "set_terminated",
    "update_run",
    "create_registered_model",
    "create_model_version",
    "set_registered_model_alias",
    "set_registered_model_tag",
    "set_model_version_tag",
)


class PerfectTrainer:
    """Fits nothing: a model's numbers come from the digest of its examples, and it is right about every row."""

    def weight(self, digest: str) -> int:
        """What a model's numbers are, by the digest of its examples."""
        return int(digest[:4], 16)

    def train(self, tenant: str, examples: Sequence[Example], folder: Path, **_: object) -> Trained:
        digest = fingerprint(examples)
        targets = [example.macro_id for example in examples]
        macros = sorted({target for target in targets if target})
        manifest = write_bundle(
            folder,
            tenant=tenant,
            program=RELEASED_PROGRAMS["bag"],
            tensors={"kernel": np.full((2, len(macros)), self.weight(digest), np.float32)},
            macros=[Label(id=macro, title=macro) for macro in macros],
            data_fingerprint=digest,
            settings={},
            metrics={},
            threshold=0.0,
        )
        scores = np.array([[macro == target for macro in macros] for target in targets], np.float32)
        judged = judge(scores, targets, macros, threshold=0.0)
        return Trained(
            manifest=manifest,
            evaluation=evaluate(judged),
            judged=judged,
            test=tuple(examples),
            fitted=tuple(examples),
            examples=len(examples),
            macros=len(macros),
            fit_seconds=0.0,
            program="bag",
            program_reason="",
        )


class NoTrainers(Trainers):
    """Have `PerfectTrainer` train everybody."""

    def of(self, settings: TrainingSettings) -> TenantTrainer:
        return PerfectTrainer()


class NoJudge(Judge):
    """Lets every model pass."""

    def judge(self, trained: Trained, catalogue: Catalogue | None, entry: FleetEntry | None) -> Decision:
        return Decision(reasons=())


class WithoutTensorFlow(Retraining):
    """Starts nothing that takes seconds."""

    def prepare(self, programs: Iterable[str] | None = None) -> None:
        self._tracking.prepare()


def counted(write: Callable[..., Any], seen: list[str], name: str, after: int | None) -> Callable[..., Any]:
    """The same write, after which the process is killed where it is the one."""

    @functools.wraps(write)
    def wrapped(*given: Any, **named: Any) -> Any:
        done = write(*given, **named)
        seen.append(f"{name} {given[1]}" if isinstance(given[1], str) and "/" in given[1] else name)
        if len(seen) == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return wrapped


def run(answer: int, environment: dict[str, str], after: int | None) -> None:
    """What a fork does."""
    os.environ.update(environment)
    seen: list[str] = []
    for name in STORE_WRITES:
        setattr(LocalStore, name, counted(getattr(LocalStore, name), seen, name, after))
    for name in TRACKING_WRITES:
        setattr(MlflowClient, name, counted(getattr(MlflowClient, name), seen, name, after))
    clock = JumpingClock()
    vars(retraining)["Leases"] = functools.partial(Leases, clock=clock, sleep=clock.sleep)
    vars(retraining).update(Trainers=NoTrainers, Judge=NoJudge)
    vars(flows.retrain_fleet)["Retraining"] = WithoutTensorFlow
    # A run's heartbeat is a thread that sleeps for a second when the run ends; nothing here listens to it.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        summary = flows.retrain_fleet.retrain_fleet().as_dict()
    report = {"tenants": {one["tenant"]: one["state"] for one in summary["tenants"]}, "writes": seen}
    os.write(answer, json.dumps({**report, "warnings": summary["warnings"]}).encode() + b"\n")


def main() -> None:
    """Run what is asked for until standard input ends."""
    answer = os.dup(1)
    os.dup2(2, 1)
    # Which package brings which module: MLflow finds it out, in half a second, once in each process that registers a model.
    requirements_utils._init_modules_to_packages_map()
    forks = Forks()
    for line in sys.stdin:
        asked = json.loads(line)
        status = forks.run(functools.partial(run, answer, asked["environment"], asked["after"]))
        if status:
            os.write(answer, json.dumps({"killed": os.WIFSIGNALED(status), "status": status}).encode() + b"\n")


if __name__ == "__main__":
    main()
