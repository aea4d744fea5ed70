"""The fleet: which version each tenant serves. It alone decides; everything else follows it.

256 shards by tenant hash, each state of a shard an immutable object; the root names the shards' numbers and is
written conditionally. A reader sees one root, and through it one whole generation.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from registry.documents import Document
from registry.errors import ObjectNotFound, PreconditionFailed, PublishConflict, StoreError
from registry.files import Digest
from registry.layout import FLEET_ROOT, fleet_shard, fleet_shard_key
from registry.store import ObjectStore

_MAX_ROOT_BYTES = 1024 * 1024
_MAX_SHARD_BYTES = 64 * 1024 * 1024
_WRITE_ATTEMPTS = 12


class TenantLimits(Document):
    """What one tenant may use of a replica; None takes the replica's own setting.

    Attributes:
        concurrency: requests under way at once.
        requests_per_second: over time; a second's worth may come at once.
    """

    model_config = ConfigDict(extra="allow")

    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None


class PreloadPlan(Document):
    """What must be on a replica's local disk before it says that it is ready.

    Attributes:
        models: "all"; "pinned"; "top", the `top` tenants with the most recent traffic; "bytes", as many as fit in
            `bytes`, by recent traffic; "none". The pinned ones always come first, and with every plan but "none".
    """

    models: Literal["all", "pinned", "top", "bytes", "none"]
    top: Annotated[int, Field(ge=1)] | None = None
    bytes: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.models == "top") != (self.top is not None) or (self.models == "bytes") != (self.bytes is not None):
            raise ValueError("`top` goes with the plan 'top', and `bytes` with the plan 'bytes'")
        return self


class FleetEntry(Document):
    """What one tenant serves. Fields of later releases are kept when an older one rewrites the entry.

    Attributes:
        version: the model version that serves, or None while there is none.
        manifest: digest of that version's manifest.
        previous: the version that served before, for a quick roll-back.
        previous_manifest: digest of that version's manifest.
        reason: why there is no version to serve (too few examples, say).
        keep_loaded: pinned: on disk and in memory before a replica is ready, and never evicted.
        hold_version: set by a roll-back: publishing does not change what serves until it is released.
        limits: what the tenant may use of each replica.
    """

    model_config = ConfigDict(extra="allow")

    version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    manifest: Digest | None = None
    previous: str | None = None
    previous_manifest: Digest | None = None
    reason: str | None = None
    keep_loaded: bool = False
    hold_version: bool = False
    limits: TenantLimits | None = None

    @property
    def serves(self) -> bool:
        """Whether there is a version to serve."""
        return self.version is not None and self.manifest is not None


class _Shard(Document):
    format: Annotated[int, Field(ge=1, le=1)] = 1
    tenants: dict[str, FleetEntry]


class _Root(Document):
    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    generation: int
    shards: dict[Annotated[str, Field(pattern=r"^[0-9a-f]{2}$")], int]
    preload: PreloadPlan | None = None


# Given a tenant's entry (None: not in the fleet), the entry it shall have (None: leave the fleet).
Change = Callable[[FleetEntry | None], FleetEntry | None]


class Fleet:
    """One generation of the fleet, whole.

    Attributes:
        generation: counts the fleet's writes; 0 for a store without a fleet.
        entries: tenant to entry.
        preload: the plan for every replica, where the fleet has one.
    """

    __slots__ = ("entries", "generation", "preload")

    def __init__(
        self, generation: int, entries: Mapping[str, FleetEntry], *, preload: PreloadPlan | None = None
    ) -> None:
        self.generation = generation
        self.entries = entries
        self.preload = preload

    def serving(self) -> dict[str, FleetEntry]:
        """The entries that name a version."""
        return {tenant: entry for tenant, entry in self.entries.items() if entry.serves}


class FleetReader:
    """Reads the fleet again and again, fetching only what changed. Not for use by two threads at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._etag: str | None = None
        self._shards: dict[str, tuple[int, _Shard]] = {}
        self._fleet: Fleet | None = None

    def refresh(self) -> Fleet:
        """The fleet as it is now; the very object of the last call when nothing changed.

        Raises:
            StoreError: the store failed, or the fleet is damaged; the last fleet stays valid.
        """
        try:
            found = self._store.get_if_changed(FLEET_ROOT, self._etag, max_bytes=_MAX_ROOT_BYTES)
        except ObjectNotFound:
            if self._fleet is None:
                self._fleet = Fleet(0, {})
            return self._fleet
        if found is None and self._fleet is not None:
            return self._fleet
        if found is None:
            raise StoreError(f"{self._store.url} answered 'not changed' to a first read of the fleet")
        root = _Root.parse(found.data, what=f"{self._store.url}/{FLEET_ROOT}", error=StoreError)
        shards = {name: self._shard(name, number) for name, number in root.shards.items()}
        entries = {tenant: entry for shard in shards.values() for tenant, entry in shard.tenants.items()}
        self._shards = {name: (root.shards[name], shard) for name, shard in shards.items()}
        self._etag = found.etag
        self._fleet = Fleet(root.generation, entries, preload=root.preload)
        return self._fleet

    def _shard(self, name: str, number: int) -> _Shard:
        known = self._shards.get(name)
        if known is not None and known[0] == number:
            return known[1]
        return _read_shard(self._store, name, number)


