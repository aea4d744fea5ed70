"""The client of the product API: what it sends, what it makes of answers, when it tries again; and a real server."""

from __future__ import annotations

import json
import logging
import math
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from benchmarks.fleets import publish_tenants
from registry.errors import InvalidInput, InvalidTenant
from registry.feedback.records import feedback_id
from registry.fleet.state import FleetEntry, update_fleet
from registry.model.program import publish_program
from registry.store.local import LocalStore
from serving import client as api
from serving.app import create_apps
from serving.client import AsyncClient, Client, Comment, SuggestionRequest, Ticket
from serving.settings import ServingSettings
from tests.serving.access_world import Key, key_for, publish
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, listening

KEY = "mf_0123456789_" + "c0ffee" * 6
CANARY = "my-secret-parcel"
TICKET = Ticket(id="4711", subject=CANARY, comments=[Comment("customer", CANARY)])
GOOD = {
    "suggestion_id": "s1_0hTzZ0mJm3m8c7n1yq8jVw",
    "model_version": "9f2b6c1d4e5a7788",
    "abstained": False,
    "held_back": False,
    "reason": None,
    "macros": [{"id": "m12", "title": "Where is my parcel", "score": 0.83}],
    "new_in_a_later_release": 1,
}
Handler = Callable[[httpx.Request], httpx.Response]
Call = Callable[[Any], Any]


def printed(error: Exception) -> str:
    """What a log has of an error: with its causes."""
    return "".join(traceback.format_exception(error))


def suggest(client: Any) -> Any:
    return client.suggest(TICKET)


def feedback(client: Any) -> Any:
    return client.feedback("s1", applied=None)


