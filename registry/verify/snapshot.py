"""Reads the fleet, the object store and MLflow for a comparison: in listings where there are any, side by side where not.

The listing of the store is not held: bundles are looked at while it goes on, some at a time, and what is kept of it is an entry
a version (`registry.verify.stored`).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from registry.errors import BundleCorrupt, InvalidInput, ObjectNotFound
from registry.fleet.state import FleetEntry, read_fleet
from registry.layout import MANIFEST, PROGRAMS_PREFIX, TENANTS_PREFIX, model_key, tenant_prefix
from registry.model.bundle import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from registry.store import ObjectInfo, ObjectStore
from registry.tracking.listing import list_aliases, list_experiments, list_runs, list_versions
from registry.tracking.models import Tracking
from registry.tracking.records import TrackedRun
from registry.verify.differences import Kind, Problem, Snapshot, named_versions
from registry.verify.stored import Listings, Stored, Usable, whole_programs

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]
# A run of a model is open for as long as its registration takes, one of the fleet for as long as a fleet trains.
_MODEL_RUN_LASTS = timedelta(hours=1)
_FLEET_RUN_LASTS = timedelta(hours=48)
_THREADS = 16
_AT_ONCE = 128
_CHUNK = 256 * 1024

# Tenant, version, the manifest's digest where the fleet has it, and the lengths of the version's files.
_Named = tuple[str, str, str | None, Mapping[str, int]]


def read_snapshot(
    store: ObjectStore,
    tracking: Tracking,
    *,
    tenants: Sequence[str] | None,
    deep: bool,
    now: datetime,
    step: Step,
) -> Snapshot:
    """The state of these tenants, or of all.

    Read in the opposite order of publishing (store, MLflow, fleet), so that what was there first is there for what names it.

    Args:
        deep: download and hash what the fleet names; otherwise manifests are hashed, and of the other files the length
            is compared.

    Raises:
        StoreError, TrackingUnavailable: one of the three cannot be read.
    """
    step("reading the fleet", 0.0)
    fleet = read_fleet(store)
    entries = fleet.entries
    if tenants is not None:
        entries = {tenant: entries[tenant] for tenant in tenants if tenant in entries}
    step("listing MLflow's aliases", 0.05)
    aliases = list_aliases(tracking.connection, tenants)
    step("listing MLflow's versions", 0.15)
    versions = list_versions(tracking.connection, tenants)
    step("listing MLflow's runs", 0.3)
    dead_runs = _dead_runs(tracking, tenants, now)
    step("listing the store", 0.35)
    prefixes = [TENANTS_PREFIX] if tenants is None else [tenant_prefix(tenant) for tenant in tenants]
    bundles = Bundles(store, entries, deep=deep, step=step)
    bundles.read(found for prefix in prefixes for found in store.list(prefix))
    return Snapshot(
        store_url=store.url,
        generation=fleet.generation,
        entries=entries,
        stored=bundles.stored,
        programs=whole_programs(store.list(PROGRAMS_PREFIX)),
        manifests=bundles.manifests,
        problems=bundles.problems,
        versions=versions,
        aliases=aliases,
        dead_runs=dead_runs,
    )


def _dead_runs(tracking: Tracking, tenants: Sequence[str] | None, now: datetime) -> list[TrackedRun]:
    experiments = list_experiments(tracking.connection, tracking.runs.experiment)
    found = list_runs(
        tracking.connection, experiments, before=now - _MODEL_RUN_LASTS, status="RUNNING", tenants=tenants
    )
    return [run for run in found if not run.fleet_run or run.started_at < now - _FLEET_RUN_LASTS]


class Bundles:
    """What the fleet names and the store has.

    Attributes:
        stored: what the store has at all, by tenant.
        manifests, problems: of what the fleet names, by tenant and version.
    """

    def __init__(self, store: ObjectStore, entries: Mapping[str, FleetEntry], *, deep: bool, step: Step) -> None:
        self._store = store
        self._entries = entries
        self._deep = deep
        self._step = step
        self._finished = 0
        self._named = sum(len(named_versions(entry)) for entry in entries.values())
        self.stored: dict[str, Stored] = {}
        self.manifests: dict[tuple[str, str], Usable] = {}
        self.problems: dict[tuple[str, str], list[Problem]] = {}

    def read(self, listing: Iterable[ObjectInfo]) -> None:
        """Read what a listing of tenants' objects has."""
        waiting: list[_Named] = []
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool:
            for tenant, stored, sizes in Listings().by_tenant(listing):
                entry = self._entries.get(tenant)
                if stored.versions or entry is not None:
                    self.stored[tenant] = stored
                for version, digest in (named_versions(entry) if entry else {}).items():
                    if MANIFEST in stored.versions.get(version, ()):
                        waiting.append((tenant, version, digest, sizes[version]))
                # Some at a time, so that an error ends it soon, and no more of the listing is held.
                if len(waiting) >= _AT_ONCE:
                    self._read(pool, waiting)
                    waiting.clear()
            self._read(pool, waiting)

    def _read(self, pool: ThreadPoolExecutor, named: Sequence[_Named]) -> None:
        what = "downloading and hashing" if self._deep else "reading manifests"
        share = self._finished / max(self._named, 1)
        self._step(f"{what}: {self._finished} of {self._named}", 0.5 + 0.5 * min(share, 1.0))
        read = pool.map(lambda one: _read_bundle(self._store, *one, deep=self._deep), named)
        for (tenant, version, *_), (manifest, problems) in zip(named, read, strict=True):
            if manifest is not None:
                self.manifests[tenant, version] = Usable(program=sys.intern(manifest.program), digest=manifest.digest)
            if problems:
                self.problems[tenant, version] = problems
        self._finished += len(named)


