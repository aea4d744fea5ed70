"""How long a tenant's tickets are kept: what is older than its bound goes, and all that has it or was made for it.

Whole months go, each when its first day reaches the bound: a ticket is kept for at most `keep_months` and at least a month
less. By the day there would be other examples every night, and every tenant would be trained again for it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from registry.deletion.places import forget_own, unseen
from registry.deletion.tombstones import unless_deleted
from registry.feedback.packing import pack_feedback
from registry.layout import feedback_prefix, lake_prefix
from registry.store import ObjectState, ObjectStore
from training.lake import Lake


@dataclass(frozen=True, slots=True, kw_only=True)
class Tidied:
    """What became of a tenant's lake, or would.

    Attributes:
        before: nothing from before it is kept.
        tickets: examples that went.
        undated: examples that have no time, and stay: nobody knows how old they are.
        left: all that stay.
        feedback: its objects that went.
        packed, made: objects of feedback that others took the place of, and these.
        synchronisations: with help desks, of which nothing was heard for that long; what they had read is forgotten.
        hidden: what a bucket with versions had kept of what was written over or deleted, and writes that were given up.
    """

    tenant: str
    before: datetime
    tickets: int
    undated: int
    left: int
    feedback: int
    packed: int
    made: int
    synchronisations: int
    hidden: int

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {**asdict(self), "before": self.before.date().isoformat()}


def first_kept(now: datetime, keep_months: int) -> datetime:
    """The beginning of the first month that is kept whole: that of the month after the one of `keep_months` ago."""
    year, month = divmod(now.year * 12 + now.month - 1 - keep_months + 1, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def tidy_lake(store: ObjectStore, tenant: str, *, keep_months: int, now: datetime, write: bool = True) -> Tidied:
    """Remove what a tenant does not keep any more, and pack its feedback. May run at any time, and again.

    Args:
        keep_months: of tickets and feedback.
        now: UTC.
        write: False only counts.

    Raises:
        TenantDeleted: the tenant was deleted meanwhile; nothing of what was written is left.
        PublishConflict: importers kept winning.
        InvalidInput, StoreError: something cannot be read or written.
    """
    before = first_kept(now, keep_months)
    lake = Lake(store)
    with unless_deleted(store, tenant, lambda: forget_own(store, tenant)):
        expired = lake.expire(tenant, before, write=write)
        old = _old_feedback(store, tenant, before)
        abandoned = _abandoned(store, tenant, before)
        if write:
            store.purge(old)
            for parts in abandoned:
                # The state first: without its parts it would be damaged, and parts without it are swept.
                parts.sort(key=lambda state: not state.key.endswith("/state.json"))
                store.purge(parts)
        packing = pack_feedback(store, tenant, today=now.date(), write=write)
        # The last: what was written over above has what was removed.
        hidden = unseen(store, lake_prefix(tenant))
        if write:
            store.purge(hidden)
    return Tidied(
        tenant=tenant,
        before=before,
        tickets=expired.removed,
        undated=expired.undated,
        left=expired.left,
        feedback=len(old),
        packed=packing.packed,
        made=packing.made,
        synchronisations=len(abandoned),
        hidden=len(hidden),
    )


def _old_feedback(store: ObjectStore, tenant: str, before: datetime) -> list[ObjectState]:
    prefix, first = feedback_prefix(tenant), before.date().isoformat()
    states = (state for state in store.states(prefix) if state.kind == "current")
    return [state for state in states if state.key.removeprefix(prefix).partition("/")[0] < first]


def _abandoned(store: ObjectStore, tenant: str, before: datetime) -> list[list[ObjectState]]:
    """What synchronisations have left that nobody has gone on with since, by help desk."""
    prefix = f"{lake_prefix(tenant)}sync/"
    desks: dict[str, list[ObjectState]] = {}
    for state in store.states(prefix):
        if state.kind == "current":
            desks.setdefault(state.key.removeprefix(prefix).partition("/")[0], []).append(state)
    return [found for found in desks.values() if max(state.modified for state in found) < before.timestamp()]
