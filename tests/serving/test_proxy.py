"""A real Envoy with our configuration, before servers of a few lines: who is asked, what is tried again, what passes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import httpx
import pytest

from serving.errors import ELSEWHERE, ELSEWHERE_HEADER
from serving.proxy.ring import replica_ring
from serving.proxy.routes import Face
from tests.serving.helpers import eventually
from tests.serving.proxied import StandIn, World, answer, world

SUGGEST, FEEDBACK = "/v1/tenants/acme/suggestions", "/v1/tenants/acme/feedback"
BODY = {"ticket": {"id": "1"}}


@pytest.fixture(scope="module")
async def behind() -> AsyncIterator[World]:
    async with world(request_timeout_seconds=0.5) as made:
        yield made


@pytest.fixture
async def made(behind: World) -> World:
    behind.forget()
    await behind.show(behind.servers)
    return behind


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as made:
        yield made


def owner_of(made: World, tenant: str = "acme") -> StandIn:
    name = replica_ring([server.name for server in made.servers]).owner(tenant)
    return next(server for server in made.servers if server.name == name)


async def until_answered(client: httpx.AsyncClient, url: str, status: int) -> None:
    """Ask until this is the answer: Envoy's workers follow what its main thread has said a moment later."""
    async with asyncio.timeout(10):
        while (await client.post(url, json=BODY)).status_code != status:
            await asyncio.sleep(0.01)


def times_asked(made: World) -> int:
    return sum(len(server.asked) for server in made.servers)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_passes_with_what_it_says(made: World, client: httpx.AsyncClient, status: int) -> None:
    refusal = answer(status, b'{"type":"urn:macrofleet:problem:throttled"}', {"Retry-After": "7"})
    owner_of(made).respond = lambda *_: refusal
    got = await client.post(made.proxy.url("public") + SUGGEST, json=BODY)
    assert (got.status_code, got.headers["Retry-After"]) == (status, "7")
    assert got.json() == {"type": "urn:macrofleet:problem:throttled"}
    assert times_asked(made) == 1


@pytest.mark.anyio
async def test_what_another_may_answer_is_asked_of_another(made: World, client: httpx.AsyncClient) -> None:
    owner = owner_of(made)
    owner.respond = lambda *_: answer(503, headers={"Retry-After": "5", ELSEWHERE_HEADER: ELSEWHERE})
    got = await client.post(made.proxy.url("public") + SUGGEST, json=BODY)
    assert got.status_code == 200
    assert got.json()["server"] != owner.name
    assert [len(owner.asked), times_asked(made)] == [1, 2]

    for server in made.servers:
        server.respond = owner.respond
    got = await client.post(made.proxy.url("public") + SUGGEST, json=BODY)
    assert (got.status_code, got.headers["Retry-After"]) == (503, "5")
    assert ELSEWHERE_HEADER not in got.headers  # it was for the proxy
    assert times_asked(made) == 5


@pytest.mark.anyio
@pytest.mark.parametrize("path", [SUGGEST, SUGGEST + "/batch", FEEDBACK])
async def test_a_connection_that_breaks_costs_no_answer(made: World, client: httpx.AsyncClient, path: str) -> None:
    owner = owner_of(made)
    owner.respond = lambda *_: None
    got = await client.post(made.proxy.url("public") + path, json=BODY)
    assert got.status_code == 200
    assert [len(owner.asked), times_asked(made)] == [1, 2]
    assert all(json.loads(asked.body) == BODY for server in made.servers for asked in server.asked)


@pytest.mark.anyio
@pytest.mark.parametrize(("face", "path"), [("operator", "/v2/repository/models/acme/load"), ("sagemaker", "/models")])
async def test_what_changes_a_server_is_not_sent_twice(
    made: World, client: httpx.AsyncClient, face: Face, path: str
) -> None:
    for server in made.servers:
        server.respond = lambda *_: None
    got = await client.post(made.proxy.url(face) + path, json=BODY)
    assert got.status_code == 503
    assert times_asked(made) == 1


@pytest.mark.anyio
async def test_who_cannot_be_reached_is_passed_over(made: World, client: httpx.AsyncClient) -> None:
    owner = owner_of(made)
    await owner.close()
    try:
        answers = [await client.post(made.proxy.url("public") + SUGGEST, json=BODY) for _ in range(10)]
        loads = await client.post(made.proxy.url("operator") + "/v2/repository/models/acme/load", json=BODY)
        assert {got.status_code for got in (*answers, loads)} == {200}  # nothing had been sent
        assert await made.proxy.settled("public", [server.port for server in made.servers if server is not owner])
    finally:
        await owner.open()


