"""Shadows: versions that score what was answered, beside the version that answered, and are never shown."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from numpy.typing import NDArray

from registry.errors import MacrofleetError, ModelNotFound, NotReady
from registry.fleet.state import Fleet, FleetEntry
from registry.model.runtime import Features
from serving.engine.cache import Lease, Loader, ModelCache
from serving.engine.executor import Executor, Scores, Spare
from serving.engine.models import ServedModel
from serving.engine.traffic import Traffic
from serving.fleet_watch import ModelRef
from serving.metrics import OTHER, Metrics
from serving.suggestions.choice import Shown
from serving.suggestions.policy import Audience, Policy
from serving.trials.comparing import Comparison, rank

_LOG = logging.getLogger(__name__)
# What became of answers of tenants with a shadow.
OUTCOMES = ("compared", "busy", "not_loaded", "failed", "left_out")
# Tenants that have metrics of their own.
MOST_NAMED = 100
# After one attempt to load a shadow, until the next one; a budget that is too small for all must not load all the time.
_RETRY_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A ticket that was answered, and all that its tenant's shadow needs to be compared on it.

    Attributes:
        version: that answered, with its `scores` and `threshold`, and what of its macros may be `shown`.
        policy, audience: what may be shown of the shadow's, and to whom; `exclude` is what was not wanted.
        executor: that made the features.
        features: of the ticket's batch, at place `index`.
    """

    tenant: str
    text: str
    version: str
    scores: NDArray[Any]
    shown: Shown
    threshold: float
    policy: Policy
    audience: Audience
    exclude: Collection[str]
    executor: Executor
    features: Features | None
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """What this replica knows of a tenant's shadow.

    Attributes:
        version: the shadow's.
        champion: the version that it was compared with; None before the first request.
        state: "absent", "fetching" or "ready".
        error: why its last load failed, where it did.
        requests: answers of the tenant since, by what became of the comparison: "compared"; "busy" (enough of them
            waited); "not_loaded"; "failed"; "left_out" (of the share that is compared).
        same_first, same_three: shares of what was compared; None before the first comparison.
        comparison: the counts behind them.
    """

    version: str
    champion: str | None
    state: str
    error: str | None
    requests: dict[str, int]
    same_first: float | None
    same_three: float | None
    comparison: Comparison


@dataclass(slots=True, eq=False)
class _Tally:
    """What was found out about one pair of versions."""

    champion: str
    shadow: str
    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    comparison: Comparison = field(default_factory=Comparison)


