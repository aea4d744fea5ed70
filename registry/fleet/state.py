"""The fleet: which version each tenant serves. It alone decides; everything else follows it.

A reader sees one root, and through it one whole generation (`registry.fleet.at_rest`). A writer edits what it has read, and
writes the root on the condition that nobody else has.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from registry.errors import ObjectNotFound, PublishConflict, StoreError
from registry.fleet.at_rest import MAX_ROOT_BYTES, Root, Shard, ShardStates, find_root, record_generation, write_root
from registry.fleet.entries import MAX_HOLDBACK, FleetEntry, PreloadPlan, Rollout, TenantLimits, Version
from registry.layout import FLEET_ROOT, fleet_shard
from registry.store import ObjectStore
from registry.threads import THREADS, in_threads

__all__ = [
    "MAX_HOLDBACK",
    "UNSET",
    "Change",
    "Edit",
    "Fleet",
    "FleetEdit",
    "FleetEntry",
    "FleetReader",
    "PreloadPlan",
    "Rollout",
    "TenantLimits",
    "Unset",
    "Version",
    "edit_fleet",
    "in_threads",
    "read_fleet",
    "update_fleet",
]

_WRITE_ATTEMPTS = 12


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


# Leave it as it is, where None says something else.
UNSET: Final = Unset.UNSET

# Given a tenant's entry (None: not in the fleet), the entry it shall have (None: leave the fleet).
Change = Callable[[FleetEntry | None], FleetEntry | None]
# The same for several tenants at once, which can refuse all of them by raising.
Edit = Callable[[Mapping[str, FleetEntry | None]], Mapping[str, FleetEntry | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetEdit:
    """What a write of the fleet found and what it left.

    Attributes:
        generation: the fleet's; the one that holds the edit, or the present one where nothing was written.
        before, after: tenant to entry, None where it is not in the fleet.
        preload_before, preload_after: the fleet's preload plan.
    """

    generation: int
    before: Mapping[str, FleetEntry | None]
    after: Mapping[str, FleetEntry | None]
    preload_before: PreloadPlan | None
    preload_after: PreloadPlan | None

    def changed(self) -> list[str]:
        """The tenants whose entry differs, in order."""
        return sorted(tenant for tenant, entry in self.after.items() if entry != self.before[tenant])


class Fleet:
    """One generation of the fleet, whole.

    Attributes:
        generation: counts the fleet's writes; 0 for a store without a fleet.
        entries: tenant to entry.
        preload: the plan for every replica, where the fleet has one.
    """

    __slots__ = ("entries", "generation", "preload")

    def __init__(
        self, generation: int, entries: Mapping[str, FleetEntry], *, preload: PreloadPlan | None = None
    ) -> None:
        self.generation = generation
        self.entries = entries
        self.preload = preload

    def serving(self) -> dict[str, FleetEntry]:
        """The entries that name a version."""
        return {tenant: entry for tenant, entry in self.entries.items() if entry.serves}


class FleetReader:
    """Reads the fleet again and again, fetching only what changed. Not for use by two threads at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._etag: str | None = None
        self._states = ShardStates(store)
        self._fleet: Fleet | None = None

    def refresh(self) -> Fleet:
        """The fleet as it is now; the very object of the last call when nothing changed.

        Raises:
            StoreError: the store failed, or the fleet is damaged; the last fleet stays valid.
        """
        try:
            found = self._store.get_if_changed(FLEET_ROOT, self._etag, max_bytes=MAX_ROOT_BYTES)
        except ObjectNotFound:
            if self._fleet is None:
                self._fleet = Fleet(0, {})
            return self._fleet
        if found is None and self._fleet is not None:
            return self._fleet
        if found is None:
            raise StoreError(f"{self._store.url} answered 'not changed' to a first read of the fleet")
        root = Root.parse(found.data, what=f"{self._store.url}/{FLEET_ROOT}", error=StoreError)
        # Side by side only on the first read: later ones run beside requests, which many threads would hold up.
        shards = self._states.read(root.shards, threads=THREADS if self._fleet is None else 1)
        entries = {tenant: entry for shard in shards.values() for tenant, entry in shard.tenants.items()}
        self._etag = found.etag
        self._fleet = Fleet(root.generation, entries, preload=root.preload)
        return self._fleet


