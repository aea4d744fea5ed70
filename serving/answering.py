"""One request for suggestions, from its tenant's limits to its answer: the path that is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from registry.disk.tier import DiskTier
from registry.errors import DeadlineExceeded, MacrofleetError
from registry.model.explain import Contribution
from serving.admission import Admission
from serving.engine.cache import Lease, ModelCache
from serving.engine.models import ServedModel
from serving.fleet_watch import FleetWatch
from serving.outcomes import Outcomes
from serving.suggestions.answers import Answers
from serving.suggestions.asking import Answer, Asked
from serving.suggestions.catalogues import Catalogues
from serving.suggestions.choice import Suggestions, choose
from serving.suggestions.explanations import Explanations
from serving.suggestions.policy import Policy
from serving.tracing import current_trace
from serving.trials.shadows import Answered, Shadows


class Answering:
    """Suggests macros for tickets, and says what drove them. Owned by one event loop; what it remembers is its parts'.

    Args:
        watch: who is in the fleet, with which version and limits.
        admission: bounds each tenant's requests.
        catalogues: what may be shown.
        answers: those that are remembered.
        cache: models, leased.
        disk: hears which models are in use.
        explanations: where they are made.
        shadows: hear of answers.
        outcomes: hears what becomes of each request.
        signing_key: of suggestion ids.
        timeout_seconds: until a caller who does not say stops waiting.
    """

    def __init__(
        self,
        *,
        watch: FleetWatch,
        admission: Admission,
        catalogues: Catalogues,
        answers: Answers[Answer],
        cache: ModelCache[ServedModel],
        disk: DiskTier,
        explanations: Explanations,
        shadows: Shadows,
        outcomes: Outcomes,
        signing_key: bytes,
        timeout_seconds: float,
    ) -> None:
        self._watch = watch
        self._admission = admission
        self._catalogues = catalogues
        self._answers = answers
        self._cache = cache
        self._disk = disk
        self._explanations = explanations
        self._shadows = shadows
        self._outcomes = outcomes
        self._key = signing_key
        self._timeout_seconds = timeout_seconds

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
            self._outcomes.refused(tenant, error)
            raise

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
            seconds=self._timeout_seconds if timeout_seconds is None else timeout_seconds,
        )
        try:
            with self._admission.enter(tenant, self._watch.entry(tenant).limits):
                trace = current_trace()
                if trace is not None:
                    trace.set("macrofleet.tenant", tenant)
                answer = await self._answered(request)
        except Exception as error:
            self._outcomes.failed(tenant, error)
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
        self._outcomes.answered(tenant, version, "suggested" if chosen.macros else "abstained")
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
            self._outcomes.answered(tenant, answer.model_version, "suggested" if suggested else "abstained")
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
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
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
            self._outcomes.refused(tenant, error)
            raise
        return [next(found) if macro in places else [] for macro in macros]

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
