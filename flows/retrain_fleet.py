"""The flow `retrain_fleet`: every tenant of the lake, one task each, then one write of the fleet."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
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

# Told of (a tenant, how many are done, of how many, their finished share); set by whoever shows progress in this process.
Listener = Callable[[str, int, int, float], None]
listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
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
            told = _shown(book, len(plan.tenants)) if settings.shards else book.told
            fan = open_fan(store, book, settings, train_here(retraining, plan), told=told)
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


def _shown(book: RunBook, total: int) -> Told:
    """What is told of tenants that others train: the run's book, and whoever listens."""
    places = itertools.count(1)

    def told(outcome: Mapping[str, Any]) -> None:
        book.told(outcome)
        watching = listener.get()
        if watching is not None:
            done = next(places)
            watching(str(outcome["tenant"]), done, total, done / total)

    return told


def train_here(retraining: Retraining, plan: RunPlan) -> TrainHere:
    """What trains those of a plan's tenants that need it, in this process and those it starts."""
    wish = Wish(**plan.options)

    def train(tenants: Sequence[str], hand: Hand) -> None:
        looks = retraining.look(tenants, wish=wish)
        for look in looks.values():
            if look.outcome is not None:
                hand.end(look.outcome)
        left = [tenant for tenant in tenants if looks[tenant].outcome is None]
        programs = sorted({name for look in looks.values() for name in look.programs})
        train_all(retraining, left, wish, programs=programs, hand=hand)

    return train


def train_all(
    retraining: Retraining, tenants: Sequence[str], wish: Wish, *, programs: Sequence[str], hand: Hand
) -> None:
    """Train tenants, one task each, in as many processes as the settings say; one tenant alone in this one.

    Args:
        programs: what they are fitted for; none where nobody is to be trained.
        hand: is handed each outcome; whatever it raises ends the work.

    Raises:
        MacrofleetError: what concerns them all: the store, MLflow, the program.
    """
    settings = read_settings(FlowSettings)
    processes = min(settings.training_processes, len(tenants))
    tally = _Tally(len(tenants), hand)
    jobs = [TenantJob(tenant=tenant, options={"wish": wish}) for tenant in tenants]
    if len(tenants) <= 1 or not processes or not programs:
        if programs:
            retraining.prepare(programs)
        here = functools.partial(train_one, retraining)
        for job in jobs:
            train_tenant(job.tenant, _work(here, job, tally), return_state=True)
    else:
        threads: ThreadPoolTaskRunner[State[None]] = ThreadPoolTaskRunner(max_workers=processes)
        # The processes end before the threads, or whoever ends the run would wait for what they are at.
        fanned = fanned_out(retraining, settings, programs=programs, processes=processes)
        with threads, fanned as train:
            parameters = [{"tenant": job.tenant, "work": _work(train, job, tally)} for job in jobs]
            for future in [threads.submit(train_tenant, given) for given in parameters]:
                future.wait()
    for tenant in tally.missing(tenants):
        # Prefect itself failed before the work began, or the hand ended it, and does so again.
        hand.end(Outcome(tenant=tenant, state="failed", reason="Prefect did not run its task"))


def _work(train: TrainTenant, job: TenantJob, tally: _Tally) -> Callable[[], Outcome]:
    def work() -> Outcome:
        tally.begin(job.tenant)
        done = train(job, functools.partial(tally.told, job.tenant))
        if done.where:
            get_run_logger().error("tenant %s: %s", job.tenant, done.where)
        tally.ended(done.outcome)
        return done.outcome

    return work


class _Tally:
    """How far tenants are that are trained side by side, for whoever listens. May be used from any thread."""

    def __init__(self, total: int, hand: Hand) -> None:
        self._total, self._hand, self._listener, self._lock = total, hand, listener.get(), threading.Lock()
        self._shares: dict[str, float] = {}
        self._done: set[str] = set()

    def begin(self, tenant: str) -> None:
        """A tenant's turn begins. Raises what the hand raises."""
        self._hand.begin(tenant)
        self.told(tenant, 0.0)

    def told(self, tenant: str, share: float) -> None:
        """A tenant is so far."""
        with self._lock:
            self._shares[tenant] = share
            self._tell(tenant)

    def ended(self, outcome: Outcome) -> None:
        """A tenant is done. Raises what the hand raises."""
        with self._lock:
            self._shares.pop(outcome.tenant, None)
            self._done.add(outcome.tenant)
            self._tell(outcome.tenant)
        self._hand.end(outcome)

    def missing(self, tenants: Sequence[str]) -> list[str]:
        """Those that never came to an end."""
        return [tenant for tenant in tenants if tenant not in self._done]

    def _tell(self, tenant: str) -> None:
        if self._listener is not None:
            done = len(self._done)
            self._listener(tenant, done, self._total, (done + sum(self._shares.values())) / self._total)
