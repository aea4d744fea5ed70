"""What is left of tenants that were deleted: written by somebody who was killed before he saw the tombstone.

Garbage collection removes it, a day after it was written; and tombstones of which nobody can need to know any more. See
`registry.deletion.tombstones`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from registry.deletion.tombstones import buried_among, is_buried
from registry.layout import TOMBSTONES_PREFIX
from registry.store import ObjectState, ObjectStore

_OWN = re.compile(r"(?:lake/)?tenants/([a-z0-9][a-z0-9_-]{0,62})/.+")
# No work on a tenant takes as long: whoever began before the deletion is gone.
TOMBSTONE_SECONDS = 30 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """A listing of a store, sorted by whether its tenant was deleted.

    Attributes:
        of_tenants: what there is of tenants that were deleted.
        tombstones: every state of every tombstone.
        others: all else.
    """

    of_tenants: dict[str, list[ObjectState]]
    tombstones: list[ObjectState]
    others: list[ObjectState]


def find_remains(store: ObjectStore, listing: Iterable[ObjectState]) -> Remains:
    """Sort a listing of a store. Raises StoreError."""
    states = list(listing)
    owners = {state: found[1] for state in states if (found := _OWN.fullmatch(state.key))}
    tombstones = [state for state in states if state.key.startswith(TOMBSTONES_PREFIX)]
    # The listing is a moment old: who was brought back meanwhile is not buried now.
    buried = buried_among(store, set(owners.values())) if tombstones else frozenset()
    of_tenants: dict[str, list[ObjectState]] = {}
    others = []
    for state in states:
        tenant = owners.get(state)
        if tenant in buried and tenant is not None:
            of_tenants.setdefault(tenant, []).append(state)
        elif not state.key.startswith(TOMBSTONES_PREFIX):
            others.append(state)
    return Remains(of_tenants=of_tenants, tombstones=tombstones, others=others)


def purge_remains(store: ObjectStore, tenant: str, states: Sequence[ObjectState]) -> bool:
    """Remove what is left of a tenant, unless it was brought back; whether it was not. Raises StoreError.

    In a bucket without versions an import that begins in the moment between the look and the removal can lose what it
    writes under the very keys that are left; it is run again then.
    """
    if not is_buried(store, tenant):
        return False
    store.purge(states)
    return True


def outlived(tombstones: Iterable[ObjectState], now: float) -> list[ObjectState]:
    """Tombstones, and what a bucket keeps of their earlier states, that are old enough to go.

    Args:
        now: by the store's clock.
    """
    return [state for state in tombstones if now - state.modified > TOMBSTONE_SECONDS]
