"""A second region's store, kept as a copy of the first one by what is written in which order.

A bucket's own replication keeps no order: a fleet could arrive before a model that it names. Here everything comes before
what names it, and the root of the fleet last:

    tombstones; programs, models (files, then the manifest); catalogues and settings; API keys; the fleet's past; its shards
    the root, conditionally: from here on the copy serves this generation
    then what is in the source no longer: tenants that were deleted, documents, past states of the fleet

So whoever reads the copy, at any moment and after a crash at any write, finds a whole fleet: the last one or the new one. Who
runs it again goes on where it stands, for what is there is not copied again. What is copied is checked on its way: models
against their manifests, manifests against the fleet, programs against their digests. What does not pass is not copied and named
at the end. Where that is a version that serves, the copy keeps the generation that it has: a root is copied as it is, and one
that names what is not there would be no whole fleet. All other models, catalogues, settings and keys are brought up to date
all the same; above all a key that was revoked does not stay for somebody's damaged model.

Two copies of one source may be under way at once. What can change in its place is read after the entity tag under which it is
written, so nothing is replaced by what was read before it; and a root only by one of a later generation. A source whose fleet
has an earlier generation than the copy was restored, or is the wrong one, and is refused.

Models that are about to be named are claimed in the copy (`registry.garbage.collecting`), so that garbage can be collected there
at any time. Tickets, feedback and records of runs stay where they are: nobody serves from them, and `registry.backup.backups`
has them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from registry.conditional import put_over
from registry.deletion.places import HiddenPlace, forget_own
from registry.deletion.remains import find_remains
from registry.deletion.tombstones import is_buried
from registry.errors import InvalidInput, ModelNotFound, ObjectNotFound, PreconditionFailed, StoreError
from registry.files import put_immutable
from registry.fleet.at_rest import FleetRoot, parse_shard, read_root
from registry.fleet.history import FLEET_SHARD
from registry.fleet.state import FleetEntry, in_threads
from registry.layout import (
    ACCESS_KEYS,
    FLEET_PREFIX,
    FLEET_ROOT,
    TOMBSTONES_PREFIX,
    catalogue_key,
    fleet_shard,
    fleet_shard_key,
    tenant_prefix,
    tombstone_key,
)
from registry.regions.documents import DocumentCopier
from registry.regions.marks import (
    CopyMark,
    check_mark,
    finish_mark,
    place_of,
    read_mark,
    write_mark,
)
from registry.regions.models import ModelCopier
from registry.store import ObjectStore

# Told (what is going on, finished share between 0 and 1).
Step = Callable[[str, float], None]

_THREADS = 8
_ATTEMPTS = 5
_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What a copy came to.

    Attributes:
        generation: of the fleet that the copy has now.
        before: what it had.
        models: versions that were copied; `documents`: objects of other kinds.
        removed: objects that the source has no longer.
        tenants_removed: those that were deleted in the source.
        missing: versions that the source's fleet names beside those that serve, and that the source does not have.
        damaged: such of which the source has something else than the fleet, their manifests or programs say; and what that is.
    """

    generation: int
    before: int
    models: int
    documents: int
    removed: int
    tenants_removed: tuple[str, ...]
    missing: tuple[str, ...]
    damaged: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all that the fleet names is in the copy now, as far as this pass looked."""
        return not self.missing and not self.damaged

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {name: getattr(self, name) for name in self.__slots__}


def copy_region(
    source: ObjectStore,
    destination: ObjectStore,
    *,
    adopt: bool = False,
    everything: bool = False,
    step: Step = lambda _text, _share: None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    threads: int = _THREADS,
) -> Copied:
    """Bring a copy up to date with its source. Run again after an interruption, it goes on.

    Args:
        adopt: take over a destination that has a fleet and is not this source's copy, and may be ahead of it.
        everything: look at every model that the fleet names, not only where the fleet changed.
        step: told how far it is.
        clock: seconds since the epoch.
        sleep: waits so many seconds for a collector of garbage.

    Raises:
        InvalidInput: the source has no fleet, is a copy itself, or the destination is not a copy of it, or ahead of it.
        ModelNotFound, BundleCorrupt, ProgramCorrupt, PublishConflict: the source lacks a model that its fleet serves, or what
            it has is not what the fleet says. The destination stays at the generation it has; all else was copied.
        StoreError: one of the stores failed.
    """
    for _ in range(_ATTEMPTS):
        copier = _Copier(source, destination, step=step, sleep=sleep, threads=threads, everything=everything or adopt)
        try:
            done = copier.run(adopt=adopt)
        except _Overtaken:
            continue
        except (ModelNotFound, ObjectNotFound):
            # Deleted while it was copied, most likely.
            if read_root(source).generation != copier.generation:
                continue
            raise
        finish_mark(destination, CopyMark(source=place_of(source), generation=done.generation, finished_at=clock()))
        return done
    raise StoreError(
        f"the fleet in {source.url} kept changing while it was copied",
        remedy="Run it again; if it persists, look for a writer that loops.",
    )


class _Overtaken(Exception):
    """The source, or another copy of it, has gone on."""


@dataclass(slots=True)
class _Tally:
    objects: int = 0
    removed: int = 0
    tenants: list[str] = field(default_factory=list)


class _Copier:
    def __init__(
        self,
        source: ObjectStore,
        destination: ObjectStore,
        *,
        step: Step,
        sleep: Callable[[float], None],
        threads: int,
        everything: bool,
    ) -> None:
        self._source = source
        self._where = place_of(source)
        self._destination = destination
        self._step = step
        self._threads = threads
        self._everything = everything
        self._changed: list[tuple[str, FleetEntry]] = []
        self._counting = threading.Lock()
        self._models = ModelCopier(source, destination, sleep=sleep)
        self._tally = _Tally()
        self.generation = 0

    def run(self, *, adopt: bool) -> Copied:
        # In this order: whatever the destination has by then was read from the source before.
        theirs = read_root(self._destination)
        ours = read_root(self._source)
        self.generation = ours.generation
        replaces = self._check(ours, theirs, adopt=adopt)
        if replaces == "fleet":
            self._drop_fleet()
            write_mark(self._destination, CopyMark(source=self._where, replaces="documents"))
            theirs = read_root(self._destination)
        documents = DocumentCopier(
            self._source,
            self._destination,
            where=self._where,
            threads=self._threads,
            afresh=replaces is not None,
        )
        self._step("copying tombstones", 0.0)
        tombstones = {info.key: info.etag for info in self._source.list(TOMBSTONES_PREFIX)}
        buried_since = documents.copy(tombstones, settled=False)
        shards = self._read_shards(ours, theirs)
        self._note_changes(shards, theirs)
        self._models.copy_all(
            self._changed, threads=self._threads, told=lambda share: self._step("copying models", 0.05 + 0.75 * share)
        )
        self._step("copying catalogues, settings and keys", 0.8)
        check_mark(self._destination)
        listing = documents.tenants_documents()
        listing |= {info.key: info.etag for info in self._source.list(ACCESS_KEYS) if info.key == ACCESS_KEYS}
        documents.copy(listing)
        self._check_catalogues(ours, documents.known)
        if self._models.unserved:
            documents.save(settled=False)
            self._models.check_served()
        self._step("copying the fleet", 0.9)
        check_mark(self._destination)
        past = self._copy_fleet(ours, shards)
        if ours.data != theirs.data:
            self._write_root(ours, theirs)
        self._step("removing what the source has no longer", 0.95)
        check_mark(self._destination)
        documents.remove(
            {**tombstones, **listing}, is_needed=lambda tenant: self._is_named(tenant, ours), is_gone=self._is_gone
        )
        self._remove_past(past, ours, theirs)
        if buried_since:
            self._remove_tenants(ours, documents)
        documents.save()
        return Copied(
            generation=ours.generation,
            before=theirs.generation,
            models=self._models.models,
            documents=documents.copied + self._tally.objects + self._models.objects,
            removed=documents.removed + self._tally.removed,
            tenants_removed=tuple(self._tally.tenants),
            missing=tuple(sorted(self._models.missing)),
            damaged=tuple(sorted(self._models.damaged)),
        )

    def _check(self, ours: FleetRoot, theirs: FleetRoot, *, adopt: bool) -> Literal["fleet", "documents"] | None:
        """Refuse what must not be. Returns what of the destination's own has to go first, or while it is copied to."""
        where, there = self._where, place_of(self._destination)
        if where == there:
            raise InvalidInput(f"{where} cannot be a copy of itself", remedy="Name another store to copy to.")
        if not ours.data:
            raise InvalidInput(f"{where} has no fleet to copy", remedy="Check MACROFLEET_STORE_URL.")
        if (mark := read_mark(self._source)) is not None:
            raise InvalidInput(
                f"{where} is itself a copy, of {mark.source}",
                remedy="Copy from that one; `macrofleet regions promote` makes a home of a copy.",
            )
        mark = read_mark(self._destination)
        if mark is not None and mark.source == where and mark.replaces == "fleet":
            return "fleet"  # adopted, by a copy that did not get as far as removing it
        problem = _problem(ours, theirs, mark, where=where, there=there)
        if problem is not None and not adopt:
            raise problem
        # Also what is left of a fleet without a root, in whose place no other one could come.
        drops = problem is not None or (adopt and not theirs.data)
        replaces: Literal["fleet", "documents"] | None = "fleet" if drops else None
        if replaces or mark is None or mark.source != where:
            # Before anything else is written: a copy that was interrupted is one, and knows what it was at.
            write_mark(self._destination, CopyMark(source=where, generation=theirs.generation, replaces=replaces))
            return replaces
        return mark.replaces

    def _drop_fleet(self) -> None:
        """Remove the destination's own fleet, the root first. Servers that have read it go on with what they know."""
        states = list(self._destination.states(FLEET_PREFIX))
        self._destination.purge([state for state in states if state.key == FLEET_ROOT])
        self._destination.purge([state for state in states if state.key != FLEET_ROOT])

    # Models

    def _read_shards(self, ours: FleetRoot, theirs: FleetRoot) -> dict[str, bytes]:
        """The shards that differ from those of the destination's root, by name."""
        wanted = [name for name, number in ours.shards.items() if self._everything or theirs.shards.get(name) != number]
        found = in_threads(
            lambda name: self._source.get(fleet_shard_key(name, ours.shards[name]), max_bytes=_MAX_BYTES).data,
            wanted,
            threads=self._threads,
        )
        return dict(zip(wanted, found, strict=True))

    def _note_changes(self, shards: Mapping[str, bytes], theirs: FleetRoot) -> None:
        for name, data in shards.items():
            named_there = {} if self._everything else self._entries_there(name, theirs)
            for tenant, entry in parse_shard(data, what=f"{self._source.url}: shard {name}").items():
                if named_there.get(tenant) != entry:
                    self._changed.append((tenant, entry))

    def _entries_there(self, name: str, theirs: FleetRoot) -> Mapping[str, FleetEntry]:
        if name not in theirs.shards:
            return {}
        key = fleet_shard_key(name, theirs.shards[name])
        return parse_shard(self._destination.get(key, max_bytes=_MAX_BYTES).data, what=f"{self._destination.url}/{key}")

    def _check_catalogues(self, ours: FleetRoot, known: Collection[str]) -> None:
        """A tenant without a catalogue is suggested nothing: it was deleted since the root was read, or never had one."""
        without = any(entry.serves and catalogue_key(tenant) not in known for tenant, entry in self._changed)
        if without and read_root(self._source).generation != ours.generation:
            raise _Overtaken

    # The fleet

    def _copy_fleet(self, ours: FleetRoot, shards: Mapping[str, bytes]) -> set[str]:
        """Copy the fleet's past and the shards of its root, not the root. Returns the keys that the source has."""
        here = {info.key: info.size for info in self._source.list(FLEET_PREFIX) if info.key != FLEET_ROOT}
        there = {info.key: info.size for info in self._destination.list(FLEET_PREFIX)}
        present = {fleet_shard_key(name, number) for name, number in ours.shards.items()}

        def copy_past(key: str) -> None:
            # A state that lost a tenant which was deleted is the one thing of the fleet that is written over.
            try:
                self._destination.put(key, self._source.get(key, max_bytes=_MAX_BYTES).data)
                with self._counting:
                    self._tally.objects += 1
            except ObjectNotFound:
                return  # collected since it was listed

        past = [key for key, size in here.items() if key not in present and there.get(key) != size]
        in_threads(copy_past, sorted(past, reverse=True), threads=self._threads)
        for name, data in shards.items():
            self._tally.objects += put_immutable(self._destination, fleet_shard_key(name, ours.shards[name]), data)
        return set(here)

    def _write_root(self, ours: FleetRoot, theirs: FleetRoot) -> None:
        try:
            put_over(self._destination, FLEET_ROOT, ours.data, etag=theirs.etag)
        except PreconditionFailed:
            raise _Overtaken from None

    # What the source has no longer

    def _is_named(self, tenant: str, root: FleetRoot) -> bool:
        number = root.shards.get(fleet_shard(tenant), 0)
        if not number:
            return False
        key = fleet_shard_key(fleet_shard(tenant), number)
        data = self._destination.get(key, max_bytes=_MAX_BYTES).data
        return tenant in parse_shard(data, what=f"{self._destination.url}/{key}")

    def _remove_past(self, here: Collection[str], ours: FleetRoot, theirs: FleetRoot) -> None:
        """Remove past states of the fleet that the source has forgotten; not those of the root before, which readers are at."""
        needed = {fleet_shard_key(*item) for root in (ours, theirs) for item in root.shards.items()} | {FLEET_ROOT}
        for info in list(self._destination.list(FLEET_PREFIX)):
            found = FLEET_SHARD.fullmatch(info.key)
            # One with a greater number is that of a later generation, which another copy is about to bring.
            later = found is not None and int(found[2]) > ours.shards.get(found[1], 0)
            if info.key not in here and info.key not in needed and not later and self._is_gone(info.key):
                self._destination.delete(info.key)
                self._tally.removed += 1

    def _is_gone(self, key: str) -> bool:
        try:
            self._source.head(key)
        except ObjectNotFound:
            return True
        return False

    def _remove_tenants(self, ours: FleetRoot, documents: DocumentCopier) -> None:
        remains = find_remains(self._destination, self._destination.states())
        for tenant in remains.of_tenants:
            if self._is_named(tenant, ours):
                # Deleted since the root was read: the next copy removes it.
                documents.known.pop(tombstone_key(tenant), None)
            elif is_buried(self._source, tenant):
                documents.doubt([key for key in documents.known if key.startswith(tenant_prefix(tenant))])
                # What is the tenant's own goes last: by that a copy which goes on after a crash finds it.
                self._tally.removed += HiddenPlace(self._destination).remove(tenant)
                self._tally.removed += forget_own(self._destination, tenant)
                self._tally.tenants.append(tenant)


def _problem(
    ours: FleetRoot, theirs: FleetRoot, mark: CopyMark | None, *, where: str, there: str
) -> InvalidInput | None:
    """Why a destination is not written over."""
    if mark is not None and mark.source != where:
        return InvalidInput(
            f"{there} is a copy of {mark.source}, not of {where}",
            remedy="Copy to another store; --adopt makes it this one's copy.",
        )
    if mark is None and theirs.data:
        return InvalidInput(
            f"{there} has a fleet of its own, generation {theirs.generation}",
            remedy="Copy to another store. If all that it has may be replaced, --adopt makes a copy of it.",
        )
    same = theirs.generation == ours.generation
    if theirs.generation > ours.generation or (same and theirs.data not in (b"", ours.data)):
        return InvalidInput(
            f"{there} has generation {theirs.generation} of the fleet, and {where} {'another' if same else 'only'} "
            f"{ours.generation}",
            remedy="Was the source restored from a backup? If it is what shall be served, --adopt goes back to it.",
        )
    return None
