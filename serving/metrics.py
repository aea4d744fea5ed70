"""Metrics: what the server counts and how long things take, for Prometheus.

The exposition is `prometheus_client`'s, through a collector of ours over plain counters: a request makes about eight
observations, and each costs 0.3 to 0.45 us here, 1.0 us (2.3 us with its label looked up) with the library's histogram
and 0.5 us (1.7 us) with its counter (CPU time of the thread, CPython 3.11, the same machine).

`x += 1` reads and writes in two steps, and work is timed in threads too. So each thread has cells of its own, which
are added up when somebody asks; a lock around them would double an observation's cost.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import accumulate
from threading import get_ident
from typing import Annotated, Final, Literal, TypeAlias

from fastapi import APIRouter, Header
from fastapi.routing import APIRoute
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.responses import Response

Tier: TypeAlias = Literal["memory", "disk", "store"]

# Every label's values are one of these sets; anything else is counted as OTHER, so that no series comes from outside.
OTHER: Final = "other"
PHASES: Final = ("read", "queue", "load_wait", "download", "map", "featurise", "score", "unload")
FACES: Final = ("api", "sagemaker", "v2", "admin", "health", "metrics")
EVICTION_CAUSES: Final = ("budget", "not_admitted", "unloaded", "left_fleet", "no_space")
REFUSALS: Final = (
    "tenant_rate",
    "tenant_concurrency",
    "tenant_queue",
    "queue_full",
    "cold_loads",
    "deadline",
    "not_ready",
    "load_backing_off",
    "out_of_resources",
    "too_large",
    "unauthenticated",
)
# Classes of `registry.errors`, by name; whatever else a load fails of is not the domain's.
LOAD_ERRORS: Final = (
    "BundleCorrupt",
    "NotReady",
    "ObjectNotFound",
    "OutOfResources",
    "Overloaded",
    "ProgramCorrupt",
    "ProgramUntrusted",
    "StoreError",
    "StoreUnavailable",
    "TooManyLoads",
)
# 499 is what a caller gets that hung up before its answer.
STATUSES: Final = frozenset({*(int(status) for status in HTTPStatus), 499})

SECONDS_BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
BATCH_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)

_GAUGE_NAME = re.compile(r"macrofleet_[a-z][a-z_]*[a-z]")
_LOG = logging.getLogger(__name__)


# Counters that are seldom moved: the family, its help, its labels and every combination of their values.
_HITS, _COLD, _LOADS = "macrofleet_cache_hits_total", "macrofleet_cold_loads_total", "macrofleet_model_loads_total"
_EVICTIONS, _SWAPS, _REFUSALS = "macrofleet_evictions_total", "macrofleet_swaps_total", "macrofleet_refusals_total"
_COUNTERS: Final[dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]]] = {
    _HITS: ("Requests by the tier their model was found in", ("tier",), (("memory",), ("disk",), ("store",))),
    _COLD: ("Loads of models that were not in memory", ("source",), (("disk",), ("store",))),
    _LOADS: (
        "Models that came into memory, or failed to",
        ("outcome", "error"),
        (("done", "none"), *(("failed", kind) for kind in (*LOAD_ERRORS, OTHER))),
    ),
    _EVICTIONS: (
        "Models that left a tier",
        ("tier", "cause"),
        tuple((tier, cause) for tier in ("memory", "disk") for cause in (*EVICTION_CAUSES, OTHER)),
    ),
    _SWAPS: ("Changes of a model's version in memory", ("outcome",), (("done",), ("failed",))),
    _REFUSALS: ("Requests turned away", ("reason",), tuple((reason,) for reason in (*REFUSALS, OTHER))),
}


class _Histogram:
    """Counts by bucket, not cumulative; the last one is of what is above every bound."""

    __slots__ = ("counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, other: _Histogram) -> None:
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts.copy(), strict=True)]
        self.sum += other.sum


class _Face:
    """Requests of one face: their times, and their numbers by status, 0 standing for one that is none."""

    __slots__ = ("seconds", "statuses")

    def __init__(self) -> None:
        self.seconds = _Histogram(SECONDS_BOUNDS)
        self.statuses = dict.fromkeys((0, *STATUSES), 0)


class _Cells:
    """What one thread has counted. Every key is there from the start: nothing grows, nothing is looked up twice."""

    __slots__ = ("batches", "counts", "faces", "phases")

    def __init__(self) -> None:
        self.faces = {face: _Face() for face in (*FACES, OTHER)}
        self.phases: dict[str, _Histogram] = {name: _Histogram(SECONDS_BOUNDS) for name in (*PHASES, OTHER)}
        self.batches = _Histogram(BATCH_BOUNDS)
        self.counts = {(family, *values): 0 for family, (_, _, known) in _COUNTERS.items() for values in known}

    def add(self, other: _Cells) -> None:
        for name, face in other.faces.items():
            self.faces[name].seconds.add(face.seconds)
            for status, count in face.statuses.items():
                self.faces[name].statuses[status] += count
        for name, histogram in other.phases.items():
            self.phases[name].add(histogram)
        self.batches.add(other.batches)
        for key, count in other.counts.items():
            self.counts[key] += count


class _Gauge:
    def __init__(self, help: str, labels: tuple[str, ...]) -> None:
        self.help = help
        self.labels = labels
        self.reads: dict[tuple[str, ...], Callable[[], float | None]] = {}


class _Table:
    def __init__(self, help: str, labels: tuple[str, ...], read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        self.help = help
        self.labels = labels
        self.read = read


class Metrics:
    """Counters, histograms and gauges of one server process. What counts and times may be called from any thread.

    Args:
        version: of the server, for `macrofleet_info`; None says that of the installed package.

    Example:
        >>> metrics = Metrics()
        >>> metrics.requests("api", 200, 0.0012)
        >>> body, content_type = metrics.exposition(None)
    """

    def __init__(self, version: str | None = None) -> None:
        self._version = version or importlib.metadata.version("macrofleet")
        # By the thread's ident, which another thread gets when it has ended and goes on counting where that left off.
        self._cells: dict[int, _Cells] = {}
        self._gauges: dict[str, _Gauge] = {}
        self._tables: dict[str, _Table] = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Ours(self._collect))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self.gauge("macrofleet_threads", "Threads of the process, those of native libraries included", _threads)
        self.gauge("macrofleet_python_threads", "Threads that Python knows of", threading.active_count)

    def requests(self, face: str, status: int, seconds: float) -> None:
        """A request was answered.

        Args:
            face: which of `FACES` took it.
            status: the HTTP status of the answer; 499 when the caller hung up before it.
            seconds: from the request's arrival to its answer.
        """
        faces = self._own().faces
        cell = faces[face] if face in faces else faces[OTHER]
        times, statuses = cell.seconds, cell.statuses
        times.counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        times.sum += seconds
        statuses[status if status in statuses else 0] += 1

    def phase(self, name: str, seconds: float) -> None:
        """A part of a request's or a load's way, one of `PHASES`, took so long."""
        phases = self._own().phases
        cell = phases[name] if name in phases else phases[OTHER]
        cell.counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        cell.sum += seconds

    def batch(self, size: int) -> None:
        """An executor took a batch of so many tickets."""
        cell = self._own().batches
        cell.counts[bisect_left(BATCH_BOUNDS, size)] += 1
        cell.sum += size

    def cache_hit(self, tier: Tier) -> None:
        """A request found its model in this tier."""
        self._count((_HITS, tier))

    def cold_load(self, source: Literal["disk", "store"]) -> None:
        """A model that was not in memory is loaded, from here."""
        self._count((_COLD, source))

    def loaded(self) -> None:
        """A model came into memory."""
        self._count((_LOADS, "done", "none"))

    def load_failed(self, kind: str) -> None:
        """A model could not be loaded; `kind` is the class of the error, by name."""
        self._count((_LOADS, "failed", kind))

    def evicted(self, tier: Literal["memory", "disk"], cause: str) -> None:
        """A model left a tier, for one of `EVICTION_CAUSES`."""
        self._count((_EVICTIONS, tier, cause))

    def swapped(self, outcome: Literal["done", "failed"]) -> None:
        """A new version took over from the one in memory, or could not."""
        self._count((_SWAPS, outcome))

    def refused(self, reason: str) -> None:
        """A request was turned away, for one of `REFUSALS`."""
        self._count((_REFUSALS, reason))

    def gauge(
        self, name: str, help: str, read: Callable[[], float | None], *, labels: Mapping[str, str] | None = None
    ) -> None:
        """A figure that is read when somebody asks, in the thread of `exposition`.

        Args:
            name: `macrofleet_…`; ending in its unit, `_seconds` or `_bytes`, where it has one.
            help: what it means, in a line.
            read: the figure, or None when there is none now; one that raises is logged and left out.
            labels: tell several figures of one name apart; values from a closed set, never a tenant.

        Raises:
            ValueError: the name is no name for a metric, the figure is there already, or another one of that name
                has other labels.
        """
        labels = labels or {}
        if not _GAUGE_NAME.fullmatch(name):
            raise ValueError(f"{name} is not a name for a metric")
        gauge = self._gauges.setdefault(name, _Gauge(help, tuple(labels)))
        if gauge.labels != tuple(labels) or tuple(labels.values()) in gauge.reads:
            raise ValueError(f"{name} with the labels {dict(labels)} is there already or does not fit those there are")
        gauge.reads[tuple(labels.values())] = read

    def counters(
        self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> None:
        """Counters that somebody else keeps, read when somebody asks, in the thread of `exposition`.

        Args:
            name: `macrofleet_…_total`.
            help: what they mean, in a line.
            labels: their names.
            read: by the labels' values: a closed set, or one with a bound on their number. Must not raise.
        """
        self._tables[name] = _Table(help, labels, read)

    def exposition(self, accept: str | None = None) -> tuple[bytes, str]:
        """All metrics as text.

        Args:
            accept: the Accept header; OpenMetrics for one that asks for it, otherwise Prometheus's own format.

        Returns:
            The body and its content type.
        """
        try:
            encode, content_type = choose_encoder(accept or "")
        except (TypeError, ValueError):  # the library trips over a version that is none
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def _own(self) -> _Cells:
        """The calling thread's cells."""
        try:
            return self._cells[get_ident()]
        except KeyError:
            return self._cells.setdefault(get_ident(), _Cells())

    def _count(self, key: tuple[str, ...]) -> None:
        counts = self._own().counts
        counts[key if key in counts else (*key[:-1], OTHER)] += 1

    def _collect(self) -> Iterator[Metric]:
        total = _Cells()
        for cells in list(self._cells.values()):
            total.add(cells)
        yield InfoMetricFamily("macrofleet", "The server", {"version": self._version})
        yield _requests(total.faces)
        seconds = {face: cell.seconds for face, cell in total.faces.items()}
        yield _histogram("macrofleet_request_seconds", "Time to answer a request", "face", seconds, SECONDS_BOUNDS)
        about = "Time in a phase of a request or of a load"
        yield _histogram("macrofleet_phase_seconds", about, "phase", total.phases, SECONDS_BOUNDS)
        yield _histogram("macrofleet_batch_size", "Tickets in a batch", None, {"": total.batches}, BATCH_BOUNDS)
        for name, (about, labels, known) in _COUNTERS.items():
            counter = CounterMetricFamily(name, about, labels=labels)
            for values in known:
                counter.add_metric(values, total.counts[name, *values])
            yield counter
        for name, table in self._tables.items():
            counter = CounterMetricFamily(name, table.help, labels=table.labels)
            for values, count in table.read().items():
                counter.add_metric(values, count)
            yield counter
        for name, gauge in self._gauges.items():
            yield _gauge(name, gauge)


