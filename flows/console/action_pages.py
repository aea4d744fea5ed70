"""What an operator may do to a tenant: the fleet's desired state, which every server follows, and settings of training."""

from __future__ import annotations

import logging

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from flows.console.guard import form_of, session_of
from flows.console.servers import followed
from flows.console.tenant_view import ACTIONS, differences, given_settings
from flows.console.world import World
from registry.errors import MacrofleetError, ObjectNotFound, TenantNotFound
from registry.names import check_tenant
from registry.tenant_settings import edit_tenant_settings

_LOG = logging.getLogger(__name__)


def action_router(world: World) -> APIRouter:
    """Below `/tenants/{tenant}`: `/settings`, and a path for each of `ACTIONS`. After the pages there, whose paths win."""
    router = APIRouter(prefix="/tenants/{tenant}")

    @router.post("/settings")
    def set_settings(request: Request, tenant: str) -> Response:
        session = session_of(request)
        try:
            edits = edit_tenant_settings(world.store, [check_tenant(tenant)], given_settings(form_of(request)))
        except MacrofleetError as error:
            _raise_if_unknown(error)
            session.tell("bad", str(error))
        else:
            edit = edits[tenant]
            _LOG.info("operator's key %s: settings of tenant %s", session.prefix, tenant)
            same = edit.before == edit.after
            session.tell("good", "The settings are as before." if same else "The next training follows these settings.")
        return RedirectResponse(f"/tenants/{tenant}#settings", status_code=303)

    @router.get("/{action}")
    def preview(request: Request, tenant: str, action: str, version: str = "") -> Response:
        found = ACTIONS.get(action)
        if found is None or not found.takes_version:
            raise ObjectNotFound("there is no such page")
        edit = found.apply(world.store, check_tenant(tenant), version, False)
        rows = differences(edit, tenant)
        return world.pages.page(
            request, "preview.html", tenant=tenant, name=action, action=found, version=version, rows=rows
        )

    @router.post("/{action}")
    def act(request: Request, tenant: str, action: str) -> Response:
        found = ACTIONS.get(action)
        if found is None:
            raise ObjectNotFound("there is no such page")
        session, version = session_of(request), form_of(request).get("version", "")
        try:
            edit = found.apply(world.store, check_tenant(tenant), version, True)
        except MacrofleetError as error:
            _raise_if_unknown(error)
            session.tell("bad", str(error))
            return RedirectResponse(f"/tenants/{tenant}", status_code=303)
        world.index.refresh_fleet()
        if edit.changed():
            _LOG.info(
                "operator's key %s: %s of tenant %s, fleet generation %d",
                session.prefix, action, tenant, edit.generation,
            )  # fmt: skip
            told = f"{tenant} {found.past.format(version=version)}: fleet generation {edit.generation}"
            there = followed(world.servers.refresh(session.key), edit.generation)
            session.tell("good", f"{told}; {there}." if there else f"{told}.")
        else:
            session.tell("good", f"{tenant} is as before: nothing was to be changed.")
        return RedirectResponse(f"/tenants/{tenant}", status_code=303)

    return router


def _raise_if_unknown(error: MacrofleetError) -> None:
    """A page of its own for a tenant that is not there: there is none to go back to."""
    if isinstance(error, TenantNotFound):
        raise error
