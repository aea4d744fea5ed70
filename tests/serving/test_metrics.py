"""Metrics: what is counted comes out as it went in, in both formats, from any thread, and is documented."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from registry import errors
from registry.store.failover import FailoverStore
from registry.store.local import LocalStore
from serving import metrics as module
from serving.app import create_apps
from serving.metrics import (
    BATCH_BOUNDS,
    FACES,
    LOAD_ERRORS,
    OTHER,
    PHASES,
    SECONDS_BOUNDS,
    STATUSES,
    Metrics,
    make_metrics_router,
)
from serving.settings import ServingSettings

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
FORMATS = pytest.mark.parametrize("accept", [None, OPENMETRICS], ids=["prometheus", "openmetrics"])


def families(metrics: Metrics, accept: str | None = None, only: str = "") -> dict[str, Metric]:
    """What a scrape says; of the lines that contain `only`, since parsing is slow."""
    body, content_type = metrics.exposition(accept)
    parse: Any = parse_openmetrics if content_type.startswith("application/openmetrics-text") else parse_prometheus
    lines = [line for line in body.decode().splitlines(keepends=True) if only in line or line == "# EOF\n"]
    return {family.name: family for family in parse("".join(lines))}


def value(metrics: Metrics, sample: str, /, accept: str | None = None, **labels: str) -> float:
    """The one sample of that name and exactly these labels."""
    (found,) = [
        found.value
        for family in families(metrics, accept, only=re.sub(r"_(bucket|count|sum|total|info)$", "", sample)).values()
        for found in family.samples
        if found.name == sample and found.labels == labels
    ]
    return float(found)


@FORMATS
def test_what_is_counted_comes_out(accept: str | None) -> None:
    metrics = Metrics("1.2.3")
    for status in (200, 200, 503, 499):
        metrics.requests("api", status, 0.002)
    metrics.phase("queue", 0.0002)
    metrics.cache_hit("memory")
    metrics.cold_load("store")
    metrics.loaded()
    metrics.load_failed("BundleCorrupt")
    metrics.evicted("memory", "budget")
    metrics.swapped("failed")
    metrics.refused("queue_full")
    metrics.batch(3)

    def counted(name: str, **labels: str) -> float:
        return value(metrics, name, accept, **labels)

    assert counted("macrofleet_requests_total", face="api", status="200") == 2
    assert counted("macrofleet_requests_total", face="api", status="503") == 1
    assert counted("macrofleet_requests_total", face="api", status="499") == 1
    assert counted("macrofleet_request_seconds_count", face="api") == 4
    assert counted("macrofleet_request_seconds_count", face="v2") == 0
    assert counted("macrofleet_phase_seconds_count", phase="queue") == 1
    assert counted("macrofleet_cache_hits_total", tier="memory") == 1
    assert counted("macrofleet_cold_loads_total", source="store") == 1
    assert counted("macrofleet_model_loads_total", outcome="done", error="none") == 1
    assert counted("macrofleet_model_loads_total", outcome="failed", error="BundleCorrupt") == 1
    assert counted("macrofleet_evictions_total", tier="memory", cause="budget") == 1
    assert counted("macrofleet_swaps_total", outcome="failed") == 1
    assert counted("macrofleet_refusals_total", reason="queue_full") == 1
    assert counted("macrofleet_batch_size_sum") == 3
    assert counted("macrofleet_info", version="1.2.3") == 1


@FORMATS
def test_the_process_is_described(accept: str | None) -> None:
    metrics = Metrics()
    for name in ("process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"):
        assert value(metrics, name, accept) > 0
    assert value(metrics, "macrofleet_threads", accept) >= value(metrics, "macrofleet_python_threads", accept) >= 1
    assert value(metrics, "python_gc_collections_total", accept, generation="0") >= 0


SECONDS = st.floats(min_value=0, max_value=1e6) | st.sampled_from(SECONDS_BOUNDS)


@settings(max_examples=30, deadline=None)
@given(observed=st.lists(SECONDS, max_size=50))
def test_a_histogram_has_each_observation_once(observed: list[float]) -> None:
    metrics = Metrics()
    for seconds in observed:
        metrics.phase("score", seconds)
    for accept in (None, OPENMETRICS):
        samples = [
            sample
            for sample in families(metrics, accept, only="macrofleet_phase_seconds")["macrofleet_phase_seconds"].samples
            if sample.labels["phase"] == "score"
        ]
        buckets = [(float(sample.labels["le"]), sample.value) for sample in samples if "le" in sample.labels]
        assert [bound for bound, _ in buckets] == [*SECONDS_BOUNDS, math.inf]
        assert all(count == sum(seconds <= bound for seconds in observed) for bound, count in buckets)
        (count,) = [sample.value for sample in samples if sample.name.endswith("_count")]
        (total,) = [sample.value for sample in samples if sample.name.endswith("_sum")]
        assert count == buckets[-1][1] == len(observed)
        assert total == pytest.approx(math.fsum(observed))


@pytest.mark.parametrize("size", [1, 2, 3, 64, 65])
def test_a_batch_is_in_the_buckets_that_it_fits_in(size: int) -> None:
    metrics = Metrics()
    metrics.batch(size)
    for bound in BATCH_BOUNDS:
        assert value(metrics, "macrofleet_batch_size_bucket", le=str(bound)) == (size <= bound)


@settings(max_examples=30, deadline=None)
@given(face=st.text(), status=st.integers(), name=st.text(), kind=st.text(), cause=st.text(), reason=st.text())
def test_nothing_from_outside_makes_a_series(
    face: str, status: int, name: str, kind: str, cause: str, reason: str
) -> None:
    metrics = Metrics()

    def series() -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {
            (sample.name, frozenset(sample.labels.items()))
            for family in families(metrics, only="macrofleet").values()
            for sample in family.samples
        }

    before = series()
    requests = [labels for name, labels in before if name == "macrofleet_requests_total"]
    assert {dict(labels)["status"] for labels in requests} == {"200"}
    metrics.requests(face, 200, 0.1)
    metrics.requests("api", status, 0.1)
    metrics.phase(name, 0.1)
    metrics.load_failed(kind)
    metrics.evicted("disk", cause)
    metrics.refused(reason)
    new = series() - before
    assert {name for name, _ in new} <= {"macrofleet_requests_total"}
    assert {dict(labels)["status"] for _, labels in new} <= ({OTHER, str(status)} if status in STATUSES else {OTHER})


def test_what_is_not_known_is_counted_as_other() -> None:
    metrics = Metrics()
    metrics.requests("gopher", 1000, 0.1)
    metrics.phase("nap", 0.1)
    metrics.load_failed("KeyError")
    metrics.evicted("disk", "boredom")
    metrics.refused("mood")
    assert value(metrics, "macrofleet_requests_total", face=OTHER, status=OTHER) == 1
    assert value(metrics, "macrofleet_phase_seconds_count", phase=OTHER) == 1
    assert value(metrics, "macrofleet_model_loads_total", outcome="failed", error=OTHER) == 1
    assert value(metrics, "macrofleet_evictions_total", tier="disk", cause=OTHER) == 1
    assert value(metrics, "macrofleet_refusals_total", reason=OTHER) == 1


def test_load_errors_are_errors_of_the_domain() -> None:
    assert all(issubclass(getattr(errors, name), errors.MacrofleetError) for name in LOAD_ERRORS)


# Each of these hands over to another thread just when it is used: in between the reading and the writing of a count.


class Pause:
    """Runs `meanwhile` to its end in a thread of its own, every time it is called."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self.times = 0
        self._meanwhile = meanwhile

    def __call__(self) -> None:
        self.times += 1
        thread = threading.Thread(target=self._meanwhile)
        thread.start()
        thread.join()


