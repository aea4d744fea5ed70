"""A tenant leaves the fleet: its model leaves memory and local disk, and its name the record of traffic."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import httpx
import pytest

from benchmarks.fleets import make_bundle, publish_tenants
from registry.fleet.state import FleetEntry, read_fleet, update_fleet
from registry.layout import FLEET_ROOT, WEIGHTS
from registry.publishing import publish_bundle
from registry.store import ObjectStore, StoredObject
from registry.store.local import LocalStore
from serving.app import create_apps
from serving.engine.traffic_record import read_traffic
from serving.settings import ServingSettings
from tests.serving.helpers import BuiltProgram, eventually, ready, serving, ticket, until_ready

pytestmark = pytest.mark.anyio
MakeSettings = Callable[..., ServingSettings]


async def ask(client: httpx.AsyncClient, tenant: str) -> httpx.Response:
    return await client.post(f"/v1/tenants/{tenant}/suggestions", json=ticket())


def leave(store: ObjectStore, *tenants: str) -> None:
    update_fleet(store, {tenant: lambda _: None for tenant in tenants})


def on_disk(settings: ServingSettings) -> set[str]:
    return set(os.listdir(settings.disk_folder / "models"))


async def test_all_of_a_tenant_goes_at_the_next_poll(
    store: LocalStore, make_settings: MakeSettings, bag: BuiltProgram
) -> None:
    publish_tenants(store, ["acme", "globex"], program=bag.digest, spec=bag.spec)
    settings = make_settings()
    async with ready(settings, store) as client:
        for tenant in ("acme", "globex"):
            assert (await ask(client, tenant)).status_code == 200
        assert on_disk(settings) == {"acme", "globex"}
        leave(store, "acme")
        await eventually(lambda: on_disk(settings) == {"globex"})
        await eventually(lambda: list(read_traffic(settings.disk_folder)) == ["globex"])
        assert (await ask(client, "acme")).status_code == 404
        assert (await ask(client, "globex")).status_code == 200
    names = [path.name for path in settings.disk_folder.rglob("*")]
    assert not [name for name in names if "acme" in name]


async def test_a_tenant_that_only_lost_its_version_keeps_its_place(
    store: LocalStore, make_settings: MakeSettings, bag: BuiltProgram
) -> None:
    publish_tenants(store, ["acme", "globex"], program=bag.digest, spec=bag.spec)
    settings = make_settings()
    async with ready(settings, store) as client:
        update_fleet(store, {"acme": lambda _: FleetEntry(reason="too few tickets")})
        leave(store, "globex")
        await eventually(lambda: on_disk(settings) == {"acme"})
        assert (await ask(client, "acme")).status_code == 409


async def test_what_left_while_no_server_ran_goes_when_one_starts(
    store: LocalStore, make_settings: MakeSettings, bag: BuiltProgram
) -> None:
    publish_tenants(store, ["acme", "globex"], program=bag.digest, spec=bag.spec)
    settings = make_settings()
    async with ready(settings, store) as client:
        await ask(client, "acme")
    assert list(read_traffic(settings.disk_folder)) == ["acme"]
    leave(store, "acme")
    async with ready(settings, store):
        assert on_disk(settings) == {"globex"}
        await eventually(lambda: read_traffic(settings.disk_folder) == {})


async def test_a_store_without_a_fleet_empties_no_disk(
    store: LocalStore, make_settings: MakeSettings, bag: BuiltProgram, tmp_path: Path
) -> None:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    settings = make_settings()
    async with ready(settings, store):
        pass
    async with ready(settings, LocalStore(tmp_path / "another")):
        assert on_disk(settings) == {"acme"}


class Holding(LocalStore):
    """Holds back the weights of some tenants until it is told to let them go."""

    def __init__(self, root: Path, *tenants: str) -> None:
        super().__init__(root)
        self.tenants = tenants
        self.held: set[str] = set()
        self.asked = threading.Event()
        self.go = threading.Event()
        self.roots = 0

    def open(self, key: str) -> IO[bytes]:
        if (tenant := key.split("/")[1]) in self.tenants and key.endswith(WEIGHTS):
            self.held.add(tenant)
            self.asked.set()
            assert self.go.wait(60)
        return super().open(key)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        found = super().get_if_changed(key, etag, max_bytes=max_bytes)
        self.roots += key == FLEET_ROOT and found is not None
        return found


@pytest.mark.parametrize("preload", ["none", "all"])
async def test_a_model_that_arrives_after_its_tenant_has_left_is_not_kept(
    store: LocalStore, make_settings: MakeSettings, bag: BuiltProgram, tmp_path: Path, preload: str
) -> None:
    publish_tenants(store, ["globex"], program=bag.digest, spec=bag.spec)
    holding = Holding(tmp_path / "store", "acme")
    settings = make_settings(preload=preload)
    apps = create_apps(settings, holding)
    async with serving(apps.public) as client:
        await until_ready(client)
        assert (await ask(client, "globex")).status_code == 200
        publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
        await eventually(lambda: holding.roots == 2)
        asked = asyncio.create_task(ask(client, "acme"))
        await eventually(holding.asked.is_set)
        leave(store, "acme")
        await eventually(lambda: holding.roots == 3)
        holding.go.set()
        assert (await asked).status_code == 404
        await eventually(lambda: on_disk(settings) == {"globex"})
        assert (await client.get("/readyz")).status_code == 200
        operator = httpx.AsyncClient(transport=httpx.ASGITransport(apps.operator), base_url="http://test")
        assert "macrofleet_models_loaded 1" in (await operator.get("/metrics")).text, "nor in memory"


def publish_again(store: ObjectStore, bag: BuiltProgram, tenant: str, folder: Path) -> str:
    """Another version of a tenant's model."""
    made = make_bundle(folder, tenant=tenant, program=bag.digest, spec=bag.spec, seed=1)
    publish_bundle(store, folder, tenant=tenant)
    update_fleet(store, {tenant: lambda _: FleetEntry(version=made.version, manifest=made.digest)})
    return made.version


