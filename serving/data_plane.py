"""The data plane: everything between an HTTP face and the object store, put together."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from registry.disk_tier import DiskTier
from registry.errors import DeadlineExceeded, MacrofleetError
from registry.fleet import Fleet, FleetReader
from registry.store import ObjectStore
from serving.cache import ModelCache
from serving.catalogues import Catalogues
from serving.fleet_watch import FleetWatch
from serving.models import Models, ServedModel
from serving.preload import Preload, Progress
from serving.settings import ServingSettings
from serving.suggest import Suggestions, choose, suggestion_id

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tenant's model says to a ticket."""

    suggestion_id: str
    model_version: str
    suggestions: Suggestions


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether requests may be sent here, and how far the start is.

    Attributes:
        generation: of the fleet that serves; None before one was read.
        fleet_age_seconds: since the store last confirmed it.
    """

    ready: bool
    generation: int | None
    fleet_age_seconds: float | None
    progress: Progress


class DataPlane:
    """Suggestions for tickets of the tenants of one store. Owned by one event loop.

    Args:
        settings: budgets, bounds and intervals.
        store: read only.
    """

    def __init__(self, settings: ServingSettings, store: ObjectStore) -> None:
        self._settings = settings
        self._key = settings.signing_key.get_secret_value().encode()
        disk = DiskTier(settings.disk_folder, store, trusted=settings.trusted_programs)
        self._models = Models(disk, trusted=settings.trusted_programs, max_queue=settings.max_queue)
        self._watch = FleetWatch(FleetReader(store), poll_seconds=settings.fleet_poll_seconds)
        self._cache: ModelCache[ServedModel] = ModelCache(
            wanted=self._watch.wanted, load=self._models.load, budget_bytes=settings.memory_bytes
        )
        self._catalogues = Catalogues(store, refresh_seconds=settings.catalogue_seconds)
        self._preload = Preload(self._models.prepare)
        self._ready = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the fleet while the context lasts; preloading goes on inside of it."""
        tasks = [asyncio.create_task(self._watch.run()), asyncio.create_task(self._follow())]
        try:
            yield
        finally:
            self._ready = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._cache.close()
            await self._catalogues.close()
            self._models.close()

    def readiness(self) -> Readiness:
        """Whether requests may be sent here."""
        fleet = self._watch.fleet
        return Readiness(
            ready=self._ready,
            generation=fleet.generation if fleet else None,
            fleet_age_seconds=self._watch.age_seconds,
            progress=self._preload.progress(),
        )

    async def suggest(
        self,
        tenant: str,
        text: str,
        *,
        ticket: str,
        revision: int,
        limit: int,
        exclude: Collection[str],
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Suggest macros for a ticket.

        Args:
            tenant: whose model; any string may come in here.
            text: `registry.ticket.ticket_text` of the ticket.
            ticket: its id, and `revision` which state of it; only the suggestion's id depends on them.
            limit: how many macros at most.
            exclude: ids of macros that are not wanted.
            timeout_seconds: when the caller stops waiting; None takes the setting.

        Raises:
            TenantNotFound: no such tenant.
            ModelNotFound: the tenant has no model yet.
            DeadlineExceeded: no answer in time.
            Overloaded: too many requests wait.
            NotReady, CatalogueUnavailable, BundleCorrupt, ProgramCorrupt, ProgramUntrusted, StoreError: not now.
        """
        seconds = self._settings.request_timeout_ms / 1000 if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds), self._cache.lease(tenant) as model:
                titles = await self._catalogues.titles(tenant)
                scores = await model.executor.score(model.bound, text, deadline=deadline)
                bound, version = model.bound, model.version
        except TimeoutError:
            raise DeadlineExceeded("there was no answer within the request's deadline") from None
        threshold = bound.manifest.threshold
        chosen = choose(scores, bound.labels, titles, exclude=exclude, limit=limit, threshold=threshold)
        return Answer(
            suggestion_id=suggestion_id(
                self._key, tenant=tenant, ticket=ticket, revision=revision, version=version, macros=chosen.macros
            ),
            model_version=version,
            suggestions=chosen,
        )

    async def _follow(self) -> None:
        """Prepare what each new fleet names, and again and again what could not be had yet; become ready once."""
        fleet, known = await self._watch.next_fleet(None), None
        while True:
            try:
                if self._settings.preload.models == "all":
                    await (self._preload.retry() if fleet is known else self._preload.run(self._watch.refs()))
                elif not self._ready:
                    await self._open_programs()
            except Exception:  # noqa: BLE001  # the loop must outlive it
                _LOG.exception("preloading failed")
            # A fleet that came in the meantime may name what is not on disk.
            if not self._ready and self._preload.complete and fleet is self._watch.fleet:
                self._become_ready(fleet)
            known, fleet = fleet, await self._next_round(fleet)

    def _become_ready(self, fleet: Fleet) -> None:
        # A full collection with TensorFlow imported stops the process for 150 ms: once, now, and never again.
        gc.collect()
        gc.freeze()
        self._ready = True
        _LOG.info("ready", extra={"generation": fleet.generation})

    async def _next_round(self, fleet: Fleet) -> Fleet:
        """The next fleet as soon as there is one; where something is to be tried again, this one after a while."""
        seconds = None if self._preload.complete else self._settings.fleet_poll_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._watch.next_fleet(fleet)
        except TimeoutError:
            return fleet

    async def _open_programs(self) -> None:
        """Without preloading nobody knows which programs the models need: open those that the store has."""
        for digest in sorted(self._settings.trusted_programs):
            try:
                await self._models.program(digest)
            except MacrofleetError as error:
                _LOG.warning("a program cannot be loaded", extra={"program": digest}, exc_info=error)
