"""Where a tenant leaves traces: the fleet and its past, the object store, the disk of a machine that trains or serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from registry.disk.tier import DiskTier
from registry.errors import ObjectNotFound
from registry.fleet.at_rest import present_generation, read_shard, rewrite_shard
from registry.fleet.history import FLEET_SHARD
from registry.fleet.state import FleetEntry, edit_fleet
from registry.layout import (
    ACCESS_KEYS,
    COLLECTION,
    FLEET_PREFIX,
    LAKE_PREFIX,
    PROGRAMS_PREFIX,
    RUNS_PREFIX,
    TENANTS_PREFIX,
    TOMBSTONES_PREFIX,
    fleet_shard,
    fleet_shard_prefix,
    lake_prefix,
    lease_key,
    tenant_prefix,
)
from registry.names import mentioned_in
from registry.store import ObjectState, ObjectStore, is_key

# All that is one tenant's own, with what lies there. Whatever is one tenant's goes below one of these, or gets a line here.
OWN: tuple[tuple[str, Callable[[str], str]], ...] = (
    # The tickets first: without them nobody trains it again.
    ("tickets, feedback, the record of training", lake_prefix),
    ("models, macros, settings, notices of garbage collection", tenant_prefix),
)
# What several tenants share and a place of its own takes care of (`FleetPlace`, `flows.run_traces`), and what has no names in it.
_ELSEWHERE = (FLEET_PREFIX, RUNS_PREFIX, TENANTS_PREFIX, LAKE_PREFIX, TOMBSTONES_PREFIX, PROGRAMS_PREFIX, COLLECTION)
_AGAIN = "Something wrote it meanwhile: run it again."
_UNDER_WAY_SECONDS = 3600.0


class FleetPlace:
    """The fleet: a tenant's entry, and the past states of the shard that it was in.

    Those are the history of the other tenants too, so they are written once more without this one.
    """

    name = "fleet"
    remedy = _AGAIN
    certain = True

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def remove(self, tenant: str) -> int:
        """Take the tenant out of the fleet, so that servers let go of it at their next poll, and out of its past.

        What waited or ran beside what serves (a candidate, a shadow, a trial) is a part of the entry.
        """
        # Written also where it is not in the fleet: see `registry.deletion.tombstones`.
        edited = edit_fleet(self._store, [tenant], lambda _: {tenant: None}, touch=True)
        removed = len(edited.changed())
        for _, number, entries in self._with(tenant):
            if number != self._present(tenant):
                left = {other: entry for other, entry in entries.items() if other != tenant}
                rewrite_shard(self._store, fleet_shard(tenant), number, left)
                removed += 1
        return removed

    def find(self, tenant: str) -> list[str]:
        """States with the tenant in them."""
        return [state.key for state, _, _ in self._with(tenant)]

    def _present(self, tenant: str) -> int | None:
        present = present_generation(self._store)
        return present.shards.get(fleet_shard(tenant)) if present else None

    def _with(self, tenant: str) -> Iterator[tuple[ObjectState, int, dict[str, FleetEntry]]]:
        shard = fleet_shard(tenant)
        for state in list(self._store.states(fleet_shard_prefix(shard))):
            found = FLEET_SHARD.fullmatch(state.key)
            if found is not None and state.kind == "current":
                try:
                    entries = read_shard(self._store, shard, int(found[2]))
                except ObjectNotFound:
                    continue  # collected meanwhile
                if tenant in entries:
                    yield state, int(found[2]), dict(entries)


class HiddenPlace:
    """What a bucket with versions keeps of the documents of several tenants that were written over, and writes given up.

    Nobody can read whom it names, so all of it goes. Once it has gone, only what was there by then is looked for: runs that
    go on write their documents over and over, and by then those lack the tenant (`FleetPlace`, `flows.run_traces`).
    """

    name = "earlier versions"
    remedy = _AGAIN
    certain = False

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._newest: float | None = None

    def remove(self, tenant: str) -> int:
        """Purge what readers do not see."""
        self._newest = max(
            (state.modified for prefix in _shared(tenant) for state in self._store.states(prefix)), default=0.0
        )
        states = [state for prefix in _shared(tenant) for state in unseen(self._store, prefix)]
        self._store.purge(states)
        return len(states)

    def find(self, tenant: str) -> list[str]:
        """What there is of it."""
        states = [state for prefix in _shared(tenant) for state in unseen(self._store, prefix)]
        return [describe(state) for state in states if self._newest is None or state.modified <= self._newest]


class StorePlace:
    """The object store: a tenant's tickets, feedback and models, with all that a bucket keeps of earlier versions.

    Its lease is left to `LeasePlace`, since whoever removes all this holds it.
    """

    name = "store"
    remedy = "Where something wrote it meanwhile, run it again; what has another place is for you to remove."
    certain = True

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def remove(self, tenant: str) -> int:
        """Purge the tenant's prefixes."""
        removed = 0
        for _, prefix_of in OWN:
            states = self._own(tenant, prefix_of(tenant))
            self._store.purge(states)
            removed += len(states)
        return removed

    def find(self, tenant: str) -> list[str]:
        """What the store holds of the tenant: below its prefixes, and below its name or naming it outside of the layout.

        What is another tenant's own, or a program, is not listed, however much there is. Outside of the layout only what readers
        see leads anywhere: a folder of which a bucket keeps nothing but earlier versions is not found.
        """
        found = [describe(state) for _, prefix_of in OWN for state in self._own(tenant, prefix_of(tenant))]
        for state in self._outside(tenant):
            if any(part.partition(".")[0] == tenant for part in state.key.split("/")):
                found.append(describe(state))
            elif state.kind == "current" and self._names(state.key, tenant):
                found.append(f"{state.key} (names it)")
        return found

    def _outside(self, tenant: str, prefix: str = "") -> Iterator[ObjectState]:
        """What lies below a prefix and in none of the places that are looked at otherwise."""
        names = self._store.names(prefix)
        if not all(map(is_key, names)):
            # Somebody else's, by names that are no prefixes of ours: they come with a listing of everything.
            yield from (state for state in self._store.states(prefix) if not state.key.startswith(_ELSEWHERE))
            return
        for key in (prefix + name for name in names):
            folder = f"{key}/"
            if folder in _ELSEWHERE:
                continue
            if any(place.startswith(folder) for place in _ELSEWHERE):
                yield from self._outside(tenant, folder)
            elif key not in _ELSEWHERE:
                yield from self._folder_or_object(key, tenant)

    def _folder_or_object(self, key: str, tenant: str) -> Iterator[ObjectState]:
        """What lies below a name; or what bears it, where nothing does: the name is no prefix to list (`ten` would be one of all
        tenants), and may be that of a folder that is empty by now."""
        is_folder = False
        for state in self._store.states(f"{key}/"):
            is_folder = True
            yield state
        if not is_folder:
            with suppress(ObjectNotFound):
                if key.rpartition("/")[2].partition(".")[0] == tenant:
                    self._store.head(key)
                yield ObjectState(key=key, kind="current", size=0, modified=0.0, id="")

    def _own(self, tenant: str, prefix: str) -> list[ObjectState]:
        return [state for state in self._store.states(prefix) if state.key != lease_key(tenant)]

    def _names(self, key: str, tenant: str) -> bool:
        if not key.endswith(".json") or not is_key(key):  # nobody can read what is under no key, nor is it ours
            return False
        try:
            with self._store.open(key) as stream:
                return mentioned_in(tenant, stream)
        except ObjectNotFound:
            return False


