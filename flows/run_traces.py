"""A tenant's traces in what runs left in the store: `runs/…`."""

from __future__ import annotations

from flows.runs import forget_tenant, runs_naming
from registry.layout import RUNS_PREFIX
from registry.store import ObjectStore
from registry.tenant_places import describe, unseen


class RunsPlace:
    """Records and plans of runs, of which only the tenant's part goes: the rest is told of others.

    What a bucket with versions keeps of records that were written over is about nobody knows whom, and goes as a whole.
    """

    name = "runs"
    remedy = "A run that goes on names it: run this again when it is over."

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def remove(self, tenant: str) -> int:
        """Take the tenant out of every record."""
        changed = len(forget_tenant(self._store, tenant))
        self._store.purge(unseen(self._store, RUNS_PREFIX))
        return changed

    def find(self, tenant: str) -> list[str]:
        """Records that name the tenant, and what cannot be read any more and may do so."""
        hidden = [describe(state) for state in unseen(self._store, RUNS_PREFIX)]
        return runs_naming(self._store, tenant) + hidden
