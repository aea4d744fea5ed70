"""One replica's models by `/admin`: what is listed, loaded, unloaded and read again."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from benchmarks.fleets import publish_tenants
from registry.fleet.state import FleetEntry, update_fleet
from registry.keys.published import Scope
from registry.layout import WEIGHTS
from registry.store.local import LocalStore
from serving.access import Grant
from serving.app import Apps, create_apps
from serving.controls import Controls
from serving.engine.model_status import ModelStatus
from serving.faces.admin import make_admin_router
from serving.faces.guard import GRANT
from serving.trials.comparing import Comparison
from serving.trials.shadows import ShadowReport
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, eventually, serving, spin, ticket, until_ready

pytestmark = pytest.mark.anyio


@pytest.fixture
def apps(store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings) -> Apps:
    publish_tenants(store, ["acme", "beta", "gamma"], program=bag.digest, spec=bag.spec)
    update_fleet(store, {"new": lambda _: FleetEntry(reason="too few examples")})
    return create_apps(make_settings(fleet_poll_seconds=3600), store)


@pytest.fixture
async def client(apps: Apps) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(apps.operator)
    async with serving(apps.public) as public, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await until_ready(public)
        yield client


async def listed(client: httpx.AsyncClient, **query: object) -> tuple[list[str], str | None]:
    page = (await client.get("/admin/models", params=query)).json()  # type: ignore[arg-type]
    return [model["tenant"] for model in page["models"]], page["next"]


async def test_models_are_listed_by_page_and_state(client: httpx.AsyncClient) -> None:
    assert await listed(client) == (["acme", "beta", "gamma"], None)
    assert await listed(client, limit=2) == (["acme", "beta"], "beta")
    assert await listed(client, limit=2, after="beta") == (["gamma"], None)
    loaded = (await client.post("/admin/models/beta/load")).json()
    assert (loaded["state"], loaded["serving_version"]) == ("ready", loaded["version"])
    assert await listed(client, state="ready") == (["beta"], None)
    assert await listed(client, state="absent") == (["acme", "gamma"], None)
    assert (await client.get("/admin/models/beta")).json()["state"] == "ready"


async def test_a_page_looks_at_no_more_than_it_shows(
    client: httpx.AsyncClient, apps: Apps, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    model = apps.data_plane.controls.model

    def noted(tenant: str) -> ModelStatus:
        looked_at.append(tenant)
        return model(tenant)

    monkeypatch.setattr(apps.data_plane.controls, "model", noted)
    assert await listed(client, limit=1) == (["acme"], "acme")
    assert looked_at == ["acme", "beta"]
    assert await listed(client, state="ready") == ([], None)
    assert looked_at == ["acme", "beta"]


@pytest.mark.parametrize(("tenant", "status"), [("nobody", 404), ("new", 409)])
async def test_what_has_no_model(client: httpx.AsyncClient, tenant: str, status: int) -> None:
    for method, path in (("GET", ""), ("POST", "/load"), ("POST", "/unload")):
        assert (await client.request(method, f"/admin/models/{tenant}{path}")).status_code == status


async def test_an_unload_is_answered_when_the_memory_is_free(client: httpx.AsyncClient, apps: Apps) -> None:
    plane, gate = apps.data_plane, threading.Event()
    assert (await client.post("/admin/models/acme/load")).json()["state"] == "ready"
    with plane._cache.try_lease("acme") or pytest.fail("it is not there") as model:
        mapped = weakref.ref(model.bound._mapped)
    del model
    plane._files.start(lambda: gate.wait(PATIENCE_SECONDS))  # the thread that gives pages back has other things to do
    unloading = asyncio.create_task(client.post("/admin/models/acme/unload"))
    await spin(100)
    early = unloading.done()
    gate.set()
    assert not early
    assert (await unloading).json()["state"] == "absent"
    await eventually(lambda: mapped() is None)  # a thread that stands back may just be done with its load
    assert await listed(client, state="ready") == ([], None)


async def test_a_load_that_busier_models_leave_no_room_for_says_so(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    """It was loaded, and is out again before anybody is answered."""
    made = publish_tenants(store, ["acme", "beta"], program=bag.digest, spec=bag.spec)
    size = made["acme"].files[WEIGHTS].size
    apps = create_apps(make_settings(memory_bytes=size + size // 2), store)
    transport = httpx.ASGITransport(apps.operator)
    async with serving(apps.public) as public, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await until_ready(public)
        assert (await public.post("/v1/tenants/acme/suggestions", json=ticket())).status_code == 200
        for path in ("/admin/models/beta/load", "/v2/repository/models/beta/load"):
            assert (await client.post(path)).status_code == 507
        assert await listed(client, state="ready") == (["acme"], None)
        update_fleet(store, {"beta": lambda entry: entry and entry.model_copy(update={"keep_loaded": True})})
        await client.post("/admin/fleet/refresh")
        assert (await client.post("/admin/models/beta/load")).json()["state"] == "ready"


async def test_an_unload_does_not_wait_for_a_store_that_hangs(
    client: httpx.AsyncClient, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, gate = threading.Event(), threading.Event()

    def hang(key: str, etag: str | None, *, max_bytes: int | None = None) -> None:
        asked.set()
        assert gate.wait(PATIENCE_SECONDS)

    await client.post("/admin/models/acme/load")
    monkeypatch.setattr(store, "get_if_changed", hang)
    refreshing = asyncio.create_task(client.post("/admin/fleet/refresh"))
    await eventually(asked.is_set)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS / 2):
            assert (await client.post("/admin/models/acme/unload")).json()["state"] == "absent"
        assert not refreshing.done()
    finally:
        gate.set()
        await refreshing


@pytest.mark.parametrize(("scope", "told"), [("operator", True), ("tenant-admin", False)])
async def test_why_a_load_failed_is_an_operators_to_read(scope: Scope, told: bool) -> None:
    """The error's words name files and addresses."""
    secret = "s3://bucket/prefix and /srv/disk"

    class Plane:
        def model(self, tenant: str) -> ModelStatus:
            return ModelStatus(tenant=tenant, version="0" * 16, error=secret)

        def models_after(self, tenant: str, *, state: str | None) -> Iterator[ModelStatus]:
            yield self.model("acme")

        def models_of(self, tenants: list[str]) -> list[ModelStatus]:
            return [self.model(tenant) for tenant in tenants]

        def shadow(self, tenant: str) -> ShadowReport:
            return ShadowReport(
                version="1" * 16,
                champion=None,
                state="absent",
                error=secret,
                requests={},
                same_first=None,
                same_three=None,
                comparison=Comparison(),
            )

    app = FastAPI()
    app.include_router(make_admin_router(cast(Controls, Plane()), None))
    grant = Grant(None if told else "acme", frozenset({scope}))
    for path in ("/admin/models", "/admin/models/acme"):
        messages: list[Message] = []

        async def receive() -> Message:
            raise AssertionError

        async def send(message: Message) -> None:
            messages.append(message)  # noqa: B023

        asked: dict[str, Any] = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [],
            GRANT: grant,
        }
        await app(asked, receive, send)
        body = b"".join(message.get("body", b"") for message in messages)
        assert messages[0]["status"] == 200
        assert (secret.encode() in body) == told
        assert told or b"the last load failed" in body


async def test_a_refresh_reads_the_fleet_at_once(client: httpx.AsyncClient, store: LocalStore) -> None:
    before = (await client.post("/admin/fleet/refresh")).json()["generation"]
    update_fleet(store, {"gamma": lambda _: None})
    assert (await client.post("/admin/fleet/refresh")).json()["generation"] == before + 1
    assert await listed(client) == (["acme", "beta"], None)