@pytest.mark.anyio
async def test_who_hangs_is_passed_over_after_its_deadline(made: World, client: httpx.AsyncClient) -> None:
    owner = owner_of(made)
    release = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
            await release.wait()
        writer.close()

    port = owner.port
    await owner.close()
    hanging = await asyncio.start_server(silent, "127.0.0.1", port)
    try:
        got = await client.post(made.proxy.url("public") + SUGGEST, json=BODY)
        assert got.status_code == 200
        assert got.json()["server"] != owner.name
    finally:
        release.set()
        hanging.close()
        await owner.open()


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "deadline_ms"), [(SUGGEST, 200), (SUGGEST + "/batch", 400), (FEEDBACK, 200)])
async def test_a_callers_deadline_is_kept_where_servers_hang(
    made: World, client: httpx.AsyncClient, path: str, deadline_ms: int
) -> None:
    """Or it would wait for a minute, for which this client has no patience. It is too short to ask another, and a batch is
    never asked twice at once."""
    for server in made.servers:
        server.held = asyncio.Event()
    got = await client.post(
        made.proxy.url("public") + path, json=BODY, headers={"X-Request-Timeout-Ms": str(deadline_ms)}
    )
    assert (got.status_code, got.json()["type"]) == (504, "urn:macrofleet:problem:deadline-exceeded")
    (asked,) = [asked for server in made.servers for asked in server.asked]
    assert asked.headers["x-request-timeout-ms"] == str(deadline_ms)  # the server keeps to it as well


@pytest.mark.anyio
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
async def test_another_is_asked_as_well_when_two_thirds_of_a_deadline_have_passed(
    made: World, client: httpx.AsyncClient, first: bool
) -> None:
    """Whoever answers first is heard: the one that was slow is not given up."""
    owner = owner_of(made)
    for server in made.servers:
        server.held = asyncio.Event()
    asking = asyncio.create_task(
        client.post(made.proxy.url("public") + SUGGEST, json=BODY, headers={"X-Request-Timeout-Ms": "1800"})
    )
    await eventually(lambda: times_asked(made) == 2)
    for server in made.servers:
        assert server.held is not None
        if (server is owner) is first:
            server.held.set()
    got = await asking
    assert got.status_code == 200
    assert (got.json()["server"] == owner.name) is first


@pytest.mark.anyio
@pytest.mark.parametrize("odd", ["0", "-1", "60001", "soon", "1.5"])
async def test_what_is_no_deadline_is_the_servers_to_refuse(made: World, client: httpx.AsyncClient, odd: str) -> None:
    owner_of(made).respond = lambda *_: answer(422)
    got = await client.post(made.proxy.url("public") + SUGGEST, json=BODY, headers={"X-Request-Timeout-Ms": odd})
    assert got.status_code == 422
    (asked,) = owner_of(made).asked
    assert asked.headers["x-request-timeout-ms"] == odd


@pytest.mark.anyio
async def test_nobody_is_there(made: World, client: httpx.AsyncClient) -> None:
    for server in made.servers:
        server.ready = False
    assert await made.proxy.settled("public", [])
    await until_answered(client, made.proxy.url("public") + SUGGEST, 503)
    got = await client.post(made.proxy.url("public") + SUGGEST + "?x=1", json=BODY, headers={"X-Request-Id": "r1"})
    assert (got.status_code, got.headers["Retry-After"]) == (503, "1")
    assert got.headers["Content-Type"] == "application/problem+json"
    assert got.json() == {
        "type": "urn:macrofleet:problem:not-ready",
        "title": "Not ready",
        "status": 503,
        "detail": "No server takes requests now.",
        "instance": SUGGEST,
        "request_id": "r1",
    }
    assert got.headers["X-Request-Id"] == "r1"
    assert await made.proxy.settled("operator", [])
    await until_answered(client, made.proxy.url("operator") + "/v2/models/acme/infer", 503)
    asked = times_asked(made)
    got = await client.post(made.proxy.url("operator") + "/v2/models/acme/infer", json=BODY)
    assert (got.status_code, got.json()) == (503, {"error": "No server takes requests now."})
    assert times_asked(made) == asked


