"""The data plane: everything between an HTTP face and the object store, put together, started and stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from registry.disk.tier import DiskTier
from registry.fleet.state import FleetReader
from registry.store import ObjectStore
from serving.admission import Admission, Pacer
from serving.answering import Answering
from serving.controls import Controls
from serving.engine.cache import ModelCache
from serving.engine.cache_events import CacheEvents
from serving.engine.models import Models, ServedModel
from serving.engine.preload import Progress
from serving.engine.traffic import Traffic
from serving.engine.traffic_record import TrafficRecorder
from serving.fleet_watch import FleetWatch
from serving.following.departures import FleetModels
from serving.following.disk import DiskFollower
from serving.following.memory import MemoryFollower
from serving.gauges import add_gauges
from serving.metrics import Metrics
from serving.outcomes import Outcomes
from serving.proxy.own_share import OwnShare
from serving.settings import ServingSettings
from serving.suggestions.answers import Answers
from serving.suggestions.asking import Answer
from serving.suggestions.catalogues import Catalogues
from serving.suggestions.explanations import Explanations
from serving.threads import Workers
from serving.trials.canaries import Canaries
from serving.trials.metrics import add_trial_metrics
from serving.trials.shadows import Shadows
from serving.watched import WatchedTenants, add_watched_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether requests may be sent here, and how far the start is.

    Attributes:
        draining: the server is about to stop.
        generation: of the fleet that serves; None before one was read.
        fleet_age_seconds: since the store last confirmed it.
        share_of: how many replicas' ring the last preloading was for; None where the plan is no share of a ring.
    """

    ready: bool
    draining: bool
    generation: int | None
    fleet_age_seconds: float | None
    progress: Progress
    share_of: int | None = None


