"""What is left of tenants that were deleted: written by somebody who was killed before he saw the tombstone.

Garbage collection removes it, a day after it was written; and tombstones of which nobody can need to know any more. See
`registry.deletion.tombstones`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from registry.deletion.tombstones import is_buried
from registry.layout import TOMBSTONES_PREFIX, tombstone_key
from registry.store import ObjectState, ObjectStore

_OWN = re.compile(r"(?:lake/)?tenants/([a-z0-9][a-z0-9_-]{0,62})/.+")
# No work on a tenant takes as long: whoever began before the deletion is gone.
TOMBSTONE_SECONDS = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """A listing of a store, sorted by whether its tenant was deleted.

    Attributes:
        of_tenants: what there is of tenants that were deleted.
        others: what was asked for of all else.
    """

    of_tenants: dict[str, list[ObjectState]]
    others: list[ObjectState]


def owner_of(key: str) -> str | None:
    """Whose an object is, where it is one tenant's own."""
    found = _OWN.fullmatch(key)
    return found[1] if found else None


def find_remains(
    store: ObjectStore, listing: Iterable[ObjectState], *, other: Callable[[ObjectState], bool] = lambda _: False
) -> Remains:
    """Sort a listing of a store, of which no more is held than is asked for. Raises StoreError.

    Args:
        other: what is wanted of all else.
    """
    # Before the listing is read: who is buried after that is found the next time, and who comes back is asked once more
    # before anything goes.
    keys = frozenset(info.key for info in store.list(TOMBSTONES_PREFIX))
    buried: dict[str, bool] = {}
    of_tenants: dict[str, list[ObjectState]] = {}
    others = []
    for state in listing:
        tenant = owner_of(state.key) if keys else None
        if tenant is not None and tenant not in buried:
            buried[tenant] = tombstone_key(tenant) in keys and is_buried(store, tenant)
        if tenant is not None and buried[tenant]:
            of_tenants.setdefault(tenant, []).append(state)
        elif other(state):
            others.append(state)
    return Remains(of_tenants=of_tenants, others=others)


def purge_remains(store: ObjectStore, tenant: str, states: Sequence[ObjectState]) -> bool:
    """Remove what is left of a tenant, unless it was brought back; whether it was not. Raises StoreError.

    In a bucket without versions an import that begins in the moment between the look and the removal can lose what it
    writes under the very keys that are left; it is run again then.
    """
    if not is_buried(store, tenant):
        return False
    store.purge(states)
    return True


def outlived(store: ObjectStore, now: float) -> list[ObjectState]:
    """Tombstones, and what a bucket keeps of their earlier states, that are old enough to go.

    They are listed here and now: one that stands again since is young.

    Args:
        now: by the store's clock.
    """
    return [state for state in store.states(TOMBSTONES_PREFIX) if now - state.modified > TOMBSTONE_SECONDS]
