"""The first page: every tenant, searched, sorted and cut into pages here; and the live figures beside it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from flows.console.guard import session_of
from flows.console.rows import SHOWS, SIZES, RowQuery, select
from flows.console.world import World

_MOST_NAMES = max(SIZES)


def fleet_router(world: World) -> APIRouter:
    """`/` and `/live.json`."""
    router = APIRouter()

    @router.get("/")
    def overview(request: Request) -> Response:
        query = RowQuery.read(request.query_params)
        known = world.index.rows
        return world.pages.page(
            request,
            "fleet.html",
            query=query,
            found=select(known.rows, query),
            known=known,
            shows=SHOWS,
            sizes=SIZES,
            servers=len(world.servers.urls),
        )

    @router.get("/live.json")
    def live(
        request: Request, tenant: Annotated[list[str] | None, Query(max_length=_MOST_NAMES)] = None
    ) -> JSONResponse:
        key = session_of(request).key
        figures = world.servers.figures(key)
        loaded = world.servers.loaded(key) if tenant and figures["answering"] else {}
        return JSONResponse(
            {
                **figures,
                "generation": world.index.rows.generation,
                "loaded": {name: loaded.get(name, 0) for name in tenant or ()} if figures["answering"] else None,
            }
        )

    return router
