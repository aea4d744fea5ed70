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
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from registry.backup.documents import backup_names, fetch_content, rank, read_content
from registry.backup.lists import Backup, opened_backup
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
from registry.threads import in_threads, stream_in_threads

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]

_THREADS = 8
# Between looks at a version that a collector is just deleting, as `registry.publishing` has them.
_PAUSES = (0.1, 0.3, 1.0, 3.0, 5.0, 10.0)
# The manifest last, as in publishing.
_FILES = (WEIGHTS, LABELS, MANIFEST)
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
    with opened_backup(place, name) as backup, scratch_folder("macrofleet-restore-") as folder:
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
        self._finished = 0
        self._wrote = 0
        self._there = 0
        # Of the list only what all else goes by is held; the rest is gone through once for each rank.
        self._few: dict[str, ContentDigest] = {}
        self._owners: set[str] = set()
        for key, one in backup.objects():
            if rank(key) in (0, _FLEET_RANK, _ROOT_RANK):
                self._few[key] = one.content
            elif (owner := owner_of(key)) is not None:
                self._owners.add(owner)
        self._root_digest = self._few[FLEET_ROOT].sha256 if FLEET_ROOT in self._few else ""
        self._root = self._read_root_of_backup()
        # Of the versions that the fleet names, how many of their files were written here and now.
        self._fresh: dict[tuple[str, str], int] = {}
        self._manifests: set[tuple[str, str]] = set()

    def run(self, *, over: bool) -> Restored:
        in_place = self._look(over=over)
        self._step("restoring who was deleted", 0.0)
        self._restore_tombstones()
        entries = self._entries(self._root) if self._root is not None else {}
        buried = buried_among(self._store, self._owners)
        self._fresh = {
            (tenant, version): 0
            for tenant, entry in entries.items()
            if tenant not in buried
            for version in named_versions(entry)
        }
        for turn in range(1, _FLEET_RANK if in_place else _ROOT_RANK):
            self._restore(turn, without=buried)
        if self._root is not None:
            self._claim()
            if in_place:
                self._edit_fleet(entries, self._root.preload)
            else:
                self._write_root()
        self._step("leaving out who was deleted since", 0.95)
        deleted = self._forget_buried(buried)
        return Restored(
            name=self._backup.heading.name,
            generation=read_root(self._store).generation,
            written=self._wrote,
            there=self._there,
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
                    f"{self._store.url} has a fleet, generation {now.generation}; the backup has "
                    f"{self._backup.heading.generation}",
                    remedy="Restore to an empty bucket or folder, or give --over to go back to the backup here.",
                )
        elif over:
            # States without a root, or with one that nobody can read, are no fleet.
            states = list(self._store.states(FLEET_PREFIX))
            self._store.purge([state for state in states if state.key == FLEET_ROOT])
            self._store.purge([state for state in states if state.key != FLEET_ROOT])
        return False

    def _read_root_of_backup(self) -> Root | None:
        if FLEET_ROOT not in self._few:
            return None
        data = read_content(self._place, self._few[FLEET_ROOT])
        try:
            return parse_root(data, what=f"the fleet's root in backup {self._backup.heading.name}")
        except StoreError as problem:
            raise BackupCorrupt(problem.what, remedy=problem.remedy) from None

    # Tenants that were deleted

    def _restore_tombstones(self) -> None:
        """Have the store know whom this backup, and any later one, knows to be deleted.

        Any, since a store forgets tombstones after a month, and backups may be kept for longer.
        """
        found = {(key, content) for key, content in self._few.items() if rank(key) == 0}
        for name in backup_names(self._place):
            if name > self._backup.heading.name:
                found |= self._tombstones_of(name)
        for key, content in found:
            data = read_content(self._place, content)
            settle(self._store, key, Tombstone.parse(data, what=f"{key} in a backup", error=BackupCorrupt))

    def _tombstones_of(self, later: str) -> set[tuple[str, ContentDigest]]:
        try:
            with opened_backup(self._place, later) as backup:
                return {(key, one.content) for key, one in backup.objects() if rank(key) == 0}
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

    def _restore(self, turn: int, *, without: Collection[str]) -> None:
        """Restore all objects of a rank, but for those of some tenants."""
        items = (
            (key, one.content)
            for key, one in self._backup.objects()
            if rank(key) == turn and owner_of(key) not in without
        )
        for key, written in stream_in_threads(
            lambda item: (item[0], self._restore_object(*item)), items, threads=self._threads
        ):
            self._count(written=written)
            self._note(key, written=written)
            self._step("restoring the store", min(0.95 * self._finished / self._backup.heading.objects, 0.95))

    def _count(self, *, written: bool) -> None:
        self._finished += 1
        self._wrote += written
        self._there += not written

    def _note(self, key: str, *, written: bool) -> None:
        """Note what is there of a version that the fleet names, for its claim."""
        match key.split("/"):
            case ["tenants", tenant, "models", version, name] if (tenant, version) in self._fresh:
                self._fresh[tenant, version] += written and name in _FILES
                if name == MANIFEST:
                    self._manifests.add((tenant, version))

    def _restore_object(self, key: str, content: ContentDigest) -> bool:
        """Have the store hold an object; whether it had to be written for that."""
        if self._holds(key, content):
            return False
        self._write(key, content)
        return True

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
            if key not in self._few:
                raise BackupCorrupt(f"backup {self._backup.heading.name} lacks {key}", remedy="Restore another backup.")
            try:
                return parse_shard(read_content(self._place, self._few[key]), what=f"{key} in the backup")
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
        self._count(written=edited.generation != before.generation)

    def _write_root(self) -> None:
        self._count(written=self._restore_object(FLEET_ROOT, self._few[FLEET_ROOT]))

    def _claim(self) -> None:
        """Have every version that entries name stay, also where a collector of garbage had seen it before."""
        # Others nobody has, or nobody can have seen before.
        seen = [one for one, fresh in self._fresh.items() if one in self._manifests and fresh < len(_FILES)]
        in_threads(lambda one: self._claim_version(*one), seen, threads=self._threads)

    def _claim_version(self, tenant: str, version: str) -> None:
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
                files = [model_key(tenant, version, name) for name in _FILES]
                # What a collector took is looked for in the whole list, which happens once in a blue moon.
                for key, content in sorted(self._listed(files), key=lambda item: files.index(item[0])):
                    self._restore_object(key, content)
        raise PublishConflict(
            f"version {version} of tenant {tenant} is being deleted as garbage",
            remedy="Run `macrofleet garbage collect` an hour after the collector that was interrupted, then run this again.",
        )

    def _listed(self, keys: Collection[str]) -> list[tuple[str, ContentDigest]]:
        return [(key, one.content) for key, one in self._backup.objects() if key in keys]
