"""The flow `retrain_fleet`: every tenant of the lake, one task each, then one write of the fleet."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.need import Wish
from flows.retraining import Outcome, Retraining
from flows.settings import FlowSettings
from flows.training_processes import TenantJob, TrainTenant, fanned_out, train_one
from registry.names import check_tenant
from registry.settings import read_settings
from registry.tenant_settings import ProgramChoice

# Told of (a tenant, how many are done, of how many, their finished share); set by whoever shows progress in this process.
Listener = Callable[[str, int, int, float], None]
listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
# Ends that are nobody's failure, by Prefect's name for them.
_NO_FAILURE = {
    "busy": "Busy",
    "not_eligible": "NotEligible",
    "not_promoted": "NotPromoted",
    "unchanged": "Unchanged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did, tenant by tenant.

    Attributes:
        generation: the fleet's after the run.
        warnings: what is left to do although tenants serve; a rerun does it.
    """

    generation: int
    outcomes: tuple[Outcome, ...]
    warnings: tuple[str, ...] = ()

    def of(self, state: str) -> list[Outcome]:
        """The tenants that ended in `state`."""
        return [outcome for outcome in self.outcomes if outcome.state == state]

    def as_dict(self) -> dict[str, Any]:
        """For reports and as the flow's result."""
        return {
            "generation": self.generation,
            "tenants": [outcome.as_dict() for outcome in self.outcomes],
            "warnings": list(self.warnings),
        }


@task(task_run_name="train {tenant}", cache_policy=NO_CACHE, persist_result=False)
def train_tenant(tenant: str, work: Callable[[], Outcome]) -> State[None]:  # noqa: ARG001  # names the run
    """Assemble, fit, evaluate, publish, register: one tenant. Its state in Prefect is what became of it."""
    outcome = work()
    if outcome.state == "trained":
        return Completed(message=f"version {outcome.version}")
    if outcome.state in _NO_FAILURE:
        return Completed(name=_NO_FAILURE[outcome.state], message=outcome.reason)
    return Failed(message=outcome.reason)


@flow(name="retrain_fleet", validate_parameters=False)
def retrain_fleet(
    tenants: list[str] | None = None,
    *,
    force: bool = False,
    retrain: bool = False,
    precision: float | None = None,
    program: ProgramChoice | None = None,
) -> Summary:
    """Train, register and publish tenants that need it, then serve what was made and passed the gate.

    A tenant that fails, or a model that is not promoted, does not stop the others; the summary names it and why.

    Args:
        tenants: None for every tenant that has examples.
        force: serve what was made, whatever the gate says, and without stages.
        retrain: train tenants where nothing changed, too.
        precision: how often one of the three macros shown shall be right; None for each tenant's own.
        program: what models are fitted for; None for each tenant's own.

    Raises:
        MacrofleetError: what concerns the whole run: the store, MLflow, the program, a name that is no tenant's.
    """
    retraining = Retraining.from_environment()
    chosen = [check_tenant(tenant) for tenant in dict.fromkeys(tenants)] if tenants else retraining.lake.tenants()
    outcomes: list[Outcome] = []
    if chosen:
        options = {"wish": Wish(force=force, retrain=retrain, precision=precision, program=program)}
        looks = retraining.look(chosen, **options)
        left = [tenant for tenant in chosen if looks[tenant].outcome is None]
        programs = {name for look in looks.values() for name in look.programs}
        done = dict(zip(left, train_all(retraining, left, options, programs=sorted(programs)), strict=True))
        outcomes = [looks[tenant].outcome or done[tenant] for tenant in chosen]
    generation, served, warnings = retraining.serve(outcomes, force=force)
    summary = Summary(generation=generation, outcomes=tuple(served), warnings=tuple(warnings))
    create_markdown_artifact(markdown(summary), key="retrain-fleet", description="What became of each tenant")
    return summary


def train_all(
    retraining: Retraining, tenants: Sequence[str], options: Mapping[str, Any], *, programs: Sequence[str]
) -> list[Outcome]:
    """Train tenants, one task each, in as many processes as the settings say; one tenant alone in this one.

    Args:
        options: as `Retraining.train` takes them.
        programs: what they are fitted for; none where nobody is to be trained.

    Raises:
        MacrofleetError: what concerns them all: the store, MLflow, the program.
    """
    settings = read_settings(FlowSettings)
    processes = min(settings.training_processes, len(tenants))
    tally = _Tally(len(tenants))
    jobs = [TenantJob(tenant=tenant, options=options) for tenant in tenants]
    if len(tenants) <= 1 or not processes or not programs:
        if programs:
            retraining.prepare(programs)
        here = functools.partial(train_one, retraining)
        for job in jobs:
            train_tenant(job.tenant, _work(here, job, tally), return_state=True)
    else:
        threads: ThreadPoolTaskRunner[State[None]] = ThreadPoolTaskRunner(max_workers=processes)
        # The processes end before the threads, or whoever ends the run would wait for what they are at.
        with threads, fanned_out(retraining, settings, programs=programs, processes=processes) as train:
            parameters = [{"tenant": job.tenant, "work": _work(train, job, tally)} for job in jobs]
            for future in [threads.submit(train_tenant, given) for given in parameters]:
                future.wait()
    return [tally.outcome_of(tenant) for tenant in tenants]


def _work(train: TrainTenant, job: TenantJob, tally: _Tally) -> Callable[[], Outcome]:
    def work() -> Outcome:
        tally.told(job.tenant, 0.0)
        done = train(job, functools.partial(tally.told, job.tenant))
        if done.where:
            get_run_logger().error("tenant %s: %s", job.tenant, done.where)
        tally.ended(done.outcome)
        return done.outcome

    return work


class _Tally:
    """How far tenants are that are trained side by side, for whoever listens. May be used from any thread."""

    def __init__(self, total: int) -> None:
        self._total, self._listener, self._lock = total, listener.get(), threading.Lock()
        self._shares: dict[str, float] = {}
        self._outcomes: dict[str, Outcome] = {}

    def told(self, tenant: str, share: float) -> None:
        """A tenant is so far."""
        with self._lock:
            self._shares[tenant] = share
            self._tell(tenant)

    def ended(self, outcome: Outcome) -> None:
        """A tenant is done."""
        with self._lock:
            self._shares.pop(outcome.tenant, None)
            self._outcomes[outcome.tenant] = outcome
            self._tell(outcome.tenant)

    def outcome_of(self, tenant: str) -> Outcome:
        """What became of a tenant; without an outcome Prefect itself failed before the work began."""
        missing = Outcome(tenant=tenant, state="failed", reason="Prefect did not run its task")
        return self._outcomes.get(tenant, missing)

    def _tell(self, tenant: str) -> None:
        if self._listener is not None:
            done = len(self._outcomes)
            self._listener(tenant, done, self._total, (done + sum(self._shares.values())) / self._total)


def markdown(summary: Summary) -> str:
    """The summary as a table."""
    head = "| tenant | state | examples | macros | top-1 | top-3 | fit s | version | reason |"
    rule = "|---|---|--:|--:|--:|--:|--:|---|---|"
    rows = [
        f"| {o.tenant} | {o.state} | {o.examples} | {o.macros} | {_fraction(o.top1)} | {_fraction(o.top3)} "
        f"| {o.fit_seconds:.1f} | {o.version} | {(o.reason or o.why).replace('|', ' ')} |"
        for o in summary.outcomes
    ]
    return "\n".join([head, rule, *rows, *(f"\n{warning}" for warning in summary.warnings)])


def _fraction(value: float | None) -> str:
    """A figure for a table."""
    return "-" if value is None else f"{value:.3f}"
