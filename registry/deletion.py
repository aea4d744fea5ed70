"""Deleting a tenant: every place that may hold a trace of it, one after the other, and a listing that proves the outcome.

Nothing remembers how far a deletion has come: each place is asked what it holds, loses that, and is asked again at the
end. So an interrupted deletion is finished by running it again, and running it twice does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from registry.names import check_tenant

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]


class Place(Protocol):
    """Somewhere that tenants leave traces.

    Attributes:
        name: for reports.
        remedy: what to do about traces that `remove` leaves, as one sentence.
    """

    name: str
    remedy: str

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
        removed: how many each place had.
        left: what is still there, by place; empty lists are the proof that nothing is.
        remedies: what to do about what is left, by place.
    """

    tenant: str
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
            "complete": self.complete,
            "removed": dict(self.removed),
            "left": {name: list(found) for name, found in self.left.items()},
            "remedies": {name: remedy for name, remedy in self.remedies.items() if self.left[name]},
        }


def delete_tenant(
    tenant: str,
    places: Sequence[Place],
    *,
    held: Callable[[str], AbstractContextManager[object]] = nullcontext,
    step: Step = lambda _text, _share: None,
) -> Deletion:
    """Remove every trace of a tenant, and look for what is left.

    Args:
        places: in this order: first what makes others use the tenant (the fleet), last what keeps others away from it.
        held: keeps others from working on the tenant while the context lasts: its lease.
        step: told how far it is.

    Raises:
        InvalidTenant: no tenant has such a name.
        MacrofleetError: a place cannot be reached; what came before it is done, and a later run finishes.
    """
    check_tenant(tenant)
    removed: dict[str, int] = {}
    left: dict[str, list[str]] = {}
    with held(tenant):
        for done, place in enumerate(places):
            step(f"removing {tenant} from {place.name}", done / (2 * len(places)))
            removed[place.name] = place.remove(tenant)
    for done, place in enumerate(places):
        step(f"looking for {tenant} in {place.name}", 0.5 + done / (2 * len(places)))
        left[place.name] = place.find(tenant)
    remedies = {place.name: place.remedy for place in places}
    return Deletion(tenant=tenant, removed=removed, left=left, remedies=remedies)
