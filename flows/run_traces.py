"""A tenant's traces in what runs left in the store: `runs/…`."""

from __future__ import annotations

from flows.runs import forget_tenant, runs_naming
from registry.deletion.places import unseen
from registry.layout import RUNS_PREFIX
from registry.store import ObjectStore


class RunsPlace:
    """Records and plans of runs, of which only the tenant's part goes: the rest is told of others.

    What a bucket with versions keeps of them beside is `registry.deletion.places.HiddenPlace`'s.
    """

    name = "runs"
    remedy = "A run that goes on names it: run this again when it is over."
    certain = True

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def remove(self, tenant: str) -> int:
        """Take the tenant out of every record."""
        return len(forget_tenant(self._store, tenant))

    def find(self, tenant: str) -> list[str]:
        """Records that name the tenant."""
        return runs_naming(self._store, tenant)


def forget_in_runs(store: ObjectStore, tenant: str) -> None:
    """Take a tenant that was deleted meanwhile out of a run that is over, with all that a bucket keeps of its records."""
    forget_tenant(store, tenant)
    store.purge(unseen(store, RUNS_PREFIX))