class _Ours(Collector):
    """What the library wants a collector to be."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not read the gauges."""
        return ()


def make_metrics_router(metrics: Metrics, route_class: type[APIRoute] = APIRoute) -> APIRouter:
    """The route `GET /metrics`.

    Args:
        route_class: of `serving.faces.guard`, which knows this module.
    """
    router = APIRouter(route_class=route_class)

    # Not in a thread: gauges read what the event loop owns.
    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def read_metrics(accept: Annotated[str | None, Header()] = None) -> Response:
        body, content_type = metrics.exposition(accept)
        return Response(body, headers={"Content-Type": content_type})

    return router


def _threads() -> float | None:
    """The kernel's count, which has TensorFlow's threads too."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            return next((float(line.split()[1]) for line in status if line.startswith("Threads:")), None)
    except OSError:
        return None


def _requests(faces: Mapping[str, _Face]) -> Metric:
    family = CounterMetricFamily("macrofleet_requests_total", "Requests answered", labels=("face", "status"))
    for name, face in faces.items():
        for status, count in face.statuses.items():
            if count or status == HTTPStatus.OK:
                family.add_metric((name, str(int(status)) if status else OTHER), count)
    return family


def _histogram(
    name: str, about: str, label: str | None, cells: Mapping[str, _Histogram], bounds: tuple[float, ...]
) -> Metric:
    labels = () if label is None else (label,)
    family = HistogramMetricFamily(name, about, labels=labels, unit=_unit(name))
    for value, cell in cells.items():
        cumulative = map(float, accumulate(cell.counts))
        buckets = list(zip([*(str(bound) for bound in bounds), "+Inf"], cumulative, strict=True))
        family.add_metric(() if label is None else (value,), buckets, cell.sum)
    return family


def _unit(name: str) -> str:
    return next((unit for unit in ("seconds", "bytes") if name.endswith(f"_{unit}")), "")


def _gauge(name: str, gauge: _Gauge) -> Metric:
    family = GaugeMetricFamily(name, gauge.help, labels=gauge.labels, unit=_unit(name))
    for values, read in gauge.reads.items():
        try:
            figure = read()
        except Exception:  # noqa: BLE001  # the other metrics are wanted all the more
            _LOG.exception("a metric cannot be read", extra={"metric": name})
            continue
        if figure is not None:
            family.add_metric(values, figure)
    return family