def read_fleet(store: ObjectStore) -> Fleet:
    """The fleet as it is now."""
    return FleetReader(store).refresh()


def update_fleet(store: ObjectStore, changes: Mapping[str, Change]) -> int:
    """Apply changes to the fleet: shards first, then the root, conditionally. Another writer's changes are merged.

    Args:
        changes: by tenant; each is applied to the entry it finds, again whenever another writer was quicker.

    Returns:
        The generation that holds the changes. Nothing is written when no entry differs.

    Raises:
        PublishConflict: other writers kept winning.
    """
    for attempt in range(_WRITE_ATTEMPTS):
        root, etag = _read_root(store)
        numbers = dict(root.shards)
        touched: dict[str, list[str]] = {}
        for tenant in changes:
            touched.setdefault(fleet_shard(tenant), []).append(tenant)
        for name, tenants in touched.items():
            number = numbers.get(name, 0)
            before = _read_shard(store, name, number).tenants if number else {}
            after = dict(before)
            for tenant in tenants:
                entry = changes[tenant](before.get(tenant))
                if entry is None:
                    after.pop(tenant, None)
                else:
                    after[tenant] = entry
            if after != before:
                numbers[name] = _write_shard(store, name, number + 1, _Shard(tenants=after))
        if numbers == root.shards:
            return root.generation
        new = root.model_copy(update={"generation": root.generation + 1, "shards": numbers})
        if _write_root(store, new, etag):
            return new.generation
        time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 6)))  # noqa: S311  # jitter between writers, not a secret
    raise PublishConflict(
        f"the fleet in {store.url} kept changing under this writer",
        remedy="Run it again; if it persists, look for a writer that loops.",
    )


def _read_root(store: ObjectStore) -> tuple[_Root, str | None]:
    try:
        found = store.get(FLEET_ROOT, max_bytes=_MAX_ROOT_BYTES)
    except ObjectNotFound:
        return _Root(generation=0, shards={}), None
    return _Root.parse(found.data, what=f"{store.url}/{FLEET_ROOT}", error=StoreError), found.etag


def _write_root(store: ObjectStore, root: _Root, etag: str | None) -> bool:
    data = root.to_bytes()
    try:
        store.put(FLEET_ROOT, data, if_match=etag, if_absent=etag is None)
    except PreconditionFailed:
        # The store may have taken our write and lost the answer; its client then retried and was refused.
        try:
            return store.get(FLEET_ROOT, max_bytes=_MAX_ROOT_BYTES).data == data
        except ObjectNotFound:
            return False
    return True


def _read_shard(store: ObjectStore, name: str, number: int) -> _Shard:
    key = fleet_shard_key(name, number)
    found = store.get(key, max_bytes=_MAX_SHARD_BYTES)
    return _Shard.parse(found.data, what=f"{store.url}/{key}", error=StoreError)


def _write_shard(store: ObjectStore, name: str, number: int, shard: _Shard) -> int:
    """Write a state of a shard under the first free number, or reuse an equal one left by an unfinished writer."""
    data = shard.to_bytes()
    while True:
        key = fleet_shard_key(name, number)
        try:
            store.put(key, data, if_absent=True)
        except PreconditionFailed:
            if store.get(key, max_bytes=_MAX_SHARD_BYTES).data != data:
                number += 1
                continue
        return number
