"""Deleting a tenant: every place that may hold a trace of it, one after the other, and a listing that proves the outcome.

Nothing remembers how far a deletion has come: each place is asked what it holds, loses that, and is asked again at the
end. So an interrupted deletion is finished by running it again, and running it twice does no harm. The tombstone that it
begins with (`registry.deletion.tombstones`) keeps others from bringing the tenant back meanwhile or later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from registry.deletion.tombstones import bury, is_buried
from registry.errors import TenantNotFound
from registry.leases import Leases, last_token
from registry.names import check_tenant
from registry.store import ObjectStore

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]


class Place(Protocol):
    """Somewhere that tenants leave traces.

    Attributes:
        name: for reports.
        remedy: what to do about traces that `remove` leaves, as one sentence.
        certain: what is found is the tenant's, and proves that there was one; not, what may be.
    """

    name: str
    remedy: str
    certain: bool

    def remove(self, tenant: str) -> int:
        """Remove all traces of a tenant; how many there were. Raises MacrofleetError where the place cannot be reached."""
        ...

    def find(self, tenant: str) -> list[str]:
        """Name all traces of a tenant. Raises as `remove`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """What became of a tenant's traces.

    Attributes:
        dry_run: nothing was deleted, and `left` is what there is.
        removed: how many each place had.
        left: what is still there, by place; empty lists are the proof that nothing is.
        remedies: what to do about what is left, by place.
    """

    tenant: str
    dry_run: bool = False
    removed: Mapping[str, int]
    left: Mapping[str, Sequence[str]]
    remedies: Mapping[str, str]

    @property
    def complete(self) -> bool:
        """Whether nothing is left."""
        return not any(self.left.values())

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {
            "tenant": self.tenant,
            "dry_run": self.dry_run,
            "complete": self.complete,
            "removed": dict(self.removed),
            "left": {name: list(found) for name, found in self.left.items()},
            "remedies": {name: remedy for name, remedy in self.remedies.items() if self.left[name]},
        }


def delete_tenant(
    store: ObjectStore,
    tenant: str,
    places: Sequence[Place],
    *,
    leases: Leases,
    dry_run: bool = False,
    step: Step = lambda _text, _share: None,
) -> Deletion:
    """Remove every trace of a tenant, and look for what is left.

    Args:
        places: in this order. The first is what makes others use the tenant (the fleet), which goes at once; the last is
            its lease, which goes when it is let go of; all others go under it.
        leases: takes the tenant's lease from whoever has it, which may take as long as that one's holds.
        dry_run: only say what there is; nothing at all is written.
        step: told how far it is.

    Raises:
        InvalidTenant: no tenant has such a name.
        TenantNotFound: there is no trace of such a tenant anywhere, nor was there one that was deleted.
        MacrofleetError: a place cannot be reached; what came before it is done, and a later run finishes.
    """
    check_tenant(tenant)
    if dry_run:
        there = _look(tenant, places, step)
        known = any(there.left[place.name] for place in places if place.certain)
        if not known and not is_buried(store, tenant):
            raise _unknown(store, tenant)
        return there
    step(f"looking for {tenant}", 0.0)
    if not is_buried(store, tenant) and not any(place.certain and place.find(tenant) for place in places):
        raise _unknown(store, tenant)
    bury(store, tenant, token=last_token(store, tenant))
    removed: dict[str, int] = {}

    def remove(place: Place) -> None:
        step(f"removing {tenant} from {place.name}", len(removed) / (2 * len(places)))
        removed[place.name] = place.remove(tenant)

    first, *others, last = places
    remove(first)
    step(f"taking the lease of {tenant}", len(removed) / (2 * len(places)))
    with leases.hold(tenant, seize=True) as lease:
        # Whoever had it, and did not see the tombstone, publishes nothing after the tenant came back.
        bury(store, tenant, token=lease.token)
        for place in others:
            remove(place)
    remove(last)
    found = _look(tenant, places, lambda text, share: step(text, 0.5 + share / 2))
    return Deletion(tenant=tenant, removed=removed, left=found.left, remedies=found.remedies)


def _look(tenant: str, places: Sequence[Place], step: Step) -> Deletion:
    left: dict[str, list[str]] = {}
    for done, place in enumerate(places):
        step(f"looking for {tenant} in {place.name}", done / len(places))
        left[place.name] = place.find(tenant)
    remedies = {place.name: place.remedy for place in places}
    return Deletion(tenant=tenant, dry_run=True, removed=dict.fromkeys(left, 0), left=left, remedies=remedies)


def _unknown(store: ObjectStore, tenant: str) -> TenantNotFound:
    return TenantNotFound(
        f"there is no tenant {tenant} in {store.url}, nor anything that one left",
        remedy="Check the name: macrofleet tenants list.",
    )
