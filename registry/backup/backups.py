"""Backups of a store and of the control plane's databases: taken while everything goes on, and whole all the same.

Nothing is stopped for one. What makes it whole is the order in which it is read: MLflow's records; then the root of the fleet,
from which on everything that it names lies in the store and stays there for days (`registry.garbage.store_garbage`); then all
objects; then the API keys, whose published form was among these. So what is named is in the backup: whatever the fleet serves,
and whatever MLflow knows of. What came into the store meanwhile may be in it too, and is found by `macrofleet fleet verify`.

A content is kept once, by its digest, however many backups have it; what the last backup had under the same entity tag is not
read again. A backup is a list of objects, written last: without it there is none.

It is restored in the order in which things are written (`registry.backup.documents.rank`), the fleet's root last, so that
servers which look at the store meanwhile see the fleet that there was, or the whole of what is restored. Contents are checked on
the way. A tenant that a later backup knows to be deleted does not come back.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from registry.backup.documents import (
    BLOBS_PREFIX,
    KEYS,
    TRACKING,
    BackedUp,
    Backup,
    backup_key,
    backup_names,
    blob_key,
    rank,
    read_backup,
    write_backup,
)
from registry.deletion.places import FleetPlace, forget_own
from registry.deletion.remains import find_remains
from registry.deletion.tombstones import buried_among
from registry.errors import BackupCorrupt, InvalidInput, MacrofleetError, ObjectNotFound
from registry.files import FileDigest, download, put_immutable_file, scratch_folder
from registry.fleet.state import in_threads, read_fleet, read_root
from registry.layout import COLLECTION, COPY_DOCUMENTS, COPY_MARK, FLEET_ROOT, TOMBSTONES_PREFIX, lease_key
from registry.store import ObjectStore

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]
# Given a new file's path, writes a database's content there; False: there is nothing to back up.
Dump = Callable[[Path], bool]

DAY = 86_400.0
_THREADS = 8
_CHUNK = 1024 * 1024
_ATTEMPTS = 3
# What is of one moment, or of one store.
_LEFT_OUT = frozenset({COLLECTION, COPY_MARK, COPY_DOCUMENTS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What taking a backup came to: its name, how many objects it has, and how many of their contents were new."""

    name: str
    generation: int
    objects: int
    bytes: int
    read: int
    databases: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What restoring one came to.

    Attributes:
        written: objects; `there`: those that were there already.
        deleted: tenants that a later backup knows to be deleted, and that were left out.
    """

    name: str
    generation: int
    written: int
    there: int
    deleted: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def take_backup(
    store: ObjectStore,
    place: ObjectStore,
    *,
    dump_keys: Dump,
    dump_tracking: Dump,
    step: Step = lambda _text, _share: None,
    clock: Callable[[], float] = time.time,
    threads: int = _THREADS,
) -> Taken:
    """Take a backup. One that is interrupted leaves contents, which the next one finds; nothing else.

    Args:
        place: where backups are; another store.
        dump_keys, dump_tracking: write down the databases.
        step: told how far it is.
        clock: seconds since the epoch.

    Raises:
        InvalidInput: the place is the store itself, or a backup was begun in the same second.
        StoreError: one of the stores failed.
    """
    if place.url == store.url:
        raise InvalidInput(f"{store.url} cannot be its own backup", remedy="Name another bucket or folder.")
    name = datetime.fromtimestamp(clock(), UTC).strftime("%Y%m%dT%H%M%SZ")
    last = backup_names(place)
    if name in last:
        raise InvalidInput(f"{place.url} has a backup {name} already", remedy="Run it again in a second.")
    known = read_backup(place, last[0]).objects if last else {}
    with scratch_folder("macrofleet-backup-") as folder:
        taker = _Taker(store, place, known, folder)
        step("backing up MLflow's records", 0.0)
        databases = taker.dump(TRACKING, dump_tracking)
        root = read_root(store)
        objects = taker.copy(store.list(), step=step, threads=threads)
        step("backing up API keys", 0.99)
        databases |= taker.dump(KEYS, dump_keys)
    if root.data:
        # As it was before all else was read, also where it has changed since.
        objects[FLEET_ROOT] = taker.keep(root.data, root.etag or "")
    backup = Backup(name=name, source=store.url, generation=root.generation, objects=objects, databases=databases)
    write_backup(place, backup)
    return Taken(
        name=name,
        generation=root.generation,
        objects=len(objects),
        bytes=sum(one.content.size for one in objects.values()),
        read=taker.read,
        databases=tuple(sorted(databases)),
    )


class _Taker:
    def __init__(self, store: ObjectStore, place: ObjectStore, known: dict[str, BackedUp], folder: Path) -> None:
        self._store = store
        self._place = place
        self._known = known
        self._folder = folder
        self._counting = threading.Lock()
        self.read = 0

    def copy(self, listing: Iterable[Any], *, step: Step, threads: int) -> dict[str, BackedUp]:
        wanted = [info for info in listing if info.key not in _LEFT_OUT and not _is_passing(info.key)]
        finished = 0

        def one(info: Any) -> BackedUp | None:
            nonlocal finished
            known = self._known.get(info.key)
            kept = known if known is not None and known.etag == info.etag else self._fetch(info.key)
            with self._counting:
                finished += 1
                step("backing up the store", 0.02 + 0.96 * finished / len(wanted))
            return kept

        found = in_threads(one, wanted, threads=threads)
        return {info.key: kept for info, kept in zip(wanted, found, strict=True) if kept is not None}

    def _fetch(self, key: str) -> BackedUp | None:
        """An object's content; None for one that is gone since it was listed. What was written over meanwhile is read again."""
        for _ in range(_ATTEMPTS):
            try:
                before = self._store.head(key)
                with tempfile.NamedTemporaryFile(dir=self._folder) as file:
                    hasher, size = hashlib.sha256(), 0
                    with self._store.open(key) as stream:
                        while chunk := stream.read(_CHUNK):
                            hasher.update(chunk)
                            file.write(chunk)
                            size += len(chunk)
                    file.flush()
                    content = FileDigest(sha256=hasher.hexdigest(), size=size)
                    put_immutable_file(self._place, blob_key(content.sha256), Path(file.name))
                if self._store.head(key).etag == before.etag:
                    with self._counting:
                        self.read += 1
                    return BackedUp(content=content, etag=before.etag)
            except ObjectNotFound:
                return None
        # It changes all the time: the next backup does not know it by this tag, and reads it again.
        return BackedUp(content=content, etag="")

    def dump(self, name: str, dump: Dump) -> dict[str, FileDigest]:
        path = self._folder / name
        if not dump(path):
            return {}
        data = path.read_bytes()
        return {name: self.keep(data, "").content}

    def keep(self, data: bytes, etag: str) -> BackedUp:
        content = FileDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            put_immutable_file(self._place, blob_key(content.sha256), Path(file.name))
        return BackedUp(content=content, etag=etag)


