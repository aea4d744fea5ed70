"""What the console tells Prometheus: how trainings go, over all tenants. Servers know nothing of training.

It is made of what the console has in memory anyway, and of the records of the last runs, which are read from the store at
most twice a minute. So nothing has to be pushed anywhere by a run that may be killed at any time: the records it leaves are
what counts, here as in `macrofleet flows status`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from fastapi import APIRouter, Request
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.responses import Response

from flows.console.fleet_index import FleetRows
from flows.console.guard import METRICS
from flows.console.rows import TenantRow
from flows.console.world import World
from flows.runs import UNDONE
from flows.status import RunStatus, recent_runs
from registry.errors import MacrofleetError
from registry.regions.marks import CopyMark, read_mark

# The closed sets that labels come from; whatever else is there is OTHER.
OTHER: Final = "other"
FLOWS: Final = ("retrain_fleet", "retrain_tenant", "verify_fleet", "collect_garbage", "import_tickets")
TRAININGS: Final = ("trained", "not_promoted", "not_eligible", "failed", "never")
OUTCOMES: Final = (
    *(
        "trained",
        "unchanged",
        "not_promoted",
        "not_eligible",
        "failed",
        "busy",
        "held",
        "waiting",
        "shadowed",
        "halted",
    ),
    *("fenced", "unknown"),
)
ATTENTION: Final = ("failed", "not_promoted", "halted", "candidate")
QUANTILES: Final = (0.1, 0.5, 0.9)
_FLEET_RUN = "retrain_fleet"
_RUNS = 30
_KEPT_SECONDS = 30.0
_UNDER_WAY = ("running", "silent")
_LOG = logging.getLogger(__name__)


Figure = TypeVar("Figure")


class Kept(Generic[Figure]):
    """Something of the store, read again at most every half minute. May be asked from any thread.

    Attributes:
        problem: whether it could not be read last.
    """

    def __init__(
        self, read: Callable[[], Figure], first: Figure, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._known = first
        self._next = -1.0
        self.problem = False

    def get(self) -> Figure:
        """What it is; what was read last where the store does not answer."""
        with self._lock:
            if self._clock() >= self._next:
                try:
                    self._known, self.problem = self._read(), False
                except MacrofleetError as error:
                    _LOG.warning("the console cannot read what it tells Prometheus: %s", error)
                    self.problem = True
                self._next = self._clock() + _KEPT_SECONDS
            return self._known


def metrics_router(world: World) -> APIRouter:
    """`/metrics`."""
    router = APIRouter()
    runs: Kept[Sequence[RunStatus]] = Kept(lambda: recent_runs(world.store, last=_RUNS), ())
    copy = Kept(lambda: None if world.copy is None else read_mark(world.copy), None)

    @router.get(METRICS)
    def read_metrics(request: Request) -> Response:
        last, mark = runs.get(), copy.get()
        found = collect(world.index.rows, last, problem=runs.problem, watched=world.metrics_tenants, copied=mark)
        registry = CollectorRegistry()
        registry.register(_Made(found))
        try:
            encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        except (TypeError, ValueError):  # the library trips over a version that is none
            encode, content_type = choose_encoder("")
        return Response(encode(registry), headers={"Content-Type": content_type})

    return router


class _Made(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)

    def describe(self) -> Iterable[Metric]:
        return ()


def collect(
    known: FleetRows,
    runs: Sequence[RunStatus],
    *,
    problem: bool = False,
    watched: Iterable[str] = (),
    copied: CopyMark | None = None,
    now: datetime | None = None,
) -> Iterator[Metric]:
    """All metrics.

    Args:
        known: of the fleet and its trainings. Until it was read there are no figures of it, which is not the same as zeros.
        runs: the last ones, the latest first.
        problem: whether the runs may be old because the store does not answer.
        watched: the tenants to name.
        copied: what the copy in another region says of itself, where there is one.
        now: for the tests.
    """
    stale = known.problem or problem
    yield _gauge("macrofleet_console_current", "Whether the store could be read", {(): 0.0 if stale else 1.0})
    ended = {flow: run for flow in FLOWS if (run := _last_ended(runs, flow)) is not None}
    if known.generation is not None:
        yield _gauge("macrofleet_console_fleet_generation", "Of the fleet in the store", {(): known.generation})
        yield from _tenants(known, ended.get(_FLEET_RUN))
    when = now or datetime.now(UTC)
    yield from _runs(runs, ended, when)
    age = {(): max(when.timestamp() - copied.finished_at, 0.0)} if copied else {}
    yield _gauge("macrofleet_copy_age_seconds", "Since the copy in another region was last brought up to date", age)
    generation = {(): copied.generation} if copied else {}
    yield _gauge("macrofleet_copy_generation", "Of the fleet that it has", generation)
    names = set(watched)
    yield from _named([row for row in known.rows if row.tenant in names])


def _tenants(known: FleetRows, last: RunStatus | None) -> Iterator[Metric]:
    rows = known.rows
    serving = sum(row.version is not None for row in rows)
    states = {("serving",): serving, ("without_model",): len(rows) - serving}
    yield _gauge("macrofleet_tenants", "Tenants by whether a model serves them", states, "state")
    if not known.records_read:
        return
    trainings = Counter(_known(row.trained or "never", TRAININGS) for row in rows)
    about = "Tenants by what their last training came to"
    yield _gauge("macrofleet_tenants_trained", about, _all(trainings, (*TRAININGS, OTHER)), "outcome")
    yield _gauge(
        "macrofleet_tenants_attention",
        "Tenants that somebody should look at, by why",
        _all(Counter(filter(None, map(_attention, rows))), ATTENTION),
        "reason",
    )
    undone = {one["tenant"] for one in last.left} if last else set()
    waiting = sum(row.version is not None and (row.trained == "failed" or row.tenant in undone) for row in rows)
    yield _gauge("macrofleet_tenants_stale", "Tenants served an old model because training failed", {(): waiting})
    top3 = sorted(row.top3 for row in rows if row.top3 is not None)
    yield _gauge(
        "macrofleet_tenants_top3",
        "Share of held-out tickets with the right macro among three: quantiles over tenants",
        {(str(q),): top3[round(q * (len(top3) - 1))] for q in QUANTILES} if top3 else {},
        "quantile",
    )


def _attention(row: TenantRow) -> str:
    if row.trained in ("failed", "not_promoted"):
        return row.trained
    if row.stage == "halted":
        return "halted"
    return "candidate" if row.candidate else ""


def _runs(runs: Sequence[RunStatus], ended: dict[str, RunStatus], now: datetime) -> Iterator[Metric]:
    age = {(flow,): max((now - _end(run)).total_seconds(), 0.0) for flow, run in ended.items()}
    yield _gauge("macrofleet_run_age_seconds", "Since the last run of a flow that ended", age, "flow")
    took = {(flow,): run.seconds or 0.0 for flow, run in ended.items()}
    yield _gauge("macrofleet_run_seconds", "How long that one took", took, "flow")
    failed = {(flow,): float(run.state != "completed") for flow, run in ended.items()}
    yield _gauge("macrofleet_run_failed", "Whether that one failed", failed, "flow")
    left = {(flow,): sum(run.counts.get(state, 0) for state in UNDONE) for flow, run in ended.items()}
    yield _gauge("macrofleet_run_left", "Tenants that it left for a rerun", left, "flow")
    outcomes: dict[tuple[str, ...], float] = {}
    if (last := ended.get(_FLEET_RUN)) is not None:
        outcomes = {(state,): 0.0 for state in (*OUTCOMES, OTHER)}
        for state, count in last.counts.items():
            outcomes[(_known(state, OUTCOMES),)] += count
    about = "Tenants of the last run of the fleet that ended, by what it came to"
    yield _gauge("macrofleet_run_tenants", about, outcomes, "outcome")
    now_at = Counter(run.state for run in runs if run.state in _UNDER_WAY)
    about = "Runs that go on; silent: they say so, and have not written for a minute"
    yield _gauge("macrofleet_runs_under_way", about, _all(now_at, _UNDER_WAY), "state")


def _named(rows: Sequence[TenantRow]) -> Iterator[Metric]:
    about = "Share of held-out tickets with the right macro among three"
    shares = {(row.tenant,): row.top3 for row in rows if row.top3 is not None}
    yield _gauge("macrofleet_tenant_top3", about, shares, "tenant")
    examples = {(row.tenant,): float(row.examples) for row in rows if row.examples is not None}
    yield _gauge("macrofleet_tenant_examples", "Labelled tickets of the last training", examples, "tenant")
    at = {(row.tenant,): row.trained_at.timestamp() for row in rows if row.trained_at is not None}
    about = "When the outcome of the last training was known"
    yield _gauge("macrofleet_tenant_trained_timestamp_seconds", about, at, "tenant")


def _last_ended(runs: Iterable[RunStatus], flow: str) -> RunStatus | None:
    return next((run for run in runs if run.flow == flow and run.state not in _UNDER_WAY and run.started_at), None)


def _end(run: RunStatus) -> datetime:
    assert run.started_at is not None
    return datetime.fromtimestamp(run.started_at.timestamp() + (run.seconds or 0.0), UTC)


def _known(value: str, values: Sequence[str]) -> str:
    return value if value in values else OTHER


def _all(counts: Counter[str], values: Iterable[str]) -> dict[tuple[str, ...], float]:
    return {(value,): float(counts[value]) for value in values}


def _gauge(name: str, about: str, figures: Mapping[Any, float], *labels: str) -> Metric:
    unit = "seconds" if name.endswith("_seconds") else ""
    family = GaugeMetricFamily(name, about, labels=labels, unit=unit)
    for values, figure in figures.items():
        family.add_metric(values, figure)
    return family
