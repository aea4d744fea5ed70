"""Backups of a store and of the control plane's databases: taken while everything goes on, and whole all the same.
`registry.backup.restoring` brings them back.

Nothing is stopped for one. What makes it whole is the order in which it is read: MLflow's records; then the root of the fleet,
from which on everything that it names lies in the store and stays there for days (`registry.garbage.store_garbage`); then all
objects; then the API keys, whose published form was among these. So what is named is in the backup: whatever the fleet serves,
and whatever MLflow knows of. What came into the store meanwhile may be in it too, and is found by `macrofleet fleet verify`.

A content is kept once, by its digest, however many backups have it; what the last backup had under the same entity tag is not
read again. A backup is a list of objects, written last: without it there is none.
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
    fetch_content,
    read_backup,
    write_backup,
)
from registry.errors import BackupCorrupt, InvalidInput, ObjectNotFound
from registry.files import ContentDigest, content_digest, put_immutable, put_immutable_file, scratch_folder
from registry.fleet.at_rest import read_root
from registry.fleet.state import in_threads
from registry.layout import COLLECTION, COPY_DOCUMENTS, COPY_MARK, FLEET_ROOT, lease_key
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
                    content = ContentDigest(sha256=hasher.hexdigest(), size=size)
                    put_immutable_file(self._place, blob_key(content.sha256), Path(file.name))
                if self._store.head(key).etag == before.etag:
                    with self._counting:
                        self.read += 1
                    return BackedUp(content=content, etag=before.etag)
            except ObjectNotFound:
                return None
        # It changes all the time: the next backup does not know it by this tag, and reads it again.
        return BackedUp(content=content, etag="")

    def dump(self, name: str, dump: Dump) -> dict[str, ContentDigest]:
        path = self._folder / name
        if not dump(path):
            return {}
        content = content_digest(path)  # MLflow's file may be larger than what fits into memory
        put_immutable_file(self._place, blob_key(content.sha256), path)
        return {name: content}

    def keep(self, data: bytes, etag: str) -> BackedUp:
        content = ContentDigest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        put_immutable(self._place, blob_key(content.sha256), data)
        return BackedUp(content=content, etag=etag)


def _is_passing(key: str) -> bool:
    """Leases and notices of collectors are of who holds them now."""
    parts = key.split("/")
    return key == (lease_key(parts[1]) if len(parts) == 3 and parts[0] == "tenants" else "") or key.endswith(
        "/collecting.json"
    )


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


def check_backup(
    place: ObjectStore, name: str, *, step: Step = lambda _text, _share: None, threads: int = _THREADS
) -> list[str]:
    """Read every content of a backup; keys of those that are not there or not what they were.

    Raises:
        InvalidInput, BackupCorrupt: as `read_backup`.
        StoreError: the place failed, so that nobody can say.
    """
    backup = read_backup(place, name)
    finished = 0
    counting = threading.Lock()

    def problem(item: tuple[str, ContentDigest]) -> str | None:
        nonlocal finished
        key, content = item
        with scratch_folder("macrofleet-backup-") as folder:
            try:
                fetch_content(place, content, folder / "content")
            except BackupCorrupt:
                return key
        with counting:
            finished += 1
            step("reading the backup", finished / len(each))
        return None

    each = [(key, one.content) for key, one in backup.objects.items()] + list(backup.databases.items())
    return sorted(found for found in in_threads(problem, each, threads=threads) if found)
