"""A server whose two faces a test asks, and what it tells of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from registry.model.bundle import Manifest
from registry.store import ObjectStore
from serving.app import Apps, create_apps
from serving.settings import ServingSettings
from serving.trials.shadows import Shadows
from tests.serving.helpers import PATIENCE_SECONDS, eventually, serving, spin, ticket, until_ready


class Server:
    """A server that is ready, and its two faces."""

    def __init__(self, apps: Apps, public: httpx.AsyncClient, operator: httpx.AsyncClient) -> None:
        self.apps, self.public, self.operator = apps, public, operator

    @property
    def shadows(self) -> Shadows:
        return self.apps.data_plane._shadows

    async def refresh(self) -> None:
        """Follow the fleet as it is now."""
        await self.operator.post("/admin/fleet/refresh")
        await spin()

    async def ask(self, text: str = "Where is my parcel?", tenant: str = "acme", **fields: Any) -> dict[str, Any]:
        answer = await self.public.post(f"/v1/tenants/{tenant}/suggestions", json=ticket(text, **fields))
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def report(self, tenant: str = "acme") -> Any:
        return (await self.operator.get(f"/admin/models/{tenant}")).json()["shadow"]

    async def until_loaded(self, manifest: Manifest) -> None:
        """Ask until the shadow is in memory."""
        await self.ask()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await self.report())["state"] != "ready":
                await asyncio.sleep(0.001)
        assert (await self.report())["version"] == manifest.version

    async def until_settled(self) -> None:
        await eventually(lambda: not self.shadows._waiting)

    async def metric(self, name: str, **labels: str) -> float:
        text = (await self.operator.get("/metrics")).text
        lines = "".join(line for line in text.splitlines(keepends=True) if line.startswith(name))
        (found,) = [
            sample.value
            for family in text_string_to_metric_families(lines)
            for sample in family.samples
            if (sample.name, sample.labels) == (name, labels)
        ]
        return float(found)


@asynccontextmanager
async def running(settings: ServingSettings, store: ObjectStore) -> AsyncIterator[Server]:
    apps = create_apps(settings, store)
    transport = httpx.ASGITransport(apps.operator)
    async with serving(apps.public) as public, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        await until_ready(public)
        yield Server(apps, public, client)