def read_fleet(store: ObjectStore) -> Fleet:
    """The fleet as it is now."""
    return FleetReader(store).refresh()


def update_fleet(
    store: ObjectStore, changes: Mapping[str, Change], *, preload: PreloadPlan | Unset | None = UNSET
) -> int:
    """Apply changes to the fleet, each tenant for itself; otherwise as `edit_fleet`.

    Args:
        changes: by tenant.
        preload: the plan for every replica; None takes it away.

    Returns:
        The generation that holds the changes.
    """

    def edit(found: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
        return {tenant: changes[tenant](entry) for tenant, entry in found.items()}

    return edit_fleet(store, changes, edit, preload=preload).generation


def edit_fleet(
    store: ObjectStore,
    tenants: Iterable[str],
    edit: Edit,
    *,
    preload: PreloadPlan | Unset | None = UNSET,
    write: bool = True,
    touch: bool = False,
) -> FleetEdit:
    """Edit the fleet in one write: shards first, then the root, conditionally. Another writer's edits are merged.

    Args:
        tenants: whose entries are edited.
        edit: given their entries, what these shall be. It is applied again whenever another writer was quicker, and
            may then find its own outcome, if the answer to a write was lost: applied to that, it must change nothing.
            What it raises is passed on, and nothing was written.
        preload: the plan for every replica; None takes it away.
        write: False only says what would be written.
        touch: write a generation also where nothing differs, so that whoever has read the last one, and is about to
            write, has to look again.

    Returns:
        What was found and left. Nothing is written when nothing differs, but for `touch`.

    Raises:
        PublishConflict: other writers kept winning.
    """
    places: dict[str, list[str]] = {}
    for tenant in dict.fromkeys(tenants):
        places.setdefault(fleet_shard(tenant), []).append(tenant)
    states = ShardStates(store)
    for attempt in range(_WRITE_ATTEMPTS):
        root, found = find_root(store)
        shards = states.read({name: root.shards.get(name, 0) for name in places})
        before = {tenant: shards[name].tenants.get(tenant) for name, members in places.items() for tenant in members}
        after = {**before, **edit(before)}
        edited = {name: _edited(shards[name], {tenant: after[tenant] for tenant in places[name]}) for name in places}
        changed = {name: shard for name, shard in edited.items() if shard is not None}
        plan = root.preload if isinstance(preload, Unset) else preload
        report = FleetEdit(
            generation=root.generation,
            before=before,
            after=after,
            preload_before=root.preload,
            preload_after=plan,
        )
        if not write or not (changed or touch or plan != root.preload):
            return report
        numbers = root.shards | states.write({name: (root.shards.get(name, 0), changed[name]) for name in changed})
        if found is not None:
            record_generation(store, root, found.modified)
        generation = root.generation + 1
        new = root.model_copy(update={"generation": generation, "shards": numbers, "preload": plan})
        if write_root(store, new, found.etag if found else None):
            return replace(report, generation=generation)
        time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 6)))  # noqa: S311  # jitter between writers, not a secret
    raise PublishConflict(
        f"the fleet in {store.url} kept changing under this writer",
        remedy="Run it again; if it persists, look for a writer that loops.",
    )


def _edited(shard: Shard, entries: Mapping[str, FleetEntry | None]) -> Shard | None:
    """The shard with these entries in it (None: without them), or None where that changes nothing."""
    after = dict(shard.tenants)
    for tenant, entry in entries.items():
        if entry is None:
            after.pop(tenant, None)
        else:
            after[tenant] = entry
    return None if after == shard.tenants else Shard(tenants=after)
