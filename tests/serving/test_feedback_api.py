"""The route of feedback, from the request to the store; and the server as a process, traced and killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.feedback_kills import kill_servers
from benchmarks.fleets import publish_tenants
from flows.local_server import LocalServer, store_environment
from registry.deletion.tombstones import bury
from registry.feedback.records import Feedback, Shown, read_feedback
from registry.fleet.state import FleetEntry, update_fleet
from registry.settings import StoreSettings
from registry.store.local import LocalStore
from serving.app import Apps, create_apps
from serving.faces.feedback import Once
from serving.settings import ServingSettings
from serving.suggestions.views import is_held_back
from tests.serving.access_world import key_for, publish
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import BuiltProgram, eventually, serving, ticket, until_ready

pytestmark = pytest.mark.anyio
SAID = {"suggestion_id": "s1", "applied": "m1", "shown": ["m1", "m2"], "ticket_id": "4711"}
ROUTE = "/v1/tenants/acme/feedback"


def fleet_of(store: LocalStore, *tenants: str) -> None:
    """Tenants that need no model."""
    update_fleet(store, {tenant: lambda _: FleetEntry(reason="too few examples") for tenant in tenants})


@pytest.fixture
def plain(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "store")
    fleet_of(store, "acme", "beta")
    return store


@pytest.fixture
def settings(tmp_path: Path) -> ServingSettings:
    return ServingSettings(disk_folder=tmp_path / "disk", access="open", fleet_poll_seconds=0.01)


@pytest.fixture
async def client(plain: LocalStore, settings: ServingSettings) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(create_apps(settings, plain).public) as made:
        await until_ready(made)
        yield made


async def test_what_is_sent_again_is_heard_once(plain: LocalStore, settings: ServingSettings) -> None:
    apps = create_apps(settings, plain)
    async with serving(apps.public) as client:
        await until_ready(client)
        for event in ("one", "one", "two", "one"):
            answer = await client.post(ROUTE, json={**SAID, "model_version": "0" * 16, "event_id": event})
            assert answer.status_code == 202
    assert apps.data_plane._canaries.all_heard() == {("accepted",): 2, ("declined",): 0}


def test_the_events_that_came_last_are_remembered() -> None:
    once = Once(2)
    assert [once.is_new(name) for name in "abacabb"] == [True, True, False, True, False, True, False]
    assert len(once._seen) == 2


async def test_what_was_accepted_is_in_the_store_after_the_server(plain: LocalStore, settings: ServingSettings) -> None:
    async with serving(create_apps(settings, plain).public) as client:
        await until_ready(client)
        answer = await client.post(ROUTE, json={**SAID, "model_version": "0" * 16})
        assert answer.status_code == 202
        assert answer.json().keys() == {"feedback_id"}
    (kept,) = read_feedback(plain, "acme")
    assert isinstance(kept, Feedback)
    assert kept.id == answer.json()["feedback_id"]
    said = {
        "suggestion_id": "s1",
        "applied": "m1",
        "shown": ("m1", "m2"),
        "ticket_id": "4711",
        "model_version": "0" * 16,
    }
    assert kept.model_dump(include=set(said)) == said
    assert list(read_feedback(plain, "beta")) == []


async def test_nothing_of_a_tenant_that_was_deleted_is_shipped(plain: LocalStore, settings: ServingSettings) -> None:
    async with serving(create_apps(settings, plain).public) as client:
        await until_ready(client)
        for tenant in ("acme", "beta"):
            assert (await client.post(f"/v1/tenants/{tenant}/feedback", json=SAID)).status_code == 202
        bury(plain, "acme", token=1)
    assert [len(list(read_feedback(plain, tenant))) for tenant in ("acme", "beta")] == [0, 1]


async def test_an_event_has_one_id_and_another_event_another(client: httpx.AsyncClient) -> None:
    async def sent(**more: Any) -> str:
        answer = await client.post(ROUTE, json={**SAID, **more})
        assert answer.status_code == 202
        name: str = answer.json()["feedback_id"]
        return name

    first = await sent()
    assert await sent() == first
    named = await sent(event_id="e1")
    assert await sent(event_id="e1", applied="m2") == named
    others = [await sent(applied=None), await sent(suggestion_id="s2"), await sent(event_id="e2"), await sent(shown=[])]
    beta = (await client.post("/v1/tenants/beta/feedback", json=SAID)).json()["feedback_id"]
    assert len({first, named, beta, *others}) == 7


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"applied": 7}, "applied"),
        ({"applied": ""}, "applied"),
        ({"suggestion_id": "a b"}, "suggestion_id"),
        ({"suggestion_id": "x" * 65}, "suggestion_id"),
        ({"shown": ["m"] * 11}, "shown"),
        ({"ticket_id": ""}, "ticket_id"),
        ({"model_version": "v1"}, "model_version"),
        ({"text": "My parcel"}, "text"),
    ],
)
async def test_what_cannot_be_used_is_refused_and_not_repeated(
    client: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    answer = await client.post(ROUTE, json={**SAID, **change})
    assert answer.status_code == 422
    assert [each["field"].split(".")[0] for each in answer.json()["fields"]] == [field]
    assert "parcel" not in answer.text


async def test_whether_a_macro_was_applied_must_be_said(client: httpx.AsyncClient) -> None:
    answer = await client.post(ROUTE, json={"suggestion_id": "s1"})
    assert (answer.status_code, answer.json()["detail"]) == (422, "applied: Field required")


@pytest.mark.parametrize("tenant", ["gamma", "Acme", "a/b", "x" * 100])
async def test_an_unknown_tenant_is_unknown(client: httpx.AsyncClient, tenant: str) -> None:
    assert (await client.post(f"/v1/tenants/{tenant}/feedback", json=SAID)).status_code == 404


async def test_only_keys_for_feedback_give_feedback(plain: LocalStore, settings: ServingSettings) -> None:
    keys = {
        202: key_for("acme", "feedback"),
        403: key_for("acme", "suggest"),
        404: key_for("beta", "feedback"),
    }
    publish(plain, keys.values())
    apps = create_apps(settings.model_copy(update={"access": "keys"}), plain)
    async with serving(apps.public) as client:
        await until_ready(client)
        assert (await client.post(ROUTE, json=SAID)).status_code == 401
        for status, key in keys.items():
            assert (await client.post(ROUTE, json=SAID, headers=key.header)).status_code == status


async def test_a_disk_that_refuses_is_a_503_that_says_when_to_try_again(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        answer = await client.post(ROUTE, json=SAID)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert answer.json()["type"] == "urn:macrofleet:problem:feedback-unavailable"
    assert "No space" not in answer.text
    assert (await client.post(ROUTE, json=SAID)).status_code == 202


async def test_the_document_describes_the_route(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/tenants/{tenant}/feedback"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/FeedbackRequest")
    assert set(document["components"]["schemas"]["FeedbackRequest"]["required"]) == {"suggestion_id", "applied"}
    assert {"202", "404", "503"} <= operation["responses"].keys()


class Suggesting:
    """A server of one tenant with a model, and the tickets that are held back at half of them."""

    def __init__(self, apps: Apps, client: httpx.AsyncClient, settings: ServingSettings) -> None:
        self.apps, self.client, self.settings = apps, client, settings

    async def ask(self, number: int, **more: Any) -> dict[str, Any]:
        body = ticket(**more)
        body["ticket"]["id"] = str(number)
        answer = await self.client.post("/v1/tenants/acme/suggestions", json=body)
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found


async def test_views_are_held_back_and_noted(store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings) -> None:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    update_fleet(store, {"acme": lambda entry: (entry or FleetEntry()).model_copy(update={"holdback": 0.5})})
    settings = make_settings(holdback_share=0.0, holdback_salt="salt")
    apps = create_apps(settings, store)
    held = {number for number in range(20) if is_held_back("salt", "acme", str(number), 0.5)}
    async with serving(apps.public) as client:
        await until_ready(client)
        server = Suggesting(apps, client, settings)
        answers = [await server.ask(number) for number in range(20)]
        assert {number for number, answer in enumerate(answers) if answer["held_back"]} == held
        for number, answer in enumerate(answers):
            assert bool(answer["macros"]) is (number not in held)
            assert (answer["abstained"], answer["reason"]) == (False, None)
        (one, *_) = held
        assert (await server.ask(one, explain=True))["macros"]
    views = {view.ticket_id: view for view in read_feedback(store, "acme") if isinstance(view, Shown)}
    assert len(views) == 20
    for number, answer in enumerate(answers):
        view = views[str(number)]
        assert (view.held_back, view.suggestion_id) == (answer["held_back"], answer["suggestion_id"])
        assert view.model_version == answer["model_version"]
        assert len(view.macros) == 3
    files = b"".join(path.read_bytes() for path in Path(store.url.removeprefix("file://")).rglob("*.jsonl.gz"))
    assert files


# The server as a process


def environment(folder: Path) -> dict[str, str]:
    settings = StoreSettings(url=str(folder / "store"))
    return {
        **store_environment(settings),
        "MACROFLEET_DISK_FOLDER": str(folder / "disk"),
        "MACROFLEET_ACCESS": "open",
    }


@pytest.mark.usefixtures("heeding_ctrl_c")
@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
async def test_the_kernel_is_asked_to_sync_before_the_answer_is_written(plain: LocalStore, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with LocalServer(tmp_path, environment(tmp_path)) as server:
        calls = "trace=write,writev,sendto,sendmsg,fsync,fdatasync"
        command = ["strace", "-f", "-y", "-s", "400", "-e", calls, "-o", str(trace), "-p", str(server.pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE) as strace:
            assert strace.stderr is not None
            said = await asyncio.to_thread(strace.stderr.readline)
            if b"attached" not in said:
                pytest.skip(f"strace may not attach here: {said!r}")
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                for number in range(3):
                    answer = await client.post(ROUTE, json={**SAID, "event_id": f"traced-{number}"})
                    assert answer.status_code == 202
            strace.send_signal(signal.SIGINT)
            await asyncio.to_thread(strace.communicate)
    assert order_of(trace.read_text()) == ["record", "synced", "answer"] * 3


def order_of(trace: str) -> list[str]:
    """Writes of records, syncs of the journal that succeeded, and answers, in the order in which they ended."""
    found = []
    unfinished: dict[str, str] = {}
    for line in trace.splitlines():
        thread, _, call = line.partition(" ")
        if call.rstrip().endswith("<unfinished ...>"):
            unfinished[thread] = call
            if "HTTP/1.1 202" in call:  # it counts from its beginning: the caller may have it then
                found.append("answer")
            continue
        resumed = re.search(r"<\.\.\. \w+ resumed>", call)
        whole = unfinished.pop(thread, "") + call if resumed else call
        if ".journal>" in whole:
            if "sync(" in whole and whole.rstrip().endswith("= 0"):
                found.append("synced")
            elif "write" in whole and "traced-" not in whole and "feedback" in whole:
                found.append("record")
        elif "HTTP/1.1 202" in whole and not resumed:
            found.append("answer")
    return found


def test_the_order_is_found_in_a_trace() -> None:
    trace = """\