class Shadows:
    """Keeps the shadows that the fleet names and compares them with what was answered. Owned by one event loop.

    Nobody waits for any of it. Shadows have a memory budget of their own, so that none is loaded at the cost of a model
    that serves. One is loaded when its tenant is asked, and one that cannot be had changes nothing. Tickets are scored
    when no request waits for the program, with the features of the answer where the program is the same; beyond so many
    that wait, tickets are left out.

    Args:
        load: makes a model, and evicts none from the local disk for it.
        budget_bytes: what all shadows in memory together may count.
        share: of the answers to compare.
        most_waiting: tickets that may wait to be scored.
        metrics: counts what becomes of them.
        forget_pages: gives an evicted shadow's memory back; must not raise.
        chance: a number from 0 to 1.
        clock: seconds, never backwards.
    """

    def __init__(
        self,
        *,
        load: Loader[ServedModel],
        budget_bytes: int,
        share: float,
        most_waiting: int,
        metrics: Metrics,
        forget_pages: Callable[[ServedModel], None],
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._most_waiting = most_waiting
        self._chance = chance
        self._clock = clock
        self._refs: dict[str, ModelRef] = {}
        self._named: frozenset[str] = frozenset()
        self._tallies: dict[str, _Tally] = {}
        self._tried: dict[str, float] = {}
        self._loads: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._requests = dict.fromkeys(OUTCOMES, 0)
        self._others = Comparison()
        self._traffic = Traffic()
        self._cache: ModelCache[ServedModel] = ModelCache(
            wanted=self._wanted,
            load=load,
            budget_bytes=budget_bytes,
            traffic=self._traffic,
            pinned=lambda _: False,
            observer=_CacheEvents(metrics, forget_pages),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all shadows in memory."""
        return self._cache.nbytes

    def has(self, tenant: str) -> bool:
        """Whether the fleet names a shadow for a tenant."""
        return tenant in self._refs

    def offer(self, answered: Answered) -> None:
        """An answer is on its way: have the tenant's shadow score the ticket some time."""
        ref = self._refs[answered.tenant]
        tally = self._tallies.get(answered.tenant)
        if tally is None or (tally.champion, tally.shadow) != (answered.version, ref.version):
            tally = self._tallies[answered.tenant] = _Tally(answered.version, ref.version)
        if self._share < 1.0 and self._chance() >= self._share:
            self._count(tally, "left_out")
            return
        if self._waiting >= self._most_waiting:
            self._count(tally, "busy")
            return
        lease = self._cache.try_lease(answered.tenant)
        if lease is None or lease.model.version != ref.version:
            if lease is not None:
                lease.release()
            self._count(tally, "not_loaded")
            self._load_some_time(answered.tenant)
            return
        self._waiting += 1
        shadow = lease.model
        features = answered.features if shadow.executor is answered.executor else None
        then = partial(self._scored, lease, tally, answered)
        shadow.executor.when_free(Spare(shadow.bound, answered.text, features, answered.index, then))

    def follow(self, fleet: Fleet) -> None:
        """Let go of the shadows that a new fleet does not name, and bring those in memory to the versions it names."""
        refs = {tenant: ref for tenant, entry in fleet.entries.items() if (ref := _ref(tenant, entry)) is not None}
        changed = {tenant for tenant, ref in self._refs.items() if refs.get(tenant) != ref}
        self._refs = refs
        self._named = frozenset(sorted(refs)[:MOST_NAMED])
        for tenant in changed:
            self._tallies.pop(tenant, None)
            self._tried.pop(tenant, None)
        self._traffic.forget_all_but(refs)
        self._cache.retain(self.has)
        for tenant in self._cache.outdated():
            self._load_some_time(tenant)

    def report(self, tenant: str) -> ShadowReport | None:
        """What is known of a tenant's shadow; None where the fleet names none."""
        ref = self._refs.get(tenant)
        if ref is None:
            return None
        status = self._cache.status(ref)
        tally = self._tallies.get(tenant) or _Tally("", ref.version)
        compared = tally.comparison.compared
        return ShadowReport(
            version=ref.version,
            champion=tally.champion or None,
            # An older shadow in memory is not the one that is meant.
            state=status.state if status.serving_version in {None, ref.version} else "fetching",
            error=status.error,
            requests=tally.requests,
            same_first=round(tally.comparison.same_first / compared, 4) if compared else None,
            same_three=round(tally.comparison.same_three / compared, 4) if compared else None,
            comparison=tally.comparison,
        )

    async def unload(self, tenant: str) -> None:
        """Let go of a tenant's shadow; done when its memory is free. The tenant's next request loads it again."""
        await self._cache.unload(tenant)
        self._tried.pop(tenant, None)

    async def close(self) -> None:
        """End the loads that are under way."""
        await self._cache.close()
        await asyncio.gather(*self._loads)

    # For metrics

    def requests(self) -> dict[tuple[str, ...], int]:
        """Answers of tenants with a shadow, by what became of the comparison."""
        return {(outcome,): count for outcome, count in self._requests.items()}

    def comparisons(self) -> dict[tuple[str, ...], int]:
        """Counts by tenant and name, of the first hundred tenants with a shadow; of all others together as `other`."""
        counts: dict[tuple[str, ...], int] = {(OTHER, name): count for name, count in self._others.counts().items()}
        for tenant in sorted(self._named & self._tallies.keys()):
            counts |= {(tenant, name): count for name, count in self._tallies[tenant].comparison.counts().items()}
        return counts

    # Inside

    def _wanted(self, tenant: str) -> ModelRef:
        try:
            return self._refs[tenant]
        except KeyError:
            raise ModelNotFound(f"tenant {tenant} has no shadow") from None

    def _count(self, tally: _Tally, outcome: str) -> None:
        tally.requests[outcome] += 1
        self._requests[outcome] += 1

    def _scored(
        self, lease: Lease[ServedModel], tally: _Tally, answered: Answered, outcome: Scores | Exception
    ) -> None:
        self._waiting -= 1
        labels, threshold = lease.model.bound.labels, lease.model.bound.manifest.threshold
        lease.release()
        if isinstance(outcome, Exception):
            if not tally.requests["failed"]:
                extra = {"tenant": answered.tenant, "version": tally.shadow, "kind": type(outcome).__name__}
                _LOG.warning("a shadow cannot score a ticket", extra=extra)
            self._count(tally, "failed")
            return
        self._count(tally, "compared")
        said = answered
        champion = rank(said.scores, said.shown, exclude=said.exclude, threshold=said.threshold)
        shown = said.policy.shown(tally.shadow, labels, said.audience)
        shadow = rank(outcome, shown, exclude=said.exclude, threshold=threshold)
        tally.comparison.add(champion, shadow)
        if said.tenant not in self._named:
            self._others.add(champion, shadow)

    def _load_some_time(self, tenant: str) -> None:
        now = self._clock()
        if now - self._tried.get(tenant, -_RETRY_SECONDS) < _RETRY_SECONDS:
            return
        self._tried[tenant] = now
        load = asyncio.create_task(self._load(tenant), name=f"load shadow {tenant}")
        self._loads.add(load)
        load.add_done_callback(self._loads.discard)

    async def _load(self, tenant: str) -> None:
        try:
            await self._cache.renew(tenant)
        except NotReady:
            pass  # the server is stopping
        except Exception as error:  # noqa: BLE001  # whatever it is, it changes nothing but the report
            level = logging.WARNING if isinstance(error, MacrofleetError) else logging.ERROR
            _LOG.log(level, "a shadow cannot be loaded", extra={"tenant": tenant}, exc_info=error)


class _CacheEvents:
    """What the cache of shadows tells: loads are counted like any other, hits and swaps are nobody's requests."""

    def __init__(self, metrics: Metrics, forget_pages: Callable[[ServedModel], None]) -> None:
        self._metrics = metrics
        self._forget_pages = forget_pages

    def hit(self) -> None:
        pass

    def waited(self, seconds: float) -> None:
        pass

    def loaded(self, seconds: float) -> None:  # noqa: ARG002
        self._metrics.loaded()

    def load_failed(self, error: BaseException) -> None:
        self._metrics.load_failed(type(error).__name__)

    def swapped(self, outcome: str) -> None:
        pass

    def evicted(self, model: ServedModel, cause: str) -> None:
        # One that has left the fleet may have been promoted: then its pages are what answers.
        if cause != "left_fleet":
            self._forget_pages(model)


def _ref(tenant: str, entry: FleetEntry) -> ModelRef | None:
    if entry.shadow is None or entry.shadow_manifest is None or not entry.serves or entry.shadow == entry.version:
        return None
    return ModelRef(tenant, entry.shadow, entry.shadow_manifest)
