"""`verify_fleet`: does the fleet name what the object store has and MLflow records, and can the rest be mended from it?

The fleet alone decides what serves; the store and MLflow follow it, and a crash, a lost answer or a human hand can leave
them behind. This finds where, says what would mend it, and mends it when asked to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from registry.errors import LeaseHeld, MacrofleetError, TenantNotFound
from registry.fleet.state import edit_fleet
from registry.layout import lake_prefix, tenant_prefix
from registry.leases import Lease, Leases, this_process
from registry.models import read_manifest
from registry.names import check_tenant
from registry.publishing import record_provenance
from registry.store import ObjectStore
from registry.tracking.models import Tracking
from registry.verify.differences import (
    Difference,
    DropVersion,
    EndRun,
    Register,
    Repair,
    SetChampion,
    WriteProvenance,
    compare,
)
from registry.verify.snapshot import Step, read_snapshot

# So many tenants are looked at one by one; more are quicker in one listing of everything.
_ONE_BY_ONE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A difference and what came of it.

    Attributes:
        mended: whether it was.
        problem: why it was not, where that was tried.
        left_out: because somebody else has the tenant's lease; `problem` says who.
    """

    difference: Difference
    mended: bool = False
    problem: str = ""
    left_out: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        found = asdict(self.difference)
        del found["repair"]
        return {
            **found,
            "mendable": self.difference.repair is not None,
            "mended": self.mended,
            "problem": self.problem,
            "left_out": self.left_out,
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

    @property
    def left_out(self) -> list[str]:
        """The tenants of which nothing was mended because somebody else works on them."""
        return sorted({one.difference.tenant for one in self.findings if one.left_out})

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {
            "tenants": self.tenants,
            "versions": self.versions,
            "open": len(self.open),
            "mended": sum(one.mended for one in self.findings),
            "left_out": self.left_out,
            "differences": [one.as_dict() for one in self.findings],
        }


def verify_fleet(
    store: ObjectStore,
    tracking: Tracking,
    *,
    tenants: Sequence[str] | None = None,
    deep: bool = False,
    repair: bool = False,
    leases: Leases | None = None,
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
            Each tenant is looked at once more under its lease, and mended while that holds; what somebody else has the
            lease of is left out.
        leases: of the store, for `repair`; by default in this process's name.
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
    looked_at = {"tenants": len(snapshot.entries), "versions": len(snapshot.versions)}
    del snapshot  # of a large fleet, two at once would be twice the memory
    whose = sorted({difference.tenant for difference in found} - {""})
    if whose:
        few = whose if len(whose) <= _ONE_BY_ONE else chosen
        again = compare(
            read_snapshot(store, tracking, tenants=few, deep=deep, now=clock(), step=_part(step, 0.7, 0.85))
        )
        confirmed = {(one.kind, one.tenant, one.where) for one in again}
        found = [one for one in found if not one.tenant or (one.kind, one.tenant, one.where) in confirmed]
    # What runs were left open comes last, and is a tenant's as well; repairs within a tenant keep their order.
    found = sorted(found, key=lambda one: (not one.tenant, one.tenant))
    findings = [Finding(difference=difference) for difference in found]
    if repair:
        mending = _Mending(
            store,
            tracking,
            leases or Leases(store, holder=f"verify_fleet in {this_process()}"),
            look=lambda tenant: compare(
                read_snapshot(store, tracking, tenants=[tenant], deep=deep, now=clock(), step=lambda *_: None)
            ),
        )
        findings = mending.mend(found, _part(step, 0.85, 1.0))
    return Verification(**looked_at, findings=tuple(findings))


def _part(step: Step, start: float, end: float) -> Step:
    return lambda text, share: step(text, start + (end - start) * share)


class _Mending:
    """Carries repairs out, one tenant after the other.

    Args:
        look: what differs of a tenant at this moment.
    """

    def __init__(
        self, store: ObjectStore, tracking: Tracking, leases: Leases, look: Callable[[str], Sequence[Difference]]
    ) -> None:
        self._store = store
        self._tracking = tracking
        self._leases = leases
        self._look = look

    def mend(self, found: Sequence[Difference], step: Step) -> list[Finding]:
        """What came of differences, given by tenant; one whose lease is taken has them all left."""
        findings: list[Finding] = []
        for tenant, theirs in groupby(found, key=lambda one: one.tenant):
            differences = list(theirs)
            if all(one.repair is None for one in differences):
                findings += (Finding(difference=one) for one in differences)
                continue
            step(f"mending {tenant or differences[0].where}", len(findings) / len(found))
            if not tenant:  # a run of the whole fleet's
                findings += (self._carried_out(one, None) for one in differences)
                continue
            try:
                with self._held(tenant) as lease:
                    # It may have been trained meanwhile: what is mended is what differs now, when nobody else changes it.
                    findings += [self._carried_out(one, lease) for one in self._look(tenant)]
            except LeaseHeld as problem:
                findings += (_not_mended(one, problem, left_out=True) for one in differences)
            except MacrofleetError as problem:
                findings += (_not_mended(one, problem) for one in differences)
        return findings

    @contextmanager
    def _held(self, tenant: str) -> Iterator[Lease | None]:
        """The tenant's lease; none for one that is only in MLflow, since its lease would be all that the store has of it."""
        if any(True for prefix in (tenant_prefix(tenant), lake_prefix(tenant)) for _ in self._store.list(prefix)):
            with self._leases.hold(tenant) as lease:
                yield lease
        else:
            yield None

    def _carried_out(self, difference: Difference, lease: Lease | None) -> Finding:
        if difference.repair is None:
            return Finding(difference=difference)
        try:
            if lease is not None:
                lease.check()
            _carry_out(self._store, self._tracking, difference.tenant, difference.repair)
        except MacrofleetError as problem:
            return _not_mended(difference, problem)
        return Finding(difference=difference, mended=True)


def _not_mended(difference: Difference, problem: MacrofleetError, *, left_out: bool = False) -> Finding:
    if difference.repair is None:
        return Finding(difference=difference)
    return Finding(difference=difference, problem=str(problem), left_out=left_out)


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
