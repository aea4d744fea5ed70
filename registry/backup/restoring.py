"""Bringing a backup back, in the order in which things are written (`registry.backup.documents.rank`).

Servers may look at the store meanwhile, garbage may be collected, and the process may die at any request; a second run goes
on. For that:

- **The fleet's root comes last**, on the condition that nobody wrote another one. Where the store has a fleet of its own whose
  shards have the numbers of the backup's, its root goes first: half of one and half of the other would be a third one.
- **Tombstones come first**: those of the backup and of every later one, unless the store knows better. Nothing is written of a
  tenant that they say is deleted.
- **What was there already is claimed** (`registry.garbage.collecting`) before the root names it: it may be about to go.

Contents are checked on the way.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from registry.backup.documents import Backup, backup_names, fetch_content, rank, read_backup, read_content
from registry.deletion.places import FleetPlace, forget_own
from registry.deletion.remains import find_remains, owner_of
from registry.deletion.tombstones import Tombstone, buried_among, settle
from registry.errors import (
    BackupCorrupt,
    BundleCorrupt,
    InvalidInput,
    ModelNotFound,
    ObjectNotFound,
    PreconditionFailed,
    PublishConflict,
    StoreError,
)
from registry.files import ContentDigest, holds, scratch_folder
from registry.fleet.at_rest import FleetRoot, parse_root, parse_shard, read_root, replace_root
from registry.fleet.history import named_versions
from registry.fleet.state import in_threads, read_fleet
from registry.garbage.collecting import claim
from registry.layout import FLEET_ROOT, LABELS, MANIFEST, WEIGHTS, fleet_shard_key, model_key
from registry.models import read_manifest
from registry.store import ObjectStore

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]

_THREADS = 8
# Between looks at a version that a collector is just deleting, as `registry.publishing` has them.
_PAUSES = (0.1, 0.3, 1.0, 3.0, 5.0, 10.0)
_ROOT_ATTEMPTS = 5
_ROOT_RANK = rank(FLEET_ROOT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What restoring one came to.

    Attributes:
        generation: of the fleet that is served now.
        written: objects; `there`: those that were there already.
        deleted: tenants of the backup that were deleted since, and left out.
    """

    name: str
    generation: int
    written: int
    there: int
    deleted: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def restore_store(
    place: ObjectStore,
    name: str,
    store: ObjectStore,
    *,
    over: bool = False,
    step: Step = lambda _text, _share: None,
    sleep: Callable[[float], None] = time.sleep,
    threads: int = _THREADS,
) -> Restored:
    """Bring a backup's objects back. One that is interrupted is finished by restoring again.

    What the store has beside them stays: what was published since, say, which no fleet names then.

    Args:
        over: also into a store whose fleet is another one.
        step: told how far it is.
        sleep: waits so many seconds for a collector of garbage.

    Raises:
        InvalidInput: there is no such backup, or the store has a fleet.
        BackupCorrupt: a content is not there or not what it was; nothing of the fleet was written.
        PublishConflict: others write the fleet, or delete what is restored.
        StoreError: one of the stores failed.
    """
    backup = read_backup(place, name)
    with scratch_folder("macrofleet-restore-") as folder:
        restorer = _Restorer(place, store, backup, folder, step=step, sleep=sleep, threads=threads)
        restorer.check(over=over)
        return restorer.run(over=over)


