"""A running server does what the fleet says: pins, limits, the preload plan; and says what it did, in its metrics."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.fleets import publish_tenants
from registry.errors import StoreUnavailable
from registry.fleet.control import limit, make_plan, pin, set_preload, unlimit
from registry.layout import MANIFEST, WEIGHTS
from registry.store import StoredObject
from registry.store.local import LocalStore
from serving.app import create_apps
from serving.data_plane import DataPlane
from tests.serving.conftest import MakeSettings
from tests.serving.helpers import PATIENCE_SECONDS, BuiltProgram, eventually, serving, ticket, until_ready

pytestmark = pytest.mark.anyio


@dataclass
class Running:
    plane: DataPlane
    client: httpx.AsyncClient

    async def ask(self, tenant: str) -> httpx.Response:
        return await self.client.post(f"/v1/tenants/{tenant}/suggestions", json=ticket())

    def in_memory(self) -> set[str]:
        return {model.tenant for model in self.plane.controls.models() if model.state == "ready"}

    def sample(self, name: str, **labels: str) -> float:
        """A number of the metrics."""
        for family in text_string_to_metric_families(self.plane.metrics.exposition()[0].decode()):
            for sample in family.samples:
                if sample.name == name and sample.labels.items() >= labels.items():
                    return sample.value
        raise AssertionError(f"{name} {labels} is not there")


@asynccontextmanager
async def running(store: LocalStore, make_settings: MakeSettings, **changes: object) -> AsyncIterator[Running]:
    """A ready server that reads the fleet when it is told to."""
    apps = create_apps(make_settings(fleet_poll_seconds=3600, **changes), store)
    async with serving(apps.public) as client:
        await until_ready(client)
        yield Running(apps.data_plane, client)


async def test_what_is_pinned_is_in_memory_and_stays_until_it_is_unpinned(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    made = publish_tenants(store, ["acme", "beta", "gamma"], program=bag.digest, spec=bag.spec)
    size = made["acme"].files[WEIGHTS].size
    pin(store, ["beta"])
    async with running(store, make_settings, memory_bytes=size + size // 2) as server:  # room for one
        assert server.in_memory() == {"beta"}, "before anybody asks"
        for _ in range(3):
            assert (await server.ask("acme")).status_code == 200
        assert server.in_memory() == {"beta"}
        pin(store, ["gamma"])
        pin(store, ["beta"], pinned=False)
        await server.plane.controls.refresh_fleet()
        await eventually(lambda: server.in_memory() == {"gamma"})
        pin(store, ["gamma"], pinned=False)
        await server.plane.controls.refresh_fleet()
        assert (await server.ask("acme")).status_code == 200
        assert server.in_memory() == {"acme"}


class Away(LocalStore):
    """Does not find manifests of models while it is told so; counts how often it was asked for one."""

    away = True
    asked = 0

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        if key.endswith(MANIFEST):
            self.asked += 1
            if self.away:
                raise StoreUnavailable("the store is away")
        return super().get(key, max_bytes=max_bytes)


async def test_what_is_pinned_is_in_memory_when_the_server_is_ready_whatever_came_before(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings, tmp_path: Path
) -> None:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    pin(store, ["acme"])
    away = Away(tmp_path / "store")
    apps = create_apps(make_settings(), away)
    async with serving(apps.public) as client:
        await eventually(lambda: away.asked > 3)  # the first attempt has failed, and others after it
        away.away = False
        await until_ready(client)
        assert apps.data_plane.controls.model("acme").state == "ready"


async def test_a_pinned_model_stays_on_disk(store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings) -> None:
    made = publish_tenants(store, ["acme", "beta", "gamma"], program=bag.digest, spec=bag.spec)
    size = max(sum(file.size for file in manifest.files.values()) for manifest in made.values())
    pin(store, ["beta"])
    # Its mapping would keep it as well, so there is no memory for any. Room for two on disk.
    async with running(store, make_settings, preload="none", memory_bytes=1, disk_bytes=size * 5 // 2) as server:
        for tenant in ("beta", "acme", "gamma"):
            assert (await server.ask(tenant)).status_code == 200
        await server.plane.controls.unload_model("beta")
        assert (await server.ask("acme")).status_code == 200
        on_disk = {folder.parent.name for folder in (server.plane._disk._folder / "models").glob("*/*")}
        assert "beta" in on_disk
        assert len(on_disk) == 2


async def test_what_answers_is_not_the_first_to_leave_the_disk(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    """A model in memory is not read from disk again: its answers count as uses."""
    made = publish_tenants(store, ["acme", "beta", "gamma"], program=bag.digest, spec=bag.spec)
    size = max(sum(file.size for file in manifest.files.values()) for manifest in made.values())
    async with running(store, make_settings, preload="none", disk_bytes=size * 5 // 2) as server:
        for tenant in ("acme", "beta", "acme"):
            assert (await server.ask(tenant)).status_code == 200
        for tenant in ("acme", "beta"):
            await server.plane.controls.unload_model(tenant)  # or both were kept, being mapped
        assert (await server.ask("gamma")).status_code == 200
        on_disk = {folder.parent.name for folder in (server.plane._disk._folder / "models").glob("*/*")}
        assert on_disk == {"acme", "gamma"}


async def test_limits_are_those_of_the_fleet_as_it_is_now(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    publish_tenants(store, ["acme", "beta"], program=bag.digest, spec=bag.spec)

    async def statuses(server: Running, tenant: str, count: int) -> list[int]:
        return [(await server.ask(tenant)).status_code for _ in range(count)]

    async with running(store, make_settings) as server:
        assert await statuses(server, "acme", 3) == [200] * 3
        limit(store, ["acme"], requests_per_second=0.001)
        await server.plane.controls.refresh_fleet()
        assert await statuses(server, "acme", 3) == [200, 429, 429]
        assert await statuses(server, "beta", 3) == [200] * 3
        limit(store, ["acme"], requests_per_second=1000)
        await server.plane.controls.refresh_fleet()
        async with asyncio.timeout(PATIENCE_SECONDS):
            # A thousandth of a second later at the soonest: what the lower rate allowed was used up.
            while (await server.ask("acme")).status_code == 429:
                pass
        limit(store, ["acme"], concurrency=1)
        await server.plane.controls.refresh_fleet()
        with server.plane.answering._admission.enter("acme", None):
            refused = await server.ask("acme")
            assert "under way" in refused.json()["detail"]
            assert await statuses(server, "beta", 1) == [200]
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        unlimit(store, ["acme"])
        await server.plane.controls.refresh_fleet()
        with server.plane.answering._admission.enter("acme", None):
            assert await statuses(server, "acme", 1) == [200]


async def test_models_that_requests_fetch_are_bounded_a_second(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    publish_tenants(store, ["acme", "beta"], program=bag.digest, spec=bag.spec)
    async with running(store, make_settings, preload="none", cold_loads_per_second=0.001) as server:
        assert (await server.ask("acme")).status_code == 200
        for _ in range(2):  # it says nothing of the model, which is left alone for no pause
            refused = await server.ask("beta")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert refused.json()["type"] == "urn:macrofleet:problem:overloaded"
        assert server.sample("macrofleet_refusals_total", reason="cold_loads") == 2
        assert server.sample("macrofleet_phase_seconds_count", phase="download") == 1, "nothing was fetched"
        await server.plane.controls.unload_model("acme")
        assert (await server.ask("acme")).status_code == 200, "what is on disk is not bounded"
        assert (await server.plane.controls.load_model("beta")).state == "ready", "nor what an operator asks for"


async def test_the_fleets_plan_takes_the_busiest_of_the_time_before(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    publish_tenants(store, ["acme", "beta", "gamma"], program=bag.digest, spec=bag.spec)
    async with running(store, make_settings, preload="none") as server:
        for tenant in ("acme", "gamma", "gamma"):
            assert (await server.ask(tenant)).status_code == 200
    models = make_settings().disk_folder / "models"
    shutil.rmtree(models)
    set_preload(store, make_plan("top", "1"))
    async with running(store, make_settings, preload="all") as server:
        assert {folder.name for folder in models.iterdir()} == {"gamma"}
        assert server.plane.readiness().progress.models == 1


async def test_every_phase_and_tier_is_counted_where_it_happens(
    store: LocalStore, bag: BuiltProgram, make_settings: MakeSettings
) -> None:
    publish_tenants(store, ["acme"], program=bag.digest, spec=bag.spec)
    async with running(store, make_settings, preload="none") as server:
        for _ in range(2):  # from the store, from memory; then from disk, from memory
            for _ in range(2):
                assert (await server.ask("acme")).status_code == 200
            await server.plane.controls.unload_model("acme")
        phases = ("queue", "load_wait", "download", "map", "featurise", "score", "unload")
        counted = {phase: server.sample("macrofleet_phase_seconds_count", phase=phase) for phase in phases}
        assert counted == dict(zip(phases, (4, 2, 1, 2, 4, 4, 2), strict=True))
        assert all(server.sample("macrofleet_phase_seconds_sum", phase=phase) > 0 for phase in phases)
        hits = {tier: server.sample("macrofleet_cache_hits_total", tier=tier) for tier in ("memory", "disk", "store")}
        assert hits == {"memory": 2, "disk": 1, "store": 1}
        assert {
            source: server.sample("macrofleet_cold_loads_total", source=source) for source in ("disk", "store")
        } == {
            "disk": 1,
            "store": 1,
        }
        assert server.sample("macrofleet_evictions_total", tier="memory", cause="unloaded") == 2
        assert server.sample("macrofleet_batch_size_count") == 4
        assert server.sample("macrofleet_models_loaded") == 0
        assert server.sample("macrofleet_bytes", tier="disk") > 0
        assert server.sample("macrofleet_threads") > 1
