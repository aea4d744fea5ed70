"""The data plane: everything between an HTTP face and the object store, put together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from registry.disk.tier import DiskTier
from registry.errors import (
    DeadlineExceeded,
    LoadBackingOff,
    MacrofleetError,
    NotReady,
    OutOfResources,
    Overloaded,
    StoreError,
    TenantNotFound,
    TenantThrottled,
    TooManyLoads,
)
from registry.fleet.state import Fleet, FleetReader, PreloadPlan
from registry.model.explain import Contribution
from registry.store import ObjectStore
from serving.admission import Admission, Pacer
from serving.engine.cache import Lease, ModelCache
from serving.engine.model_status import ModelStatus
from serving.engine.models import Models, ServedModel
from serving.engine.preload import Preload, Progress, plan_models
from serving.engine.traffic import Traffic
from serving.engine.traffic_record import read_traffic, write_traffic
from serving.errors import problem_for
from serving.fleet_watch import FleetWatch, ModelRef
from serving.garbage import settle_garbage_collector
from serving.metrics import Metrics
from serving.proxy.own_share import OwnShare
from serving.settings import ServingSettings
from serving.suggestions.answers import Answers
from serving.suggestions.asking import Answer, Asked
from serving.suggestions.catalogues import Catalogues
from serving.suggestions.choice import Suggestions, choose
from serving.suggestions.explanations import Explanations
from serving.suggestions.policy import Policy
from serving.threads import Workers
from serving.tracing import current_trace
from serving.trials.canaries import Canaries, Heard, Outcome
from serving.trials.metrics import add_trial_metrics
from serving.trials.shadows import Answered, ShadowReport, Shadows
from serving.watched import WatchedTenants, add_watched_metrics

_LOG = logging.getLogger(__name__)
_SWAPS_AT_ONCE = 4
_TRAFFIC_SECONDS = 60.0


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
        self.metrics = metrics or Metrics()
        self._key = settings.signing_key.get_secret_value().encode()
        self._traffic = Traffic()
        self._disk = DiskTier(
            settings.disk_folder,
            store,
            trusted=settings.trusted_programs,
            budget_bytes=settings.disk_bytes,
            keep=lambda tenant, _: self._watch.is_pinned(tenant),
            on_evicted=lambda _, cause: self.metrics.evicted("disk", cause),
        )
        self._files = Workers("files", 1, nice=10)
        # Apart: a store that hangs must not keep evicted models mapped, nor hold up what is written at the end.
        self._fleet_reader = Workers("fleet", 1, nice=10)
        self._readers = Workers("catalogue", 2, nice=5)
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
        self._watch = FleetWatch(
            FleetReader(store), workers=self._fleet_reader, poll_seconds=settings.fleet_poll_seconds
        )
        self._cache: ModelCache[ServedModel] = ModelCache(
            wanted=self._watch.wanted,
            load=self._load,
            budget_bytes=settings.memory_bytes,
            traffic=self._traffic,
            pinned=self._watch.is_pinned,
            observer=_CacheEvents(self.metrics, lambda model: self._files.start(model.bound.forget_pages)),
        )
        self._catalogues = Catalogues(store, workers=self._readers, refresh_seconds=settings.catalogue_seconds)
        self._answers: Answers[Answer] = Answers(
            budget_bytes=settings.answer_bytes, tenant_share=settings.answer_tenant_share
        )
        self._admission = Admission(
            concurrency=settings.tenant_concurrency, requests_per_second=settings.tenant_requests_per_second
        )
        self._explanations = Explanations()
        self._canaries = Canaries()
        self._watched = WatchedTenants(settings.metrics_tenants)
        self._shadows = Shadows(
            load=self._load_beside,
            budget_bytes=settings.shadow_bytes,
            share=settings.shadow_share,
            most_waiting=settings.shadow_queue,
            metrics=self.metrics,
            forget_pages=lambda model: self._files.start(model.bound.forget_pages),
        )
        self._share = OwnShare(settings.ring, settings.ring_key)
        self._share_of: int | None = None
        self._preload = Preload(self._prepare, block_broken=settings.preload_broken == "block")
        self._ready = False
        self._draining = False
        self._add_gauges()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the fleet while the context lasts; preloading goes on inside of it."""
        self._traffic.restore(await self._files.run(read_traffic, self._settings.disk_folder))
        await self._files.run(self._disk.installed_bytes)  # the first call looks at every model
        work = (self._watch.run(), self._follow_with_memory(), self._follow_with_disk(), self._record_traffic())
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield
        finally:
            self._ready = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._cache.close()
            await self._shadows.close()
            await self._catalogues.close()
            await self._files.run(write_traffic, self._settings.disk_folder, self._traffic.requests())
            self._explanations.close()
            self._models.close()
            await self._files.run(self._disk.close)
            self._files.close()
            self._fleet_reader.close()
            self._readers.close()

    def drain(self) -> None:
        """Say from now on that the server is not ready, so that whoever sends requests stops; they are still answered."""
        self._draining = True

    def readiness(self) -> Readiness:
        """Whether requests may be sent here."""
        fleet = self._watch.fleet
        return Readiness(
            ready=self._ready and self._also_ready() and not self._draining,
            draining=self._draining,
            generation=fleet.generation if fleet else None,
            fleet_age_seconds=self._watch.age_seconds,
            progress=self._preload.progress(),
            share_of=self._share_of,
        )

    def ask(self, tenant: str) -> None:
        """A request of a tenant has come, and is refused where the tenant is over its limits: before anything is done for it.

        Args:
            tenant: any string may come in here.

        Raises:
            TenantNotFound: no such tenant.
            TenantThrottled: the tenant is over its limits.
            NotReady: no fleet was read yet.
        """
        try:
            self._admission.ask(tenant, self._watch.entry(tenant).limits)
        except MacrofleetError as error:
            self._count_refusal(tenant, error)
            raise

    def holdback_share(self, tenant: str) -> float:
        """Of a tenant's views with something to show, what share shows nothing; 0 for a tenant that there is not."""
        entry = self._watch.fleet.entries.get(tenant) if self._watch.fleet else None
        if entry is None:
            return 0.0
        return self._settings.holdback_share if entry.holdback is None else entry.holdback

    def hear(self, tenant: str, version: str, *, accepted: bool) -> None:
        """An agent applied one of the macros that a version had suggested, or did not. For a tenant in the fleet."""
        heard: Heard = "accepted" if accepted else "declined"
        self._canaries.hear(tenant, version, heard)
        self._watched.hear(tenant, heard)

    def knows(self, tenant: str) -> bool:
        """Whether the fleet has a tenant; true while it cannot be known. May be called from any thread."""
        return self._is_known(tenant)

    async def answer(
        self,
        tenant: str,
        text: str,
        *,
        ticket: str | None,
        revision: int = 0,
        limit: int,
        exclude: Collection[str] = (),
        groups: Collection[str] = (),
        locale: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Answer:
        """Suggest macros for a ticket, after `ask`.

        Args:
            tenant: whose model.
            text: `registry.text.ticket.asked_text` of the ticket.
            ticket: its id, and `revision` which state of it. Answers to it are remembered, by its text as well; those to a
                ticket without an id are not.
            limit: how many macros at most.
            exclude: ids of macros that are not wanted.
            groups: ids of the agent's groups: who is in none sees what is for everybody.
            locale: of the ticket: macros in another language are left out.
            timeout_seconds: when the caller stops waiting; None takes the setting.

        Raises:
            TenantNotFound: no such tenant.
            ModelNotFound: the tenant has no model yet.
            DeadlineExceeded: no answer in time.
            TenantThrottled: too many requests of the tenant are under way, or its part of the queue is full.
            Overloaded: too many requests wait, or too many models are being fetched.
            LoadBackingOff: the model failed to load a moment ago.
            NotReady, CatalogueUnavailable, BundleCorrupt, ProgramCorrupt, ProgramUntrusted, StoreError: not now.
        """
        request = Asked(
            tenant=tenant,
            text=text,
            ticket=ticket,
            revision=revision,
            limit=limit,
            exclude=exclude,
            groups=groups,
            locale=locale,
            seconds=self._settings.request_timeout_ms / 1000 if timeout_seconds is None else timeout_seconds,
        )
        try:
            with self._admission.enter(tenant, self._watch.entry(tenant).limits):
                trace = current_trace()
                if trace is not None:
                    trace.set("macrofleet.tenant", tenant)
                answer = await self._answered(request)
        except Exception as error:
            self._count_failure(tenant, error)
            raise
        if trace is not None:
            trace.set("macrofleet.model.version", answer.model_version)
        return answer

    async def _answered(self, request: Asked) -> Answer:
        """What was answered before, where that still holds, or else what the model says."""
        tenant = request.tenant
        deadline = time.monotonic() + request.seconds
        policy = self._catalogues.known(tenant)
        known = None if policy is None else self._known_answer(request, policy)
        if known is not None:
            return known
        lease = self._cache.try_lease(tenant)
        if lease is None or policy is None:
            asked = time.monotonic()
            try:
                lease, policy = await self._fetched(tenant, lease, policy, seconds=request.seconds)
            finally:
                if (trace := current_trace()) is not None:
                    trace.phase("load_wait", asked, time.monotonic())
        with lease as model:
            if policy.is_off(request.groups):
                return request.answer(self._key, policy, model.version, Suggestions((), "switched_off"))
            scores, job = await model.executor.score(model.bound, request.text, tenant=tenant, deadline=deadline)
            bound, version, executor = model.bound, model.version, model.executor
            features, place = job.features, job.index
            self._disk.note_use(tenant, version)
            labels, threshold = bound.labels, bound.manifest.threshold
            if (trace := current_trace()) is not None:
                trace.phase("queue", job.queued, job.began)
                trace.phase("featurise", job.began, job.featurised)
                trace.phase("score", job.featurised, job.scored)
            del model, bound, job
        audience = policy.audience(request.groups, request.locale)
        shown = policy.shown(version, labels, audience)
        chosen = choose(scores, shown, exclude=request.exclude, limit=request.limit, threshold=threshold)
        self._count_answer(tenant, version, "suggested" if chosen.macros else "abstained")
        if self._shadows.has(tenant):
            answered = Answered(
                tenant=tenant,
                text=request.text,
                version=version,
                scores=scores,
                shown=shown,
                threshold=threshold,
                policy=policy,
                audience=audience,
                exclude=request.exclude,
                executor=executor,
                features=features,
                index=place,
            )
            self._shadows.offer(answered)
        answer = request.answer(self._key, policy, version, chosen)
        if request.ticket is not None and self._answers.on:
            made_of = version, policy.version
            self._answers.keep(tenant, request.key(audience), made_of, answer, nbytes=answer.nbytes)
        return answer

    def _known_answer(self, request: Asked, policy: Policy) -> Answer | None:
        """An answer that is known without the model; it need not even be in memory."""
        tenant = request.tenant
        if policy.is_off(request.groups):
            version = self._watch.wanted(tenant).version
            return request.answer(self._key, policy, version, Suggestions((), "switched_off"))
        if request.ticket is None or not self._answers.on:
            return None
        # What the fleet names, not what is in memory: while a new version is on its way, the old one's answers are not
        # given again.
        made_of = self._watch.wanted(tenant).version, policy.version
        key = request.key(policy.audience(request.groups, request.locale))
        answer = self._answers.find(key, made_of)
        if answer is not None:
            suggested = bool(answer.suggestions.macros)
            self._count_answer(tenant, answer.model_version, "suggested" if suggested else "abstained")
        return answer

    async def explain(
        self, tenant: str, text: str, answer: Answer, *, timeout_seconds: float | None = None
    ) -> list[list[Contribution]]:
        """What drove each suggestion of an answer; it counts as a request of the tenant that is under way.

        Args:
            tenant: whose model.
            text: that the answer is to.
            timeout_seconds: as for `answer`, and on top of what that took.

        Returns:
            A list for each macro of the answer; empty where the model has been replaced by one that does not know it.

        Raises:
            Overloaded: enough explanations are under way.
            MacrofleetError: what `answer` raises.
        """
        seconds = self._settings.request_timeout_ms / 1000 if timeout_seconds is None else timeout_seconds
        deadline = time.monotonic() + seconds
        try:
            with self._admission.enter(tenant, self._watch.entry(tenant).limits):
                lease = self._cache.try_lease(tenant)
                if lease is None:
                    lease = await self._leased(tenant, seconds)
                with lease as model:
                    places = {label.id: place for place, label in enumerate(model.bound.labels)}
                    macros = [macro.id for macro in answer.suggestions.macros]
                    known = [places[macro] for macro in macros if macro in places]
                    found = iter(await self._explanations.explain(model.bound, text, known, deadline=deadline))
                    del model
        except MacrofleetError as error:
            self._count_refusal(tenant, error)
            raise
        return [next(found) if macro in places else [] for macro in macros]

    # What an operator asks of this replica

    def models(self) -> list[ModelStatus]:
        """Every tenant's model, in the order of tenants."""
        return self.models_of(self._watch.fleet.entries if self._watch.fleet else ())

    def models_after(self, tenant: str, *, state: str | None) -> Iterator[ModelStatus]:
        """Those of the tenants that come after a name, each looked at as it is asked for: all of a fleet take 20 ms.

        Args:
            state: of the models; None is any.
        """
        fleet = self._watch.fleet
        if state in (None, "absent"):
            known: Iterable[str] = fleet.entries if fleet else ()
        else:
            known = self._cache.tenants()
        later = sorted(name for name in known if name > tenant)
        found = (self.model(name) for name in later if self._watch.serves(name))
        return (each for each in found if state in (None, each.state))

    def models_of(self, tenants: Iterable[str]) -> list[ModelStatus]:
        """The same of those of these tenants that have a model."""
        return [self.model(tenant) for tenant in sorted(tenants) if self._watch.serves(tenant)]

    def model(self, tenant: str) -> ModelStatus:
        """One tenant's model. Raises TenantNotFound, ModelNotFound and NotReady like `answer`."""
        return self._cache.status(self._watch.wanted(tenant))

    def shadow(self, tenant: str) -> ShadowReport | None:
        """What is known of a tenant's shadow; None where the fleet names none."""
        return self._shadows.report(tenant)

    async def load_model(self, tenant: str) -> ModelStatus:
        """Have a tenant's model in memory. Raises what a load raises."""
        await self._cache.renew(tenant)
        return self.model(tenant)

    async def unload_model(self, tenant: str) -> None:
        """Let go of a tenant's model and its shadow; done when their memory is free. The next request loads them again.

        Raises:
            TenantNotFound, ModelNotFound, NotReady: see `answer`.
        """
        self._watch.wanted(tenant)
        began = time.monotonic()
        await self._cache.unload(tenant)
        await self._shadows.unload(tenant)
        await self._files.run(_pages_are_back)  # after the giving back that the unload began: the thread is but one
        self.metrics.phase("unload", time.monotonic() - began)

    async def refresh_fleet(self) -> int:
        """Read the fleet now, and start to follow it. Returns its generation. Raises StoreError."""
        return (await self._watch.refresh()).generation

    # Inside

    def _count_answer(self, tenant: str, version: str, outcome: Outcome) -> None:
        self._canaries.count(tenant, version, outcome)
        self._watched.count(tenant, outcome)

    def _count_refusal(self, tenant: str, error: MacrofleetError) -> None:
        if isinstance(error, TenantThrottled):
            self._watched.throttle(tenant)
        if (reason := _refusal(error)) is not None:
            self.metrics.refused(reason)

    def _count_failure(self, tenant: str, error: Exception) -> None:
        """A request that was let in ends with an error: what is the server's own counts against the version."""
        if isinstance(error, MacrofleetError):
            self._count_refusal(tenant, error)
            if problem_for(error).status < 500:
                return
        with suppress(MacrofleetError):
            self._count_answer(tenant, self._watch.wanted(tenant).version, "failed")

    async def _load_beside(self, ref: ModelRef, *, demand: bool) -> ServedModel:  # noqa: ARG002  # no request waits for a shadow
        """A shadow in memory; installed first, which evicts nothing."""
        await self._models.prepare(ref)
        return await self._models.load(ref, demand=False)

    async def _fetched(
        self, tenant: str, lease: Lease[ServedModel] | None, policy: Policy | None, *, seconds: float
    ) -> tuple[Lease[ServedModel], Policy]:
        """What is missing of model and policy, fetched side by side."""
        reading = asyncio.ensure_future(self._catalogues.policy(tenant)) if policy is None else None
        try:
            async with asyncio.timeout(seconds):
                if lease is None:
                    lease = await self._cache.lease(tenant)
                if reading is not None:
                    policy = await reading
        except BaseException as error:
            if lease is not None:
                lease.release()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded("there was no answer within the request's deadline") from None
            raise
        finally:
            if reading is not None and not reading.done():
                reading.cancel()
            elif reading is not None and not reading.cancelled():
                reading.exception()  # seen: the model's failure may have come first
        assert policy is not None
        return lease, policy

    async def _leased(self, tenant: str, seconds: float) -> Lease[ServedModel]:
        try:
            async with asyncio.timeout(seconds):
                return await self._cache.lease(tenant)
        except TimeoutError:
            raise DeadlineExceeded("there was no answer within the request's deadline") from None

    async def _load(self, ref: ModelRef, *, demand: bool) -> ServedModel:
        """A model in memory, unless its tenant has left the fleet while it was loaded: then TenantNotFound."""
        try:
            model = await self._models.load(ref, demand=demand)
        finally:
            await self._forget_if_left(ref.tenant)
        if not self._is_known(ref.tenant):
            raise TenantNotFound("there is no such tenant")
        return model

    async def _prepare(self, ref: ModelRef) -> int:
        """A model on disk, unless its tenant has left the fleet meanwhile."""
        try:
            return await self._models.prepare(ref)
        finally:
            await self._forget_if_left(ref.tenant)

    async def _forget_if_left(self, tenant: str) -> None:
        if not self._is_known(tenant):
            await self._forget_tenants()

    async def _forget_tenants(self) -> None:
        """Remove from the disk tier what belongs to tenants that the fleet does not have (any more)."""
        try:
            removed = await self._files.run(self._disk.retain, self._is_known)
        except StoreError as error:
            _LOG.warning("models of tenants that left the fleet cannot be removed", exc_info=error)
        else:
            if removed:
                _LOG.info("models of tenants that left the fleet were removed", extra={"count": removed})

    def _is_known(self, tenant: str) -> bool:
        """Whether the fleet has a tenant. May be called from any thread.

        A store without a fleet has all of them: it is more likely to be the wrong one than to have lost every tenant.
        """
        fleet = self._watch.fleet
        return fleet is None or not fleet.generation or tenant in fleet.entries

    async def _follow_with_memory(self) -> None:
        """Bring what is in memory to each new fleet, and try again what failed."""
        fleet = await self._watch.next_fleet(None)
        while True:
            try:
                self._cache.retain(self._watch.serves)
                if self._traffic.forget_all_but(fleet.entries):
                    await self._files.run(write_traffic, self._settings.disk_folder, self._traffic.requests())
                self._catalogues.forget_all_but(fleet.entries)
                self._answers.forget_all_but(fleet.entries)
                self._admission.forget_idle()
                self._canaries.follow(fleet)
                self._shadows.follow(fleet)
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
            await self._renew_all(self._cache.outdated())
            await asyncio.sleep(self._settings.fleet_poll_seconds)

    async def _follow_with_disk(self) -> None:
        """Prepare what each new fleet names, and again and again what could not be had yet; become ready once."""
        fleet, known = await self._watch.next_fleet(None), None
        while True:
            if fleet is not known:
                await self._forget_tenants()
            moved = await self._share_moved(fleet)
            try:
                # What comes with another share is no news: somebody has it, and callers are not to notice.
                gently = self._ready and fleet is known
                await self._carry_out_plan(fleet, anew=moved or fleet is not known, gently=gently)
                self._share_of = (self._share.replicas or None) if self._plan(fleet).models == "share" else None
            except Exception:  # noqa: BLE001  # the loop must outlive it
                _LOG.exception("preloading failed")
            # A fleet that came in the meantime may name what is not on disk.
            if not self._ready and self._preload.complete and fleet is self._watch.fleet:
                self._become_ready(fleet)
            again = not self._preload.complete or (self._plan(fleet).models == "share" and self._share.changes)
            known, fleet = fleet, await self._next_fleet(fleet, again=again)

    async def _share_moved(self, fleet: Fleet) -> bool:
        """Whether other tenants than before are this replica's own, where the plan is about those."""
        return self._plan(fleet).models == "share" and await self._files.run(self._share.refresh)

    def _plan(self, fleet: Fleet) -> PreloadPlan:
        return fleet.preload or self._settings.preload

    async def _carry_out_plan(self, fleet: Fleet, *, anew: bool, gently: bool) -> None:
        plan = self._plan(fleet)
        if plan.models == "none" and not self._ready:
            await self._open_programs()
        if not anew:
            await self._preload.retry()
            return
        # In a thread: for ten thousand tenants it takes as long as several requests.
        requests = self._traffic.requests()
        refs = await self._files.run(plan_models, plan, fleet, requests=requests, own=self._share.of)
        await self._preload.run(refs, room=plan.bytes, beside_answers=gently)
        await self._renew_all(ref.tenant for ref in refs if self._watch.is_pinned(ref.tenant))

    async def _renew_all(self, tenants: Iterable[str]) -> None:
        """A few at a time; what fails is the cache's to tell."""
        waiting = iter(tenants)

        async def work_off() -> None:
            for tenant in waiting:
                with suppress(Exception):
                    await self._cache.renew(tenant)

        async with asyncio.TaskGroup() as group:
            for _ in range(_SWAPS_AT_ONCE):
                group.create_task(work_off())

    async def _next_fleet(self, fleet: Fleet | None, *, again: bool) -> Fleet:
        """The next fleet as soon as there is one; where something is to be tried again, this one after a while."""
        try:
            async with asyncio.timeout(self._settings.fleet_poll_seconds if again else None):
                return await self._watch.next_fleet(fleet)
        except TimeoutError:
            assert fleet is not None
            return fleet

    def _become_ready(self, fleet: Fleet) -> None:
        settle_garbage_collector()
        self._ready = True
        _LOG.info("ready", extra={"generation": fleet.generation})

    async def _open_programs(self) -> None:
        """Without preloading nobody knows which programs the models need: open those that the store has."""
        for digest in sorted(self._settings.trusted_programs):
            try:
                await self._models.program(digest)
            except MacrofleetError as error:
                _LOG.warning("a program cannot be loaded", extra={"program": digest}, exc_info=error)

    async def _record_traffic(self) -> None:
        while True:
            await asyncio.sleep(_TRAFFIC_SECONDS)
            await self._files.run(write_traffic, self._settings.disk_folder, self._traffic.requests())

    def _add_gauges(self) -> None:
        gauge = self.metrics.gauge
        gauge("macrofleet_models_loaded", "Models in memory", lambda: len(self._cache))
        gauge(
            "macrofleet_queue_depth",
            "Tickets that wait for an executor",
            lambda: sum(running.executor.waiting for running in self._models.programs.values()),
        )
        gauge("macrofleet_ready", "Whether requests may be sent here", lambda: float(self.readiness().ready))
        gauge(
            "macrofleet_fleet_generation",
            "Generation of the fleet that serves",
            lambda: self._watch.fleet.generation if self._watch.fleet else 0,
        )
        gauge(
            "macrofleet_fleet_age_seconds",
            "Since the store last confirmed the fleet",
            lambda: self._watch.age_seconds,
        )
        gauge(
            "macrofleet_catalogue_age_seconds",
            "Since the oldest catalogue in use was confirmed",
            self._catalogues.oldest_seconds,
        )
        gauge("macrofleet_bytes", "Bytes of models", lambda: self._cache.nbytes, labels={"tier": "memory"})
        gauge("macrofleet_bytes", "Bytes of models", self._disk.installed_bytes, labels={"tier": "disk"})
        told, about = self._settings, "What a tier may hold"
        gauge("macrofleet_budget_bytes", about, lambda: told.memory_bytes, labels={"tier": "memory"})
        gauge("macrofleet_budget_bytes", about, lambda: told.disk_bytes, labels={"tier": "disk"})
        gauge("macrofleet_bytes", "Bytes of models", lambda: self._shadows.nbytes, labels={"tier": "shadow"})
        gauge("macrofleet_budget_bytes", about, lambda: told.shadow_bytes, labels={"tier": "shadow"})
        gauge("macrofleet_bytes", "Bytes of models", lambda: self._answers.nbytes, labels={"tier": "answers"})
        gauge("macrofleet_budget_bytes", about, lambda: told.answer_bytes, labels={"tier": "answers"})
        self.metrics.counters(
            "macrofleet_answer_cache_total",
            "Requests by whether their answer was remembered",
            ("outcome",),
            lambda: {("hit",): self._answers.hits, ("miss",): self._answers.misses},
        )
        states: dict[str, Callable[[Progress], int]] = {
            "planned": lambda progress: progress.models,
            "on_disk": lambda progress: progress.on_disk,
            "skipped": lambda progress: progress.skipped,
            "failed": lambda progress: len(progress.failed),
        }
        for state, read in states.items():
            gauge(
                "macrofleet_preload_models",
                "Models of the preload plan",
                lambda read=read: read(self._preload.progress()),  # type: ignore[misc]
                labels={"state": state},
            )
        add_trial_metrics(self.metrics, self._canaries, self._shadows, self._cache.status)
        add_watched_metrics(self.metrics, self._watched)


def _pages_are_back() -> None:
    pass


class _CacheEvents:
    """What the cache tells, as metrics; evicted models also lose their pages."""

    def __init__(self, metrics: Metrics, forget_pages: Callable[[ServedModel], None]) -> None:
        self._metrics = metrics
        self._forget_pages = forget_pages

    def hit(self) -> None:
        self._metrics.cache_hit("memory")

    def waited(self, seconds: float) -> None:
        self._metrics.phase("load_wait", seconds)

    def loaded(self, seconds: float) -> None:  # noqa: ARG002  # the phases of a load are measured where they happen
        self._metrics.loaded()

    def load_failed(self, error: BaseException) -> None:
        self._metrics.load_failed(type(error).__name__)

    def swapped(self, outcome: str) -> None:
        self._metrics.swapped("done" if outcome == "done" else "failed")

    def evicted(self, model: ServedModel, cause: str) -> None:
        self._metrics.evicted("memory", cause)
        self._forget_pages(model)


_REFUSALS: Mapping[type[MacrofleetError], Callable[[MacrofleetError], str]] = {
    TenantThrottled: lambda error: error.bound if isinstance(error, TenantThrottled) else "",
    TooManyLoads: lambda _: "cold_loads",
    Overloaded: lambda _: "queue_full",
    DeadlineExceeded: lambda _: "deadline",
    NotReady: lambda _: "not_ready",
    LoadBackingOff: lambda _: "load_backing_off",
    OutOfResources: lambda _: "out_of_resources",
}


def _refusal(error: MacrofleetError) -> str | None:
    """Why a request was turned away, where nothing was wrong with it."""
    reason = _REFUSALS.get(type(error))
    return None if reason is None else reason(error)