class _Restorer:
    def __init__(
        self,
        place: ObjectStore,
        store: ObjectStore,
        backup: Backup,
        folder: Path,
        *,
        step: Step,
        sleep: Callable[[float], None],
        threads: int,
    ) -> None:
        self._place = place
        self._store = store
        self._backup = backup
        self._folder = folder
        self._step = step
        self._sleep = sleep
        self._threads = threads
        self._counting = threading.Lock()
        self._finished = 0
        self._wrote: set[str] = set()
        self._there: set[str] = set()
        self._root = self._read_root_of_backup()

    def check(self, *, over: bool) -> None:
        """Refuse to replace a fleet unasked. A root that cannot be read is one."""
        try:
            now = read_root(self._store)
        except StoreError:
            if not over:
                raise
            return
        if now.data and not over and (self._root is None or now.data != self._root.data):
            raise InvalidInput(
                f"{self._store.url} has a fleet, generation {now.generation}; the backup has {self._backup.generation}",
                remedy="Restore to an empty bucket or folder, or give --over to go back to the backup here.",
            )

    def run(self, *, over: bool) -> Restored:
        self._step("restoring who was deleted", 0.0)
        self._restore_tombstones()
        keys = [key for key in self._backup.objects if rank(key) not in (0, _ROOT_RANK)]
        buried = buried_among(self._store, {owner for key in keys if (owner := owner_of(key))})
        wanted = [key for key in keys if owner_of(key) not in buried]
        if over and self._root is not None:
            self._make_way(self._root)
        for turn in range(1, _ROOT_RANK):
            self._restore([key for key in wanted if rank(key) == turn], of=len(wanted))
        if self._root is not None:
            self._claim(self._root, without=buried)
            self._write_root(self._root, over=over)
        self._step("leaving out who was deleted since", 0.95)
        deleted = self._forget_buried(buried)
        return Restored(
            name=self._backup.name,
            generation=read_root(self._store).generation,
            written=len(self._wrote),
            there=len(self._there),
            deleted=deleted,
        )

    def _read_root_of_backup(self) -> FleetRoot | None:
        one = self._backup.objects.get(FLEET_ROOT)
        if one is None:
            return None
        data = read_content(self._place, one.content)
        try:
            return parse_root(data, what=f"the fleet's root in backup {self._backup.name}")
        except StoreError as problem:
            raise BackupCorrupt(problem.what, remedy=problem.remedy) from None

    # Tenants that were deleted

    def _restore_tombstones(self) -> None:
        """Have the store know whom this backup, and any later one, knows to be deleted.

        Any, since a store forgets tombstones after a month, and backups may be kept for longer.
        """
        found = {(key, one.content) for key, one in self._backup.objects.items() if rank(key) == 0}
        for name in backup_names(self._place):
            if name > self._backup.name:
                found |= {(key, one.content) for key, one in self._read_later(name).objects.items() if rank(key) == 0}
        for key, content in found:
            data = read_content(self._place, content)
            settle(self._store, key, Tombstone.parse(data, what=f"{key} in a backup", error=BackupCorrupt))

    def _read_later(self, name: str) -> Backup:
        try:
            return read_backup(self._place, name)
        except BackupCorrupt as problem:
            raise BackupCorrupt(
                f"{problem.what}, so that nobody knows whom it says to be deleted",
                remedy="Remove that list from the place to restore without it; whoever was deleted may come back.",
            ) from None

    def _forget_buried(self, left_out: Iterable[str]) -> tuple[str, ...]:
        """Have the fleet name nobody who was deleted, and nothing be left of them."""
        there = {*read_fleet(self._store).entries, *find_remains(self._store, self._store.states()).of_tenants}
        gone = sorted({*left_out, *buried_among(self._store, there)})
        fleet = FleetPlace(self._store)
        for tenant in gone:
            if fleet.find(tenant):
                fleet.remove(tenant)
            forget_own(self._store, tenant)
        return tuple(gone)

    # Objects

    def _restore(self, keys: Iterable[str], *, of: int) -> None:
        def one(key: str) -> None:
            self._restore_object(key)
            with self._counting:
                self._finished += 1
                self._step("restoring the store", 0.95 * self._finished / of)

        in_threads(one, keys, threads=self._threads)

    def _restore_object(self, key: str) -> None:
        content = self._backup.objects[key].content
        if self._holds(key, content):
            with self._counting:
                self._there.add(key)
        else:
            self._write(key, content)
            with self._counting:
                self._wrote.add(key)

    def _write(self, key: str, content: ContentDigest) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder) as own:
            path = Path(own) / "content"
            fetch_content(self._place, content, path)
            self._store.put_file(key, path)

    def _holds(self, key: str, content: ContentDigest) -> bool:
        try:
            return self._store.head(key).size == content.size and holds(self._store, key, content)
        except ObjectNotFound:
            return False

    # The fleet

    def _shard_keys(self, root: FleetRoot) -> list[str]:
        return [fleet_shard_key(name, number) for name, number in root.shards.items()]

    def _make_way(self, root: FleetRoot) -> None:
        """Remove the store's own root where it names shards that are about to be others, or cannot be read."""
        try:
            now = read_root(self._store)
        except StoreError:
            self._store.delete(FLEET_ROOT)
            return
        if not now.data or now.data == root.data:
            return
        for key in self._shard_keys(now):
            one = self._backup.objects.get(key)
            if one is not None and not self._holds(key, one.content):
                self._store.delete(FLEET_ROOT)
                return

    def _claim(self, root: FleetRoot, *, without: frozenset[str]) -> None:
        """Have every version that the root names stay, also where a collector of garbage had seen it before."""

        def shard(key: str) -> list[tuple[str, str]]:
            entries = parse_shard(read_content(self._place, self._backup.objects[key].content), what=key)
            return [(tenant, version) for tenant, entry in entries.items() for version in named_versions(entry)]

        shards = in_threads(shard, [key for key in self._shard_keys(root) if key in self._backup.objects])
        named = [one for found in shards for one in found if one[0] not in without]
        in_threads(lambda one: self._claim_version(*one), named, threads=self._threads)

    def _claim_version(self, tenant: str, version: str) -> None:
        files = {name: model_key(tenant, version, name) for name in (WEIGHTS, LABELS, MANIFEST)}
        if files[MANIFEST] not in self._backup.objects or self._wrote.issuperset(files.values()):
            return  # nobody has it, or nobody can have seen it before
        for pause in (*_PAUSES, None):
            try:
                if claim(self._store, read_manifest(self._store, tenant, version, digest=None)):
                    return
            except BundleCorrupt:
                return  # as it was backed up: `macrofleet fleet verify` says more
            except ModelNotFound:
                pass  # a collector was quicker
            if pause is not None:
                self._sleep(pause)
                for key in files.values():
                    if key in self._backup.objects:
                        self._restore_object(key)
        raise PublishConflict(
            f"version {version} of tenant {tenant} is being deleted as garbage",
            remedy="Run `macrofleet garbage collect` an hour after the collector that was interrupted, then run this again.",
        )

    def _write_root(self, root: FleetRoot, *, over: bool) -> None:
        if read_root(self._store).data == root.data:
            self._there.add(FLEET_ROOT)
            return
        # Written again where they were there: a collector may have seen them before, in no fleet that it knew of.
        for key in self._shard_keys(root):
            if key in self._there:
                self._write(key, self._backup.objects[key].content)
        for _ in range(_ROOT_ATTEMPTS):
            now = read_root(self._store)
            if now.data and not over:
                break
            try:
                replace_root(self._store, root.data, etag=now.etag)
            except PreconditionFailed:
                continue
            self._wrote.add(FLEET_ROOT)
            return
        raise PublishConflict(
            f"others wrote the fleet in {self._store.url} while it was restored",
            remedy="Stop what trains and publishes there, then run it again, with --over to replace what they wrote.",
        )
