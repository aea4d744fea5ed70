"""What is in memory follows the fleet: new versions take over, and whoever left it is forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from registry.errors import MacrofleetError
from registry.fleet.state import Fleet
from serving.engine.cache import ModelCache
from serving.engine.models import Models, ServedModel
from serving.engine.traffic_record import TrafficRecorder
from serving.fleet_watch import FleetWatch, ModelRef

_LOG = logging.getLogger(__name__)
_SWAPS_AT_ONCE = 4


class MemoryFollower:
    """A loop that brings what is in memory to each new fleet, and tries again what failed. Has no state.

    Args:
        watch: the fleet.
        cache: models that serve.
        models: says which versions are on disk.
        traffic: recent requests by tenant.
        tell: called with each new fleet, in this order: whatever else remembers something of tenants.
        again_seconds: pause between attempts at versions that could not be had.
    """

    def __init__(
        self,
        watch: FleetWatch,
        cache: ModelCache[ServedModel],
        models: Models,
        traffic: TrafficRecorder,
        *,
        tell: Iterable[Callable[[Fleet], object]],
        again_seconds: float,
    ) -> None:
        self._watch = watch
        self._cache = cache
        self._models = models
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
            await renew_all(self._cache, self._models, self._outdated())
            await asyncio.sleep(self._again_seconds)

    def _outdated(self) -> list[ModelRef]:
        """What those should have whose model in memory is another version."""
        refs = []
        for tenant in self._cache.outdated():
            with suppress(MacrofleetError):  # it has just lost its version
                refs.append(self._watch.wanted(tenant))
        return refs


async def renew_all(cache: ModelCache[ServedModel], models: Models, refs: Sequence[ModelRef]) -> None:
    """Have what the fleet names in memory: what is on disk, and beside it what is not, so that a roll-back waits for no download.

    A few at a time; what fails is the cache's to tell.

    Args:
        models: says which of them are on disk.
        refs: what the fleet names.
    """
    if not refs:
        return
    here = await models.on_disk(refs)

    async def work_off(waiting: Iterator[ModelRef]) -> None:
        for ref in waiting:
            with suppress(Exception):
                await cache.renew(ref.tenant)

    async with asyncio.TaskGroup() as group:
        for there in (True, False):
            lane = iter([ref for ref in refs if (ref in here) == there])
            for _ in range(_SWAPS_AT_ONCE):
                group.create_task(work_off(lane))
