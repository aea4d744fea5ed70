"""What a replica tells of one tenant's model. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from serving.engine.holding import M, Slot
from serving.fleet_watch import ModelRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """What a replica knows of one tenant's model.

    Attributes:
        version: what the fleet wants served.
        serving_version: what is served; None when nothing is in memory.
        state: "absent", "fetching" (the first load is under way) or "ready".
        bytes: mapped.
        pinned: kept in memory whatever happens.
        leases: requests that use it or wait for it now.
        hits: requests since it is in memory.
        last_used_seconds: since the last request.
        load_ms: the last load took.
        wait_ms: the first request waited.
        error: why the last load failed, where one did.
    """

    tenant: str
    version: str
    serving_version: str | None = None
    state: str = "absent"
    bytes: int = 0
    pinned: bool = False
    leases: int = 0
    hits: int = 0
    last_used_seconds: float | None = None
    load_ms: float | None = None
    wait_ms: float | None = None
    error: str | None = None


def status_of(ref: ModelRef, slot: Slot[M] | None, *, pinned: bool, error: str | None, now: float) -> ModelStatus:
    """The status of the version that the fleet names for a tenant.

    Args:
        slot: what the tenant has in memory; None where there is nothing.
        pinned: whether it is kept there.
        error: why the last load of this version failed.
        now: by the clock of the slot's times.
    """
    if slot is None:
        return ModelStatus(tenant=ref.tenant, version=ref.version, pinned=pinned, error=error)
    serving = slot.serving
    return ModelStatus(
        tenant=ref.tenant,
        version=ref.version,
        serving_version=serving.ref.version if serving else None,
        state="ready" if serving else "fetching",
        bytes=serving.nbytes if serving else 0,
        pinned=pinned,
        leases=sum(each.leases for each in (*slot.fetching.values(), *([serving] if serving else []))),
        hits=slot.hits,
        last_used_seconds=None if slot.last_used is None else round(now - slot.last_used, 3),
        load_ms=_milliseconds(slot.load_seconds),
        wait_ms=_milliseconds(slot.wait_seconds),
        error=error,
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
