"""What is on local disk follows the fleet's preload plan, and once it is there for the first time the server is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from registry.errors import MacrofleetError
from registry.fleet.state import Fleet, PreloadPlan
from serving.engine.cache import ModelCache
from serving.engine.models import Models, ServedModel
from serving.engine.preload import Preload, Progress, plan_models
from serving.engine.traffic import Traffic
from serving.fleet_watch import FleetWatch
from serving.following.departures import FleetModels
from serving.following.memory import renew_all
from serving.garbage import settle_garbage_collector
from serving.proxy.own_share import OwnShare
from serving.threads import Workers

_LOG = logging.getLogger(__name__)


class DiskFollower:
    """A loop that prepares what each new fleet's plan names. Owned by one event loop.

    Args:
        watch: the fleet.
        fleet_models: what is prepared, for the fleet's tenants.
        models: the same models' programs, which are all that is opened where nothing is preloaded.
        cache: pinned models are put there.
        traffic: what the plan's order goes by.
        share: which tenants are this replica's own.
        files: the thread in which plans are made.
        plan: where the fleet has none.
        block_broken: whether what is damaged keeps the server from being ready.
        trusted: programs that may be opened.
        again_seconds: pause between attempts at what could not be had.

    Attributes:
        ready: whether the plan was carried out once.
        share_of: how many replicas' ring the last preloading was for; None where the plan is no share of a ring.
    """

    def __init__(
        self,
        watch: FleetWatch,
        fleet_models: FleetModels,
        models: Models,
        cache: ModelCache[ServedModel],
        traffic: Traffic,
        share: OwnShare,
        *,
        files: Workers,
        plan: PreloadPlan,
        block_broken: bool,
        trusted: Iterable[str],
        again_seconds: float,
    ) -> None:
        self._watch = watch
        self._fleet_models = fleet_models
        self._models = models
        self._cache = cache
        self._traffic = traffic
        self._share = share
        self._files = files
        self._own_plan = plan
        self._trusted = sorted(trusted)
        self._again_seconds = again_seconds
        self._preload = Preload(fleet_models.prepare, block_broken=block_broken)
        self.ready = False
        self.share_of: int | None = None

    def progress(self) -> Progress:
        """How far preloading is."""
        return self._preload.progress()

    async def run(self) -> None:
        """Prepare what each new fleet names, and again and again what could not be had yet; become ready once."""
        fleet, known = await self._watch.next_fleet(None), None
        while True:
            if fleet is not known:
                await self._fleet_models.forget_tenants()
            moved = await self._share_moved(fleet)
            try:
                # What comes with another share is no news: somebody has it, and callers are not to notice.
                gently = self.ready and fleet is known
                await self._carry_out_plan(fleet, anew=moved or fleet is not known, gently=gently)
                self.share_of = (self._share.replicas or None) if self._plan(fleet).models == "share" else None
            except Exception:  # noqa: BLE001  # the loop must outlive it
                _LOG.exception("preloading failed")
            # A fleet that came in the meantime may name what is not on disk.
            if not self.ready and self._preload.complete and fleet is self._watch.fleet:
                self._become_ready(fleet)
            again = not self._preload.complete or (self._plan(fleet).models == "share" and self._share.changes)
            known, fleet = fleet, await self._next_fleet(fleet, again=again)

    async def _share_moved(self, fleet: Fleet) -> bool:
        """Whether other tenants than before are this replica's own, where the plan is about those."""
        return self._plan(fleet).models == "share" and await self._files.run(self._share.refresh)

    def _plan(self, fleet: Fleet) -> PreloadPlan:
        return fleet.preload or self._own_plan

    async def _carry_out_plan(self, fleet: Fleet, *, anew: bool, gently: bool) -> None:
        plan = self._plan(fleet)
        if plan.models == "none" and not self.ready:
            await self._open_programs()
        if anew:
            # In a thread: for ten thousand tenants it takes as long as several requests.
            requests = self._traffic.requests()
            refs = await self._files.run(plan_models, plan, fleet, requests=requests, own=self._share.of)
            await self._preload.run(refs, room=plan.bytes, beside_answers=gently)
        else:
            await self._preload.retry()
        pinned = [ref for ref in self._preload.refs if self._watch.is_pinned(ref.tenant)]
        await renew_all(self._cache, self._models, pinned)

    async def _next_fleet(self, fleet: Fleet, *, again: bool) -> Fleet:
        """The next fleet as soon as there is one; where something is to be tried again, this one after a while."""
        try:
            async with asyncio.timeout(self._again_seconds if again else None):
                return await self._watch.next_fleet(fleet)
        except TimeoutError:
            return fleet

    def _become_ready(self, fleet: Fleet) -> None:
        settle_garbage_collector()
        self.ready = True
        _LOG.info("ready", extra={"generation": fleet.generation})

    async def _open_programs(self) -> None:
        """Without preloading nobody knows which programs the models need: open those that the store has."""
        for digest in self._trusted:
            try:
                await self._models.program(digest)
            except MacrofleetError as error:
                _LOG.warning("a program cannot be loaded", extra={"program": digest}, exc_info=error)