class World:
    """A server made of a function, and a clock that passes while a client waits.

    Attributes:
        requests: what it was sent.
        waits: of the client, in seconds.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.now = 1000.0
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def ask(self, handler: Handler, call: Call = suggest, **options: Any) -> Any:
        """What a client gives for a call."""

        def handle(request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            return handler(request)

        def sleep(seconds: float) -> None:
            self.waits.append(seconds)
            self.now += seconds

        async def sleep_async(seconds: float) -> None:
            sleep(seconds)

        transport = httpx.MockTransport(handle)
        given: dict[str, Any] = {
            "tenant": "acme",
            "api_key": KEY,
            "transport": transport,
            "clock": lambda: self.now,
            **options,
        }
        if self.kind == "sync":
            with Client("https://server.test/api/", sleep=sleep, **given) as client:
                return call(client)

        async def asked() -> Any:
            async with AsyncClient("https://server.test/api/", sleep=sleep_async, **given) as client:
                return await call(client)

        return anyio.run(asked)

    def fail(self, handler: Handler, call: Call = suggest, **options: Any) -> api.ApiError:
        """The error instead; it has neither key nor ticket."""
        with pytest.raises(api.ApiError) as caught:
            self.ask(handler, call, **options)
        error = caught.value
        for said in (str(error), repr(error), error.detail, str(vars(error)), printed(error)):
            assert KEY not in said
            assert CANARY not in said
        return error


@pytest.fixture(params=["sync", "async"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def problem(status: int, kind: str, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    body = {
        "type": f"urn:macrofleet:problem:{kind}",
        "title": "A title",
        "status": status,
        "detail": "what is wrong.",
        "instance": "/v1",
        "request_id": "0f0f",
        **more,
    }
    return httpx.Response(
        status, content=json.dumps(body), headers={"content-type": "application/problem+json", **headers}
    )


def in_turn(*answers: httpx.Response | Exception) -> Handler:
    waiting = list(answers)

    def handle(_: httpx.Request) -> httpx.Response:
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle


def good() -> httpx.Response:
    return httpx.Response(200, json=GOOD)


def test_what_is_sent_and_what_is_made_of_the_answer(world: World) -> None:
    found = world.ask(
        lambda _: good(),
        lambda client: client.suggest(
            TICKET, agent=api.Agent("a-17", ["360001"]), limit=2, exclude=["m1"], timeout_seconds=1.5
        ),
    )
    assert found == api.Suggestion(
        suggestion_id="s1_0hTzZ0mJm3m8c7n1yq8jVw",
        model_version="9f2b6c1d4e5a7788",
        abstained=False,
        reason=None,
        macros=(api.SuggestedMacro("m12", "Where is my parcel", 0.83),),
        ticket_id="4711",
    )
    (request,) = world.requests
    assert str(request.url) == "https://server.test/api/v1/tenants/acme/suggestions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-request-timeout-ms"] == "1500"
    body = json.loads(request.content)
    assert body["agent"] == {"id": "a-17", "groups": ["360001"]}
    assert (body["limit"], body["exclude"], body["ticket"]["subject"]) == (2, ["m1"], CANARY)


def test_feedback_takes_of_a_suggestion_what_is_not_said(world: World) -> None:
    suggestion = world.ask(lambda _: good())
    told = lambda client: client.feedback(suggestion, applied=None, event_id="e1")  # noqa: E731
    assert world.ask(lambda _: httpx.Response(202, json={"feedback_id": "f1"}), told) == "f1"
    assert json.loads(world.requests[-1].content) == {
        "suggestion_id": GOOD["suggestion_id"],
        "applied": None,
        "shown": ["m12"],
        "ticket_id": "4711",
        "model_version": GOOD["model_version"],
        "event_id": "e1",
    }


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (401, "not-authenticated", api.NotAuthenticated),
        (403, "not-permitted", api.NotPermitted),
        (404, "tenant-not-found", api.TenantNotFound),
        (404, "not-found", api.UnexpectedAnswer),
        (409, "no-model", api.NoModel),
        (413, "too-large", api.InvalidRequest),
        (422, "invalid-request", api.InvalidRequest),
        (429, "throttled", api.RateLimited),
        (500, "internal", api.UnexpectedAnswer),
        (503, "overloaded", api.Unavailable),
        (503, "feedback-unavailable", api.Unavailable),
        (504, "deadline-exceeded", api.TimedOut),
    ],
)
def test_problems_are_errors(world: World, status: int, kind: str, error: type[api.ApiError]) -> None:
    fields = [{"field": "ticket.id", "message": "Field required"}]
    found = world.fail(lambda _: problem(status, kind, fields=fields), attempts=1)
    assert type(found) is error
    assert (found.status, found.type) == (status, f"urn:macrofleet:problem:{kind}")
    assert (found.title, found.detail, found.request_id) == ("A title", "what is wrong.", "0f0f")
    assert found.fields == (api.FieldProblem("ticket.id", "Field required"),)
    assert str(found) == f"what is wrong (status {status}, request 0f0f)"
    again = pickle.loads(pickle.dumps(found))
    assert (type(again), again.status) == (error, status)


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("text/plain", CANARY),
        ("application/problem+json", json.dumps({"type": "urn:other", "detail": CANARY})),
        ("application/problem+json", json.dumps([CANARY])),
        ("application/problem+json", "{"),
        ("application/problem+json", json.dumps({"type": 1, "detail": {"a": CANARY}, "fields": CANARY})),
    ],
)
def test_what_something_else_answers_is_not_repeated(world: World, content_type: str, content: str) -> None:
    found = world.fail(lambda _: httpx.Response(401, content=content, headers={"content-type": content_type}))
    assert type(found) is api.NotAuthenticated
    assert (found.type, found.detail) == ("", "")
    assert found.request_id == world.requests[0].headers["x-request-id"]


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"macros": []}', json.dumps(CANARY).encode()])
def test_a_success_that_is_none(world: World, content: bytes) -> None:
    assert type(world.fail(lambda _: httpx.Response(200, content=content))) is api.UnexpectedAnswer


def test_an_answer_without_an_end(world: World) -> None:
    assert type(world.fail(lambda _: httpx.Response(200, content=b" " * 9_000_000))) is api.UnexpectedAnswer


def test_redirects_are_not_followed(world: World) -> None:
    found = world.fail(lambda _: httpx.Response(307, headers={"location": "https://elsewhere.test/"}))
    assert type(found) is api.UnexpectedAnswer
    assert "redirects" in str(found)
    assert [request.url.host for request in world.requests] == ["server.test"]


@pytest.mark.parametrize("status", [429, 503])
def test_it_waits_as_long_as_the_server_says_and_a_little_more(world: World, status: int) -> None:
    refused = problem(status, "throttled", headers={"retry-after": "2"})
    assert world.ask(in_turn(refused, good())).suggestion_id == GOOD["suggestion_id"]
    (wait,) = world.waits
    assert 2 <= wait <= 2.5
    first, second = world.requests
    assert first.headers["x-request-id"] == second.headers["x-request-id"]
    assert first.headers["x-request-timeout-ms"] == "10000"
    assert int(second.headers["x-request-timeout-ms"]) == int((10 - wait) * 1000)


@pytest.mark.parametrize("asked_for", ["30", "10"])
def test_it_does_not_wait_past_the_deadline(world: World, asked_for: str) -> None:
    found = world.fail(lambda _: problem(503, "model-unavailable", headers={"retry-after": asked_for}))
    assert type(found) is api.Unavailable
    assert found.retry_after_seconds == float(asked_for)
    assert (len(world.requests), world.waits) == (1, [])


@pytest.mark.parametrize("said", [{}, {"retry-after": "soon"}, {"retry-after": "-1"}, {"retry-after": "9" * 400}])
def test_waits_of_its_own_grow(world: World, said: dict[str, str]) -> None:
    found = world.fail(lambda _: problem(503, "overloaded", headers=said), attempts=8, timeout_seconds=60)
    assert found.retry_after_seconds is None
    assert len(world.requests) == 8
    for wait, most in zip(world.waits, (0.1, 0.2, 0.4, 0.8, 1.6, 2, 2), strict=True):
        assert most / 2 <= wait <= most


@pytest.mark.parametrize("call", [suggest, feedback])
@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError(CANARY),
        httpx.ConnectTimeout(CANARY),
        httpx.ReadError(CANARY),
        httpx.WriteError(CANARY),
        httpx.RemoteProtocolError(CANARY),
    ],
)
def test_what_broke_off_is_sent_again(world: World, call: Call, failure: Exception) -> None:
    answer = good() if call is suggest else httpx.Response(202, json={"feedback_id": "f1"})
    assert world.ask(in_turn(failure, failure, failure, answer), call)
    assert len(world.requests) == 4
    assert len({request.content for request in world.requests}) == 1
    assert type(world.fail(in_turn(*[failure] * 4), call)) is api.Unavailable


@pytest.mark.parametrize(
    "failure", [httpx.LocalProtocolError(CANARY), httpx.ProxyError(CANARY), httpx.DecodingError("")]
)
def test_what_will_not_pass_is_not_sent_again(world: World, failure: Exception) -> None:
    assert type(world.fail(in_turn(failure))) is api.Unavailable


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422, 500, 504])
def test_what_is_refused_for_good_is_not_sent_again(world: World, status: int) -> None:
    world.fail(lambda _: problem(status, "something"))
    assert len(world.requests) == 1


def test_time_runs_out(world: World) -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        world.now += 11
        raise httpx.ReadTimeout(CANARY)

    found = world.fail(slow)
    assert type(found) is api.TimedOut
    assert found.request_id == world.requests[0].headers["x-request-id"]
    assert len(world.requests) == 1


def test_a_batch_has_suggestions_and_errors(world: World) -> None:
    refused = json.loads(problem(422, "invalid-request").content)
    answers = [{"status": 200, "suggestion": GOOD}, {"status": 422, "problem": refused}]
    asked = [SuggestionRequest(TICKET), SuggestionRequest(Ticket(id="4712"), limit=1)]
    batch = lambda client: client.suggest_batch(asked)  # noqa: E731
    found, error = world.ask(lambda _: httpx.Response(200, json={"answers": answers}), batch)
    assert isinstance(found, api.Suggestion)
    assert found.ticket_id == "4711"
    assert type(error) is api.InvalidRequest
    assert world.requests[0].url.path == "/api/v1/tenants/acme/suggestions/batch"
    short = httpx.Response(200, json={"answers": answers[:1]})
    assert type(world.fail(lambda _: short, batch)) is api.UnexpectedAnswer


def test_a_ticket_that_is_no_text_is_not_quoted(world: World) -> None:
    with pytest.raises(InvalidInput) as caught:
        world.ask(lambda _: good(), lambda client: client.suggest(Ticket(id="1", subject=CANARY + "\ud800")))
    assert CANARY not in printed(caught.value)
    assert world.requests == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_key_and_the_ticket_are_in_no_repr(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    client = kind("https://server.test", tenant="acme", api_key=KEY)
    said = repr(client) + repr(TICKET) + repr(SuggestionRequest(TICKET)) + repr(api.Contribution(CANARY, 1.0))
    World("sync").ask(lambda _: good())
    for words in (KEY, CANARY):
        assert words not in said
        assert words not in caplog.text
    assert "acme" in said


def test_the_key_comes_from_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACROFLEET_API_KEY", f"{KEY}\n")
    world.ask(lambda _: good(), api_key=None)
    assert world.requests[0].headers["authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("MACROFLEET_API_KEY")
    with pytest.raises(InvalidInput, match="MACROFLEET_API_KEY"):
        world.ask(lambda _: good(), api_key=None)


@pytest.mark.parametrize("key", ["mf a", "mf_\u00e9", "mf_\nX: y", "m" * 600])
def test_a_key_that_is_none_is_not_quoted(key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Client("https://server.test", tenant="acme", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000/", "https://a.test/b"])
def test_addresses(url: str) -> None:
    Client(url, tenant="acme", api_key=KEY).close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "server.test",
        "ftp://server.test",
        "https://",
        "http://server.test",
        "http://127.0.0.1.server.test",
        "http://10.0.0.1",
        "https://user:secret@server.test",
        "https://server.test?a=b",
        "https://server.test/#a",
        "https://server.test:99999",
        "https://server.test\n",
        "https://ser ver.test",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Client(url, tenant="acme", api_key=KEY)
    assert "secret" not in str(caught.value)


def test_plain_http_where_it_is_meant() -> None:
    Client("http://10.0.0.1", tenant="acme", api_key=KEY, insecure=True).close()


@pytest.mark.parametrize(
    "options",
    [
        *(
            {name: value}
            for name in ("timeout_seconds", "connect_seconds")
            for value in (0, -1, math.inf, math.nan, 1e12)
        ),
        {"attempts": 0},
    ],
)
def test_settings_that_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Client("https://server.test", tenant="acme", api_key=KEY, **options)
    with pytest.raises(InvalidTenant):
        Client("https://server.test", tenant="../acme", api_key=KEY)


# A real server, over a socket

ACME = key_for("acme", "suggest", "feedback")
ADMIN = key_for("acme", "tenant-admin")
ONLY_FEEDBACK = key_for("acme", "feedback")
NEW = key_for("new", "suggest")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, bag: BuiltProgram) -> LocalStore:
    made = LocalStore(tmp_path_factory.mktemp("client") / "store")
    publish_program(made, bag.folder)
    publish_tenants(made, ["acme"], program=bag.digest, spec=bag.spec)
    update_fleet(made, {"new": lambda _: FleetEntry(reason="too few examples")})
    publish(made, [ACME, ADMIN, ONLY_FEEDBACK, NEW])
    return made


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, bag: BuiltProgram, store: LocalStore) -> Iterator[str]:
    settings = ServingSettings.model_validate(
        {
            "disk_folder": tmp_path_factory.mktemp("client-disk"),
            "trusted_programs": frozenset({bag.digest}),
            "request_timeout_ms": 30_000,
            "holdback_share": 0.0,
        }
    )
    with listening(create_apps(settings, store).public) as address:
        ends = time.monotonic() + PATIENCE_SECONDS
        while httpx.get(f"http://{address}/readyz").status_code != 200:
            assert time.monotonic() < ends
        yield f"http://{address}"


def of(url: str, key: Key = ACME, tenant: str = "acme") -> Client:
    return Client(url, tenant=tenant, api_key=key.key, timeout_seconds=PATIENCE_SECONDS)


def test_a_real_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # the key does not go there
    with of(url) as client:
        suggestion = client.suggest(TICKET, limit=2, exclude=["m0"])
        assert len(suggestion.macros) == 2
        assert suggestion == client.suggest(TICKET, limit=2, exclude=["m0"])
        told = client.feedback(suggestion, applied="m0")
        shown = [macro.id for macro in suggestion.macros]
        assert told == feedback_id("acme", suggestion.suggestion_id, None, applied="m0", shown=shown, ticket_id="4711")
        found, error = client.suggest_batch([SuggestionRequest(TICKET), SuggestionRequest(Ticket(id="1", subject=" "))])
        assert isinstance(found, api.Suggestion)
        assert type(error) is api.InvalidRequest
    with of(url, ADMIN) as client:
        explained = client.suggest(TICKET, explain=True)
        assert all(macro.explanation for macro in explained.macros)


def test_a_real_server_asked_by_many_tasks(url: str) -> None:
    found: list[api.Suggestion] = []

    async def ask(client: AsyncClient, number: int) -> None:
        found.append(await client.suggest(Ticket(id=str(number), subject="Where is my parcel?")))

    async def main() -> None:
        async with AsyncClient(url, tenant="acme", api_key=ACME.key, timeout_seconds=PATIENCE_SECONDS) as client:
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(ask, client, number)
            assert await client.feedback(found[0], applied=None)

    anyio.run(main)
    assert len({one.suggestion_id for one in found}) == 20


def test_what_a_real_server_refuses(url: str) -> None:
    def error(client: Client, call: Call = suggest) -> api.ApiError:
        with client, pytest.raises(api.ApiError) as caught:
            call(client)
        assert CANARY not in str(caught.value)
        assert caught.value.request_id
        return caught.value

    assert type(error(of(url, key_for("acme", "suggest")))) is api.NotAuthenticated
    assert type(error(of(url, ONLY_FEEDBACK))) is api.NotPermitted
    assert type(error(of(url, tenant="other"))) is api.TenantNotFound
    missing = error(of(url, NEW, "new"))
    assert type(missing) is api.NoModel
    assert "too few examples" in missing.detail
    assert type(error(of(url), lambda client: client.suggest(Ticket(id="1")))) is api.InvalidRequest
    large = error(of(url), lambda client: client.suggest(Ticket(id="1", subject=CANARY * 10_000)))
    assert type(large) is api.InvalidRequest
    assert large.status == 413
    unknown = error(of(url), lambda client: client.suggest(TICKET, limit=7))
    assert unknown.fields[0].field == "limit"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    waits: list[float] = []
    with (
        Client(f"http://127.0.0.1:{port}", tenant="acme", api_key=KEY, sleep=waits.append) as client,
        pytest.raises(api.Unavailable, match="cannot be reached"),
    ):
        client.suggest(TICKET)
    assert len(waits) == 3


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_server_that_says_nothing(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if kind == "sync":
            with Client(url, tenant="acme", api_key=KEY) as client, pytest.raises(api.TimedOut):
                client.suggest(TICKET, timeout_seconds=0.05)
            return

        async def main() -> None:
            async with AsyncClient(url, tenant="acme", api_key=KEY) as client:
                with pytest.raises(api.TimedOut):
                    await client.suggest(TICKET, timeout_seconds=0.05)

        anyio.run(main)


def test_the_readmes_lines_run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (lines,) = [part.partition("```")[0] for part in readme.split("```python\n")[1:] if "serving.client" in part]
    monkeypatch.setenv("MACROFLEET_API_KEY", ACME.key)
    assert "http://127.0.0.1:8000" in lines
    exec(lines.replace("http://127.0.0.1:8000", url), {})
    assert "Macro" in capsys.readouterr().out
