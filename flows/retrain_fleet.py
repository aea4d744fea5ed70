"""The flow `retrain_fleet`: every tenant of the lake, one task each, then one write of the fleet."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.need import Wish
from flows.retraining import Outcome, Retraining, failure
from registry.errors import MacrofleetError
from registry.names import check_tenant
from registry.tenant_settings import ProgramChoice

# Told of (tenant, its place, how many, finished share); set by whoever shows progress in this process.
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
        force: serve what was made, whatever the gate says.
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
        programs = sorted({name for look in looks.values() for name in look.programs})
        if programs:
            retraining.prepare(programs)
        left = [tenant for tenant in chosen if looks[tenant].outcome is None]
        done = {t: _train(retraining, t, place, len(left), options) for place, t in enumerate(left)}
        outcomes = [looks[tenant].outcome or done[tenant] for tenant in chosen]
    generation, served, warnings = retraining.serve(outcomes)
    summary = Summary(generation=generation, outcomes=tuple(served), warnings=tuple(warnings))
    create_markdown_artifact(markdown(summary), key="retrain-fleet", description="What became of each tenant")
    return summary


def _train(retraining: Retraining, tenant: str, place: int, total: int, options: dict[str, Any]) -> Outcome:
    told = listener.get()
    outcomes: list[Outcome] = []

    def progress(share: float) -> None:
        if told is not None:
            told(tenant, place, total, share)

    def work() -> Outcome:
        try:
            outcome = retraining.train(tenant, progress=progress, **options)
        except MacrofleetError as problem:
            outcome = failure(tenant, problem)
        except Exception as problem:  # noqa: BLE001  # whatever it is, it is one tenant's
            outcome = failure(tenant, problem)
            # Where, without what it said: a library's message may quote a ticket.
            where = "".join(traceback.format_tb(problem.__traceback__))
            get_run_logger().error("tenant %s: %s at\n%s", tenant, type(problem).__name__, where)
        outcomes.append(outcome)
        return outcome

    progress(0.0)
    train_tenant(tenant, work, return_state=True)
    progress(1.0)
    # Without an outcome Prefect itself failed before the work began.
    return outcomes[-1] if outcomes else Outcome(tenant=tenant, state="failed", reason="Prefect did not run its task")


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