class LeasePlace:
    """A tenant's lease."""

    name = "lease"
    remedy = _AGAIN
    certain = True

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def remove(self, tenant: str) -> int:
        """Purge the lease object."""
        states = self._states(tenant)
        self._store.purge(states)
        return len(states)

    def find(self, tenant: str) -> list[str]:
        """What is kept of it."""
        return [describe(state) for state in self._states(tenant)]

    def _states(self, tenant: str) -> list[ObjectState]:
        # The prefix is not the key: what is being written may lie beside it.
        return [state for state in self._store.states(lease_key(tenant)) if state.key == lease_key(tenant)]


class DiskPlace:
    """Disk tiers of this machine. What other machines have goes when they next look at the fleet."""

    name = "this machine's disk"
    remedy = "Check the permissions of the folder, and run it again."
    certain = True

    def __init__(self, tiers: Sequence[Path], store: ObjectStore) -> None:
        self._tiers = tiers
        self._store = store

    def remove(self, tenant: str) -> int:
        """Remove the tenant's bundles."""
        removed = 0
        for folder in self._tiers:
            with DiskTier(folder, self._store, trusted=frozenset()) as tier:
                removed += tier.retain(lambda other: other != tenant)
        return removed

    def find(self, tenant: str) -> list[str]:
        """Folders with the tenant's name."""
        places = (folder / "models" / tenant for folder in self._tiers)
        return [str(place) for place in places if place.exists()]


def forget_own(store: ObjectStore, tenant: str) -> int:
    """Remove all that is one tenant's own in a store, its lease included; how much there was (`registry.deletion.tombstones`)."""
    return StorePlace(store).remove(tenant) + LeasePlace(store).remove(tenant)


def _shared(tenant: str) -> tuple[str, ...]:
    return fleet_shard_prefix(fleet_shard(tenant)), RUNS_PREFIX, ACCESS_KEYS


def unseen(store: ObjectStore, prefix: str) -> list[ObjectState]:
    """What a store keeps below a prefix and readers do not see.

    A write that is under way is none of it. One that was given up is, after an hour.
    """
    before = time.time() - _UNDER_WAY_SECONDS
    states = [state for state in store.states(prefix) if state.kind != "current"]
    return [state for state in states if state.kind != "unfinished" or state.modified < before]


def describe(state: ObjectState) -> str:
    """A state of an object in words."""
    return state.key if state.kind == "current" else f"{state.key} ({state.kind})"
