"""The page of one tenant, and its parts that take longer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from flows.console.acceptance import curve
from flows.console.guard import session_of
from flows.console.macro_view import SHOWN, TELLING, Order, read_macro_table, read_titles
from flows.console.tenant_view import entry_of, read_view, standing
from flows.console.world import World
from registry.errors import MacrofleetError, TenantNotFound
from registry.names import check_tenant

_WIDTH, _HEIGHT = 600.0, 120.0


def tenant_router(world: World) -> APIRouter:
    """Everything below `/tenants/{tenant}`."""
    router = APIRouter(prefix="/tenants/{tenant}")

    @router.get("")
    def show(request: Request, tenant: str) -> Response:
        check_tenant(tenant)
        view = read_view(world.store, tenant, world.flow_settings)
        return world.pages.page(request, "tenant.html", view=view, servers=len(world.servers.urls))

    @router.get("/standing")
    def what_is_missing(request: Request, tenant: str) -> Response:
        found, problem = None, ""
        try:
            found = standing(world.store, check_tenant(tenant), world.flow_settings, now=datetime.now(UTC))
        except TenantNotFound:
            problem = "It has no tickets yet."
        except MacrofleetError as error:
            problem = str(error)
        return world.pages.part(request, "part_standing.html", tenant=tenant, found=found, problem=problem)

    @router.get("/tracked")
    def tracked(request: Request, tenant: str) -> Response:
        try:
            rows, problem = world.tracked.rows(check_tenant(tenant)), ""
        except MacrofleetError as error:
            rows, problem = (), str(error)
        return world.pages.part(request, "part_tracked.html", tenant=tenant, rows=rows, problem=problem)

    @router.get("/acceptance")
    def accepted(request: Request, tenant: str) -> Response:
        try:
            days, problem = world.acceptance.days(check_tenant(tenant)), ""
        except MacrofleetError as error:
            days, problem = (), str(error)
        line = curve(days, width=_WIDTH, height=_HEIGHT)
        return world.pages.part(request, "part_acceptance.html", tenant=tenant, days=days, line=line, problem=problem)

    @router.get("/macros")
    def macros(request: Request, tenant: str, by: str = "used") -> Response:
        order: Order = "weakest" if by == "weakest" else "used"
        table, use, problem = None, None, ""
        titles: Mapping[str, str] = {}
        try:
            entry = entry_of(world.store, check_tenant(tenant))
            version = entry.version or entry.candidate
            if version is not None:
                table = read_macro_table(world.store, tenant, version, order=order)
            titles = read_titles(world.store, tenant) if table is None else table.titles
            use = world.acceptance.macros(tenant)
        except MacrofleetError as error:
            problem = str(error)
        return world.pages.part(
            request, "part_macros.html", tenant=tenant, table=table, use=use, titles=titles, order=order,
            telling=TELLING, most=SHOWN, problem=problem,
        )  # fmt: skip

    @router.get("/live.json")
    def live(request: Request, tenant: str) -> JSONResponse:
        return JSONResponse({"servers": world.servers.models(check_tenant(tenant), session_of(request).key)})

    return router
