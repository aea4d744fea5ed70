"""The fleet: which version each tenant serves. It alone decides; everything else follows it.

256 shards by tenant hash, each state of a shard an immutable object; the root names the shards' numbers and is
written conditionally. A reader sees one root, and through it one whole generation.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, model_validator

from registry.conditional import put_over
from registry.documents import Document, sha256
from registry.errors import ObjectNotFound, PreconditionFailed, PublishConflict, StoreError
from registry.files import Digest, put_immutable
from registry.layout import FLEET_ROOT, fleet_generation_key, fleet_shard, fleet_shard_key
from registry.store import ObjectStore, StoredObject

_MAX_ROOT_BYTES = 1024 * 1024
_MAX_SHARD_BYTES = 64 * 1024 * 1024
_WRITE_ATTEMPTS = 12
_THREADS = 16
# More would be a test of the product, not a sample of what agents do without it.
MAX_HOLDBACK: Final = 0.5

Version = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
In = TypeVar("In")
Out = TypeVar("Out")


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "unset"


# Leave it as it is, where None says something else.
UNSET: Final = Unset.UNSET


class TenantLimits(Document):
    """What one tenant may use of a replica; None takes the replica's own setting.

    Attributes:
        concurrency: requests under way at once.
        requests_per_second: over time; a quarter of that, or up to ten of it, may come at once.
    """

    model_config = ConfigDict(extra="allow")

    concurrency: Annotated[int, Field(ge=1, le=100_000)] | None = None
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None


class PreloadPlan(Document):
    """What must be on a replica's local disk before it says that it is ready.

    Attributes:
        models: "all"; "pinned"; "top", the `top` tenants with the most recent traffic; "bytes", as many as fit in
            `bytes`, by recent traffic; "share", those that the proxy's ring gives to the replica; "none". The pinned ones
            always come first, and with every plan but "none".
    """

    model_config = ConfigDict(extra="allow")

    models: Literal["all", "pinned", "top", "bytes", "share", "none"]
    top: Annotated[int, Field(ge=1)] | None = None
    bytes: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if (self.models == "top") != (self.top is not None) or (self.models == "bytes") != (self.bytes is not None):
            raise ValueError("`top` goes with the plan 'top', and `bytes` with the plan 'bytes'")
        return self


class Rollout(Document):
    """Where a tenant is in a staged roll-out.

    Attributes:
        stage: "canary": the tenant serves the new version ahead of the others, which are told by what it does there;
            "halted": that version was taken back, and is not tried again unless it is forced.
        version, manifest: which version that is.
        previous, previous_manifest: what was the tenant's previous version before, for when this one is taken back.
    """

    model_config = ConfigDict(extra="allow")

    stage: str
    version: str
    manifest: Digest
    previous: str | None = None
    previous_manifest: Digest | None = None


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
        candidate: a version that passed the gate and waits for a person to promote it.
        candidate_manifest: digest of that version's manifest.
        shadow: a version that is loaded beside the one that serves and compared with it, without being shown.
        shadow_manifest: digest of that version's manifest.
        rollout: where the tenant is in a staged roll-out.
        limits: what the tenant may use of each replica.
        holdback: of its views with something to show, what share shows nothing; None takes the replica's own setting.
        lease_token: of the lease under which a version was published last; it only grows.
    """

    model_config = ConfigDict(extra="allow")

    version: Version | None = None
    manifest: Digest | None = None
    previous: str | None = None
    previous_manifest: Digest | None = None
    reason: str | None = None
    keep_loaded: bool = False
    hold_version: bool = False
    candidate: Version | None = None
    candidate_manifest: Digest | None = None
    shadow: Version | None = None
    shadow_manifest: Digest | None = None
    rollout: Rollout | None = None
    limits: TenantLimits | None = None
    holdback: Annotated[float, Field(ge=0, le=MAX_HOLDBACK, allow_inf_nan=False)] | None = None
    lease_token: Annotated[int, Field(ge=0)] = 0

    @property
    def serves(self) -> bool:
        """Whether there is a version to serve."""
        return self.version is not None and self.manifest is not None

    @property
    def is_canary(self) -> bool:
        """Whether the version that serves is on trial for others."""
        return self.rollout is not None and (self.rollout.stage, self.rollout.version) == ("canary", self.version)

    def with_version(self, version: str, manifest: str) -> Self:
        """The entry once `version` serves; what served until then becomes the previous one.

        It is no candidate or shadow any more, and no roll-out that went before concerns it. All else stays.
        """
        if (version, manifest) == (self.version, self.manifest):
            return self
        update: dict[str, object] = {"version": version, "manifest": manifest, "reason": None, "rollout": None}
        if self.serves and self.version != version:
            update |= {"previous": self.version, "previous_manifest": self.manifest}
        if self.candidate == version:
            update |= {"candidate": None, "candidate_manifest": None}
        if self.shadow == version:
            update |= {"shadow": None, "shadow_manifest": None}
        return self.model_copy(update=update)

    def published(self, version: str, manifest: str, *, token: int = 0) -> Self:
        """The entry once a newly trained version is there: it serves, unless the entry holds the one it has.

        An older candidate has been overtaken. A shadow goes on: it is compared with whatever serves.

        Args:
            token: of the lease under which it was trained; see `fenced`.
        """
        if token < self.lease_token:
            return self
        entry = self.fenced(token)
        if self.hold_version:
            return entry
        after = entry.with_version(version, manifest)
        if after.candidate is None:
            return after
        return after.model_copy(update={"candidate": None, "candidate_manifest": None})

    def fenced(self, token: int) -> Self:
        """The entry once something was published under a lease with this token.

        With a smaller one nothing is: whoever publishes now was replaced meanwhile, and its version is older than what the
        entry knows of. Whoever writes asks before.
        """
        return self if token <= self.lease_token else self.model_copy(update={"lease_token": token})


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