def _is_passing(key: str) -> bool:
    """Leases and notices of collectors are of who holds them now."""
    parts = key.split("/")
    return key == (lease_key(parts[1]) if len(parts) == 3 and parts[0] == "tenants" else "") or key.endswith(
        "/collecting.json"
    )


def restore_store(
    place: ObjectStore,
    name: str,
    store: ObjectStore,
    *,
    over: bool = False,
    step: Step = lambda _text, _share: None,
    threads: int = _THREADS,
) -> Restored:
    """Bring a backup's objects back. One that is interrupted is finished by restoring again.

    What the store has beside them stays: what was published since, say, which no fleet names then.

    Args:
        over: also into a store whose fleet is another one.

    Raises:
        InvalidInput: there is no such backup, or the store has a fleet.
        BackupCorrupt: a content is not there or not what it was; nothing of the fleet was written.
        StoreError: one of the stores failed.
    """
    backup = read_backup(place, name)
    now = read_root(store)
    content = backup.objects.get(FLEET_ROOT)
    same = content is not None and hashlib.sha256(now.data).hexdigest() == content.content.sha256
    if now.data and not same and not over:
        raise InvalidInput(
            f"{store.url} has a fleet, generation {now.generation}; the backup has {backup.generation}",
            remedy="Restore to an empty bucket or folder, or give --over to go back to the backup here.",
        )
    written = there = finished = 0
    counting = threading.Lock()
    with scratch_folder("macrofleet-restore-") as folder:

        def one(key: str) -> None:
            nonlocal written, there, finished
            wrote = _restore(place, store, key, backup.objects[key].content, folder)
            with counting:
                written, there, finished = written + wrote, there + (not wrote), finished + 1
                step("restoring the store", 0.95 * finished / len(backup.objects))

        for turn in range(7):
            in_threads(one, [key for key in backup.objects if rank(key) == turn], threads=threads)
    step("leaving out who was deleted since", 0.95)
    return Restored(
        name=name,
        generation=read_root(store).generation,
        written=written,
        there=there,
        deleted=_forget_deleted(place, store),
    )