class PausingFigure(float):
    pause: Pause

    def __radd__(self, other: float) -> float:
        self.pause()
        return other + float(self)


class PausingLabel(str):
    __slots__ = ("pause",)
    pause: Pause

    def __hash__(self) -> int:
        self.pause()
        return super().__hash__()


class PausingStatus(int):
    pause: Pause

    def __hash__(self) -> int:
        self.pause()
        return super().__hash__()


def paused(kind: type[Any], figure: object, meanwhile: Callable[[], object]) -> Any:
    made = kind(figure)
    made.pause = Pause(meanwhile)
    return made


def test_no_time_is_lost_between_threads() -> None:
    metrics = Metrics()
    seconds = paused(PausingFigure, 1.0, lambda: metrics.phase("map", 2.0))
    metrics.phase("map", seconds)
    assert seconds.pause.times == 1
    assert value(metrics, "macrofleet_phase_seconds_sum", phase="map") == 3.0
    assert value(metrics, "macrofleet_phase_seconds_count", phase="map") == 2


def test_no_batch_is_lost_between_threads() -> None:
    metrics = Metrics()
    metrics.batch(paused(PausingFigure, 4.0, lambda: metrics.batch(8)))
    assert value(metrics, "macrofleet_batch_size_sum") == 12


def test_no_count_is_lost_between_threads() -> None:
    metrics = Metrics()
    tier = paused(PausingLabel, "memory", lambda: metrics.cache_hit("memory"))
    metrics.cache_hit(tier)
    assert tier.pause.times > 1
    assert value(metrics, "macrofleet_cache_hits_total", tier="memory") == 1 + tier.pause.times


def test_no_request_is_lost_between_threads() -> None:
    metrics = Metrics()
    status = paused(PausingStatus, 200, lambda: metrics.requests("api", 200, 0.5))
    metrics.requests("api", status, 0.5)
    assert status.pause.times > 1
    assert value(metrics, "macrofleet_requests_total", face="api", status="200") == 1 + status.pause.times
    assert value(metrics, "macrofleet_request_seconds_count", face="api") == 1 + status.pause.times