class DataPlane:
    """Suggestions for tickets of the tenants of one store. Owned by one event loop.

    Args:
        settings: budgets, bounds and intervals.
        store: read only.
        metrics: counts what happens.
        also_ready: what else must be so before requests may be sent here.

    Attributes:
        metrics: of this server.
        answering: requests for suggestions.
        outcomes: hears what became of requests and of suggestions.
        controls: what an operator may look at and move.
    """

    def __init__(
        self,
        settings: ServingSettings,
        store: ObjectStore,
        metrics: Metrics | None = None,
        *,
        also_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self._settings = settings
        self._also_ready = also_ready
        self._running = False
        self._draining = False
        self.metrics = metrics or Metrics()
        self._files = Workers("files", 1, nice=10)
        # Apart: a store that hangs must not keep evicted models mapped, nor hold up what is written at the end.
        self._fleet_reader = Workers("fleet", 1, nice=10)
        self._readers = Workers("catalogue", 4, nice=5)
        self._readers_again = Workers("catalogue-again", 2, nice=10)
        self._watch = FleetWatch(
            FleetReader(store), workers=self._fleet_reader, poll_seconds=settings.fleet_poll_seconds
        )

        # Models
        self._disk = DiskTier(
            settings.disk_folder,
            store,
            trusted=settings.trusted_programs,
            budget_bytes=settings.disk_bytes,
            keep=lambda tenant, _: self._watch.is_pinned(tenant),
            on_evicted=lambda _, cause: self.metrics.evicted("disk", cause),
        )
        self._models = Models(
            self._disk,
            trusted=settings.trusted_programs,
            max_queue=settings.max_queue,
            pacer=Pacer(
                per_second=settings.cold_loads_per_second,
                longest_wait_seconds=settings.request_timeout_ms / 1000,
            ),
            metrics=self.metrics,
        )
        fleet_models = FleetModels(self._models, self._disk, self._watch, files=self._files)
        traffic = Traffic()
        self._cache: ModelCache[ServedModel] = ModelCache(
            wanted=self._watch.wanted,
            load=fleet_models.load,
            budget_bytes=settings.memory_bytes,
            traffic=traffic,
            pinned=self._watch.is_pinned,
            observer=CacheEvents(self.metrics, self._forget_pages),
        )
        self._shadows = Shadows(
            load=self._models.load_beside,
            budget_bytes=settings.shadow_bytes,
            share=settings.shadow_share,
            most_waiting=settings.shadow_queue,
            metrics=self.metrics,
            forget_pages=self._forget_pages,
        )

        # Requests
        self._catalogues = Catalogues(
            store, workers=self._readers, again=self._readers_again, refresh_seconds=settings.catalogue_seconds
        )
        self._answers: Answers[Answer] = Answers(
            budget_bytes=settings.answer_bytes, tenant_share=settings.answer_tenant_share
        )
        admission = Admission(
            concurrency=settings.tenant_concurrency, requests_per_second=settings.tenant_requests_per_second
        )
        self._explanations = Explanations()
        self._canaries = Canaries()
        watched = WatchedTenants(settings.metrics_tenants)
        self.outcomes = Outcomes(self.metrics, self._canaries, watched, wanted=self._watch.wanted)
        self.answering = Answering(
            watch=self._watch,
            admission=admission,
            catalogues=self._catalogues,
            answers=self._answers,
            cache=self._cache,
            disk=self._disk,
            explanations=self._explanations,
            shadows=self._shadows,
            outcomes=self.outcomes,
            signing_key=settings.signing_key.get_secret_value().encode(),
            timeout_seconds=settings.request_timeout_ms / 1000,
        )
        self.controls = Controls(self._watch, self._cache, self._shadows, pages=self._files, metrics=self.metrics)

        # Beside requests
        self._traffic = TrafficRecorder(traffic, settings.disk_folder, workers=self._files)
        self._memory_follower = MemoryFollower(
            self._watch,
            self._cache,
            self._models,
            self._traffic,
            tell=(
                lambda fleet: self._catalogues.forget_all_but(fleet.entries),
                lambda fleet: self._answers.forget_all_but(fleet.entries),
                lambda _: admission.forget_idle(),
                self._canaries.follow,
                self._shadows.follow,
            ),
            again_seconds=settings.fleet_poll_seconds,
        )
        self._disk_follower = DiskFollower(
            self._watch,
            fleet_models,
            self._models,
            self._cache,
            traffic,
            OwnShare(settings.ring, settings.ring_key),
            files=self._files,
            plan=settings.preload,
            block_broken=settings.preload_broken == "block",
            trusted=settings.trusted_programs,
            again_seconds=settings.fleet_poll_seconds,
        )

        add_gauges(
            self.metrics,
            settings,
            watch=self._watch,
            models=self._models,
            cache=self._cache,
            disk=self._disk,
            catalogues=self._catalogues,
            answers=self._answers,
            shadows=self._shadows,
            progress=self._disk_follower.progress,
            ready=lambda: self.readiness().ready,
        )
        add_trial_metrics(self.metrics, self._canaries, self._shadows, self._cache.status)
        add_watched_metrics(self.metrics, watched)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the fleet while the context lasts; preloading goes on inside of it."""
        await self._traffic.restore()
        await self._files.run(self._disk.installed_bytes)  # the first call looks at every model
        work = (self._watch.run(), self._memory_follower.run(), self._disk_follower.run(), self._traffic.run())
        tasks = [asyncio.create_task(each) for each in work]
        self._running = True
        try:
            yield
        finally:
            self._running = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._cache.close()
            await self._shadows.close()
            await self._catalogues.close()
            await self._traffic.write()
            self._explanations.close()
            self._models.close()
            await self._files.run(self._disk.close)
            self._files.close()
            self._fleet_reader.close()
            self._readers.close()
            self._readers_again.close()

    def drain(self) -> None:
        """Say from now on that the server is not ready, so that whoever sends requests stops; they are still answered."""
        self._draining = True

    def readiness(self) -> Readiness:
        """Whether requests may be sent here."""
        fleet = self._watch.fleet
        return Readiness(
            ready=self._running and self._disk_follower.ready and self._also_ready() and not self._draining,
            draining=self._draining,
            generation=fleet.generation if fleet else None,
            fleet_age_seconds=self._watch.age_seconds,
            progress=self._disk_follower.progress(),
            share_of=self._disk_follower.share_of,
        )

    def holdback_share(self, tenant: str) -> float:
        """Of a tenant's views with something to show, what share shows nothing; 0 for a tenant that there is not."""
        entry = self._watch.fleet.entries.get(tenant) if self._watch.fleet else None
        if entry is None:
            return 0.0
        return self._settings.holdback_share if entry.holdback is None else entry.holdback

    def knows(self, tenant: str) -> bool:
        """Whether the fleet has a tenant; true while it cannot be known. May be called from any thread."""
        return self._watch.knows(tenant)

    def _forget_pages(self, model: ServedModel) -> None:
        self._files.start(model.bound.forget_pages)
