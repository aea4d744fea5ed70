"""Where a tenant leaves traces: the fleet and its past, the object store, the disk of a machine that trains or serves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from registry.disk_tier import DiskTier
from registry.fleet import FleetEntry, edit_fleet, present_generation, read_shard, rewrite_shard
from registry.layout import fleet_shard, fleet_shard_prefix, lake_prefix, tenant_prefix
from registry.store import ObjectState, ObjectStore

_STATE = re.compile(r"fleet/shards/[0-9a-f]{2}/([1-9][0-9]{0,17})\.json")
# What lies below these is not named after tenants, but for what is below a tenant's own prefixes.
_OTHERS = ("tenants/", "lake/tenants/", "programs/", "fleet/", "garbage/", "access/")
_AGAIN = "Something wrote it meanwhile: run it again."


class FleetPlace:
    """The fleet: a tenant's entry, and the past states of the shard that it was in.

    Those are the history of the other tenants too, so they are written once more without this one.
    """

    name = "fleet"
    remedy = _AGAIN

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def remove(self, tenant: str) -> int:
        """Take the tenant out of the fleet, so that servers let go of it at their next poll, and out of its past."""
        edited = edit_fleet(self._store, [tenant], lambda _: {tenant: None})
        removed = len(edited.changed())
        for _, number, entries in self._with(tenant):
            if number != self._present(tenant):
                left = {other: entry for other, entry in entries.items() if other != tenant}
                rewrite_shard(self._store, fleet_shard(tenant), number, left)
                removed += 1
        self._store.purge(self._unseen(tenant))
        return removed

    def find(self, tenant: str) -> list[str]:
        """States with the tenant in them, and what a bucket keeps of states that were written over."""
        unseen = [f"{state.key} ({state.kind})" for state in self._unseen(tenant)]
        return [state.key for state, _, _ in self._with(tenant)] + unseen

    def _present(self, tenant: str) -> int | None:
        present = present_generation(self._store)
        return present.shards.get(fleet_shard(tenant)) if present else None

    def _with(self, tenant: str) -> Iterator[tuple[ObjectState, int, dict[str, FleetEntry]]]:
        shard = fleet_shard(tenant)
        for state in list(self._store.states(fleet_shard_prefix(shard))):
            found = _STATE.fullmatch(state.key)
            if found is not None and state.kind == "current":
                entries = read_shard(self._store, shard, int(found[1]))
                if tenant in entries:
                    yield state, int(found[1]), dict(entries)

    def _unseen(self, tenant: str) -> list[ObjectState]:
        states = self._store.states(fleet_shard_prefix(fleet_shard(tenant)))
        return [state for state in states if state.kind != "current"]


class StorePlace:
    """The object store: a tenant's tickets, feedback and models, with all that a bucket keeps of earlier versions."""

    name = "store"
    remedy = _AGAIN

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def remove(self, tenant: str) -> int:
        """Purge the tenant's prefixes: the tickets first, without which nobody trains it again."""
        removed = 0
        for prefix in (lake_prefix(tenant), tenant_prefix(tenant)):
            states = list(self._store.states(prefix))
            self._store.purge(states)
            removed += len(states)
        return removed

    def find(self, tenant: str) -> list[str]:
        """What the whole store holds under the tenant's name, wherever it lies."""
        return [f"{state.key} ({state.kind})" for state in self._store.states() if _is_of(tenant, state.key)]


class DiskPlace:
    """Disk tiers of this machine. What other machines have goes when they next look at the fleet."""

    name = "this machine's disk"
    remedy = "Check the permissions of the folder, and run it again."

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


def _is_of(tenant: str, key: str) -> bool:
    if key.startswith((lake_prefix(tenant), tenant_prefix(tenant))):
        return True
    # Elsewhere, whoever names something after a tenant gives it the name of a folder or of a document.
    return not key.startswith(_OTHERS) and any(part.partition(".")[0] == tenant for part in key.split("/"))