async def test_a_download_that_hangs_holds_up_no_other_tenants_change(
    store: LocalStore, make_settings: MakeSettings, bag: BuiltProgram, tmp_path: Path
) -> None:
    publish_tenants(store, ["acme", "globex", "initech"], program=bag.digest, spec=bag.spec)
    holding = Holding(tmp_path / "store", "acme")
    holding.go.set()
    apps = create_apps(make_settings(), holding)
    async with serving(apps.public) as client:
        await until_ready(client)
        for tenant in ("acme", "globex", "initech"):
            assert (await ask(client, tenant)).status_code == 200
        holding.asked.clear()
        holding.go.clear()
        publish_again(store, bag, "acme", tmp_path / "acme")
        await eventually(holding.asked.is_set)
        try:
            leave(store, "globex")
            await eventually(lambda: len(apps.data_plane._cache) == 2)
            version = publish_again(store, bag, "initech", tmp_path / "initech")
            await eventually(lambda: apps.data_plane.controls.model("initech").serving_version == version)
            assert (await ask(client, "acme")).status_code == 200
        finally:
            holding.go.set()


async def test_a_roll_back_to_what_is_on_disk_waits_for_no_download(
    store: LocalStore, make_settings: MakeSettings, bag: BuiltProgram, tmp_path: Path
) -> None:
    """As many downloads hang as there may be at once, of tenants whose turn comes before."""
    slow = ["a", "b", "c", "d"]
    publish_tenants(store, [*slow, "globex"], program=bag.digest, spec=bag.spec)
    before = read_fleet(store).entries["globex"]
    publish_again(store, bag, "globex", tmp_path / "globex")
    holding = Holding(tmp_path / "store", *slow)
    holding.go.set()
    apps = create_apps(make_settings(), holding)
    async with serving(apps.public) as client:
        await until_ready(client)
        for tenant in (*slow, "globex"):
            assert (await ask(client, tenant)).status_code == 200
        update_fleet(store, {"globex": lambda _: before})  # and so the former version comes on disk
        await eventually(lambda: apps.data_plane.controls.model("globex").serving_version == before.version)
        again = publish_again(store, bag, "globex", tmp_path / "again")
        await eventually(lambda: apps.data_plane.controls.model("globex").serving_version == again)
        holding.held.clear()
        holding.go.clear()
        for tenant in slow:
            publish_again(store, bag, tenant, tmp_path / tenant)
        await eventually(lambda: holding.held == set(slow))
        try:
            update_fleet(store, {"globex": lambda _: before})
            await eventually(lambda: apps.data_plane.controls.model("globex").serving_version == before.version)
            assert (await ask(client, "globex")).json()["model_version"] == before.version
        finally:
            holding.go.set()
