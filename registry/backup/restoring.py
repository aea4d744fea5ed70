"""Bringing a backup back, in the order in which things are written (`registry.backup.documents.rank`).

Servers may look at the store meanwhile, garbage may be collected, and the process may die at any request; a second run goes
on. For that:

- **The fleet comes last.** In a store that has none its states come back as they were, and its root after them, where there
  still is none. A store that has one gets the backup's entries in one edit of it, as the next generation: whoever follows the
  fleet goes on, its history stays, and no number of a state is used for another one.
- **Tombstones come first**: those of the backup and of every later one, unless the store knows better. Nothing is written of a
  tenant that they say is deleted.
- **What was there already is claimed** (`registry.garbage.collecting`) before the fleet names it: it may be about to go.

Contents are checked on the way.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
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
    StoreUnavailable,
)
from registry.files import ContentDigest, holds, put_immutable_file, scratch_folder
from registry.fleet.at_rest import Root, parse_root, parse_shard, read_root
from registry.fleet.entries import FleetEntry, PreloadPlan
from registry.fleet.history import named_versions
from registry.fleet.state import edit_fleet, read_fleet
from registry.garbage.collecting import claim
from registry.layout import FLEET_PREFIX, FLEET_ROOT, LABELS, MANIFEST, WEIGHTS, fleet_shard_key, model_key
from registry.models import read_manifest
from registry.store import ObjectStore
from registry.threads import in_threads

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]

_THREADS = 8
# Between looks at a version that a collector is just deleting, as `registry.publishing` has them.
_PAUSES = (0.1, 0.3, 1.0, 3.0, 5.0, 10.0)
_ROOT_RANK = rank(FLEET_ROOT)
_FLEET_RANK = rank(FLEET_PREFIX)


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
        root = backup.objects.get(FLEET_ROOT)
        self._root_digest = root.content.sha256 if root is not None else ""
        self._root = self._read_root_of_backup()

    def run(self, *, over: bool) -> Restored:
        in_place = self._look(over=over)
        self._step("restoring who was deleted", 0.0)
        self._restore_tombstones()
        left_out = {0, _ROOT_RANK, _FLEET_RANK} if in_place else {0, _ROOT_RANK}
        keys = [key for key in self._backup.objects if rank(key) not in left_out]
        buried = buried_among(self._store, {owner for key in keys if (owner := owner_of(key))})
        wanted = [key for key in keys if owner_of(key) not in buried]
        for turn in range(1, _ROOT_RANK):
            self._restore([key for key in wanted if rank(key) == turn], of=len(wanted))
        if self._root is not None:
            entries = self._entries(self._root)
            self._claim({tenant: entry for tenant, entry in entries.items() if tenant not in buried})
            if in_place:
                self._edit_fleet(entries, self._root.preload)
            else:
                self._write_root()
        self._step("leaving out who was deleted since", 0.95)
        deleted = self._forget_buried(buried)
        return Restored(
            name=self._backup.name,
            generation=read_root(self._store).generation,
            written=len(self._wrote),
            there=len(self._there),
            deleted=deleted,
        )

    def _look(self, *, over: bool) -> bool:
        """Whether the store has a fleet that is to be another one. Refuses to replace one unasked; what cannot be read is one."""
        try:
            now = read_root(self._store)
            read_fleet(self._store)
        except StoreUnavailable:
            raise
        except StoreError:
            if not over:
                raise
            now = None
        if now is not None and now.data:
            if self._root is None or hashlib.sha256(now.data).hexdigest() != self._root_digest:
                if over:
                    return True
                raise InvalidInput(
                    f"{self._store.url} has a fleet, generation {now.generation}; the backup has {self._backup.generation}",
                    remedy="Restore to an empty bucket or folder, or give --over to go back to the backup here.",
                )
        elif over:
            # States without a root, or with one that nobody can read, are no fleet.
            states = list(self._store.states(FLEET_PREFIX))
            self._store.purge([state for state in states if state.key == FLEET_ROOT])
            self._store.purge([state for state in states if state.key != FLEET_ROOT])
        return False

    def _read_root_of_backup(self) -> Root | None:
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
            if rank(key) < _FLEET_RANK:
                self._store.put_file(key, path)
                return
            # Only where there is none: another one's may be a fleet that came meanwhile.
            try:
                put_immutable_file(self._store, key, path)
            except (PublishConflict, PreconditionFailed):
                raise PublishConflict(
                    f"{self._store.url}/{key} is of another fleet than the backup's",
                    remedy="If nobody else writes there, run it again with --over to replace it.",
                ) from None

    def _holds(self, key: str, content: ContentDigest) -> bool:
        try:
            return self._store.head(key).size == content.size and holds(self._store, key, content)
        except ObjectNotFound:
            return False

    # The fleet

    def _entries(self, root: Root) -> dict[str, FleetEntry]:
        """What the backup's fleet says of each tenant. Raises BackupCorrupt."""

        def shard(key: str) -> Mapping[str, FleetEntry]:
            one = self._backup.objects.get(key)
            if one is None:
                raise BackupCorrupt(f"backup {self._backup.name} lacks {key}", remedy="Restore another backup.")
            try:
                return parse_shard(read_content(self._place, one.content), what=f"{key} in the backup")
            except StoreUnavailable:
                raise
            except StoreError as problem:
                raise BackupCorrupt(problem.what, remedy=problem.remedy) from None

        shards = in_threads(shard, [fleet_shard_key(name, number) for name, number in root.shards.items()])
        return {tenant: entry for found in shards for tenant, entry in found.items()}

    def _edit_fleet(self, entries: Mapping[str, FleetEntry], preload: PreloadPlan | None) -> None:
        """Have the store's own fleet say what the backup's said, as its next generation."""

        def back(tenant: str, now: FleetEntry | None) -> FleetEntry | None:
            entry = entries.get(tenant)
            # A token only grows: what was begun before the backup is not to publish over what comes after it.
            return entry if entry is None or now is None else entry.fenced(now.lease_token)

        def edit(found: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
            gone = buried_among(self._store, found)
            return {tenant: None if tenant in gone else back(tenant, now) for tenant, now in found.items()}

        before = read_fleet(self._store)
        edited = edit_fleet(self._store, [*entries, *before.entries], edit, preload=preload)
        (self._there if edited.generation == before.generation else self._wrote).add(FLEET_ROOT)

    def _write_root(self) -> None:
        if self._holds(FLEET_ROOT, self._backup.objects[FLEET_ROOT].content):
            self._there.add(FLEET_ROOT)
            return
        self._write(FLEET_ROOT, self._backup.objects[FLEET_ROOT].content)
        self._wrote.add(FLEET_ROOT)

    def _claim(self, entries: Mapping[str, FleetEntry]) -> None:
        """Have every version that entries name stay, also where a collector of garbage had seen it before."""
        named = [(tenant, version) for tenant, entry in entries.items() for version in named_versions(entry)]
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
