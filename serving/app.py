"""The ASGI application, composed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from registry.store import ObjectStore
from serving.api import add_schemas, make_router
from serving.data_plane import DataPlane
from serving.edge import Edge
from serving.errors import add_error_handlers
from serving.settings import ServingSettings


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        made_before = self.openapi_schema is not None
        schema = super().openapi()
        if not made_before:
            add_schemas(schema)
        return schema


def create_app(settings: ServingSettings, store: ObjectStore) -> FastAPI:
    """An application that serves the fleet of `store`. It works while its lifespan lasts.

    Args:
        settings: `host` and `port` are not looked at.
        store: only ever read.
    """
    data_plane = DataPlane(settings, store)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with data_plane.running():
            yield

    app = _App(
        title="macrofleet",
        summary="Macro suggestions for support tickets, from one model per tenant",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # the page fetches its scripts from elsewhere; /openapi.json is there
        redoc_url=None,
    )
    app.add_middleware(Edge)
    add_error_handlers(app)
    app.include_router(make_router(data_plane))
    return app
