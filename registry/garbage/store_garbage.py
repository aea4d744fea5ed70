"""Garbage in the object store: model versions that nobody needs, what crashed writers left, past states of the fleet.

What stays of a tenant's versions (`registry.garbage.retention`), whatever else is said of them:

- what the fleet names, and what a fleet of the last seven days named (`registry.fleet.history`): what serves, what served
  before, what runs in the shadow;
- the last few that were published whole;
- what is younger than a day, in any part.

What is left of tenants that were deleted goes whole, a day after it was written (`registry.deletion.remains`).

Programs stay as well: they are few, and only a release may write below `programs/`. So do lakes and catalogues. What a
bucket with versions keeps of other objects that were written over is left to the bucket's own rules.

Nothing is deleted without a second look, under a notice: `registry.garbage.collecting` says why no claim is ever lost.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from registry.deletion.remains import find_remains, outlived, purge_remains
from registry.documents import canonical_json
from registry.fleet.history import FleetHistory
from registry.fleet.state import in_threads
from registry.garbage.collecting import Announcement, announced
from registry.garbage.retention import Garbage, Retention, divide, is_young
from registry.layout import COLLECTION, MANIFEST, models_prefix
from registry.store import ObjectState, ObjectStore

_MODEL = re.compile(r"tenants/([a-z0-9][a-z0-9_-]{0,62})/models/([0-9a-f]{16})/[^/]+")
_NOTICE = re.compile(r"tenants/([a-z0-9][a-z0-9_-]{0,62})/collecting\.json")
_THREADS = 16
_PURGED_AT_ONCE = 1000

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A version that stays, and why."""

    tenant: str
    version: str
    why: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """A version that went, or would go, and why."""

    tenant: str
    version: str
    why: str
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection did.

    Attributes:
        dry_run: nothing was deleted: `deleted` and the counts say what would be.
        generation: of the fleet that was looked at first.
        deleted: versions.
        kept: the versions that were no garbage at the first look.
        spared: tenant and version of those that were, and no longer at the second.
        busy: tenants that were left to another collector.
        fleet_objects: past states of the fleet that were deleted.
        unfinished: uploads and temporary files that were given up, other than of deleted versions.
        remains: tenants that were deleted, and of which something was left that went now.
        remains_objects: how many.
        other_bytes: of the last three.
    """

    dry_run: bool
    generation: int
    deleted: tuple[Deleted, ...]
    kept: tuple[Kept, ...]
    spared: tuple[tuple[str, str], ...]
    busy: tuple[str, ...]
    fleet_objects: int
    unfinished: int
    remains: tuple[str, ...] = ()
    remains_objects: int = 0
    other_bytes: int

    @property
    def objects(self) -> int:
        """How many went in all, noncurrent versions included."""
        return sum(each.objects for each in self.deleted) + self.fleet_objects + self.unfinished + self.remains_objects

    @property
    def bytes(self) -> int:
        """What they took."""
        return sum(each.bytes for each in self.deleted) + self.other_bytes

    def reasons(self) -> dict[str, int]:
        """How many versions are kept for each reason; one may have several."""
        counts: dict[str, int] = {}
        for each in self.kept:
            for why in each.why:
                counts[why] = counts.get(why, 0) + 1
        return counts

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {
            "dry_run": self.dry_run,
            "generation": self.generation,
            "objects": self.objects,
            "bytes": self.bytes,
            "deleted": [asdict(each) for each in self.deleted],
            "fleet_objects": self.fleet_objects,
            "unfinished": self.unfinished,
            "remains": list(self.remains),
            "remains_objects": self.remains_objects,
            "kept_for": self.reasons(),
            "kept": [{**asdict(each), "why": list(each.why)} for each in self.kept],
            "spared": [{"tenant": tenant, "version": version} for tenant, version in self.spared],
            "busy": list(self.busy),
        }


def collect_garbage(
    store: ObjectStore,
    *,
    retention: Retention | None = None,
    dry_run: bool = False,
    step: Step = lambda _text, _share: None,
    clock: Callable[[], float] = time.time,
    threads: int = _THREADS,
) -> Collected:
    """Delete what nobody needs. A run that is interrupted harms nothing, and a later one goes on.

    Args:
        retention: what is kept.
        dry_run: only say what would be deleted; nothing at all is written.
        step: told how far it is.
        clock: seconds since the epoch. How old something is the store's own clock says, so this one may be wrong; but a
            dry run, which writes nothing, cannot ask the store for the time.
        threads: so many tenants, or reads, at once.

    Raises:
        StoreError: the store failed, or the fleet or its history is damaged: then nobody knows what is needed.
    """
    return _Collector(store, retention or Retention(), clock, threads=threads, dry_run=dry_run).run(step)


@dataclass(slots=True)
class _Listing:
    """What there is in the store for a collector.

    Attributes:
        versions: by tenant and version, everything that is kept of it.
        noticed: tenants with a notice, perhaps of a collector that died.
        unfinished: of all other keys.
    """

    versions: dict[str, dict[str, list[ObjectState]]] = field(default_factory=dict)
    noticed: set[str] = field(default_factory=set)
    unfinished: list[ObjectState] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """What became of one tenant's garbage."""

    deleted: tuple[Deleted, ...] = ()
    spared: tuple[tuple[str, str], ...] = ()
    busy: bool = False


