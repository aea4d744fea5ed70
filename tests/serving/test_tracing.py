"""Traces, received by a collector that speaks OTLP over HTTP: what is in them, what is not, and what becomes of requests."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from benchmarks.fleets import make_bundle, publish_tenants
from registry.model.program import publish_program
from registry.store.local import LocalStore
from serving.app import create_apps
from serving.faces.sagemaker import create_sagemaker_app
from serving.tracing import Tracing, TracingMiddleware, configure_tracing, current_trace
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import (
    PATIENCE_SECONDS,
    BuiltProgram,
    add_catalogue,
    eventually,
    serving,
    ticket,
    until_ready,
)
from tests.serving.test_main import PROJECT, SERVE, surroundings

pytestmark = pytest.mark.anyio
ROUTE = "/v1/tenants/{tenant}/suggestions"
TICKET = "My parcel has not arrived"
CALLER = "0af7651916cd43dd8448eb211c80319c"
CALLERS_SPAN = "b7ad6b7169203331"


@dataclass
class Collector:
    """What an OTLP/HTTP receiver was sent."""

    bodies: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resource(self) -> dict[str, str]:
        (resource,) = ExportTraceServiceRequest.FromString(self.bodies[0]).resource_spans
        return {pair.key: pair.value.string_value for pair in resource.resource.attributes}

    def server_span(self) -> Span:
        (span,) = [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]
        return span


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


@pytest.fixture(autouse=True)
def _only_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A receiver that the environment names."""
    received = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            assert self.path == "/v1/traces"
            received.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


def make_app(tracing: Tracing) -> FastAPI:
    """An application that notes phases as the data plane does."""
    app = FastAPI()

    @app.post("/v1/tenants/{tenant:path}/suggestions")
    async def suggestions(tenant: str, text: str = "") -> str:
        trace = current_trace()
        assert trace is not None
        began = time.monotonic()
        trace.set("macrofleet.tenant", tenant)
        trace.set("macrofleet.model.version", "9f2b")
        trace.phase("queue", began, began + 0.001)
        trace.phase("score", began + 0.001, began + 0.003)
        if tenant == "broken":
            raise RuntimeError(TICKET)
        return "ok"

    app.add_middleware(TracingMiddleware, tracing=tracing)
    return app


