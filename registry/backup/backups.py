"""Backups of a store and of the control plane's databases: taken while everything goes on, and whole all the same.
`registry.backup.restoring` brings them back.

Nothing is stopped for one. What makes it whole is the order in which it is read: MLflow's records; then the root of the fleet,
from which on everything that it names lies in the store and stays there for days (`registry.garbage.store_garbage`); then all
objects; then the API keys, whose published form was among these. So what is named is in the backup: whatever the fleet serves,
and whatever MLflow knows of. What came into the store meanwhile may be in it too, and is found by `macrofleet fleet verify`.

A content is kept once, by its digest, however many backups have it; what the last backup had under the same entity tag is not
read again. A backup is a list of objects, written last: without it there is none. Listing, list and the list of the last backup
are in the order of keys, so they pass beside each other and none of them is held.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from registry.backup.documents import (
    BLOBS_PREFIX,
    KEYS,
    TRACKING,
    BackedUp,
    backup_key,
    backup_names,
    blob_key,
    fetch_content,
)
from registry.backup.lists import Backup, ListWriter, opened_backup
from registry.errors import BackupCorrupt, InvalidInput, ObjectNotFound
from registry.files import ContentDigest, content_digest, put_immutable, put_immutable_file, scratch_folder
from registry.fleet.at_rest import read_root
from registry.layout import COLLECTION, COPY_DOCUMENTS, COPY_MARK, FLEET_ROOT, lease_key
from registry.store import ObjectInfo, ObjectState, ObjectStore
from registry.threads import stream_in_threads

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]
# Given a new file's path, writes a database's content there; False: there is nothing to back up.
Dump = Callable[[Path], bool]

DAY = 86_400.0
_THREADS = 8
_CHUNK = 1024 * 1024
_ATTEMPTS = 3
_DIGEST = re.compile(r"[0-9a-f]{64}")
# What is of one moment, or of one store, or read before all else.
_LEFT_OUT = frozenset({COLLECTION, COPY_MARK, COPY_DOCUMENTS, FLEET_ROOT})


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
    with scratch_folder("macrofleet-backup-") as folder, _known(place, last) as (expected, known):
        taker = _Taker(store, place, folder)
        step("backing up MLflow's records", 0.0)
        databases = taker.dump(TRACKING, dump_tracking)
        root = read_root(store)
        copied = taker.copy(known, step=step, threads=threads, expected=expected or sum(1 for _ in store.list()))
        if root.data:
            # As it was before all else was read, also where it has changed since.
            copied = heapq.merge(copied, [(FLEET_ROOT, taker.keep(root.data, root.etag or ""))], key=itemgetter(0))
        with ListWriter(folder).opened() as written:
            for key, one in copied:
                written.add(key, one)
        step("backing up API keys", 0.99)
        databases |= taker.dump(KEYS, dump_keys)
        written.publish(place, name, source=store.url, generation=root.generation, databases=databases)
    return Taken(
        name=name,
        generation=root.generation,
        objects=written.objects,
        bytes=written.bytes,
        read=taker.read,
        databases=tuple(sorted(databases)),
    )


@contextmanager
def _known(place: ObjectStore, names: Sequence[str]) -> Iterator[tuple[int, Iterator[tuple[str, BackedUp]]]]:
    """How many objects the last backup has, and these in the order of their keys."""
    try:
        with ExitStack() as stack:
            backup = stack.enter_context(opened_backup(place, names[0])) if names else None
            kept = stack.pop_all()
    except BackupCorrupt:
        backup, kept = None, ExitStack()
    with kept:
        yield (backup.heading.objects, _legible_part(backup)) if backup is not None else (0, iter(()))


def _legible_part(backup: Backup) -> Iterator[tuple[str, BackedUp]]:
    """What a damaged list no longer says is read again: it is no reason to take no backup any more."""
    with suppress(BackupCorrupt):
        yield from backup.objects()


def _beside(
    listing: Iterable[ObjectInfo], known: Iterator[tuple[str, BackedUp]]
) -> Iterator[tuple[ObjectInfo, BackedUp | None]]:
    """What is listed, each with what is known of it, if anything; both come in the order of keys."""
    ahead = next(known, None)
    for info in listing:
        while ahead is not None and ahead[0] < info.key:
            ahead = next(known, None)
        yield info, ahead[1] if ahead is not None and ahead[0] == info.key else None


class _Taker:
    def __init__(self, store: ObjectStore, place: ObjectStore, folder: Path) -> None:
        self._store = store
        self._place = place
        self._folder = folder
        self._counting = threading.Lock()
        self.read = 0

    def copy(
        self, known: Iterator[tuple[str, BackedUp]], *, step: Step, threads: int, expected: int
    ) -> Iterator[tuple[str, BackedUp]]:
        """Have all that the store has in the place, but for the fleet's root; in the order of keys.

        Args:
            expected: so many objects, or about.
        """
        wanted = (info for info in self._store.list() if info.key not in _LEFT_OUT and not _is_passing(info.key))

        def one(item: tuple[ObjectInfo, BackedUp | None]) -> tuple[str, BackedUp | None]:
            info, known = item
            return info.key, known if known is not None and known.etag == info.etag else self._fetch(info.key)

        for finished, (key, kept) in enumerate(stream_in_threads(one, _beside(wanted, known), threads=threads), 1):
            step("backing up the store", 0.02 + 0.96 * min(finished / max(expected, 1), 1.0))
            if kept is not None:
                yield key, kept

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
    needed = _Contents()
    for name in names[:keep]:
        with opened_backup(place, name) as backup:
            needed.add(one.content.sha256 for _, one in backup.objects())
            needed.add(one.sha256 for one in backup.heading.databases.values())
    for name in gone:
        place.purge(list(place.states(backup_key(name))))
    removed = 0

    def old() -> Iterator[ObjectState]:
        nonlocal removed
        for state in place.states(BLOBS_PREFIX):
            if (state.kind != "current" or state.key not in needed) and clock() - state.modified > DAY:
                removed += 1
                yield state

    place.purge(old())
    return tuple(gone), removed


class _Contents:
    """Which contents backups have, at 8 bytes each.

    That is the beginning of each digest, and of two contents that begin alike (one pair in millions of millions) one may stay.
    """

    def __init__(self) -> None:
        self._known = np.empty(0, np.uint64)

    def add(self, digests: Iterable[str]) -> None:
        new = np.fromiter((int(sha256[:16], 16) for sha256 in digests), np.uint64)
        self._known = np.union1d(self._known, new)

    def __contains__(self, key: str) -> bool:
        digest = key.rpartition("/")[2]
        if key != blob_key(digest) or not _DIGEST.fullmatch(digest):
            return False
        value = np.uint64(int(digest[:16], 16))
        place = int(np.searchsorted(self._known, value))
        return place < len(self._known) and bool(self._known[place] == value)


def check_backup(
    place: ObjectStore, name: str, *, step: Step = lambda _text, _share: None, threads: int = _THREADS
) -> list[str]:
    """Read every content of a backup; keys of those that are not there or not what they were.

    Raises:
        InvalidInput, BackupCorrupt: there is no such backup, or its list cannot be read.
        StoreError: the place failed, so that nobody can say.
    """
    with opened_backup(place, name) as backup:
        databases = backup.heading.databases
        each = chain(((key, one.content) for key, one in backup.objects()), databases.items())
        wrong = []
        for finished, found in enumerate(stream_in_threads(partial(_problem, place), each, threads=threads), 1):
            step("reading the backup", finished / (backup.heading.objects + len(databases)))
            if found is not None:
                wrong.append(found)
    return sorted(wrong)


def _problem(place: ObjectStore, item: tuple[str, ContentDigest]) -> str | None:
    key, content = item
    with scratch_folder("macrofleet-backup-") as folder:
        try:
            fetch_content(place, content, folder / "content")
        except BackupCorrupt:
            return key
    return None
