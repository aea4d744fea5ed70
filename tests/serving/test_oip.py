"""The Open Inference face: over a data plane of paper for its failures, and over the real one with the real client."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from tritonclient.http import (  # type: ignore[import-untyped]
    InferenceServerClient,
    InferInput,
    InferRequestedOutput,
)
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from benchmarks.fleets import publish_tenants
from registry.errors import (
    BundleCorrupt,
    DeadlineExceeded,
    LoadBackingOff,
    ModelNotFound,
    NotReady,
    OutOfResources,
    Overloaded,
    StoreError,
    TenantNotFound,
    TenantThrottled,
)
from registry.fleet.state import FleetEntry, update_fleet
from registry.model.program import publish_program
from registry.store.local import LocalStore
from serving.access import OpenDoor
from serving.app import create_apps
from serving.engine.model_status import ModelStatus
from serving.errors import add_error_handlers
from serving.faces.edge import MAX_BODY_BYTES, Edge
from serving.faces.guard import Authentication
from serving.faces.oip import HEADER_LENGTH, MAX_TICKETS, make_oip_router
from serving.logs import JsonFormatter
from serving.metrics import Metrics
from serving.settings import ServingSettings
from serving.suggestions.asking import Answer
from serving.suggestions.choice import SuggestedMacro, Suggestions
from serving.suggestions.reading import TicketReader
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, Caller, listening, spin, ticket
from tests.serving.test_oip_tensors import REQUEST, request, sometimes, text_input

pytestmark = pytest.mark.anyio
INFER = "/v2/models/acme/infer"
MACROS = tuple(SuggestedMacro(f"m{index}", f"Mäcro {index}", score) for index, score in enumerate([0.5, 0.25, 0.125]))


@dataclass
class PaperPlane:
    """Answering and controls of a data plane with three macros for every text; those that begin with "-" get none.

    Attributes:
        failure: raised by everything but `ask`.
        versions: what the next answers come from; without any, version 1.
        asked: the arguments of `answer`.
    """

    statuses: dict[str, ModelStatus] = field(
        default_factory=lambda: {"acme": ModelStatus(tenant="acme", version="v1", serving_version="v1", state="ready")}
    )
    is_ready: bool = True
    failure: Exception | None = None
    versions: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def models(self) -> list[ModelStatus]:
        if self.failure is not None:
            raise self.failure
        return list(self.statuses.values())

    def models_of(self, tenants: Iterable[str]) -> list[ModelStatus]:
        return [self.statuses[tenant] for tenant in tenants if tenant in self.statuses]

    def model(self, tenant: str) -> ModelStatus:
        if self.failure is not None:
            raise self.failure
        if tenant not in self.statuses:
            raise TenantNotFound("there is no such tenant")
        return self.statuses[tenant]

    async def load_model(self, tenant: str) -> ModelStatus:
        self.loads.append(f"+{tenant}")
        return self.model(tenant)

    async def unload_model(self, tenant: str) -> None:
        self.loads.append(f"-{tenant}")
        self.model(tenant)

    def ask(self, tenant: str) -> None:
        pass

    async def answer(
        self,
        tenant: str,
        text: str,
        *,
        ticket: str | None,
        limit: int,
        timeout_seconds: float | None = None,
    ) -> Answer:
        self.asked.append({"text": text, "ticket": ticket, "limit": limit, "timeout_seconds": timeout_seconds})
        self.model(tenant)
        macros = () if text.startswith("-") else MACROS[:limit]
        version = self.versions.pop(0) if self.versions else "v1"
        return Answer(suggestion_id=f"s-{ticket}", model_version=version, suggestions=Suggestions(macros))


def make_app(plane: PaperPlane, metrics: Metrics | None = None) -> FastAPI:
    app, metrics = FastAPI(redirect_slashes=False), metrics or Metrics()
    app.add_middleware(Authentication, doorkeeper=OpenDoor(), metrics=metrics)
    app.add_middleware(Edge, metrics=metrics)
    add_error_handlers(app)
    reader = TicketReader(timeout_seconds=30.0, metrics=metrics)
    app.include_router(make_oip_router(plane, plane, reader, is_ready=lambda: plane.is_ready))
    return app


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.fixture
def plane() -> PaperPlane:
    return PaperPlane()


@pytest.fixture
async def paper(plane: PaperPlane) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(make_app(plane)) as client:
        yield client


def texts(*said: str, **changes: Any) -> dict[str, Any]:
    return text_input(shape=[len(said)], data=list(said), **changes)


def limit_of(value: Any, **changes: Any) -> dict[str, Any]:
    return {"name": "LIMIT", "datatype": "INT32", "shape": [1], "data": [value]} | changes


def error_of(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert "x-request-id" in answer.headers
    error: str = body["error"]
    return error


def outputs_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


# Inference


async def test_everything_that_an_answer_holds(paper: httpx.AsyncClient) -> None:
    answer = await paper.post(INFER, content=request(texts("parcel", "- nothing"), id="r1", parameters={"mine": 7}))
    assert answer.json() == {
        "model_name": "acme",
        "model_version": "v1",
        "id": "r1",
        "parameters": {"mine": 7},
        "outputs": [
            {
                "name": "MACRO_ID",
                "datatype": "BYTES",
                "shape": [2, 3],
                "data": ["m0", "m1", "m2", "", "", ""],
            },
            {
                "name": "TITLE",
                "datatype": "BYTES",
                "shape": [2, 3],
                "data": ["Mäcro 0", "Mäcro 1", "Mäcro 2", "", "", ""],
            },
            {"name": "SCORE", "datatype": "FP32", "shape": [2, 3], "data": [0.5, 0.25, 0.125, 0.0, 0.0, 0.0]},
            {"name": "ABSTAINED", "datatype": "BOOL", "shape": [2], "data": [False, True]},
            {"name": "SUGGESTION_ID", "datatype": "BYTES", "shape": [2], "data": ["s-r1:0", "s-r1:1"]},
        ],
    }
    assert answer.headers["content-type"] == "application/json"
    assert HEADER_LENGTH not in answer.headers


async def test_what_the_data_plane_is_asked(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    body = request(texts(" parcel\n"), limit_of(2))
    answer = await paper.post(INFER, content=body, headers={"X-Request-Id": "edge"})
    assert outputs_of(answer)["MACRO_ID"]["shape"] == [1, 2]
    assert plane.asked == [{"text": "parcel", "ticket": None, "limit": 2, "timeout_seconds": None}]
    await paper.post(INFER, content=request(texts("parcel"), id="mine"))
    assert plane.asked[1]["ticket"] == "mine:0"
    assert "id" not in answer.json()
    assert "parameters" not in answer.json()


async def test_outputs_come_as_and_in_the_order_they_are_asked_for(paper: httpx.AsyncClient) -> None:
    wanted = [{"name": "ABSTAINED", "parameters": {"binary_data": True}}, {"name": "MACRO_ID"}]
    answer = await paper.post(INFER, content=request(outputs=wanted))
    length = int(answer.headers[HEADER_LENGTH])
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content[length:] == b"\x00"
    assert json.loads(answer.content[:length])["outputs"] == [
        {"name": "ABSTAINED", "datatype": "BOOL", "shape": [1], "parameters": {"binary_data_size": 1}},
        {"name": "MACRO_ID", "datatype": "BYTES", "shape": [1, 3], "data": ["m0", "m1", "m2"]},
    ]


@pytest.mark.parametrize(
    ("inputs", "fields"),
    [
        ([limit_of(1)], {}),
        ([texts("a", name="text")], {}),
        ([texts("a"), texts("a", name="MORE")], {}),
        ([texts("a"), limit_of("1", datatype="BYTES")], {}),
        ([texts("a", datatype="INT32")], {}),
        ([texts()], {}),
        ([texts(*["a"] * (MAX_TICKETS + 1))], {}),
        ([texts("a", "b") | {"shape": [1, 2]}], {}),
        ([texts("a") | {"shape": [1, 1, 1]}], {}),
        ([texts("a") | {"shape": []}], {}),
        ([texts("a", "")], {}),
        ([texts("a", " \u200b\n")], {}),
        ([texts("a"), limit_of(0)], {}),
        ([texts("a"), limit_of(4)], {}),
        ([texts("a"), limit_of(1, shape=[1, 1])], {}),
        ([texts("a"), limit_of(1, shape=[])], {}),
        ([texts("a"), limit_of(1, shape=[2], data=[1, 1])], {}),
        ([texts("a"), limit_of(1, shape=[0], data=[])], {}),
        ([texts("a")], {"outputs": [{"name": "REASON"}]}),
        ([texts("a")], {"outputs": [{"name": "SCORE"}, {"name": "score"}]}),
        ([texts("a")], {"parameters": {"timeout": -1}}),
        ([texts("a")], {"parameters": {"timeout": True}}),
        ([texts("a")], {"parameters": {"timeout": 1.5}}),
    ],
)
async def test_an_inference_that_cannot_be(
    paper: httpx.AsyncClient, plane: PaperPlane, inputs: list[Any], fields: dict[str, Any]
) -> None:
    error_of(await paper.post(INFER, content=request(*inputs, **fields)), 400)
    assert plane.asked == []


async def test_as_many_tickets_as_there_may_be(paper: httpx.AsyncClient) -> None:
    answer = await paper.post(INFER, content=request(texts(*["a"] * MAX_TICKETS)))
    assert outputs_of(answer)["SCORE"]["shape"] == [MAX_TICKETS, 3]


@pytest.mark.parametrize(
    ("header", "parameter", "seconds"),
    [
        (None, None, None),
        (None, 0, None),
        ("250", None, 0.25),
        (None, 1_500_000, 1.5),
        ("250", 100_000, 0.1),
        ("250", 500_000, 0.25),
        (None, 2**62, 60),
        ("60000", None, 60),
    ],
)
async def test_the_sooner_deadline_holds(
    paper: httpx.AsyncClient, plane: PaperPlane, header: str | None, parameter: int | None, seconds: float | None
) -> None:
    headers = {} if header is None else {"X-Request-Timeout-Ms": header}
    parameters = {} if parameter is None else {"timeout": parameter}
    answer = await paper.post(INFER, content=request(parameters=parameters), headers=headers)
    assert answer.status_code == 200
    assert plane.asked[0]["timeout_seconds"] == (None if seconds is None else pytest.approx(seconds, abs=0.05))


@pytest.mark.parametrize("value", ["0", "x", "60001", "1.5", "", "-1", "9" * 5000])
async def test_a_deadline_that_is_none(paper: httpx.AsyncClient, value: str) -> None:
    answer = await paper.post(INFER, content=request(), headers={"X-Request-Timeout-Ms": value})
    assert error_of(answer, 400).startswith("X-Request-Timeout-Ms ")


async def test_tickets_are_under_way_together(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    barrier = asyncio.Barrier(MAX_TICKETS)
    suggest = plane.answer

    async def after_the_others_came(*args: Any, **named: Any) -> Answer:
        await barrier.wait()
        return await suggest(*args, **named)

    plane.answer = after_the_others_came  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await paper.post(INFER, content=request(texts(*[f"a{index}" for index in range(MAX_TICKETS)]), id="r"))
    assert outputs_of(answer)["SUGGESTION_ID"]["data"][-1].endswith(f":{MAX_TICKETS - 1}")


async def test_one_ticket_that_fails_ends_the_others(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    ended = []

    async def failing_or_waiting(tenant: str, text: str, **_: Any) -> Answer:
        if text == "fails":
            raise TenantThrottled("too much", retry_after_seconds=2.5)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(text)
            raise
        raise AssertionError

    plane.answer = failing_or_waiting  # type: ignore[method-assign]
    async with asyncio.timeout(PATIENCE_SECONDS):
        answer = await paper.post(INFER, content=request(texts("a", "fails", "b")))
    assert error_of(answer, 429) == "too much"
    assert answer.headers["retry-after"] == "3"
    assert sorted(ended) == ["a", "b"]


async def test_all_tickets_of_a_request_are_answered_by_one_version(
    plane: PaperPlane, paper: httpx.AsyncClient
) -> None:
    plane.versions = ["v1", "v2", "v2", "v2"]
    answer = await paper.post(INFER, content=request(texts("a", "b")))
    assert (answer.status_code, answer.json()["model_version"]) == (200, "v2")
    plane.versions = ["v1", "v2"] * 100
    answer = await paper.post(INFER, content=request(texts("a", "b")))
    assert "replaced" in error_of(answer, 503)
    assert answer.headers["retry-after"] == "1"


async def test_a_swap_costs_a_tenant_nothing_of_its_rate(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    rate: list[str] = []

    def ask(tenant: str) -> None:
        rate.append(tenant)
        if len(rate) > 2:
            raise TenantThrottled("too much", retry_after_seconds=1)

    plane.ask = ask  # type: ignore[method-assign]
    plane.versions = ["v1", "v2", "v2", "v2"]
    answer = await paper.post(INFER, content=request(texts("a", "b")))
    assert (answer.status_code, answer.json()["model_version"]) == (200, "v2")
    assert rate == ["acme", "acme"]
    plane.asked.clear()
    assert error_of(await paper.post(INFER, content=request(texts("a", "b"))), 429) == "too much"
    assert plane.asked == []


async def test_a_version_that_is_asked_for_and_replaced_meanwhile(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    plane.versions = ["v2"]
    answer = await paper.post("/v2/models/acme/versions/v1/infer", content=request())
    assert "version v2" in error_of(answer, 404)


# What comes in the body


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body(paper: httpx.AsyncClient, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    headers = {"Content-Encoding": encoding}
    assert (await paper.post(INFER, content=compress(request()), headers=headers)).status_code == 200
    fits = request().ljust(MAX_BODY_BYTES)
    assert (await paper.post(INFER, content=compress(fits), headers=headers)).status_code == 200
    for much in (fits + b" ", b" " * 10_000_000):
        error_of(await paper.post(INFER, content=compress(much), headers=headers), 413)
    error_of(await paper.post(INFER, content=request(), headers=headers), 400)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x"])
async def test_a_compression_that_is_not_known(paper: httpx.AsyncClient, encoding: str) -> None:
    answer = await paper.post(INFER, content=request(), headers={"Content-Encoding": encoding})
    error_of(answer, 415)
    assert answer.headers["accept-encoding"] == "gzip, deflate, identity"


@pytest.mark.parametrize("path", [INFER, "/v2", "/v2/repository/index", "/v2/nowhere"])
async def test_a_body_over_the_bound(paper: httpx.AsyncClient, path: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield b" " * MAX_BODY_BYTES

    for content in (b" " * (MAX_BODY_BYTES + 1), chunks()):
        error = error_of(await paper.post(path, content=content), 413)
        assert error == f"A request's body may have {MAX_BODY_BYTES} bytes."


async def test_errors_do_not_repeat_what_came(paper: httpx.AsyncClient) -> None:
    for body in (b"my parcel", request(texts("my parcel", datatype="my parcel")), request(my="parcel", outputs=[1])):
        assert "parcel" not in error_of(await paper.post(INFER, content=body), 400)


FUZZED = make_app(PaperPlane())
HEADERS = st.dictionaries(
    st.sampled_from([HEADER_LENGTH, "Content-Encoding", "X-Request-Timeout-Ms"]),
    st.sampled_from(["", "0", "1", "-1", "40", "99999999999", "gzip", "deflate", "identity", "\xff", "٣"]),
    max_size=2,
)


@settings(deadline=None)
@given(
    body=st.binary(max_size=30) | sometimes(REQUEST).map(lambda fields: json.dumps(fields).encode()),
    tail=st.binary(max_size=8),
    headers=HEADERS,
    path=st.sampled_from(
        [INFER, "/v2/repository/index", "/v2/repository/models/acme/load", "/v2/repository/models/acme/unload"]
    ),
)
def test_whatever_comes_the_server_does_not_fail(body: bytes, tail: bytes, headers: dict[str, str], path: str) -> None:
    async def status() -> int:
        async with client_of(FUZZED) as client:
            raw = [(name, value.encode()) for name, value in headers.items()]
            answer = await client.post(path, content=body + tail, headers=raw)  # type: ignore[arg-type]
        assert (answer.status_code == 200) or set(answer.json()) == {"error"}
        return answer.status_code

    assert asyncio.run(status()) in {200, 400, 413, 415}


# Failures of the data plane


SECRET = "s3://bucket/tenants/acme"
FAILURES = [
    (TenantNotFound("there is no such tenant"), 404, None),
    (ModelNotFound("tenant acme has no model to serve: too few examples"), 404, None),
    (TenantThrottled("too much", retry_after_seconds=7), 429, "7"),
    (Overloaded(SECRET), 503, "1"),
    (NotReady(SECRET), 503, "5"),
    (BundleCorrupt(SECRET), 503, "30"),
    (LoadBackingOff(SECRET, retry_after_seconds=12.2), 503, "13"),
    (StoreError(SECRET), 503, "5"),
    (OutOfResources(SECRET), 507, None),
    (DeadlineExceeded(SECRET), 504, None),
]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/acme"),
        ("GET", "/v2/models/acme/versions/v1"),
        ("GET", "/v2/models/acme/ready"),
        ("GET", "/v2/models/acme/versions/v1/ready"),
        ("POST", INFER),
        ("POST", "/v2/models/acme/versions/v1/infer"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/acme/load"),
        ("POST", "/v2/repository/models/acme/unload"),
    ],
)
async def test_failures_are_told_in_the_protocols_form(
    plane: PaperPlane, paper: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    content = request() if path.endswith("infer") else b""
    for failure, status, retry in FAILURES:
        caplog.clear()
        plane.failure = failure
        answer = await paper.request(method, path, content=content)
        error = error_of(answer, status)
        assert SECRET not in error
        assert answer.headers.get("retry-after") == retry
        assert [record.levelno for record in caplog.records] == ([logging.WARNING] if status >= 500 else [])
        assert error == str(failure) or status >= 500
        assert "parcel" not in "".join(map(JsonFormatter().format, caplog.records))


async def test_what_nobody_expected_is_the_edges(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    plane.failure = RuntimeError(SECRET)
    assert SECRET not in error_of(await paper.post(INFER, content=request()), 500)


@pytest.mark.parametrize("path", ["/v2x", "/v20/models", "/", "/healthz"])
async def test_other_faces_keep_their_own_form(paper: httpx.AsyncClient, path: str) -> None:
    answer = await paper.post(path, content=b" " * (MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")


@pytest.mark.parametrize("path", [INFER, "/v2/models/acme/versions/v1/infer"])
async def test_nothing_further_is_done_for_a_caller_that_hangs_up_while_it_waits(plane: PaperPlane, path: str) -> None:
    working, ended = [], []

    async def never(tenant: str, text: str, **_: Any) -> Answer:
        working.append(text)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(text)
            raise
        raise AssertionError

    async def send(message: Any) -> None:
        raise AssertionError(message)

    plane.answer = never  # type: ignore[method-assign]
    metrics = Metrics()
    caller = Caller(path, request(texts("a", "b")))
    serving = asyncio.create_task(make_app(plane, metrics)(caller.scope, caller.receive, send))
    await spin()
    assert (working, ended, serving.done()) == (["a", "b"], [], False)
    caller.hang_up()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await serving
    assert sorted(ended) == ["a", "b"]
    assert not serving.cancelled()
    assert 'macrofleet_requests_total{face="v2",status="499"} 1.0' in metrics.exposition()[0].decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models"),
        ("GET", "/v2/models/acme/config"),
        ("GET", "/v2/models/acme/stats"),
        ("GET", "/v2/models/a%2Fb/ready"),
        ("GET", INFER),
        ("POST", "/v2/models/acme"),
        ("DELETE", "/v2/models/acme"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/repository/models/acme/reload"),
    ],
)
async def test_what_is_not_served_here(paper: httpx.AsyncClient, method: str, path: str) -> None:
    assert error_of(await paper.request(method, path), 404) == "There is no such endpoint."


@pytest.mark.parametrize("tenant", ["globex", "ACME", "acme%20", "acme%00", "%25", "x" * 64, "stats"])
@pytest.mark.parametrize("rest", ["", "/ready", "/versions/v1", "/infer", "/versions/v1/infer"])
async def test_a_model_that_is_not_there(paper: httpx.AsyncClient, tenant: str, rest: str) -> None:
    path = f"/v2/models/{tenant}{rest}"
    answer = await (paper.post(path, content=request()) if rest.endswith("infer") else paper.get(path))
    assert error_of(answer, 404) == "there is no such tenant"


# Health, metadata, the repository


async def test_health(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    assert (await paper.get("/v2/health/live")).json() == {"live": True}
    answer = await paper.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True})
    plane.is_ready = False
    answer = await paper.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (400, {"ready": False})
    assert (await paper.get("/v2/health/live")).status_code == 200


async def test_metadata_of_the_server(paper: httpx.AsyncClient) -> None:
    for path in ("/v2", "/v2/"):
        said = (await paper.get(path)).json()
        assert said["name"] == "macrofleet"
        assert said["version"]
        assert said["extensions"] == ["binary_tensor_data", "model_repository", "parameters"]


async def test_metadata_describe_what_inference_takes_and_gives(paper: httpx.AsyncClient) -> None:
    said = (await paper.get("/v2/models/acme")).json()
    assert (said["name"], said["platform"], said["versions"]) == ("acme", "macrofleet", ["v1"])
    answered = outputs_of(await paper.post(INFER, content=request()))
    assert {output["name"]: (output["datatype"], len(output["shape"])) for output in said["outputs"]} == {
        name: (output["datatype"], len(output["shape"])) for name, output in answered.items()
    }
    assert [(tensor["name"], tensor["datatype"]) for tensor in said["inputs"]] == [
        ("TEXT", "BYTES"),
        ("LIMIT", "INT32"),
    ]


FETCHING = ModelStatus(tenant="b", version="w", state="fetching")
SWAPPING = ModelStatus(tenant="c", version="new", serving_version="old", state="ready")
BROKEN = ModelStatus(tenant="d", version="x", state="absent", error=SECRET)
ABSENT = ModelStatus(tenant="e", version="y", state="absent")


async def test_only_the_version_that_serves_is_there(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    plane.statuses["c"] = SWAPPING
    plane.statuses["e"] = ABSENT
    for tenant, served, other in (("c", "old", "new"), ("e", "y", "1")):
        assert (await paper.get(f"/v2/models/{tenant}")).json()["versions"] == [served]
        assert (await paper.get(f"/v2/models/{tenant}/versions/{served}")).status_code == 200
        for path in (f"/v2/models/{tenant}/versions/{other}", f"/v2/models/{tenant}/versions/{other}/ready"):
            assert f"version {served} " in error_of(await paper.get(path), 404)
        answer = await paper.post(f"/v2/models/{tenant}/versions/{other}/infer", content=request())
        assert f"version {served} " in error_of(answer, 404)
    assert plane.asked == []


async def test_a_model_is_ready_while_it_is_in_memory(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    for status, ready in ((FETCHING, False), (SWAPPING, True), (BROKEN, False), (ABSENT, False)):
        plane.statuses["acme"] = status
        answer = await paper.get("/v2/models/acme/ready")
        assert (answer.status_code, answer.json()["ready"]) == (200 if ready else 400, ready)


async def test_the_index(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    plane.statuses |= {status.tenant: status for status in (FETCHING, SWAPPING, BROKEN, ABSENT)}
    answer = await paper.post("/v2/repository/index")
    assert [(entry["name"], entry["version"], entry["state"]) for entry in answer.json()] == [
        ("acme", "v1", "READY"),
        ("b", "w", "LOADING"),
        ("c", "old", "READY"),
        ("d", "x", "UNAVAILABLE"),
        ("e", "y", "UNAVAILABLE"),
    ]
    assert [bool(entry["reason"]) for entry in answer.json()] == [False, False, False, True, True]
    assert SECRET not in answer.text
    assert (await paper.post("/v2/repository/index", json={"ready": False})).json() == answer.json()
    some = await paper.post("/v2/repository/index", json={"ready": True})
    assert [entry["name"] for entry in some.json()] == ["acme", "c"]


async def test_load_and_unload(plane: PaperPlane, paper: httpx.AsyncClient) -> None:
    assert (await paper.post("/v2/repository/models/acme/load")).status_code == 200
    assert (await paper.post("/v2/repository/models/acme/load", json={"parameters": {}})).status_code == 200
    unload = {"parameters": {"unload_dependents": True}}
    assert (await paper.post("/v2/repository/models/acme/unload", json=unload)).status_code == 200
    assert plane.loads == ["+acme", "+acme", "-acme"]
    override = {"parameters": {"config": "{}"}}
    error_of(await paper.post("/v2/repository/models/acme/load", json=override), 400)
    error_of(await paper.post("/v2/repository/models/globex/load"), 404)
    error_of(await paper.post("/v2/repository/models/globex/unload"), 404)


@pytest.mark.parametrize("body", [b"x", b"[]", b"null", b'{"ready": 1}', b'{"parameters": []}', b"[" * 60_000])
@pytest.mark.parametrize("path", ["index", "models/acme/load", "models/acme/unload"])
async def test_a_repository_request_that_is_none(
    plane: PaperPlane, paper: httpx.AsyncClient, path: str, body: bytes
) -> None:
    error_of(await paper.post(f"/v2/repository/{path}", content=body), 400)
    assert plane.loads == []


# The real client and the real data plane, over a socket


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, bag: BuiltProgram) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("oip")
    store = LocalStore(folder / "store")
    publish_program(store, bag.folder)
    publish_tenants(store, ["acme", "other"], program=bag.digest, spec=bag.spec)
    publish_tenants(store, ["modest"], program=bag.digest, spec=bag.spec, seed=1, threshold=1.0)
    update_fleet(store, {"new": lambda _: FleetEntry(reason="too few examples")})
    settings = ServingSettings.model_validate(
        {
            "disk_folder": folder / "disk",
            "trusted_programs": frozenset({bag.digest}),
            "access": "open",
            "signing_key": "0123456789abcdef",
            "request_timeout_ms": 30_000,
        }
    )
    apps = create_apps(settings, store)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        """The two addresses of a server as one."""
        to_public = scope["type"] == "lifespan" or scope["path"].startswith("/v1/")
        await (apps.public if to_public else apps.operator)(scope, receive, send)

    with listening(both) as found:
        yield found


@pytest.fixture(scope="module")
def triton(address: str) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(address) as client:
        ends = time.monotonic() + PATIENCE_SECONDS
        while not client.is_server_ready():
            assert time.monotonic() < ends
            time.sleep(0.01)
        yield client


def text(*said: str, binary: bool = True) -> InferInput:
    made = InferInput("TEXT", [len(said)], "BYTES")
    return made.set_data_from_numpy(np.array(said, dtype=np.object_), binary_data=binary)


def limit(value: int) -> InferInput:
    return InferInput("LIMIT", [1], "INT32").set_data_from_numpy(np.array([value], np.int32))


PARCEL = "My parcel has not arrived, where is it?"


def test_health_and_metadata_by_the_client(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.get_server_metadata()["name"] == "macrofleet"
    model = triton.get_model_metadata("acme")
    (version,) = model["versions"]
    assert triton.get_model_metadata("acme", version) == model
    with pytest.raises(InferenceServerException, match=f"version {version} of acme") as caught:
        triton.get_model_metadata("acme", "1")
    assert caught.value.status() == "404"
    assert not triton.is_model_ready("globex")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_inference_by_the_client_is_what_the_product_answers(
    triton: InferenceServerClient, address: str, binary_in: bool, binary_out: bool | None
) -> None:
    said = [PARCEL, "Schöne Grüße 😀 refund", "password"]
    names = ["MACRO_ID", "TITLE", "SCORE", "ABSTAINED"]
    wanted = None if binary_out is None else [InferRequestedOutput(name, binary_data=binary_out) for name in names]
    found = triton.infer("acme", [text(*said, binary=binary_in)], outputs=wanted, request_id="r1")
    assert found.get_response()["id"] == "r1"
    for row, one in enumerate(said):
        product = httpx.post(f"http://{address}/v1/tenants/acme/suggestions", json=ticket(one), timeout=30).json()
        assert found.get_response()["model_version"] == product["model_version"]
        ids, titles = found.as_numpy("MACRO_ID")[row], found.as_numpy("TITLE")[row]
        as_text = [part.decode() if isinstance(part, bytes) else part for part in (*ids, *titles)]
        assert as_text == [macro[key] for key in ("id", "title") for macro in product["macros"]]
        assert found.as_numpy("SCORE")[row].tolist() == [np.float32(macro["score"]) for macro in product["macros"]]
        assert found.as_numpy("ABSTAINED")[row] == product["abstained"]


def test_limit_and_abstention_by_the_client(triton: InferenceServerClient) -> None:
    found = triton.infer("modest", [text(PARCEL, "refund"), limit(2)])
    assert found.as_numpy("ABSTAINED").tolist() == [True, True]
    assert found.as_numpy("MACRO_ID").tolist() == [[b"", b""]] * 2
    assert found.as_numpy("SCORE").tolist() == [[0, 0]] * 2
    ids = found.as_numpy("SUGGESTION_ID").tolist()
    assert len(set(ids)) == 2


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression_by_the_client(triton: InferenceServerClient, compression: str) -> None:
    plain = triton.infer("acme", [text(PARCEL)], request_id="r")
    packed = triton.infer(
        "acme",
        [text(PARCEL)],
        request_id="r",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    assert packed.get_response() == plain.get_response()
    assert packed.as_numpy("SUGGESTION_ID").tolist() == plain.as_numpy("SUGGESTION_ID").tolist()


def test_the_repository_by_the_client(triton: InferenceServerClient) -> None:
    def states() -> dict[str, str]:
        return {entry["name"]: entry["state"] for entry in triton.get_model_repository_index()}

    triton.load_model("other")
    assert triton.is_model_ready("other")
    assert states()["other"] == "READY"
    triton.unload_model("other")
    assert not triton.is_model_ready("other")
    assert set(states()) == {"acme", "modest", "other"}
    assert states()["other"] == "UNAVAILABLE"
    triton.unload_model("other", unload_dependents=True)
    version = triton.get_model_metadata("other")["versions"][0]
    assert triton.infer("other", [text(PARCEL)], model_version=version).get_response()["model_version"] == version
    assert triton.is_model_ready("other", version)


@pytest.mark.parametrize(
    ("model", "version", "inputs", "options", "status", "message"),
    [
        ("globex", "", [text("a")], {}, "404", "no such tenant"),
        ("new", "", [text("a")], {}, "404", "too few examples"),
        ("acme", "1", [text("a")], {}, "404", "this server serves version"),
        ("acme", "", [text(" ")], {}, "400", "nothing to read"),
        ("acme", "", [limit(1)], {}, "400", "the inputs are TEXT"),
        ("acme", "", [text("a"), limit(9)], {}, "400", "from 1 to 3"),
        ("acme", "", [text(*"a" * 33)], {}, "400", "1 to 32 tickets"),
        ("acme", "", [text("a")], {"outputs": [InferRequestedOutput("X")]}, "400", "the outputs are"),
        ("acme", "", [text("a")], {"timeout": 1}, "504", "deadline"),
    ],
)
def test_what_the_client_is_told(
    triton: InferenceServerClient,
    model: str,
    version: str,
    inputs: list[InferInput],
    options: dict[str, Any],
    status: str,
    message: str,
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        triton.infer(model, inputs, model_version=version, **options)
    assert caught.value.status() == status


def test_bytes_that_are_not_text_by_the_client(triton: InferenceServerClient) -> None:
    latin = InferInput("TEXT", [1], "BYTES")
    latin.set_data_from_numpy(np.array(["café".encode("latin-1")], dtype=np.object_))
    with pytest.raises(InferenceServerException, match="element 0 is not UTF-8"):
        triton.infer("acme", [latin])


def test_the_client_at_many_things_at_once(address: str, triton: InferenceServerClient) -> None:
    with InferenceServerClient(address, concurrency=4) as client:
        waiting = [client.async_infer("acme", [text(f"parcel {index}")]) for index in range(8)]
        shapes = [one.get_result().as_numpy("SCORE").shape for one in waiting]
    assert shapes == [(1, 3)] * 8


def test_requests_by_hand(address: str, triton: InferenceServerClient) -> None:
    """What `docs/open-inference.md` shows."""
    answer = httpx.post(
        f"http://{address}{INFER}",
        json={"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": [PARCEL]}]},
        timeout=30,
    )
    assert [len(output["data"]) for output in outputs_of(answer).values()] == [3, 3, 3, 1, 1]
    for name in ("..%2F..%2Fetc", "%2e%2e", "acme%2F..%2Facme"):
        assert httpx.get(f"http://{address}/v2/models/{name}").status_code == 404


def test_the_clients_library_leaves_sockets_alone() -> None:
    from gevent import monkey  # type: ignore[import-untyped]

    assert not monkey.is_module_patched("socket")