def _read_bundle(
    store: ObjectStore, tenant: str, version: str, digest: str | None, sizes: Mapping[str, int], *, deep: bool
) -> tuple[Manifest | None, list[Problem]]:
    """A version's manifest where it can be used, and what is wrong with its files."""
    key = model_key(tenant, version, MANIFEST)
    where = f"{store.url}/{key}"
    try:
        data = store.get(key, max_bytes=MAX_MANIFEST_BYTES).data
    except ObjectNotFound:
        return None, [Problem(kind=Kind.FILES_MISSING, what=f"lacks {MANIFEST}", where=where)]
    except InvalidInput as problem:
        return None, [Problem(kind=Kind.FILES_DAMAGED, what=problem.what, where=where)]
    try:
        manifest = Manifest.parse(data, what=MANIFEST, error=BundleCorrupt)
        if manifest.tenant != tenant:
            what = f"its manifest names another tenant, {manifest.tenant[:80]!r}"
            return None, [Problem(kind=Kind.OTHER_TENANT, what=what, where=where)]
        manifest = parse_manifest(data, tenant=tenant, digest=digest, what=f"its {MANIFEST}")
    except BundleCorrupt as problem:
        return None, [Problem(kind=Kind.FILES_DAMAGED, what=problem.what, where=where)]
    if manifest.version != version:
        what = f"its {MANIFEST} is that of version {manifest.version}"
        return None, [Problem(kind=Kind.FILES_DAMAGED, what=what, where=where)]
    return manifest, _file_problems(store, manifest, sizes=sizes, deep=deep)


def _file_problems(store: ObjectStore, manifest: Manifest, *, sizes: Mapping[str, int], deep: bool) -> list[Problem]:
    """What is wrong with the files that are there; those that are not are seen in the listing."""
    problems = []
    for name, expected in sorted(manifest.files.items()):
        key = model_key(manifest.tenant, manifest.version, name)
        size = sizes.get(name)
        if size is None:
            continue
        what = None
        if size != expected.size:
            what = f"its {name} has {size} bytes of {expected.size}"
        elif deep and _sha256(store, key) != expected.sha256:
            what = f"its {name} has other content"
        if what:
            problems.append(Problem(kind=Kind.FILES_DAMAGED, what=what, where=f"{store.url}/{key}"))
    return problems


def _sha256(store: ObjectStore, key: str) -> str | None:
    """An object's digest; None where it was removed meanwhile."""
    hasher = hashlib.sha256()
    try:
        with store.open(key) as stream:
            while chunk := stream.read(_CHUNK):
                hasher.update(chunk)
    except ObjectNotFound:
        return None
    return hasher.hexdigest()
