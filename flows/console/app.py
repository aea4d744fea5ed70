"""The console as an ASGI application: its pages, what stands before them, and what an error looks like."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles

from flows.console.action_pages import action_router
from flows.console.fleet_pages import fleet_router
from flows.console.guard import Guard
from flows.console.metrics import metrics_router
from flows.console.playground_pages import playground_router
from flows.console.rendering import STATIC
from flows.console.run_pages import run_router
from flows.console.sign_in import sign_in_router
from flows.console.tenant_pages import tenant_router
from flows.console.world import World
from registry.errors import (
    DatabaseUnavailable,
    InvalidInput,
    InvalidTenant,
    MacrofleetError,
    ModelNotFound,
    ObjectNotFound,
    PublishConflict,
    StoreError,
    TenantNotFound,
)

_LOG = logging.getLogger(__name__)
# The first that fits: more special ones stand before what they are special cases of.
_STATUS: tuple[tuple[type[MacrofleetError], int, str], ...] = (
    (TenantNotFound, 404, "There is no such tenant"),
    (InvalidTenant, 404, "There is no such tenant"),
    (ModelNotFound, 404, "There is no such version"),
    (ObjectNotFound, 404, "There is no such page"),
    (PublishConflict, 409, "Somebody else was quicker"),
    (InvalidInput, 422, "This cannot be done as it is"),
    (StoreError, 503, "The object store does not answer"),
    (DatabaseUnavailable, 503, "The key database does not answer"),
)


def create_app(world: World) -> FastAPI:
    """The application; it reads the fleet once it is started, and lets go of what it holds at its end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(world.index.start)
        try:
            yield
        finally:
            await run_in_threadpool(world.index.close)
            world.servers.close()
            if world.prefect is not None:
                world.prefect.close()

    app = FastAPI(title="macrofleet console", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    def refuse(request: Request, error: MacrofleetError | None, status: int, title: str) -> Response:
        what, remedy = (error.what, error.remedy) if error else ("", "")
        return world.pages.page(request, "error.html", status=status, title=title, what=what, remedy=remedy)

    @app.get("/healthz")
    def healthy() -> Response:
        return PlainTextResponse("ok")

    for router in (
        sign_in_router(world),
        fleet_router(world),
        tenant_router(world),
        action_router(world),
        playground_router(world),
        run_router(world),
        metrics_router(world),
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC))

    @app.exception_handler(MacrofleetError)
    def failed(request: Request, error: MacrofleetError) -> Response:
        found = next(((status, title) for kind, status, title in _STATUS if isinstance(error, kind)), None)
        status, title = found or (500, "This did not work")
        if status >= 500:
            _LOG.warning("%s: %s", type(error).__name__, error)
        return refuse(request, error, status, title)

    @app.exception_handler(HTTPException)
    def no_page(request: Request, error: HTTPException) -> Response:
        title = "There is no such page" if error.status_code == 404 else error.detail
        return refuse(request, None, error.status_code, title)

    @app.exception_handler(RequestValidationError)
    def wrong(request: Request, _: RequestValidationError) -> Response:
        return refuse(request, None, 422, "This address cannot be read")

    app.add_middleware(Guard, sessions=world.sessions, cookies=world.cookies, refuse=refuse)
    return app