class _Shard(Document):
    format: Annotated[int, Field(ge=1, le=1)] = 1
    tenants: dict[str, FleetEntry]


class _Root(Document):
    model_config = ConfigDict(extra="allow")

    format: Annotated[int, Field(ge=1, le=1)] = 1
    generation: Annotated[int, Field(ge=0)]
    shards: ShardNumbers
    preload: PreloadPlan | None = None


# Given a tenant's entry (None: not in the fleet), the entry it shall have (None: leave the fleet).
Change = Callable[[FleetEntry | None], FleetEntry | None]
# The same for several tenants at once, which can refuse all of them by raising.
Edit = Callable[[Mapping[str, FleetEntry | None]], Mapping[str, FleetEntry | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetEdit:
    """What a write of the fleet found and what it left.

    Attributes:
        generation: the fleet's; the one that holds the edit, or the present one where nothing was written.
        before, after: tenant to entry, None where it is not in the fleet.
        preload_before, preload_after: the fleet's preload plan.
    """

    generation: int
    before: Mapping[str, FleetEntry | None]
    after: Mapping[str, FleetEntry | None]
    preload_before: PreloadPlan | None
    preload_after: PreloadPlan | None

    def changed(self) -> list[str]:
        """The tenants whose entry differs, in order."""
        return sorted(tenant for tenant, entry in self.after.items() if entry != self.before[tenant])


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
        self._states = _ShardStates(store)
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
        # Side by side only on the first read: later ones run beside requests, which many threads would hold up.
        shards = self._states.read(root.shards, threads=_THREADS if self._fleet is None else 1)
        entries = {tenant: entry for shard in shards.values() for tenant, entry in shard.tenants.items()}
        self._etag = found.etag
        self._fleet = Fleet(root.generation, entries, preload=root.preload)
        return self._fleet


def read_fleet(store: ObjectStore) -> Fleet:
    """The fleet as it is now."""
    return FleetReader(store).refresh()


def update_fleet(
    store: ObjectStore, changes: Mapping[str, Change], *, preload: PreloadPlan | Unset | None = UNSET
) -> int:
    """Apply changes to the fleet, each tenant for itself; otherwise as `edit_fleet`.

    Args:
        changes: by tenant.
        preload: the plan for every replica; None takes it away.

    Returns:
        The generation that holds the changes.
    """

    def edit(found: Mapping[str, FleetEntry | None]) -> dict[str, FleetEntry | None]:
        return {tenant: changes[tenant](entry) for tenant, entry in found.items()}

    return edit_fleet(store, changes, edit, preload=preload).generation


def edit_fleet(
    store: ObjectStore,
    tenants: Iterable[str],
    edit: Edit,
    *,
    preload: PreloadPlan | Unset | None = UNSET,
    write: bool = True,
    touch: bool = False,
) -> FleetEdit:
    """Edit the fleet in one write: shards first, then the root, conditionally. Another writer's edits are merged.

    Args:
        tenants: whose entries are edited.
        edit: given their entries, what these shall be. It is applied again whenever another writer was quicker, and
            may then find its own outcome, if the answer to a write was lost: applied to that, it must change nothing.
            What it raises is passed on, and nothing was written.
        preload: the plan for every replica; None takes it away.
        write: False only says what would be written.
        touch: write a generation also where nothing differs, so that whoever has read the last one, and is about to
            write, has to look again.

    Returns:
        What was found and left. Nothing is written when nothing differs, but for `touch`.

    Raises:
        PublishConflict: other writers kept winning.
    """
    places: dict[str, list[str]] = {}
    for tenant in dict.fromkeys(tenants):
        places.setdefault(fleet_shard(tenant), []).append(tenant)
    states = _ShardStates(store)
    for attempt in range(_WRITE_ATTEMPTS):
        root, found = _read_root(store)
        shards = states.read({name: root.shards.get(name, 0) for name in places})
        before = {tenant: shards[name].tenants.get(tenant) for name, members in places.items() for tenant in members}
        after = {**before, **edit(before)}
        edited = {name: _edited(shards[name], {tenant: after[tenant] for tenant in places[name]}) for name in places}
        changed = {name: shard for name, shard in edited.items() if shard is not None}
        plan = root.preload if isinstance(preload, Unset) else preload
        report = FleetEdit(
            generation=root.generation,
            before=before,
            after=after,
            preload_before=root.preload,
            preload_after=plan,
        )
        if not write or not (changed or touch or plan != root.preload):
            return report
        numbers = root.shards | states.write({name: (root.shards.get(name, 0), changed[name]) for name in changed})
        if found is not None:
            _record(store, root, found.modified)
        generation = root.generation + 1
        new = root.model_copy(update={"generation": generation, "shards": numbers, "preload": plan})
        if _write_root(store, new, found.etag if found else None):
            return replace(report, generation=generation)
        time.sleep(random.uniform(0, 0.02 * 2 ** min(attempt, 6)))  # noqa: S311  # jitter between writers, not a secret
    raise PublishConflict(
        f"the fleet in {store.url} kept changing under this writer",
        remedy="Run it again; if it persists, look for a writer that loops.",
    )


def in_threads(function: Callable[[In], Out], items: Iterable[In], *, threads: int = _THREADS) -> list[Out]:
    """`function` of every item, in order, several at once: what waits for a store waits side by side.

    Raises:
        Exception: what `function` raises first; what has not begun then is left out.
    """
    work = list(items)
    if min(threads, len(work)) < 2:
        return [function(item) for item in work]
    with ThreadPoolExecutor(min(threads, len(work))) as pool:
        return list(pool.map(function, work))


class _ShardStates:
    """Shards as last read or written, so that one that stayed as it was is fetched and written only once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._read: dict[str, tuple[int, _Shard]] = {}
        self._written: dict[str, tuple[int, _Shard, int]] = {}

    def read(self, numbers: Mapping[str, int], *, threads: int = _THREADS) -> dict[str, _Shard]:
        """The shards in these states; 0 stands for a shard that does not exist yet."""
        wanted = [item for item in numbers.items() if item[1] != self._read.get(item[0], (-1,))[0]]
        shards = in_threads(self._fetch, wanted, threads=threads)
        self._read |= {name: (number, shard) for (name, number), shard in zip(wanted, shards, strict=True)}
        return {name: self._read[name][1] for name in numbers}

    def _fetch(self, state: tuple[str, int]) -> _Shard:
        name, number = state
        return _read_shard(self._store, name, number) if number else _Shard(tenants={})

    def write(self, shards: Mapping[str, tuple[int, _Shard]]) -> dict[str, int]:
        """Write new states, each given with the number of the state it comes after; their numbers."""

        def put(item: tuple[str, tuple[int, _Shard]]) -> int:
            name, (base, shard) = item
            known = self._written.get(name)
            if known is not None and known[:2] == (base, shard):
                return known[2]
            return _write_shard(self._store, name, base + 1, shard)

        numbers = dict(zip(shards, in_threads(put, shards.items()), strict=True))
        self._written |= {name: (base, shard, numbers[name]) for name, (base, shard) in shards.items()}
        return numbers


def _edited(shard: _Shard, entries: Mapping[str, FleetEntry | None]) -> _Shard | None:
    """The shard with these entries in it (None: without them), or None where that changes nothing."""
    after = dict(shard.tenants)
    for tenant, entry in entries.items():
        if entry is None:
            after.pop(tenant, None)
        else:
            after[tenant] = entry
    return None if after == shard.tenants else _Shard(tenants=after)


def _read_root(store: ObjectStore) -> tuple[_Root, StoredObject | None]:
    try:
        found = store.get(FLEET_ROOT, max_bytes=_MAX_ROOT_BYTES)
    except ObjectNotFound:
        return _Root(generation=0, shards={}), None
    return _Root.parse(found.data, what=f"{store.url}/{FLEET_ROOT}", error=StoreError), found


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
    root, found = _read_root(store)
    data, etag = (found.data, found.etag) if found else (b"", None)
    return FleetRoot(data=data, etag=etag, generation=root.generation, shards=root.shards)


def replace_root(store: ObjectStore, data: bytes, *, etag: str | None) -> None:
    """Have a fleet that was served before, or elsewhere, be served. Its shards are there.

    Args:
        data: the root's.
        etag: of the root that it replaces, of which a record stays, so that what it named is kept for as long as any; None
            where there is none.

    Raises:
        PreconditionFailed: another writer was quicker.
    """
    root, found = _read_root(store)
    if found is not None and found.etag == etag and found.data != data:
        _record(store, root, found.modified)
    put_over(store, FLEET_ROOT, data, etag=etag)


def parse_root(data: bytes, *, what: str) -> FleetRoot:
    """A root that lies elsewhere than in a store. Raises StoreError."""
    root = _Root.parse(data, what=what, error=StoreError)
    return FleetRoot(data=data, etag=None, generation=root.generation, shards=root.shards)


def parse_shard(data: bytes, *, what: str) -> Mapping[str, FleetEntry]:
    """The entries in the bytes of a shard. Raises StoreError."""
    return _Shard.parse(data, what=what, error=StoreError).tenants


def present_generation(store: ObjectStore) -> PastGeneration | None:
    """What makes up the present generation of the fleet, as it will be recorded; None before the first."""
    root, found = _read_root(store)
    return _as_recorded(root, found.modified) if found else None


def read_shard(store: ObjectStore, name: str, number: int) -> Mapping[str, FleetEntry]:
    """The entries in one state of a shard. Raises StoreError."""
    return _read_shard(store, name, number).tenants


def rewrite_shard(store: ObjectStore, name: str, number: int, entries: Mapping[str, FleetEntry]) -> None:
    """Write a state of a shard over, which is done in one case only: that a past one loses a tenant that was deleted."""
    store.put(fleet_shard_key(name, number), _Shard(tenants=dict(entries)).to_bytes())


def _record(store: ObjectStore, root: _Root, written: float) -> None:
    """Write down what made up a generation, before another one may take its place."""
    data = _as_recorded(root, written).to_bytes()
    put_immutable(store, fleet_generation_key(root.generation, sha256(data)), data)


def _as_recorded(root: _Root, written: float) -> PastGeneration:
    known = written if math.isfinite(written) else None
    return PastGeneration(generation=root.generation, written=known, shards=root.shards)


def _read_shard(store: ObjectStore, name: str, number: int) -> _Shard:
    key = fleet_shard_key(name, number)
    found = store.get(key, max_bytes=_MAX_SHARD_BYTES)
    return _Shard.parse(found.data, what=f"{store.url}/{key}", error=StoreError)


def _write_shard(store: ObjectStore, name: str, number: int, shard: _Shard) -> int:
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
