"""The fleet at rest: 256 shards by tenant hash, each state of a shard an immutable object, and a root that names their numbers.

Every generation that is replaced leaves a record of what made it up (`registry.fleet.history` reads these).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from registry.documents import Document, sha256
from registry.errors import ObjectNotFound, PreconditionFailed, StoreError
from registry.files import put_immutable
from registry.fleet.entries import FleetEntry, PreloadPlan
from registry.layout import FLEET_ROOT, fleet_generation_key, fleet_shard_key
from registry.store import ObjectStore, StoredObject
from registry.threads import THREADS, in_threads

MAX_ROOT_BYTES = 1024 * 1024
_MAX_SHARD_BYTES = 64 * 1024 * 1024
_WRITE_ATTEMPTS = 12

ShardNumbers = dict[Annotated[str, Field(pattern=r"^[0-9a-f]{2}$")], Annotated[int, Field(ge=1)]]


class PastGeneration(Document):
    """A generation of the fleet that was replaced. `registry.fleet.history` reads these.

    Attributes:
        written: when its root was, in seconds since the epoch by the store's clock; None where the store did not say.
        shards: which state of each made it up.
    """

    format: Annotated[int, Field(ge=1, le=1)] = 1
    generation: Annotated[int, Field(ge=1)]
    written: float | None
    shards: ShardNumbers


class Shard(Document):
    """`fleet/shards/<00..ff>/<n>.json`: one state of a shard, the entries of its tenants."""

    format: Annotated[int, Field(ge=1, le=1)] = 1
    tenants: dict[str, FleetEntry]


class Root(Document):
    """`fleet/root.json`: the shards' numbers. Fields of later releases are kept."""

    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    generation: Annotated[int, Field(ge=0)]
    shards: ShardNumbers
    preload: PreloadPlan | None = None


class ShardStates:
    """Shards as last read or written, so that one that stayed as it was is fetched and written only once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._read: dict[str, tuple[int, Shard]] = {}
        self._written: dict[str, tuple[int, Shard, int]] = {}

    def read(self, numbers: Mapping[str, int], *, threads: int = THREADS) -> dict[str, Shard]:
        """The shards in these states; 0 stands for a shard that does not exist yet."""
        wanted = [item for item in numbers.items() if item[1] != self._read.get(item[0], (-1,))[0]]
        shards = in_threads(self._fetch, wanted, threads=threads)
        self._read |= {name: (number, shard) for (name, number), shard in zip(wanted, shards, strict=True)}
        return {name: self._read[name][1] for name in numbers}

    def _fetch(self, state: tuple[str, int]) -> Shard:
        name, number = state
        return _read_shard(self._store, name, number) if number else Shard(tenants={})

    def write(self, shards: Mapping[str, tuple[int, Shard]]) -> dict[str, int]:
        """Write new states, each given with the number of the state it comes after; their numbers."""

        def put(item: tuple[str, tuple[int, Shard]]) -> int:
            name, (base, shard) = item
            known = self._written.get(name)
            if known is not None and known[:2] == (base, shard):
                return known[2]
            return _write_shard(self._store, name, base + 1, shard)

        numbers = dict(zip(shards, in_threads(put, shards.items()), strict=True))
        self._written |= {name: (base, shard, numbers[name]) for name, (base, shard) in shards.items()}
        return numbers


def find_root(store: ObjectStore) -> tuple[Root, StoredObject | None]:
    """The root and the object that it was read from; one of no shards, and None, where there is none. Raises StoreError."""
    try:
        found = store.get(FLEET_ROOT, max_bytes=MAX_ROOT_BYTES)
    except ObjectNotFound:
        return Root(generation=0, shards={}), None
    return Root.parse(found.data, what=f"{store.url}/{FLEET_ROOT}", error=StoreError), found


def write_root(store: ObjectStore, root: Root, etag: str | None) -> bool:
    """Write a root over the one with `etag` (None: where none is); False where another writer was quicker."""
    data = root.to_bytes()
    try:
        store.put(FLEET_ROOT, data, if_match=etag, if_absent=etag is None)
    except PreconditionFailed:
        # The store may have taken our write and lost the answer; its client then retried and was refused.
        try:
            return store.get(FLEET_ROOT, max_bytes=MAX_ROOT_BYTES).data == data
        except ObjectNotFound:
            return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRoot:
    """The root of a fleet as it lies in a store, for whoever copies a fleet as it is.

    Attributes:
        data: its bytes; empty where there is none.
        etag: on which the next write is conditional; None where there is none.
        generation: 0 where there is none.
        shards: the number of each shard's state.
    """

    data: bytes
    etag: str | None
    generation: int
    shards: ShardNumbers


def read_root(store: ObjectStore) -> FleetRoot:
    """The root as it is now. Raises StoreError."""
    root, found = find_root(store)
    data, etag = (found.data, found.etag) if found else (b"", None)
    return FleetRoot(data=data, etag=etag, generation=root.generation, shards=root.shards)


def parse_root(data: bytes, *, what: str) -> Root:
    """A root that lies elsewhere than in a store. Raises StoreError."""
    return Root.parse(data, what=what, error=StoreError)


def parse_shard(data: bytes, *, what: str) -> Mapping[str, FleetEntry]:
    """The entries in the bytes of a shard. Raises StoreError."""
    return Shard.parse(data, what=what, error=StoreError).tenants


def present_generation(store: ObjectStore) -> PastGeneration | None:
    """What makes up the present generation of the fleet, as it will be recorded; None before the first."""
    root, found = find_root(store)
    return _as_recorded(root, found.modified) if found else None


def read_shard(store: ObjectStore, name: str, number: int) -> Mapping[str, FleetEntry]:
    """The entries in one state of a shard. Raises StoreError."""
    return _read_shard(store, name, number).tenants


def rewrite_shard(store: ObjectStore, name: str, number: int, entries: Mapping[str, FleetEntry]) -> None:
    """Write a state of a shard over, which is done in one case only: that a past one loses a tenant that was deleted."""
    store.put(fleet_shard_key(name, number), Shard(tenants=dict(entries)).to_bytes())


def record_generation(store: ObjectStore, root: Root, written: float) -> None:
    """Write down what made up a generation, before another one may take its place."""
    data = _as_recorded(root, written).to_bytes()
    put_immutable(store, fleet_generation_key(root.generation, sha256(data)), data)


def _as_recorded(root: Root, written: float) -> PastGeneration:
    known = written if math.isfinite(written) else None
    return PastGeneration(generation=root.generation, written=known, shards=root.shards)


def _read_shard(store: ObjectStore, name: str, number: int) -> Shard:
    key = fleet_shard_key(name, number)
    found = store.get(key, max_bytes=_MAX_SHARD_BYTES)
    return Shard.parse(found.data, what=f"{store.url}/{key}", error=StoreError)


def _write_shard(store: ObjectStore, name: str, number: int, shard: Shard) -> int:
    """Write a state of a shard under the first free number, or reuse an equal one left by an unfinished writer."""
    data = shard.to_bytes()
    attempts = _WRITE_ATTEMPTS
    while True:
        key = fleet_shard_key(name, number)
        try:
            store.put(key, data, if_absent=True)
        except PreconditionFailed:
            try:
                if store.get(key, max_bytes=_MAX_SHARD_BYTES).data != data:
                    number += 1
                    continue
            except ObjectNotFound:
                # Amazon refuses one of two writes at once before the other one is there; or a collector was quicker.
                attempts -= 1
                if attempts:
                    continue
                raise
        return number
