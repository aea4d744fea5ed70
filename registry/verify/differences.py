"""What differs between the fleet, the object store and MLflow: a comparison of plain snapshots, and what would mend each.

The fleet decides. What it names must be whole in the store and registered in MLflow; what it does not name is nobody's
but garbage collection's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

from registry.fleet.state import FleetEntry
from registry.layout import LABELS, MANIFEST, PROGRAM_FILES, PROVENANCE, WEIGHTS, catalogue_key, model_key, program_key
from registry.tracking.records import TrackedRun, TrackedVersion, bundle_address, registered_model
from registry.verify.stored import Stored, Usable

_FILES = (WEIGHTS, LABELS, MANIFEST)
# The fields of a fleet entry that name a version, with what a version there is for.
_ROLES = {
    "version": "serves",
    "candidate": "waits to be promoted",
    "shadow": "is compared with the one that serves",
    "previous": "would be rolled back to",
}


class Kind(StrEnum):
    """What can differ."""

    FILES_MISSING = "files_missing"
    FILES_DAMAGED = "files_damaged"
    OTHER_TENANT = "other_tenant"
    PROGRAM_MISSING = "program_missing"
    CATALOGUE_MISSING = "catalogue_missing"
    PROVENANCE_MISSING = "provenance_missing"
    NOT_IN_FLEET = "not_in_fleet"
    UNFINISHED_BUNDLE = "unfinished_bundle"
    NOT_REGISTERED = "not_registered"
    REGISTERED_TWICE = "registered_twice"
    BUNDLE_GONE = "bundle_gone"
    FOREIGN_VERSION = "foreign_version"
    ALIAS_DIFFERS = "alias_differs"
    RUN_UNFINISHED = "run_unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """Register a published version in MLflow."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetChampion:
    """Point MLflow's alias `champion` at what the fleet serves by now, or take it away where that is nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropVersion:
    """Remove a version from MLflow; its aliases go to `heir`, another one, where there is one."""

    number: int
    heir: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRun:
    """Close a run in MLflow."""

    run_id: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteProvenance:
    """Write down where a version is registered."""

    version: str
    manifest: str


Repair = Register | SetChampion | DropVersion | EndRun | WriteProvenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as the fleet says.

    Attributes:
        tenant: whose; empty where it is nobody's.
        what: what is wrong, as a clause.
        where: the object, or MLflow's version or run.
        remedy: what `repair` does, or what somebody must do.
        repair: the first of them; None where nothing can be mended from the fleet.
    """

    kind: Kind
    tenant: str
    what: str
    where: str
    remedy: str
    repair: Repair | None = None

    @property
    def left_over(self) -> bool:
        """Whether it harms nobody, and goes with the next garbage collection."""
        return self.kind is Kind.UNFINISHED_BUNDLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why a bundle that the fleet names cannot be used, found by reading it."""

    kind: Kind
    what: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The fleet, the store and MLflow as they were read.

    Attributes:
        store_url: of the store.
        generation: the fleet's; 0 where the store has none.
        entries: the fleet, by tenant.
        stored: what the store has, by tenant; and `programs`, the digests of those that are whole there.
        manifests: of the versions that the fleet names, by tenant and version, as far as they can be used.
        problems: with these, by tenant and version: what reading found, hashing included where it was asked for.
        versions, aliases: MLflow's.
        dead_runs: MLflow's that are marked as running and are too old to be.
    """

    store_url: str
    generation: int
    entries: Mapping[str, FleetEntry]
    stored: Mapping[str, Stored]
    programs: Collection[str]
    manifests: Mapping[tuple[str, str], Usable]
    problems: Mapping[tuple[str, str], Sequence[Problem]]
    versions: Sequence[TrackedVersion]
    aliases: Mapping[str, Mapping[str, int]]
    dead_runs: Sequence[TrackedRun]


def named_versions(entry: FleetEntry) -> dict[str, str | None]:
    """The versions that a fleet entry names, in whatever role, with their manifests' digests where it names these."""
    named: dict[str, str | None] = {}
    for role in _ROLES:
        version = getattr(entry, role, None)
        if isinstance(version, str):
            named.setdefault(version, getattr(entry, "manifest" if role == "version" else f"{role}_manifest", None))
    return named


def _role(entry: FleetEntry, version: str) -> str:
    return next(said for role, said in _ROLES.items() if getattr(entry, role, None) == version)