@pytest.mark.anyio
async def test_headers_that_steer_the_proxy_are_not_the_callers(made: World, client: httpx.AsyncClient) -> None:
    sent = {
        "X-Envoy-Retry-On": "5xx",
        "X-Envoy-Max-Retries": "50",
        "X-Envoy-Upstream-Rq-Timeout-Ms": "1",
        "X-Envoy-Upstream-Alt-Stat-Name": "x",
        "X-Envoy-Internal": "true",
        "X-Envoy-Decorator-Operation": "x",
        "Authorization": "Bearer mf_x",
        "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    owner_of(made).respond = lambda *_: answer(500)
    got = await client.post(made.proxy.url("public") + SUGGEST, json=BODY, headers=sent)
    assert got.status_code == 500
    assert times_asked(made) == 1
    (asked,) = owner_of(made).asked
    assert [name for name in asked.headers if name.startswith("x-envoy-")] == ["x-envoy-external-address"]
    assert asked.headers["authorization"] == "Bearer mf_x"
    assert asked.headers["traceparent"] == sent["Traceparent"]
    assert not [name for name in got.headers if name.startswith("x-envoy") or name == "server"]
    got = await client.post(made.proxy.url("public") + SUGGEST, json=BODY, headers={"x_request_id": "1"})
    assert got.status_code == 400


@pytest.mark.anyio
async def test_only_the_protocol_is_on_the_operators_face(made: World, client: httpx.AsyncClient) -> None:
    for path in ("/admin/models", "/metrics", "/v2/../admin/models", "/v2x", "/"):
        got = await client.get(httpx.URL(made.proxy.url("operator"), path=path))
        assert (got.status_code, got.json()) == (404, {"error": "This is not served here."}), path
    assert times_asked(made) == 0
    for path in ("/v2", "/v2/health/ready", "/v2/models/acme", "/healthz"):
        assert (await client.get(made.proxy.url("operator") + path)).status_code == 200, path


@pytest.mark.anyio
async def test_every_face_asks_the_same_replica(made: World, client: httpx.AsyncClient) -> None:
    owner = owner_of(made)
    paths: list[tuple[Face, str]] = [
        ("public", SUGGEST),
        ("public", SUGGEST + "?limit=1"),
        ("public", SUGGEST + "/batch"),
        ("public", FEEDBACK),
        ("operator", "/v2/models/acme/infer"),
        ("operator", "/v2/models/acme/versions/1/infer"),
        ("operator", "/v2/models/acme"),
        ("operator", "/v2/repository/models/acme/load"),
        ("sagemaker", "/models/acme/invoke"),
        ("sagemaker", "/models/acme"),
    ]
    for face, path in paths:
        await client.post(made.proxy.url(face) + path, json=BODY)
        assert owner.asked.pop().path == path
    for path in ("/invocations", "/models", "/models/x7/invoke"):
        headers = {"X-Amzn-SageMaker-Target-Model": "acme"}
        await client.post(made.proxy.url("sagemaker") + path, json=BODY, headers=headers)
        assert owner.asked.pop().path == path
    assert times_asked(made) == 0


@pytest.mark.anyio
async def test_who_is_at_its_bound_passes_requests_on(made: World) -> None:
    """Of one tenant's requests that are under way, half stay with its own of three replicas: 150 % of the mean. The others
    go to the next, up to its bound, and so on.

    They come one after the other, since Envoy counts a request from when it has a connection.
    """
    count, held = 60, asyncio.Event()
    for server in made.servers:
        server.held = held
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=count)) as client:
        url = made.proxy.url("public") + SUGGEST
        patient = {"X-Request-Timeout-Ms": "20000"}
        under_way = []
        for number in range(count):
            under_way.append(asyncio.create_task(client.post(url, json=BODY, headers=patient)))
            await eventually(lambda number=number: times_asked(made) > number)  # type: ignore[misc]
        assert await made.proxy.under_way("public") == count
        held.set()
        assert {got.status_code for got in await asyncio.gather(*under_way)} == {200}
    asked = sorted(len(server.asked) for server in made.servers)
    assert asked[-1] == len(owner_of(made).asked)
    assert abs(asked[-1] - count / 2) <= 2
    assert asked[1] >= count / 2 - 2