class _Collector:
    def __init__(
        self,
        store: ObjectStore,
        retention: Retention,
        clock: Callable[[], float],
        *,
        threads: int,
        dry_run: bool,
    ) -> None:
        self._store = store
        self._retention = retention
        self._clock = clock
        self._ahead = 0.0
        self._threads = threads
        self._dry_run = dry_run
        self._history = FleetHistory(store, seconds=retention.fleet_seconds, threads=threads)

    def run(self, step: Step) -> Collected:
        step("looking at the store", 0.0)
        if not self._dry_run:
            self._set_clock()
        found = find_remains(self._store, self._store.states(), other=_is_of_interest)
        listing = _list(found.others)
        history = self._history.read(self._now())
        kept: list[Kept] = []
        garbage: dict[str, dict[str, Garbage]] = {tenant: {} for tenant in listing.noticed}
        for tenant, versions in sorted(listing.versions.items()):
            stay, go = self._divide(tenant, versions, history.named)
            kept += [Kept(tenant=tenant, version=version, why=why) for version, why in stay.items()]
            listing.unfinished += [s for version in stay for s in versions[version] if s.kind == "unfinished"]
            if go:
                garbage[tenant] = go
        done = self._delete_versions(garbage, step)
        # Once more, now that hours may have passed: a fleet that was restored from a backup names states of the past.
        fleet = self._old(self._history.read(self._now()).expired)
        unfinished = self._old(listing.unfinished)
        remains = {tenant: old for tenant, states in found.of_tenants.items() if (old := self._old(states))}
        if not self._dry_run:
            self._store.purge([*fleet, *unfinished, *outlived(self._store, self._now())])
            remains = {tenant: old for tenant, old in remains.items() if purge_remains(self._store, tenant, old)}
            self._store.purge([state for state in self._store.states(COLLECTION) if state.kind != "current"])
        return Collected(
            dry_run=self._dry_run,
            generation=history.generation,
            deleted=tuple(each for one in done.values() for each in one.deleted),
            kept=tuple(kept),
            spared=tuple(each for one in done.values() for each in one.spared),
            busy=tuple(tenant for tenant, one in done.items() if one.busy),
            fleet_objects=len(fleet),
            unfinished=len(unfinished),
            remains=tuple(remains),
            remains_objects=sum(map(len, remains.values())),
            other_bytes=sum(state.size for state in (*fleet, *unfinished, *chain.from_iterable(remains.values()))),
        )

    def _set_clock(self) -> None:
        """Learn what time it is for the store, from what it says of an object that was written just now."""
        self._store.put(COLLECTION, canonical_json({"format": 1, "keep": self._retention.keep}))
        written = max(state.modified for state in self._store.states(COLLECTION) if state.kind == "current")
        self._ahead = written - self._clock()

    def _now(self) -> float:
        """By the store's clock, or a little earlier."""
        return self._clock() + self._ahead

    def _old(self, states: Iterable[ObjectState]) -> list[ObjectState]:
        now = self._now()
        return [state for state in states if not is_young(state, self._retention, now)]

    def _divide(
        self,
        tenant: str,
        versions: Mapping[str, Sequence[ObjectState]],
        named: Mapping[str, Mapping[str, str]],
    ) -> tuple[dict[str, tuple[str, ...]], dict[str, Garbage]]:
        return divide(versions, named=named.get(tenant, {}), retention=self._retention, now=self._now())

    def _delete_versions(self, garbage: Mapping[str, Mapping[str, Garbage]], step: Step) -> dict[str, _Done]:
        if self._dry_run:
            return {tenant: _Done(deleted=_deleted(tenant, found)) for tenant, found in garbage.items()}
        finished = 0
        counting = threading.Lock()

        def work(item: tuple[str, Mapping[str, Garbage]]) -> _Done:
            nonlocal finished
            done = self._delete(*item)
            with counting:
                finished += 1
                step("deleting garbage", finished / len(garbage))
            return done

        return dict(zip(garbage, in_threads(work, garbage.items(), threads=self._threads), strict=True))

    def _delete(self, tenant: str, planned: Collection[str]) -> _Done:
        """Delete a tenant's garbage, which is looked at once more."""
        with announced(self._store, tenant, planned, now=self._now) as notice:
            if notice is None:
                return _Done(busy=True)
            listing = _list(self._store.states(models_prefix(tenant)))
            named = self._history.read(self._now()).named
            _, garbage = self._divide(tenant, listing.versions.get(tenant, {}), named)
            gone = {version: garbage[version] for version in sorted(garbage.keys() & notice.versions)}
            self._purge(notice, [state for found in gone.values() for state in found.states])
        spared = tuple((tenant, version) for version in sorted(set(planned) - gone.keys()))
        return _Done(deleted=_deleted(tenant, gone), spared=spared)

    def _purge(self, notice: Announcement, states: Sequence[ObjectState]) -> None:
        # The manifests first: what is left of an interruption is no version to roll back to.
        for part in (
            [state for state in states if state.key.endswith(f"/{MANIFEST}")],
            [state for state in states if not state.key.endswith(f"/{MANIFEST}")],
        ):
            for start in range(0, len(part), _PURGED_AT_ONCE):
                notice.check()
                self._store.purge(part[start : start + _PURGED_AT_ONCE])


def _is_of_interest(state: ObjectState) -> bool:
    """Whether a collector has to know of something; tickets and feedback, the most by far, are none of it."""
    return state.kind == "unfinished" or bool(_MODEL.fullmatch(state.key) or _NOTICE.fullmatch(state.key))


def _list(states: Iterable[ObjectState]) -> _Listing:
    listing = _Listing()
    for state in states:
        if found := _MODEL.fullmatch(state.key):
            listing.versions.setdefault(found[1], {}).setdefault(found[2], []).append(state)
        elif state.kind == "unfinished":
            listing.unfinished.append(state)
        elif state.kind == "current" and (noticed := _NOTICE.fullmatch(state.key)):
            listing.noticed.add(noticed[1])
    return listing


def _deleted(tenant: str, garbage: Mapping[str, Garbage]) -> tuple[Deleted, ...]:
    return tuple(
        Deleted(
            tenant=tenant,
            version=version,
            why=found.why,
            objects=len(found.states),
            bytes=sum(state.size for state in found.states),
        )
        for version, found in garbage.items()
    )