7 write(9</d/1.journal>, "00 {\\"kind\\":\\"feedback\\"}"..., 40) = 40
7 fdatasync(9</d/1.journal> <unfinished ...>
5 write(8</log>, "x", 1) = 1
7 <... fdatasync resumed>) = 0
5 sendto(7<socket:[1]>, "HTTP/1.1 202 Accepted", 9, 0, NULL, 0) = 9
5 write(7<socket:[1]>, "HTTP/1.1 202 Accepted", 9 <unfinished ...>
7 fdatasync(9</d/1.journal>) = -1 EIO (Input/output error)
5 <... write resumed>) = 9
"""
    assert order_of(trace) == ["record", "synced", "answer", "answer"]


async def test_nothing_is_lost_or_doubled_over_twenty_kills(tmp_path: Path) -> None:
    store = StoreSettings(url=str(tmp_path / "store"))
    survived = await asyncio.to_thread(kill_servers, tmp_path, store, kills=20, connections=8, segment_seconds=0.08)
    assert survived.accepted > 100
    assert survived.resent > 0
    assert (survived.lost, survived.doubled, survived.left_files) == (0, 0, 0)
    assert survived.refused == {}


async def test_replicas_share_a_disk_and_one_takes_over_what_another_left(plain: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with LocalServer(tmp_path / "one", environment(tmp_path)) as one:
        async with httpx.AsyncClient(timeout=60) as client:
            assert (await client.post(one.url + ROUTE, json=SAID)).status_code == 202
            with LocalServer(tmp_path / "two", environment(tmp_path)) as two:
                answer = await client.post(two.url + ROUTE, json={**SAID, "event_id": "two"})
                assert answer.status_code == 202
                assert list(read_feedback(plain, "acme")) == []
            # The second has shipped its own, and left the first one's alone, which it holds.
            assert len(list(read_feedback(plain, "acme"))) == 1
            assert len(list((tmp_path / "disk").rglob("*.journal"))) == 1
            os.kill(one.pid, signal.SIGKILL)
            with LocalServer(tmp_path / "two", environment(tmp_path)):
                await eventually(lambda: len(list(read_feedback(plain, "acme"))) == 2)
    assert list((tmp_path / "disk").rglob("*.journal")) == []


def test_a_body_is_as_its_example_says(settings: ServingSettings) -> None:
    from serving.faces.feedback import FeedbackRequest

    (example,) = FeedbackRequest.model_json_schema()["examples"]
    assert FeedbackRequest.model_validate_json(json.dumps(example)).applied == "m12"