def _restore(place: ObjectStore, store: ObjectStore, key: str, content: FileDigest, folder: Path) -> bool:
    """Whether an object had to be written."""
    try:
        if store.head(key).size == content.size:
            with store.open(key) as stream:
                if _digest(stream) == content.sha256:
                    return False
    except ObjectNotFound:
        pass
    with tempfile.TemporaryDirectory(dir=folder) as own:
        path = Path(own) / "content"
        fetch_content(place, content, path)
        store.put_file(key, path)
    return True


def fetch_content(place: ObjectStore, content: FileDigest, path: Path) -> None:
    """Write a content to a new file. Raises BackupCorrupt: it is not there, or not what it was."""
    try:
        download(place, blob_key(content.sha256), path, content, error=BackupCorrupt)
    except ObjectNotFound:
        raise BackupCorrupt(f"{place.url} lacks {blob_key(content.sha256)}", remedy="Restore another backup.") from None


def _digest(stream: Any) -> str:
    hasher = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        hasher.update(chunk)
    return hasher.hexdigest()


def _forget_deleted(place: ObjectStore, store: ObjectStore) -> tuple[str, ...]:
    """Remove tenants again that were deleted after the backup was taken, by what the latest backup says."""
    latest = read_backup(place, backup_names(place)[0])
    for key, one in latest.objects.items():
        if key.startswith(TOMBSTONES_PREFIX):
            with scratch_folder("macrofleet-restore-") as folder:
                _restore(place, store, key, one.content, folder)
    tenants = {*read_fleet(store).entries, *find_remains(store, store.states()).of_tenants}
    buried = sorted(buried_among(store, tenants))
    for tenant in buried:
        FleetPlace(store).remove(tenant)
        forget_own(store, tenant)
    return tuple(buried)


def prune_backups(
    place: ObjectStore, *, keep: int, clock: Callable[[], float] = time.time
) -> tuple[tuple[str, ...], int]:
    """Remove all backups but the latest few, and contents that none of these has. Not while one is being taken.

    Returns:
        The names of those that went, and how many contents did. Contents younger than a day stay: somebody's backup may be
        under way after all.

    Raises:
        InvalidInput: not even one would be kept.
        MacrofleetError: a list cannot be read, so that nobody knows what it needs; no content went.
    """
    if keep < 1:
        raise InvalidInput("at least one backup is kept", remedy="Give --keep 1 or more.")
    names = backup_names(place)
    gone = names[keep:]
    needed: set[str] = set()
    for name in names[:keep]:
        needed |= {blob_key(sha256) for sha256 in read_backup(place, name).contents()}
    for name in gone:
        place.purge(list(place.states(backup_key(name))))
    old = [
        state
        for state in place.states(BLOBS_PREFIX)
        if (state.kind != "current" or state.key not in needed) and clock() - state.modified > DAY
    ]
    place.purge(old)
    return tuple(gone), len(old)


def check_backup(place: ObjectStore, name: str, *, threads: int = _THREADS) -> list[str]:
    """Read every content of a backup; keys of those that are not there or not what they were."""
    backup = read_backup(place, name)

    def problem(item: tuple[str, FileDigest]) -> str | None:
        key, content = item
        with scratch_folder("macrofleet-backup-") as folder:
            try:
                fetch_content(place, content, folder / "content")
            except MacrofleetError:
                return key
        return None

    each = [(key, one.content) for key, one in backup.objects.items()] + list(backup.databases.items())
    return sorted(found for found in in_threads(problem, each, threads=threads) if found)