@asynccontextmanager
async def traced() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a traced application; everything was sent when it ends."""
    tracing = configure_tracing()
    assert tracing is not None
    transport = httpx.ASGITransport(make_app(tracing), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    tracing.close()


async def test_a_request_is_a_span_with_its_phases_inside(collector: Collector) -> None:
    began = time.time_ns()
    async with traced() as client:
        await client.post("/v1/tenants/acme/suggestions", json={"text": TICKET})
    ended = time.time_ns()
    span = collector.server_span()
    assert span.name == f"POST {ROUTE}"
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": ROUTE,
        "url.template": ROUTE,
        "macrofleet.tenant": "acme",
        "macrofleet.model.version": "9f2b",
    }
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert not span.parent_span_id
    assert began <= span.start_time_unix_nano <= span.end_time_unix_nano <= ended
    inside = {child.name: child for child in collector.spans if child is not span and child.parent_span_id}
    assert set(inside) == {"queue", "score"}
    for child in inside.values():
        assert (child.trace_id, child.parent_span_id) == (span.trace_id, span.span_id)
    assert inside["queue"].start_time_unix_nano >= span.start_time_unix_nano
    assert inside["score"].start_time_unix_nano == inside["queue"].end_time_unix_nano
    lasted = inside["score"].end_time_unix_nano - inside["score"].start_time_unix_nano
    assert lasted == pytest.approx(2_000_000, abs=1000)


async def test_a_callers_trace_goes_on(collector: Collector) -> None:
    headers = {"traceparent": f"00-{CALLER}-{CALLERS_SPAN}-01", "tracestate": "vendor=1"}
    async with traced() as client:
        await client.post("/v1/tenants/acme/suggestions", headers=headers)
    span = collector.server_span()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (CALLER, CALLERS_SPAN)
    assert span.trace_state == "vendor=1"
    assert {span.trace_id.hex() for span in collector.spans} == {CALLER}


async def test_a_caller_that_does_not_sample_is_heeded(collector: Collector) -> None:
    async with traced() as client:
        await client.post("/v1/tenants/acme/suggestions", headers={"traceparent": f"00-{CALLER}-{CALLERS_SPAN}-00"})
        await client.post("/v1/tenants/globex/suggestions")
    assert attributes(collector.server_span())["macrofleet.tenant"] == "globex"


@pytest.mark.parametrize("header", ["", "00-0-0-01", f"00-{'0' * 32}-{CALLERS_SPAN}-01", "\xff"])
async def test_a_traceparent_that_is_none_begins_a_trace(collector: Collector, header: str) -> None:
    async with traced() as client:
        answer = await client.post("/v1/tenants/acme/suggestions", headers=[(b"traceparent", header.encode("latin-1"))])
    assert answer.status_code == 200
    assert not collector.server_span().parent_span_id


async def test_no_ticket_is_in_what_is_sent(collector: Collector) -> None:
    async with traced() as client:
        for path in ("/v1/tenants/acme/suggestions", "/v1/tenants/broken/suggestions", f"/nowhere/{TICKET}"):
            await client.post(
                path,
                params={"text": TICKET},
                json={"ticket": {"subject": TICKET}},
                headers={"X-Note": TICKET, "Baggage": "note=parcel", "User-Agent": TICKET},
            )
    assert len([span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]) == 3
    assert not [body for body in collector.bodies if b"parcel" in body]


async def test_a_failure_is_an_error_and_a_refusal_is_not(collector: Collector) -> None:
    async with traced() as client:
        assert (await client.post("/v1/tenants/broken/suggestions")).status_code == 500
    span = collector.server_span()
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert not span.status.message
    assert not span.events
    assert attributes(span)["http.response.status_code"] == 500
    assert attributes(span)["error.type"] == "500"


async def test_a_path_that_is_not_served_has_no_route(collector: Collector) -> None:
    async with traced() as client:
        assert (await client.request("BREW", "/coffee")).status_code == 404
    span = collector.server_span()
    assert span.name == "HTTP"
    assert attributes(span) == {"http.request.method": "_OTHER", "http.response.status_code": 404}
    assert span.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
async def test_probes_and_scrapes_are_not_traced(collector: Collector, path: str) -> None:
    async with traced() as client:
        await client.get(path)
        await client.get(f"{path}x")
    assert len(collector.spans) == 1


async def test_a_caller_that_goes_away_is_told_apart(collector: Collector) -> None:
    tracing = configure_tracing()
    assert tracing is not None
    tracing.end(tracing.start([]), method="POST", route=ROUTE, status=None)
    tracing.close()
    span = collector.server_span()
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(span)["error.type"] == "disconnected"
    assert "http.response.status_code" not in attributes(span)


async def test_the_answers_request_id_is_noted(collector: Collector) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"x-request-id", b"r-1")]})
        await send({"type": "http.response.body", "body": b""})

    tracing = configure_tracing()
    assert tracing is not None
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(TracingMiddleware(app, tracing)), base_url="http://test"
    ) as client:
        await client.get("/")
    tracing.close()
    assert attributes(collector.server_span())["macrofleet.request_id"] == "r-1"


async def test_outside_of_a_request_there_is_no_trace(collector: Collector) -> None:
    async with traced() as client:
        await client.post("/v1/tenants/acme/suggestions")
        assert current_trace() is None


async def test_the_environment_names_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traced() as client:
        await client.post("/v1/tenants/acme/suggestions")
    assert collector.resource["service.name"] == "macrofleet"
    assert collector.resource["service.version"]
    collector.bodies.clear()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "suggestions")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=7,deployment.environment.name=test")
    async with traced() as client:
        await client.post("/v1/tenants/acme/suggestions")
    found = collector.resource
    assert (found["service.name"], found["service.version"]) == ("suggestions", "7")
    assert found["deployment.environment.name"] == "test"


async def test_the_environment_names_the_sampler(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    async with traced() as client:
        assert (await client.post("/v1/tenants/acme/suggestions")).status_code == 200
    assert not collector.bodies


async def test_a_collector_that_is_not_there_costs_no_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    with socket.socket() as taken:  # bound, so nobody else listens there either
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        async with traced() as client:
            for _ in range(20):
                assert (await client.post("/v1/tenants/acme/suggestions")).status_code == 200
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert TICKET not in caplog.text


async def test_closing_does_not_wait_for_a_collector_that_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    said_so = threading.Event()

    class Deaf:
        def get_tracer(self, *_: object) -> None:
            """Not used."""

        def shutdown(self) -> None:
            said_so.wait()

    Tracing(Deaf()).close(0.01)  # type: ignore[arg-type]
    said_so.set()
    assert "could not be sent" in caplog.text


async def test_what_goes_wrong_in_a_trace_stays_there(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    tracing = configure_tracing()
    assert tracing is not None
    trace = tracing.start([])
    trace.phase("queue", float("nan"), 0.0)
    tracing.end(trace, method="POST", route=ROUTE, status=200)
    tracing.close()
    assert "could not be traced" in caplog.text


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "suggestions"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "True"},
        {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
async def test_it_is_off_unless_asked_for(environ: dict[str, str]) -> None:
    assert configure_tracing(environ) is None


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), ("OTEL_BSP_SCHEDULE_DELAY", "-1")]
)
async def test_what_cannot_be_had_is_said_and_left_out(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.WARNING):
        assert configure_tracing() is None
    assert "traces are off" in caplog.text


async def test_nothing_is_imported_when_off() -> None:
    code = (
        "import sys; from serving.tracing import configure_tracing as on; print(on({}), 'opentelemetry' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "False"]


async def test_what_is_traced_is_not_answered_early(
    collector: Collector, store: LocalStore, make_settings: MakeSettings
) -> None:
    def refused(tracing: Tracing | None) -> bool:
        scope = {"type": "http", "method": "POST", "path": "/v1/tenants/globex/suggestions", "headers": []}
        public = create_apps(make_settings(), store, tracing).public
        return public.early_answer(scope) is not None  # type: ignore[attr-defined]  # of ours

    tracing = configure_tracing()
    assert tracing is not None
    assert (refused(None), refused(tracing)) == (True, False)
    tracing.close()


async def test_a_server_tells_of_a_ticket_but_not_what_it_says(
    collector: Collector, store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    tracing = configure_tracing()
    assert tracing is not None
    apps = create_apps(make_settings(), store, tracing)
    async with serving(apps.public) as client:
        await until_ready(client)
        answer = await client.post("/v1/tenants/acme/suggestions", json=ticket(TICKET))
        assert (await client.post("/v1/tenants/globex/suggestions", json=ticket(TICKET))).status_code == 404
    tracing.close()
    span, unknown = sorted(
        (span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER),
        key=lambda span: str(attributes(span)["http.response.status_code"]),
    )
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": ROUTE,
        "url.template": ROUTE,
        "macrofleet.tenant": "acme",
        "macrofleet.model.version": answer.json()["model_version"],
        "macrofleet.request_id": answer.headers["x-request-id"],
    }
    inside = [child for child in collector.spans if child.parent_span_id == span.span_id]
    assert [child.name for child in inside] == ["load_wait", "queue", "featurise", "score"]
    for child in inside:
        assert span.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= span.end_time_unix_nano
    assert "macrofleet.tenant" not in attributes(unknown)
    assert not [body for body in collector.bodies if b"parcel" in body or b"globex" in body]


@pytest.fixture
def programs(tmp_path: Path, bag: BuiltProgram) -> Path:
    """As an image for SageMaker brings them."""
    publish_program(LocalStore(tmp_path / "image"), bag.folder)
    return tmp_path / "image" / "programs"


async def test_a_container_for_sagemaker_tells_of_a_ticket_but_neither_what_it_says_nor_its_alias(
    collector: Collector, tmp_path: Path, programs: Path, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    folder = tmp_path / "model"
    made = make_bundle(folder, tenant="acme", program=bag.digest, spec=bag.spec)
    add_catalogue(folder)
    tracing = configure_tracing()
    assert tracing is not None
    async with serving(
        create_sagemaker_app(make_settings(), programs_folder=programs, access=None, tracing=tracing)
    ) as client:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await client.get("/ping")).status_code != 200:
                await asyncio.sleep(0.01)
        loaded = await client.post("/models", json={"model_name": "parcel", "url": str(folder)})
        assert loaded.status_code == 200
        answer = await client.post("/models/parcel/invoke", json=ticket(TICKET))
        assert answer.status_code == 200
        assert (await client.delete("/models/parcel")).status_code == 200
    tracing.close()
    spans = {span.name: span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER}
    assert set(spans) == {"POST /models", "POST /models/{alias}/invoke", "DELETE /models/{alias}"}
    span = spans["POST /models/{alias}/invoke"]
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/models/{alias}/invoke",
        "url.template": "/models/{alias}/invoke",
        "macrofleet.tenant": "acme",
        "macrofleet.model.version": made.version,
        "macrofleet.request_id": answer.headers["x-request-id"],
    }
    inside = [child for child in collector.spans if child.parent_span_id == span.span_id]
    assert [child.name for child in inside] == ["queue", "featurise", "score"]
    for child in inside:
        assert span.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= span.end_time_unix_nano
    assert not [body for body in collector.bodies if b"parcel" in body]


async def test_a_container_for_sagemaker_is_traced_when_the_environment_asks_for_it(
    collector: Collector, tmp_path: Path, programs: Path, bag: BuiltProgram
) -> None:
    """The process, which sends what waits at its end."""
    ready_file = tmp_path / "url"
    command = [*SERVE, "--sagemaker", "--programs-folder", str(programs), "--ready-file", str(ready_file)]
    environment = surroundings(tmp_path, MACROFLEET_TRUSTED_PROGRAMS=bag.digest, SAGEMAKER_BIND_TO_PORT="0")
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            await eventually(lambda: ready_file.exists() or process.poll() is not None)
            assert process.poll() is None
            url = ready_file.read_text().strip().replace("0.0.0.0", "127.0.0.1")
            async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as client:
                assert (await client.get("/models")).status_code == 200
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) == 0
        finally:
            process.kill()
    assert collector.server_span().name == "GET /models"
