"""`verify_fleet`: does the fleet name what the object store has and MLflow records, and can the rest be mended from it?

The fleet alone decides what serves; the store and MLflow follow it, and a crash, a lost answer or a human hand can leave
them behind. This finds where, says what would mend it, and mends it when asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from registry.differences import (
    Difference,
    DropVersion,
    EndRun,
    Register,
    Repair,
    SetChampion,
    WriteProvenance,
    compare,
)
from registry.errors import MacrofleetError, TenantNotFound
from registry.fleet import edit_fleet
from registry.fleet_snapshot import Step, read_snapshot
from registry.models import read_manifest
from registry.names import check_tenant
from registry.publishing import record_provenance
from registry.store import ObjectStore
from registry.tracking import Tracking

# Given a tenant: held while something of it is mended; entering raises where somebody else has it.
Lease = Callable[[str], AbstractContextManager[object]]

# So many tenants are looked at one by one; more are quicker in one listing of everything.
_ONE_BY_ONE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A difference and what came of it.

    Attributes:
        mended: whether it was.
        problem: why it was not, where that was tried.
    """

    difference: Difference
    mended: bool = False
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        found = asdict(self.difference)
        del found["repair"]
        return {
            **found,
            "mendable": self.difference.repair is not None,
            "mended": self.mended,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was compared and found.

    Attributes:
        tenants, versions: how many of the fleet's and of MLflow's were looked at.
        findings: by tenant.
    """

    tenants: int
    versions: int
    findings: tuple[Finding, ...]

    @property
    def open(self) -> list[Finding]:
        """What somebody has to see to: neither mended nor garbage collection's."""
        return [one for one in self.findings if not one.mended and not one.difference.left_over]

    def as_dict(self) -> dict[str, Any]:
        """For reports and as a flow's result."""
        return {
            "tenants": self.tenants,
            "versions": self.versions,
            "open": len(self.open),
            "mended": sum(one.mended for one in self.findings),
            "differences": [one.as_dict() for one in self.findings],
        }


def verify_fleet(
    store: ObjectStore,
    tracking: Tracking,
    *,
    tenants: Sequence[str] | None = None,
    deep: bool = False,
    repair: bool = False,
    lease: Lease | None = None,
    step: Step = lambda text, share: None,  # noqa: ARG005  # nobody listens
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Verification:
    """Compare MLflow and the object store with the fleet, and mend what can be mended from it.

    What differs is looked at a second time before it counts: training that is under way has it right by then, or is found
    again by the next verification.

    Args:
        tenants: None for all.
        deep: download and hash what the fleet names, gigabytes for a large fleet.
        repair: mend: registrations, aliases, versions that are there twice or of no bundle, runs that a crash left open.
        lease: taken for each tenant that is mended; one that is somebody else's is left alone, and stays open.
        step: told what is going on and the finished share.

    Raises:
        TenantNotFound: one of `tenants` is nowhere to be found.
        StoreError, TrackingUnavailable: one of the three cannot be read.
    """
    chosen = None if tenants is None else [check_tenant(tenant) for tenant in dict.fromkeys(tenants)]
    snapshot = read_snapshot(store, tracking, tenants=chosen, deep=deep, now=clock(), step=_part(step, 0.0, 0.7))
    for tenant in chosen or ():
        if not (tenant in snapshot.entries or tenant in snapshot.stored or tenant in snapshot.aliases):
            raise TenantNotFound(f"tenant {tenant} is neither in the fleet of {store.url} nor in MLflow")
    found = compare(snapshot)
    whose = sorted({difference.tenant for difference in found} - {""})
    if whose:
        few = whose if len(whose) <= _ONE_BY_ONE else chosen
        again = compare(
            read_snapshot(store, tracking, tenants=few, deep=deep, now=clock(), step=_part(step, 0.7, 0.85))
        )
        confirmed = {(one.kind, one.tenant, one.where) for one in again}
        found = [one for one in found if not one.tenant or (one.kind, one.tenant, one.where) in confirmed]
    findings = (
        _mended(store, tracking, found, lease or _nobody, _part(step, 0.85, 1.0)) if repair else map(_left, found)
    )
    return Verification(tenants=len(snapshot.entries), versions=len(snapshot.versions), findings=tuple(findings))


def _left(difference: Difference) -> Finding:
    return Finding(difference=difference)


def _nobody(tenant: str) -> AbstractContextManager[object]:  # noqa: ARG001  # a lease of nothing
    return nullcontext()


def _part(step: Step, start: float, end: float) -> Step:
    return lambda text, share: step(text, start + (end - start) * share)


def _mended(
    store: ObjectStore, tracking: Tracking, found: Sequence[Difference], lease: Lease, step: Step
) -> list[Finding]:
    findings = []
    for place, difference in enumerate(found):
        if difference.repair is None:
            findings.append(_left(difference))
            continue
        step(f"mending {difference.tenant or difference.where}", place / len(found))
        try:
            with lease(difference.tenant) if difference.tenant else nullcontext():
                _carry_out(store, tracking, difference.tenant, difference.repair)
            findings.append(Finding(difference=difference, mended=True))
        except MacrofleetError as problem:
            findings.append(Finding(difference=difference, problem=str(problem)))
    return findings


def _carry_out(store: ObjectStore, tracking: Tracking, tenant: str, repair: Repair) -> None:
    """Mend one thing; again is harmless. Raises MacrofleetError."""
    match repair:
        case Register(version=version):
            manifest = read_manifest(store, tenant, version, digest=None)
            tracking.register(manifest, parameters={}, tags={"registered_by": "verify_fleet"})
        case SetChampion():
            # As it is by now: somebody may have rolled back meanwhile.
            entry = edit_fleet(store, [tenant], lambda found: found, write=False).before[tenant]
            if entry is not None and entry.manifest is not None:
                tracking.set_alias(tenant, "champion", manifest_digest=entry.manifest)
            else:
                tracking.drop_alias(tenant, "champion")
        case DropVersion(number=number, heir=heir):
            tracking.drop_version(tenant, number, heir=heir)
        case EndRun(run_id=run_id, status=status):
            tracking.end_run(run_id, status)
        case WriteProvenance(version=version, manifest=digest):
            registration = tracking.find(tenant, digest)
            provenance = {
                "mlflow_run_id": registration and registration.run_id,
                "mlflow_version": registration and registration.version,
                "recorded_by": "verify_fleet",
            }
            record_provenance(store, tenant=tenant, version=version, provenance=provenance)