def compare(snapshot: Snapshot) -> list[Difference]:
    """Every difference, by tenant; within a tenant in the order in which repairs must be made."""
    by_tenant = {tenant: list(versions) for tenant, versions in groupby(snapshot.versions, key=lambda one: one.tenant)}
    tenants = sorted({*snapshot.entries, *snapshot.stored, *by_tenant, *snapshot.aliases})
    registered = {version.run_id for version in snapshot.versions}
    found: list[Difference] = []
    for tenant in tenants:
        look = _Look(snapshot, tenant, by_tenant.get(tenant, []))
        found += look.differences()
    for run in snapshot.dead_runs:
        found.append(_dead_run(run, registered))
    return found


class _Look:
    """One tenant's part of a snapshot."""

    def __init__(self, snapshot: Snapshot, tenant: str, versions: Sequence[TrackedVersion]) -> None:
        self._snapshot = snapshot
        self._tenant = tenant
        self._entry = snapshot.entries.get(tenant)
        self._named = named_versions(self._entry) if self._entry else {}
        stored = snapshot.stored.get(tenant, Stored())
        self._stored = stored.versions
        self._has_catalogue = stored.has_catalogue
        self._whole = stored.whole()
        self._versions = versions
        # The first registration of each manifest is the one that counts.
        self._first: dict[str, TrackedVersion] = {}
        for version in versions:
            if version.ours:
                self._first.setdefault(version.manifest, version)

    def differences(self) -> Iterator[Difference]:
        yield from self._bundles()
        yield from self._unnamed()
        yield from self._registrations()
        yield from self._alias()
        yield from self._tracked()

    def _bundles(self) -> Iterator[Difference]:
        """What the fleet names is whole, its program is there, and so are its catalogue and its provenance."""
        if self._entry is None:
            return
        programs = set()
        for version in self._named:
            role = _role(self._entry, version)
            for name in _FILES:
                if name not in self._stored.get(version, ()):
                    lacks = f"version {version}, which {role}, lacks {name}"
                    yield self._broken(Kind.FILES_MISSING, lacks, self._at(version, name))
            for problem in self._snapshot.problems.get((self._tenant, version), ()):
                yield self._broken(problem.kind, f"version {version}, which {role}: {problem.what}", problem.where)
            manifest = self._snapshot.manifests.get((self._tenant, version))
            if manifest is not None:
                programs.add(manifest.program)
        for program in sorted(programs):
            if program not in self._snapshot.programs:
                yield self._difference(
                    Kind.PROGRAM_MISSING,
                    f"the program {program[:16]}… of its model is not in the store",
                    f"{self._snapshot.store_url}/{program_key(program, PROGRAM_FILES)}",
                    "Publish it: macrofleet programs build.",
                )
        if self._entry.serves and not self._has_catalogue:
            yield self._difference(
                Kind.CATALOGUE_MISSING,
                "it serves and has no macro catalogue, so that nothing may be suggested",
                f"{self._snapshot.store_url}/{catalogue_key(self._tenant)}",
                "Import it: macrofleet tickets import … --macros FILE.",
            )

    def _unnamed(self) -> Iterator[Difference]:
        """What is in the store and not in the fleet."""
        for version, names in sorted(self._stored.items()):
            if version not in self._named and version not in self._whole:
                yield self._difference(
                    Kind.UNFINISHED_BUNDLE,
                    f"version {version} was published in part: {', '.join(sorted(names))}",
                    self._at(version, ""),
                    "Training the tenant again finishes it, or garbage collection removes it.",
                )
        if self._entry is None and (self._whole or self._versions):
            yield self._difference(
                Kind.NOT_IN_FLEET,
                f"it has models ({len(self._whole)} in the store, {len(self._versions)} in MLflow) and no fleet entry",
                self._at("", ""),
                f"Train it again: macrofleet train --tenant {self._tenant}; or delete the tenant.",
            )

    def _registrations(self) -> Iterator[Difference]:
        """What was published is registered, and what the fleet names says where."""
        registered = {version.version for version in self._versions if version.ours}
        for version in sorted(self._whole):
            if version not in registered:
                readable = version not in self._named or (self._tenant, version) in self._snapshot.manifests
                yield self._difference(
                    Kind.NOT_REGISTERED,
                    f"version {version} is published and not registered in MLflow",
                    self._at(version, MANIFEST),
                    f"Register it as {registered_model(self._tenant)}."
                    if readable
                    else "Its manifest cannot be used: train the tenant again.",
                    Register(version=version) if readable else None,
                )
        for version in self._named:
            manifest = self._snapshot.manifests.get((self._tenant, version))
            if manifest is not None and version in self._whole and PROVENANCE not in self._stored[version]:
                yield self._difference(
                    Kind.PROVENANCE_MISSING,
                    f"nothing says where version {version} comes from",
                    self._at(version, PROVENANCE),
                    "Write its registration down; when and by what it was trained is not known any more.",
                    WriteProvenance(version=version, manifest=manifest.digest),
                )

    def _alias(self) -> Iterator[Difference]:
        """The alias `champion` is what serves."""
        serves = self._entry is not None and self._entry.serves
        number = self._snapshot.aliases.get(self._tenant, {}).get("champion")
        first = self._first.get(self._entry.manifest or "") if self._entry else None
        wanted = first.number if first and serves else None
        if number == wanted and (wanted is not None or not serves):
            return
        shown = "nothing" if number is None else f"MLflow's version {number}"
        if self._entry is None or not serves:
            yield self._difference(
                Kind.ALIAS_DIFFERS,
                f"the alias champion is {shown}, and the fleet serves nothing",
                registered_model(self._tenant),
                "Take the alias away.",
                SetChampion(),
            )
            return
        serving = self._entry.version or ""
        # Registered already, or about to be by the repair before this one.
        known = first or (serving in self._whole and (self._tenant, serving) in self._snapshot.manifests)
        yield self._difference(
            Kind.ALIAS_DIFFERS,
            f"the alias champion is {shown}, and the fleet serves {serving}",
            registered_model(self._tenant),
            f"Set it to the registration of {serving}." if known else "What serves cannot be registered: see there.",
            SetChampion() if known else None,
        )

    def _tracked(self) -> Iterator[Difference]:
        """MLflow's versions are of bundles that exist, each registered once."""
        for version in self._versions:
            where = f"{registered_model(self._tenant)} version {version.number}"
            if not version.ours:
                yield self._difference(
                    Kind.FOREIGN_VERSION,
                    f"MLflow's version {version.number} says of no bundle that it is it",
                    where,
                    "Somebody else registered it: ask them, or delete it.",
                )
            elif self._first[version.manifest] is not version:
                first = self._first[version.manifest].number
                yield self._difference(
                    Kind.REGISTERED_TWICE,
                    f"MLflow's version {version.number} is of {version.version}, as version {first} is",
                    where,
                    "Remove the later one.",
                    DropVersion(number=version.number, heir=first),
                )
            elif version.version not in self._whole and version.version not in self._named:
                # In another store it may well be there, and a store without a fleet is hardly the right one.
                here = bundle_address(self._snapshot.store_url, self._tenant, version.version)
                ours = version.bundle == here and self._snapshot.generation > 0
                yield self._difference(
                    Kind.BUNDLE_GONE,
                    f"MLflow's version {version.number} is of {version.version}, which is not in the store",
                    where,
                    "Remove it from MLflow."
                    if ours
                    else f"It was published to {version.bundle}: is this the right store?",
                    DropVersion(number=version.number) if ours else None,
                )

    def _broken(self, kind: Kind, what: str, where: str) -> Difference:
        return self._difference(
            kind, what, where, f"Roll back or train again: macrofleet train --tenant {self._tenant}."
        )

    def _difference(self, kind: Kind, what: str, where: str, remedy: str, repair: Repair | None = None) -> Difference:
        return Difference(kind=kind, tenant=self._tenant, what=what, where=where, remedy=remedy, repair=repair)

    def _at(self, version: str, name: str) -> str:
        return f"{self._snapshot.store_url}/{model_key(self._tenant, version, name)}".rstrip("/")


def _dead_run(run: TrackedRun, registered: set[str]) -> Difference:
    """A run that a crash left open: its model was registered, or it came to nothing."""
    status = "FINISHED" if run.run_id in registered else "KILLED"
    whose = f"the fleet run {run.fleet_run}" if run.fleet_run else "a run"
    return Difference(
        kind=Kind.RUN_UNFINISHED,
        tenant=run.tenant,
        what=f"{whose} is marked as running since {run.started_at:%Y-%m-%d %H:%M} UTC",
        where=f"run {run.run_id}",
        remedy=f"Mark it as {status}.",
        repair=EndRun(run_id=run.run_id, status=status),
    )
