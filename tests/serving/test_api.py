"""The contract of the product API, against a server with a real program."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from benchmarks.fleets import publish_tenants
from registry.catalogue import make_catalogue, read_catalogue, write_catalogue
from registry.disk.tier import DiskTier
from registry.errors import UnknownMacro
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.layout import catalogue_key
from registry.model.program import publish_program
from registry.model.runtime import Program
from registry.store import ObjectStore
from registry.store.local import LocalStore
from registry.text.ticket import ticket_text
from serving.app import create_app, create_apps
from serving.engine.executor import Executor
from serving.errors import PROBLEMS, TOO_LARGE, ProblemDetails
from serving.faces.edge import MAX_BODY_BYTES
from serving.faces.product import SuggestionResponse, _parse
from serving.logs import JsonFormatter
from serving.offline import explain_offline
from serving.settings import ServingSettings
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, Caller, serving, spin, ticket, until_ready

pytestmark = pytest.mark.anyio
ACME = "/v1/tenants/acme/suggestions"
SCOPE = {"type": "http", "method": "POST", "path": ACME, "raw_path": ACME.encode(), "query_string": b"", "headers": []}
NOT_TENANTS = [
    *("globex", "ACME", "Acme", "-acme", "", "x" * 64, "acm%C3%A9"),
    *("acme/x", "acme%2Fx", "..%2Facme", "%2E%2E", "%2e%2e%2f%2e%2e", "%25%32%46"),
    *("acme%20", "acme%00", "acme%3F"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def store(folder: Path, bag: BuiltProgram) -> ObjectStore:
    made = LocalStore(folder / "store")
    publish_program(made, bag.folder)
    publish_tenants(made, ["acme", "quiet", "bare"], program=bag.digest, spec=bag.spec)
    publish_tenants(made, ["modest"], program=bag.digest, spec=bag.spec, seed=1, threshold=1.0)
    update_fleet(made, {"new": lambda _: FleetEntry(reason="too few examples")})
    found = read_catalogue(made, "quiet")
    assert found is not None
    off = [macro.model_copy(update={"active": False}) for macro in found[0].macros]
    write_catalogue(made, "quiet", make_catalogue(off), etag=found[1])
    made.delete(catalogue_key("bare"))
    return made


@pytest.fixture(scope="module")
def settings(folder: Path, bag: BuiltProgram) -> ServingSettings:
    return ServingSettings.model_validate(
        {
            "disk_folder": folder / "disk",
            "trusted_programs": frozenset({bag.digest}),
            "access": "open",
            "signing_key": "0123456789abcdef",
            "request_timeout_ms": 30_000,
            "answer_bytes": 0,  # or a ticket that is sent twice would not reach a model
        }
    )


@pytest.fixture(scope="module")
def app(settings: ServingSettings, store: ObjectStore) -> FastAPI:
    return create_app(settings, store)


@pytest.fixture(scope="module")
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(app) as client:
        await until_ready(client)
        yield client


def check_problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:macrofleet:problem:{kind}"
    assert problem["status"] == status
    assert {"title", "detail", "instance", "request_id"} <= set(problem)
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    return problem


async def test_an_answer(client: httpx.AsyncClient, store: ObjectStore) -> None:
    answer = await client.post(ACME, json=ticket())
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"suggestion_id", "model_version", "abstained", "held_back", "reason", "macros"}
    assert body["model_version"] == read_fleet(store).entries["acme"].version
    assert (body["abstained"], body["reason"]) == (False, None)
    assert len(body["macros"]) == 3
    scores = [macro["score"] for macro in body["macros"]]
    assert scores == sorted(scores, reverse=True)
    assert body["macros"][0]["title"] == f"Macro {body['macros'][0]['id'][1:]}"


async def test_everything_that_a_request_may_hold(client: httpx.AsyncClient) -> None:
    body = {
        "ticket": {
            "id": "4711",
            "revision": 3,
            "subject": "Parcel",
            "comments": [
                {"author": "customer", "public": True, "body": "Where?", "created_at": "2026-11-03T09:12:00Z"}
            ],
            "channel": "email",
            "locale": "en-GB",
        },
        "agent": {"id": "a-17", "groups": ["support"]},
        "limit": 1,
        "exclude": ["m0"],
        "explain": False,
    }
    answer = await client.post(ACME, json=body)
    assert answer.status_code == 200
    assert len(answer.json()["macros"]) == 1


async def test_the_same_ticket_gets_the_same_answer_and_the_same_id(client: httpx.AsyncClient) -> None:
    first, again = await client.post(ACME, json=ticket()), await client.post(ACME, json=ticket())
    assert first.content == again.content
    revised = ticket()
    revised["ticket"]["revision"] = 1
    other = (await client.post(ACME, json=revised)).json()
    assert other["macros"] == first.json()["macros"]
    assert other["suggestion_id"] != first.json()["suggestion_id"]


async def test_a_server_scores_as_the_runtime_does(
    client: httpx.AsyncClient, settings: ServingSettings, store: ObjectStore, bag: BuiltProgram
) -> None:
    entry = read_fleet(store).entries["acme"]
    assert entry.version
    assert entry.manifest
    program = Program(bag.folder, trusted=frozenset({bag.digest}))
    tier = DiskTier(settings.disk_folder, store, trusted=settings.trusted_programs)
    model = program.bind(tier.map_model("acme", entry.version, entry.manifest))
    texts = [f"{words} 4711?" for words in ("Where is my order", "Cancel order", "Größe ändern:", "注文")]
    # Together, so that they are featurised in batches; offline one by one.
    answers = await asyncio.gather(*(client.post(ACME, json=ticket(text)) for text in texts * 5))
    for text, answer in zip(texts * 5, answers, strict=True):
        expected = model.score_in_program(program.featurise([ticket_text("", [text])]))[0]
        by_id = {label.id: float(score) for label, score in zip(model.labels, expected, strict=True)}
        best = sorted(by_id.values(), reverse=True)[:3]
        assert [macro["score"] for macro in answer.json()["macros"]] == pytest.approx(best, abs=1e-5)
        for macro in answer.json()["macros"]:
            assert macro["score"] == pytest.approx(by_id[macro["id"]], abs=1e-5)


async def scores_for(client: httpx.AsyncClient, **fields: Any) -> list[Any]:
    answer = await client.post(ACME, json={"ticket": {"id": "1", **fields}})
    assert answer.status_code == 200, answer.text
    macros: list[Any] = answer.json()["macros"]
    return macros


def comment(body: str, *, author: str = "customer", public: bool = True, at: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"author": author, "public": public, "body": body}
    return made if at is None else {**made, "created_at": at}


async def test_a_model_reads_the_public_words_of_the_customer_only(client: httpx.AsyncClient) -> None:
    plain = await scores_for(client, subject="Parcel", comments=[comment("Where is it?")])
    more = [comment("Hello, I am Bob", author="agent"), comment("Where is it?"), comment("odd customer", public=False)]
    assert await scores_for(client, subject="Parcel", comments=more) == plain
    assert await scores_for(client, subject="Parcel", comments=[comment("Refund please")]) != plain


async def test_comments_are_read_by_time_where_all_have_one(client: httpx.AsyncClient) -> None:
    early, late = "2026-11-03T09:00:00Z", "2026-11-03T09:30:00+01:00"  # the second one is the earlier moment
    dated = [comment("first", at=early), comment("x", at=early), comment("second", at=late)]
    assert await scores_for(client, comments=dated) == await scores_for(client, subject="second\nx")
    undated = [*dated, comment("last")]
    assert await scores_for(client, comments=undated) == await scores_for(client, subject="first\nlast")


async def test_exclusion(client: httpx.AsyncClient) -> None:
    best = (await client.post(ACME, json=ticket())).json()["macros"]
    rest = (await client.post(ACME, json=ticket(exclude=[best[0]["id"], "unheard-of"]))).json()["macros"]
    assert rest[:2] == best[1:]


async def test_abstention(client: httpx.AsyncClient) -> None:
    modest = (await client.post("/v1/tenants/modest/suggestions", json=ticket())).json()
    assert (modest["abstained"], modest["reason"], modest["macros"]) == (True, "below_threshold", [])
    quiet = (await client.post("/v1/tenants/quiet/suggestions", json=ticket())).json()
    assert (quiet["abstained"], quiet["reason"], quiet["macros"]) == (True, "no_active_macro", [])


async def test_a_tenant_without_a_catalogue(client: httpx.AsyncClient) -> None:
    check_problem(await client.post("/v1/tenants/bare/suggestions", json=ticket()), 503, "catalogue-unavailable")


async def test_a_tenant_without_a_model(client: httpx.AsyncClient) -> None:
    problem = check_problem(await client.post("/v1/tenants/new/suggestions", json=ticket()), 409, "no-model")
    assert "too few examples" in problem["detail"]


@pytest.mark.parametrize("name", NOT_TENANTS)
async def test_whatever_is_no_tenant_is_unknown_alike(app: FastAPI, client: httpx.AsyncClient, name: str) -> None:
    # Sent raw: a client library would tidy such an address up.
    url = httpx.URL("http://test").copy_with(raw_path=f"/v1/tenants/{name}/suggestions".encode())
    problem = check_problem(await client.post(url, json=ticket()), 404, "tenant-not-found")
    assert problem["detail"] == "there is no such tenant"
    assert problem["title"] == "Unknown tenant"


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/tenants", "/v1/tenants/acme", f"{ACME}/", "/docs", "/admin", "/v1/tenants/acme%0A/suggestions"],
)
async def test_unknown_addresses(client: httpx.AsyncClient, path: str) -> None:
    check_problem(await client.post(path, json=ticket()), 404, "not-found")


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_there_is_no_page_that_fetches_scripts_from_elsewhere(client: httpx.AsyncClient, path: str) -> None:
    check_problem(await client.get(path), 404, "not-found")


async def test_other_methods(client: httpx.AsyncClient) -> None:
    answer = await client.get(ACME)
    check_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


def without(*path: str) -> bytes:
    body = {"ticket": {"id": "1", "subject": "x", "comments": [{"author": "customer", "body": "y"}]}}
    place: Any = body
    for name in path[:-1]:
        place = place[int(name) if name.isdecimal() else name]
    del place[path[-1]]
    return json.dumps(body).encode()


def with_fields(**fields: Any) -> bytes:
    return json.dumps(ticket(**fields)).encode()


def of_ticket(**fields: Any) -> bytes:
    return json.dumps({"ticket": {"id": "1", "subject": "x", **fields}}).encode()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'{"ticket": {"id": "1", "subject": "caf\xe9"}}', "body"),
        ('{"ticket": {"id": "1", "subject": "x"}}'.encode("utf-16"), "body"),
        (b'{"ticket": {"id": "1", "subject": "\\ud800"}}', "body"),
        (b"[" * 5000, "body"),
        (without("ticket"), "ticket"),
        (without("ticket", "id"), "ticket.id"),
        (without("ticket", "comments", "0", "author"), "ticket.comments.0.author"),
        (of_ticket(id=1), "ticket.id"),
        (of_ticket(id=""), "ticket.id"),
        (of_ticket(revision=-1), "ticket.revision"),
        (of_ticket(priority="high"), "ticket.priority"),
        (of_ticket(comments=[comment("x", at="2026-11-03T09:00:00")]), "ticket.comments.0.created_at"),
        (of_ticket(comments=[comment("x", author="robot")]), "ticket.comments.0.author"),
        (with_fields(limit=0), "limit"),
        (with_fields(limit=4), "limit"),
        (with_fields(limit="3"), "limit"),
        (with_fields(limit=True), "limit"),
        (with_fields(exclude="m0"), "exclude"),
        (with_fields(explain="yes"), "explain"),
        (with_fields(verbose=True), "verbose"),
        (with_fields(agent={}), "agent.id"),
    ],
)
async def test_malformed_requests(client: httpx.AsyncClient, body: bytes, field: str) -> None:
    problem = check_problem(await client.post(ACME, content=body), 422, "invalid-request")
    assert [found["field"] for found in problem["fields"]] == [field]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (of_ticket(comments=[{}] * 20_000), ["ticket.comments.0.author", "ticket.comments.0.body"]),
        (with_fields(exclude=[""] * 1_000), ["exclude.0"]),
        (with_fields(agent={"id": "a", "groups": [1] * 20_000}), ["agent.groups.0"]),
    ],
)
def test_of_a_row_the_first_wrong_element_is_told(body: bytes, fields: list[str]) -> None:
    with pytest.raises(RequestValidationError) as error:
        _parse(body)
    # What is made of each takes the event loop's time, however few are then told.
    assert [".".join(map(str, found["loc"])) for found in error.value.errors()] == fields


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"subject": ""},
        {"subject": " \n\t"},
        {"subject": None},
        {"subject": "\u200b"},
        {"subject": "\u2028\u2060\u3000", "comments": [comment("\ufeff\u00ad \x7f\x85"), comment("\u202e")]},
        {"comments": [comment("only an agent spoke", author="agent"), comment("in private", public=False)]},
    ],
)
async def test_a_ticket_without_text(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    problem = check_problem(await client.post(ACME, json={"ticket": {"id": "1", **fields}}), 422, "invalid-request")
    assert "no text" in problem["detail"]


async def test_what_cannot_be_seen_does_no_harm_beside_what_can(client: httpx.AsyncClient) -> None:
    assert await scores_for(client, subject="\u200bParcel", comments=[comment("\u200b")])


async def test_an_administrator_is_told_what_drove_each_suggestion(client: httpx.AsyncClient) -> None:
    plain = (await client.post(ACME, json=ticket("where is my parcel"))).json()
    explained = (await client.post(ACME, json=ticket("where is my parcel", explain=True))).json()
    assert SuggestionResponse.model_validate(explained).model_dump() == explained
    for macro in explained["macros"]:
        contributions = macro.pop("explanation")
        assert contributions
        assert {part for one in contributions for part in one["text"].split()} <= {"where", "is", "my", "parcel"}
        figures = [one["contribution"] for one in contributions]
        assert figures == sorted(figures, reverse=True)
    assert explained == plain


async def test_the_command_explains_as_the_server_does(
    client: httpx.AsyncClient, settings: ServingSettings, store: ObjectStore
) -> None:
    served = (await client.post(ACME, json=ticket("where is my parcel", explain=True))).json()["macros"]
    report = explain_offline(store, "acme", "<p>where is my parcel</p>", settings=settings)
    assert report["text"] == "where is my parcel"
    assert [macro["explanation"] for macro in report["macros"]] == [macro["explanation"] for macro in served]
    last = explain_offline(store, "acme", "where is my parcel", macro="m3", settings=settings)
    assert [macro["id"] for macro in last["macros"]] == ["m3"]
    modest = explain_offline(store, "modest", "where is my parcel", settings=settings)
    assert (modest["abstained"], modest["reason"], len(modest["macros"])) == (True, "below_threshold", 3)
    with pytest.raises(UnknownMacro, match="'m99999'"):
        explain_offline(store, "acme", "where is my parcel", macro="m99999", settings=settings)


async def test_explaining_nothing(client: httpx.AsyncClient) -> None:
    modest = (await client.post("/v1/tenants/modest/suggestions", json=ticket(explain=True))).json()
    assert (modest["reason"], modest["macros"]) == ("below_threshold", [])


async def test_where_anybody_may_ask_only_the_operators_address_explains(
    settings: ServingSettings, store: ObjectStore
) -> None:
    apps = create_apps(settings.model_copy(update={"insecure": True}), store)
    async with serving(apps.public) as client:
        await until_ready(client)
        check_problem(await client.post(ACME, json=ticket(explain=True)), 403, "not-permitted")
        assert (await client.post(ACME, json=ticket())).status_code == 200
        transport = httpx.ASGITransport(app=apps.operator)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as operator:
            answer = await operator.post(ACME, json=ticket(explain=True))
            assert all("explanation" in macro for macro in answer.json()["macros"])


async def test_a_refusal_repeats_nothing_of_the_ticket(client: httpx.AsyncClient) -> None:
    secret = "my card is 4111 1111"
    bodies: list[dict[str, Any]] = [
        {"ticket": {"id": "1", "subject": {"text": secret}}},
        {"ticket": {"id": "1", "subject": "x", secret: 1}},
        {"ticket": {"id": "1", "comments": [comment("x", author=secret)]}},
        {"ticket": {"id": "1", "comments": [{**comment("x"), "created_at": secret}]}},
        {"ticket": secret},
    ]
    for body in bodies:
        answer = await client.post(ACME, json=body)
        assert answer.status_code == 422
        assert "4111" not in answer.text
    assert "4111" not in (await client.post(ACME, content=f'{{"ticket": "{secret}'.encode())).text


@pytest.mark.parametrize("size", [MAX_BODY_BYTES + 1, 1_000_000])
async def test_large_bodies(client: httpx.AsyncClient, size: int) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(0, size, 1000):
            yield b" " * 1000
        yield json.dumps(ticket()).encode()

    check_problem(await client.post(ACME, content=b" " * size), 413, "too-large")
    check_problem(await client.post(ACME, content=chunks()), 413, "too-large")


async def test_the_body_limit_is_what_it_says(client: httpx.AsyncClient) -> None:
    body = json.dumps(ticket()).encode()
    assert (await client.post(ACME, content=body + b" " * (MAX_BODY_BYTES - len(body)))).status_code == 200
    long = {"ticket": {"id": "1", "subject": "x " * 30_000}}
    assert (await client.post(ACME, json=long)).status_code == 200


async def test_reading_stops_where_the_limit_is(app: FastAPI, client: httpx.AsyncClient) -> None:
    reads = 0
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        nonlocal reads
        reads += 1
        return {"type": "http.request", "body": b" " * 32_000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(SCOPE, receive, send)
    assert sent[0]["status"] == 413
    assert reads == 3


async def test_a_caller_that_hangs_up_is_not_answered(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    await app(SCOPE, receive, send)


@pytest.mark.usefixtures("stuck")
async def test_nothing_further_is_done_for_a_caller_that_hangs_up_while_it_waits(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    async def send(message: Any) -> None:
        raise AssertionError(message)

    caller = Caller(ACME, json.dumps(ticket()).encode())
    serving = asyncio.create_task(app(caller.scope, caller.receive, send))
    await spin()
    assert not serving.done()
    caller.hang_up()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await serving
    assert not serving.cancelled()


async def test_a_tenant_over_its_rate_is_refused_before_its_request_is_read(
    settings: ServingSettings, store: ObjectStore
) -> None:
    async def receive() -> dict[str, Any]:
        raise AssertionError("its body is read")

    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    app = create_app(settings.model_copy(update={"tenant_requests_per_second": 0.001}), store)
    async with serving(app) as client:
        await until_ready(client)
        assert (await client.post(ACME, json=ticket())).status_code == 200
        refused = await client.post(ACME, content=b"not even JSON")
        check_problem(refused, 429, "throttled")
        assert int(refused.headers["retry-after"]) > 900
        await app(dict(SCOPE), receive, send)
        assert (answers[0]["status"], answers[-1].get("more_body", False)) == (429, False)
        assert (await client.post("/v1/tenants/bare/suggestions", json=ticket())).status_code != 429


async def test_callers_who_send_no_body_take_no_place(settings: ServingSettings, store: ObjectStore) -> None:
    async def send(message: Any) -> None:
        raise AssertionError(message)

    async def receive() -> dict[str, Any]:
        await hung_up.wait()
        return {"type": "http.disconnect"}

    hung_up = asyncio.Event()
    app = create_app(settings.model_copy(update={"tenant_concurrency": 1}), store)
    async with serving(app) as client:
        await until_ready(client)
        slow = [asyncio.create_task(app(dict(SCOPE), receive, send)) for _ in range(3)]
        await spin()
        assert (await client.post(ACME, json=ticket())).status_code == 200
        hung_up.set()
        await asyncio.gather(*slow)


async def test_request_ids(client: httpx.AsyncClient) -> None:
    kept = await client.post(ACME, json=ticket(), headers={"X-Request-Id": "abc-1.2_3"})
    assert kept.headers["x-request-id"] == "abc-1.2_3"
    made = {(await client.post(ACME, json=ticket())).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for bad in ("a b", "x" * 129, "{}", ""):
        answer = await client.post(ACME, json=ticket(), headers={"X-Request-Id": bad})
        assert answer.headers["x-request-id"] != bad
        assert len(answer.headers["x-request-id"]) == 32


@pytest.mark.parametrize("value", ["0", "-1", "soon", "60001", "1.5"])
async def test_deadlines_that_are_none(client: httpx.AsyncClient, value: str) -> None:
    check_problem(
        await client.post(ACME, json=ticket(), headers={"X-Request-Timeout-Ms": value}), 422, "invalid-request"
    )


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Executor, "_next_batch", lambda _: [])


@pytest.mark.usefixtures("stuck")
async def test_a_deadline_that_passes(client: httpx.AsyncClient) -> None:
    answer = await client.post(ACME, json=ticket(), headers={"X-Request-Timeout-Ms": "5"})
    check_problem(answer, 504, "deadline-exceeded")


async def test_what_nobody_expected_is_answered_and_logged_without_its_words(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: Executor, __: object, text: str, **___: object) -> None:
        raise RuntimeError(f"cannot handle {text}")

    monkeypatch.setattr(Executor, "score", fail)
    with caplog.at_level(logging.ERROR):
        answer = await client.post(ACME, json=ticket("my parcel has not arrived"))
    check_problem(answer, 500, "internal")
    assert "parcel" not in answer.text
    (record,) = caplog.records
    assert "parcel" in caplog.text  # the error itself does hold it
    line = JsonFormatter().format(record)
    assert "RuntimeError" in line
    assert "parcel" not in line


async def test_no_ticket_gets_into_the_log(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for tenant in ("acme", "bare", "nobody", "new"):
            await client.post(f"/v1/tenants/{tenant}/suggestions", json=ticket("my parcel has not arrived"))
    assert caplog.records
    assert not any("parcel" in JsonFormatter().format(record) for record in caplog.records)


async def test_health(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    state = (await client.get("/readyz")).json()
    assert state["ready"] is True
    assert state["models"] == {"total": 4, "on_disk": 4, "skipped": 0, "failed": {}}
    assert state["fleet"]["generation"] == 3


async def test_openapi_describes_the_request(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document == (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/tenants/{tenant}/suggestions"]["post"]
    schemas = document["components"]["schemas"]
    references = json.dumps(document).split('"$ref": "#/components/schemas/')[1:]
    assert {reference.split('"')[0] for reference in references} <= set(schemas)
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/SuggestionRequest")
    assert set(operation["responses"]) == {"200", "401", "403", "404", "409", "413", "422", "429", "503", "504"}
    assert operation["security"] == [{"apiKey": []}]
    assert document["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    assert set(operation["responses"]["422"]["content"]) == {"application/problem+json"}
    for name in ("SuggestionRequest", "SuggestionResponse"):
        assert schemas[name]["examples"]


async def problem_examples(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """The examples in the document by kind; each under the status that it has."""
    operation = (await client.get("/openapi.json")).json()["paths"]["/v1/tenants/{tenant}/suggestions"]["post"]
    found: dict[str, dict[str, Any]] = {}
    for status, described in operation["responses"].items():
        if status != "200":
            examples = described["content"]["application/problem+json"]["examples"]
            assert examples, status
            assert {example["value"]["status"] for example in examples.values()} == {int(status)}
            found |= {kind: example["value"] for kind, example in examples.items()}
    return found


async def test_openapi_has_an_example_of_every_problem(client: httpx.AsyncClient) -> None:
    examples = await problem_examples(client)
    of_other_faces = {"already-loaded", "out-of-resources", "feedback-unavailable"}
    assert set(examples) == {problem.kind for problem in (*PROBLEMS.values(), TOO_LARGE)} - of_other_faces
    for kind, example in examples.items():
        assert ProblemDetails.model_validate(example).type == f"urn:macrofleet:problem:{kind}"


async def test_the_examples_of_problems_are_what_is_answered(client: httpx.AsyncClient) -> None:
    examples = await problem_examples(client)
    answers = {
        "tenant-not-found": await client.post("/v1/tenants/globex/suggestions", json=ticket()),
        "no-model": await client.post("/v1/tenants/new/suggestions", json=ticket()),
        "too-large": await client.post(ACME, content=b" " * (MAX_BODY_BYTES + 1)),
        "invalid-request": await client.post(ACME, content=without("ticket", "id")),
        "catalogue-unavailable": await client.post("/v1/tenants/bare/suggestions", json=ticket()),
    }
    for kind, answer in answers.items():
        example = examples[kind] | {"detail": examples[kind]["detail"].replace("tenant acme", "tenant new")}
        varying = {"instance": answer.json()["instance"], "request_id": answer.json()["request_id"]}
        assert answer.json() == example | varying


async def test_the_example_works(client: httpx.AsyncClient) -> None:
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    (example,) = schemas["SuggestionRequest"]["examples"]
    answer = await client.post(ACME, json=example)
    assert answer.status_code == 200
    assert set(answer.json()) == {*schemas["SuggestionResponse"]["examples"][0], "reason"}  # FastAPI drops null


async def test_the_answer_is_what_the_schema_says(client: httpx.AsyncClient) -> None:
    answer = await client.post(ACME, json=ticket())
    assert SuggestionResponse.model_validate(answer.json()).model_dump() == answer.json()
