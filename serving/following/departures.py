"""Tenants that leave the fleet while their model is fetched: nothing of theirs stays on disk, or comes to serve."""

from __future__ import annotations

import logging

from registry.disk.tier import DiskTier
from registry.errors import StoreError, TenantNotFound
from serving.engine.models import Models, ServedModel
from serving.fleet_watch import FleetWatch, ModelRef
from serving.threads import Workers

_LOG = logging.getLogger(__name__)


class FleetModels:
    """`Models` for the fleet's tenants alone. Owned by one event loop; has no state.

    Args:
        models: makes them.
        disk: where they are installed.
        watch: who is in the fleet.
        files: the thread that removes what is on disk.
    """

    def __init__(self, models: Models, disk: DiskTier, watch: FleetWatch, *, files: Workers) -> None:
        self._models = models
        self._disk = disk
        self._watch = watch
        self._files = files

    async def load(self, ref: ModelRef, *, demand: bool) -> ServedModel:
        """A model in memory, as `Models.load`.

        Raises:
            TenantNotFound: its tenant has left the fleet while it was loaded.
            MacrofleetError: see `Models.load`.
        """
        try:
            model = await self._models.load(ref, demand=demand)
        finally:
            await self._forget_if_left(ref.tenant)
        if not self._watch.knows(ref.tenant):
            raise TenantNotFound("there is no such tenant")
        return model

    async def prepare(self, ref: ModelRef) -> int:
        """A model on disk, as `Models.prepare`; removed again where its tenant has left the fleet meanwhile."""
        try:
            return await self._models.prepare(ref)
        finally:
            await self._forget_if_left(ref.tenant)

    async def forget_tenants(self) -> None:
        """Remove from the disk tier what belongs to tenants that the fleet does not have (any more)."""
        try:
            removed = await self._files.run(self._disk.retain, self._watch.knows)
        except StoreError as error:
            _LOG.warning("models of tenants that left the fleet cannot be removed", exc_info=error)
        else:
            if removed:
                _LOG.info("models of tenants that left the fleet were removed", extra={"count": removed})

    async def _forget_if_left(self, tenant: str) -> None:
        if not self._watch.knows(tenant):
            await self.forget_tenants()
