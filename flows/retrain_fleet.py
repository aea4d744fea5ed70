"""The flow `retrain_fleet`: every tenant of the lake, one task each, then one write of the fleet."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from flows.retraining import Outcome, Retraining, failure
from registry.names import check_tenant

# Told of (tenant, its place, how many, finished share); set by whoever shows progress in this process.
Listener = Callable[[str, int, int, float], None]
listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did, tenant by tenant.

    Attributes:
        generation: the fleet's after the run.
    """

    generation: int
    outcomes: tuple[Outcome, ...]

    def of(self, state: str) -> list[Outcome]:
        """The tenants that ended in `state`."""
        return [outcome for outcome in self.outcomes if outcome.state == state]

    def as_dict(self) -> dict[str, Any]:
        """For reports and as the flow's result."""
        return {"generation": self.generation, "tenants": [outcome.as_dict() for outcome in self.outcomes]}


@task(task_run_name="train {tenant}", cache_policy=NO_CACHE, persist_result=False)
def train_tenant(tenant: str, retraining: Retraining, progress: Callable[[float], None] | None) -> Outcome:
    """Assemble, fit, evaluate, publish, register: one tenant."""
    outcome = retraining.train(tenant, progress=progress)
    get_run_logger().info("tenant %s: version %s, top-1 %.3f", tenant, outcome.version, outcome.top1)
    return outcome


@flow(name="retrain_fleet", validate_parameters=False)
def retrain_fleet(tenants: list[str] | None = None) -> Summary:
    """Train, register and publish tenants, then serve what was made.

    A tenant that fails does not stop the others; the summary names it and why.

    Args:
        tenants: None for every tenant that has examples.

    Raises:
        MacrofleetError: what concerns the whole run: the store, MLflow, the program, a name that is no tenant's.
    """
    retraining = Retraining.from_environment()
    chosen = [check_tenant(tenant) for tenant in dict.fromkeys(tenants)] if tenants else retraining.lake.tenants()
    retraining.prepare()
    outcomes = [_train(retraining, tenant, place, len(chosen)) for place, tenant in enumerate(chosen)]
    generation = retraining.serve(outcomes)
    summary = Summary(generation=generation, outcomes=tuple(outcomes))
    create_markdown_artifact(markdown(summary), key="retrain-fleet", description="What became of each tenant")
    return summary


def _train(retraining: Retraining, tenant: str, place: int, total: int) -> Outcome:
    told = listener.get()

    def progress(share: float) -> None:
        if told is not None:
            told(tenant, place, total, share)

    progress(0.0)
    state = train_tenant(tenant, retraining, progress, return_state=True)
    result = state.result(raise_on_failure=False)
    progress(1.0)
    if isinstance(result, Outcome):
        return result
    problem = result if isinstance(result, Exception) else RuntimeError(str(result))
    get_run_logger().warning("tenant %s: %s", tenant, problem)
    return failure(tenant, problem)


def markdown(summary: Summary) -> str:
    """The summary as a table."""
    head = "| tenant | state | examples | macros | top-1 | top-3 | fit s | version | reason |"
    rule = "|---|---|--:|--:|--:|--:|--:|---|---|"
    rows = [
        f"| {o.tenant} | {o.state} | {o.examples} | {o.macros} | {o.top1:.3f} | {o.top3:.3f} | {o.fit_seconds:.1f} "
        f"| {o.version} | {o.reason.replace('|', ' ')} |"
        for o in summary.outcomes
    ]
    return "\n".join([head, rule, *rows])
