"""Training tenants in this process, or fanned out over processes of this machine; no Prefect in here."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from flows.pool import Limits, Pool, Told, Work
from registry.errors import MacrofleetError, TrainingStopped

if TYPE_CHECKING:
    from flows.outcome import Outcome
    from flows.retraining import Retraining
    from flows.settings import FlowSettings

# Libraries that read these when they are imported: processes that train side by side must not fight for cores.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")

# By its name: to import it from the library would start its threads before a process has said how many.
_PANIC = "PanicException"


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantJob:
    """One tenant to train; `options` as `Retraining.train` takes them."""

    tenant: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDone:
    """What became of it.

    Attributes:
        where: for the log, where an exception that is not ours was raised, without what it said: that may quote a ticket.
    """

    outcome: Outcome
    where: str = ""


TrainTenant: TypeAlias = Work[TenantJob, TenantDone]


def train_one(retraining: Retraining, job: TenantJob, told: Told) -> TenantDone:
    """Train one tenant with what this process holds; never raises what is one tenant's trouble."""
    from flows.outcome import failure

    try:
        return TenantDone(outcome=retraining.train(job.tenant, progress=told, **job.options))
    except MacrofleetError as problem:
        return TenantDone(outcome=failure(job.tenant, problem))
    except BaseException as problem:  # whatever it is, it is one tenant's
        # A library in Rust panics with something that is no Exception; in this process, too, that is one tenant's.
        if not isinstance(problem, Exception) and type(problem).__name__ != _PANIC:
            raise
        where = "".join(traceback.format_tb(problem.__traceback__))
        return TenantDone(outcome=failure(job.tenant, problem), where=f"{type(problem).__name__} at\n{where}")


def open_trainer(programs: Sequence[str]) -> TrainTenant:
    """What a process of the pool works with, by its environment. Raises what `Retraining.prepare` raises."""
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    from flows.retraining import Retraining

    retraining = Retraining.from_environment()
    retraining.prepare(programs)
    return functools.partial(train_one, retraining)


@contextmanager
def fanned_out(
    retraining: Retraining,
    settings: FlowSettings,
    *,
    programs: Sequence[str],
    processes: int,
) -> Iterator[TrainTenant]:
    """What trains tenants in so many processes, called by as many threads.

    Args:
        retraining: this process's; it sees to what the others need and must not make at the same time.
        programs: what the tenants are fitted for.

    Raises:
        MacrofleetError: what the processes need cannot be had: the store, MLflow, a program.
    """
    from flows.outcome import failure

    retraining.prepare_for_others(programs)
    limits = Limits(seconds=settings.training_seconds, memory_bytes=settings.training_memory_bytes)
    with Pool(functools.partial(open_trainer, programs), processes=processes, limits=limits) as pool:

        def train(job: TenantJob, told: Told) -> TenantDone:
            try:
                return pool.run(job, told)
            except TrainingStopped as problem:
                return TenantDone(outcome=failure(job.tenant, problem))

        yield train
