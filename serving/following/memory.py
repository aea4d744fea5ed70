"""What is in memory follows the fleet: new versions take over, and whoever left it is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

from registry.fleet.state import Fleet
from serving.engine.cache import ModelCache
from serving.engine.models import ServedModel
from serving.engine.traffic_record import TrafficRecorder
from serving.fleet_watch import FleetWatch

_LOG = logging.getLogger(__name__)
_SWAPS_AT_ONCE = 4


class MemoryFollower:
    """A loop that brings what is in memory to each new fleet, and tries again what failed. Has no state.

    Args:
        watch: the fleet.
        cache: models that serve.
        traffic: recent requests by tenant.
        tell: called with each new fleet, in this order: whatever else remembers something of tenants.
        again_seconds: pause between attempts at versions that could not be had.
    """

    def __init__(
        self,
        watch: FleetWatch,
        cache: ModelCache[ServedModel],
        traffic: TrafficRecorder,
        *,
        tell: Iterable[Callable[[Fleet], object]],
        again_seconds: float,
    ) -> None:
        self._watch = watch
        self._cache = cache
        self._traffic = traffic
        self._tell = tuple(tell)
        self._again_seconds = again_seconds

    async def run(self) -> None:
        """Follow until cancelled; loads that are under way then go on."""
        fleet = await self._watch.next_fleet(None)
        while True:
            try:
                self._cache.retain(self._watch.serves)
                await self._traffic.forget_all_but(fleet.entries)
                for tell in self._tell:
                    tell(fleet)
            except Exception:  # noqa: BLE001  # the loop must outlive it, or no version is ever replaced again
                _LOG.exception("following the fleet failed")
            # Until there is another one: a download that hangs holds up neither its swaps nor who leaves with it.
            renewing = asyncio.create_task(self._keep_renewing())
            try:
                fleet = await self._watch.next_fleet(fleet)
            finally:
                renewing.cancel()  # loads that are under way go on
                await asyncio.gather(renewing, return_exceptions=True)

    async def _keep_renewing(self) -> None:
        while True:
            await renew_all(self._cache, self._cache.outdated())
            await asyncio.sleep(self._again_seconds)


async def renew_all(cache: ModelCache[ServedModel], tenants: Iterable[str]) -> None:
    """Have the versions that the fleet names in memory, a few at a time; what fails is the cache's to tell."""
    waiting = iter(tenants)

    async def work_off() -> None:
        for tenant in waiting:
            with suppress(Exception):
                await cache.renew(tenant)

    async with asyncio.TaskGroup() as group:
        for _ in range(_SWAPS_AT_ONCE):
            group.create_task(work_off())