def test_counts_outlive_their_threads() -> None:
    metrics = Metrics()
    for _ in range(5):
        thread = threading.Thread(target=metrics.swapped, args=("done",))
        thread.start()
        thread.join()
    metrics.swapped("done")
    assert value(metrics, "macrofleet_swaps_total", outcome="done") == 6


@FORMATS
def test_gauges_are_read_when_somebody_asks(accept: str | None) -> None:
    metrics = Metrics()
    sizes = {"memory": 1.0, "disk": 2.0}
    metrics.gauge("macrofleet_bytes", "Bytes", lambda: sizes["memory"], labels={"tier": "memory"})
    metrics.gauge("macrofleet_bytes", "Bytes", lambda: sizes["disk"], labels={"tier": "disk"})
    sizes["disk"] = 3.0
    assert value(metrics, "macrofleet_bytes", accept, tier="memory") == 1
    assert value(metrics, "macrofleet_bytes", accept, tier="disk") == 3


def test_a_gauge_that_cannot_be_read_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    metrics.gauge("macrofleet_sick", "", lambda: 1 / 0)
    metrics.gauge("macrofleet_silent", "", lambda: None)
    metrics.gauge("macrofleet_well", "", lambda: 1)
    found = families(metrics)
    assert not found["macrofleet_sick"].samples
    assert not found["macrofleet_silent"].samples
    assert found["macrofleet_well"].samples
    assert [record.metric for record in caplog.records] == ["macrofleet_sick"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("macrofleet_bytes", {"tier": "disk"}),  # there already
        ("macrofleet_bytes", {"kind": "disk"}),
        ("macrofleet_bytes", None),
        ("macrofleet_ready", None),
        ("requests", None),
        ("macrofleet_Ready", None),
        ("macrofleet_ready\n", None),
    ],
)
def test_a_gauge_that_does_not_fit_is_refused(name: str, labels: dict[str, str] | None) -> None:
    metrics = Metrics()
    metrics.gauge("macrofleet_bytes", "Bytes", lambda: 1, labels={"tier": "disk"})
    metrics.gauge("macrofleet_ready", "Ready", lambda: 1)
    before = set(families(metrics))
    with pytest.raises(ValueError, match=name.strip()):
        metrics.gauge(name, "", lambda: 1, labels=labels)
    assert set(families(metrics)) == before


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", OPENMETRICS),
        ("application/openmetrics-text; version=x", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=1..0", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_the_route_answers_in_the_format_that_is_asked_for(accept: str, content_type: str) -> None:
    app = FastAPI()
    app.include_router(make_metrics_router(Metrics()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(content_type)
    assert answer.text.endswith("# EOF\n") == content_type.startswith("application/")
    assert "macrofleet_requests_total" in answer.text


# The documentation


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Metrics]:
    """The metrics of a server, its gauges included."""
    told = ServingSettings.model_validate(
        {"disk_folder": tmp_path / "disk", "trusted_programs": frozenset(), "metrics_tenants": "acme"}
    )
    stores = LocalStore(tmp_path / "store"), LocalStore(tmp_path / "copy")
    apps = create_apps(told, FailoverStore(*stores, near="home"))
    async with apps.public.router.lifespan_context(apps.public):
        yield apps.data_plane.metrics


def document() -> str:
    """What is said of servers; what the console tells of trainings is tested with it."""
    before, rest = DOCUMENT.read_text().split("\n## Of trainings\n")
    return before + rest.partition("\n## ")[2]


def documented() -> dict[str, tuple[str, str]]:
    """Type and labels by name, as the document's table has them."""
    rows = re.findall(r"^\| `(macrofleet_\w+)` \| (\w+) \|([^|]*)\|", document(), re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: (kind, labels) for name, kind, labels in rows}


def name_of(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


@pytest.mark.anyio
async def test_every_metric_is_documented_and_every_documented_one_is_there(served: Metrics) -> None:
    found = {
        name_of(family): (family.type, {label for sample in family.samples for label in sample.labels if label != "le"})
        for family in families(served, OPENMETRICS).values()
        if family.name.startswith("macrofleet")
    }
    said = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, (kind, labels) in documented().items()}
    assert said == found


@pytest.mark.anyio
async def test_queries_in_the_document_name_what_is_there(served: Metrics) -> None:
    names = {sample.name for family in families(served).values() for sample in family.samples}
    asked = set(re.findall(r"\b((?:macrofleet|process)_[a-z_]+)\b", document()))
    assert asked <= names | {name_of(family) for family in families(served, OPENMETRICS).values()}


@pytest.mark.parametrize("values", [FACES, PHASES, LOAD_ERRORS, module.EVICTION_CAUSES, module.REFUSALS])
def test_label_values_are_documented(values: tuple[str, ...]) -> None:
    assert set(values) <= set(re.findall(r"`(\w+)`", DOCUMENT.read_text()))
