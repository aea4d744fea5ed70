"""What an operator asks of this replica: list, load and unload models, and look at the fleet now.

What shall hold on every replica (pins, limits, the preload plan, roll-backs) is not here but in the fleet
(`macrofleet fleet`), which every replica follows.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic.dataclasses import dataclass

from serving.access import Grant, PublishedAccess
from serving.controls import Controls
from serving.engine.model_status import ModelStatus
from serving.faces.guard import GuardedRoute, grant_of, needs
from serving.trials.shadows import ShadowReport


@dataclass(frozen=True, slots=True)
class ModelPage:
    """Models in the order of tenants.

    Attributes:
        next: pass it as `after` for the next page; None on the last one.
    """

    models: list[ModelStatus]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetail(ModelStatus):
    """A model, and its shadow where the fleet names one."""

    shadow: ShadowReport | None


def make_admin_router(controls: Controls, access: PublishedAccess | None) -> APIRouter:
    """The routes below `/admin`: an operator's, but that a tenant's administrator may look at its own model.

    Args:
        access: the keys that can be read again; None where nobody is asked for one.
    """
    router = APIRouter(prefix="/admin", tags=["admin"], route_class=GuardedRoute)

    @router.get("/models", summary="The models of this replica")
    @needs("tenant-admin")
    async def models(
        request: Request,
        state: Annotated[str | None, Query(pattern="^(absent|fetching|ready)$")] = None,
        after: str = "",
        limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    ) -> ModelPage:
        """Size, state, last use, hits, load and wait times of every tenant's model that the caller may know of."""
        grant = grant_of(request)
        if grant.tenant is None:
            found = controls.models_after(after, state=state)
        else:
            own = controls.models_of([grant.tenant])
            found = (each for each in own if each.tenant > after and state in (None, each.state))
        page = [replace(each, error=_told(each.error, grant)) for each in islice(found, limit)]
        return ModelPage(models=page, next=page[-1].tenant if next(found, None) else None)

    @router.get("/models/{tenant}", summary="One model of this replica")
    @needs("tenant-admin")
    async def model(tenant: str, request: Request) -> ModelDetail:
        grant, found, shadow = grant_of(request), controls.model(tenant), controls.shadow(tenant)
        if shadow is not None:
            shadow = replace(shadow, error=_told(shadow.error, grant))
        return ModelDetail(**{**asdict(found), "error": _told(found.error, grant)}, shadow=shadow)

    @router.post("/models/{tenant}/load", summary="Have a model in memory")
    @needs("operator")
    async def load(tenant: str) -> ModelStatus:
        """Answers when it is there. It may be evicted again; to keep it, pin it in the fleet."""
        return await controls.load_model(tenant)

    @router.post("/models/{tenant}/unload", summary="Let go of a model's memory")
    @needs("operator")
    async def unload(tenant: str) -> ModelStatus:
        """Answers when the last request that used it is done and the memory is free. The next request loads it again."""
        await controls.unload_model(tenant)
        return controls.model(tenant)

    @router.post("/fleet/refresh", summary="Read the fleet now")
    @needs("operator")
    async def refresh() -> dict[str, Any]:
        """Answers when it was read; new versions then take over as they are loaded."""
        return {"generation": await controls.refresh_fleet()}

    @router.post("/access/refresh", summary="Read the API keys now")
    @needs("operator")
    async def refresh_access() -> dict[str, Any]:
        """Answers when they were read: what was revoked before is refused from then on."""
        return {"generation": 0 if access is None else await access.refresh()}

    return router


def _told(error: str | None, grant: Grant) -> str | None:
    """Why a load failed, as a caller may know it: what the error says names files and addresses, which are an operator's."""
    return error if error is None or grant.has("operator") else "the last load failed; the server's log says why"
