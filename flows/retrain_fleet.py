"""The flow `retrain_fleet`: every tenant of the lake, one task each, then one write of the fleet."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.fan import Hand, TrainHere, outcomes_of
from flows.fan_choice import open_fan, open_plan
from flows.need import Wish
from flows.outcome import Outcome
from flows.progress import RunProgress
from flows.retraining import Retraining
from flows.run_book import RunBook, run_book
from flows.runs import RunPlan, Told
from flows.settings import FlowSettings
from flows.shard_settings import ShardSettings
from flows.training_processes import TenantJob, TrainTenant, fanned_out, train_one
from registry.names import check_tenant
from registry.settings import StoreSettings, read_settings
from registry.store import open_store
from registry.tenant_settings import ProgramChoice

# Ends that are nobody's failure, by Prefect's name for them.
_NO_FAILURE = {
    "busy": "Busy",
    "fenced": "Fenced",
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
    shards: int | None = None,
) -> Summary:
    """Train, register and publish tenants that need it, then serve what was made and passed the gate.

    A tenant that fails, or a model that is not promoted, does not stop the others; the summary names it and why.

    Args:
        tenants: None for every tenant that has examples.
        force: serve what was made, whatever the gate says, and without stages.
        retrain: train tenants where nothing changed, too.
        precision: how often one of the three macros shown shall be right; None for each tenant's own.
        program: what models are fitted for; None for each tenant's own.
        shards: into how many parts, each a run of the deployment `retrain_shard`; 0 trains in this process; None is for
            MACROFLEET_SHARDS to say.

    Raises:
        MacrofleetError: what concerns the whole run: the store, MLflow, the program, a name that is no tenant's.
    """
    retraining = Retraining.from_environment()
    chosen = [check_tenant(tenant) for tenant in dict.fromkeys(tenants)] if tenants else retraining.lake.tenants()
    store = open_store(read_settings(StoreSettings))
    with run_book(store) as book, _closed_where_it_fails(retraining, book.run):
        outcomes: list[Outcome] = []
        if chosen:
            settings = read_settings(ShardSettings, **({} if shards is None else {"shards": shards}))
            wish = Wish(force=force, retrain=retrain, precision=precision, program=program, fleet_run=book.run)
            plan = open_plan(store, book, chosen, asdict(wish), settings)
            progress = RunProgress(len(plan.tenants))
            here = train_here(retraining, plan, progress=progress)
            fan = open_fan(store, book, settings, here, told=_telling(book, progress))
            outcomes = outcomes_of(plan.tenants, fan.train(plan.cut()))
        generation, served, warnings = retraining.serve(outcomes, force=force)
        warnings += retraining.close_fleet_run(book.run, served)
        summary = Summary(generation=generation, outcomes=tuple(served), warnings=tuple(warnings))
        book.finish(summary.outcomes, generation=generation, warnings=warnings)
        if tenants is None:
            book.tidy()
    return summary


@contextmanager
def _closed_where_it_fails(retraining: Retraining, run: str) -> Iterator[None]:
    """No run is left open in MLflow by an error; one that a rerun takes up again is opened again."""
    try:
        yield
    except Exception:
        with suppress(Exception):  # it is the error that counts
            retraining.close_fleet_run(run, [], failed=True)
        raise


def _telling(book: RunBook, progress: RunProgress) -> Told:
    """What is told of tenants, wherever they are trained: the run's book, and whoever listens."""

    def told(outcome: Mapping[str, Any]) -> None:
        book.told(outcome)
        progress.ended(outcome)

    return told


def train_here(retraining: Retraining, plan: RunPlan, *, progress: RunProgress | None = None) -> TrainHere:
    """What trains those of a plan's tenants that need it, in this process and those it starts.

    Args:
        progress: of the run, where this process conducts it.
    """
    share_told = (lambda _tenant, _share: None) if progress is None else progress.told
    wish = Wish(**plan.options)

    def train(tenants: Sequence[str], hand: Hand) -> None:
        looks = retraining.look(tenants, wish=wish)
        for look in looks.values():
            if look.outcome is not None:
                hand.end(look.outcome)
        left = [tenant for tenant in tenants if looks[tenant].outcome is None]
        programs = sorted({name for look in looks.values() for name in look.programs})
        train_all(retraining, left, wish, programs=programs, hand=hand, share_told=share_told)

    return train


def train_all(
    retraining: Retraining,
    tenants: Sequence[str],
    wish: Wish,
    *,
    programs: Sequence[str],
    hand: Hand,
    share_told: Callable[[str, float], None],
) -> None:
    """Train tenants, one task each, in as many processes as the settings say, each within their limits.

    Args:
        programs: what they are fitted for; none where nobody is to be trained.
        hand: is handed each outcome; whatever it raises ends the work.
        share_told: told how far a tenant is (0 to 1) that is being trained.

    Raises:
        MacrofleetError: what concerns them all: the store, MLflow, the program.
    """
    settings = read_settings(FlowSettings)
    processes = min(settings.training_processes, len(tenants))
    done: set[str] = set()

    def work(train: TrainTenant, job: TenantJob) -> Callable[[], Outcome]:
        def train_it() -> Outcome:
            hand.begin(job.tenant)
            share_told(job.tenant, 0.0)
            trained = train(job, functools.partial(share_told, job.tenant))
            if trained.where:
                get_run_logger().error("tenant %s: %s", job.tenant, trained.where)
            done.add(job.tenant)
            hand.end(trained.outcome)
            return trained.outcome

        return train_it

    jobs = [TenantJob(tenant=tenant, options={"wish": wish}) for tenant in tenants]
    # One that is left alone has processes and limits, too: night after night it may be the one that hangs.
    if not processes or not programs:
        if programs:
            retraining.prepare(programs)
        here = functools.partial(train_one, retraining)
        for job in jobs:
            train_tenant(job.tenant, work(here, job), return_state=True)
    else:
        threads: ThreadPoolTaskRunner[State[None]] = ThreadPoolTaskRunner(max_workers=processes)
        # The processes end before the threads, or whoever ends the run would wait for what they are at.
        fanned = fanned_out(retraining, settings, programs=programs, processes=processes)
        with threads, fanned as train:
            parameters = [{"tenant": job.tenant, "work": work(train, job)} for job in jobs]
            for future in [threads.submit(train_tenant, given) for given in parameters]:
                future.wait()
    for tenant in [tenant for tenant in tenants if tenant not in done]:
        # Prefect itself failed before the work began, or the hand ended it, and does so again.
        hand.end(Outcome(tenant=tenant, state="failed", reason="Prefect did not run its task"))
